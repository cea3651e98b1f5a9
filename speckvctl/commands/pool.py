# SPDX-License-Identifier: MIT
"""speckvctl pool: create, list, show, resize, set, destroy, check."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from speckvctl import completion, describe, library, pools, results
from speckvctl.commands.options import App, Device, DryRun, Json, OptionalDevice, PoolName, Yes, whole
from speckvctl.console import confirm, progress
from speckvctl.errors import UsageError
from speckvctl.quantities import format_size, parse_limit, parse_mode, parse_owner, parse_positive_size
from speckvctl.render import finish
from speckvctl.render.text import plural
from speckvctl.results.words import CODECS, EVICTIONS

app = App(no_args_is_help=True)

Size = Annotated[str, typer.Option("--size", metavar="SIZE", help="Capacity for stored data: 4G, 500MB, 1048576.")]


def _option(flag: str, metavar: str, what: str, default: str, complete: completion.Completer | None = None) -> Any:
    """An option of create, with its default."""
    text = f"{what} Default: {default}." if default else what
    return typer.Option(flag, metavar=metavar, help=text, autocompletion=complete)


_QUOTA = ("--quota", "SIZE", "Stored bytes allowed in total, or none.")
_TENANT_QUOTA = ("--tenant-quota", "SIZE", "Stored bytes allowed to one tenant, or none.")
_EVICTION = ("--eviction", "lru|none", "When a put finds no space: evict the oldest blocks, or fail.")
_OWNER = ("--owner", "USER[:GROUP]", "Owner of the pool.")
_MODE = ("--mode", "OCTAL", "Permissions, as of a file: 0660 lets the group use it.")
_evictions = completion.words(*EVICTIONS)


@app.callback()
def pool() -> None:
    """Create, show, change, check and destroy pools.

    A pool is a named share of a device's memory with a capacity, an owner, a codec and quotas. Serving engines store
    KV blocks in it. "pool ls", "pool rm" and "pool delete" are list and destroy.

    \b
    Examples:
      speckvctl pool create host:DRAM chat --size 64MiB
      speckvctl pool show host:DRAM chat
    """


@app.verb("create")
def create_pool(
    device: Device,
    pool: Annotated[str, typer.Argument(metavar="NAME", help="Letters, digits, '.', '_', '-'; at most 63 bytes.")],
    size: Size,
    max_size: Annotated[
        str | None,
        typer.Option(
            "--max-size", metavar="SIZE", help="Largest size for a later resize. Default: 8 x size (2 x on a device)."
        ),
    ] = None,
    quota: Annotated[str | None, _option(*_QUOTA, "the capacity")] = None,
    tenant_quota: Annotated[str | None, _option(*_TENANT_QUOTA, "none")] = None,
    codec: Annotated[
        str,
        typer.Option(
            "--codec",
            metavar="CODEC",
            help=f"How blocks are stored: {', '.join(CODECS)}.",
            autocompletion=completion.codecs,
        ),
    ] = "raw",
    calibration: Annotated[
        Path | None,
        typer.Option(
            "--calibration", metavar="FILE", help="For q5c and e7c, made by codec calibrate; the pool keeps a copy."
        ),
    ] = None,
    first_layer: Annotated[
        int | None,
        whole(
            "--first-layer",
            metavar="N",
            least=0,
            most=65535,
            help="Blocks hold the calibrated model's layers from N on only.",
        ),
    ] = None,
    first_head: Annotated[
        int | None,
        whole("--first-head", metavar="N", least=0, most=65535, help="Blocks hold its KV heads from N on only."),
    ] = None,
    block_bytes: Annotated[
        str | None,
        typer.Option(
            "--block-bytes", metavar="SIZE", help="Raw size of one block, when its shape does not matter: 64KiB."
        ),
    ] = None,
    layers: Annotated[
        int | None, whole("--layers", metavar="N", least=1, most=65535, help="Layers in a block. Default: 1.")
    ] = None,
    kv_heads: Annotated[
        int | None, whole("--kv-heads", metavar="N", least=1, most=65535, help="KV heads. Default: 2.")
    ] = None,
    head_dim: Annotated[
        int | None, whole("--head-dim", metavar="N", least=1, most=65535, help="Channels of a head. Default: 128.")
    ] = None,
    tokens: Annotated[
        int | None,
        whole("--tokens", metavar="N", least=64, most=65472, help="Tokens in a block, a multiple of 64. Default: 64."),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            "--dtype",
            metavar="TYPE",
            help="bf16, fp16, fp8_e4m3 or fp8_e5m2. Default: bf16.",
            autocompletion=completion.dtypes,
        ),
    ] = None,
    page_bytes: Annotated[
        str | None,
        typer.Option("--page-bytes", metavar="SIZE", help="Page size. Default: 1/64 of a block, 1 KiB at least."),
    ] = None,
    eviction: Annotated[str | None, _option(*_EVICTION, "lru", _evictions)] = None,
    owner: Annotated[str | None, _option(*_OWNER, "the creating user")] = None,
    mode: Annotated[str | None, _option(*_MODE, "0600")] = None,
    single_tenant: Annotated[
        bool, typer.Option("--single-tenant", help="One trusted tenant: short engine hashes are accepted as keys.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Overwrite a file or device that holds something else.")
    ] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Create a pool; the first one on a host device creates the device.

    Exit code 3 when the pool exists with these settings already.

    A file or devdax node with other contents is refused, and the contents are named; --yes overwrites them.
    Files of pools whose table was lost are taken over, not overwritten.
    The shape of a block is given by --block-bytes alone, or by --layers, --kv-heads, --head-dim, --tokens and --dtype.

    A codec that needs a calibration (q5c, e7c) takes the shape from it. The pool keeps the calibration's file for as
    long as it exists, so that its users need no other copy. On a card this machine does the coding then.

    \b
    Examples:
      speckvctl pool create host:DRAM chat --size 64MiB
      speckvctl pool create host:DRAM code --size 64MiB --quota 32MiB \\
          --eviction none
      speckvctl pool create host:DRAM llama --size 64MiB \\
          --layers 2 --kv-heads 8 --head-dim 128
      speckvctl pool create host:DRAM batch --size 64MiB --mode 0660 --dry-run
      speckvctl pool create host:DRAM small --size 64MiB \\
          --codec q5c --calibration calibration.safetensors
    """
    library.check_device_name(device)
    capacity_bytes = parse_positive_size(size, "--size")
    calibrated = pools.read_calibration(codec, calibration, first_layer=first_layer, first_head=first_head)
    shape = pools.choose_shape(
        block_bytes=parse_positive_size(block_bytes, "--block-bytes") if block_bytes else None,
        layers=layers,
        kv_heads=kv_heads,
        head_dim=head_dim,
        tokens=tokens,
        dtype=dtype,
        base=calibrated.rest if calibrated else None,
    )
    if calibrated:
        pools.check_fit(shape, calibrated)
    request = pools.PoolRequest(
        name=pool,
        capacity_bytes=capacity_bytes,
        max_bytes=parse_positive_size(max_size, "--max-size") if max_size else None,
        quota_bytes=parse_limit(quota, "--quota") if quota else None,
        tenant_quota_bytes=parse_limit(tenant_quota, "--tenant-quota") if tenant_quota else None,
        codec=codec,
        shape=shape,
        page_bytes=parse_positive_size(page_bytes, "--page-bytes") if page_bytes else None,
        eviction=pools.check_eviction(eviction or "lru"),
        owner=parse_owner(owner) if owner else None,
        mode=parse_mode(mode) if mode else None,
        single_tenant=single_tenant,
        calibrated=calibrated,
    )
    with library.context() as ctx:
        found = ctx.probe(device)
        library.require_permission(found)
        replaced = None if found.state in ("ready", "absent") else found.found
        if found.state == "unrecognized" and not dry_run:
            loss = f"{device} holds {found.found}, which creating a pool overwrites"
            confirm(loss, yes=yes, as_json=as_json, command=_with_yes(sys.argv[1:]))
            yes = True
        if dry_run:
            created = pools.plan(ctx, found, request, replaced)
        else:
            with progress(f"creating {pool}") as tell:
                tell(0, 0)
                created = pools.create(ctx, found, request, replaced, overwrite=yes)
    finish(created, as_json=as_json)


def _with_yes(words: list[str]) -> str:
    """The command line given, with --yes added."""
    end = words.index("--") if "--" in words else len(words)
    return shlex.join(["speckvctl", *words[:end], "--yes", *words[end:]])


@app.verb("list")
def list_pools(device: OptionalDevice = None, as_json: Json = False) -> None:
    """List the pools of a device, or of all devices.

    \b
    Examples:
      speckvctl pool list
      speckvctl pool list host:DRAM --json
    """
    with library.chosen_devices(device) as devices:
        found = [describe.pool(dev.name, info) for dev in devices for info in dev.pools()]
    next_step = None
    if not found:
        with library.context() as ctx:
            next_step = library.first_pool(ctx, device or "host:DRAM")
    finish(results.PoolList(pools=found, next=next_step), as_json=as_json)


@app.verb("show")
def show_pool(device: Device, pool: PoolName, as_json: Json = False) -> None:
    """Show one pool: settings, capacity, tenants and clients.

    The ratio is raw bytes over stored bytes. The effective capacity is how much raw KV the whole pool would hold if all
    of it were filled like the part in use.

    \b
    Examples:
      speckvctl pool show host:DRAM chat
      speckvctl pool show host:DRAM chat --json
    """
    with library.device(device) as dev:
        info = dev.pool(pool)
        tenants = dev.tenants(pool) if info.accessible else []
        clients = dev.clients(pool) if info.accessible else []
    document = results.PoolShow(
        pool=describe.pool(device, info),
        tenants=describe.tenants(tenants),
        clients=describe.clients(clients, tenants),
    )
    finish(document, as_json=as_json)


@app.verb("resize")
def resize_pool(
    device: Device,
    pool: PoolName,
    size: Size,
    evict: Annotated[
        bool, typer.Option("--evict", help="When shrinking, drop the least recently used blocks that do not fit.")
    ] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Grow or shrink a pool, in use or not. Shrinking moves the blocks above the new end first.

    Exit code 3 when it has that size already.

    \b
    Examples:
      speckvctl pool resize host:DRAM chat --size 128MiB
      speckvctl pool resize host:DRAM chat --size 32MiB --evict --dry-run
    """
    wanted, unit = parse_positive_size(size, "--size"), pools.ALLOCATION_UNIT
    with library.device(device) as dev, progress(f"resizing {pool}", "pages") as tell:
        before = dev.pool(pool)
        info = dev.resize_pool(pool, wanted, evict=evict, dry_run=dry_run, progress=tell)
    document = results.PoolResize(
        device=device,
        dry_run=dry_run,
        from_bytes=before.config.capacity_bytes,
        to_bytes=-(-wanted // unit) * unit if dry_run else info.config.capacity_bytes,
        blocks_dropped=None if dry_run else max(0, before.blocks - info.blocks),
        pool=describe.pool(device, info),
    )
    finish(document, as_json=as_json)


@app.verb("set")
def set_pool(
    device: Device,
    pool: PoolName,
    quota: Annotated[str | None, _option(*_QUOTA, "")] = None,
    tenant_quota: Annotated[str | None, _option(*_TENANT_QUOTA, "")] = None,
    eviction: Annotated[str | None, _option(*_EVICTION, "", _evictions)] = None,
    owner: Annotated[str | None, _option(*_OWNER, "")] = None,
    mode: Annotated[str | None, _option(*_MODE, "")] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Change a pool's quotas, eviction, owner or mode. Exit code 3 when nothing would change.

    What is not named stays as it is. --quota none and --tenant-quota none take a limit away.

    \b
    Examples:
      speckvctl pool set host:DRAM chat --quota 32MiB
      speckvctl pool set host:DRAM chat --quota none
      speckvctl pool set host:DRAM chat --eviction none --mode 0660 --dry-run
    """
    uid, gid = parse_owner(owner) if owner else (None, None)
    settings = pools.Settings(
        quota_bytes=parse_limit(quota, "--quota") if quota else None,
        tenant_quota_bytes=parse_limit(tenant_quota, "--tenant-quota") if tenant_quota else None,
        eviction=pools.check_eviction(eviction) if eviction else None,
        uid=uid,
        gid=gid,
        mode=parse_mode(mode) if mode else None,
    )
    if settings.empty:
        raise UsageError("no setting was named", f"speckvctl pool set {device} {pool} --quota 32MiB")
    with library.device(device) as dev:
        finished = pools.change(dev, pool, settings, dry_run=dry_run)
    finish(finished, as_json=as_json)


@app.verb("destroy")
def destroy_pool(
    device: Device, pool: PoolName, yes: Yes = False, dry_run: DryRun = False, as_json: Json = False
) -> None:
    """Destroy a pool: zero its memory and return it to the device. Its blocks are lost.

    A pool in use is not destroyed; the error names its clients.

    \b
    Examples:
      speckvctl pool destroy host:DRAM chat --dry-run
      speckvctl pool destroy host:DRAM chat --yes
    """
    with library.device(device) as dev:
        info = dev.pool(pool)
        blocks = info.blocks if info.accessible else None
        if dry_run:
            dev.destroy_pool(pool, dry_run=True)
        else:
            held = "its blocks" if blocks is None else f"{plural(blocks, 'block')}, {format_size(info.used_bytes)}"
            loss = f"destroying {pool} on {device} loses {held}"
            confirm(loss, yes=yes, as_json=as_json, command=f"speckvctl pool destroy {device} {pool} --yes")
            with progress(f"zeroing {pool}", "units") as tell:
                dev.destroy_pool(pool, progress=tell)
    document = results.PoolDestroy(
        device=device,
        pool=pool,
        dry_run=dry_run,
        blocks_lost=blocks,
        bytes_freed=info.config.capacity_bytes + info.table_bytes,
    )
    finish(document, as_json=as_json)


@app.verb("check")
def check_pool(
    device: Device,
    pool: PoolName,
    deep: Annotated[
        bool, typer.Option("--deep", help="Verify the checksum of every section of every block too.")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Free leaked pages, find lost blocks again, drop damaged ones.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check a pool, in use or not. Exit code 7 when something was found and not repaired.

    Without --repair nothing is changed: the findings are what it would repair. Where the table of a device is lost and
    a pool's file is left, --repair creates a new table and takes the pool over.

    \b
    Examples:
      speckvctl pool check host:DRAM chat
      speckvctl pool check host:DRAM chat --deep --repair --json
    """
    opened = library.repaired_device(device, pool) if repair else library.device(device)
    with opened as dev, progress(f"checking {pool}", "pages") as tell:
        report = dev.check_pool(pool, deep=deep, repair=repair, progress=tell)
    document = results.PoolCheck(
        device=device,
        pool=pool,
        deep=deep,
        repair=repair,
        clean=report.clean,
        findings=report.pages_leaked + report.blocks_unindexed + report.blocks_bad + report.index_stale,
        pages=report.pages,
        pages_free=report.pages_free,
        pages_used=report.pages_used,
        pages_allocated=report.pages_allocated,
        pages_leaked=report.pages_leaked,
        blocks=report.blocks,
        blocks_verified=report.blocks_verified,
        blocks_unindexed=report.blocks_unindexed,
        blocks_bad=report.blocks_bad,
        index_stale=report.index_stale,
        clients_dead=report.clients_dead,
        repaired=report.repaired,
    )
    finish(document, as_json=as_json)
