# SPDX-License-Identifier: MIT
"""`top` on a terminal: what each key does, at every size."""

from __future__ import annotations

from typing import Any

import speckv

from tests.cli.conftest import Cli
from tests.cli.screen import TRENDS, Document, check_histograms, pool_cells, pools_of, same, tables
from tests.cli.watching import SIZES, pause, pool_names, shown_tick, ticks, top, traffic

ORDERS = ("name", "used", "raw", "ratio", "hit", "in", "out", "p99")


# ---- keys ------------------------------------------------------------------------------------------------------------


def figure(entry: Document, order: str) -> Any:
    pool, interval, stats = entry["pool"], entry["interval"], entry["stats"]
    return {
        "used": pool["used_bytes"],
        "raw": pool["raw_bytes"],
        "ratio": pool["ratio"],
        "hit": stats["hit_share"],
        "in": interval["in_bytes_per_second"],
        "out": interval["out_bytes_per_second"],
        "p99": stats["latency"]["get"]["p99_ns"],
    }[order]


def in_order(document: Document, order: str, backwards: bool) -> list[str]:
    names = sorted(pools_of(document))
    if order == "name":
        return names[::-1] if backwards else names
    known = {name: value for name in names if (value := figure(pools_of(document)[name], order)) is not None}
    first = sorted(known, key=lambda name: known[name] if backwards else -known[name])
    return first + [name for name in names if name not in known]


@SIZES
def test_s_and_r_order_pools_by_every_column(columns: int, lines: int, world: Cli) -> None:
    with traffic(), top(world, columns, lines, "--sort", "used", "--reverse") as terminal:
        terminal.see("tick 3", "by used ▲")
        document = pause(terminal, world)
        assert pool_names(terminal) == in_order(document, "used", True)
        terminal.press("t", "r")
        terminal.see("by used ▼")
        for order in (*ORDERS[2:], *ORDERS[:2]):
            terminal.press("s")
            terminal.see(f"by {order} {'▲' if order == 'name' else '▼'}")
            assert pool_names(terminal) == in_order(document, order, False), order
            terminal.press("S")
            terminal.see(f"by {order} {'▼' if order == 'name' else '▲'}")
            assert pool_names(terminal) == in_order(document, order, True), order
            terminal.press("r")


@SIZES
def test_arrows_move_the_cursor_and_enter_looks_into_that_pool(columns: int, lines: int, world: Cli) -> None:
    with top(world, columns, lines) as terminal:

        def cursor(name: str) -> None:
            terminal.until(lambda: [line.split()[0] for line in terminal.marked()] == [name], f"cursor on {name}")

        cursor("chat")
        for key, name in (
            ("up", "chat"),
            ("down", "empty"),
            ("j", "replayed"),
            ("down", "replayed"),
            ("k", "empty"),
            ("up", "chat"),
            ("end", "replayed"),
            ("home", "chat"),
            ("G", "replayed"),
            ("g", "chat"),
            ("page-down", "replayed"),
            ("page-up", "chat"),
        ):
            terminal.press(key)
            cursor(name)
        terminal.press("down", "r")
        cursor("empty")  # it stays on its pool, wherever that stands now
        terminal.press("enter")
        terminal.see("empty on host:DRAM", "TRAFFIC")
        tabs = {"2": "No tenants.", "3": "No clients.", "4": "No samples.", "5": "No events.", "1": "TRAFFIC"}
        for key, text in tabs.items():
            terminal.press(key)
            terminal.see(text)
        for text in ("No tenants.", "No clients.", "No samples.", "No events.", "TRAFFIC"):
            terminal.press("right")
            terminal.see(text)
        terminal.press("left")
        terminal.see("No events.")
        terminal.press("tab", "tab")
        terminal.see("No tenants.")
        terminal.press("back-tab")
        terminal.see("TRAFFIC")
        terminal.press("escape")
        cursor("empty")
        terminal.press("right")
        terminal.see("TRAFFIC")
        terminal.press("backspace")
        cursor("empty")


def test_the_filter_is_a_line_that_can_be_edited(world: Cli) -> None:
    with top(world, 80, 24) as terminal:

        def typed(text: str) -> None:
            terminal.until(lambda: terminal.lines[-1] == f"filter: {text}".rstrip(), f"filter: {text}")

        def shown(*names: str) -> None:
            terminal.until(lambda: tuple(pool_names(terminal)) == names, f"only {names}")

        terminal.press("/")
        typed("")
        terminal.press("repXl")
        typed("repXl")
        terminal.see("No pool has 'repXl' in its name.")
        terminal.press("left", "backspace")
        typed("repl")
        shown("replayed")
        terminal.press("home", "Q", "delete", "delete")
        typed("Qpl")
        terminal.press("\x01", "\x0b", "aé", "\x15", "one two", "\x17", "\x17")  # ctrl-a k, ctrl-u, ctrl-w w
        typed("")
        terminal.press("EMPTY", "left", "\x06", "end", "enter")
        shown("empty")
        terminal.see("filter: EMPTY", "q quit")
        terminal.press("/", "zzz")
        terminal.see("No pool has 'EMPTYzzz' in its name.")
        terminal.press("escape")
        shown("empty")
        terminal.press("enter")
        terminal.see("empty on host:DRAM")
        terminal.press("escape")
        terminal.see("filter: EMPTY")
        terminal.press("escape")
        shown("chat", "empty", "replayed")
        terminal.press("/", "hopp")
        typed("hopp")
        terminal.press("ctrl-c")  # gives up the line, not the program
        shown("chat", "empty", "replayed")
        terminal.press("/", "q?p", "enter")
        terminal.see("No pool has 'q?p' in its name.")


def test_a_paused_screen_stands_still_and_space_takes_one_tick(world: Cli) -> None:
    with traffic(), top(world, 80, 24) as terminal:
        terminal.see("tick 3")
        document = pause(terminal, world)
        before, looked = terminal.text, len(ticks(world))
        terminal.press("?")
        terminal.see("KEYS, OVERVIEW")
        terminal.press("escape")
        terminal.until(lambda: terminal.text == before, "the same screen again")
        assert len(ticks(world)) == looked == document["tick"]
        terminal.press(" ")
        terminal.see(f"tick {looked + 1}", "PAUSED")
        terminal.press("p")
        terminal.see(f"tick {looked + 3}")
        assert "PAUSED" not in terminal.text


@SIZES
def test_help_explains_every_key_and_column(columns: int, lines: int, world: Cli) -> None:
    with top(world, columns, lines) as terminal:
        terminal.press("?")
        terminal.see("KEYS, OVERVIEW")
        terminal.press("G")
        terminal.see("DEPTH", "COVERAGE")
        terminal.press("page-up", "k", "home")
        terminal.see("KEYS, OVERVIEW")
        terminal.press("x", "escape")
        terminal.see("DEVICE")
        terminal.press("h")
        terminal.see("KEYS, OVERVIEW")
        terminal.press("q")
        terminal.see("DEVICE")


def test_keys_that_mean_nothing_do_nothing(world: Cli) -> None:
    with top(world, 80, 24) as terminal:
        document = pause(terminal, world)
        before = terminal.text
        terminal.press("xyz0", "\x1b[15~", "\x1b[1;5Q", "\x1bOP", "\x00", "ß", "\x1b[200~", "?")
        terminal.see("KEYS, OVERVIEW")
        terminal.press("escape")
        terminal.until(lambda: terminal.text == before, "the same screen again")
        assert shown_tick(terminal, world) == document


# ---- sizes -----------------------------------------------------------------------------------------------------------


def test_it_is_drawn_anew_at_every_size_while_it_runs(world: Cli) -> None:
    with top(world, 80, 24) as terminal:
        document = pause(terminal, world)
        wide = 0
        for columns, lines in ((200, 50), (80, 24), (133, 37), (60, 12), (80, 24)):
            terminal.resize(columns, lines)
            terminal.until(lambda: terminal.lines[-1].startswith("q quit"), f"a frame of {columns}x{lines}")
            terminal.until(lambda: terminal.lines[0].startswith("speckvctl top"))
            for row in tables(terminal.lines[1:-1])["POOL"]:
                same(
                    {title: cell for title, cell in row.items() if title not in TRENDS.values()},
                    pool_cells(pools_of(document)[row["POOL"]], "now"),
                )
            wide = max(wide, max(map(len, terminal.lines)))
        assert wide > 150
        terminal.press("enter", "4")
        terminal.see("SHARE")
        terminal.resize(100, 30)
        terminal.see("SHARE")
        check_histograms(terminal, pools_of(document)["chat"])


def test_a_tiny_terminal_is_no_reason_to_end(world: Cli) -> None:
    with top(world, 80, 24) as terminal:
        for view in ("", "enter", "4", "?"):
            terminal.press(view)
            for columns, lines in ((1, 1), (2, 1), (1, 9), (7, 3), (20, 2), (300, 1), (3, 80)):
                terminal.resize(columns, lines)
                terminal.until(lambda: terminal.lines[0][:1] == "s", f"a frame of {columns}x{lines}")
        terminal.resize(80, 24)
        terminal.press("escape", "escape")
        terminal.see("DEVICE", "POOL", "TENANT", "q quit")
        terminal.press("q")
        assert terminal.end() == 0


def test_more_pools_than_lines_scroll_with_the_cursor(cli: Cli) -> None:
    names = [f"pool-{number:02}" for number in range(30)]
    with speckv.Context() as context, context.open("host:DRAM", create=True) as device:
        for name in names:
            device.create_pool(speckv.PoolConfig(name, 8 << 20))
    with top(cli, 80, 24) as terminal:
        pause(terminal, cli)
        seen = pool_names(terminal)
        assert seen == names[: len(seen)] and 5 < len(seen) < 24
        assert f"1 to {len(seen)} of 30" in terminal.text
        for name in names[1:]:
            terminal.press("down")
            terminal.until(lambda name=name: terminal.marked()[0].split()[0] == name, name)  # type: ignore[misc]
        assert pool_names(terminal) == names[-len(seen) :]
        terminal.press("page-up")
        terminal.until(lambda: terminal.marked()[0].split()[0] == names[-1 - len(seen)], "a page up")
