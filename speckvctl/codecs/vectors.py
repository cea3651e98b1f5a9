# SPDX-License-Identifier: MIT
"""Golden frames: recompute each line of index.txt and compare. See tests/vectors/README.md."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import speckv
from speckv import Codec, Geometry, codec

from speckvctl.codecs.modes import CALIBRATED
from speckvctl.files import read, write

ISAS = ("portable", "sse42", "avx2", "avx512")
STYLES = ("bits", "smooth", "constant", "tiny", "outlier", "zero", "wide", "mixed", "channels")
MAX_INDEX_BYTES = 1 << 20
MAX_BLOCK_BYTES = 16 << 20
MAX_DIFFERENCES = 20

#: Of every golden frame.
IDENTITY = codec.Identity(
    key=bytes(range(32)),
    pool_uuid=bytes(range(0xA0, 0xB0)),
    generation=0x0102030405060708,
    pool_address=0x1112131415161700,
    first_position=4096,
)

Words = npt.NDArray[np.uint16]
Progress = Callable[[int, int], None]


class VectorsError(Exception):
    """A folder that holds no golden frames."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.errno = errno.EBADMSG


@dataclass(frozen=True)
class Vector:
    name: str
    codec: Codec
    geometry: Geometry
    style: str
    seed: int
    told: str  # of input, frame and what it decodes to


@dataclass
class Found:
    isas: list[str] = field(default_factory=list)
    modes: dict[str, tuple[int, int]] = field(default_factory=dict)  # vectors and stored frames of each
    differences: list[str] = field(default_factory=list)


def check(folder: Path, progress: Progress) -> Found:
    """Compare this build with the folder, with every set of kernels of this machine."""
    vectors, found = read_index(folder / "index.txt"), Found()
    for done, vector in enumerate(vectors):
        progress(done, len(vectors))
        if len(found.differences) >= MAX_DIFFERENCES:
            break
        stored = _stored(folder, vector)
        raw = None if vector.codec in CALIBRATED else values(vector.geometry, vector.style, vector.seed)
        for isa in _each_isa():
            if isa not in found.isas:
                found.isas.append(isa)
            if raw is None:
                if stored is not None and (told := _read(folder, vector, stored)) != vector.told:
                    found.differences.append(f"{vector.name}: {isa} kernels read {told}, not {vector.told}")
                continue
            told, frame = make(vector, raw)
            if told != vector.told:
                found.differences.append(f"{vector.name}: {isa} kernels give {told}, not {vector.told}")
            elif stored is not None and (frame is None or stored != frame.tobytes()):
                found.differences.append(f"{vector.name}.frame: not the frame that {isa} kernels make")
        if raw is not None or stored is not None:
            _count(found, vector, stored is not None)
    return found


def _read(folder: Path, vector: Vector, frame: bytes) -> str:
    """The checksums of a stored frame of a calibrated mode, whose input only the C generator can make."""
    file = read(folder / f"{vector.name}.safetensors", MAX_BLOCK_BYTES)
    words = [f"{codec.crc32c(file):08x}", vector.told.split()[1], str(len(frame)), f"{codec.crc32c(frame):08x}"]
    try:
        decoded = codec.decode_frame(frame, calibration=codec.Calibration(file))
    except speckv.SpeckvError as exc:
        return " ".join([*words, f"error {exc.errno}"])
    return " ".join([*words, f"{codec.crc32c(decoded):08x}"])


def update(folder: Path, dry_run: bool, progress: Progress) -> Found:
    """Rewrite checksums and frames from this build; the list of vectors stays."""
    index = folder / "index.txt"
    vectors, found, lines = read_index(index), Found(isas=[codec.isa()]), []
    frames: dict[Path, bytes] = {}
    for done, vector in enumerate(vectors):
        progress(done, len(vectors))
        if vector.codec in CALIBRATED:
            raise VectorsError(
                index, f"{vector.name}: frames of {vector.codec} are written by tests/vectors/calibrated.c"
            )
        told, frame = make(vector, values(vector.geometry, vector.style, vector.seed))
        shape = vector.geometry
        sizes = f"{shape.layers} {shape.kv_heads} {shape.head_dim} {shape.tokens}"
        lines.append(f"{vector.name} {vector.codec} {shape.dtype} {sizes} {vector.style} {vector.seed} {told}\n")
        stored = _stored(folder, vector) is not None
        if stored and frame is not None:
            frames[folder / f"{vector.name}.frame"] = frame.tobytes()
        _count(found, vector, stored)
    for path, data in ({} if dry_run else frames | {index: "".join(lines).encode()}).items():
        write(path, data)
    return found


def make(vector: Vector, block: Words) -> tuple[str, npt.NDArray[np.uint8] | None]:
    """The fields of index.txt that this build computes for a vector, and its frame."""
    raw = block.view(np.uint8)
    told = f"{codec.crc32c(raw):08x} "
    try:
        # blocks of mixed values begin their sequence
        identity = replace(IDENTITY, first_position=0) if vector.style == "mixed" else IDENTITY
        frame = codec.encode_frame(vector.geometry, vector.codec, raw, identity=identity)
    except speckv.SpeckvError as exc:
        return told + ("nodata" if exc.errno == errno.ENODATA else f"error {exc.errno}"), None
    decoded = codec.decode_frame(frame)
    return told + f"{frame.nbytes} {codec.crc32c(frame):08x} {codec.crc32c(decoded):08x}", frame


def read_index(path: Path) -> list[Vector]:
    with path.open("rb") as stream:
        data = stream.read(MAX_INDEX_BYTES + 1)
    if len(data) > MAX_INDEX_BYTES:
        raise VectorsError(path, "not an index of golden frames: too large")
    vectors = []
    try:
        for line in data.decode("ascii").splitlines():
            name, mode, dtype, layers, heads, head_dim, tokens, style, seed, told = line.split(maxsplit=9)
            geometry = Geometry(int(layers), int(heads), int(head_dim), int(tokens), speckv.DType(dtype))
            if not name.replace("-", "").replace("_", "").isalnum() or style not in STYLES:
                raise ValueError(line)
            if not 0 < geometry.block_bytes <= MAX_BLOCK_BYTES or not 0 <= int(seed) < 1 << 64:
                raise ValueError(line)
            vectors.append(Vector(name, Codec(mode), geometry, style, int(seed), told))
    except (ValueError, speckv.SpeckvError) as exc:
        raise VectorsError(path, f"a line that cannot be read: {str(exc)[:120]}") from exc
    if not vectors:
        raise VectorsError(path, "names no golden frame")
    return vectors


def _each_isa() -> Iterator[str]:
    before = codec.isa()
    try:
        for isa in ISAS:
            try:
                codec.force_isa(isa)
            except speckv.SpeckvError:  # not on this processor
                continue
            yield isa
    finally:
        codec.force_isa(before)


def _stored(folder: Path, vector: Vector) -> bytes | None:
    path = folder / f"{vector.name}.frame"
    if not path.exists():
        return None
    with path.open("rb") as stream:
        return stream.read(MAX_BLOCK_BYTES)


def _count(found: Found, vector: Vector, stored: bool) -> None:
    vectors, frames = found.modes.get(vector.codec, (0, 0))
    found.modes[vector.codec] = vectors + 1, frames + stored


# ---- inputs, as in tests/vectors/inputs.h ----------------------------------------------------------------------------


class _Draws:
    """splitmix64."""

    AHEAD = 4096

    def __init__(self, seed: int) -> None:
        self._state = np.uint64(seed)
        self._ahead: list[int] = []

    def next(self) -> int:
        if not self._ahead:
            with np.errstate(over="ignore"):
                steps = np.uint64(0x9E3779B97F4A7C15) * np.arange(1, self.AHEAD + 1, dtype=np.uint64)
                z = self._state + steps
                self._state = z[-1]
                z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
                z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
            self._ahead = (z ^ z >> np.uint64(31)).tolist()[::-1]
        return self._ahead.pop()

    def below(self, bound: int) -> int:
        return self.next() % bound


def values(geometry: Geometry, style: str, seed: int) -> Words:
    """The input block of a style and seed."""
    bf16 = geometry.dtype == speckv.DType.BF16
    infinity, one, mantissa = (0x7F80, 0x3F80, 7) if bf16 else (0x7C00, 0x3C00, 10)
    below = _Draws(seed).below
    held = below(infinity)
    out = np.empty(geometry.block_bytes // 2, np.uint16)
    now, top = style, 0
    for i in range(len(out)):
        sign, value = below(2) << 15, 0
        if i % 64 == 0:
            if style == "mixed":
                now = ("smooth", "tiny", "zero", "wide")[below(4)]
            if now == "wide":
                top = (one >> mantissa) + 5 - below(30 if bf16 else 19) << mantissa
        if now == "smooth":
            value = one - 0x200 + below(0x300)
        elif now == "wide":
            value = max(0, top - below(3 << mantissa))
        elif now == "tiny":
            value = below(0x90)
        elif now == "bits":
            value = below(infinity)
        elif now == "constant":
            sign, value = 0, held
        elif now == "outlier":
            value = below(0x100) if below(97) else infinity - 1
        elif now == "channels":
            value = one - ((i % geometry.head_dim * 5 % 11) << mantissa) + below(2 << mantissa)
            value = value if below(150) else below(0x40)
        out[i] = sign | value
    return out
