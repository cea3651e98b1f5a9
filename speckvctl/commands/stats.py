# SPDX-License-Identifier: MIT
"""speckvctl stats."""

from __future__ import annotations

from typing import Annotated

import typer

from speckvctl import describe, library, results
from speckvctl.commands.options import App, Device, DryRun, Json, OptionalPool
from speckvctl.render import finish

app = App()


@app.verb("stats")
def stats(
    device: Device,
    pool: OptionalPool = None,
    reset: Annotated[
        bool, typer.Option("--reset", help="Show the counters, then set them and the histograms to zero.")
    ] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Show counters, hit share, latencies and tenants of a device's pools, since creation or the last --reset.

    The hit share is blocks served over blocks wanted: a get counts itself, and a look-up each block that it did not
    find. A block that was found and never fetched is not wanted.

    Latencies are per block as clients measured them (lookup: per batch); a percentile is the upper bound of its
    histogram bucket, at most a quarter above the true value.

    \b
    Examples:
      speckvctl stats host:DRAM
      speckvctl stats host:DRAM chat --json
      speckvctl stats host:DRAM chat --reset
    """
    with library.device(device) as dev:
        names = [pool] if pool is not None else [info.config.name for info in dev.pools() if info.accessible]
        shown = [describe.statistics(dev.stats(name), name, dev.tenants(name)) for name in names]
        for step in ([True] if dry_run else [True, False]) if reset else []:  # check all before any is reset
            for name in names:
                dev.reset_stats(name, dry_run=step)
    next_step = None
    if not shown:
        with library.context() as ctx:
            next_step = library.first_pool(ctx, device)
    document = results.StatsDocument(device=device, reset=reset, dry_run=dry_run, pools=shown, next=next_step)
    finish(document, as_json=as_json)
