# SPDX-License-Identifier: MIT
"""A host engine and a pool in the test's own runtime folder."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import speckv


@pytest.fixture
def device(runtime_dir: Path) -> Iterator[speckv.Device]:
    with speckv.Context() as context, context.open("host:DRAM", create=True) as opened:
        yield opened


@pytest.fixture
def pool(device: speckv.Device) -> Iterator[speckv.Pool]:
    """Raw, 16 MiB, blocks of 64 KiB."""
    device.create_pool(speckv.PoolConfig("kv", 16 << 20))
    with device.attach("kv", tenant="test") as attached:
        yield attached


@pytest.fixture(scope="session")
def run_python() -> Callable[[str], str]:
    """Run a program in a process of its own; its output."""

    def run(program: str) -> str:
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
