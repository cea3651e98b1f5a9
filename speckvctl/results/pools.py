# SPDX-License-Identifier: MIT
"""Documents about pools."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from speckvctl.exitcodes import ExitCode
from speckvctl.results.document import Change, Document


@dataclass(frozen=True, kw_only=True)
class Geometry:
    layers: int
    kv_heads: int
    head_dim: int
    tokens: int
    dtype: str


@dataclass(frozen=True, kw_only=True)
class Pool:
    """A pool. What is inside is None when this user may not look."""

    device: str
    name: str
    uuid: str
    path: str
    state: str
    accessible: bool
    codec: str
    calibration_digest: str | None
    placement: str
    eviction: str
    geometry: Geometry
    block_bytes: int
    page_bytes: int
    single_tenant: bool
    uid: int
    gid: int
    mode: str
    capacity_bytes: int
    max_bytes: int
    quota_bytes: int
    tenant_quota_bytes: int | None
    table_bytes: int | None
    used_bytes: int | None
    free_bytes: int | None
    blocks: int | None
    raw_bytes: int | None
    stored_bytes: int | None
    ratio: float | None
    effective_capacity_bytes: int | None
    clients: int | None
    tenants: int | None
    resizes: int | None
    created_ns: int


@dataclass(frozen=True, kw_only=True)
class Tenant:
    name: str
    index: int
    clients: int
    used_bytes: int
    blocks: int
    puts: int
    gets: int
    hits: int
    misses: int
    lookup_misses: int
    wanted: int
    hit_share: float | None
    in_bytes: int
    out_bytes: int
    evicted_blocks: int


@dataclass(frozen=True, kw_only=True)
class Client:
    pid: int
    command: str
    uid: int
    tenant: str | None
    alive: bool
    attached_ns: int
    allocated_bytes: int


@dataclass(frozen=True, kw_only=True)
class PoolList(Document):
    schema: ClassVar[str] = "speckvctl.pool-list"
    pools: list[Pool]
    next: str | None = None


@dataclass(frozen=True, kw_only=True)
class PoolShow(Document):
    schema: ClassVar[str] = "speckvctl.pool-show"
    pool: Pool
    tenants: list[Tenant]
    clients: list[Client]


@dataclass(frozen=True, kw_only=True)
class PoolPlan:
    """What a new pool would be, before there is one."""

    name: str
    codec: str
    calibration_digest: str | None
    placement: str
    eviction: str
    geometry: Geometry
    block_bytes: int
    asked_bytes: int
    capacity_bytes: int
    quota_bytes: int
    tenant_quota_bytes: int | None
    uid: int
    gid: int
    mode: str


@dataclass(frozen=True, kw_only=True)
class PoolCreate(Document):
    schema: ClassVar[str] = "speckvctl.pool-create"
    device: str
    dry_run: bool
    device_created: bool
    replaced: str | None
    plan: PoolPlan
    pool: Pool | None


@dataclass(frozen=True, kw_only=True)
class PoolResize(Document):
    schema: ClassVar[str] = "speckvctl.pool-resize"
    device: str
    dry_run: bool
    from_bytes: int
    to_bytes: int
    blocks_dropped: int | None
    pool: Pool


@dataclass(frozen=True, kw_only=True)
class PoolSet(Document):
    schema: ClassVar[str] = "speckvctl.pool-set"
    device: str
    dry_run: bool
    changes: list[Change]
    pool: Pool


@dataclass(frozen=True, kw_only=True)
class PoolDestroy(Document):
    schema: ClassVar[str] = "speckvctl.pool-destroy"
    device: str
    pool: str
    dry_run: bool
    blocks_lost: int | None
    bytes_freed: int


@dataclass(frozen=True, kw_only=True)
class PoolCheck(Document):
    schema: ClassVar[str] = "speckvctl.pool-check"
    device: str
    pool: str
    deep: bool
    repair: bool
    clean: bool
    findings: int
    pages: int
    pages_free: int
    pages_used: int
    pages_allocated: int
    pages_leaked: int
    blocks: int
    blocks_verified: int
    blocks_unindexed: int
    blocks_bad: int
    index_stale: int
    clients_dead: int
    repaired: int

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode.DONE if self.clean else ExitCode.VERIFICATION_FAILED
