# SPDX-License-Identifier: MIT
"""Devices, hardware and events of the library as documents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from speckvctl import results
from speckvctl.quantities import format_mode

if TYPE_CHECKING:
    import speckv

    from speckvctl.discovery import Found

_UNKNOWN_ID = 0xFFFFFFFF


def hardware(found: Found) -> results.Hardware:
    return results.Hardware(
        kind=str(found.kind),
        name=found.name,
        sysfs_path=found.sysfs_path,
        driver=found.driver,
        vendor_id=found.vendor_id,
        device_id=found.device_id,
        numa_node=found.numa_node,
        capacity_bytes=found.capacity_bytes,
        note=found.note,
    )


def _identity(number: int) -> int | None:
    return None if number == _UNKNOWN_ID else number


def device(info: speckv.DeviceInfo) -> results.Device:
    ready = info.state == "ready"
    seen = info.state not in ("absent", "denied")
    return results.Device(
        name=info.name,
        kind="host-engine",
        state=str(info.state),
        found=info.found,
        path=info.path,
        uuid=info.uuid if ready else None,
        layout_version=info.layout_version if seen and info.state != "unrecognized" else None,
        durability=str(info.durability),
        single_inode=bool(info.single_inode),
        numa_node=info.numa_node if info.numa_node >= 0 else None,
        uid=_identity(info.uid),
        gid=_identity(info.gid),
        mode=format_mode(info.mode) if _identity(info.uid) is not None else None,
        pools=info.pools if ready else None,
        codecs=[str(codec) for codec in info.codec_modes],
        capacity_bytes=info.capacity_bytes or None,
        allocated_bytes=info.allocated_bytes if ready else None,
        free_bytes=info.free_bytes,
        created_ns=info.created_ns if ready else None,
        manager_pid=info.manager_pid or None,
        manager_command=info.manager_command or None,
    )


def event(device_name: str, event: speckv.Event) -> results.EventRow:
    return results.EventRow(
        time_ns=event.time_ns,
        device=device_name,
        pool=event.pool or None,
        sequence=event.sequence,
        severity=str(event.severity),
        kind=str(event.kind),
        pid=event.pid or None,
        text=event.text,
    )
