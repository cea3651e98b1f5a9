# SPDX-License-Identifier: MIT
"""speckvctl top."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from speckvctl import completion
from speckvctl.commands.options import App, OptionalDevice, decimal, whole
from speckvctl.errors import UsageError
from speckvctl.render import show, write
from speckvctl.render.text import room

if TYPE_CHECKING:
    from speckvctl import results
    from speckvctl.top.model import Model
    from speckvctl.top.state import State

app = App()

#: Seconds between two ticks, and between the two samples of --once.
INTERVAL_SECONDS = 2.0
ONCE_SECONDS = 0.5


@app.verb("top")
def top(
    device: OptionalDevice = None,
    sort: Annotated[
        str,
        typer.Option(
            "--sort",
            metavar="COLUMN",
            help="Order of pools: name, used, raw, ratio, hit, in, out or p99.",
            autocompletion=completion.orders,
        ),
    ] = "name",
    reverse: Annotated[bool, typer.Option("--reverse", help="Reverse the order.")] = False,
    interval: Annotated[
        float | None,
        decimal(
            "--interval",
            metavar="S",
            least=0.05,
            most=86400,
            help="Seconds from tick to tick. Default: 2; with --once 0.5.",
        ),
    ] = None,
    count: Annotated[
        int | None, whole("--count", metavar="N", least=1, most=1 << 53, help="Exit after N ticks.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print one tick, from two samples, and exit.")] = False,
    columns: Annotated[
        int | None,
        whole(
            "--columns",
            metavar="N",
            least=20,
            most=10_000,
            help="Width of what --once prints. Default: the terminal's; 80 in a pipe.",
        ),
    ] = None,
    record: Annotated[
        str | None,
        typer.Option("--record", metavar="FILE", help="Append the document of each tick to FILE, one a line."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", "-j", help="Print a JSON document per tick, one a line, instead of drawing.")
    ] = False,
) -> None:
    """Watch devices, pools, tenants and prefetchers while they work.

    Keys: arrows choose a pool, enter opens it (tenants, clients, histograms), escape leads back; s sorts,
    r reverses, / filters, p pauses, t changes hit shares and latencies from the last interval to totals, ? explains
    keys and columns, q leaves.

    Rates need two samples. --json and --once begin with one that is not shown, so that each of their documents has
    rates; the first frame of the screen has none. Every figure of a frame is in the document of its tick, which
    --record keeps. A figure that is unavailable is "-", and null in JSON: health, temperature, link and queue depth
    (commands in flight) are a card's.

    Prefetcher: accuracy is the staged blocks that a get was served from over the blocks asked to be staged; coverage
    is the same over gets that found their block; unused is staged blocks thrown out unread over staged blocks. Late
    prefetches are not counted by pools yet.

    \b
    Examples:
      speckvctl top --once
      speckvctl top --once --sort out --columns 200
      speckvctl top host:DRAM --once --json
      speckvctl top --json --count 1 --interval 0.2 --record ticks.jsonl
    """
    from speckvctl.top.model import Model
    from speckvctl.top.sampling import Sampler
    from speckvctl.top.state import ORDERS, State

    if sort not in ORDERS:
        raise UsageError(f"--sort: '{sort}' is not one of {', '.join(ORDERS)}")
    seconds = interval if interval is not None else ONCE_SECONDS if once else INTERVAL_SECONDS
    if once and count is not None:
        raise UsageError("--once and --count both say how many ticks", "give one or the other")
    if columns is None:
        columns = max(20, room() or 80)
    sampler = Sampler(device)
    sampler.require()
    model, chosen = Model(sampler), State(order=sort, backwards=reverse)
    with _recording(record) as keep:
        if once or as_json:
            _stream(model, chosen, seconds, 1 if once else count, keep, columns=columns, once=once, as_json=as_json)
        else:
            from speckvctl.top import terminal

            terminal.require()
            terminal.run(model, chosen, interval=seconds, count=count, record=keep)


@contextmanager
def _recording(path: str | None) -> Iterator[Callable[[results.Top], None]]:
    """Yield a function that appends a tick's document to the --record file; a no-op without one."""
    if path is None:
        yield lambda document: None
        return
    from speckvctl.render import json

    with open(path, "ab", buffering=0) as stream:

        def record(document: results.Top) -> None:
            left = json.render(document, compact=True).encode()
            try:
                while left:
                    left = left[stream.write(left) or 0 :]
            except OSError as exc:
                raise OSError(exc.errno or errno.EIO, exc.strerror, path) from exc

        yield record


def _stream(
    model: Model,
    chosen: State,
    seconds: float,
    count: int | None,
    keep: Callable[[results.Top], None],
    *,
    columns: int,
    once: bool,
    as_json: bool,
) -> None:
    """Print ticks on stdout, with the pools sorted by --sort."""
    from speckvctl.top.state import Window

    model.baseline()
    chosen.window = Window.TOTAL
    done = 0
    while count is None or done < count:
        time.sleep(seconds)
        document = model.tick()
        document = replace(document, pools=chosen.pools(document))
        keep(document)
        if as_json:
            show(document, as_json=True, compact=not once)
        else:
            write(_text(document, chosen, columns))
        done += 1


def _text(document: results.Top, chosen: State, columns: int) -> str:
    """Plain in a pipe, in colour on a terminal; the same otherwise."""
    import io

    from rich.console import Console

    from speckvctl.render.text import colour_wanted
    from speckvctl.top import views

    stream = io.StringIO()
    console = Console(file=stream, force_terminal=colour_wanted(), color_system="auto" if colour_wanted() else None)
    for line in views.once(document, chosen, columns):
        line.rstrip()
        console.print(line, no_wrap=True, overflow="ignore", crop=False, highlight=False)
    return stream.getvalue()
