# SPDX-License-Identifier: MIT
"""The base of every document, and the error document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from speckvctl.exitcodes import ExitCode
from speckvctl.results.described import Said


@dataclass(frozen=True, kw_only=True)
class Document:
    schema: ClassVar[str]
    prints: ClassVar[str]  # what its schema says of the whole
    version: ClassVar[int] = 0

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode.DONE


@dataclass(frozen=True, kw_only=True)
class ErrorDetail:
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
    schema: ClassVar[str] = "speckvctl.error"
    prints: ClassVar[str] = "What any command with --json prints when it fails."
    error: Annotated[ErrorDetail, Said("What went wrong.")]

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode(self.error.exit_code)


@dataclass(frozen=True, kw_only=True)
class Change:
    setting: Annotated[str, Said("Setting.")]
    before: Annotated[str, Said("Value before.")]
    after: Annotated[str, Said("Value after.")]
