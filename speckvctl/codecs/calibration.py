# SPDX-License-Identifier: MIT
"""Calibrations of the codec mode q5c: what a model's KV looks like, and where errors in it hurt.

The model is run on text that it is not judged on later. A target drawn from the model's own prediction at every place
makes the squared gradient of the loss an estimate of how much a small error in any stored value costs (Fisher
information). From it come the shaping of errors, and, with the errors that the codec itself makes at each width, the
width of every head. libspeckv/codec/FORMAT.md section 7 is the file's definition.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import speckv
import torch
import torch.nn.functional as F
from speckv.codec import Calibration

from speckvctl.codecs.llama import KV, Llama
from speckvctl.codecs.perplexity import BLOCK

Array = npt.NDArray[Any]
Progress = Callable[[int, int], None]

FORMAT, VERSION = "speckv-calibration", "0"
HEAD_DIMS = (64, 80, 96, 128, 192, 256)
WIDTHS = range(1, 6)
INPUT_MAX = 16383  # of an integer input; a quarter of it for the largest value seen
HEADROOM = 4
LEVELS = 32
DEVIATION = 256  # of a level table
SHAPING_ONE, SHAPING_MAX = 512, 65535
DAMPING = 0.1  # of the mean sensitivity, added to that of every direction: few documents do not know all of them
SAMPLE_BYTES = 1 << 30  # of blocks kept for choosing widths
MAX_BYTES_OUT = 1 << 30


class CalibrationError(Exception):
    """A calibration that cannot be made, or not as asked."""

    def __init__(self, reason: str, number: int = errno.EINVAL) -> None:
        super().__init__(reason)
        self.errno = number


@dataclass(frozen=True)
class Made:
    """A calibration file, and what to expect of it."""

    file: bytes
    widths: npt.NDArray[np.uint8]  # [layer][K, V][KV head]
    ratio: float
    loss_nats: float  # expected, of a token, on the text it was made from
    reference_nats: float
    documents: int
    tokens: int


@dataclass
class _Head:
    """Sums over the tokens of one head of one tensor of one layer."""

    total: Any
    sensitivity: Any  # of the rotated values: sum of the gradients' outer products
    count: int = 0
    largest: float = 0.0


@dataclass
class _Study:
    """What the model's KV showed."""

    heads: dict[tuple[int, int, int], _Head] = field(default_factory=dict)
    tokens: int = 0
    documents: int = 0
    nats: float = 0.0
    blocks: list[tuple[int, Any, Any]] = field(default_factory=list)  # first position, values, gradients; all layers


def make(
    model: Llama, ids: Array, *, ratio: float, seed: int = 0, source: str = "", progress: Progress | None = None
) -> Made:
    """A calibration of `model` from documents [document][token]; frames are at least `ratio` times smaller."""
    if model.shape.head_dim not in HEAD_DIMS:
        raise CalibrationError(f"head size {model.shape.head_dim}: q5c takes {', '.join(map(str, HEAD_DIMS))}")
    study = _study(model, ids, seed, progress)
    tables = _tables(model, study)
    losses = np.stack([_losses(model, study, tables, width) for width in WIDTHS])
    raw, least, bit = (
        _raw_bytes(model),
        _frame_bytes(model, np.ones(losses.shape[1:])),
        BLOCK * model.shape.head_dim // 8,
    )
    budget = losses[0].size + math.floor((raw / ratio - least) / bit)
    if budget < losses[0].size:
        raise CalibrationError(f"a ratio of {ratio:g} is out of reach: {raw / least:.2f} is the most for this model")
    widths = _widths(losses, budget)
    chosen = np.take_along_axis(losses, widths[None].astype(np.int64) - 1, 0)
    file = _file(model, tables, widths, source, study)
    return Made(
        file=file,
        widths=widths,
        ratio=raw / _frame_bytes(model, widths),
        loss_nats=float(chosen.sum()),
        reference_nats=study.nats / study.tokens,
        documents=study.documents,
        tokens=study.tokens,
    )


def _raw_bytes(model: Llama) -> int:
    shape = model.shape
    return shape.layers * 2 * shape.kv_heads * BLOCK * shape.head_dim * 2


def _frame_bytes(model: Llama, widths: Array) -> int:
    """Of a frame of one 64-token block, all layers: header and table, and 64 scales and the codes of each head."""
    front = -(-(128 + 32 * model.shape.layers) // 64) * 64
    return int(front + (BLOCK + BLOCK * model.shape.head_dim // 8 * widths.astype(np.int64)).sum())


# ---- the model -------------------------------------------------------------------------------------------------------


def _study(model: Llama, ids: Array, seed: int, progress: Progress | None) -> _Study:
    study = _Study()
    shape = model.shape
    rotation = _rotation(shape.head_dim, model.device)
    rng = np.random.default_rng(seed)
    generator = torch.Generator(device=model.device).manual_seed(seed)
    block_bytes = 2 * _raw_bytes(model)
    per_document = max(1, min(ids.shape[1] // BLOCK, SAMPLE_BYTES // block_bytes // len(ids)))
    for number, document in enumerate(ids):
        if progress is not None:
            progress(number, len(ids))
        leaves: list[KV] = []

        def capture(_layer: int, k: Any, v: Any) -> KV:
            pair = (k.detach().clone().requires_grad_(), v.detach().clone().requires_grad_())
            leaves.append(pair)  # noqa: B023 - used up within the iteration
            return pair

        tokens = torch.from_numpy(document[None]).to(model.device)
        hidden = model.hidden(tokens, store=capture, block=BLOCK)
        logits = F.linear(hidden[0], model.weights["model.embed_tokens.weight" if shape.tied else "lm_head.weight"])
        likelihood = F.log_softmax(logits, -1)
        with torch.no_grad():
            drawn = torch.multinomial(likelihood.exp(), 1, generator=generator)
            study.nats += float(F.nll_loss(likelihood[:-1], tokens[0, 1:], reduction="sum"))
        gradients = torch.autograd.grad(
            likelihood[:-1].gather(1, drawn[:-1]).sum(), [leaf for pair in leaves for leaf in pair]
        )
        study.tokens += len(document) - 1
        study.documents += 1
        with torch.no_grad():
            _add(model, study, leaves, gradients, rotation)
            full = leaves[0][0].shape[2] // BLOCK
            for block in rng.choice(full, min(per_document, full), replace=False):
                part = slice(int(block) * BLOCK, (int(block) + 1) * BLOCK)
                values = torch.stack([torch.stack([x[0, :, part] for x in pair]) for pair in leaves])
                slopes = torch.stack([x[0, :, part] for x in gradients]).view(values.shape)
                study.blocks.append((int(block) * BLOCK, values.to(model.dtype).cpu(), slopes.bfloat16().cpu()))
    if progress is not None:
        progress(len(ids), len(ids))
    return study


def _add(model: Llama, study: _Study, leaves: list[KV], gradients: Any, rotation: Any) -> None:
    for layer, pair in enumerate(leaves):
        for tensor, values in enumerate(pair):
            slopes = gradients[2 * layer + tensor]
            largest = values.abs().amax((0, 2, 3))
            if tensor == 0:
                values, slopes = (_unrotated(model, x) for x in (values, slopes))
            turned = (slopes[0] @ rotation).double()
            for head in range(model.shape.kv_heads):
                total = values[0, head].double().sum(0)
                sensitivity = turned[head].T @ turned[head]
                found = study.heads.setdefault((layer, tensor, head), _Head(0, 0))
                found.total, found.sensitivity = found.total + total, found.sensitivity + sensitivity
                found.count += values.shape[2]
                found.largest = max(found.largest, float(largest[head]))


def _unrotated(model: Llama, x: Any) -> Any:
    """Without its rotary embedding; [...][token from 0 on][channel]."""
    half = x.shape[-1] // 2
    turns = model.shape.rope_theta ** -(torch.arange(half, dtype=torch.float64, device=x.device) / half)
    angles = torch.outer(torch.arange(x.shape[-2], dtype=torch.float64, device=x.device), turns).repeat(1, 2)
    return x * angles.cos().float() + torch.cat((x[..., half:], -x[..., :half]), -1) * angles.sin().float()


def _rotation(head_dim: int, device: str) -> Any:
    """The orthonormal Hadamard transform, slice by slice."""
    slice_ = min(128, head_dim & -head_dim)
    matrix = torch.ones(1, 1)
    while len(matrix) < slice_:
        matrix = torch.cat((torch.cat((matrix, matrix), 1), torch.cat((matrix, -matrix), 1)))
    slices = torch.eye(head_dim // slice_)
    return torch.kron(slices, matrix / math.sqrt(slice_)).to(device)


# ---- tables ----------------------------------------------------------------------------------------------------------


def _tables(model: Llama, study: _Study) -> dict[str, Array]:
    """Everything but widths and levels, which depend on them."""
    shape = model.shape
    size = (shape.layers, 2, shape.kv_heads)
    unit = np.zeros(size, np.int8)
    mean = np.zeros((*size, shape.head_dim), np.int16)
    shaping = np.zeros((*size, shape.head_dim * (shape.head_dim - 1) // 2), np.int16)
    rows, columns = np.tril_indices(shape.head_dim, -1)
    for place, head in study.heads.items():
        exponent = math.ceil(math.log2(max(head.largest, 1e-9) * HEADROOM / INPUT_MAX))
        unit[place] = np.clip(exponent, -60, 40)
        centre = head.total.cpu().numpy() / head.count * 2.0 ** -int(unit[place])
        mean[place] = np.clip(np.rint(centre), -INPUT_MAX, INPUT_MAX)
        shaping[place] = _shaping(head.sensitivity.cpu().numpy())[rows, columns]
    half = shape.head_dim // 2
    turns = [round(shape.rope_theta ** -(i / half) / (2 * math.pi) * 2**64) for i in range(half)]
    return {
        "rotary.turns": np.array(turns, np.uint64),
        "q5c.unit": unit,
        "q5c.mean": mean,
        "q5c.shaping": shaping,
    }


def _shaping(sensitivity: Array) -> Array:
    """What an error in each channel makes worth while in the later ones, below the diagonal, in 1/512.

    e' S e = sum of D(i) (e(i) + sum over j < i of U(i, j) e(j))^2: channel i, quantised after those before it, aims at
    its value plus sum U(i, j) e(j).
    """
    scale = float(np.trace(sensitivity)) / len(sensitivity)
    damped = sensitivity / scale + DAMPING * np.eye(len(sensitivity)) if scale > 0 else np.eye(len(sensitivity))
    upper = np.linalg.cholesky(damped[::-1, ::-1])[::-1, ::-1]
    unit_lower = (upper / np.diagonal(upper)).T
    shaping = np.tril(np.rint(unit_lower * SHAPING_ONE), -1)
    excess = np.abs(shaping).sum(1, keepdims=True) / SHAPING_MAX
    found: Array = np.trunc(np.clip(shaping / np.maximum(excess, 1), -32767, 32767)).astype(np.int16)
    return found


@cache
def levels(width: int) -> Array:
    """The Lloyd-Max levels of a normal distribution, 256 the deviation."""
    x = np.linspace(-6, 6, 24001)
    density = np.exp(-x * x / 2)
    found = np.linspace(-2.2, 2.2, 2**width) if width > 1 else np.array([-0.8, 0.8])
    for _ in range(600):
        nearest = np.searchsorted((found[1:] + found[:-1]) / 2, x)
        found = np.bincount(nearest, density * x, len(found)) / np.bincount(nearest, density, len(found))
    half = np.rint(found[len(found) // 2 :] * DEVIATION)
    return np.concatenate((-half[::-1], half)).astype(np.int16)


def _widths(losses: Array, budget: int) -> npt.NDArray[np.uint8]:
    """The bits of every head, `budget` in all, each spent where it saves most."""
    widths = np.ones(losses.shape[1:], np.uint8)
    best = np.minimum.accumulate(losses, 0)
    for _ in range(budget - widths.size):
        now = np.take_along_axis(best, widths[None].astype(np.int64) - 1, 0)[0]
        more = np.take_along_axis(best, np.minimum(widths, len(losses) - 1)[None].astype(np.int64), 0)[0]
        gain = np.where(widths < len(losses), now - more, -1.0)
        if gain.max() < 0:
            break
        widths[np.unravel_index(int(gain.argmax()), gain.shape)] += 1
    return widths


def _file(model: Llama, tables: dict[str, Array], widths: Array, source: str, study: _Study) -> bytes:
    from safetensors.numpy import save

    by_width = np.zeros((len(WIDTHS) + 1, LEVELS), np.int16)
    for width in WIDTHS:
        by_width[width, : 2**width] = levels(width)
    file = save(
        tables | {"q5c.bits": widths.astype(np.uint8), "q5c.levels": by_width[widths]},
        metadata={
            "format": FORMAT,
            "version": VERSION,
            "rotary": "halves",
            "source": source,
            "documents": str(study.documents),
            "tokens": str(study.tokens),
        },
    )
    if len(file) > MAX_BYTES_OUT:
        raise CalibrationError(f"{len(file)} bytes: more than a calibration may have", errno.EFBIG)
    return bytes(file)


# ---- what each width costs -------------------------------------------------------------------------------------------


def _losses(model: Llama, study: _Study, tables: dict[str, Array], width: int) -> Array:
    """Expected loss a token, in nats, [layer][K, V][KV head], if every head had this width: the codec's own errors."""
    shape = model.shape
    every = np.full((shape.layers, 2, shape.kv_heads), width, np.uint8)
    calibration = Calibration(_file(model, tables, every, "", study))
    total = torch.zeros(every.shape, dtype=torch.float64)
    tokens = 0
    for values, slopes, decoded in _through(study, calibration):
        errors = ((decoded.float() - values.float()) * slopes.float()).sum(-1)
        total += errors.double().pow(2).sum(-1) / 2
        tokens += values.shape[-2]
    return (total / tokens).numpy()


def _through(study: _Study, calibration: Calibration) -> Iterator[tuple[Any, Any, Any]]:
    """Values, gradients and decoded values of each block that can be encoded."""
    for position, values, slopes in study.blocks:
        dtype = "bf16" if values.dtype == torch.bfloat16 else "fp16"
        layers, _, heads, tokens, width = values.shape
        geometry = speckv.Geometry(layers, heads, width, tokens, speckv.DType(dtype))
        raw = values.contiguous().view(torch.int16).numpy()
        frame = speckv.codec.encode_frame(
            geometry, "q5c", raw, identity=speckv.codec.Identity(first_position=position), calibration=calibration
        )
        out = np.empty(raw.shape, np.int16)
        speckv.codec.decode_frame(frame, out=out, calibration=calibration)
        yield values, slopes, torch.from_numpy(out).view(values.dtype)
