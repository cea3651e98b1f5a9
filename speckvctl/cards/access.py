# SPDX-License-Identifier: MIT
"""Connections to cards: as their administrator, as a client, and to the pools on them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from speckvctl import describe, library, results
from speckvctl.errors import UnsupportedError

if TYPE_CHECKING:
    import speckv
    from speckv import card


@contextmanager
def administered(name: str) -> Iterator[card.Admin]:
    """Connect to a card as its administrator; refused for a host device."""
    import speckv

    library.check_device_name(name)
    if not library.is_card(name):
        raise UnsupportedError(f"{name} is host memory, not a card", "speckvctl device list")
    with library.context() as ctx, speckv.card.Admin(ctx, name) as admin:
        yield admin


def look(
    ctx: speckv.Context, name: str, *, refuse: tuple[str, ...] = ()
) -> tuple[results.Device, results.Card | None, list[results.Pool]]:
    """A card as a device, reachable or not; `refuse`: states that are errors."""
    import speckv

    try:
        with speckv.card.Admin(ctx, name) as admin:
            device, inside = describe.card_device(admin.info(), stopped(admin)), list[results.Pool]()
            with opened(ctx, admin) as devices:
                for dev in devices:
                    device = managed(device, dev.info())
                    inside = [describe.pool(name, pool) for pool in dev.pools()]
            return device, card_of(ctx, admin), inside
    except speckv.SpeckvError as exc:
        denied = isinstance(exc, speckv.PermissionDeniedError)
        device = (as_client(ctx, name) if denied else None) or describe.unreachable_card(ctx, name, exc)
        if device.state in refuse:
            raise
        return device, None, []


def devices(ctx: speckv.Context) -> list[results.Device]:
    """Every emulated card of the runtime folder, as a device."""
    import speckv

    found = []
    for name in speckv.card.emulated(ctx):
        try:
            with speckv.card.Admin(ctx, name) as admin:
                found.append(describe.card_device(admin.info(), stopped(admin)))
        except speckv.PermissionDeniedError as exc:
            found.append(as_client(ctx, name) or describe.unreachable_card(ctx, name, exc))
        except speckv.SpeckvError as exc:
            found.append(describe.unreachable_card(ctx, name, exc))
    return found


def as_client(ctx: speckv.Context, name: str) -> results.Device | None:
    """A card without the fields that need administration rights."""
    info = ctx.probe(name)
    if info.state not in ("ready", "absent"):
        return None
    return describe.known_card(
        name,
        info.path,
        state="ready" if info.codec_modes else "factory",
        found=info.found,
        uuid=info.uuid,
        codecs=[str(codec) for codec in info.codec_modes],
        capacity=info.capacity_bytes,
        free=info.free_bytes,
    )


@contextmanager
def opened(ctx: speckv.Context, admin: card.Admin) -> Iterator[list[speckv.Device]]:
    """Open a card's pools; yields nothing for a card without an engine."""
    if not admin.info().has_engine:
        yield []
        return
    with ctx.open(admin.name) as dev:
        yield [dev]


def managed(device: results.Device, info: speckv.DeviceInfo) -> results.Device:
    """Add the process that holds the manager lock; the lock is on this machine's table of the card's pools."""
    return replace(device, manager_pid=info.manager_pid or None, manager_command=info.manager_command or None)


def stopped(admin: card.Admin, health: card.Health | None = None) -> str | None:
    """Cause of a fatal error from the card's log; None: the card is running."""
    if "fatal" not in map(str, (health or admin.health()).conditions):
        return None
    said = [event.text for event in admin.events() if str(event.kind) == "fatal"]
    why = said[-1] if said else "the card stopped on a fatal error"
    return f"{why}; speckvctl device reset {admin.name}"


def card_of(ctx: speckv.Context, admin: card.Admin) -> results.Card:
    return describe.card(admin.info(), admin.health(), settings(admin), admin.slots(), functions(ctx, admin.name))


def settings(admin: card.Admin) -> dict[str, int]:
    from speckv.card import Setting

    return {str(setting): admin.setting(setting) for setting in Setting}


def functions(ctx: speckv.Context, name: str) -> list[results.CardFunction]:
    """Connections to a card; empty if its emulator does not report them."""
    import speckv

    try:
        status = speckv.card.status(ctx, name)
    except speckv.SpeckvError:
        return []
    return describe.card_functions(status)


def clients(ctx: speckv.Context, admin: card.Admin) -> list[results.CardFunction]:
    """Other processes with grants on a card's pools: a restart of the card disconnects them."""
    using = {grant.function for grant in admin.grants()}
    return [one for one in functions(ctx, admin.name) if one.function in using]


def named(holders: list[results.CardFunction]) -> str:
    """Each process once: "process 12 (vllm), process 14"."""
    seen = {one.pid: one.command for one in holders}
    return ", ".join(f"process {pid}" + (f" ({command})" if command else "") for pid, command in seen.items())
