# SPDX-License-Identifier: MIT
"""Pool: one client's attachment to a pool; put and get blocks."""

from __future__ import annotations

import errno
from collections.abc import Iterator, MutableMapping
from typing import Any

import numpy as np
import numpy.typing as npt

from speckv._speckv import ffi, lib
from speckv.errors import InvalidError, UnknownParameterError, check
from speckv.handle import Handle, Owner
from speckv.memory import Memory
from speckv.op import Op
from speckv.requests import (
    CHARS,
    KEY_BYTES,
    KEYS,
    Batch,
    Buffers,
    Keys,
    Rows,
    Statuses,
    give,
    key_array,
    key_memory,
    rows,
    take,
)
from speckv.types import c_text

_get, _put, _memmove, _from_buffer = lib.speckv_get, lib.speckv_put, ffi.memmove, ffi.from_buffer


class Pool(Owner):
    """Created by Device.attach(). Threads may share it.

    Block data is read and written in place: numpy arrays, CPU torch tensors (bf16 too) and bytes-like objects, in
    C order, never copied or converted. Results are per block: 0, or a negative errno.
    """

    def __init__(self, name: str, pointer: Any, parent: Handle) -> None:
        self.name = name
        self.block_bytes = int(lib.speckv_pool_block_bytes(pointer))
        self._ctx = lib.speckv_pool_ctx(pointer)  # only for error texts, which outlive it
        self._handle = Handle(f"pool {name}", pointer, lib.speckv_pool_close, parent)
        self.params: MutableMapping[str, str] = Params(self)

    # -- blocks

    def put(self, keys: Keys, buffers: Buffers, *, parents: Any = None, positions: Any = None) -> Statuses:
        """Store blocks. A key already stored is left unchanged (status 0).

        `parents`: for every key the key of the block before it in its chain, or None. `positions`: of each block's
        first token in its sequence; one integer stands for all.
        """
        if type(keys) is bytes and type(buffers) is np.ndarray and parents is None and positions is None:
            statuses = self._one(_put, keys, buffers, False)
            if statuses is not None:
                return statuses
        array = key_array(keys)
        batch = take(len(array))
        try:
            self._fill_put(batch, array, buffers, parents, positions)
            self._check(self._handle.call(_put, batch.c, len(array)))
            return batch.status[: len(array)].copy()
        finally:
            give(batch)

    def get(self, keys: Keys, buffers: Buffers, *, layers: tuple[int, int] | None = None) -> Statuses:
        """Read blocks into the buffers. Status -ENOENT: not stored. `layers`: (first, count), only those."""
        if layers is None and type(keys) is bytes and type(buffers) is np.ndarray:
            statuses = self._one(_get, keys, buffers, True)
            if statuses is not None:
                return statuses
        array = key_array(keys)
        batch = take(len(array))
        try:
            self._fill_get(batch, array, buffers, layers)
            self._check(self._handle.call(_get, batch.c, len(array)))
            return batch.status[: len(array)].copy()
        finally:
            give(batch)

    def submit_put(self, keys: Keys, buffers: Buffers, *, parents: Any = None, positions: Any = None) -> Op:
        """put() in the background; do not change the buffers before it is done."""
        array = key_array(keys)
        batch = Batch(max(1, len(array)))
        owner = self._fill_put(batch, array, buffers, parents, positions)
        return self._submit(lib.SPECKV_OP_PUT, batch, len(array), owner)

    def submit_get(self, keys: Keys, buffers: Buffers, *, layers: tuple[int, int] | None = None) -> Op:
        """get() in the background."""
        array = key_array(keys)
        batch = Batch(max(1, len(array)))
        owner = self._fill_get(batch, array, buffers, layers)
        return self._submit(lib.SPECKV_OP_GET, batch, len(array), owner)

    def lookup(self, keys: Keys) -> npt.NDArray[np.bool_]:
        """Which of the keys are stored."""
        memory, count = key_memory(keys)
        present = np.zeros(count, np.bool_)
        self._check(self._handle.call(lib.speckv_lookup, memory, count, _from_buffer("uint8_t[]", present)))
        return present

    def lookup_prefix(self, keys: Keys) -> int:
        """The length of the stored prefix of the keys."""
        return self._check(self._handle.call(lib.speckv_lookup_prefix, *key_memory(keys)))

    def prefetch(self, keys: Keys) -> int:
        """Stage blocks in background, params["prefetch_depth"] deep along chains. Returns how many were accepted."""
        return self._check(self._handle.call(lib.speckv_prefetch, *key_memory(keys)))

    def touch(self, keys: Keys) -> int:
        """Mark as just used. Returns how many were found."""
        return self._check(self._handle.call(lib.speckv_touch, *key_memory(keys)))

    def drop(self, keys: Keys) -> int:
        """Drop blocks. Returns how many were found."""
        return self._check(self._handle.call(lib.speckv_drop, *key_memory(keys)))

    def children(self, key: bytes, limit: int = 64) -> list[bytes]:
        """Keys of the blocks that followed `key`, the most recent first."""
        memory, count = key_memory(key)
        if count != 1:
            raise InvalidError(errno.EINVAL, f"children() takes one key, not {count}")
        found = ffi.new(KEYS, max(0, limit))
        number = self._check(self._handle.call(lib.speckv_children, memory, found, max(0, limit)))
        return [bytes(ffi.buffer(found[index].bytes)) for index in range(number)]

    # -- memory

    def alloc(self, nbytes: int) -> Memory:
        """Allocate zeroed pool memory, to fill in place and seal() as a block."""
        if not 0 <= nbytes < 1 << 64:
            raise InvalidError(errno.EINVAL, f"{nbytes} is not a size")
        out = ffi.new("struct speckv_mem **")

        def allocated(pool: Any) -> Memory:
            self._check(lib.speckv_mem_alloc(pool, nbytes, out))
            return Memory(self, out[0], self._handle)

        memory: Memory = self._handle.call(allocated)
        return memory

    def __repr__(self) -> str:
        return f"<speckv.Pool {self.name}{' closed' if self._handle.closed else ''}>"

    # -- internals

    def _check(self, rc: int) -> int:
        return check(rc, self._ctx)

    def _one(self, function: Any, key: bytes, buffer: npt.NDArray[Any], write: bool) -> Statuses | None:
        """Fast path for one block in a contiguous array; None: use the general path, which also reports errors."""
        if len(key) != KEY_BYTES or buffer.nbytes != self.block_bytes:
            return None
        try:
            memory = _from_buffer(CHARS, buffer, write)
        except (BufferError, ValueError):
            return None
        batch = take(1)
        request = batch.first
        _memmove(batch.first_key, key, KEY_BYTES)
        request.buffer = memory
        request.buffer_bytes = self.block_bytes
        request.first_position = 0
        request.layer_first = 0
        request.layer_count = 0
        request.flags = 0
        rc = self._handle.call(function, request, 1)
        statuses = batch.status[:1].copy()
        give(batch)
        if rc < 0:
            self._check(rc)
        return statuses

    def _fill_put(
        self, batch: Batch, keys: npt.NDArray[np.uint8], buffers: Buffers, parents: Any, positions: Any
    ) -> Rows:
        where = rows(buffers, len(keys), write=False)
        if len(keys) and where.row_bytes != self.block_bytes:
            raise InvalidError(
                errno.EINVAL, f"a block of pool {self.name} has {self.block_bytes} bytes, not {where.row_bytes}"
            )
        batch.fill(keys, where)
        batch.set_chain(len(keys), parents, positions)
        return where

    def _fill_get(
        self, batch: Batch, keys: npt.NDArray[np.uint8], buffers: Buffers, layers: tuple[int, int] | None
    ) -> Rows:
        where = rows(buffers, len(keys), write=True)
        if layers is None and len(keys) and where.row_bytes < self.block_bytes:
            raise InvalidError(
                errno.EINVAL, f"a block of pool {self.name} needs {self.block_bytes} bytes, got {where.row_bytes}"
            )
        batch.fill(keys, where)
        if layers is not None:
            batch.set_layers(len(keys), layers)
        return where

    def _submit(self, opcode: int, batch: Batch, count: int, owner: object) -> Op:
        out = ffi.new("struct speckv_op **")

        def submitted(pool: Any) -> Op:
            self._check(lib.speckv_submit(pool, opcode, batch.c, count, out))
            return Op(out[0], self._handle, self._ctx, batch, count, owner)

        op: Op = self._handle.call(submitted)
        return op


class Params(MutableMapping[str, str]):
    """Parameters of one attachment: prefetch_depth, codec, verify, threads (block.h says what they take)."""

    NAMES = ("prefetch_depth", "codec", "verify", "threads")

    def __init__(self, pool: Pool) -> None:
        self._handle = pool._handle
        self._ctx = pool._ctx

    def __getitem__(self, name: str) -> str:
        value = ffi.new("char[]", 256)
        rc = self._handle.call(lib.speckv_param_get, c_text(name), value, ffi.sizeof(value))
        if rc == -errno.EINVAL:
            raise UnknownParameterError(rc, self._text())
        check(rc, self._ctx)
        return str(ffi.string(value).decode())

    def __setitem__(self, name: str, value: str | int) -> None:
        """InvalidError with the accepted names, or the accepted values, in its text."""
        rc = self._handle.call(lib.speckv_param_set, c_text(name), c_text(str(value)))
        if rc == -errno.EINVAL and name not in self:
            raise UnknownParameterError(rc, self._text())
        check(rc, self._ctx)

    def __delitem__(self, name: str) -> None:
        raise TypeError("a parameter cannot be deleted, only set")

    def __iter__(self) -> Iterator[str]:
        return iter(self.NAMES)

    def __len__(self) -> int:
        return len(self.NAMES)

    def __repr__(self) -> str:
        return f"<speckv.Params {dict(self)}>"

    def _text(self) -> str:
        return str(ffi.string(lib.speckv_strerror(self._ctx)).decode("utf-8", "replace"))
