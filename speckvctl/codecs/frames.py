# SPDX-License-Identifier: MIT
"""Files of frames, as `codec encode` writes them. Layout: libspeckv/codec/FORMAT.md, section 2.5."""

from __future__ import annotations

import errno
import json
import mmap
import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from speckv import Codec, SpeckvError, codec

from speckvctl import jsontext
from speckvctl.codecs.modes import Mode
from speckvctl.codecs.tensors import Bytes, Pair, write_tensors
from speckvctl.errors import UsageError
from speckvctl.files import replacing

MAGIC = b"SKVFILE\0"
VERSION = 0
HEAD = struct.Struct("<8sIII")  # magic, version, bytes of the directory, its CRC-32C; then the CRC-32C of this
HEAD_BYTES = HEAD.size + 4
LINE = 64
MAX_DIRECTORY_BYTES = 16 << 20
MAX_TOKENS = 1 << 24  # of a tensor


Coded = Iterator[list[Bytes]]  # the frames of one pair after the other
Progress = Callable[[int, int], None]


class FramesError(Exception):
    """A file of frames that cannot be read."""

    def __init__(self, path: Path, reason: str, number: int = errno.EBADMSG) -> None:
        super().__init__(f"{path}: {reason}")
        self.errno = number


@dataclass(frozen=True)
class Entry:
    """One pair of tensors in the directory, and where its frames are."""

    k_name: str
    v_name: str
    layer: int | None
    tokens: int
    begin: int  # in the file
    frames: list[codec.Frame]


def directory(pairs: Sequence[Pair], block_tokens: int) -> bytes:
    entries = [{"k": pair.k_name, "v": pair.v_name, "layer": pair.layer, "tokens": pair.tokens} for pair in pairs]
    return json.dumps({"block_tokens": block_tokens, "pairs": entries}, separators=(",", ":")).encode()


def overhead(pairs: Sequence[Pair], block_tokens: int) -> int:
    """Bytes of a file before its first frame."""
    return _lines(HEAD_BYTES + len(directory(pairs, block_tokens)))


def check_names(path: Path, pairs: Sequence[Pair], block_tokens: int) -> None:
    """Refuse tensor names that exceed the directory of a file of frames."""
    if len(directory(pairs, block_tokens)) > MAX_DIRECTORY_BYTES:
        raise FramesError(path, f"the tensors' names take more than {MAX_DIRECTORY_BYTES >> 20} MiB", errno.EINVAL)


def write(path: Path, pairs: Sequence[Pair], block_tokens: int, frames: Coded) -> int:
    """Write a file of frames, pair by pair; returns its size. A failure leaves an existing file unchanged."""
    check_names(path, pairs, block_tokens)
    text = directory(pairs, block_tokens)
    head = HEAD.pack(MAGIC, VERSION, len(text), codec.crc32c(text))
    start = head + struct.pack("<I", codec.crc32c(head)) + text
    with replacing(path) as stream:
        stream.write(start + bytes(_lines(len(start)) - len(start)))
        for _, of_pair in zip(pairs, frames, strict=True):
            for frame in of_pair:
                stream.write(frame.data)
        return stream.tell()


class Reader:
    """A file of frames. Opening checks the directory and every frame's header; decoding verifies the sections."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as stream:
            size = stream.seek(0, 2)
            if size < HEAD_BYTES:
                raise FramesError(path, "not a file of frames, or cut short")
            self._bytes = np.frombuffer(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
        self.block_tokens, listed, position = self._directory()
        self.entries = []
        for item in listed:
            entry, position = self._entry(item, position)
            self.entries.append(entry)
        if position != len(self._bytes):
            raise FramesError(path, f"{len(self._bytes) - position} bytes follow the last frame")
        self.size = position

    @property
    def modes(self) -> list[Codec]:
        return sorted({frame.codec for entry in self.entries for frame in entry.frames})

    def frames(self, entry: Entry) -> Iterator[Bytes]:
        position = entry.begin
        for frame in entry.frames:
            yield self._bytes[position : position + frame.frame_bytes]
            position += frame.frame_bytes

    def _directory(self) -> tuple[int, list[Any], int]:
        head = self._bytes[:HEAD_BYTES].tobytes()
        magic, version, length, crc = HEAD.unpack_from(head)
        if magic != MAGIC:
            raise FramesError(self.path, "not a file of frames")
        if codec.crc32c(head[: HEAD.size]) != struct.unpack_from("<I", head, HEAD.size)[0]:
            raise FramesError(self.path, "damaged: its header does not match its checksum")
        if version != VERSION:
            reason = f"a file of frames of version {version}; this build reads {VERSION}"
            raise FramesError(self.path, reason, errno.EPROTONOSUPPORT)
        if length > MAX_DIRECTORY_BYTES or _lines(HEAD_BYTES + length) > len(self._bytes):
            raise FramesError(self.path, "damaged, or cut short: its directory lies beyond its end")
        text = self._bytes[HEAD_BYTES : HEAD_BYTES + length].tobytes()
        if codec.crc32c(text) != crc:
            raise FramesError(self.path, "damaged: its directory does not match its checksum")
        try:
            found = jsontext.loads(text)
        except jsontext.JsonError as exc:
            raise FramesError(self.path, f"its directory: {exc}") from exc
        block_tokens, listed = (found.get("block_tokens"), found.get("pairs")) if isinstance(found, dict) else (0, 0)
        if type(block_tokens) is not int or not 64 <= block_tokens <= 0xFFFF or not isinstance(listed, list):
            raise FramesError(self.path, "its directory has no block_tokens from 64 to 65535, or no list of pairs")
        if not listed:
            raise FramesError(self.path, "its directory lists no pair")
        return block_tokens, listed, _lines(HEAD_BYTES + length)

    def _entry(self, item: Any, begin: int) -> tuple[Entry, int]:
        wanted = ("k", "v", "layer", "tokens")
        if not isinstance(item, dict) or any(name not in item for name in wanted):
            raise FramesError(self.path, "a pair in its directory lacks k, v, layer or tokens")
        k_name, v_name, layer, tokens = (item[name] for name in wanted)
        sound = all(isinstance(name, str) and not jsontext.has_surrogate(name) for name in (k_name, v_name))
        sound = sound and (layer is None or (type(layer) is int and 0 <= layer < 1 << 15)) and type(tokens) is int
        if not sound or not 0 < tokens <= MAX_TOKENS or tokens % self.block_tokens:
            shown = jsontext.shown(k_name) if isinstance(k_name, str) else "without a name"
            raise FramesError(self.path, f"invalid pair in its directory: {shown}")
        frames: list[codec.Frame] = []
        position = begin
        for index in range(tokens // self.block_tokens):
            frame = self._header(position, f"frame {index} of {k_name}")
            shape, first = frame.geometry, (frames or [frame])[0].geometry
            if shape != first or shape.layers != 1 or shape.tokens != self.block_tokens:
                raise FramesError(self.path, f"frame {index} of {k_name} has another shape than its directory says")
            if frame.identity.first_position != index * self.block_tokens:
                raise FramesError(self.path, f"frame {index} of {k_name} is out of its place")
            frames.append(frame)
            position += frame.frame_bytes
        return Entry(k_name, v_name, layer, tokens, begin, frames), position

    def _header(self, position: int, name: str) -> codec.Frame:
        if position >= len(self._bytes):
            raise FramesError(self.path, f"cut short: {name} is missing")
        try:
            return codec.parse_frame(self._bytes[position:])
        except SpeckvError as exc:
            reasons = {
                errno.EPROTONOSUPPORT: "is of a version that this build does not read",
                errno.EOPNOTSUPP: "is in a mode that this build does not know",
            }
            reason = reasons.get(exc.errno or 0, "is damaged or cut short")
            raise FramesError(self.path, f"{name} {reason}", exc.errno or errno.EBADMSG) from exc


def decode(reader: Reader, modes: Mapping[Codec, Mode], output: Path | None, progress: Progress) -> int:
    """Verify and decode every frame, optionally into a safetensors file; returns the tensors' bytes."""
    shapes, places = {}, {}
    for entry in reader.entries:
        geometry = entry.frames[0].geometry
        for kind, name in enumerate((entry.k_name, entry.v_name)):
            if name in shapes:
                raise FramesError(reader.path, f"names {name} twice")
            shapes[name] = geometry.dtype, (geometry.kv_heads, entry.tokens, geometry.head_dim)
            places[name] = entry, kind
    total = 0
    held: tuple[Entry, list[Bytes]] | None = None

    def tensor(name: str) -> Bytes:
        nonlocal total, held
        entry, kind = places[name]
        if held is None or held[0] is not entry:
            held = entry, list(_decoded(reader, entry, modes))
        made: Bytes = np.concatenate([block[kind] for block in held[1]], 1)
        total += made.nbytes
        progress(list(shapes).index(name), len(shapes))
        return made

    if output is None:
        for name in shapes:
            tensor(name)
    else:
        write_tensors(output, shapes, tensor)
    return total


def _decoded(reader: Reader, entry: Entry, modes: Mapping[Codec, Mode]) -> Iterator[Bytes]:
    """Each frame's raw bytes, [K, V][head][token][byte]."""
    for index, (frame, parsed) in enumerate(zip(reader.frames(entry), entry.frames, strict=True)):
        try:
            (raw,) = modes[parsed.codec].decode([frame])
        except SpeckvError as exc:
            raise FramesError(
                reader.path, f"frame {index} of {entry.k_name}: {exc}", exc.errno or errno.EBADMSG
            ) from exc
        yield raw.reshape(2, parsed.geometry.kv_heads, reader.block_tokens, -1)


def check_replaceable(path: Path) -> None:
    """Only a file of frames may be overwritten."""
    if not os.path.lexists(path):
        return
    if path.is_file():
        with path.open("rb") as stream:
            if stream.read(len(MAGIC)) == MAGIC:
                return
    raise UsageError(f"{path} is not a file of frames; nothing was changed", "name another with --output")


def _lines(size: int) -> int:
    return (size + LINE - 1) // LINE * LINE
