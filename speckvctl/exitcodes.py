# SPDX-License-Identifier: MIT
"""The exit codes of speckvctl, their errno values and their documentation."""

from __future__ import annotations

import errno
from enum import IntEnum


class ExitCode(IntEnum):
    DONE = 0
    FAILED = 1
    USAGE = 2
    NOTHING_TO_DO = 3
    NOT_FOUND = 4
    NOT_PERMITTED = 5
    BUSY = 6
    VERIFICATION_FAILED = 7
    UNSUPPORTED = 8
    INTERRUPTED = 130  # a shell's status for a program killed by SIGINT

    @property
    def label(self) -> str:
        """The name used in JSON error documents: "not_found"."""
        return self.name.lower()


MEANING: dict[ExitCode, str] = {
    ExitCode.DONE: "done",
    ExitCode.FAILED: "failed, for a reason without a code of its own, such as no space",
    ExitCode.USAGE: "wrong usage: an option, name or value, or a missing --yes",
    ExitCode.NOTHING_TO_DO: "nothing to do: already as requested",
    ExitCode.NOT_FOUND: "not found: no such device, pool or file",
    ExitCode.NOT_PERMITTED: "not permitted",
    ExitCode.BUSY: "busy: in use; the message names the holder",
    ExitCode.VERIFICATION_FAILED: "verification failed: data is damaged or does not match",
    ExitCode.UNSUPPORTED: "unsupported by this build, machine or version",
    ExitCode.INTERRUPTED: "interrupted by Ctrl-C",
}

#: A shell's status for a program killed by SIGPIPE; not an exit code of speckvctl.
OUTPUT_CLOSED = 141

_FROM_ERRNO: dict[int, ExitCode] = {
    errno.EALREADY: ExitCode.NOTHING_TO_DO,
    errno.ENOENT: ExitCode.NOT_FOUND,
    errno.ENODEV: ExitCode.NOT_FOUND,
    errno.ENXIO: ExitCode.NOT_FOUND,
    errno.ESTALE: ExitCode.NOT_FOUND,
    errno.EPERM: ExitCode.NOT_PERMITTED,
    errno.EACCES: ExitCode.NOT_PERMITTED,
    errno.EROFS: ExitCode.NOT_PERMITTED,
    errno.EBUSY: ExitCode.BUSY,
    errno.EAGAIN: ExitCode.BUSY,
    errno.EUSERS: ExitCode.BUSY,
    errno.ETXTBSY: ExitCode.BUSY,
    errno.EBADMSG: ExitCode.VERIFICATION_FAILED,
    errno.EILSEQ: ExitCode.VERIFICATION_FAILED,
    errno.EUCLEAN: ExitCode.VERIFICATION_FAILED,
    errno.ENOLCK: ExitCode.VERIFICATION_FAILED,
    errno.EOPNOTSUPP: ExitCode.UNSUPPORTED,
    errno.EPROTONOSUPPORT: ExitCode.UNSUPPORTED,
    errno.EINVAL: ExitCode.USAGE,
    errno.ERANGE: ExitCode.USAGE,
}


def from_errno(number: int | None) -> ExitCode:
    """The exit code for an errno value (negative values as the C library returns them are accepted)."""
    if number is None:
        return ExitCode.FAILED
    return _FROM_ERRNO.get(abs(number), ExitCode.FAILED)
