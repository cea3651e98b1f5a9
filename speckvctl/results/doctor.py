# SPDX-License-Identifier: MIT
"""The document of the doctor."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from speckvctl.exitcodes import ExitCode
from speckvctl.results.document import Document


@dataclass(frozen=True, kw_only=True)
class Check:
    name: str
    status: str  # ok, warning or failed
    detail: str
    next: str | None = field(default=None)


@dataclass(frozen=True, kw_only=True)
class DoctorReport(Document):
    schema: ClassVar[str] = "speckvctl.doctor"
    failed: int
    warnings: int
    checks: list[Check]

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode.FAILED if self.failed else ExitCode.DONE
