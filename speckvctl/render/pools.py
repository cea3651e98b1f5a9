# SPDX-License-Identifier: MIT
"""Documents about pools as text."""

from __future__ import annotations

from speckvctl import results
from speckvctl.quantities import format_count, format_ratio, format_share, format_size, format_time, user_name
from speckvctl.render.dispatch import STATES, lines_of, next_step, owner
from speckvctl.render.text import columns, one_line, paint, pairs, plural

#: Texts for a pool's placement.
_PLACEMENTS = {"card": "by the card", "host": "by this machine"}

#: Codecs that store every block so.
_BIT_EXACT = ("raw", "lossless")

#: Unusable states, and the command that ends them.
_CLOSED = {
    "lost": "lost: its file is gone; 'speckvctl pool destroy' removes its record",
    "damaged": "damaged: its file was truncated or overwritten; 'speckvctl pool destroy' removes it",
    "creating": "creating; if that was interrupted, 'speckvctl pool destroy' removes it",
    "destroying": "destroying; if that was interrupted, 'speckvctl pool destroy' finishes it",
}


def _pool_state(pool: results.Pool) -> str:
    if pool.accessible:
        return pool.state
    return _CLOSED.get(pool.state, f"{pool.state}; no permission to look inside")


def pool_table(pools: list[results.Pool], *, with_device: bool) -> list[str]:
    heads = ["POOL", "STATE", "CODEC", ">CAPACITY", ">USED", ">RATIO", ">CLIENTS"]
    rows = [
        [
            pool.name,
            pool.state if pool.accessible or pool.state in _CLOSED else "no access",
            pool.codec,
            format_size(pool.capacity_bytes),
            format_size(pool.used_bytes),
            format_ratio(pool.ratio),
            format_count(pool.clients),
        ]
        for pool in pools
    ]
    if with_device:
        heads, rows = ["DEVICE", *heads], [[pool.device, *row] for pool, row in zip(pools, rows, strict=True)]
    return columns(heads, rows, STATES)


@lines_of.register
def listed(document: results.PoolList) -> list[str]:
    if not document.pools:
        return ["No pools." + next_step(document.next)]
    return pool_table(document.pools, with_device=True)


def tenant_table(tenants: list[results.Tenant]) -> list[str]:
    return columns(
        ["TENANT", ">CLIENTS", ">USED", ">BLOCKS", ">PUTS", ">WANTED", ">HIT SHARE", ">EVICTED"],
        [
            [
                tenant.name,
                format_count(tenant.clients),
                format_size(tenant.used_bytes),
                format_count(tenant.blocks),
                format_count(tenant.puts),
                format_count(tenant.wanted),
                format_share(tenant.hit_share),
                format_count(tenant.evicted_blocks),
            ]
            for tenant in tenants
        ],
    )


def _bit_exact(pool: results.Pool) -> str:
    """How many blocks the codec did not take."""
    if not pool.puts or pool.puts_bit_exact is None:
        return "-"
    part = format_share(pool.puts_bit_exact / pool.puts)
    return f"{format_count(pool.puts_bit_exact)} of {format_count(pool.puts)} blocks put ({part})"


def _shape(geometry: results.Geometry) -> str:
    layers = plural(geometry.layers, "layer")
    heads = plural(geometry.kv_heads, "KV head")
    return f"{layers}, {heads}, {geometry.tokens} tokens, {geometry.head_dim} channels, {geometry.dtype}"


@lines_of.register
def shown(document: results.PoolShow) -> list[str]:
    pool = document.pool
    used_share = pool.used_bytes / pool.capacity_bytes if pool.used_bytes is not None else None
    effective = "-"
    if pool.effective_capacity_bytes is not None:
        effective = f"{format_size(pool.effective_capacity_bytes)} of raw KV (estimated)"
    tenant_quota = "no limit" if pool.tenant_quota_bytes is None else format_size(pool.tenant_quota_bytes)
    lines = pairs(
        [
            ("Pool", pool.name),
            ("Device", pool.device),
            ("State", _pool_state(pool)),
            ("UUID", pool.uuid),
            ("Path", pool.path),
            ("Capacity", f"{format_size(pool.capacity_bytes)} (resize up to {format_size(pool.max_bytes)})"),
            ("Effective", effective),
            ("Used", f"{format_size(pool.used_bytes)} ({format_share(used_share)})"),
            ("Free", format_size(pool.free_bytes)),
            ("Tables", format_size(pool.table_bytes)),
            ("Blocks", format_count(pool.blocks)),
            (
                "Ratio",
                f"{format_ratio(pool.ratio)} ({format_size(pool.raw_bytes)} raw, "
                f"{format_size(pool.stored_bytes)} stored)",
            ),
            ("Codec", f"{pool.codec}, {_PLACEMENTS[pool.placement]}"),
            *([] if pool.codec in _BIT_EXACT else [("Bit-exact", _bit_exact(pool))]),
            *([("Calibration", pool.calibration_digest)] if pool.calibration_digest else []),
            ("Block", f"{format_size(pool.block_bytes)}: {_shape(pool.geometry)}"),
            ("Page", format_size(pool.page_bytes)),
            ("Eviction", pool.eviction),
            ("Quota", f"{format_size(pool.quota_bytes)} in total, {tenant_quota} per tenant"),
            ("Tenancy", "single tenant, short engine hashes accepted" if pool.single_tenant else "many tenants"),
            ("Owner", f"{owner(pool.uid, pool.gid)} {pool.mode}"),
            ("Created", f"{format_time(pool.created_ns)}, resized {plural(pool.resizes or 0, 'time')}"),
        ]
    )
    if document.tenants:
        lines += ["", *tenant_table(document.tenants)]
    if document.clients:
        lines += ["", *_client_table(document.clients)]
    return lines


def _client_table(clients: list[results.Client]) -> list[str]:
    return columns(
        [">PID", "USER", "TENANT", "STATE", ">ALLOCATED", "SINCE", "COMMAND"],
        [
            [
                str(client.pid),
                user_name(client.uid),
                client.tenant or "-",
                "attached" if client.alive else "died",
                format_size(client.allocated_bytes),
                format_time(client.attached_ns),
                client.command,
            ]
            for client in clients
        ],
        {"died": "red"},
    )


@lines_of.register
def created(document: results.PoolCreate) -> list[str]:
    plan = document.plan
    did = "Would create" if document.dry_run else "Created"
    lines = []
    if document.replaced is not None:
        overwrote = "Would overwrite" if document.dry_run else "Overwrote"
        lines.append(f"{overwrote} on {document.device}: {one_line(document.replaced)}.")
    if document.device_created:
        lines.append(f"{did} the device {document.device}.")
    size = format_size(document.pool.capacity_bytes if document.pool else plan.capacity_bytes)
    if plan.capacity_bytes != plan.asked_bytes:
        size += f" (rounded up from {format_size(plan.asked_bytes)})"
    lines.append(
        f"{did} pool {plan.name} on {document.device}: {size}, {plan.codec}, blocks of {format_size(plan.block_bytes)}."
    )
    if plan.calibration_digest is not None:
        lines.append(f"Its calibration is {plan.calibration_digest}; the pool keeps the file.")
    if plan.placement == "host" and not document.device.startswith("host:"):
        lines.append(f"The card cannot code {plan.codec}: this machine does, and the card stores what it makes.")
    return lines


@lines_of.register
def resized(document: results.PoolResize) -> list[str]:
    did = "Would resize" if document.dry_run else "Resized"
    sizes = f"{format_size(document.from_bytes)} to {format_size(document.to_bytes)}"
    dropped = f", {plural(document.blocks_dropped, 'block')} dropped" if document.blocks_dropped else ""
    return [f"{did} {document.pool.name} on {document.device} from {sizes}{dropped}."]


@lines_of.register
def changed(document: results.PoolSet) -> list[str]:
    did = "Would change" if document.dry_run else "Changed"
    rows = [(change.setting, f"{change.before} -> {change.after}") for change in document.changes]
    return [f"{did} {document.pool.name} on {document.device}:", *pairs(rows, indent="  ")]


@lines_of.register
def destroyed(document: results.PoolDestroy) -> list[str]:
    did = "Would destroy" if document.dry_run else "Destroyed"
    lost = "its blocks" if document.blocks_lost is None else plural(document.blocks_lost, "block")
    return [f"{did} {document.pool} on {document.device}: {lost} lost, {format_size(document.bytes_freed)} returned."]


@lines_of.register
def checked(document: results.PoolCheck) -> list[str]:
    lines = pairs(
        [
            (
                "Pages",
                f"{format_count(document.pages)}: {format_count(document.pages_used)} used, "
                f"{format_count(document.pages_allocated)} allocated, {format_count(document.pages_free)} free",
            ),
            (
                "Blocks",
                f"{format_count(document.blocks)}"
                + (f", {format_count(document.blocks_verified)} verified" if document.deep else ""),
            ),
            ("Leaked pages", format_count(document.pages_leaked)),
            ("Lost blocks", format_count(document.blocks_unindexed)),
            ("Bad blocks", format_count(document.blocks_bad)),
            ("Stale index", format_count(document.index_stale)),
            ("Dead clients", format_count(document.clients_dead)),
        ]
    )
    where = f"{document.pool} on {document.device}"
    if not document.clean:
        again = (
            "" if document.repair else f" Next: speckvctl pool check {document.device} {document.pool} --deep --repair"
        )
        return [*lines, "", paint(f"{where}: {plural(document.findings, 'finding')}, not repaired.", "red") + again]
    if document.repaired:
        return [*lines, "", f"{where}: sound, {plural(document.repaired, 'repair')} made."]
    return [*lines, "", f"{where}: sound."]
