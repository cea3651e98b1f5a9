# SPDX-License-Identifier: MIT
"""Calls the library `speckv` for the commands, and converts its data to results for the renderers.

`speckv` and everything it imports is imported here, on first use, so that help and usage errors stay fast.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from speckvctl import results
from speckvctl.console import note
from speckvctl.errors import AbsentError, DamagedError, DeniedError, UnsupportedError, UsageError
from speckvctl.quantities import format_mode, suggested_size

if TYPE_CHECKING:
    import speckv

_UNKNOWN_ID = 0xFFFFFFFF


@contextmanager
def context() -> Iterator[speckv.Context]:
    import speckv

    with speckv.Context() as ctx:
        yield ctx


def is_card(name: str) -> bool:
    from speckv import card

    return card.is_card(name)


def check_device_name(name: str) -> str:
    """Refuse an invalid device name, or an unsupported kind of device, before any access."""
    if name.startswith(("host:", "emu:")) and not name.endswith(":"):
        return name
    if name.startswith("/dev/speckv"):
        raise UnsupportedError(f"{name}: cards are not supported by this build", "use host:DRAM, or emu:NAME")
    raise UsageError(
        f"'{name}' is not a device name", "name host:DRAM, host:numaN, host:/path/to/file, host:/dev/daxX.Y or emu:NAME"
    )


def first_pool(ctx: speckv.Context, name: str = "host:DRAM") -> str:
    """The command that creates a pool on a device, with a size that fits the free space."""
    import speckv

    free: int | None = None
    with suppress(speckv.SpeckvError):
        free = ctx.probe(name).free_bytes
    return f"speckvctl pool create {name} NAME --size {suggested_size(free)}"


def left_over(info: speckv.DeviceInfo, known: Iterable[str] = ()) -> list[str]:
    """Pool files without a record in the table: the table was lost or recreated."""
    if is_card(info.name) or info.state not in ("absent", "ready") or info.single_inode:
        return []
    try:
        names = os.listdir(f"{info.path}.pools")
    except OSError:
        return []
    return sorted(name for name in names if not name.startswith(".") and name not in known)


def hidden_left(info: speckv.DeviceInfo, known: Iterable[str] = ()) -> list[str]:
    """Temporary and lock files of pools, by uuid, that belong to no known pool."""
    if is_card(info.name) or info.state not in ("absent", "ready") or info.single_inode:
        return []
    of_known = {uuid.replace("-", "") for uuid in known}
    with suppress(OSError):
        found = (re.fullmatch(r"\.([0-9a-f]{32})\.(new|lock)", name) for name in os.listdir(f"{info.path}.pools"))
        return sorted(match[0] for match in found if match and match[1] not in of_known)
    return []


def require_ready(info: speckv.DeviceInfo) -> None:
    """Refuse a device that cannot be opened, with the next command; the library's errors cover the rest.

    A reachable card has no medium before its first pool: for a card, opening it reports the error.
    """
    if is_card(info.name):
        require_permission(info)
        return
    if info.state == "absent" and (left := left_over(info)):
        raise AbsentError(
            f"the table of {info.name} is gone; left of it in {info.path}.pools: {', '.join(left)}",
            f"speckvctl pool check {info.name} {left[0]} --repair",
            errno.ENOENT,
        )
    if info.state == "absent":
        raise AbsentError(
            f"{info.name} does not exist yet: its first pool creates it",
            f"speckvctl pool create {info.name} NAME --size {suggested_size(info.free_bytes or None)}",
            errno.ENOENT,
        )
    require_permission(info)


def require_permission(info: speckv.DeviceInfo) -> None:
    if info.state == "denied":
        raise DeniedError(
            f"{info.name}: no permission to look at {info.path}: {info.found}", "speckvctl doctor", errno.EACCES
        )
    if info.state == "offline" or (info.state == "absent" and is_card(info.name) and not info.capacity_bytes):
        raise AbsentError(info.found, None, errno.ENXIO)


@contextmanager
def device(name: str) -> Iterator[speckv.Device]:
    """An existing device, open."""
    check_device_name(name)
    with context() as ctx:
        require_ready(ctx.probe(name))
        with ctx.open(name) as dev:
            yield dev


@contextmanager
def repaired_device(name: str, pool: str) -> Iterator[speckv.Device]:
    """Open an existing device; if its table is lost, adopt the named pool's file first."""
    check_device_name(name)
    with context() as ctx:
        info = ctx.probe(name)
        left = pool in left_over(info)
        if not left:
            require_ready(info)
        with ctx.open(name, create=left) as dev:
            if left and pool in left_over(info, (found.config.name for found in dev.pools())):
                path = f"{info.path}.pools/{pool}"
                if info.state == "absent" and not dev.pools():
                    dev.close()
                    ctx.remove(name)  # created in vain
                raise DamagedError(
                    f"{path} is not an intact pool: it cannot be taken over", f"mv {path} /var/tmp/", errno.EUCLEAN
                )
            yield dev


def ready_devices(ctx: speckv.Context, *, warn: bool = True) -> Iterator[speckv.Device]:
    """Open every host device that is usable; warn about the others."""
    import speckv

    for info in ctx.devices():
        reason = info.found
        if info.state == "ready" or (info.state == "absent" and is_card(info.name)):
            try:
                dev = ctx.open(info.name)
            except speckv.SpeckvError as exc:
                reason = str(exc)
            else:
                with dev:
                    yield dev
                continue
        if warn:
            note(f"warning: left out {info.name}: {reason}")


@contextmanager
def chosen_devices(name: str | None) -> Iterator[Iterator[speckv.Device]]:
    """The named device, or all devices."""
    if name is not None:
        with device(name) as dev:
            yield iter([dev])
    else:
        with context() as ctx:
            yield ready_devices(ctx)


def hardware() -> list[results.Hardware] | None:
    """Hardware that could carry an engine; without libudev only NUMA nodes, None if there are none."""
    from speckvctl import discovery

    try:
        found = discovery.discover()
    except discovery.DiscoveryError as exc:
        note(f"warning: {exc}; of hardware, only memory-only NUMA nodes are listed")
        nodes = discovery.memory_nodes()
        return [hardware_result(item) for item in nodes] if nodes else None
    return [hardware_result(item) for item in found]


def hardware_result(found: object) -> results.Hardware:
    from speckvctl.discovery import Found

    assert isinstance(found, Found)
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


# ---- conversion to results -------------------------------------------------------------------------------------------


def _identity(number: int) -> int | None:
    return None if number == _UNKNOWN_ID else number


def device_result(info: speckv.DeviceInfo) -> results.Device:
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


def ratio(raw_bytes: int, stored_bytes: int) -> float | None:
    return raw_bytes / stored_bytes if stored_bytes else None


def share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def geometry_result(geometry: speckv.Geometry) -> results.Geometry:
    return results.Geometry(
        layers=geometry.layers,
        kv_heads=geometry.kv_heads,
        head_dim=geometry.head_dim,
        tokens=geometry.tokens,
        dtype=str(geometry.dtype),
    )


def pool_result(device_name: str, info: speckv.PoolInfo) -> results.Pool:
    config = info.config
    inside = bool(info.accessible)
    effective = None
    if inside and info.used_bytes and info.raw_bytes:
        # By pages, not by frame bytes: the rounding to pages is part of a page's cost.
        effective = config.capacity_bytes * info.raw_bytes // info.used_bytes
    return results.Pool(
        device=device_name,
        name=config.name,
        uuid=info.uuid,
        path=info.path,
        state=str(info.state),
        accessible=inside,
        codec=str(config.codec),
        calibration_digest=info.calibration.hex() if info.calibration else None,
        placement=str(info.placement),
        eviction=str(config.eviction),
        geometry=geometry_result(config.geometry),
        block_bytes=info.block_bytes,
        page_bytes=config.page_bytes,
        single_tenant=bool(config.single_tenant),
        uid=config.uid if config.uid is not None else _UNKNOWN_ID,
        gid=config.gid if config.gid is not None else _UNKNOWN_ID,
        mode=format_mode(config.mode),
        capacity_bytes=config.capacity_bytes,
        max_bytes=config.max_bytes,
        quota_bytes=config.quota_bytes,
        tenant_quota_bytes=config.tenant_quota_bytes or None,
        table_bytes=info.table_bytes if inside else None,
        used_bytes=info.used_bytes if inside else None,
        free_bytes=info.free_bytes if inside else None,
        blocks=info.blocks if inside else None,
        raw_bytes=info.raw_bytes if inside else None,
        stored_bytes=info.stored_bytes if inside else None,
        ratio=ratio(info.raw_bytes, info.stored_bytes) if inside else None,
        effective_capacity_bytes=effective,
        clients=info.clients if inside else None,
        tenants=info.tenants if inside else None,
        resizes=info.resizes if inside else None,
        created_ns=info.created_ns,
    )


def tenant_results(tenants: list[speckv.TenantInfo]) -> list[results.Tenant]:
    return [
        results.Tenant(
            name=tenant.name,
            index=tenant.index,
            clients=tenant.clients,
            used_bytes=tenant.used_bytes,
            blocks=tenant.blocks,
            puts=tenant.puts,
            gets=tenant.gets,
            hits=tenant.hits,
            misses=tenant.misses,
            lookup_misses=tenant.lookup_misses,
            wanted=tenant.wanted,
            hit_share=share(tenant.hits, tenant.wanted),
            in_bytes=tenant.bytes_in,
            out_bytes=tenant.bytes_out,
            evicted_blocks=tenant.evicted_blocks,
        )
        for tenant in tenants
    ]


def client_results(clients: list[speckv.ClientInfo], tenants: list[speckv.TenantInfo]) -> list[results.Client]:
    names = {tenant.index: tenant.name for tenant in tenants}
    return [
        results.Client(
            pid=client.pid,
            command=client.command,
            uid=client.uid,
            tenant=names.get(client.tenant),
            alive=bool(client.alive),
            attached_ns=client.attached_ns,
            allocated_bytes=client.allocated_bytes,
        )
        for client in clients
    ]


def stats_result(stats: speckv.Stats, pool: str, tenants: list[speckv.TenantInfo]) -> results.PoolStats:
    counters = dict(stats.counters)
    return results.PoolStats(
        pool=pool,
        taken_ns=stats.taken_ns,
        since_ns=stats.since_ns,
        hit_share=share(counters["hits"], counters["wanted"]),
        ratio=ratio(counters["bytes_in_raw"], counters["bytes_in_stored"]),
        counters=counters,
        latency={operation: latency_result(stats, operation) for operation in ("get", "put", "lookup", "stage")},
        tenants=tenant_results(tenants),
    )


def latency_result(stats: speckv.Stats, operation: str) -> results.Latency:
    return results.Latency(
        count=sum(stats.histogram(operation)),
        p50_ns=stats.quantile(operation, 0.5),
        p90_ns=stats.quantile(operation, 0.9),
        p99_ns=stats.quantile(operation, 0.99),
        p999_ns=stats.quantile(operation, 0.999),
    )


def event_result(device_name: str, event: speckv.Event) -> results.EventRow:
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
