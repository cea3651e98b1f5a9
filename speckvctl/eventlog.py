# SPDX-License-Identifier: MIT
"""The logs of devices and pools merged into one stream; with --follow also hot-plug events."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from speckvctl import describe, library, results
from speckvctl.cards.access import opened
from speckvctl.console import note
from speckvctl.quantities import format_size

if TYPE_CHECKING:
    import speckv
    from speckv import card

    from speckvctl.discovery import HotplugEvent

POLL_SECONDS = 0.25

_E = TypeVar("_E", "speckv.Event", "card.CardEvent", results.EventRow)


@dataclass(frozen=True)
class Filter:
    pool: str | None = None
    since_ns: int = 0


@dataclass
class Reader:
    """Reads the new events of every log since the last read."""

    filters: Filter
    matched: bool = False
    """Whether the wanted pool was seen."""
    _seen: dict[tuple[str, str], int] = field(default_factory=dict)  # (device uuid, pool uuid or "") -> last sequence
    _reached: set[tuple[str, str]] = field(default_factory=set)  # logs with an event since the time asked for

    def read(self, devices: Iterable[speckv.Device], cards: Iterable[card.Admin] = ()) -> list[results.EventRow]:
        """`cards`: those whose own log is read too; their pools' logs are a device's."""
        import speckv

        rows: list[results.EventRow] = []
        for admin in cards:
            rows += self._new_of_card(admin)
        for dev in devices:
            uuid = dev.info().uuid
            pools = [info for info in dev.pools() if info.accessible]
            if self.filters.pool is None:
                rows += [] if library.is_card(dev.name) else self._new(dev, (uuid, ""), None)
            else:
                pools = [info for info in pools if info.config.name == self.filters.pool]
                self.matched = self.matched or bool(pools)
            for info in pools:
                try:
                    rows += self._new(dev, (uuid, info.uuid), info.config.name)
                except speckv.NotFoundError:
                    continue  # destroyed since it was listed: the device's log has that event
        return in_order(rows)

    def _new(self, dev: speckv.Device, log: tuple[str, str], pool: str | None) -> list[results.EventRow]:
        events = dev.events(pool, after=self._seen.get(log, 0))
        if events:
            self._seen[log] = events[-1].sequence
        return [describe.event(dev.name, event) for event in self._wanted(log, events)]

    def _new_of_card(self, admin: card.Admin) -> list[results.EventRow]:
        if self.filters.pool is not None:
            return []
        log = admin.info().uuid, "card"
        events = admin.events(after=self._seen.get(log, 0))
        if events:
            self._seen[log] = events[-1].sequence
        return [card_event(admin.name, event) for event in self._wanted(log, events)]

    def _wanted(self, log: tuple[str, str], events: Iterable[_E]) -> Iterator[_E]:
        """Events since the given time, and all that follow one in its log: the clock may have been set back since."""
        for event in events:
            if event.time_ns >= self.filters.since_ns:
                self._reached.add(log)
            if log in self._reached:
                yield event


def in_order(rows: Iterable[results.EventRow]) -> list[results.EventRow]:
    """Rows of several logs as one list, oldest first.

    Within a log the sequence decides, never the wall clock, which can be set back: an event counts as no older than
    any before it in its log. Between logs there is only the clock.
    """
    placed: list[tuple[int, str, str, int, results.EventRow]] = []
    latest: dict[tuple[str, str | None, bool], int] = {}
    for row in sorted(rows, key=lambda row: row.sequence or 0):
        log = row.device, row.pool, row.sequence is None
        at = row.time_ns if row.sequence is None else max(row.time_ns, latest.get(log, 0))
        latest[log] = at
        placed.append((at, row.device, row.pool or "", row.sequence or 0, row))
    return [entry[-1] for entry in sorted(placed, key=lambda entry: entry[:-1])]


def read(
    ctx: speckv.Context, device: str | None, reader: Reader, *, warn: bool = True, strict: bool = True
) -> list[results.EventRow]:
    """New events of every log, or of one device's logs; `strict`: the device must exist."""
    if device is None:
        return reader.read(library.ready_devices(ctx, warn=warn), _every_card(ctx))
    if library.is_card(device):
        return _read_card(ctx, device, reader, strict=strict)
    info = ctx.probe(device)
    if info.state == "absent" and not strict:
        return []
    library.require_ready(info)
    with ctx.open(device) as dev:
        return reader.read([dev])


def _every_card(ctx: speckv.Context) -> Iterator[card.Admin]:
    """Running cards that this user may administer."""
    import speckv

    for name in speckv.card.emulated(ctx):
        try:
            admin = speckv.card.Admin(ctx, name)
        except speckv.SpeckvError:
            continue
        with admin:
            yield admin


def _read_card(ctx: speckv.Context, device: str, reader: Reader, *, strict: bool) -> list[results.EventRow]:
    import speckv

    try:
        admin = speckv.card.Admin(ctx, device)
    except speckv.SpeckvError:
        if strict:
            raise
        return []
    with admin, opened(ctx, admin) as devices:
        return reader.read(devices, [admin])


def card_event(device: str, event: card.CardEvent) -> results.EventRow:
    return results.EventRow(
        time_ns=event.time_ns,
        device=device,
        pool=None,
        sequence=event.sequence,
        severity=str(event.severity),
        kind=event.kind,
        pid=None,
        text=event.text,
    )


def follow(device: str | None, filters: Filter) -> Iterator[list[results.EventRow]]:
    """Yield batches of events: the logs' contents, then new events, until the consumer stops."""
    reader = Reader(filters)
    first = True
    plugged: queue.SimpleQueue[results.EventRow] = queue.SimpleQueue()
    stop = threading.Event()
    watcher = None if filters.pool is not None else _watch(stop, plugged)
    try:
        while True:
            rows = _take(plugged) + _read_once(reader, device, warn=first)
            first = False
            if rows:
                yield rows
            stop.wait(POLL_SECONDS)
    finally:
        stop.set()
        if watcher is not None:
            watcher.join(2 * POLL_SECONDS + 1)


def _read_once(reader: Reader, device: str | None, *, warn: bool) -> list[results.EventRow]:
    """Read once; while following, a named device may be absent for a time."""
    if device is not None:
        library.check_device_name(device)
    with library.context() as ctx:
        return read(ctx, device, reader, warn=warn, strict=False)


def _take(plugged: queue.SimpleQueue[results.EventRow]) -> list[results.EventRow]:
    rows = []
    while not plugged.empty():
        rows.append(plugged.get())
    return rows


def _watch(stop: threading.Event, plugged: queue.SimpleQueue[results.EventRow]) -> threading.Thread | None:
    """Watch hot plug; None, after a warning, if the machine does not report it."""
    from speckvctl import discovery

    try:
        heard = discovery.watch(stop, poll_seconds=POLL_SECONDS)
    except (OSError, ImportError) as exc:  # no netlink, no pyudev or libudev
        note(f"warning: hot plug is not followed: {exc}")
        return None

    def listen() -> None:
        try:
            for event in heard:
                plugged.put(_hotplug_row(event))
        except OSError as exc:
            note(f"warning: hot plug is not followed any more: {exc}")

    thread = threading.Thread(target=listen, name="hotplug", daemon=True)
    thread.start()
    return thread


def _hotplug_row(event: HotplugEvent) -> results.EventRow:
    found = event.found
    gone = event.action == "remove"
    what = f"{found.kind} {found.name}"
    if found.capacity_bytes:
        what += f", {format_size(found.capacity_bytes)}"
    verb = {"add": "appeared", "remove": "went away", "change": "changed"}[event.action]
    hint = f"; {found.note}" if found.note and not gone else ""
    return results.EventRow(
        time_ns=event.time_ns,
        device=found.name,
        pool=None,
        sequence=None,
        severity="warning" if gone else "info",
        kind=f"hotplug_{event.action}",
        pid=None,
        text=f"{what} {verb}{hint}",
    )
