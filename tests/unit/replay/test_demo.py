# SPDX-License-Identifier: MIT
"""make demo's script: it ends with a summary, beside itself too, and leaves nothing, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


@pytest.fixture
def demo(repository: Path, tmp_path: Path) -> list[subprocess.Popen[str]]:
    """Two demos at once, with the shipped data, in sessions of their own."""
    bin_folder = Path(sys.executable).parent
    if not (bin_folder / "speckvctl").exists():
        pytest.fail("speckvctl is not installed beside this Python")
    environment = {
        **os.environ,
        "SPECKVCTL": str(bin_folder / "speckvctl"),
        "SPECKV_SHARED": str(tmp_path / "absent"),
        "TMPDIR": str(tmp_path),
    }
    return [
        subprocess.Popen(
            [repository / ".ci" / "demo"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            start_new_session=True,
        )
        for _ in range(2)
    ]


def alive(group: int) -> list[str]:
    """Processes of a group that still run: one that ended and waits for init to collect it is not left behind."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = status.read_text().rpartition(")")
        except OSError:
            continue
        state, _, process_group = rest.split()[:3]
        if int(process_group) == group and state not in "ZX":
            found.append(f"process {name})")
    return found


def left_behind(tmp_path: Path, demos: list[subprocess.Popen[str]]) -> list[str]:
    """Files of demos, and processes of their sessions, once those that are just ending have had time to."""
    deadline = time.monotonic() + 10
    while processes := [name for demo in demos for name in alive(demo.pid)]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.05)
    files = [str(path) for folder in (Path("/dev/shm"), tmp_path) for path in folder.glob("speckv-demo-*")]
    return files + processes


def test_two_demos_at_once_end_with_a_summary_and_leave_nothing(
    demo: list[subprocess.Popen[str]], tmp_path: Path
) -> None:
    for one in demo:
        output, _ = one.communicate(timeout=300)
        assert one.returncode == 0, output
        assert "== Summary" in output and "What to type next" in output
        assert output.count("0 wrong, 0 errors") == 3
        assert "sound." in output
    assert left_behind(tmp_path, demo) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing(
    demo: list[subprocess.Popen[str]], tmp_path: Path, number: signal.Signals
) -> None:
    for one in demo:
        assert one.stdout is not None
        for line in one.stdout:
            if "== Two processes" in line:
                break
        os.killpg(one.pid, number)
        output, _ = one.communicate(timeout=300)
        assert one.returncode == 130, output
        assert "interrupted; nothing is left behind" in output
    assert left_behind(tmp_path, demo) == []
