# SPDX-License-Identifier: MIT
"""The report of `doctor` as text."""

from __future__ import annotations

from speckvctl import results
from speckvctl.render.dispatch import STATES, lines_of
from speckvctl.render.text import hung, one_line, paint, plural, room


@lines_of.register
def diagnosed(document: results.DoctorReport) -> list[str]:
    lines: list[str] = []
    width = max(len(check.name) for check in document.checks)
    for check in document.checks:
        status = paint(check.status.ljust(7), STATES[check.status])
        lines += hung(f"{status}  {check.name.ljust(width)}  ", one_line(check.detail), room())
        if check.next:
            lines += hung(f"{'':7}  {'':{width}}  next: ", one_line(check.next), room())
    return [
        *lines,
        "",
        f"{plural(len(document.checks), 'check')}: {document.failed} failed, {plural(document.warnings, 'warning')}.",
    ]
