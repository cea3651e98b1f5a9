# SPDX-License-Identifier: MIT
"""The modes of the C library: encode blocks of one layer to frames, decode, and time both."""

from __future__ import annotations

import errno
import os
import statistics
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import speckv
from speckv import Codec, codec

from speckvctl import files
from speckvctl.codecs.tensors import Bytes, Pair, element_bytes, floats
from speckvctl.errors import DamagedError, UnsupportedError, UsageError

if TYPE_CHECKING:
    from speckvctl.reference.decoder import KV

BLOCK_TOKENS = 64
CALIBRATED = (Codec.Q5C, Codec.E7C)

HEADER_BYTES, SECTION_BYTES = 128, 16

MAX_CALIBRATION_BYTES = 1 << 30

TIMED_BYTES = 64 << 20  # of a file: more adds no information
TIMED_SECONDS = 1.0  # each way, after one pass over every tensor
TIMED_TURNS = 15


@dataclass(frozen=True)
class Rates:
    """Raw bytes per second on one core; None if not meaningful."""

    encode: float | None
    decode: float | None


@dataclass(frozen=True)
class Mode:
    """One mode of this build, with its calibration where it needs one."""

    codec: Codec
    calibration: speckv.codec.Calibration | None = None

    @property
    def name(self) -> str:
        return str(self.codec)

    @property
    def calibration_digest(self) -> str | None:
        """Hexadecimal; None for modes without a calibration."""
        return self.calibration.digest.hex() if self.calibration else None

    def encode(self, pair: Pair, block_tokens: int) -> list[Bytes]:
        """Frames of successive runs of tokens, the first at position 0.

        A block that the codec refuses is coded bit-exact, as pools do. Raises if values are not finite.
        """
        geometry = pair.geometry(block_tokens)
        frames = []
        for index, block in enumerate(pair.blocks(block_tokens)):
            try:
                frames.append(self.frame(geometry, block, self._layer(pair), index * block_tokens))
            except speckv.SpeckvError as exc:
                if exc.errno != errno.ENODATA or not np.isfinite(floats(block, pair.dtype)).all():
                    raise self._explained(exc, pair) from exc
                frames.append(self._exact(geometry, block, index * block_tokens))
        return frames

    def _exact(self, geometry: speckv.Geometry, block: Bytes, position: int) -> Bytes:
        return codec.encode_frame(geometry, Codec.LOSSLESS, block, identity=codec.Identity(first_position=position))

    def refused(self, frame: Bytes) -> bool:
        """Whether a frame that encode() made is bit-exact in place of this mode."""
        return bool(codec.parse_frame(frame).codec != self.codec)

    def decode(self, frames: Iterable[Bytes]) -> list[Bytes]:
        return [codec.decode_frame(frame, calibration=self.calibration) for frame in frames]

    def rates(self, pairs: list[Pair]) -> Rates:
        """Rates over whole tensors in turn, memory to memory; the median round of each.

        Tensors that the codec refuses as a whole are left out.
        """
        timed: list[Pair] = []
        for pair in pairs:
            if sum(other.raw_bytes for other in timed) < TIMED_BYTES:
                timed.append(pair)
        raw_bytes = 0
        encodes: list[Callable[[], Any]] = []
        decodes: list[Callable[[], Any]] = []
        for pair in timed:
            tokens = pair.tokens
            while tokens > 0x8000 and tokens % 128 == 0:
                tokens //= 2
            geometry, raw = pair.geometry(tokens), next(pair.blocks(tokens))
            room, out = codec.frame_room(geometry, self.codec), np.zeros(raw.nbytes, np.uint8)
            room.fill(0)
            try:
                frame = self.frame(geometry, raw, self._layer(pair), 0, room)
            except speckv.SpeckvError as exc:
                if exc.errno != errno.ENODATA:
                    raise
                continue
            raw_bytes += raw.nbytes
            encodes.append(partial(self.frame, geometry, raw, self._layer(pair), 0, room))
            decodes.append(partial(codec.decode_frame, frame, out=out, calibration=self.calibration))
        if not encodes:
            return Rates(None, None)
        return Rates(raw_bytes / _median_seconds(encodes), raw_bytes / _median_seconds(decodes))

    def store(self, dtype: speckv.DType) -> Stored:
        """The store that the loss is measured with."""
        return Stored(self, dtype)

    def frame(
        self, geometry: speckv.Geometry, raw: Bytes, layer: int, position: int, out: Bytes | None = None
    ) -> Bytes:
        """One block of one layer."""
        return codec.encode_frame(
            geometry,
            self.codec,
            raw,
            identity=codec.Identity(first_position=position),
            calibration=self.calibration,
            first_layer=layer if self.calibration else 0,
            out=out,
        )

    def _layer(self, pair: Pair) -> int:
        if pair.layer is None and self.calibration is not None:
            reason = f"{pair.k_name}: {self.name} needs the number of its layer, and the name does not have it"
            raise UsageError(reason, "a name such as layers.3.k")
        return pair.layer or 0

    def _explained(self, exc: speckv.SpeckvError, pair: Pair) -> Exception:
        """The library's refusal, in terms of the file."""
        where = f"{pair.k_name} and {pair.v_name}"
        if exc.errno == errno.ENODATA:
            reason = f"{where}: a value is not finite"
            return UnsupportedError(reason, "--codec lossless or raw", exc.errno)
        if exc.errno == errno.ERANGE:
            shape = f"layer {pair.layer} with {pair.heads} KV heads of size {pair.head_dim}"
            return UsageError(f"{where}: the calibration has no {shape}", "a --calibration of this model", exc.errno)
        if exc.errno == errno.EINVAL and not codec.frame_max_bytes(pair.geometry(BLOCK_TOKENS), self.codec):
            reason = f"{where}: {self.name} takes no {pair.dtype} with head size {pair.head_dim}"
            return UnsupportedError(reason, "--codec raw", errno.EOPNOTSUPP)
        return exc


@dataclass
class Stored:
    """A mode as the cache of a running model; counts frame bytes.

    A block that the codec refuses is kept bit-exact, as pools keep it.
    """

    mode: Mode
    dtype: speckv.DType
    raw_bytes: int = 0
    layer_bytes: int = 0  # of frames of one layer each
    frames: int = 0
    refused: int = 0  # frames of layers that are kept bit-exact
    layers: int = 0
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(os.cpu_count()))

    @property
    def ratio(self) -> float:
        """Ratio for frames of all layers of a block, as in a pool: the same sections, fewer headers."""
        blocks = self.frames // self.layers
        return self.raw_bytes / (self.layer_bytes + blocks * _front(self.layers) - self.frames * _front(1))

    def __call__(self, layer: int, k: Any, v: Any) -> KV:
        import torch

        cache = torch.bfloat16 if self.dtype == speckv.DType.BF16 else torch.float16
        width = k.shape[-1] * element_bytes(self.dtype)
        raw = torch.stack((k, v), 1).to("cpu", cache).contiguous()  # [document][K, V][head][token][channel]
        rows = raw.view(torch.uint8).numpy().reshape(*raw.shape[:4], width)
        out = np.empty_like(rows)
        pieces = [(d, t) for d in range(rows.shape[0]) for t in range(0, rows.shape[3], BLOCK_TOKENS)]
        geometry = speckv.Geometry(1, rows.shape[2], k.shape[-1], BLOCK_TOKENS, self.dtype)

        def code(piece: tuple[int, int]) -> tuple[int, bool]:
            """Bytes of the frame, and whether it is bit-exact in place of the mode."""
            document, first = piece
            refused = False
            place = document, slice(None), slice(None), slice(first, first + BLOCK_TOKENS)
            block = np.ascontiguousarray(rows[place])
            try:
                frame = self.mode.frame(geometry, block, layer, first)
            except speckv.SpeckvError as exc:
                if exc.errno != errno.ENODATA:
                    raise
                frame, refused = codec.encode_frame(geometry, Codec.LOSSLESS, block), True
            out[place] = self.mode.decode([frame])[0].reshape(block.shape)
            return int(frame.nbytes), refused

        coded = list(self._pool.map(code, pieces))
        self.layer_bytes += sum(size for size, _ in coded)
        self.refused += sum(refused for _, refused in coded)
        self.frames += len(pieces)
        self.layers = max(self.layers, layer + 1)
        self.raw_bytes += rows.nbytes
        back = torch.from_numpy(out).view(cache).float().to(k.device)
        return back[:, 0], back[:, 1]


def _front(layers: int) -> int:
    """Bytes of a frame before its first section."""
    return (HEADER_BYTES + 2 * layers * SECTION_BYTES + 63) // 64 * 64


def _median_seconds(works: list[Callable[[], Any]]) -> float:
    """Sum of the median times of interleaved jobs."""
    turns: list[list[float]] = [[] for _ in works]
    end = time.perf_counter() + TIMED_SECONDS
    while not turns[0] or (len(turns[0]) < TIMED_TURNS and time.perf_counter() < end):
        for work, seconds in zip(works, turns, strict=True):
            begin = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - begin)
    return sum(map(statistics.median, turns))


def mode(name: str, calibration: Path | None = None, *, of_frames: bool = False) -> Mode:
    """A mode by its name; `of_frames`: the mode of given frames, where an unneeded calibration is ignored."""
    built = ", ".join([*codec.modes(), *CALIBRATED])
    try:
        wanted = Codec(name)
    except ValueError:
        raise UsageError(f"--codec: '{name}' is not a codec", f"--codec with one of {built}") from None
    if wanted not in CALIBRATED:
        if wanted not in codec.modes():
            raise UnsupportedError(f"this build has no codec {name}", f"--codec with one of {built}")
        if calibration is not None and not of_frames:
            raise UsageError(f"codec {name} takes no calibration", f"--codec with one of {', '.join(CALIBRATED)}")
        return Mode(wanted)
    if calibration is None:
        raise UsageError(f"codec {name} needs a calibration", "--calibration FILE, made by codec calibrate")
    loaded = _calibration(calibration)
    if wanted not in loaded.codecs:
        has = ", ".join(loaded.codecs) or "no codec of this build"
        raise UnsupportedError(f"{calibration}: a calibration for {has}, not for {name}", "another --calibration")
    return Mode(wanted, loaded)


def _calibration(path: Path) -> codec.Calibration:
    file = files.read(path, MAX_CALIBRATION_BYTES)
    try:
        return codec.Calibration(file)
    except speckv.DamagedError as exc:
        reason = f"{path}: not a calibration, or a damaged one"
        raise DamagedError(reason, "a file that codec calibrate made", exc.errno) from exc
    except speckv.UnsupportedError as exc:
        reason = f"{path}: a calibration of a later version, or of a rotary embedding that this build does not know"
        raise UnsupportedError(reason, "another --calibration", exc.errno) from exc
