# SPDX-License-Identifier: MIT
"""Model files: safetensors with int8 weights, their scales, and the model's provenance as metadata.

The tensors and the arithmetic are those of speckv/predictor.h; `flat` is the form that the C library loads.
"""

from __future__ import annotations

import errno
import json
import re
import struct
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import speckv
from speckv import codec, predictor

from speckvctl import files, jsontext, tensorfiles
from speckvctl.prefetcher import features, survival

FORMAT = "speckv-return-model"
ARCHITECTURE = f"lstm {predictor.LAYERS} x {predictor.HIDDEN}, int8; survival head of {survival.BINS} bins"
MAX_BYTES = 64 << 20
ROWS = 4 * predictor.HIDDEN
FRACTION = 1 << 12  # sums are in units of 2^-12
SHIFT = 1 << 16  # that is taken off a scaled sum

Floats = npt.NDArray[np.float64]
Tensors = dict[str, npt.NDArray[Any]]


class ModelError(Exception):
    """Not a model file, or not supported by this version."""

    def __init__(self, path: Path, reason: str, number: int = errno.EBADMSG) -> None:
        super().__init__(f"{path}: {reason}")
        self.errno = number


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a model comes from."""

    traces: list[str]  # names
    trace_digests: list[str]  # SHA-256 of the files
    seed: int
    split: str
    train_until_s: list[float]  # of each trace: end of the training part
    chosen_until_s: list[float]  # end of the validation part
    train_turns: int
    epochs: int
    validation_loss: float | None
    trained_with: str


@dataclass(frozen=True)
class Model:
    tensors: Tensors
    mean: Floats
    deviation: Floats
    window_ms: int
    provenance: Provenance

    def flat(self) -> bytes:
        """For speckv.predictor.Predictor."""
        body = b"".join(self.tensors[name].astype(_stored(dtype)).tobytes() for name, dtype, _ in layout())
        head = (b"SPECKVP", predictor.VERSION, predictor.HEADER_BYTES + len(body), len(features.NAMES))
        header = struct.pack("<8sIIHHHH36x", *head, predictor.LAYERS, predictor.HIDDEN, survival.BINS)
        return header + struct.pack("<I", codec.crc32c(body, codec.crc32c(header))) + body

    def predictor(self) -> predictor.Predictor:
        return predictor.Predictor(self.flat())

    def has_seen(self, trace_digest: str, from_s: float) -> bool:
        """Whether that trace from that time on overlaps the training or validation part."""
        made = zip(self.provenance.trace_digests, self.provenance.chosen_until_s, strict=True)
        return any(digest == trace_digest and from_s < until for digest, until in made)


def layout() -> list[tuple[str, str, tuple[int, ...]]]:
    """Name, type and shape of each tensor, in the order of the flat form."""
    hidden, bins = predictor.HIDDEN, survival.BINS
    wanted: list[tuple[str, str, tuple[int, ...]]] = [("edges_ms", "u4", (bins + 1,))]
    for layer in range(predictor.LAYERS):
        inputs = hidden if layer else len(features.NAMES)
        wanted += [(f"layers.{layer}.input", "i1", (ROWS, inputs)), (f"layers.{layer}.recurrent", "i1", (ROWS, hidden))]
        wanted += [(f"layers.{layer}.{name}", "i4", (ROWS,)) for name in ("input_scale", "recurrent_scale", "bias")]
    return [*wanted, ("head", "i1", (bins, hidden)), ("head_scale", "i4", (bins,)), ("head_bias", "i4", (bins,))]


def _stored(dtype: str) -> str:
    return dtype if dtype == "i1" else f"<{dtype}"


# ---- quantisation ----------------------------------------------------------------------------------------------------


def quantise(weights: dict[str, Floats]) -> Tensors:
    """Quantise a trained LSTM and head (torch's names and gate order) to int8 with one scale per row."""
    tensors: Tensors = {"edges_ms": survival.EDGES_MS}
    for layer in range(predictor.LAYERS):
        step = 1 / features.PER_DEVIATION if layer == 0 else 1 / 127
        name = f"layers.{layer}"
        tensors[f"{name}.input"], tensors[f"{name}.input_scale"] = _rows(weights[f"lstm.weight_ih_l{layer}"], step)
        tensors[f"{name}.recurrent"], tensors[f"{name}.recurrent_scale"] = _rows(
            weights[f"lstm.weight_hh_l{layer}"], 1 / 127
        )
        tensors[f"{name}.bias"] = _bias(weights[f"lstm.bias_ih_l{layer}"] + weights[f"lstm.bias_hh_l{layer}"])
    tensors["head"], tensors["head_scale"] = _rows(weights["head.weight"], 1 / 127)
    tensors["head_bias"] = _bias(weights["head.bias"])
    return tensors


def _rows(weights: Floats, input_step: float) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int32]]:
    step = np.abs(weights).max(axis=1, keepdims=True) / 127
    whole = np.rint(weights / np.where(step == 0, 1, step)).astype(np.int8)
    scale = np.rint(step[:, 0] * input_step * FRACTION * SHIFT)
    return whole, np.minimum(scale, 1 << 24).astype(np.int32)


def _bias(bias: Floats) -> npt.NDArray[np.int32]:
    return np.clip(np.rint(bias * FRACTION), -(1 << 20), 1 << 20).astype(np.int32)


# ---- files -----------------------------------------------------------------------------------------------------------


def save(model: Model, path: Path) -> None:
    """Write atomically: temporary file, then rename."""
    from safetensors.numpy import save as serialise

    metadata = {
        "format": FORMAT,
        "version": "0",
        "architecture": ARCHITECTURE,
        "features": json.dumps(features.NAMES),
        "feature_mean": json.dumps(model.mean.tolist()),
        "feature_deviation": json.dumps(model.deviation.tolist()),
        "window_ms": str(model.window_ms),
        "provenance": json.dumps(asdict(model.provenance)),
    }
    tensors = {name: np.ascontiguousarray(model.tensors[name], dtype) for name, dtype, _ in layout()}
    data = serialise(tensors, metadata=metadata)
    files.write(path, data)


def load(path: Path) -> Model:
    """Read and validate a model file, by the C library too."""
    metadata, shapes, tensors = _read(path)
    if metadata.get("format") != FORMAT:
        raise ModelError(path, "safetensors, but not a model of speckvctl train-prefetcher")
    if metadata.get("version") != "0":
        raise ModelError(
            path, f"a model of version {metadata.get('version')}; this build runs 0", errno.EPROTONOSUPPORT
        )
    for name, dtype, shape in layout():
        expected = {"i1": "I8", "i4": "I32", "u4": "U32"}[dtype], list(shape)
        if shapes.get(name) != expected:
            found = "is missing" if name not in shapes else f"is {shapes[name][0]} {shapes[name][1]}"
            raise ModelError(path, f"{name} {found}; {expected[0]} {expected[1]} was expected", errno.EOPNOTSUPP)
    if len(shapes) != len(layout()):
        extra = sorted(shapes.keys() - {name for name, _, _ in layout()})
        raise ModelError(path, f"{extra[0][:80]} is not a tensor of this kind of model", errno.EOPNOTSUPP)
    model = Model(tensors, *_described(path, metadata))
    try:
        loaded = model.predictor()
    except speckv.SpeckvError as exc:
        raise ModelError(path, f"its numbers are not those of a model: {exc}") from exc
    if loaded.edges_ms.tolist() != survival.EDGES_MS.tolist():
        raise ModelError(path, "its bins are not those of this build", errno.EOPNOTSUPP)
    return model


def _read(path: Path) -> tuple[dict[str, str], dict[str, tuple[str, list[int]]], Tensors]:
    """Metadata, the type and shape of each tensor, and the tensors of the layout."""
    wanted = {name for name, _, _ in layout()}
    try:
        with tensorfiles.opened(path) as file:
            if path.stat().st_size > MAX_BYTES:
                raise ModelError(path, f"larger than {MAX_BYTES >> 20} MiB: not a model", errno.EFBIG)
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            shapes = {name: (str(one.get_dtype()), list(one.get_shape())) for name, one in slices.items()}
            known = {dtype for dtype, _ in shapes.values()} <= {"I8", "I32", "U32"}
            tensors = {name: file.get_tensor(name) for name in shapes if name in wanted} if known else {}
            return file.metadata() or {}, shapes, tensors
    except tensorfiles.UnsoundError as exc:
        raise ModelError(path, str(exc)) from exc


def _described(path: Path, metadata: dict[str, Any]) -> tuple[Floats, Floats, int, Provenance]:
    def value(name: str) -> Any:
        if name not in metadata:
            raise ModelError(path, f"its metadata has no {name}")
        try:
            return jsontext.loads(metadata[name])
        except jsontext.JsonError as exc:
            raise ModelError(path, f"its metadata {name}: {exc}") from exc

    if value("features") != list(features.NAMES):
        raise ModelError(path, "made for other features than this build computes", errno.EOPNOTSUPP)
    mean, deviation, window_ms = value("feature_mean"), value("feature_deviation"), value("window_ms")
    if not all(_numbers(scales) and len(scales) == len(features.NAMES) for scales in (mean, deviation)):
        raise ModelError(path, "its feature scales are not numbers, one a feature")
    if min(deviation) <= 0 or type(window_ms) is not int or not 1 <= window_ms <= 1 << 31:
        raise ModelError(path, "a feature scale or the window is not above 0")
    return (
        np.array(mean, np.float64),
        np.array(deviation, np.float64),
        window_ms,
        _provenance(path, value("provenance")),
    )


def _provenance(path: Path, told: Any) -> Provenance:
    names = [field.name for field in fields(Provenance)]
    if not isinstance(told, dict) or sorted(told) != sorted(names):
        raise ModelError(path, f"its provenance does not say {', '.join(names)}")
    digests = told["trace_digests"]
    sound = (
        _texts(told["traces"])
        and _texts(digests)
        and all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests)
        and _texts([told["split"], told["trained_with"]])
        and all(
            _numbers(told[name]) and len(told[name]) == len(digests) for name in ("train_until_s", "chosen_until_s")
        )
        and all(type(told[name]) is int and 0 <= told[name] < 1 << 63 for name in ("seed", "train_turns", "epochs"))
        and (told["validation_loss"] is None or _numbers([told["validation_loss"]]))
    )
    if not sound:
        raise ModelError(path, "its provenance has a value that cannot be")
    return Provenance(**told)


def _texts(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(v, str) and not jsontext.has_surrogate(v) for v in values)


def _numbers(values: object) -> bool:
    """A list of numbers that float64 holds."""
    if not isinstance(values, list):
        return False
    return all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e300 for v in values)
