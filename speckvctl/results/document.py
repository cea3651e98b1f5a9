# SPDX-License-Identifier: MIT
"""What every document is, and the one of an error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from speckvctl.exitcodes import ExitCode


@dataclass(frozen=True, kw_only=True)
class Document:
    schema: ClassVar[str]
    version: ClassVar[int] = 0

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode.DONE


@dataclass(frozen=True, kw_only=True)
class ErrorDetail:
    code: str
    exit_code: int
    errno: str | None
    message: str
    next: str | None


@dataclass(frozen=True, kw_only=True)
class ErrorDocument(Document):
    schema: ClassVar[str] = "speckvctl.error"
    error: ErrorDetail

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode(self.error.exit_code)


@dataclass(frozen=True, kw_only=True)
class Change:
    setting: str
    before: str
    after: str
