# SPDX-License-Identifier: MIT
"""Frames: encode, parse, verify and decode single blocks; checksums; the instruction set in use."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from speckv._speckv import ffi, lib
from speckv.errors import InvalidError, check
from speckv.requests import Rows, rows
from speckv.types import Codec, Geometry, c_text, c_value, calibrated_modes, codecs_of, from_c, members, modes

Bytes = npt.NDArray[np.uint8]
__all__ = [
    "Calibration",
    "Frame",
    "Identity",
    "calibrated_modes",
    "crc32c",
    "decode_frame",
    "encode_frame",
    "force_isa",
    "frame_max_bytes",
    "frame_min_bytes",
    "frame_room",
    "isa",
    "modes",
    "parse_frame",
    "verify_frame",
]


@dataclass(frozen=True, slots=True)
class Identity:
    """Identity fields of a frame: its pool, place, generation and key."""

    key: bytes = bytes(32)
    pool_uuid: bytes = bytes(16)
    generation: int = 0
    pool_address: int = 0
    first_position: int = 0
    tenant: int = 0


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame's header, validated."""

    geometry: Geometry
    identity: Identity
    calibration: bytes
    codec: Codec
    sections: int
    raw_bytes: int
    frame_bytes: int


class Calibration:
    """A calibration of the modes q5c and e7c, from the bytes of its file; every number in it is checked."""

    def __init__(self, file: Any) -> None:
        where = rows(file, 1, write=False)
        out = ffi.new("struct speckv_calibration **")
        check(lib.speckv_calibration_load(_pointer(where), where.row_bytes, out), what="loading a calibration")
        self._handle = ffi.gc(out[0], lib.speckv_calibration_free)
        info = ffi.new("struct speckv_calibration_info *")
        check(lib.speckv_calibration_describe(self._handle, info), what="describing a calibration")
        self.file = bytes(ffi.buffer(_pointer(where), where.row_bytes))
        self.digest = bytes(ffi.buffer(info.digest))
        self.codecs = codecs_of(int(info.codecs))
        self.layers, self.kv_heads, self.head_dim = int(info.layers), int(info.kv_heads), int(info.head_dim)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Calibration:
        return cls(Path(path).read_bytes())


def frame_max_bytes(geometry: Geometry, codec: Codec | str) -> int:
    """Most bytes that a frame of this shape can take; 0: not a valid shape or mode."""
    return int(lib.speckv_frame_max_bytes(geometry.to_c(), c_value(Codec, codec)))


def frame_min_bytes(geometry: Geometry, codec: Codec | str) -> int:
    """Fewest bytes that a frame of this shape can take; 0: not a valid shape or mode."""
    return int(lib.speckv_frame_min_bytes(geometry.to_c(), c_value(Codec, codec)))


def frame_room(geometry: Geometry, codec: Codec | str) -> Bytes:
    """A buffer for any frame of this shape, for encode_frame()."""
    return _aligned(frame_max_bytes(geometry, codec))


def encode_frame(
    geometry: Geometry,
    codec: Codec | str,
    raw: Any,
    *,
    identity: Identity | None = None,
    calibration: Calibration | None = None,
    first_layer: int = 0,
    first_head: int = 0,
    out: Bytes | None = None,
) -> Bytes:
    """One block, in C order in anything that holds bytes, as a frame (uint8, 64-byte aligned).

    Calibrated modes need the calibration, and which of its layers and KV heads the block begins with.
    `out`: a buffer from frame_room() of that shape; the result is a view of it.
    """
    identity = identity or Identity()
    place = ffi.new(
        "struct speckv_frame_identity *",
        {
            "key": identity.key,
            "pool_uuid": identity.pool_uuid,
            "generation": identity.generation,
            "pool_address": identity.pool_address,
            "first_position": identity.first_position,
            "tenant": identity.tenant,
        },
    )
    where = rows(raw, 1, write=False)
    capacity = frame_max_bytes(geometry, codec)
    if not capacity:
        raise InvalidError(errno.EINVAL, f"{codec} has no frame for {geometry}")
    frame = _aligned(capacity) if out is None else out
    if frame.nbytes < capacity or not frame.flags.c_contiguous:
        raise InvalidError(errno.EINVAL, f"a frame of this shape needs room for {capacity} bytes in one piece")
    length = ffi.new("uint64_t *")
    block = (place, _pointer(where), where.row_bytes, ffi.from_buffer(frame), capacity, length)
    if calibration is None:
        rc = lib.speckv_frame_encode(geometry.to_c(), c_value(Codec, codec), *block)
    elif min(first_layer, first_head) < 0:
        rc = -errno.ERANGE
    else:
        rc = lib.speckv_frame_encode_calibrated(
            geometry.to_c(), c_value(Codec, codec), calibration._handle, first_layer, first_head, *block
        )
    check(rc, what=f"encoding {where.row_bytes} bytes as {codec}")
    return frame[: int(length[0])]


def parse_frame(frame: Any) -> Frame:
    """Parse a frame's header; DamagedError if it is missing or does not verify."""
    return _frame(_parse(rows(frame, 1, write=False)))


def verify_frame(frame: Any) -> None:
    """Check the header and every section's checksum; DamagedError if one does not verify."""
    where = rows(frame, 1, write=False)
    check(lib.speckv_frame_verify(_pointer(where), where.row_bytes), what="verifying a frame")


def decode_frame(
    frame: Any, *, layers: tuple[int, int] | None = None, out: Any = None, calibration: Calibration | None = None
) -> Any:
    """Verify and decode a frame, or its layers (first, count); into `out` if given."""
    where = rows(frame, 1, write=False)
    parsed = _parse(where)
    first, count = layers or (0, int(parsed.geometry.layers))
    if first < 0 or count < 1:
        raise InvalidError(errno.EINVAL, f"layers {layers}: (first, how many), at least one")
    if out is None:
        out = np.empty(int(parsed.raw_bytes) // int(parsed.geometry.layers) * count, np.uint8)
    target = rows(out, 1, write=True)
    block = (_pointer(where), where.row_bytes, first, count, _pointer(target), target.row_bytes)
    if calibration is None:
        rc = lib.speckv_frame_decode(parsed, *block)
    else:
        rc = lib.speckv_frame_decode_calibrated(parsed, calibration._handle, *block)
    check(rc, what="decoding a frame")
    return out


def crc32c(data: Any, crc: int = 0) -> int:
    """CRC-32C of the bytes, continuing from `crc`."""
    where = rows(data, 1, write=False)
    return int(lib.speckv_crc32c(crc, _pointer(where), where.row_bytes))


def isa() -> str:
    """The instruction set whose kernels are in use."""
    return str(ffi.string(lib.speckv_isa_name()).decode())


def force_isa(name: str) -> None:
    """Use the kernels of one instruction set, process-wide: portable, sse42, avx2, avx512, or auto for the best."""
    check(lib.speckv_isa_force(c_text(name)), what=f"instruction set {name}")


def _aligned(size: int) -> Bytes:
    align = int(lib.SPECKV_FRAME_ALIGN)
    room = np.empty(size + align, np.uint8)
    offset = -room.ctypes.data % align
    return room[offset : offset + size]


def _pointer(where: Rows) -> Any:
    return ffi.cast("void *", where.addresses)


def _parse(where: Rows) -> Any:
    parsed = ffi.new("struct speckv_frame *")
    check(lib.speckv_frame_parse(_pointer(where), where.row_bytes, parsed), what="parsing a frame")
    return parsed


def _frame(parsed: Any) -> Frame:
    place = parsed.identity
    return Frame(
        geometry=from_c(Geometry, parsed.geometry),
        identity=Identity(
            key=bytes(ffi.buffer(place.key)),
            pool_uuid=bytes(ffi.buffer(place.pool_uuid)),
            generation=int(place.generation),
            pool_address=int(place.pool_address),
            first_position=int(place.first_position),
            tenant=int(place.tenant),
        ),
        calibration=bytes(ffi.buffer(parsed.calibration)),
        codec=Codec(members(Codec)[int(parsed.codec)]),
        sections=int(parsed.sections),
        raw_bytes=int(parsed.raw_bytes),
        frame_bytes=int(parsed.frame_bytes),
    )
