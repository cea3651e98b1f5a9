# SPDX-License-Identifier: MIT
"""speckvctl events."""

from __future__ import annotations

from typing import Annotated

import typer

from speckvctl import eventlog, library, results
from speckvctl.commands.options import App, Json, OptionalDevice, OptionalPool
from speckvctl.errors import AbsentError
from speckvctl.quantities import parse_since
from speckvctl.render import finish, show

app = App()


@app.verb("events")
def events(
    device: OptionalDevice = None,
    pool: OptionalPool = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since", metavar="TIME", help="Only newer ones: 15m, 2h, 1d, or local time as 2026-11-23 14:05."
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with new events, and devices that come and go, until Ctrl-C.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what happened to devices and pools, oldest first, in local time.

    The logs are rings: a device keeps its last 256 events and a pool its last 128; a card keeps its own log, of
    boots, firmware, temperature and errors. With --follow, hot plug and unplug of cards and memory are shown too, and
    --json prints one document a line.

    \b
    Examples:
      speckvctl events
      speckvctl events host:DRAM chat --since 1h
      speckvctl events --since 2026-01-31 --json
    """
    filters = eventlog.Filter(pool=pool, since_ns=parse_since(since) if since else 0)
    if not follow:
        if device is not None:
            library.check_device_name(device)
        with library.context() as ctx:
            reader = eventlog.Reader(filters)
            rows = eventlog.read(ctx, device, reader)
        if pool is not None and not reader.matched:
            raise AbsentError(f"no pool '{pool}'" + (f" on {device}" if device else ""), "speckvctl pool list")
        finish(results.EventsDocument(events=rows), as_json=as_json)
        return
    for rows in eventlog.follow(device, filters):
        show(results.EventsDocument(events=rows), as_json=as_json, compact=True)
