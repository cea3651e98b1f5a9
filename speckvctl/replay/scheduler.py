# SPDX-License-Identifier: MIT
"""Assigns requests to clients, with their times: the turns of a session stay with one client."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator

from speckvctl.replay.client import Work
from speckvctl.replay.traces import Request

CHUNK_BLOCKS = 512
CHUNK_REQUESTS = 32
MAX_WAITING = 4096  # requests read ahead for slow clients
_MAX_SESSIONS = 1 << 20


class Scheduler:
    """Distributes a trace's requests to clients, round robin by session.

    Without session ids in the trace, a request belongs to the session whose last prompt it continues. `speed` 1 is
    the trace's time, 2 is twice as fast; None: no waiting. `max_rate` bounds the requests a second of all clients.
    """

    def __init__(
        self,
        requests: Iterator[Request],
        clients: int,
        *,
        speed: float | None,
        max_rate: float | None,
        limit: int | None,
        start_ns: int,
    ) -> None:
        self._requests = requests
        self._clients = clients
        self._speed = speed
        self._max_rate = max_rate
        self._limit = limit
        self._start_ns = start_ns
        self._waiting: list[deque[Work]] = [deque() for _ in range(clients)]
        self._dealt = 0
        self._next = 0
        self._first_ms: float | None = None
        self._sessions: OrderedDict[object, int] = OrderedDict()
        self._session_ends_ns = [start_ns] * clients  # sessions with clocks of their own follow each other on a client
        self._session_starts: OrderedDict[object, int] = OrderedDict()
        self.exhausted = False

    def chunk(self, client: int) -> list[Work] | None:
        """The next requests of a client; empty: retry after progress of other clients; None: no more."""
        mine = self._waiting[client]
        while len(mine) < CHUNK_REQUESTS and not self.exhausted and self._room():
            self._read()
        if not mine:
            return None if self.exhausted else []
        chunk: list[Work] = []
        blocks = 0
        while mine and len(chunk) < CHUNK_REQUESTS and (not chunk or blocks + len(mine[0].ids) <= CHUNK_BLOCKS):
            chunk.append(mine.popleft())
            blocks += len(chunk[-1].ids)
        return chunk

    def _room(self) -> bool:
        return sum(map(len, self._waiting)) < MAX_WAITING

    def _read(self) -> None:
        request = next(self._requests, None) if self._limit is None or self._dealt < self._limit else None
        if request is None:
            self.exhausted = True
            return
        client = self._client_of(request)
        self._waiting[client].append(Work(request.scope, request.ids, self._due(request, client)))
        self._dealt += 1

    def _client_of(self, request: Request) -> int:
        if request.session is not None:
            return self._remember(request.session, self._sessions.get(request.session))
        # The last block of a prompt is partial and replaced as the session goes on; the one before it, its tail, stays.
        # A tail in the first half of a prompt, or at its own tail's position, is taken for a shared system prompt.
        ids = request.ids
        tail = len(ids) - 2
        for index in range(tail - 1, (len(ids) - 1) // 2 - 1, -1):
            known = self._sessions.get((request.scope, ids[index]))
            if known is not None:
                return self._remember((request.scope, ids[tail]), known)
        return self._remember((request.scope, ids[max(tail, 0)]) if ids else None, None)

    def _remember(self, session: object, client: int | None) -> int:
        if client is None:
            client = self._next
            self._next = (client + 1) % self._clients
        if session is not None:
            self._sessions[session] = client
            self._sessions.move_to_end(session)
            if len(self._sessions) > _MAX_SESSIONS:
                self._sessions.popitem(last=False)
        return client

    def _due(self, request: Request, client: int) -> int:
        due = 0
        if self._speed is not None:
            if self._first_ms is None:
                self._first_ms = 0.0 if request.session_clock else request.time_ms
            if request.session_clock:
                session = (client, request.session)
                start = self._session_starts.get(session)
                if start is None:
                    start = self._session_starts[session] = self._session_ends_ns[client]
                    while len(self._session_starts) > self._clients:  # a session is one line
                        self._session_starts.popitem(last=False)
                due = start + int(request.time_ms * 1e6 / self._speed)
                self._session_ends_ns[client] = max(due, self._session_ends_ns[client])
            else:
                due = self._start_ns + int(max(0.0, request.time_ms - self._first_ms) * 1e6 / self._speed)
        if self._max_rate is not None:
            due = max(due, self._start_ns + int(self._dealt / self._max_rate * 1e9))
        return due
