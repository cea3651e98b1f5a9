# SPDX-License-Identifier: MIT
"""A dry run ends as the run itself would, and a run that is refused has changed nothing."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path

import pytest

from speckvctl.cards import audit
from tests.cli.conftest import Cli, described, digest, held
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


#: Other verbs, on the world of `card`, and the exit code of each, dry or not.
OTHERS = {
    "emu start card1 --memory 64MiB": 0,
    "emu start card1 --memory 4MiB": 2,
    "emu start card1 --memory 17TiB": 2,
    "emu start card1 --dir model": 2,
    "emu start card1 --dir none/card1": 4,
    "emu start card0": 3,
    "emu start card0 --memory 128MiB": 2,
    "emu start a/b": 2,
    "emu stop card0": 0,
    "emu stop card0 --remove --yes": 0,
    "emu stop card1": 4,
    "emu stop card1 --remove --yes": 4,
    "prefetcher load emu:card0 model.safetensors": 0,
    "prefetcher load emu:card0 trace.jsonl": 7,
    "prefetcher load emu:card0 calibration.safetensors": 7,
    "prefetcher load emu:card1 model.safetensors": 4,
    "prefetcher unload emu:card0": 3,
    "prefetcher unload emu:card1": 4,
    "flash emu:card0 regs-only.bundle": 0,
    "flash emu:card0 unsigned.bundle": 7,
    "flash emu:card0 trace.jsonl": 7,
    "flash emu:card0 regs-only.bundle --slot golden": 2,
    "flash emu:card0 --rollback": 3,
    "flash emu:card1 regs-only.bundle": 4,
    "replay trace.jsonl host:DRAM chat --max-rate": 0,
    "replay trace.jsonl host:DRAM none --max-rate": 4,
    "replay none.jsonl host:DRAM chat --max-rate": 4,
    "replay model.safetensors host:DRAM chat --max-rate": 7,
    "codec calibrate --model model --tokens tokens.npy -o new.safetensors": 0,
    "codec calibrate --model model --tokens tokens.npy -o trace.jsonl": 2,
    "codec calibrate --model model --tokens tokens.npy -o new.safetensors --ratio 15": 2,
    "codec calibrate --model model --tokens kv.safetensors -o new.safetensors": 7,
    "codec calibrate --model none --tokens tokens.npy -o new.safetensors": 4,
    "codec extract --model model --tokens tokens.npy -o new.safetensors": 0,
    "codec extract --model model --tokens tokens.npy -o trace.jsonl": 2,
    "codec extract --model model --tokens kv.safetensors -o new.safetensors": 7,
    "codec extract --model none --tokens tokens.npy -o new.safetensors": 4,
}


def seen(cli: Cli, runtime_dir: Path) -> list[object]:
    """Cards, and the files there are, all but a card's memory with what is in them.

    Not what a refused run leaves too: the record of what was tried, and the name in a lock of who held it.
    """
    paths = [path for folder in (runtime_dir, cli.folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    files = {
        f"{path.name}: {path.stat().st_size if path.name == 'memory' else digest(path.read_bytes())}"
        for path in paths
        if path.name not in (audit.NAME, "flash.lock")
    }
    return [cli.document("emu", "list"), files]


@pytest.mark.parametrize("run", OTHERS)
def test_a_dry_run_of_other_verbs_ends_as_the_run_does(card: Cli, run: str, runtime_dir: Path) -> None:
    if run.startswith(("codec calibrate", "codec extract")):
        pytest.importorskip("torch", reason="torch is not installed: pip install 'speckv[codec]'")
    before = seen(card, runtime_dir)
    dry = card(*run.split(), "--dry-run")
    assert dry.code == OTHERS[run], dry.err
    assert seen(card, runtime_dir) == before
    real = card(*run.split())
    assert real.code == OTHERS[run], real.err
    if real.code:
        assert dry.err == real.err
        assert seen(card, runtime_dir) == before
