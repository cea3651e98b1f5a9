# SPDX-License-Identifier: MIT
"""The base of every document, and the error document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from speckvctl.exitcodes import ExitCode
from speckvctl.results.described import Said


@dataclass(frozen=True, kw_only=True)
class Document:
    """What a command prints. The first paragraph of a subclass is the description of its schema."""

    schema: ClassVar[str]
    version: ClassVar[int] = 0

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode.DONE


@dataclass(frozen=True, kw_only=True)
class ErrorDetail:
    """Why a command failed."""

    code: Annotated[
        str,
        Said(
            "Name of the exit code.",
            enum=[
                "failed",
                "usage",
                "nothing_to_do",
                "not_found",
                "not_permitted",
                "busy",
                "verification_failed",
                "unsupported",
                "interrupted",
            ],
        ),
    ]
    exit_code: Annotated[int, Said("Exit code of the process.", minimum=0)]
    errno: Annotated[str | None, Said("Symbolic errno, such as ENOENT; null when there was none.")]
    message: Annotated[str, Said("One line: what was tried and why it failed.")]
    next: Annotated[str | None, Said("What to type next; null when there is nothing to do.")]


@dataclass(frozen=True, kw_only=True)
class ErrorDocument(Document):
    """What any command with --json prints when it fails."""

    schema: ClassVar[str] = "speckvctl.error"
    error: Annotated[ErrorDetail, Said("What went wrong.")]

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode(self.error.exit_code)


@dataclass(frozen=True, kw_only=True)
class Change:
    """A setting before and after."""

    setting: Annotated[str, Said("Setting.")]
    before: Annotated[str, Said("Value before.")]
    after: Annotated[str, Said("Value after.")]
