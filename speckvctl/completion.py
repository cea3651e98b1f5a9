# SPDX-License-Identifier: MIT
"""Shell completion of values: devices, pools, cards, option choices. Silent on any failure."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr, suppress
from pathlib import Path

import typer

SHELLS = ("bash", "zsh", "fish")
Completer = Callable[[typer.Context, str], list[str]]


def script(shell: str) -> str:
    """The script that registers completion with a shell."""
    return (Path(__file__).parent / "completions" / f"speckvctl.{shell}").read_text(encoding="utf-8")


def _values(found: Callable[[typer.Context], Iterable[str]]) -> Completer:
    """Look up candidates; a failure yields none and prints nothing."""

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        names: list[str] = []
        with redirect_stderr(io.StringIO()), suppress(Exception):
            names.extend(found(ctx))
        return sorted({name for name in names if name.startswith(incomplete)})

    return complete


def words(*choices: str) -> Completer:
    return _values(lambda ctx: choices)


def _devices(ctx: typer.Context) -> Iterable[str]:
    from speckvctl import library

    yield "host:DRAM"
    with library.context() as opened:
        yield from (info.name for info in opened.devices())
        yield from _cards(ctx)


def _cards(ctx: typer.Context) -> Iterable[str]:
    import speckv

    from speckvctl import library

    with library.context() as opened:
        yield from speckv.card.emulated(opened)


def _card_names(ctx: typer.Context) -> Iterable[str]:
    return (name.removeprefix("emu:") for name in _cards(ctx))


def _pools(ctx: typer.Context) -> Iterable[str]:
    """Pools of the device on the command line, or of all devices."""
    from speckvctl import library

    with library.chosen_devices(ctx.params.get("device")) as found:
        for device in found:
            yield from (pool.config.name for pool in device.pools())


def _codecs(ctx: typer.Context) -> Iterable[str]:
    from speckvctl.results.words import CODECS

    return CODECS


def _calibrated(ctx: typer.Context) -> Iterable[str]:
    from speckv import codec

    return codec.calibrated_modes()


def _faults(ctx: typer.Context) -> Iterable[str]:
    import speckv

    return speckv.card.FAULTS


def _dtypes(ctx: typer.Context) -> Iterable[str]:
    from speckvctl.results.words import DTYPES

    return DTYPES


def _orders(ctx: typer.Context) -> Iterable[str]:
    from speckvctl.top.state import ORDERS

    return ORDERS


def _baselines(ctx: typer.Context) -> Iterable[str]:
    from speckvctl.prefetcher.evaluation import BASELINES

    return BASELINES


devices = _values(_devices)
cards = _values(_cards)
card_names = _values(_card_names)
pools = _values(_pools)
codecs = _values(_codecs)
calibrated_codecs = _values(_calibrated)
faults = _values(_faults)
dtypes = _values(_dtypes)
orders = _values(_orders)
baselines = _values(_baselines)
