# SPDX-License-Identifier: MIT
"""Every option that takes a number, with numbers that no code expects: each is used, or refused in one clean line."""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any

import pytest

from speckvctl.app import main
from speckvctl.exitcodes import ExitCode
from tests.cli.conftest import Cli
from tests.cli.test_tree import COMMANDS, VERBS
from tests.conftest import MEMORY

NUMBERS = [
    *("0", "-0", "-1", "1", "1.5", "1e-320", "5e-324", "1e-9", "1e9", "1e308", "1e999", "-1e308"),
    *("nan", "inf", "-inf", "NaN", "Infinity", "0x10", "1_000", " 1", "\u0661", "", "9" * 5000, "1e" + "9" * 5000),
    *(str(2**bits + more) for bits in (31, 32, 53, 63, 64) for more in (-1, 0)),
]
SIZES = [*NUMBERS, "0B", "1PiB", "0.0001KiB", "1e3KiB", f"{2**64}B", "16777216TiB", "-1GiB", "9" * 5000 + "GiB"]
TIMES = [*NUMBERS, "0s", "1e9d", "99999999999999999999d", "9" * 5000 + "d", "9999-12-31", "0001-01-01", "2026-13-01"]

#: What is given beside the option, so that the number gets as far as it can and nothing takes long.
BESIDE: dict[str, list[str]] = {
    "bitstream build": ["regs-only.bit", "regs-only.json", "-o", "made.bundle", "--dry-run"],
    "bitstream verify": ["regs-only.bundle", "--trust", "test.pub"],
    "codec calibrate": ["--model", "none", "--tokens", "none.npy", "-o", "made.safetensors", "--dry-run"],
    "codec compare": ["none.safetensors"],
    "codec extract": ["--model", "none", "--tokens", "none.npy", "-o", "made.safetensors", "--dry-run"],
    "codec encode": ["kv.safetensors", "-o", "made.frames", "--dry-run"],
    "codec eval": ["none.safetensors"],
    "device inject": ["emu:none", "slow", "--dry-run"],
    "device set": ["emu:none", "--dry-run"],
    "emu start": ["none", "--dry-run"],
    "events": [MEMORY],
    "pool create": [MEMORY, "made", "--size", "8MiB", "--dry-run"],
    "pool resize": [MEMORY, "chat", "--dry-run"],
    "pool set": [MEMORY, "chat", "--dry-run"],
    "prefetcher eval": ["--baseline", "lru", "conversations.jsonl"],
    "replay": ["trace.jsonl", "--device", MEMORY, "--pool", "chat", "--dry-run"],
    "top": ["--device", "host:numa977", "--once"],
    "train-prefetcher": ["conversations.jsonl", "-o", "made.safetensors", "--dry-run"],
}
WHOLE, SIZE, TIME = ("N", "MS", "S", "X", "M", "F", "T", "R"), ("SIZE",), ("TIME",)


def options(*metavars: str) -> list[tuple[str, str]]:
    found = []
    for path in VERBS:
        for parameter in COMMANDS[path].params:
            names = [name for name in parameter.opts if name.startswith("--")]
            if names and parameter.metavar in metavars:
                found.append((path, names[0]))
    return found


def named(*metavars: str) -> list[str]:
    return [" ".join(each) for each in options(*metavars)]


def test_every_command_with_a_number_is_in_the_table() -> None:
    found = {path for path, _ in options(*WHOLE, *SIZE, *TIME)}
    assert found == set(BESIDE)
    numbers = set()
    for path in VERBS:
        hints = typing.get_type_hints(COMMANDS[path].callback)
        for parameter in COMMANDS[path].params:
            kinds = {hints.get(parameter.name), *typing.get_args(hints.get(parameter.name))}
            if kinds & {int, float}:
                numbers.add((path, parameter.opts[0]))
    assert numbers == set(options(*WHOLE))


@pytest.fixture
def call(chat: Cli, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """The command in this process, which is quick enough for hundreds of numbers."""
    monkeypatch.chdir(chat.folder)

    def called(*arguments: str) -> tuple[int, str, str]:
        code = main(list(arguments))
        out, err = capfd.readouterr()
        return code, out, err

    return called


def sound(code: int, out: str, err: str, shown: str) -> None:
    assert code in set(map(int, ExitCode)) - {int(ExitCode.INTERRUPTED)}, shown
    assert (code == 0) == (not err) or "sorted by time" in err, f"{shown}: {err}"
    for words in ("Traceback", "internal error", "[Errno", "Input should", "Overflow", "unable to parse", "integer"):
        assert words not in err, f"{shown}: {err}"
    assert code == 0 or len(err.splitlines()) == 1, f"{shown}: {err}"
    assert len(err) < 1000, f"{shown}: {err}"


@pytest.mark.parametrize(("path", "option"), options(*WHOLE), ids=named(*WHOLE))
def test_a_number_is_used_or_refused(call: Callable[..., Any], path: str, option: str) -> None:
    for number in NUMBERS:
        shown = f"{path} {option}={number[:40]}"
        code, out, err = call(*path.split(), *BESIDE[path], f"{option}={number}")
        sound(code, out, err, shown)
        if number in ("nan", "inf", "-inf", "NaN", "Infinity", "", "1_000", "\u0661", "0x10"):
            assert code == 2 and option in err, f"{shown}: {err}"


@pytest.mark.parametrize(("path", "option"), options(*SIZE), ids=named(*SIZE))
def test_a_size_is_used_or_refused(call: Callable[..., Any], path: str, option: str) -> None:
    beside = BESIDE[path]
    if option in beside:
        beside = [word for index, word in enumerate(beside) if option not in beside[max(0, index - 1) : index + 1]]
    for size in SIZES:
        code, out, err = call(*path.split(), *beside, f"{option}={size}")
        sound(code, out, err, f"{path} {option}={size[:40]}")


@pytest.mark.parametrize(("path", "option"), options(*TIME), ids=named(*TIME))
def test_a_time_is_used_or_refused(call: Callable[..., Any], path: str, option: str) -> None:
    for time in TIMES:
        code, out, err = call(*path.split(), *BESIDE[path], f"{option}={time}")
        sound(code, out, err, f"{path} {option}={time[:40]}")


def test_the_slowest_replay_waits_without_an_error() -> None:
    """A request that is due in years is waited for: the wait itself is within what calls can count."""
    from multiprocessing import Pipe

    from speckvctl.replay import client

    ours, theirs = Pipe()
    ours.send(None)
    work = client.Work("", (1,), 10**25)
    no_client: Any = None  # what was sent cuts the chunk short before it is served
    client._serve_chunk(no_client, [work], theirs)
