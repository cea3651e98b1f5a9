# SPDX-License-Identifier: MIT
"""Memory: pool memory that this client allocated, to be filled in place and sealed as a block."""

from __future__ import annotations

import errno
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from speckv._speckv import ffi, lib
from speckv.errors import InvalidError, check
from speckv.handle import Handle, Owner
from speckv.requests import HAS_PARENT, KEY_BYTES

if TYPE_CHECKING:
    from speckv.pool import Pool


class Memory(Owner):
    """Created by Pool.alloc(). free() takes effect when no array over it is alive."""

    def __init__(self, pool: Pool, pointer: Any, parent: Handle) -> None:
        self._pool = pool
        self.nbytes = int(lib.speckv_mem_bytes(pointer))
        self.address = int(lib.speckv_mem_address(pointer))
        self._handle = Handle("the allocation", pointer, lib.speckv_mem_free, parent)  # last: others may close it
        self._array: weakref.ref[npt.NDArray[np.uint8]] | None = None

    def __len__(self) -> int:
        return self.nbytes

    @property
    def array(self) -> npt.NDArray[np.uint8]:
        """The whole allocation as uint8, no copy."""
        self._handle.check()
        alive = self._array() if self._array is not None else None
        if alive is not None:
            return alive
        array = self.access(0, self.nbytes)
        self._array = weakref.ref(array)
        return array

    def access(self, offset: int, nbytes: int) -> npt.NDArray[np.uint8]:
        """A range of the allocation as uint8, no copy."""

        def pinned(memory: Any) -> Any:
            out = ffi.new("void **")
            self._check(lib.speckv_mem_access(memory, _size(offset), _size(nbytes), out))
            buffer = ffi.buffer(out[0], nbytes)
            self._handle.pin()
            weakref.finalize(buffer, self._handle.unpin).atexit = False
            return buffer

        return np.frombuffer(self._handle.call(pinned), np.uint8)

    def prefetch(self, offset: int, nbytes: int) -> None:
        """Prefetch a range: a hint."""
        self._check(self._handle.call(lib.speckv_mem_prefetch, _size(offset), _size(nbytes)))

    def seal(self, key: bytes, *, parent: bytes | None = None, position: int = 0) -> None:
        """Publish the contents, one raw block, under `key`. Consumes the allocation: drop arrays over it first."""
        self._handle.check()
        request = ffi.new("struct speckv_request *", {"first_position": _size(position)})
        for field, value in ((request.key, key), (request.parent, parent)):
            if value is None:
                continue
            if len(value) != KEY_BYTES:
                raise InvalidError(errno.EINVAL, f"a key has {KEY_BYTES} bytes, not {len(value)}")
            ffi.memmove(field.bytes, value, KEY_BYTES)
        request.flags = HAS_PARENT if parent is not None else 0
        self._check(self._handle.spend(lib.speckv_mem_seal, request))

    def free(self) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<speckv.Memory {self.nbytes} bytes{' freed' if self._handle.closed else ''}>"

    def _check(self, rc: int) -> int:
        return check(rc, self._pool._ctx)


def _size(number: int) -> int:
    if not 0 <= number < 1 << 64:
        raise InvalidError(errno.ERANGE, f"{number} is not an offset or a size")
    return number
