# SPDX-License-Identifier: MIT
"""Exceptions; check() converts the C library's return codes to them."""

from __future__ import annotations

import errno
import os
from typing import Any

from speckv._speckv import ffi, lib


class SpeckvError(OSError):
    """A call failed. `errno` is positive; str() is the library's text: what was tried, why it failed, what to do."""

    def __init__(self, number: int, text: str = "") -> None:
        super().__init__(abs(number), text or os.strerror(abs(number)))

    def __str__(self) -> str:
        return str(self.strerror)


class NotFoundError(SpeckvError):
    """No such device, pool, block or file."""


class PermissionDeniedError(SpeckvError):
    """Not allowed, or read-only."""


class BusyError(SpeckvError):
    """In use; the text names the holder."""


class StaleError(SpeckvError):
    """The device or pool was closed, destroyed or recreated since this handle was opened: open it again."""


class PoolFullError(SpeckvError):
    """No room: the pool, its quota or the tenant's quota is used up."""


class ExistsError(SpeckvError):
    """It exists already, or something else of that name does."""


class NothingToDoError(SpeckvError):
    """Already as requested."""


class VersionError(SpeckvError):
    """Made by another version."""


class UnsupportedError(SpeckvError):
    """Not in this build or not on this machine."""


class DamagedError(SpeckvError):
    """Stored data does not verify."""


class InvalidError(SpeckvError, ValueError):
    """An invalid value."""


class UnknownParameterError(InvalidError, KeyError):
    """No parameter of that name; the text lists the names."""


class ClosedError(SpeckvError):
    """The object was closed, perhaps by another thread."""


class ForkedError(SpeckvError):
    """The object belongs to the parent process: open it again in the child."""


class WaitTimeoutError(SpeckvError, TimeoutError):
    """The operation is still in progress."""


_BY_ERRNO: dict[int, type[SpeckvError]] = {
    errno.ENOENT: NotFoundError,
    errno.ENODEV: NotFoundError,
    errno.ENXIO: NotFoundError,
    errno.EPERM: PermissionDeniedError,
    errno.EACCES: PermissionDeniedError,
    errno.EROFS: PermissionDeniedError,
    errno.EBUSY: BusyError,
    errno.EAGAIN: BusyError,
    errno.EUSERS: BusyError,
    errno.ETXTBSY: BusyError,
    errno.ESTALE: StaleError,
    errno.ENOSPC: PoolFullError,
    errno.EDQUOT: PoolFullError,
    errno.EEXIST: ExistsError,
    errno.EALREADY: NothingToDoError,
    errno.EPROTONOSUPPORT: VersionError,
    errno.EOPNOTSUPP: UnsupportedError,
    errno.EBADMSG: DamagedError,
    errno.EILSEQ: DamagedError,
    errno.EUCLEAN: DamagedError,
    errno.ENOLCK: DamagedError,
    errno.EINVAL: InvalidError,
    errno.ERANGE: InvalidError,
    errno.EBADF: ClosedError,
    errno.EOWNERDEAD: ForkedError,
    errno.ETIMEDOUT: WaitTimeoutError,
}


def error(number: int, text: str = "") -> SpeckvError:
    """The exception for an errno value of either sign."""
    return _BY_ERRNO.get(abs(number), SpeckvError)(number, text)


def check(rc: int, ctx: Any = None, what: str = "") -> int:
    """Return `rc`, or raise its exception, with the text of this thread's last call in the context.

    Functions without a context leave no text: `what` then describes the call.
    """
    if rc >= 0:
        return rc
    text = "" if ctx is None else str(ffi.string(lib.speckv_strerror(ctx)).decode("utf-8", "replace"))
    if not text and what:
        text = f"{what}: {os.strerror(-rc)}"
    raise error(rc, text)
