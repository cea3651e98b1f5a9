# SPDX-License-Identifier: MIT
"""Documents as text for people: aligned; on a terminal in lines that fit it, in a pipe never wrapped."""

from __future__ import annotations

from functools import singledispatch

from speckvctl import results
from speckvctl.quantities import (
    format_count,
    format_duration,
    format_ratio,
    format_share,
    format_size,
    format_time,
    group_name,
    suggested_size,
    user_name,
)
from speckvctl.render import cards, codec, prefetcher
from speckvctl.render.text import Row, columns, hung, one_line, paint, pairs, plural, room, wrapped

STATES = {
    "ready": "green",
    "active": "green",
    "ok": "green",
    "unrecognized": "red",
    "other_version": "red",
    "incomplete": "red",
    "truncated": "red",
    "failed": "red",
    "error": "red",
    "denied": "yellow",
    "warning": "yellow",
    "creating": "yellow",
    "resizing": "yellow",
    "destroying": "yellow",
    "factory": "yellow",
    "offline": "yellow",
    **cards.STATES,
}

#: Texts for a pool's placement.
_PLACEMENTS = {"card": "by the card", "host": "by this machine"}


def render(document: results.Document) -> str:
    width = room()
    lines = [part for line in _lines(document) for part in ([line] if isinstance(line, Row) else wrapped(line, width))]
    return "\n".join(lines) + "\n" if lines else ""


@singledispatch
def _lines(document: results.Document) -> list[str]:
    raise NotImplementedError(f"no table for {type(document).__name__}")


def _next(step: str | None) -> str:
    return f" Next: {step}" if step else ""


def _owner(uid: int | None, gid: int | None) -> str:
    return "-" if uid is None or gid is None else f"{user_name(uid)}:{group_name(gid)}"


# ---- devices ---------------------------------------------------------------------------------------------------------


@_lines.register
def _(document: results.DeviceList) -> list[str]:
    lines: list[str] = []
    if document.devices:
        lines += columns(
            ["DEVICE", "STATE", ">POOLS", ">CAPACITY", ">ALLOCATED", ">FREE"],
            [
                [
                    device.name,
                    device.state,
                    format_count(device.pools),
                    format_size(device.capacity_bytes),
                    format_size(device.allocated_bytes),
                    format_size(device.free_bytes),
                ]
                for device in document.devices
            ],
            STATES,
        )
        lines += [
            one_line(f"{device.name} is {device.state}: {device.found}")
            for device in document.devices
            if device.state != "ready"
        ]
    else:
        lines.append("No device yet." + _next(document.next))
    if document.hardware:
        lines += ["", *_hardware(document.hardware)]
    elif document.hardware is not None:
        lines += ["", "No hardware found: no cards, CXL memory, devdax or memory-only NUMA nodes."]
    return lines


def _hardware(found: list[results.Hardware]) -> list[str]:
    lines = columns(
        ["HARDWARE", "KIND", ">NODE", ">CAPACITY", "DRIVER", "USABLE"],
        [
            [
                item.name,
                item.kind,
                format_count(item.numa_node),
                format_size(item.capacity_bytes),
                item.driver or "-",
                "no" if item.note else "yes",
            ]
            for item in found
        ],
        {"yes": "green", "no": "yellow"},
    )
    return lines + [one_line(f"{item.name}: {item.note}") for item in found if item.note]


@_lines.register
def _(document: results.DeviceShow) -> list[str]:
    device = document.device
    if device.kind == "card":
        return _card(document)
    manager = "none"
    if device.manager_pid is not None:
        manager = f"process {device.manager_pid} ({device.manager_command or 'unknown'}) now"
    durability = {
        "process": "outlives every process; lost at reboot",
        "power": "every completed put survives power loss",
    }.get(device.durability or "", device.durability or "-")
    lines = pairs(
        [
            ("Device", device.name),
            ("State", device.state),
            ("Found", device.found),
            ("Path", device.path),
            ("UUID", device.uuid or "-"),
            ("Capacity", format_size(device.capacity_bytes)),
            ("Allocated", format_size(device.allocated_bytes)),
            ("Free", format_size(device.free_bytes)),
            ("Durability", durability),
            (
                "Isolation",
                "all pools in one file, one owner" if device.single_inode else "one file per pool, with its own owner",
            ),
            ("NUMA node", format_count(device.numa_node)),
            ("Owner", f"{_owner(device.uid, device.gid)} {device.mode or ''}"),
            ("Codecs", ", ".join(device.codecs)),
            ("Created", format_time(device.created_ns)),
            *([("Changed by", manager)] if device.manager_pid is not None else []),
        ]
    )
    if document.pools:
        lines += ["", *_pool_table(document.pools, with_device=False)]
    elif device.state == "ready":
        size = suggested_size(device.free_bytes)
        lines += ["", f"No pools. Next: speckvctl pool create {device.name} NAME --size {size}"]
    return lines


def _card(document: results.DeviceShow) -> list[str]:
    device = document.device
    lines = pairs(
        [
            ("Device", device.name),
            ("State", device.state),
            ("Found", device.found),
            ("Path", device.path),
            ("UUID", device.uuid or "-"),
            ("Capacity", format_size(device.capacity_bytes)),
            ("Allocated", format_size(device.allocated_bytes)),
            ("Free", format_size(device.free_bytes)),
            ("Owner", f"{_owner(device.uid, device.gid)} {device.mode or ''}"),
            ("Codecs", ", ".join(device.codecs) or "-"),
            *(cards.facts_of(document.card) if document.card else []),
        ]
    )
    lines += cards.tables_of(document.card) if document.card else []
    if document.pools:
        lines += ["", *_pool_table(document.pools, with_device=False)]
    elif device.state == "ready":
        size = suggested_size(device.free_bytes)
        lines += ["", f"No pools. Next: speckvctl pool create {device.name} NAME --size {size}"]
    elif device.state == "factory":
        lines += ["", f"It has no engine yet. Next: speckvctl flash {device.name} BUNDLE"]
    return lines


@_lines.register
def _(document: results.DeviceSelftest) -> list[str]:
    lines = columns(
        ["STEP", "RESULT", ">TIME", "DETAIL"],
        [
            [step.name, "ok" if step.passed else "failed", format_duration(step.elapsed_ns), step.detail]
            for step in document.steps
        ],
        STATES,
    )
    bad = sum(not step.passed for step in document.steps)
    verdict = f"{document.device}: {plural(len(document.steps), 'step')}, "
    return [*lines, "", verdict + (paint(f"{bad} failed", "red") if bad else "all passed")]


@_lines.register
def _(document: results.DeviceClose) -> list[str]:
    would = "Would close" if document.dry_run else "Closed"
    if not document.pools_destroyed:
        return [f"{would} {document.device}: it has no pools."]
    lost = f"{plural(len(document.pools_destroyed), 'pool')} with {plural(document.blocks_lost, 'block')}"
    names = f" ({', '.join(document.pools_destroyed)})" if document.pools_destroyed else ""
    return [f"{would} {document.device}: {lost}{names} lost, {format_size(document.bytes_freed)} returned."]


# ---- pools -----------------------------------------------------------------------------------------------------------


#: Unusable states, and the command that ends them.
_CLOSED = {
    "lost": "lost: its file is gone; 'speckvctl pool destroy' removes it",
    "damaged": "damaged: its file was truncated or overwritten; 'speckvctl pool destroy' removes it",
    "creating": "creating; if that was interrupted, 'speckvctl pool destroy' removes it",
    "destroying": "destroying; if that was interrupted, 'speckvctl pool destroy' finishes it",
}


def _pool_state(pool: results.Pool) -> str:
    if pool.accessible:
        return pool.state
    return _CLOSED.get(pool.state, f"{pool.state}; no permission to look inside")


def _pool_table(pools: list[results.Pool], *, with_device: bool) -> list[str]:
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


@_lines.register
def _(document: results.PoolList) -> list[str]:
    if not document.pools:
        return ["No pools." + _next(document.next)]
    return _pool_table(document.pools, with_device=True)


def _tenant_table(tenants: list[results.Tenant]) -> list[str]:
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


def _shape(geometry: results.Geometry) -> str:
    layers = plural(geometry.layers, "layer")
    heads = plural(geometry.kv_heads, "KV head")
    return f"{layers}, {heads}, {geometry.tokens} tokens, {geometry.head_dim} channels, {geometry.dtype}"


@_lines.register
def _(document: results.PoolShow) -> list[str]:
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
            *([("Calibration", pool.calibration_digest)] if pool.calibration_digest else []),
            ("Block", f"{format_size(pool.block_bytes)}: {_shape(pool.geometry)}"),
            ("Page", format_size(pool.page_bytes)),
            ("Eviction", pool.eviction),
            ("Quota", f"{format_size(pool.quota_bytes)} in total, {tenant_quota} per tenant"),
            ("Tenancy", "single tenant, short engine hashes accepted" if pool.single_tenant else "many tenants"),
            ("Owner", f"{_owner(pool.uid, pool.gid)} {pool.mode}"),
            ("Created", f"{format_time(pool.created_ns)}, resized {plural(pool.resizes or 0, 'time')}"),
        ]
    )
    if document.tenants:
        lines += ["", *_tenant_table(document.tenants)]
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


@_lines.register
def _(document: results.PoolCreate) -> list[str]:
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


@_lines.register
def _(document: results.PoolResize) -> list[str]:
    did = "Would resize" if document.dry_run else "Resized"
    sizes = f"{format_size(document.from_bytes)} to {format_size(document.to_bytes)}"
    dropped = f", {plural(document.blocks_dropped, 'block')} dropped" if document.blocks_dropped else ""
    return [f"{did} {document.pool.name} on {document.device} from {sizes}{dropped}."]


@_lines.register
def _(document: results.PoolSet) -> list[str]:
    did = "Would change" if document.dry_run else "Changed"
    rows = [(change.setting, f"{change.before} -> {change.after}") for change in document.changes]
    return [f"{did} {document.pool.name} on {document.device}:", *pairs(rows, indent="  ")]


@_lines.register
def _(document: results.PoolDestroy) -> list[str]:
    did = "Would destroy" if document.dry_run else "Destroyed"
    lost = "its blocks" if document.blocks_lost is None else plural(document.blocks_lost, "block")
    return [f"{did} {document.pool} on {document.device}: {lost} lost, {format_size(document.bytes_freed)} returned."]


@_lines.register
def _(document: results.PoolCheck) -> list[str]:
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


# ---- statistics and events -------------------------------------------------------------------------------------------


@_lines.register
def _(document: results.StatsDocument) -> list[str]:
    if not document.pools:
        return [f"No pools on {document.device}." + _next(document.next)]
    lines: list[str] = []
    for stats in document.pools:
        lines += [*([""] if lines else []), *_pool_stats(stats)]
    if document.reset:
        lines += ["", "Would set these counters to zero." if document.dry_run else "These counters are zero again."]
    return lines


def _pool_stats(stats: results.PoolStats) -> list[str]:
    c = {name: format_count(value) for name, value in stats.counters.items()}
    read, written = stats.counters["bytes_out_raw"], stats.counters["bytes_in_raw"]
    lines = pairs(
        [
            ("Pool", f"{stats.pool}, since {format_time(stats.since_ns)}"),
            ("Hit share", f"{format_share(stats.hit_share)}: {c['hits']} of {c['wanted']} wanted blocks served"),
            ("Gets", f"{c['gets']}, {c['misses']} not there, {c['bad']} of them bad"),
            ("Puts", f"{c['puts']} stored, {c['put_existed']} were there, {c['put_failed']} failed"),
            ("Look-ups", f"{c['lookups']}, {c['lookup_hits']} found"),
            ("Removed", f"{c['evictions']} evicted, {c['drops']} dropped"),
            (
                "Prefetch",
                f"{c['prefetches']} asked, {c['prefetched']} staged, "
                f"{c['prefetch_used']} used, {c['prefetch_unused']} unused",
            ),
            ("Bytes", f"{format_size(written)} in, {format_size(read)} out, ratio {format_ratio(stats.ratio)}"),
        ]
    )
    measured = [(name, latency) for name, latency in stats.latency.items() if latency.count]
    if measured:
        lines += [
            "",
            *columns(
                ["LATENCY", ">COUNT", ">P50", ">P90", ">P99", ">P99.9"],
                [
                    [
                        name,
                        format_count(latency.count),
                        format_duration(latency.p50_ns),
                        format_duration(latency.p90_ns),
                        format_duration(latency.p99_ns),
                        format_duration(latency.p999_ns),
                    ]
                    for name, latency in measured
                ],
            ),
        ]
    if stats.tenants:
        lines += ["", *_tenant_table(stats.tenants)]
    return lines


@_lines.register
def _(document: results.EventsDocument) -> list[str]:
    if not document.events:
        return ["No events."]
    # No heading, so that successive batches read as one list.
    width = room()
    lines: list[str] = []
    for event in document.events:
        where = f"{one_line(event.device)}{'/' + event.pool if event.pool else ''}"
        head = f"{format_time(event.time_ns)}  {_severity(event.severity)}  {where}  "
        lines += hung(head, one_line(event.text), width)
    return lines


def _severity(severity: str) -> str:
    padded = severity.ljust(7)
    return paint(padded, STATES[severity]) if severity in STATES else padded


# ---- replay ----------------------------------------------------------------------------------------------------------


@_lines.register
def _(document: results.Replay) -> list[str]:
    where = f"{document.pool} on {document.device}"
    what = f"{one_line(document.trace)} ({document.format})"
    if document.dry_run:
        return [
            f"Would replay {plural(document.requests_total, 'request')} of {what} against {where},",
            f"by {plural(document.clients, 'client')}, with blocks of {format_size(document.block_bytes)}.",
        ]
    requests = f"{format_count(document.requests)} of {format_count(document.requests_total)}"
    blocks = f"{plural(document.blocks_read, 'block')} read, {format_count(document.blocks_written)} written"
    refused = f", {format_count(document.blocks_refused)} refused: no space" if document.blocks_refused else ""
    stored = f"{format_size(document.bytes_raw)} raw in {format_size(document.bytes_stored)}"
    lines = pairs(
        [
            ("Trace", document.trace),
            ("Read as", f"{document.format}, by {plural(document.clients, 'client')}"),
            ("Pool", f"{where}: {document.codec}, blocks of {format_size(document.block_bytes)}"),
            ("Requests", f"{requests} in {format_duration(document.elapsed_ns)}"),
            ("Hit share", f"{format_share(document.hit_share)}: {blocks}{refused}"),
            ("Stored", f"{stored}, ratio {format_ratio(document.ratio)}"),
            ("Get", _call(document.get_p50_ns, document.get_p99_ns, document.get_bytes_per_second)),
            ("Put", _call(document.put_p50_ns, document.put_p99_ns, document.put_bytes_per_second)),
            (
                "Verified",
                f"{plural(document.verified_blocks, 'block')}, {format_count(document.mismatches)} wrong, "
                f"{plural(document.errors, 'error')}",
            ),
        ]
    )
    lines += [paint(one_line(problem), "red") for problem in document.problems]
    if document.mismatches:
        again = f"speckvctl pool check {document.device} {document.pool} --deep"
        lines += ["", paint("Wrong bytes were read.", "red") + f" Next: {again}"]
    elif document.interrupted:
        lines += ["", "Interrupted: this is what was done until then."]
    return lines


def _call(p50_ns: int | None, p99_ns: int | None, bytes_per_second: int | None) -> str:
    if p50_ns is None:
        return "-"
    return f"p50 {format_duration(p50_ns)}, p99 {format_duration(p99_ns)} per block, {format_size(bytes_per_second)}/s"


# ---- cards -----------------------------------------------------------------------------------------------------------

_lines.register(cards.changed)
_lines.register(cards.reset)
_lines.register(cards.injected)
_lines.register(cards.flashed)
_lines.register(cards.started)
_lines.register(cards.stopped)
_lines.register(cards.listed)
_lines.register(cards.status)
_lines.register(cards.loaded)
_lines.register(cards.unloaded)


# ---- prefetchers -----------------------------------------------------------------------------------------------------

_lines.register(prefetcher.evaluated)
_lines.register(prefetcher.trained)
_lines.register(prefetcher.shown)


# ---- codecs ----------------------------------------------------------------------------------------------------------

_lines.register(codec.evaluated)
_lines.register(codec.compared)
_lines.register(codec.calibrated)
_lines.register(codec.encoded)
_lines.register(codec.decoded)
_lines.register(codec.vectors)


# ---- doctor ----------------------------------------------------------------------------------------------------------


@_lines.register
def _(document: results.DoctorReport) -> list[str]:
    lines: list[str] = []
    width = max(len(check.name) for check in document.checks)
    for check in document.checks:
        status = paint(check.status.ljust(7), STATES[check.status])
        lines += hung(f"{status}  {check.name.ljust(width)}  ", one_line(check.detail), room())
        if check.next:
            lines += hung(f"{'':7}  {'':{width}}  next: ", one_line(check.next), room())
    return [
        *lines,
        "",
        f"{plural(len(document.checks), 'check')}: {document.failed} failed, {plural(document.warnings, 'warning')}.",
    ]


# ---- bundles ---------------------------------------------------------------------------------------------------------


def _bundle(path: str, size: int, key_id: str | None, manifest: results.BitstreamManifest) -> list[str]:
    return pairs(
        [
            ("Bundle", f"{path}, {format_count(size)} bytes"),
            ("Logic", f"{manifest.name} {manifest.configuration} {manifest.rtl_revision}, build {manifest.build_id}"),
            ("Part", manifest.part),
            ("Register map", manifest.map_version),
            ("Timing", f"{manifest.clock_hz / 1e6:.2f} MHz wanted, {manifest.fmax_hz / 1e6:.2f} MHz held"),
            ("Security", f"version {manifest.security_version}"),
            ("Tools", manifest.tools),
            ("Bitstream", f"{format_count(manifest.bitstream_bytes)} bytes"),
            ("", manifest.bitstream_sha256),
            ("Signer", key_id or "none: unsigned"),
        ]
    )


@_lines.register
def _(document: results.BitstreamBuild) -> list[str]:
    verb = "Would write" if document.dry_run else "Wrote"
    lines = _bundle(document.bundle, document.bundle_bytes, document.key_id, document.manifest)
    if document.key_id is None:
        return [f"{verb}:", *lines, "", f"Next: speckvctl bitstream sign {document.bundle} --key KEY.pem"]
    return [f"{verb}:", *lines]


@_lines.register
def _(document: results.BitstreamInspect) -> list[str]:
    lines = _bundle(document.bundle, document.bundle_bytes, document.key_id, document.manifest)
    return [*lines, "", "The signature was not verified. Next: speckvctl bitstream verify " + one_line(document.bundle)]


@_lines.register
def _(document: results.BitstreamVerify) -> list[str]:
    lines = _bundle(document.bundle, document.bundle_bytes, document.key_id, document.manifest)
    return [*lines, "", paint("Verified", "green") + f": signed by {one_line(document.key)}."]


@_lines.register
def _(document: results.BitstreamSign) -> list[str]:
    name = one_line(document.bundle)
    if not document.changed:
        return [f"{name} is signed by this key already:", document.key_id]
    verb = "Would sign" if document.dry_run else "Signed"
    replaced = [f"in place of {document.replaced_key_id}"] if document.replaced_key_id else []
    return [f"{verb} {name} with key", document.key_id, *replaced]


@_lines.register
def _(document: results.BitstreamKeygen) -> list[str]:
    names = f"{one_line(document.secret_key)} (secret) and {one_line(document.public_key)}"
    if document.key_id is None:
        return [f"Would make {names}."]
    return [f"Made {names}, key", document.key_id]
