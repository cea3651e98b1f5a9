# SPDX-License-Identifier: MIT
"""Pools of the library, and what is in them, as documents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from speckvctl import results
from speckvctl.quantities import format_mode

if TYPE_CHECKING:
    import speckv

_UNKNOWN_ID = 0xFFFFFFFF


def ratio(raw_bytes: int, stored_bytes: int) -> float | None:
    return raw_bytes / stored_bytes if stored_bytes else None


def share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def geometry(geometry: speckv.Geometry) -> results.Geometry:
    return results.Geometry(
        layers=geometry.layers,
        kv_heads=geometry.kv_heads,
        head_dim=geometry.head_dim,
        tokens=geometry.tokens,
        dtype=str(geometry.dtype),
    )


def pool(device_name: str, info: speckv.PoolInfo) -> results.Pool:
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
        geometry=geometry(config.geometry),
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
        puts=info.puts if inside else None,
        puts_bit_exact=info.puts_bit_exact if inside else None,
        created_ns=info.created_ns,
    )


def tenants(tenants: list[speckv.TenantInfo]) -> list[results.Tenant]:
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


def clients(clients: list[speckv.ClientInfo], tenants: list[speckv.TenantInfo]) -> list[results.Client]:
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


def statistics(stats: speckv.Stats, pool: str, found: list[speckv.TenantInfo]) -> results.PoolStats:
    counters = dict(stats.counters)
    return results.PoolStats(
        pool=pool,
        taken_ns=stats.taken_ns,
        since_ns=stats.since_ns,
        hit_share=share(counters["hits"], counters["wanted"]),
        ratio=ratio(counters["bytes_in_raw"], counters["bytes_in_stored"]),
        counters=counters,
        latency={operation: latency(stats, operation) for operation in ("get", "put", "lookup", "stage")},
        tenants=tenants(found),
    )


def latency(stats: speckv.Stats, operation: str) -> results.Latency:
    return results.Latency(
        count=sum(stats.histogram(operation)),
        p50_ns=stats.quantile(operation, 0.5),
        p90_ns=stats.quantile(operation, 0.9),
        p99_ns=stats.quantile(operation, 0.99),
        p999_ns=stats.quantile(operation, 0.999),
    )
