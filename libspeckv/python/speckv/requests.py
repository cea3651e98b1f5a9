# SPDX-License-Identifier: MIT
"""Batches of struct speckv_request, filled from Python objects without copying block data."""

from __future__ import annotations

import errno
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from speckv._speckv import ffi, lib
from speckv.errors import InvalidError

Statuses: TypeAlias = npt.NDArray[np.int32]
#: One key (32 bytes), a sequence of them, or a uint8 array (n, 32).
Keys: TypeAlias = "bytes | Sequence[bytes] | npt.NDArray[np.uint8]"
#: An (n, ...) numpy array or CPU tensor, or a sequence of n buffers; with one key, also the block itself.
Buffers: TypeAlias = Any

KEY_BYTES = int(lib.SPECKV_KEY_BYTES)
HAS_PARENT = int(lib.SPECKV_REQUEST_HAS_PARENT)
CHARS = ffi.typeof("char[]")
KEYS = ffi.typeof("struct speckv_key[]")


def _numpy_dtype(name: str) -> np.dtype[Any]:
    """The numpy dtype of a C struct: offsets and sizes are the compiler's."""
    c_type = ffi.typeof(name)
    fields = dict(c_type.fields)
    dtype = np.dtype(
        {
            "names": list(fields),
            "formats": [_numpy_format(field.type) for field in fields.values()],
            "offsets": [field.offset for field in fields.values()],
            "itemsize": ffi.sizeof(c_type),
        }
    )
    for field, description in fields.items():
        part: tuple[np.dtype[Any], int] = dtype.fields[field][:2]  # type: ignore[index]
        if part[0].itemsize != ffi.sizeof(description.type) or part[1] != ffi.offsetof(c_type, field):
            raise ImportError(f"{name}.{field}: numpy and the C compiler lay it out differently")
    return dtype


def _numpy_format(c_type: Any) -> object:
    if c_type.kind == "pointer":
        return np.uintp
    if c_type.kind == "struct":
        return (np.uint8, (ffi.sizeof(c_type),))
    return np.dtype(c_type.cname.removesuffix("_t"))


REQUEST = _numpy_dtype("struct speckv_request")


class Batch:
    """An array of requests: `c` for the library, and views of the fields for numpy."""

    __slots__ = (
        "buffer",
        "buffer_bytes",
        "c",
        "capacity",
        "first",
        "first_key",
        "flags",
        "key",
        "layer_count",
        "layer_first",
        "parent",
        "position",
        "status",
    )

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.c = ffi.new("struct speckv_request[]", capacity)
        array = np.frombuffer(ffi.buffer(self.c), REQUEST)
        self.first = self.c + 0
        self.first_key = self.first.key.bytes
        self.key: npt.NDArray[np.uint8] = array["key"]
        self.parent: npt.NDArray[np.uint8] = array["parent"]
        self.buffer: npt.NDArray[np.uintp] = array["buffer"]
        self.buffer_bytes: npt.NDArray[np.uint64] = array["buffer_bytes"]
        self.position: npt.NDArray[np.uint64] = array["first_position"]
        self.layer_first: npt.NDArray[np.uint16] = array["layer_first"]
        self.layer_count: npt.NDArray[np.uint16] = array["layer_count"]
        self.flags: npt.NDArray[np.uint32] = array["flags"]
        self.status: Statuses = array["status"]

    def fill(self, keys: npt.NDArray[np.uint8], rows: Rows) -> None:
        """Set everything but parents, positions and layers of the first len(keys) requests."""
        count = len(keys)
        self.key[:count] = keys
        self.buffer[:count] = rows.addresses
        self.buffer_bytes[:count] = rows.row_bytes
        self.layer_first[:count] = 0
        self.layer_count[:count] = 0
        self.position[:count] = 0
        self.flags[:count] = 0

    def set_chain(self, count: int, parents: Any, positions: Any) -> None:
        """Parents (keys, or None for a block without one) and positions of the blocks' first tokens."""
        if parents is not None:
            if isinstance(parents, np.ndarray):
                self.parent[:count] = key_array(parents, count)
                self.flags[:count] = HAS_PARENT
            else:
                if len(parents) != count:
                    raise InvalidError(errno.EINVAL, f"{len(parents)} parents for {count} keys")
                present = [index for index, parent in enumerate(parents) if parent is not None]
                if present:
                    self.parent[present] = key_array([parents[index] for index in present])
                    self.flags[present] = HAS_PARENT
        if positions is not None:
            values = np.asarray(positions)
            fits = values.dtype.kind in "iu" and values.shape in ((), (count,)) and not (values < 0).any()
            if not fits:
                raise InvalidError(errno.EINVAL, f"positions: one integer, or {count} of them, none below 0")
            self.position[:count] = values

    def set_layers(self, count: int, layers: tuple[int, int]) -> None:
        first, number = layers
        if not (0 <= first <= 0xFFFF and 1 <= number <= 0xFFFF):
            raise InvalidError(errno.EINVAL, f"layers {layers}: (first, how many), at least one")
        self.layer_first[:count] = first
        self.layer_count[:count] = number


class _Scratch(threading.local):
    batch: Batch | None = None


_scratch = _Scratch()
_SCRATCH_LIMIT = 1 << 14


def take(count: int) -> Batch:
    """Take this thread's batch while in use, so that a signal handler in between gets another one."""
    batch = _scratch.batch
    if batch is None or batch.capacity < count:
        return Batch(max(64, 1 << (count - 1).bit_length()))
    _scratch.batch = None
    return batch


def give(batch: Batch) -> None:
    """Return the batch for the thread's next call."""
    if batch.capacity <= _SCRATCH_LIMIT:
        _scratch.batch = batch


def key_array(keys: Keys, count: int | None = None) -> npt.NDArray[np.uint8]:
    """Keys as a uint8 array (n, 32)."""
    if isinstance(keys, bytes | bytearray | memoryview):
        array = np.frombuffer(keys, np.uint8)
    elif isinstance(keys, np.ndarray):
        array = keys
    else:
        if any(len(key) != KEY_BYTES for key in keys):
            raise InvalidError(errno.EINVAL, f"a key has {KEY_BYTES} bytes; these have {sorted({*map(len, keys)})}")
        array = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY_BYTES)
    if array.ndim == 1 and len(array) == KEY_BYTES:
        array = array.reshape(1, KEY_BYTES)
    if array.dtype != np.uint8 or array.ndim != 2 or array.shape[1] != KEY_BYTES:
        raise InvalidError(
            errno.EINVAL, f"keys are {KEY_BYTES} bytes each, or uint8 (n, {KEY_BYTES}); not {array.dtype} {array.shape}"
        )
    if count is not None and len(array) != count:
        raise InvalidError(errno.EINVAL, f"{len(array)} keys where {count} are needed")
    return array


def key_memory(keys: Keys) -> tuple[Any, int]:
    """Keys as a C array of struct speckv_key, which keeps its memory alive, and how many."""
    array = np.ascontiguousarray(key_array(keys))
    return ffi.from_buffer(KEYS, array), len(array)


# ---- buffers ---------------------------------------------------------------------------------------------------------


class Span(NamedTuple):
    """Address, shape and strides of an array, in bytes."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    item_bytes: int
    read_only: bool
    owner: object


class Rows(NamedTuple):
    """One address a block, all of the same size. `owner` keeps the memory alive."""

    addresses: Any
    row_bytes: int
    owner: object


def rows(buffers: Buffers, count: int, *, write: bool) -> Rows:
    """The blocks' addresses in the caller's buffers; nothing is copied or converted."""
    if isinstance(buffers, list | tuple):
        if len(buffers) != count:
            raise InvalidError(errno.EINVAL, f"{len(buffers)} buffers for {count} keys")
        each = [_whole(span_of(buffer), write) for buffer in buffers]
        sizes = {row.row_bytes for row in each}
        if len(sizes) > 1:
            raise InvalidError(errno.EINVAL, f"buffers of one batch are of one size; these have {sorted(sizes)} bytes")
        return Rows([row.addresses for row in each], max(sizes, default=0), [row.owner for row in each])
    span = span_of(buffers)
    if count == 1 and _contiguous_bytes(span, 0) is not None:
        return _whole(span, write)
    if not span.shape or span.shape[0] != count:
        raise InvalidError(
            errno.EINVAL, f"{count} keys need an array of {count} blocks, (n, ...); this one has shape {span.shape}"
        )
    if count == 0:
        return Rows([], 0, span.owner)
    row_bytes = _contiguous_bytes(span, 1)
    stride = span.strides[0]
    _usable(span, row_bytes is not None and not (write and count > 1 and abs(stride) < row_bytes), write)
    assert row_bytes is not None
    steps = np.arange(count, dtype=np.int64) * stride + span.address
    return Rows(steps.astype(np.uintp), row_bytes, span.owner)


def _whole(span: Span, write: bool) -> Rows:
    size = _contiguous_bytes(span, 0)
    _usable(span, size is not None, write)
    assert size is not None
    return Rows(span.address, size, span.owner)


def _usable(span: Span, contiguous: bool, write: bool) -> None:
    if not contiguous:
        where = f"shape {span.shape}, strides {span.strides}"
        raise InvalidError(errno.EINVAL, f"the bytes of a block must lie side by side in C order; here: {where}")
    if write and span.read_only:
        raise InvalidError(errno.EINVAL, "a get needs a buffer that may be written; this one is read-only")


def _contiguous_bytes(span: Span, first: int) -> int | None:
    """Bytes of the dimensions from `first` on if contiguous in C order, else None."""
    expected = span.item_bytes
    for size, stride in zip(reversed(span.shape[first:]), reversed(span.strides[first:]), strict=True):
        if size != 1 and stride != expected:
            return None
        expected *= size
    return expected


def span_of(buffer: object) -> Span:
    """Address and layout of an object: numpy, a CPU torch tensor of any dtype, the buffer protocol, or DLPack."""
    if isinstance(buffer, np.ndarray):
        address, read_only = buffer.__array_interface__["data"]
        return Span(int(address), buffer.shape, buffer.strides, buffer.itemsize, bool(read_only), buffer)
    if hasattr(buffer, "data_ptr"):  # a torch tensor: use its own methods, because numpy has no bf16
        return _tensor_span(buffer)
    try:
        view = memoryview(buffer)  # type: ignore[arg-type]
    except TypeError:
        if not hasattr(buffer, "__dlpack__"):
            raise TypeError(
                f"{type(buffer).__name__}: a block lies in a numpy array, a CPU tensor or a bytes-like object"
            ) from None
        return span_of(np.from_dlpack(buffer))
    return span_of(np.frombuffer(view, np.uint8) if view.c_contiguous else np.asarray(view))


def _tensor_span(tensor: Any) -> Span:
    if tensor.device.type != "cpu":
        raise TypeError(f"a tensor on {tensor.device}: a block lies in CPU memory (tensor.cpu())")
    if str(tensor.layout) != "torch.strided":
        raise TypeError(f"a tensor of layout {tensor.layout}: a block lies in a strided tensor")
    item = int(tensor.element_size())
    strides = tuple(int(stride) * item for stride in tensor.stride())
    return Span(int(tensor.data_ptr()), tuple(tensor.shape), strides, item, False, tensor)
