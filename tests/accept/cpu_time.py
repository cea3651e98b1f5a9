# SPDX-License-Identifier: MIT
"""Median CPU time (user and system) of a command, warm.

Usage: .venv/bin/python tests/accept/cpu_time.py RUNS COMMAND [ARGUMENT ...]
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys


def cpu_seconds(command: list[str]) -> float:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit status {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    runs, command = int(sys.argv[1]), sys.argv[2:]
    cpu_seconds(command)  # warms up
    seconds = [cpu_seconds(command) for _ in range(runs)]
    print(f"median CPU time of {runs} runs: {1000 * statistics.median(seconds):.1f} ms")


if __name__ == "__main__":
    main()
