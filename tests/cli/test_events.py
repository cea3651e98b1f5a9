# SPDX-License-Identifier: MIT
"""Events: the logs of devices and pools as one stream."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from speckvctl import results
from speckvctl.eventlog import Filter, Reader, in_order
from tests.cli.conftest import Cli, held, validate


@contextmanager
def limited(process: subprocess.Popen[str], seconds: float = 60) -> Iterator[None]:
    """End a process that never says what is waited for: the test fails, and does not hang."""
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def test_events_of_a_device_and_its_pools_are_merged_in_time(chat: Cli) -> None:
    with held("chat"):
        pass
    chat.ok("pool", "resize", "host:DRAM", "chat", "--size", "32MiB")
    events = chat.document("events")["events"]
    assert [event["time_ns"] for event in events] == sorted(event["time_ns"] for event in events)
    assert {event["device"] for event in events} == {"host:DRAM"}
    assert {event["pool"] for event in events} == {None, "chat"}
    texts = " ".join(event["text"] for event in events)
    assert "created" in texts and "holder" in texts
    lines = chat.ok("events").out.splitlines()
    assert len(lines) == len(events)


def test_a_clock_that_was_set_back_turns_no_log_around() -> None:
    def row(device: str, pool: str | None, sequence: int | None, at: int) -> results.EventRow:
        return results.EventRow(
            time_ns=at, device=device, pool=pool, sequence=sequence, severity="info", kind="any", pid=None, text="any"
        )

    log = [row("host:DRAM", None, 1, 100), row("host:DRAM", None, 2, 40), row("host:DRAM", None, 3, 110)]
    other = [row("emu:card0", None, 1, 50), row("emu:card0", None, 2, 105)]
    plugged = row("0000:01:00.0", None, None, 60)
    assert in_order([*reversed(log), *other, plugged]) == [other[0], plugged, log[0], log[1], other[1], log[2]]
    # What follows an event that is new enough is shown, whatever the clock says.
    reader = Reader(Filter(since_ns=90))
    assert list(reader._wanted(("uuid", ""), log[:2])) == log[:2]
    assert list(reader._wanted(("uuid", ""), log[1:2])) == log[1:2]
    assert list(reader._wanted(("another", ""), other)) == other[1:]


def test_pool_and_since_choose_events(chat: Cli) -> None:
    with held("chat"):
        pass
    only = chat.document("events", "host:DRAM", "--pool", "chat")["events"]
    assert only and {event["pool"] for event in only} == {"chat"}
    assert chat.document("events", "--since", "0s")["events"] == []
    after = time.strftime("%Y-%m-%d %H:%M", time.localtime(time.time() + 120))
    assert chat.document("events", "--since", after)["events"] == []
    assert len(chat.document("events", "--since", "1d")["events"]) >= len(only)


def test_follow_goes_on_with_what_happens_and_ends_by_a_signal(chat: Cli) -> None:
    follower = chat.start("events", "host:DRAM", "--follow", "--json")
    assert follower.stdout is not None
    first = json.loads(follower.stdout.readline())
    validate(first)
    assert any("chat" in event["text"] for event in first["events"])
    known = {(event["pool"], event["sequence"]) for event in first["events"]}
    chat.ok("pool", "create", "host:DRAM", "late", "--size", "8MiB")
    with limited(follower):
        for line in follower.stdout:  # one document, or two where it looked between two events
            later = json.loads(line)
            validate(later)
            new = {(event["pool"], event["sequence"]) for event in later["events"]}
            assert not known & new
            known |= new
            if any("pool late created" in event["text"] for event in later["events"]):
                break
        else:
            raise AssertionError("the pool that was made is in no document")
    follower.send_signal(signal.SIGINT)
    _, err = follower.communicate(timeout=60)
    assert follower.returncode == 130
    assert "Traceback" not in err


def test_follow_waits_for_a_device_that_is_not_there_yet(cli: Cli) -> None:
    follower = cli.start("events", "host:DRAM", "--follow", "--json")
    assert follower.stdout is not None
    cli.ok("pool", "create", "host:DRAM", "chat", "--size", "8MiB")
    # A card is there before its first pool, and what it did until then may come in a document of its own.
    batches = (json.loads(line)["events"] for line in follower.stdout)
    with limited(follower):
        assert any("pool chat created" in event["text"] for batch in batches for event in batch)
    follower.terminate()
    follower.communicate(timeout=60)


def test_reset_of_statistics_shows_them_once_more_and_sets_them_to_zero(chat: Cli) -> None:
    with held("chat", blocks=3):
        pass
    assert chat.document("stats", "host:DRAM", "chat", "--reset", "--dry-run")["pools"][0]["counters"]["puts"] == 3
    assert chat.document("stats", "host:DRAM", "chat", "--reset")["pools"][0]["counters"]["puts"] == 3
    after = chat.document("stats", "host:DRAM", "chat")["pools"][0]
    assert (after["counters"]["puts"], after["latency"]["get"]["count"]) == (0, 0)
    assert chat.document("pool", "show", "host:DRAM", "chat")["pool"]["blocks"] == 3
