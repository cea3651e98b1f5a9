# SPDX-License-Identifier: MIT
"""Cards of the library as documents."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

from speckvctl import results
from speckvctl.quantities import format_mode

if TYPE_CHECKING:
    import speckv

#: errno of an unreachable card -> the state shown.
_STATES = {
    errno.ENOENT: "absent",
    errno.ENXIO: "offline",
    errno.EACCES: "denied",
    errno.EOPNOTSUPP: "unrecognized",
    errno.EPROTONOSUPPORT: "other_version",
}


def card_device(info: speckv.card.CardInfo, why_stopped: str | None = None) -> results.Device:
    return known_card(
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


def unreachable_card(ctx: speckv.Context, name: str, exc: speckv.SpeckvError) -> results.Device:
    path = os.path.join(ctx.runtime_dir, "emu", name.removeprefix("emu:"))
    return known_card(
        name, path, state=_STATES.get(exc.errno or 0, "failed"), found=str(exc).removeprefix(name).lstrip(": ")
    )


def known_card(
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
    """A card of which only this is known; its owner is that of its path."""
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


def card(
    info: speckv.card.CardInfo,
    health: speckv.card.Health,
    settings: dict[str, int],
    slots: list[speckv.card.Slot],
    functions: list[results.CardFunction],
) -> results.Card:
    """A card as its administrator sees it; `settings` by name."""
    return results.Card(
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
        link=card_link(health),
        outstanding_commands=health.outstanding,
        prefetcher_digest=info.model_digest.hex() if info.model_digest else None,
        key_ids=[key_id.hex() for key_id in info.key_ids],
        settings=settings,
        slots=[card_slot(slot) for slot in slots],
        functions=functions,
    )


def card_link(health: speckv.card.Health) -> results.CardLink | None:
    """None if the card does not report it."""
    if not health.link_lanes or not health.link_megatransfers:
        return None
    return results.CardLink(
        megatransfers_per_second=health.link_megatransfers,
        lanes=health.link_lanes,
        megatransfers_per_second_most=health.link_megatransfers_most,
        lanes_most=health.link_lanes_most,
    )


def card_slot(slot: speckv.card.Slot) -> results.CardSlot:
    committed = bool(slot.bitstream_bytes)
    return results.CardSlot(
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


def card_functions(status: speckv.card.EmulatorStatus) -> list[results.CardFunction]:
    return [
        results.CardFunction(
            function=one.function, admin=one.admin, pid=one.pid, uid=one.uid, command=_command_of(one.pid)
        )
        for one in status.connections
        if one.pid != os.getpid()
    ]


def _command_of(pid: int) -> str | None:
    """The name of a process's program, in the form the library reports for clients; without arguments."""
    try:
        name = Path(f"/proc/{pid}/comm").read_bytes().removesuffix(b"\n")
        if len(name) == 15:  # the kernel truncates longer names
            whole = os.path.basename(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0])
            name = whole if whole.startswith(name) else name
    except OSError:
        return None
    return name.decode("utf-8", "replace")[:63] or None
