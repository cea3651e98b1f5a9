# SPDX-License-Identifier: MIT
"""The document of the doctor."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from speckvctl.exitcodes import ExitCode
from speckvctl.results.described import Said
from speckvctl.results.document import Document


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check of the machine."""

    name: Annotated[str, Said("Name.")]
    status: Annotated[str, Said("Outcome.", enum=["ok", "warning", "failed"])]
    detail: Annotated[str, Said("Description, one line.")]
    next: Annotated[str | None, Said("What to type next; null when there is nothing to do.")] = field(default=None)


@dataclass(frozen=True, kw_only=True)
class DoctorReport(Document):
    """What `speckvctl doctor --json` prints."""

    schema: ClassVar[str] = "speckvctl.doctor"
    failed: Annotated[int, Said("Checks that failed.", minimum=0)]
    warnings: Annotated[int, Said("Checks that warn.", minimum=0)]
    checks: Annotated[list[Check], Said("Checks, in order.")]

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode.FAILED if self.failed else ExitCode.DONE
