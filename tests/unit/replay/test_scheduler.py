# SPDX-License-Identifier: MIT
"""Sessions stay with one client, clients are kept busy, and times are those of the trace."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from speckvctl.replay import scheduler as scheduler_module
from speckvctl.replay.client import Work
from speckvctl.replay.sample import TRACE
from speckvctl.replay.scheduler import Scheduler
from speckvctl.replay.traces import Request, Trace

MS = 1_000_000


def request(ids: Iterable[int], time_ms: float = 0.0, session: str | None = None, clock: bool = False) -> Request:
    return Request(1, time_ms, session, clock, "", tuple(ids))


def deal(requests: Iterable[Request], clients: int = 2, **settings: Any) -> list[list[Work]]:
    """What every client gets, when they ask in turns."""
    defaults: dict[str, Any] = {"speed": None, "max_rate": None, "limit": None, "start_ns": 0}
    scheduler = Scheduler(iter(requests), clients, **{**defaults, **settings})
    got: list[list[Work]] = [[] for _ in range(clients)]
    busy = set(range(clients))
    while busy:
        for client in sorted(busy):
            chunk = scheduler.chunk(client)
            if chunk is None:
                busy.discard(client)
            else:
                got[client] += chunk
    return got


def test_every_request_is_dealt_once_in_the_order_of_its_session() -> None:
    requests = [request([100 * turn + session], session=f"s{session}") for turn in range(50) for session in range(7)]
    got = deal(requests, 3)
    for session in range(7):
        holders = [[work.ids[0] for work in mine if work.ids[0] % 100 == session] for mine in got]
        assert sorted(map(len, holders)) == [0, 0, 50]
        assert all(held == sorted(held) for held in holders)


def test_sessions_without_a_name_are_told_by_the_prompt_that_they_continue() -> None:
    system = [0, 1, 2]
    turns: list[Request] = []
    chains = [[*system, 1000 * session] for session in range(1, 9)]
    for turn in range(1, 6):
        for session, chain in enumerate(chains, 1):
            chain += [1000 * session + 10 * turn, 1000 * session + 10 * turn + 1]
            turns.append(request([*chain, 1000 * session + 10 * turn + 9]))  # a partial block that never comes again
    got = deal(turns, 4)
    owners = {work.ids[3]: client for client, mine in enumerate(got) for work in mine}
    assert all(
        work.ids[3] // 1000 and owners[work.ids[3]] == client for client, mine in enumerate(got) for work in mine
    )
    assert [len({work.ids[3] for work in mine}) for mine in got] == [2, 2, 2, 2]


def test_requests_that_only_share_a_system_prompt_are_spread() -> None:
    got = deal([request([0, 1, 2, 10 + number]) for number in range(100)], 4)
    assert [len(mine) for mine in got] == [25, 25, 25, 25]


def test_the_sample_keeps_both_clients_busy() -> None:
    got = deal(Trace(TRACE))
    assert sum(map(len, got)) == sum(1 for _ in Trace(TRACE))
    assert min(len(mine) for mine in got) > sum(map(len, got)) / 4


def test_one_slow_client_does_not_make_the_dealer_read_everything(monkeypatch: Any) -> None:
    monkeypatch.setattr(scheduler_module, "MAX_WAITING", 64)
    read = 0

    def endless() -> Iterator[Request]:
        nonlocal read
        while True:
            read += 1
            yield request([read], session="the only one")

    scheduler = Scheduler(endless(), 2, speed=None, max_rate=None, limit=None, start_ns=0)
    assert scheduler.chunk(1) == [], "nothing for it, and no end in sight: it waits"
    assert read == 64
    assert scheduler.chunk(0)


def test_a_limit_ends_the_dealing() -> None:
    assert sum(map(len, deal((request([n]) for n in range(100)), limit=13))) == 13


def test_the_traces_time_is_kept_scaled_and_counted_from_its_beginning() -> None:
    requests = [request([n], time_ms=1000.0 + 10 * n, session="s") for n in range(4)]
    assert [work.due_ns for work in deal(requests, 1, speed=1.0, start_ns=7)[0]] == [7 + n * 10 * MS for n in range(4)]
    assert [work.due_ns for work in deal(requests, 1, speed=4.0)[0]] == [n * 10 * MS // 4 for n in range(4)]
    assert [work.due_ns for work in deal(requests, 1)[0]] == [0, 0, 0, 0]


def test_a_rate_bounds_all_clients_together() -> None:
    got = deal([request([n], session=f"s{n % 2}") for n in range(6)], 2, max_rate=100.0, start_ns=5)
    assert sorted(work.due_ns for mine in got for work in mine) == [5 + n * 10 * MS for n in range(6)]


def test_sessions_with_their_own_clocks_follow_each_other_on_a_client() -> None:
    requests = [request([s], time_ms=t, session=f"s{s}", clock=True) for s in range(4) for t in (0.0, 50.0)]
    first, second = deal(requests, 2, speed=1.0)
    for mine in (first, second):
        assert [work.due_ns for work in mine] == [0, 50 * MS, 50 * MS, 100 * MS]
