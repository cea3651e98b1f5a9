# SPDX-License-Identifier: MIT
"""A frame has exactly the size of the screen, whatever it shows and whatever was pressed; figures are never cut."""

from __future__ import annotations

import re

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.text import Text

from speckvctl import results
from speckvctl.top import overview, views
from speckvctl.top.columns import Column, table
from speckvctl.top.figures import bar, sparkline
from speckvctl.top.model import Trend
from speckvctl.top.state import ORDERS, Action, State, ordered

KEYS = ["s", "r", "S", "/", "p", " ", "t", "?", "enter", "escape", "up", "down", "left", "right", "home", "end"]
KEYS += ["page-up", "page-down", "tab", "back-tab", "backspace", "1", "2", "3", "4", "5", "k", "j", "x", "ß", "語"]

counts = st.integers(0, 1 << 62)
maybe = st.none() | counts
shares = st.none() | st.floats(0, 1)
names = st.text("abcXYZ019._-", min_size=1, max_size=63)
any_text = st.sampled_from(
    ["", "a", "host:DRAM", "serve-1", "語" * 40, "two\nlines\x1b[31m", "x" * 90, "é\u0301\u200d"]
)


latencies = st.builds(results.Latency, count=counts, p50_ns=maybe, p90_ns=maybe, p99_ns=maybe, p999_ns=maybe)
all_latencies = st.fixed_dictionaries(dict.fromkeys(("get", "put", "lookup", "stage"), latencies))
prefetches = st.builds(
    results.Prefetching,
    asked=counts,
    staged=counts,
    used=counts,
    unused=counts,
    accuracy=shares,
    coverage=shares,
    unused_share=shares,
    late_share=st.none(),
    depth=st.none() | st.integers(1, 16),
)
tenants = st.builds(
    results.Tenant,
    name=any_text,
    index=st.integers(0, 3),
    hit_share=shares,
    **dict.fromkeys(("clients", "used_bytes", "blocks", "puts", "gets"), counts),
    **dict.fromkeys(("hits", "misses", "lookup_misses", "wanted"), counts),
    **dict.fromkeys(("in_bytes", "out_bytes", "evicted_blocks"), counts),
)
clients = st.builds(
    results.Client,
    pid=st.integers(1, 1 << 22),
    command=any_text,
    uid=st.integers(0, 1 << 31),
    tenant=st.none() | any_text,
    alive=st.booleans(),
    attached_ns=st.integers(0, 1 << 60),
    allocated_bytes=counts,
)
rates = st.builds(
    results.TenantRates,
    name=any_text,
    index=st.integers(0, 3),
    hit_share=shares,
    in_bytes_per_second=counts,
    out_bytes_per_second=counts,
)
counter_names = ("gets", "hits")
intervals = st.builds(
    results.PoolInterval,
    elapsed_ns=counts,
    in_bytes_per_second=counts,
    out_bytes_per_second=counts,
    gets_per_second=st.floats(0, 1e12),
    puts_per_second=st.floats(0, 1e12),
    hit_share=shares,
    counters=st.fixed_dictionaries(dict.fromkeys(counter_names, counts)),
    latency=all_latencies,
    prefetching=prefetches,
    tenants=st.lists(rates, max_size=2),
)


def pool_named(name: str, **figures: int | None) -> results.Pool:
    known: dict[str, int | None] = dict.fromkeys(
        ("table_bytes", "used_bytes", "free_bytes", "blocks", "raw_bytes", "stored_bytes", "clients", "tenants")
    )
    return results.Pool(
        device="emu:card0",
        name=name,
        uuid=name,
        path="/",
        state="active",
        accessible=True,
        codec="q4x",
        calibration_digest=None,
        placement="host",
        eviction="lru",
        geometry=results.Geometry(layers=1, kv_heads=2, head_dim=128, tokens=64, dtype="bf16"),
        block_bytes=65536,
        page_bytes=1024,
        single_tenant=False,
        uid=0,
        gid=0,
        mode="0600",
        capacity_bytes=figures.get("raw_bytes") or 0,
        max_bytes=0,
        quota_bytes=0,
        tenant_quota_bytes=None,
        effective_capacity_bytes=figures.get("raw_bytes"),
        ratio=None,
        resizes=0,
        puts=0,
        puts_bit_exact=0,
        created_ns=1,
        **{**known, **figures},
    )


@st.composite
def top_pools(draw: st.DrawFn) -> results.TopPool:
    pool = pool_named(draw(names), used_bytes=draw(maybe), raw_bytes=draw(maybe), blocks=draw(maybe))
    if draw(st.booleans()):
        return results.TopPool(pool=pool, stats=None, prefetching=None, interval=None, clients=[], histograms={})
    stats = results.PoolStats(
        pool=pool.name,
        taken_ns=1,
        since_ns=draw(st.integers(0, 1 << 60)),
        hit_share=draw(shares),
        ratio=None,
        counters={name: draw(counts) for name in counter_names},
        latency=draw(all_latencies),
        tenants=draw(st.lists(tenants, max_size=3)),
    )
    buckets = st.lists(st.builds(results.HistogramBucket, up_to_ns=counts, count=st.integers(1, 1 << 60)), max_size=9)
    return results.TopPool(
        pool=pool,
        stats=stats,
        prefetching=draw(prefetches),
        interval=draw(st.none() | intervals),
        clients=draw(st.lists(clients, max_size=3)),
        histograms={name: draw(buckets) for name in ("get", "put")},
    )


devices = st.builds(
    results.TopDevice,
    name=any_text,
    kind=st.just("card"),
    state=st.sampled_from(["ready", "offline", "factory"]),
    found=any_text,
    health=st.none() | st.sampled_from(["healthy", "throttled,memory"]),
    temperature_millicelsius=st.none() | st.integers(-50_000, 200_000),
    link=st.sampled_from([None, "4x2.5GT/s", "16x64GT/s"]),
    **dict.fromkeys(("queue_depth", "pools", "clients", "capacity_bytes", "allocated_bytes", "free_bytes"), maybe),
    **dict.fromkeys(("in_bytes_per_second", "out_bytes_per_second"), maybe),
)
events = st.builds(
    results.EventRow,
    time_ns=st.integers(0, 1 << 60),
    device=any_text,
    pool=st.none() | names,
    sequence=counts,
    severity=st.sampled_from(["info", "warning", "error"]),
    kind=st.just("x"),
    pid=st.none(),
    text=any_text,
)
documents = st.builds(
    results.Top,
    tick=st.integers(1, 1 << 40),
    time_ns=st.integers(0, 1 << 60),
    interval_ns=maybe,
    devices=st.lists(devices, max_size=2),
    pools=st.lists(top_pools(), max_size=2),
    events=st.lists(events, max_size=5),
)


@hypothesis.settings(max_examples=100, suppress_health_check=list(hypothesis.HealthCheck))
@given(documents, st.lists(st.sampled_from(KEYS), max_size=12), st.integers(1, 230), st.integers(1, 60))
def test_a_frame_fits_whatever_it_shows(document: results.Top, keys: list[str], width: int, height: int) -> None:
    chosen = State()
    trends = {top.pool.uuid: Trend() for top in document.pools}
    for top in document.pools:
        trends[top.pool.uuid].add(top.interval)
    for key in [*keys, ""]:
        lines = views.frame(document, chosen, trends, document.events, width, height)
        assert len(lines) == height
        assert {line.cell_len for line in lines} == {width}
        assert all("\n" not in line.plain and "\x1b" not in line.plain for line in lines)
        assert chosen.press(key, document) in Action if key else True
    assert all(line.cell_len <= max(20, width) for line in views.once(document, State(), max(20, width)))


def test_the_columns_that_matter_least_go_first_and_figures_stay_whole() -> None:
    columns = [
        Column[int]("NAME", lambda row: "a-long-name", right=False, cut=4),
        Column[int]("FIRST", lambda row: "123456", 1),
        Column[int]("LAST", lambda row: "654321", 2),
    ]
    for width in range(1, 40):
        title, line = (text.plain for text in table(columns, [0], width))
        assert len(title) <= width and len(line) <= width
        assert ("LAST" in title) <= ("FIRST" in title)
        if width >= 11:  # the shortest name, a gap and a figure
            assert "123456" in line
        assert re.fullmatch(r"a-\S*…?( +123456( +654321)?)?|\S*…?", line)


def test_sections_share_the_lines_there_are() -> None:
    def section(rows: int, need: int, *, patient: bool = False) -> overview.Section:
        draw = lambda width, count: [Text("title"), *(Text("row") for _ in range(count))]  # noqa: E731
        return overview.Section(rows, draw, need, patient)

    parts = [section(2, 1), section(5, 0), section(9, 2, patient=True)]
    for height in range(40):
        rows = overview.allot(parts, height)
        shown = overview.lines(parts, 10, height)
        assert len(shown) <= height
        given_ = [count or 0 for count in rows]
        assert all(count <= part.rows for count, part in zip(given_, parts, strict=True))
        if height >= 2:
            assert given_[1]
        if given_[2] > 1:  # who is patient grows last
            assert given_[:2] == [2, 5]
    assert overview.allot(parts, 100) == [2, 5, 9]


def test_an_order_puts_pools_without_the_figure_last() -> None:
    made = [
        results.TopPool(
            pool=pool_named(name, used_bytes=used),
            stats=None,
            prefetching=None,
            interval=None,
            clients=[],
            histograms={},
        )
        for name, used in (("c", 5), ("a", None), ("b", 9), ("d", 5))
    ]
    window = State().window
    assert [top.pool.name for top in ordered(made, "used", False, window)] == ["b", "c", "d", "a"]
    assert [top.pool.name for top in ordered(made, "used", True, window)] == ["c", "d", "b", "a"]
    assert [top.pool.name for top in ordered(made, "name", True, window)] == ["d", "c", "b", "a"]
    assert next(iter(ORDERS)) == "name"


@pytest.mark.parametrize(
    ("values", "picture"),
    [([], "    "), ([None, 0, 1, 2], " ▁▃▆"), ([9, 7, 7, 7, 0], "███▁"), ([5], "   ▇")],
)
def test_a_sparkline_has_the_highest_full_and_gaps_where_nothing_was_measured(
    values: list[int | None], picture: str
) -> None:
    assert sparkline(values, 4) == picture
    assert sparkline(values, 0) == ""


def test_a_bar_shows_that_there_is_something() -> None:
    assert [len(bar(part, 1000, 10)) for part in (0, 1, 100, 999, 1000)] == [0, 1, 1, 9, 10]
    assert bar(1, 0, 10) == ""
