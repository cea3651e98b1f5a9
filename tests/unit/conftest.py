# SPDX-License-Identifier: MIT
"""A host engine in the test's own runtime folder, and programs in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import MEMORY


@pytest.fixture
def device(runtime_dir: Path) -> Iterator[object]:
    """An open device without pools: host memory, or a card."""
    import speckv  # imported here: some suites run without the package

    with speckv.Context() as context, context.open(MEMORY, create=True) as opened:
        yield opened


@pytest.fixture(scope="session")
def run_python() -> Callable[[str], str]:
    """Run a program; its output."""

    def run(program: str) -> str:
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
