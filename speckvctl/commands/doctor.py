# SPDX-License-Identifier: MIT
"""speckvctl doctor."""

from __future__ import annotations

from speckvctl import diagnosis, results
from speckvctl.commands.options import App, Json
from speckvctl.render import finish

app = App()


@app.verb("doctor")
def doctor(as_json: Json = False) -> None:
    """Check that this machine can run pools, and name the command to run where it cannot. Nothing is changed.

    Each check ends as ok, warning or failed. Exit code 1 when one failed.

    \b
    Examples:
      speckvctl doctor
      speckvctl doctor --json
    """
    checks = diagnosis.examine()
    report = results.DoctorReport(
        failed=sum(check.status == "failed" for check in checks),
        warnings=sum(check.status == "warning" for check in checks),
        checks=checks,
    )
    finish(report, as_json=as_json)
