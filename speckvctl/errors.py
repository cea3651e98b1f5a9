# SPDX-License-Identifier: MIT
"""Errors of the command line, and the conversion of any exception to one line, a document and an exit code.

Errors of the library arrive as exceptions that carry `errno`; matching on it avoids importing the
library before it is needed.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING

from speckvctl.exitcodes import ExitCode, from_errno
from speckvctl.render.text import one_line

if TYPE_CHECKING:
    from speckvctl.results import ErrorDocument


class CliError(Exception):
    """One line: what was tried and why it failed; `next_step` is the command to run next."""

    exit_code = ExitCode.FAILED

    def __init__(self, message: str, next_step: str | None = None, number: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step
        self.errno = number


class UsageError(CliError):
    exit_code = ExitCode.USAGE


class ConfirmationError(UsageError):
    """A destructive verb without --yes where no prompt is possible."""


class NothingToDoError(CliError):
    exit_code = ExitCode.NOTHING_TO_DO


class AbsentError(CliError):
    exit_code = ExitCode.NOT_FOUND


class BusyError(CliError):
    exit_code = ExitCode.BUSY


class DeniedError(CliError):
    exit_code = ExitCode.NOT_PERMITTED


class DamagedError(CliError):
    exit_code = ExitCode.VERIFICATION_FAILED


class UnsupportedError(CliError):
    exit_code = ExitCode.UNSUPPORTED


class InterruptedByUserError(CliError):
    """Ctrl-C."""

    exit_code = ExitCode.INTERRUPTED

    def __init__(self) -> None:
        super().__init__("interrupted")


MAX_MESSAGE = 600

#: The next command after an error of the library, for the JSON document; the error text has it already.
_NEXT = {
    ExitCode.NOT_FOUND: "speckvctl pool list",
    ExitCode.NOT_PERMITTED: "speckvctl doctor",
}


def from_library(exc: BaseException) -> bool:
    library = sys.modules.get("speckv")
    return library is not None and isinstance(exc, library.SpeckvError)


def _usage(exc: BaseException) -> str:
    """Reword a usage error of typer in the style of the others."""
    option = getattr(exc, "option_name", None)
    if option is not None and hasattr(exc, "possibilities"):
        from difflib import get_close_matches

        context = getattr(exc, "ctx", None)
        siblings = getattr(getattr(getattr(context, "parent", None), "command", None), "commands", {})
        others = [
            verb for verb, command in siblings.items() if any(option in parameter.opts for parameter in command.params)
        ]
        if others:
            return f"there is no option {option} here; it belongs to {', '.join(others)}"
        near = get_close_matches(str(option), exc.possibilities or [], 1, 0.7)
        return f"there is no option {option}" + (f". Did you mean {near[0]}?" if near else "")
    return str(exc.format_message()).rstrip(".")  # type: ignore[attr-defined]


def describe(exc: BaseException, command_path: str) -> ErrorDocument:
    """Convert any exception to the error document that both renderers print."""
    from speckvctl.results import ErrorDetail, ErrorDocument

    number = getattr(exc, "errno", None)
    number = abs(number) if isinstance(number, int) else None
    message, next_step = str(exc), None
    if isinstance(exc, CliError):
        code, message, next_step = exc.exit_code, exc.message, exc.next_step
    elif from_library(exc):
        code = from_errno(number)
        next_step = f"{command_path} --help" if code is ExitCode.USAGE else _NEXT.get(code)
    elif callable(getattr(exc, "format_message", None)):  # typer's usage errors, whichever module it keeps them in
        code, message = ExitCode.USAGE, _usage(exc)
        next_step = f"{command_path} --help"
    elif isinstance(exc, OSError) or number is not None:
        code = from_errno(number)
        if isinstance(exc, OSError) and exc.strerror:
            names = [os.fsdecode(name) for name in (exc.filename, exc.filename2) if isinstance(name, str | bytes)]
            message = ": ".join([*names, exc.strerror])
    elif isinstance(exc, UnicodeError):
        code, message = (
            ExitCode.USAGE,
            f"a name that is not UTF-8: {ascii(exc.object)[:80]}"
            if isinstance(exc, UnicodeEncodeError | UnicodeDecodeError)
            else "a name that is not UTF-8",
        )
        next_step = f"{command_path} --help"
    elif isinstance(exc, ImportError):
        code = ExitCode.UNSUPPORTED
        message = f"a part of the installation cannot be loaded: {exc}"
        next_step = "speckvctl doctor"
    elif isinstance(exc, MemoryError):
        code, message = ExitCode.FAILED, "out of memory"
    else:
        code = ExitCode.FAILED
        message = f"internal error: {type(exc).__name__}: {exc}"
        next_step = "the same with SPECKVCTL_DEBUG=1 in the environment, and report what it prints"
    return ErrorDocument(
        error=ErrorDetail(
            code=code.label,
            exit_code=int(code),
            errno=errno.errorcode.get(number) if number is not None else None,
            message=_bounded(one_line(message)),
            next=next_step,
        )
    )


def _bounded(message: str) -> str:
    """Truncate names and values: input of any length may end up in a message."""
    return message if len(message) <= MAX_MESSAGE else f"{message[: MAX_MESSAGE // 2]}...{message[-MAX_MESSAGE // 3 :]}"


def line_for_people(exc: BaseException, document: ErrorDocument, command_path: str) -> str:
    """The one line on stderr. The library's own texts already end with what to do."""
    error = document.error
    message = error.message
    if error.next and not from_library(exc):
        message += f" Next: {error.next}" if message.endswith("?") else f"; next: {error.next}"
    return f"{command_path}: {message}"
