# SPDX-License-Identifier: MIT
"""Screens of `top`: their tables, and checks against the cells expected from the document of the same tick."""

from __future__ import annotations

import re
import time
from typing import Any

from speckvctl.quantities import (
    format_count,
    format_duration,
    format_ratio,
    format_share,
    format_size,
    format_time,
)
from tests.cli.terminal import Terminal

BARS = "▁▂▃▄▅▆▇█"
Document = dict[str, Any]


# ---- expected cells --------------------------------------------------------------------------------------------------


def pools_of(document: Document) -> dict[str, Document]:
    return {entry["pool"]["name"]: entry for entry in document["pools"]}


def size(amount: int | None) -> str:
    return format_size(amount).replace(" ", "").removesuffix("iB")


def duration(nanoseconds: int | None) -> str:
    return format_duration(nanoseconds).replace(" ", "")


def rate(a_second: float | None) -> str:
    if a_second is None:
        return "-"
    return f"{a_second:,.0f}" if a_second >= 100 or a_second == 0 else f"{a_second:.1f}"


def part(entry: Document | None, *path: str) -> Any:
    value: Any = entry
    for name in path:
        value = None if value is None else value[name]
    return value


def pool_cells(entry: Document, window: str) -> dict[str, str]:
    pool, interval = entry["pool"], entry["interval"]
    source = entry["interval"] if window == "now" else entry["stats"]
    cells = {
        "POOL": pool["name"],
        "DEVICE": pool["device"],
        "CODEC": pool["codec"],
        "STATE": pool["state"],
        "CLIENTS": format_count(pool["clients"]),
        "BLOCKS": format_count(pool["blocks"]),
        "USED": size(pool["used_bytes"]),
        "SIZE": size(pool["capacity_bytes"]),
        "RAW": size(pool["raw_bytes"]),
        "RATIO": format_ratio(pool["ratio"]),
        "HIT": format_share(part(source, "hit_share")),
        "GETS/s": rate(part(interval, "gets_per_second")),
        "PUTS/s": rate(part(interval, "puts_per_second")),
        "IN/s": size(part(interval, "in_bytes_per_second")),
        "OUT/s": size(part(interval, "out_bytes_per_second")),
    }
    for operation in ("get", "put"):
        for title, name in (("p50", "p50_ns"), ("p99", "p99_ns"), ("p99.9", "p999_ns")):
            cells[f"{operation.upper()}{title}"] = duration(part(source, "latency", operation, name))
    return cells


def device_cells(device: Document) -> dict[str, str]:
    return {
        "DEVICE": device["name"],
        "STATE": device["state"],
        "HEALTH": device["health"] or "-",
        "TEMP": "-" if (degrees := device["temperature_millicelsius"]) is None else f"{degrees / 1000:.1f}C",
        "LINK": device["link"] or "-",
        "QUEUE": format_count(device["queue_depth"]),
        "POOLS": format_count(device["pools"]),
        "CLIENTS": format_count(device["clients"]),
        "ALLOC": size(device["allocated_bytes"]),
        "SIZE": size(device["capacity_bytes"]),
        "FREE": size(device["free_bytes"]),
        "IN/s": size(device["in_bytes_per_second"]),
        "OUT/s": size(device["out_bytes_per_second"]),
        "FOUND": device["found"],
    }


def prefetch_cells(name: str, prefetching: Document) -> dict[str, str]:
    return {
        "PREFETCHER": name,
        "ACCURACY": format_share(prefetching["accuracy"]),
        "COVERAGE": format_share(prefetching["coverage"]),
        "LATE": format_share(prefetching["late_share"]),
        "UNUSED": format_share(prefetching["unused_share"]),
        "DEPTH": format_count(prefetching["depth"]),
        "ASKED": format_count(prefetching["asked"]),
        "STAGED": format_count(prefetching["staged"]),
        "USED": format_count(prefetching["used"]),
        "UNREAD": format_count(prefetching["unused"]),
    }


def tenant_cells(entry: Document, tenant: Document, window: str) -> dict[str, str]:
    known = {each["index"]: each for each in part(entry, "interval", "tenants") or []}
    rates = known.get(tenant["index"])
    return {
        "TENANT": tenant["name"],
        "POOL": entry["pool"]["name"],
        "CLIENTS": format_count(tenant["clients"]),
        "USED": size(tenant["used_bytes"]),
        "BLOCKS": format_count(tenant["blocks"]),
        "HIT": format_share(part(rates if window == "now" else tenant, "hit_share")),
        "PUTS": format_count(tenant["puts"]),
        "GETS": format_count(tenant["gets"]),
        "IN/s": size(part(rates, "in_bytes_per_second")),
        "OUT/s": size(part(rates, "out_bytes_per_second")),
        "EVICTED": format_count(tenant["evicted_blocks"]),
    }


def event_cells(event: Document) -> dict[str, str]:
    return {
        "TIME": clock(event["time_ns"]),
        "LEVEL": event["severity"],
        "WHERE": f"{event['device']}/{event['pool']}" if event["pool"] else event["device"],
        "EVENT": event["text"],
    }


def clock(nanoseconds: int) -> str:
    return time.strftime("%H:%M:%S", time.localtime(nanoseconds // 10**9))


def picture(values: list[int | None]) -> str:
    """Sparkline of the last eight ticks, the highest at full height."""
    top = max((value for value in values[-8:] if value is not None), default=0)
    bars = [" " if value is None else BARS[value * len(BARS) // (top + 1)] for value in values[-8:]]
    return "".join(bars).rjust(8)


# ---- parser ----------------------------------------------------------------------------------------------------------

FIRST_TITLES = {"DEVICE", "POOL", "PREFETCHER", "TENANT", "TIME", "TRAFFIC", "LATENCY", "COUNTER", "PID", "NOT_READY"}
FREE_TEXT = {"FOUND", "EVENT", "COMMAND", "WHY"}
TRENDS = {"P99 TREND": "P99_TREND", "IN TREND": "IN_TREND", "OUT TREND": "OUT_TREND"}


def tables(lines: list[str]) -> dict[str, list[dict[str, str]]]:
    """Rows of every table by its first title. Figures outside of a table are an error."""
    found: dict[str, list[dict[str, str]]] = {}
    header: list[str] = []
    ends: dict[str, int] = {}
    for line in lines:
        titles = line.replace("NOT READY", "NOT_READY")
        for name, word in TRENDS.items():
            titles = titles.replace(name, word)
        words = re.sub(r"  \d+ to \d+ of \d+$", "", titles).split()
        if not words:
            header = []
        elif words[0] in FIRST_TITLES:
            header, table = words, found.setdefault(words[0], [])
            ends = {word: titles.index(word) + len(word) for word in words if word in TRENDS.values()}
        elif not header:
            assert not re.search(r"\d", line), f"figures of no table: {line}"
        else:
            if "SINCE" in header:  # a date and a time of day are one cell
                line = re.sub(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)", r"\1T\2", line)
            pictures = {}
            for word, end in ends.items():
                pictures[word] = line[end - 8 : end].ljust(8)
                line = line[: end - 8].ljust(end - 8) + " " * 8 + line[end:]
            named = [word for word in header if word not in ends]
            texts = line.split(None, len(named) - 1) if named[-1] in FREE_TEXT else line.split()
            assert len(texts) == len(named), (named, line)
            table.append({**dict(zip(named, map(str.strip, texts), strict=True)), **pictures})
    return found


def same(row: dict[str, str], expected: dict[str, str]) -> None:
    """Every cell present has the expected text; names may be cut."""
    assert len(row) >= 3
    for title, cell in row.items():
        wanted = expected[title]
        cut = cell.endswith("…") and " ".join(wanted.split()).startswith(cell[:-1].rstrip())
        assert cell == " ".join(wanted.split()) or cut, f"{title}: {cell!r} is to be seen, and {wanted!r} is so"


def check_overview(terminal: Terminal, document: Document, history: list[Document], window: str) -> set[str]:
    """Check the overview's figures against the document. Returns the titles of the visible tables."""
    heading = terminal.lines[0]
    assert clock(document["time_ns"]) in heading and f"tick {document['tick']}" in heading
    assert f"over {document['interval_ns'] / 1e9:.2f}s" in heading and f"  {window}  " in heading
    seen = tables(terminal.lines[1:-1])
    pools = pools_of(document)
    for row, device in zip(seen["DEVICE"], document["devices"], strict=True):
        same(row, device_cells(device))
    assert [row["POOL"] for row in seen["POOL"]] == sorted(pools)
    for row in seen["POOL"]:
        entry = pools[row["POOL"]]
        past = [pools_of(old)[row["POOL"]]["interval"] for old in history]
        trends = {
            "OUT_TREND": picture([part(each, "out_bytes_per_second") for each in past]),
            "IN_TREND": picture([part(each, "in_bytes_per_second") for each in past]),
            "P99_TREND": picture([part(each, "latency", "get", "p99_ns") for each in past]),
        }
        for title in trends.keys() & row.keys():
            assert row.pop(title) == trends[title]
        same(row, pool_cells(entry, window))
    for row in seen["PREFETCHER"]:
        entry = pools[row["PREFETCHER"]]
        source = entry["interval"]["prefetching"] if window == "now" else entry["prefetching"]
        same(row, prefetch_cells(row["PREFETCHER"], source))
    tenants = {(name, each["name"]): (pools[name], each) for name in pools for each in pools[name]["stats"]["tenants"]}
    for row in seen["TENANT"]:
        same(row, tenant_cells(*tenants[row["POOL"], row["TENANT"]], window))
    events = [event for old in history for event in old["events"]]
    for row, event in zip(reversed(seen["TIME"]), reversed(events), strict=False):
        same(row, event_cells(event))
    return set(seen)


def whole_page(terminal: Terminal) -> list[str]:
    """The full contents of a pool's tab, by scrolling line by line."""

    def place() -> tuple[int, ...]:
        found = re.match(r"(\d+) to (\d+) of (\d+)  ", terminal.lines[-1])
        return tuple(map(int, found.groups())) if found else (0, 0, 0)

    lines = terminal.lines[3:-1]
    while place()[1] < place()[2]:
        wanted = place()[0] + 1
        terminal.press("down")
        terminal.until(lambda wanted=wanted: place()[0] == wanted, "the next line")  # type: ignore[misc]
        lines.append(terminal.lines[-2])
    return lines


# ---- the pages of a pool ---------------------------------------------------------------------------------------------


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
