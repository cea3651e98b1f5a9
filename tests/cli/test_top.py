# SPDX-License-Identifier: MIT
"""`top` on a terminal: what each key does, that every figure is one of its tick's document, and how it ends."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import speckv

from speckvctl.quantities import format_count, format_ratio, format_share, format_time
from speckvctl.replay import sample
from tests.cli.conftest import SPECKVCTL, Cli, environment, validate
from tests.cli.screen import (
    BARS,
    TRENDS,
    Document,
    check_overview,
    device_cells,
    duration,
    pool_cells,
    pools_of,
    prefetch_cells,
    same,
    size,
    tables,
    tenant_cells,
    whole_page,
)
from tests.cli.terminal import Terminal

SIZES = pytest.mark.parametrize(("columns", "lines"), [(80, 24), (200, 50)], ids=["80x24", "200x50"])
ORDERS = ("name", "used", "raw", "ratio", "hit", "in", "out", "p99")


# ---- a world to look at ----------------------------------------------------------------------------------------------


@pytest.fixture
def world(cli: Cli) -> Cli:
    """Three pools: one with prefetches and misses by two tenants, one that a tenant has only filled, one empty."""
    with speckv.Context() as context, context.open("host:DRAM", create=True) as device:
        device.create_pool(speckv.PoolConfig("replayed", 16 << 20))
        device.create_pool(
            speckv.PoolConfig("chat", 64 << 20, codec=speckv.Codec.Q4X, geometry=speckv.Geometry(layers=2))
        )
        device.create_pool(speckv.PoolConfig("empty", 8 << 20))
        for number, tenant in enumerate(("serve-a", "serve-b")):
            with device.attach("chat", tenant=tenant, staging_bytes=8 << 20) as pool:
                keys = [bytes([number, index]) * 16 for index in range(20 + 10 * number)]
                blocks = np.random.default_rng(number).integers(0, 60, (len(keys), pool.block_bytes), np.uint8)
                assert not pool.put(keys, blocks).any()
                while device.stats("chat").counters["prefetched"] < 3 * (number + 1):
                    pool.prefetch(keys[:6])  # a hint: one that meets another is dropped
                    time.sleep(0.02)
                pool.get([*keys[:12], b"absent" + bytes(26)], np.empty((13, pool.block_bytes), np.uint8))
        with device.attach("replayed", tenant="real") as pool:
            keys = [number.to_bytes(32, "big") for number in range(40)]
            assert not pool.put(keys, np.ones((len(keys), pool.block_bytes), np.uint8)).any()
            assert not pool.get(keys, np.empty((len(keys), pool.block_bytes), np.uint8)).any()
    return cli


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
    """Every document that was recorded, each held to its schema."""
    documents = [json.loads(line) for line in (cli.folder / "ticks.jsonl").read_text(encoding="utf-8").splitlines()]
    validate(documents[-1])
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


# ---- every figure ----------------------------------------------------------------------------------------------------


def counted(latency: Document, name: str, of: str) -> dict[str, str]:
    quantiles = {"P50": "p50_ns", "P90": "p90_ns", "P99": "p99_ns", "P99.9": "p999_ns"}
    figures = {title: duration(latency[key]) for title, key in quantiles.items()}
    return {"LATENCY": name, "OF": of, "COUNT": format_count(latency["count"]), **figures}


def check_summary(terminal: Terminal, entry: Document) -> None:
    lines = whole_page(terminal)
    pool, stats, now = entry["pool"], entry["stats"], entry["interval"]
    cut = next(index for index, line in enumerate(lines) if line.startswith("TRAFFIC"))
    facts = " ".join(" ".join(lines[:cut]).split())
    for fact in (
        f"Used {size(pool['used_bytes'])} of {size(pool['capacity_bytes'])}",
        f"Quota {size(pool['quota_bytes'])}",
        f"Blocks {format_count(pool['blocks'])}",
        f"Raw {size(pool['raw_bytes'])} in {size(pool['stored_bytes'])}",
        f"Ratio {format_ratio(pool['ratio'])}",
        f"Effective {size(pool['effective_capacity_bytes'])}",
        f"Counts since {format_time(stats['since_ns'])}",
        f"Codec {pool['codec']}, eviction {pool['eviction']}",
        f"Block {size(pool['block_bytes'])}: ",
    ):
        assert fact in facts
        facts = facts.replace(fact, "")
    shape = pool["geometry"]
    rest = f"{shape['layers']}x{shape['kv_heads']}x{shape['tokens']}x{shape['head_dim']}"
    assert rest in facts and not re.search(r"\d", facts.replace(rest, "").replace(shape["dtype"], ""))
    pictures = [line for line in lines if line.startswith(("OUT/s ", "IN/s ", "P99 of get"))]
    assert len(pictures) == 3 and all(set(line[12:]) <= {*BARS, " "} for line in pictures)
    seen = tables([line for line in lines[cut:] if line not in pictures])

    total, lately = seen["TRAFFIC"]
    same(total, dict.fromkeys(total, "-") | {"TRAFFIC": "total", "HIT": format_share(stats["hit_share"])})
    same(lately, pool_cells(entry, "now") | {"TRAFFIC": "now"})
    rows = [
        counted(source["latency"][name], name, of)
        for name in ("get", "put", "lookup", "stage")
        if stats["latency"][name]["count"]
        for source, of in ((stats, "total"), (now, "now"))
    ]
    assert len(rows) >= 4
    for row, expected in zip(seen["LATENCY"], rows, strict=True):
        same(row, expected)
    for row, source in zip(seen["PREFETCHER"], (entry, now), strict=True):
        same(row, prefetch_cells(row["PREFETCHER"], source["prefetching"]))
    assert [row["PREFETCHER"] for row in seen["PREFETCHER"]] == ["total", "now"]
    for row, (name, count) in zip(seen["COUNTER"], stats["counters"].items(), strict=True):
        same(row, {"COUNTER": name, "TOTAL": format_count(count), "NOW": format_count(now["counters"][name])})


def check_histograms(terminal: Terminal, entry: Document) -> None:
    lines = [line for line in whole_page(terminal) if line]
    for operation, buckets in entry["histograms"].items():
        if not buckets:
            continue
        assert lines.pop(0).split() == [operation.upper(), "COUNT", "SHARE"]
        whole = sum(bucket["count"] for bucket in buckets)
        assert whole == entry["stats"]["latency"][operation]["count"]
        for bucket in buckets:
            bound, count, share, *bar = lines.pop(0).split()
            assert (bound, count) == (duration(bucket["up_to_ns"]), format_count(bucket["count"]))
            assert share == format_share(bucket["count"] / whole) and len(bar) == 1 and set(bar[0]) == {BARS[-1]}
    assert not lines


def check_pool(terminal: Terminal, name: str, document: Document, window: str) -> None:
    """Every tab of the pool that is looked into."""
    entry = pools_of(document)[name]
    terminal.press("1")
    terminal.see(f"{name} on host:DRAM", "TRAFFIC")
    check_summary(terminal, entry)
    terminal.press("2")
    terminal.see("TENANT ")
    rows = tables(terminal.lines[3:-1])["TENANT"]
    for row, tenant in zip(rows, entry["stats"]["tenants"], strict=True):
        same(row, tenant_cells(entry, tenant, window))
    terminal.press("3")
    if entry["clients"]:
        terminal.see("COMMAND")
        (row,), (client,) = tables(terminal.lines[3:-1])["PID"], entry["clients"]
        assert (row["PID"], row["TENANT"], row["ALIVE"]) == (str(client["pid"]), client["tenant"], "yes")
        assert (row["UID"], row["HOLDS"]) == (str(client["uid"]), size(client["allocated_bytes"]))
        assert row["SINCE"] == format_time(client["attached_ns"]).replace(" ", "T")
    else:
        terminal.see("No clients.")
    terminal.press("4")
    terminal.see("SHARE")
    check_histograms(terminal, entry)


@SIZES
def test_every_figure_is_one_of_the_tick_and_of_stats(columns: int, lines: int, world: Cli) -> None:
    replay = ("--device", "host:DRAM", "--pool", "replayed", "--max-rate", "--limit", "60", "--tenant", "real")
    world.ok("replay", sample.TRACE, *replay)
    with top(world, columns, lines) as terminal:
        with traffic():
            terminal.until(lambda: len(ticks(world)) > 8 if (world.folder / "ticks.jsonl").exists() else False)
            document = pause(terminal, world)
            history = ticks(world)[: document["tick"]]
            assert pools_of(document)["chat"]["interval"]["out_bytes_per_second"] > 0
            seen = check_overview(terminal, document, history, "now")
            assert seen == {"DEVICE", "POOL", "PREFETCHER", "TENANT", "TIME"}
            terminal.press("t")
            terminal.see("  total  ")
            check_overview(terminal, document, history, "total")
            terminal.press("t")
            terminal.see("  now  ")
            terminal.press("home", "enter")
            check_pool(terminal, "chat", document, "now")
        # Nothing changes any more: what stats says now is what the next tick says, and the screen after it.
        terminal.press(" ")
        terminal.see(f"tick {document['tick'] + 1}")
        document = shown_tick(terminal, world)
        stats = {pool["pool"]: pool for pool in world.document("stats", "host:DRAM")["pools"]}
        for name, entry in pools_of(document).items():
            assert {**entry["stats"], "taken_ns": 0} == {**stats[name], "taken_ns": 0}
        check_pool(terminal, "chat", document, "now")
        terminal.press("escape")
        terminal.see("PREFETCHER")
        check_overview(terminal, document, ticks(world)[: document["tick"]], "now")
        terminal.press("end", "enter", "t")
        terminal.see("replayed on host:DRAM", "  total  ")
        check_pool(terminal, "replayed", document, "total")
        for documented in ticks(world):
            validate(documented)


def test_intervals_are_the_differences_of_two_ticks(world: Cli) -> None:
    with traffic():
        out = world.ok("top", "--json", "--count", "3", "--interval", "0.3").out
    documents = [json.loads(line) for line in out.splitlines()]
    assert [document["tick"] for document in documents] == [1, 2, 3]
    for document in documents:
        validate(document)
        assert document["interval_ns"] > 0
    for before, after in itertools.pairwise(documents):
        old, new = pools_of(before)["chat"], pools_of(after)["chat"]
        interval = new["interval"]
        grown = {name: count - old["stats"]["counters"][name] for name, count in new["stats"]["counters"].items()}
        assert interval["counters"] == grown and grown["gets"] > 0
        assert interval["out_bytes_per_second"] == round(grown["bytes_out_raw"] * 10**9 / interval["elapsed_ns"])
        assert interval["in_bytes_per_second"] == round(grown["bytes_in_raw"] * 10**9 / interval["elapsed_ns"])
        assert interval["hit_share"] == grown["hits"] / grown["wanted"]
        samples = new["stats"]["latency"]["get"]["count"] - old["stats"]["latency"]["get"]["count"]
        assert interval["latency"]["get"]["count"] == samples > 0
        (device,) = after["devices"]
        assert device["out_bytes_per_second"] == sum(
            entry["interval"]["out_bytes_per_second"] for entry in after["pools"]
        )
        assert not {event["sequence"] for event in after["events"]} & {event["sequence"] for event in before["events"]}


def test_counters_that_were_reset_have_no_rates(world: Cli) -> None:
    with top(world, 80, 24) as terminal:
        terminal.see("tick 2")
        document = pause(terminal, world)
        world.ok("stats", "host:DRAM", "chat", "--reset")
        terminal.press(" ")
        terminal.see(f"tick {document['tick'] + 1}")
        entry = pools_of(shown_tick(terminal, world))
    assert entry["chat"]["interval"] is None and entry["chat"]["stats"]["counters"]["gets"] == 0
    assert entry["replayed"]["interval"]["counters"]["gets"] == 0


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_once_is_plain_text_of_its_document(columns: int, world: Cli) -> None:
    options = ("--once", "--columns", str(columns), "--record", "ticks.jsonl")
    shown = world.ok("top", *options).out
    assert "\x1b" not in shown and max(map(len, shown.splitlines())) <= columns
    (document,) = ticks(world)
    seen = tables(shown[: shown.index("\nRates are of the last ")].splitlines())
    pools = pools_of(document)
    for row in seen["DEVICE"]:
        same(row, device_cells(document["devices"][0]))
    assert [row["POOL"] for row in seen["POOL"]] == ["chat", "empty", "replayed"]
    for row in seen["POOL"]:
        same(row, pool_cells(pools[row["POOL"]], "total"))
    for row in seen["PREFETCHER"]:
        same(row, prefetch_cells(row["PREFETCHER"], pools[row["PREFETCHER"]]["prefetching"]))
    for row in seen["TENANT"]:
        entry = next(each for each in pools.values() if row["TENANT"] in str(each["stats"]["tenants"]))
        tenant = next(each for each in entry["stats"]["tenants"] if each["name"] == row["TENANT"])
        same(row, tenant_cells(entry, tenant, "total"))
    assert f"{document['interval_ns'] / 1e9:.2f} s" in shown


# ---- keys ------------------------------------------------------------------------------------------------------------


def pool_names(terminal: Terminal) -> list[str]:
    return [row["POOL"] for row in tables(terminal.lines[1:-1]).get("POOL", [])]


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


# ---- beginnings and ends ---------------------------------------------------------------------------------------------


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


# ---- cards -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def cards(world: Cli) -> Iterator[Cli]:
    """The world, and emu:card0 with a pool that a client has used."""
    world.ok("emu", "start", "card0", "--memory", "64MiB")
    try:
        world.ok("pool", "create", "emu:card0", "on-card", "--size", "16MiB")
        keys = [number.to_bytes(32, "big") for number in range(20)]
        with (
            speckv.Context() as context,
            context.open("emu:card0") as device,
            device.attach("on-card", tenant="real") as pool,
        ):
            assert not pool.put(keys, np.ones((len(keys), pool.block_bytes), np.uint8)).any()
            assert not pool.get(keys, np.empty((len(keys), pool.block_bytes), np.uint8)).any()
        yield world
    finally:
        world("emu", "stop", "card0")


@SIZES
def test_a_card_is_shown_with_its_health_its_temperature_and_its_pools(columns: int, lines: int, cards: Cli) -> None:
    with top(cards, columns, lines) as terminal:

        def row() -> dict[str, str]:
            return next(row for row in tables(terminal.lines[1:-1])["DEVICE"] if row["DEVICE"] == "emu:card0")

        terminal.see("on-card", "healthy")
        document = pause(terminal, cards)
        devices = {device["name"]: device for device in document["devices"]}
        assert row()["HEALTH"] == "healthy" and row()["TEMP"] != "-"
        same(row(), device_cells(devices["emu:card0"]))
        assert devices["emu:card0"]["temperature_millicelsius"] > 0
        assert (devices["emu:card0"]["link"], devices["emu:card0"]["queue_depth"]) == ("4x2.5GT/s", 0)
        assert (devices["host:DRAM"]["link"], devices["host:DRAM"]["queue_depth"]) == (None, None)
        assert (devices["host:DRAM"]["health"], devices["host:DRAM"]["temperature_millicelsius"]) == (None, None)
        entry = pools_of(document)["on-card"]
        assert entry["stats"]["counters"]["gets"] == 20 and entry["prefetching"]["depth"] is not None
        for shown in tables(terminal.lines[1:-1])["POOL"]:
            trends = {title for title in shown if title in TRENDS.values()}
            same(
                {k: v for k, v in shown.items() if k not in trends},
                pool_cells(pools_of(document)[shown["POOL"]], "now"),
            )
        stats = cards.document("stats", "emu:card0")["pools"][0]
        assert {**entry["stats"], "taken_ns": 0} == {**stats, "taken_ns": 0}

        cards.ok("device", "inject", "emu:card0", "temperature", "--value", "91500")
        terminal.press(" ")
        terminal.see("91.5C", "throttled")
        same(row(), device_cells({d["name"]: d for d in shown_tick(terminal, cards)["devices"]}["emu:card0"]))

        terminal.press("p")
        cards.ok("emu", "stop", "card0")
        terminal.see("offline")
        terminal.until(lambda: "on-card" not in pool_names(terminal))
        assert {"chat", "empty", "replayed"} == set(pool_names(terminal))
        cards.ok("emu", "start", "card0")
        terminal.see("on-card", "healthy")
        terminal.press("q")
        assert terminal.end() == 0
    alone = cards.document("top", "--once", "--device", "emu:card0")
    assert [device["name"] for device in alone["devices"]] == ["emu:card0"]


def test_a_card_that_dies_takes_nothing_else_with_it(cards: Cli) -> None:
    pid = cards.document("emu", "status", "card0")["card"]["pid"]
    with traffic(), top(cards, 80, 24) as terminal:
        terminal.see("on-card")
        os.kill(pid, signal.SIGKILL)
        terminal.see("offline", "NOT READY")
        tick = shown_tick(terminal, cards)["tick"]
        terminal.see(f"tick {tick + 2}")
        document = pause(terminal, cards)
    states = {device["name"]: device["state"] for device in document["devices"]}
    assert states == {"host:DRAM": "ready", "emu:card0": "offline"}
    assert pools_of(document)["chat"]["interval"]["out_bytes_per_second"] > 0
    assert cards("top", "--device", "emu:none", "--once").code == 4


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
