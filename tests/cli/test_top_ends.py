# SPDX-License-Identifier: MIT
"""`top`: how it begins and ends, and which terminals it refuses."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from tests.cli.conftest import SPECKVCTL, Cli, environment
from tests.cli.terminal import Terminal
from tests.cli.watching import ticks, top


def test_without_a_device_it_names_the_next_step_and_waits_for_one(cli: Cli) -> None:
    next_step = "Next: speckvctl pool create host:DRAM NAME --size 64MiB"
    with top(cli, 80, 24) as terminal:
        terminal.see(next_step)
        terminal.press("enter", "down", "s", "t")
        cli.ok("pool", "create", "host:DRAM", "first", "--size", "8MiB")
        terminal.see("host:DRAM", "first", "pool first created")
        terminal.press("enter")
        terminal.see("first on host:DRAM")
        cli.ok("pool", "destroy", "host:DRAM", "first", "--yes")
        terminal.see("This pool is gone.")
        terminal.press("escape")
        terminal.see("No pools to see. Next: speckvctl pool create host:DRAM NAME --size ")  # what fits
        cli.ok("device", "close", "host:DRAM")
        terminal.see(next_step)
    assert next_step in cli.ok("top", "--once").out
    document = cli.document("top", "--once")
    assert (document["devices"], document["pools"]) == ([], [])


@pytest.mark.parametrize("view", ["", "?", "\r", "p"])
@pytest.mark.parametrize("key", ["q", "ctrl-c"])
def test_leaving_gives_the_terminal_back(key: str, view: str, world: Cli) -> None:
    with top(world, 80, 24) as terminal:
        terminal.press(view)
        if view == "?":
            terminal.see("KEYS, OVERVIEW")
            terminal.press("escape")
            terminal.see("DEVICE")
        terminal.press(key)
        assert terminal.end() == 0
        assert terminal.restored()


HASTY = """
import os, pty, select, sys, termios, tty
from speckvctl.top import terminal
ours, theirs = pty.openpty()
terminal._take_over(theirs)
os.write(ours, b"p")
assert select.select([theirs], [], [], 60)[0]
termios.tcflush(theirs, termios.TCIFLUSH)  # as the kernel does at Ctrl-C
assert os.read(theirs, 16) == b"" and not terminal._gone(theirs)
os.close(ours)
assert terminal._gone(theirs)
"""


def test_a_key_that_ctrl_c_threw_away_is_not_waited_for() -> None:
    subprocess.run([sys.executable, "-c", HASTY], check=True, timeout=120)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_ends_it_and_the_terminal_is_given_back(number: signal.Signals, world: Cli) -> None:
    with top(world, 80, 24) as terminal:
        terminal.process.send_signal(number)
        assert terminal.end() == -number
        assert terminal.restored()


FAILING = """
import sys
from speckvctl.top import terminal, model, sampling, state
class Failing(sampling.Sampler):
    looks = 0
    def look(self):
        self.looks += 1
        if self.looks > 2:
            raise RuntimeError("the third look")
        return super().look()
terminal.run(model.Model(Failing(None)), state.State(), interval=0.05, count=None, record=lambda document: None)
"""


def test_an_exception_gives_the_terminal_back_before_it_is_shown(world: Cli) -> None:
    with Terminal([sys.executable, "-c", FAILING], world.folder, 80, 24) as terminal:
        assert terminal.end() == 1
        assert terminal.restored()
        assert terminal.sent.rfind(b"the third look") > terminal.sent.rfind(b"\x1b[?1049l")


def test_count_ends_the_screen(world: Cli) -> None:
    with top(world, 80, 24, "--count", "3") as terminal:
        assert terminal.end() == 0
        assert terminal.restored()
    assert len(ticks(world)) == 3


def test_a_terminal_that_goes_away_ends_it(world: Cli) -> None:
    with top(world, 80, 24) as terminal:
        process = terminal.process
        terminal.hang_up()
        process.wait(60)
        assert process.returncode != 0


def test_what_cannot_be_shown_is_refused_in_a_line(world: Cli) -> None:
    refused = {
        (): "top needs a terminal",
        ("--once", "--sort", "size"): "--sort: 'size' is not one of name, used, raw",
        ("--once", "--interval", "0"): "--interval: '0' is not a number from 0.05",
        ("--once", "--interval", "nan"): "--interval: 'nan' is not a number from 0.05",
        ("--json", "--count", "0"): "--count: '0' is not a whole number from 1",
        ("--once", "--count", "2"): "--once and --count",
        ("--once", "--columns", "3"): "--columns: '3' is not",
    }
    for options, text in refused.items():
        done = world("top", *options)
        assert done.code == 2 and text in done.line
    assert world("top", "--once", "--record", "no/such/folder").code == 4
    assert world("top", "--device", "host:numa977", "--once").code == 4


IMPORTED = """
import json, sys
from speckvctl.app import main
assert main(sys.argv[1:]) == 0
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


def test_a_tick_needs_neither_numpy_nor_discovery(world: Cli) -> None:
    command = [sys.executable, "-c", IMPORTED, "top", "--once"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment())
    assert not set(json.loads(done.stderr)) & {"numpy", "torch", "pyudev", "speckvctl.discovery", "asyncio"}


@pytest.mark.parametrize("kind", ["dumb", "unknown", ""])
def test_a_terminal_without_a_cursor_is_refused_as_none(cli: Cli, kind: str) -> None:
    cli.ok("pool", "create", "host:DRAM", "chat", "--size", "8MiB")
    command = [SPECKVCTL, "top", "--count", "1", "--interval", "0.2"]
    with Terminal(command, cli.folder, 80, 24, TERM=kind) as terminal:
        assert terminal.end() == 2
        assert b"\x1b" not in terminal.sent
        assert b"speckvctl top --once" in terminal.sent


def test_without_colour_the_selected_pool_and_the_titles_still_stand_out(world: Cli) -> None:
    command = [SPECKVCTL, "top", "--interval", "0.2"]
    with Terminal(command, world.folder, 80, 24, NO_COLOR="1") as terminal:
        terminal.see("speckvctl top")
        terminal.see("replayed")
        (first,) = terminal.marked()
        cells = [terminal.screen.buffer[row][column] for row in range(24) for column in range(80)]
        assert any(cell.bold for cell in cells[:80])
        assert {cell.fg for cell in cells} == {"default"}
        terminal.press("down")
        terminal.until(lambda: terminal.marked() and terminal.marked() != [first])
        terminal.press("q")
        assert terminal.end() == 0
