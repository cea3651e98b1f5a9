# SPDX-License-Identifier: MIT
"""Creating and changing pools: block shapes, checks of a dry run, and settings."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from speckvctl import describe, library, results
from speckvctl.console import note
from speckvctl.errors import CliError, NothingToDoError, UnsupportedError, UsageError
from speckvctl.quantities import format_mode, format_size, group_name, user_name
from speckvctl.results.words import CODECS, DTYPES, EVICTIONS

if TYPE_CHECKING:
    import speckv

ALLOCATION_UNIT = 2 << 20
#: (KV heads, channels a head) of the smallest blocks, largest first; more bytes are more layers. 64 tokens of bf16.
_GRAINS = ((2, 128), (1, 128), (1, 64))


@dataclass(frozen=True, kw_only=True)
class Shape:
    layers: int = 1
    kv_heads: int = 2
    head_dim: int = 128
    tokens: int = 64
    dtype: str = "bf16"


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """A calibration, read and checked, and the part of its model that the pool's blocks begin with."""

    path: Path
    file: bytes
    digest: str
    first_layer: int | None  # None: not given, so the blocks must cover the whole model
    first_head: int | None
    rest: Shape  # of that part, to the model's end


@dataclass(frozen=True, kw_only=True)
class PoolRequest:
    """Parameters of a new pool; None: the library's default."""

    name: str
    capacity_bytes: int
    max_bytes: int | None
    quota_bytes: int | None
    tenant_quota_bytes: int | None
    codec: str
    shape: Shape
    page_bytes: int | None
    eviction: str
    owner: tuple[int, int | None] | None
    mode: int | None
    single_tenant: bool
    calibrated: Calibrated | None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings to change; None leaves one as it is."""

    quota_bytes: int | None = None
    tenant_quota_bytes: int | None = None
    eviction: str | None = None
    uid: int | None = None
    gid: int | None = None
    mode: int | None = None

    @property
    def empty(self) -> bool:
        return all(getattr(self, field.name) is None for field in fields(self))


def check_eviction(text: str) -> str:
    if text not in EVICTIONS:
        raise UsageError(f"--eviction: '{text}' is neither lru nor none", "--eviction lru or --eviction none")
    return text


def read_calibration(
    codec_name: str, path: Path | None, *, first_layer: int | None, first_head: int | None
) -> Calibrated | None:
    """Read --calibration for a codec that needs one; None for the others, which refuse it."""
    from speckv.types import calibrated_modes

    needed = codec_name in calibrated_modes()
    for option, value in (("--first-layer", first_layer), ("--first-head", first_head)):
        if value is not None and not needed:
            raise UsageError(f"{option}: {codec_name} takes no calibration", "leave it out")
        if value is not None and value < 0:
            raise UsageError(f"{option}: {value} is below 0")
    if not needed and path is None:
        return None
    from speckvctl.codecs import modes

    mode = modes.mode(codec_name, path)
    loaded = mode.calibration
    assert loaded is not None and path is not None
    layers, kv_heads = loaded.layers - (first_layer or 0), loaded.kv_heads - (first_head or 0)
    if layers < 1 or kv_heads < 1:
        raise UsageError(
            f"{path} is of a model with {loaded.layers} layers and {loaded.kv_heads} KV heads: "
            f"none is left from layer {first_layer or 0} and head {first_head or 0} on",
            "a smaller --first-layer or --first-head",
        )
    return Calibrated(
        path=path,
        file=loaded.file,
        digest=loaded.digest.hex(),
        first_layer=first_layer,
        first_head=first_head,
        rest=Shape(layers=layers, kv_heads=kv_heads, head_dim=loaded.head_dim),
    )


def check_fit(shape: Shape, calibrated: Calibrated) -> None:
    """Check the block shape against the calibrated model; a part of it must be requested explicitly."""
    rest = calibrated.rest
    for what, asked, there, part in (
        ("head size", shape.head_dim, rest.head_dim, None),
        ("layers", shape.layers, rest.layers, ("--first-layer", calibrated.first_layer)),
        ("KV heads", shape.kv_heads, rest.kv_heads, ("--first-head", calibrated.first_head)),
    ):
        if asked == there or (part is not None and part[1] is not None and asked < there):
            continue
        hint = "the calibration of the model that the pool serves, or leave the shape out"
        if part is not None and asked < there:
            hint = f"{part[0]} N, where the pool holds a part of the model"
        raise UsageError(f"{calibrated.path} has {what} {there}, the blocks have {asked}", hint, errno.ERANGE)


def choose_shape(
    *,
    block_bytes: int | None,
    layers: int | None,
    kv_heads: int | None,
    head_dim: int | None,
    tokens: int | None,
    dtype: str | None,
    base: Shape | None = None,
) -> Shape:
    """The shape of a block, from its size alone or from its dimensions; the default is `base`."""
    parts = {"layers": layers, "kv_heads": kv_heads, "head_dim": head_dim, "tokens": tokens, "dtype": dtype}
    given = {name: value for name, value in parts.items() if value is not None}
    if block_bytes is None:
        for name, value in given.items():
            if isinstance(value, int) and not 0 < value < 1 << 16:
                raise UsageError(f"--{name.replace('_', '-')}: {value} is not between 1 and 65535")
        if dtype is not None and dtype not in DTYPES:
            raise UsageError(f"--dtype: '{dtype}' is not one of {', '.join(DTYPES)}")
        return replace(base or Shape(), **given)  # type: ignore[arg-type]
    if given:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise UsageError(f"--block-bytes and {names} both say how large a block is", "give one or the other")
    for kv_heads_of, head_dim_of in _GRAINS:
        grain = 2 * kv_heads_of * 64 * head_dim_of * 2
        if block_bytes % grain == 0 and block_bytes // grain < 1 << 16:
            return Shape(layers=block_bytes // grain, kv_heads=kv_heads_of, head_dim=head_dim_of)
    raise UsageError(
        f"--block-bytes: {block_bytes} bytes are not a multiple of 16 KiB up to 2 GiB",
        "--block-bytes 64KiB, or --layers, --kv-heads, --head-dim, --tokens, --dtype",
    )


def _config(found: speckv.DeviceInfo, request: PoolRequest) -> speckv.PoolConfig:
    import speckv
    from speckv.types import calibrated_modes, modes

    if request.codec not in CODECS:
        raise UsageError(f"--codec: '{request.codec}' is not one of {', '.join(CODECS)}")
    built = (*modes(), *calibrated_modes())
    if request.codec not in built:
        raise UnsupportedError(f"--codec: {request.codec} is not in this build", f"one of {', '.join(built)}")
    uid, gid = request.owner or (None, None)
    shape = request.shape
    return speckv.PoolConfig(
        name=request.name,
        capacity_bytes=request.capacity_bytes,
        max_bytes=request.max_bytes or 0,
        quota_bytes=request.quota_bytes or 0,
        tenant_quota_bytes=request.tenant_quota_bytes or 0,
        geometry=speckv.Geometry(
            layers=shape.layers,
            kv_heads=shape.kv_heads,
            head_dim=shape.head_dim,
            tokens=shape.tokens,
            dtype=speckv.DType(shape.dtype),
        ),
        codec=speckv.Codec(request.codec),
        eviction=speckv.Eviction(request.eviction),
        page_bytes=request.page_bytes or 0,
        uid=uid,
        gid=gid,
        mode=request.mode or 0,
        single_tenant=request.single_tenant,
        first_layer=(request.calibrated.first_layer or 0) if request.calibrated else 0,
        first_head=(request.calibrated.first_head or 0) if request.calibrated else 0,
        calibration=request.calibrated.file if request.calibrated else None,
    )


def _result(
    found: speckv.DeviceInfo,
    request: PoolRequest,
    config: speckv.PoolConfig,
    replaced: str | None,
    pool: results.Pool | None,
) -> results.PoolCreate:
    plan = results.PoolPlan(
        name=config.name,
        codec=str(config.codec),
        calibration_digest=request.calibrated.digest if request.calibrated else None,
        placement="card" if _card_codes(found, request) else "host",
        eviction=str(config.eviction),
        geometry=describe.geometry(config.geometry),
        block_bytes=config.geometry.block_bytes,
        asked_bytes=request.capacity_bytes,
        capacity_bytes=config.capacity_bytes,
        quota_bytes=config.quota_bytes,
        tenant_quota_bytes=config.tenant_quota_bytes or None,
        uid=os.geteuid() if config.uid is None else config.uid,
        gid=os.getegid() if config.gid is None else config.gid,
        mode=format_mode(config.mode),
    )
    return results.PoolCreate(
        device=found.name,
        dry_run=pool is None,
        device_created=found.state != "ready" and not library.is_card(found.name),
        replaced=replaced,
        plan=plan,
        pool=pool,
    )


def plan(
    ctx: speckv.Context, found: speckv.DeviceInfo, request: PoolRequest, replaced: str | None
) -> results.PoolCreate:
    """What create() would do; refuses all that create() would, if foreseeable."""
    planned = ctx.plan_pool(found.name, _config(found, request))
    if found.state == "ready":
        with ctx.open(found.name) as dev:
            found = dev.info()
            refuse_existing(dev, request, planned)
    return _result(found, request, planned, replaced, None)


def tell_left_over(dev: speckv.Device, found: speckv.DeviceInfo) -> None:
    """Report the files found beside a lost table: adopted, or left alone."""
    taken = [pool.config.name for pool in dev.pools()]
    if found.state == "absent" and taken and not library.is_card(found.name):
        note(f"the table of {found.name} was gone; taken over from {found.path}.pools: {', '.join(taken)}")
    if left := library.left_over(found, taken):
        note(f"warning: {found.path}.pools holds files that are not pools of {found.name}: {', '.join(left)}")


def refuse_existing(dev: speckv.Device, request: PoolRequest, planned: speckv.PoolConfig) -> None:
    """A pool of that name exists: nothing to do if it is the same, else an error with the differences."""
    found = next((pool for pool in dev.pools() if pool.config.name == request.name), None)
    if found is None:
        return
    differing = [f"{name} {have}, not {want}" for name, have, want in _differing(_compared, found.config, planned)]
    have, want = (
        found.calibration.hex() if found.calibration else "none",
        request.calibrated.digest if request.calibrated else "none",
    )
    if have != want:
        differing.append(f"calibration {have}, not {want}")
    if not found.accessible:
        where = f"{dev.name} already has a pool '{request.name}', which this user may not read"
        raise CliError(where, "another name", errno.EEXIST)
    if not differing:
        raise NothingToDoError(f"pool {request.name} of {dev.name} exists already, as requested", None, errno.EALREADY)
    raise CliError(
        f"{dev.name} already has a pool '{request.name}' with other settings: {', '.join(differing)}",
        f"speckvctl pool show {dev.name} {request.name}",
        errno.EEXIST,
    )


def _exactly(size: int) -> str:
    return f"{size} B"


def _differing(
    described: Callable[[speckv.PoolConfig, Callable[[int], str]], dict[str, str]],
    old: speckv.PoolConfig,
    new: speckv.PoolConfig,
) -> list[tuple[str, str, str]]:
    """The settings that differ, with both texts: sizes in bytes if they would round to the same text."""
    exact, rounded = [(described(old, of), described(new, of)) for of in (_exactly, format_size)]
    found = []
    for name in exact[0]:
        if exact[0][name] != exact[1][name]:
            before, after = rounded if rounded[0][name] != rounded[1][name] else exact
            found.append((name, before[name], after[name]))
    return found


def _compared(config: speckv.PoolConfig, size: Callable[[int], str]) -> dict[str, str]:
    """The settings that must be equal for two pools to count as the same."""
    shape = config.geometry
    return {
        "size": size(config.capacity_bytes),
        "largest size": size(config.max_bytes),
        "codec": str(config.codec),
        "block": f"{shape.layers}x{shape.kv_heads}x{shape.tokens}x{shape.head_dim} {shape.dtype}",
        "page": size(config.page_bytes),
        "tenancy": "single tenant" if config.single_tenant else "many tenants",
        **_changeable(config, size),
    }


def create(
    ctx: speckv.Context, found: speckv.DeviceInfo, request: PoolRequest, replaced: str | None, *, overwrite: bool
) -> results.PoolCreate:
    """Create a pool, and the host device if absent. A new device is removed again if the pool fails."""
    import speckv

    config = _config(found, request)
    if found.state not in ("ready", "absent") and not overwrite:
        ctx.open(found.name, create=True).close()  # refused: names the contents found and the next command
    # Refuses invalid parameters before the device is created.
    planned = ctx.plan_pool(found.name, config)
    fresh = found.state == "absent" and not library.is_card(found.name)  # a card exists without pools
    with ctx.open(found.name, create=True, format=overwrite and not fresh and found.state != "ready") as dev:
        tell_left_over(dev, found)
        fresh = fresh and not dev.pools()
        refuse_existing(dev, request, planned)
        try:
            pool = describe.pool(found.name, dev.create_pool(config))
        except speckv.SpeckvError:
            dev.close()
            if fresh:
                _take_back(ctx, found.name)
            raise
    return _result(found, request, planned, replaced, pool)


def _card_codes(found: speckv.DeviceInfo, request: PoolRequest) -> bool:
    """Whether the card encodes and decodes the blocks; it cannot use a calibration."""
    return library.is_card(found.name) and request.calibrated is None and request.codec in found.codec_modes


def _take_back(ctx: speckv.Context, name: str) -> None:
    """Remove a new device without pools, unless another process created one on it."""
    import speckv

    try:
        ctx.remove(name)
    except speckv.SpeckvError as exc:
        note(f"warning: {name} was made and stays: {exc}")


def change(dev: speckv.Device, name: str, settings: Settings, *, dry_run: bool) -> results.PoolSet:
    import speckv

    before = dev.pool(name)
    after = dev.set_pool(
        name,
        quota_bytes=settings.quota_bytes,
        tenant_quota_bytes=settings.tenant_quota_bytes,
        eviction=None if settings.eviction is None else speckv.Eviction(settings.eviction),
        uid=settings.uid,
        gid=settings.gid,
        mode=settings.mode,
        dry_run=dry_run,
    )
    if dry_run:
        given = ((field.name, getattr(settings, field.name)) for field in fields(settings))
        wanted = {key: value for key, value in given if value is not None}
        if wanted.get("quota_bytes") == 0:
            wanted["quota_bytes"] = before.config.capacity_bytes
        for quota in ("quota_bytes", "tenant_quota_bytes"):  # kept in pages
            if quota in wanted:
                wanted[quota] -= wanted[quota] % before.config.page_bytes
        after = replace(before, config=replace(before.config, **wanted))
    return results.PoolSet(
        device=dev.name,
        dry_run=dry_run,
        changes=[
            results.Change(setting=name, before=old, after=new)
            for name, old, new in _differing(_changeable, before.config, after.config)
        ],
        pool=describe.pool(dev.name, after),
    )


def _changeable(config: speckv.PoolConfig, size: Callable[[int], str]) -> dict[str, str]:
    """The settings that `pool set` can change, as text."""
    uid, gid = config.uid or 0, config.gid or 0
    return {
        "quota": size(config.quota_bytes) if config.quota_bytes != config.capacity_bytes else "none",
        "tenant quota": size(config.tenant_quota_bytes) if config.tenant_quota_bytes else "none",
        "eviction": str(config.eviction),
        "owner": f"{user_name(uid)}:{group_name(gid)}",
        "mode": format_mode(config.mode),
    }
