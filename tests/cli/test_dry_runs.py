# SPDX-License-Identifier: MIT
"""A dry run ends as the run itself would, and a run that is refused has changed nothing."""

from __future__ import annotations

import re
from contextlib import ExitStack

import pytest

from tests.cli.conftest import Cli, described, held
from tests.conftest import MEMORY

#: A verb on a pool, and the exit code of it, dry or not, where the pool is unused, in use and not there.
RUNS = {
    "pool create host:DRAM chat --size 4MiB": (1, 1, 0),
    "pool create host:DRAM chat --size 64MiB": (3, 3, 0),
    "pool create host:DRAM chat --size 900GiB": (1, 1, 1),
    "pool destroy host:DRAM chat --yes": (0, 6, 4),
    "pool resize host:DRAM chat --size 16MiB": (0, 0, 4),
    "pool resize host:DRAM chat --size 64MiB": (3, 3, 4),
    "pool resize host:DRAM chat --size 900GiB": (1, 1, 4),
    "pool set host:DRAM chat --quota 4MiB": (0, 0, 4),
    "pool set host:DRAM chat --quota none": (3, 3, 4),
    "pool set host:DRAM chat --quota 4MiB --eviction none --tenant-quota 1K": (2, 2, 4),
    "pool set host:DRAM chat --quota 900GiB --mode 0660": (2, 2, 4),
    "device close host:DRAM --yes": (0, 6, 0),
}
#: Free memory, which breathes.
FREE = re.compile(r"[\d.]+ GiB free \(\d+ bytes\)")
STATES = ("unused", "used", "missing")


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("run", RUNS)
def test_a_dry_run_ends_as_the_run_does(cli: Cli, run: str, state: str) -> None:
    if "close" in run and MEMORY != "host:DRAM":
        pytest.skip("cards are stopped, not closed")
    expected = RUNS[run][STATES.index(state)]
    cli.ok("pool", "create", "host:DRAM", "before", "--size", "8MiB")
    cli.ok("pool", "create", "host:DRAM", "other" if state == "missing" else "chat", "--size", "64MiB")
    with ExitStack() as stack:
        if state == "used":
            stack.enter_context(held("chat"))
        before = described(cli)
        dry = cli(*run.split(), "--dry-run")
        assert dry.code == expected, dry.err
        assert described(cli) == before
        real = cli(*run.split())
        assert real.code == expected, real.err
        if expected:
            assert FREE.sub("free", dry.err) == FREE.sub("free", real.err)
            assert described(cli) == before
