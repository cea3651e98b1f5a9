# SPDX-License-Identifier: MIT
"""Converts the library's data about a card to results."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from speckvctl import library, results
from speckvctl.errors import UnsupportedError
from speckvctl.quantities import format_mode
from speckvctl.results.cards import Card, CardFunction, CardLink, CardSlot

if TYPE_CHECKING:
    import speckv
    from speckv import card

#: errno of an unreachable card -> the state shown.
_STATES = {
    errno.ENOENT: "absent",
    errno.ENXIO: "offline",
    errno.EACCES: "denied",
    errno.EOPNOTSUPP: "unrecognized",
    errno.EPROTONOSUPPORT: "other_version",
}


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
) -> tuple[results.Device, Card | None, list[results.Pool]]:
    """A card as a device, reachable or not; `refuse`: states that are errors."""
    import speckv

    try:
        with speckv.card.Admin(ctx, name) as admin:
            device, inside = device_result(admin.info(), stopped(admin)), list[results.Pool]()
            with opened(ctx, admin) as devices:
                for dev in devices:
                    device = managed(device, dev.info())
                    inside = [library.pool_result(name, pool) for pool in dev.pools()]
            return device, card_result(ctx, admin), inside
    except speckv.SpeckvError as exc:
        denied = isinstance(exc, speckv.PermissionDeniedError)
        device = (as_client(ctx, name) if denied else None) or unreachable(ctx, name, exc)
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
                found.append(device_result(admin.info(), stopped(admin)))
        except speckv.PermissionDeniedError as exc:
            found.append(as_client(ctx, name) or unreachable(ctx, name, exc))
        except speckv.SpeckvError as exc:
            found.append(unreachable(ctx, name, exc))
    return found


def as_client(ctx: speckv.Context, name: str) -> results.Device | None:
    """A card without the fields that need administration rights."""
    info = ctx.probe(name)
    if info.state not in ("ready", "absent"):
        return None
    return _device(
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


def device_result(info: card.CardInfo, why_stopped: str | None = None) -> results.Device:
    return _device(
        info.name,
        info.path,
        state="failed" if why_stopped else "ready" if info.has_engine else "factory",
        found=why_stopped or f"{info.model} {info.serial}, {info.part}",
        uuid=info.uuid,
        pools=info.pools,
        codecs=[str(codec) for codec in info.codec_modes],
        capacity=info.memory_bytes,
        free=info.memory_free_bytes,
    )


def unreachable(ctx: speckv.Context, name: str, exc: speckv.SpeckvError) -> results.Device:
    path = os.path.join(ctx.runtime_dir, "emu", name.removeprefix("emu:"))
    return _device(
        name, path, state=_STATES.get(exc.errno or 0, "failed"), found=str(exc).removeprefix(name).lstrip(": ")
    )


def _device(
    name: str,
    path: str,
    *,
    state: str,
    found: str,
    uuid: str | None = None,
    pools: int | None = None,
    codecs: list[str] | None = None,
    capacity: int | None = None,
    free: int | None = None,
) -> results.Device:
    try:
        owner = os.stat(path)
    except OSError:
        owner = None
    return results.Device(
        name=name,
        kind="card",
        state=state,
        found=found,
        path=path,
        uuid=uuid,
        layout_version=None,
        durability=None,
        single_inode=False,
        numa_node=None,
        uid=owner.st_uid if owner else None,
        gid=owner.st_gid if owner else None,
        mode=format_mode(owner.st_mode) if owner else None,
        pools=pools,
        codecs=codecs or [],
        capacity_bytes=capacity,
        allocated_bytes=None if capacity is None or free is None else capacity - free,
        free_bytes=free,
        created_ns=None,
        manager_pid=None,
        manager_command=None,
    )


def card_result(ctx: speckv.Context, admin: card.Admin) -> Card:
    info, health = admin.info(), admin.health()
    return Card(
        model=info.model,
        serial=info.serial,
        part=info.part,
        personality="card" if info.has_engine else "factory",
        map_version=info.map_version,
        rtl_revision=info.rtl_revision,
        build_id=info.build_id.hex(),
        abilities=[str(ability) for ability in info.abilities],
        running_image=str(info.running),
        security_version=info.security_version,
        healthy=not health.conditions,
        conditions=[str(condition) for condition in health.conditions],
        temperature_millicelsius=health.temperature_millicelsius,
        throttle_millicelsius=health.throttle_millicelsius,
        trip_millicelsius=health.trip_millicelsius,
        uptime_ns=health.uptime_ns,
        throttled_ns=health.throttled_ns,
        power_cycles=health.power_cycles,
        unsafe_power_cycles=health.unsafe_power_cycles,
        corrected_errors=health.corrected_errors,
        uncorrected_errors=health.uncorrected_errors,
        poisoned_pages=health.poisoned_pages,
        flash_erases=health.flash_erases,
        link=link_result(health),
        outstanding_commands=health.outstanding,
        prefetcher_digest=info.model_digest.hex() if info.model_digest else None,
        key_ids=[key_id.hex() for key_id in info.key_ids],
        settings=settings(admin),
        slots=[slot_result(slot) for slot in admin.slots()],
        functions=functions(ctx, admin.name),
    )


def link_result(health: card.Health) -> CardLink | None:
    """None if the card does not report it."""
    if not health.link_lanes or not health.link_megatransfers:
        return None
    return CardLink(
        megatransfers_per_second=health.link_megatransfers,
        lanes=health.link_lanes,
        megatransfers_per_second_most=health.link_megatransfers_most,
        lanes_most=health.link_lanes_most,
    )


def settings(admin: card.Admin) -> dict[str, int]:
    from speckv.card import Setting

    return {str(setting): admin.setting(setting) for setting in Setting}


def slot_result(slot: card.Slot) -> CardSlot:
    committed = bool(slot.bitstream_bytes)
    return CardSlot(
        image=str(slot.image),
        state=str(slot.state),
        running=slot.running,
        rtl_revision=slot.rtl_revision if committed or slot.image == "golden" else None,
        security_version=slot.security_version if committed else None,
        build_id=slot.build_id.hex() if committed else None,
        bitstream_bytes=slot.bitstream_bytes or None,
        bitstream_sha256=slot.bitstream_sha256.hex() if committed else None,
        key_id=slot.key_id.hex() if committed else None,
        received_bytes=slot.received_bytes or None,
        committed_ns=slot.committed_ns or None,
        reason=slot.reason or None,
    )


def functions(ctx: speckv.Context, name: str) -> list[CardFunction]:
    """Connections to a card. None if its emulator does not report them."""
    import speckv

    try:
        status = speckv.card.status(ctx, name)
    except speckv.SpeckvError:
        return []
    return function_results(status)


def function_results(status: card.EmulatorStatus) -> list[CardFunction]:
    return [
        CardFunction(function=one.function, admin=one.admin, pid=one.pid, uid=one.uid, command=command_of(one.pid))
        for one in status.connections
        if one.pid != os.getpid()
    ]


def command_of(pid: int) -> str | None:
    """The name of a process's program, in the form the library reports for clients; without arguments."""
    try:
        name = Path(f"/proc/{pid}/comm").read_bytes().removesuffix(b"\n")
        if len(name) == 15:  # the kernel truncates longer names
            whole = os.path.basename(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0])
            name = whole if whole.startswith(name) else name
    except OSError:
        return None
    return name.decode("utf-8", "replace")[:63] or None


def clients(ctx: speckv.Context, admin: card.Admin) -> list[CardFunction]:
    """Other processes with grants on a card's pools: a restart of the card disconnects them."""
    using = {grant.function for grant in admin.grants()}
    return [one for one in functions(ctx, admin.name) if one.function in using]


def named(holders: list[CardFunction]) -> str:
    """Each process once: "process 12 (vllm), process 14"."""
    seen = {one.pid: one.command for one in holders}
    return ", ".join(f"process {pid}" + (f" ({command})" if command else "") for pid, command in seen.items())
