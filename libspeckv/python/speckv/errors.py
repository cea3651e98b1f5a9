# SPDX-License-Identifier: MIT
"""What can go wrong. One function, check(), turns the C library's return codes into these."""

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
    """In use; the text says by whom."""


class StaleError(SpeckvError):
    """The device or pool was closed, destroyed or made again since this handle was opened: open it again."""


class PoolFullError(SpeckvError):
    """No room: the pool, its quota or the tenant's quota is used up."""


class ExistsError(SpeckvError):
    """It is there already, or something else is."""


class NothingToDoError(SpeckvError):
    """It already is as asked."""


class VersionError(SpeckvError):
    """Made by another version."""


class UnsupportedError(SpeckvError):
    """Not in this build or not on this machine."""


class DamagedError(SpeckvError):
    """What is stored does not verify."""


class InvalidError(SpeckvError, ValueError):
    """A value that cannot be right."""


class UnknownParameterError(InvalidError, KeyError):
    """No parameter of that name; the text lists the names."""


class ClosedError(SpeckvError):
    """The object was closed, perhaps by another thread."""


class ForkedError(SpeckvError):
    """The object was opened before fork(), and is the parent's: open it again in the child."""


class WaitTimeoutError(SpeckvError, TimeoutError):
    """The operation is still going on."""


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
    """Return `rc`, or raise what it stands for, with the text that this thread's last call left in the context.

    Functions without a context leave no text: `what` then says what was tried.
    """
    if rc >= 0:
        return rc
    text = "" if ctx is None else str(ffi.string(lib.speckv_strerror(ctx)).decode("utf-8", "replace"))
    if not text and what:
        text = f"{what}: {os.strerror(-rc)}"
    raise error(rc, text)
