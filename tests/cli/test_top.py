# SPDX-License-Identifier: MIT
"""`top` on a terminal: every figure is one of its tick's document, of pools in memory and on cards."""

from __future__ import annotations

import itertools
import json
import os
import signal
from collections.abc import Iterator

import numpy as np
import pytest
import speckv

from speckvctl.replay import sample
from tests.cli.conftest import Cli, validate
from tests.cli.screen import (
    TRENDS,
    check_overview,
    check_pool,
    device_cells,
    pool_cells,
    pools_of,
    prefetch_cells,
    same,
    tables,
    tenant_cells,
)
from tests.cli.watching import SIZES, pause, pool_names, shown_tick, ticks, top, traffic


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
