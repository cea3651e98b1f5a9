# SPDX-License-Identifier: MIT
"""Acceptance: one row per promise, with its command, the figure, the bar, and whether it is reached.

Usage: .venv/bin/python tests/accept/run.py [--suite NAME] [--skip-slow] [--only REGEX] [--json]; no suite: all built
Exit status 1 when a row misses its bar or could not be measured. Output of the commands: build/accept/NN.log.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from tests.accept.frame import FAILED, Point, Row, Runner, Verdict, evaluate

SUITES = Path(__file__).resolve().parent / "suites"


def suites() -> list[str]:
    return sorted(path.stem for path in SUITES.glob("[a-z]*.py"))


def points(suite: str) -> list[Point]:
    found = importlib.import_module(f"tests.accept.suites.{suite}").POINTS
    assert isinstance(found, list) and found, f"{suite}: no POINTS"
    return found


def table(rows: Sequence[Row]) -> str:
    """Rows as text: the promise on a line of its own, the measurement below it."""
    lines = []
    for row in rows:
        figure, bar = row.figure or "-", row.point.bar or "none"
        lines.append(f"{row.verdict:<12}  {row.point.text}")
        lines.append(f"{'':14}figure {figure}   bar {bar}" + (f"   ({row.note})" if row.note else ""))
        lines.append(f"{'':14}$ {row.point.command}")
        lines += [f"{'':14}| {line}" for line in row.tail]
    return "\n".join(lines)


def summary(rows: Sequence[Row]) -> str:
    return ", ".join(f"{sum(row.verdict == v for row in rows)} {v.lower()}" for v in Verdict)


def as_json(suite: str, row: Row) -> dict[str, object]:
    return {
        "suite": suite,
        "text": row.point.text,
        "command": row.point.command,
        "figure": row.figure.value if row.figure else None,
        "unit": row.figure.unit if row.figure else None,
        "bar": str(row.point.bar) if row.point.bar else None,
        "verdict": row.verdict.lower(),
        "pass": row.verdict == Verdict.PASS,
        "note": row.note,
        "seconds": round(row.seconds, 3),
        "tail": list(row.tail),
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--suite", action="append", choices=suites(), help="may be given more than once; none: all")
    parser.add_argument("--skip-slow", action="store_true", help="slow rows say `not run`, which is not a pass")
    parser.add_argument("--only", metavar="REGEX", help="rows of other commands say `not run`")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    arguments = parser.parse_args(argv)
    wanted = [point.command for suite in arguments.suite or suites() for point in points(suite)]
    try:
        if not any(re.search(arguments.only or "", command) for command in wanted):
            parser.error(f"no row has a command that matches '{arguments.only}'")
    except re.error as e:
        parser.error(f"--only {arguments.only}: {e}")
    results: dict[str, list[Row]] = {}

    def leave_out(point: Point) -> str:
        if arguments.skip_slow and point.slow:
            return "slow"
        return "" if re.search(arguments.only or "", point.command) else "another command"

    shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="speckv-accept-", dir=shm) as runtime:
        # PYTHONSAFEPATH: test the installed package, not the one in this folder.
        environment = {"SPECKV_RUNTIME_DIR": runtime, "PYTHONSAFEPATH": "1"}
        run = Runner(environment, announce=lambda text: print(f"accept: {text}", file=sys.stderr, flush=True))
        for suite in arguments.suite or suites():
            results[suite] = evaluate(points(suite), run, leave_out)
    rows = [row for suite in results.values() for row in suite]
    if arguments.json:
        document = [as_json(suite, row) for suite, found in results.items() for row in found]
        print(json.dumps({"schema": "speckv.accept", "version": 1, "rows": document}, indent=2))
    else:
        for suite, found in results.items():
            print(f"== {suite}\n{table(found)}\n")
        print(summary(rows))
    return int(any(row.verdict in FAILED for row in rows))


if __name__ == "__main__":
    sys.exit(main())
