# SPDX-License-Identifier: MIT
"""`top` on a terminal beside a client at work, and the documents of its ticks."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import speckv

from tests.cli.conftest import SPECKVCTL, Cli, validate
from tests.cli.screen import Document, tables
from tests.cli.terminal import Terminal

SIZES = pytest.mark.parametrize(("columns", "lines"), [(80, 24), (200, 50)], ids=["80x24", "200x50"])


@contextmanager
def traffic(pool: str = "chat") -> Iterator[None]:
    """A client that gets and puts until the end."""
    over = threading.Event()

    def work() -> None:
        with speckv.Context() as context, context.open("host:DRAM") as device, device.attach(pool, tenant="busy") as kv:
            block = np.ones((1, kv.block_bytes), np.uint8)
            for number in range(1 << 30):
                kv.put(number.to_bytes(32, "big"), block)
                kv.get([number.to_bytes(32, "big"), bytes([0, number % 25]) * 16], np.concatenate([block, block]))
                if over.wait(0.02):
                    return

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def top(cli: Cli, columns: int, lines: int, *options: str) -> Iterator[Terminal]:
    command = [SPECKVCTL, "top", "--interval", "0.2", "--record", "ticks.jsonl", *options]
    with Terminal(command, cli.folder, columns, lines) as terminal:
        terminal.see("speckvctl top")
        yield terminal


def ticks(cli: Cli) -> list[Document]:
    """Every document that was recorded, the last held to its schema. A line that is still being written is left out."""
    written = (cli.folder / "ticks.jsonl").read_text(encoding="utf-8")
    documents = [json.loads(line) for line in written[: written.rfind("\n") + 1].splitlines()]
    for document in documents[-1:]:
        validate(document)
    return documents


def pause(terminal: Terminal, cli: Cli) -> Document:
    terminal.press("p")
    terminal.see("PAUSED")
    return shown_tick(terminal, cli)


def shown_tick(terminal: Terminal, cli: Cli) -> Document:
    """The document of the tick that is to be seen."""
    found = re.search(r"tick (\d+)", terminal.lines[0])
    assert found, terminal.lines[0]
    document = ticks(cli)[int(found[1]) - 1]
    assert document["tick"] == int(found[1])
    return document


def pool_names(terminal: Terminal) -> list[str]:
    return [row["POOL"] for row in tables(terminal.lines[1:-1]).get("POOL", [])]
