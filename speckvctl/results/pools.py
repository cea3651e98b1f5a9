# SPDX-License-Identifier: MIT
"""Documents about pools."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from speckvctl.exitcodes import ExitCode
from speckvctl.results.described import Said
from speckvctl.results.document import Change, Document
from speckvctl.results.words import CODECS, DTYPES, EVICTIONS, PLACEMENTS


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Shape of a block."""

    layers: Annotated[int, Said("Layers in a block.", minimum=0)]
    kv_heads: Annotated[int, Said("KV heads.", minimum=0)]
    head_dim: Annotated[int, Said("Channels of a head.", minimum=0)]
    tokens: Annotated[int, Said("Tokens in a block.", minimum=0)]
    dtype: Annotated[str, Said("Element type.", enum=[*DTYPES])]


@dataclass(frozen=True, kw_only=True)
class Pool:
    """A pool; its contents are None without permission."""

    device: Annotated[str, Said("Name of the device, as typed.")]
    name: Annotated[str, Said("Name.")]
    uuid: Annotated[str, Said("RFC 9562 identifier.")]
    path: Annotated[str, Said("File or node that holds it.")]
    state: Annotated[str, Said("State.", enum=["active", "creating", "resizing", "destroying"])]
    accessible: Annotated[bool, Said("False: no permission to look inside; what is inside is null.")]
    codec: Annotated[str, Said("How blocks are stored.", enum=[*CODECS])]
    calibration_digest: Annotated[
        str | None,
        Said(
            "Digest of the calibration that blocks are coded with, hexadecimal; null in modes without one.",
            pattern="^[0-9a-f]{32}$",
        ),
    ]
    placement: Annotated[
        str, Said("Where blocks are encoded and decoded: by the card, or by this machine.", enum=[*PLACEMENTS])
    ]
    eviction: Annotated[str, Said("What a put does that finds no room.", enum=[*EVICTIONS])]
    geometry: Annotated[Geometry, Said("Shape of a block.")]
    block_bytes: Annotated[int, Said("Raw bytes of one block.", minimum=0)]
    page_bytes: Annotated[int, Said("Bytes of a page.", minimum=0)]
    single_tenant: Annotated[bool, Said("True: short engine hashes are accepted as keys.")]
    uid: Annotated[int, Said("Owner.", minimum=0)]
    gid: Annotated[int, Said("Group.", minimum=0)]
    mode: Annotated[str, Said("Permission bits, octal, as text.", pattern="^0[0-7]{3}$")]
    capacity_bytes: Annotated[int, Said("Room for data; on a device: for all pools together.", minimum=0)]
    max_bytes: Annotated[int, Said("How far the pool can be resized.", minimum=0)]
    quota_bytes: Annotated[int, Said("Stored bytes allowed in all.", minimum=0)]
    tenant_quota_bytes: Annotated[int | None, Said("Stored bytes allowed to one tenant; null: no limit.", minimum=0)]
    table_bytes: Annotated[int | None, Said("Bytes of index, page map and other tables.", minimum=0)]
    used_bytes: Annotated[int | None, Said("Bytes taken now, in whole pages.", minimum=0)]
    free_bytes: Annotated[int | None, Said("Bytes that can still be taken.", minimum=0)]
    blocks: Annotated[int | None, Said("Blocks stored.", minimum=0)]
    raw_bytes: Annotated[int | None, Said("What the stored blocks decode to.", minimum=0)]
    stored_bytes: Annotated[int | None, Said("What their frames take, before rounding to pages.", minimum=0)]
    ratio: Annotated[float | None, Said("Raw bytes over stored bytes; null when nothing is stored.")]
    effective_capacity_bytes: Annotated[
        int | None,
        Said("Raw KV that the whole capacity would hold at the present mix; null when nothing is stored.", minimum=0),
    ]
    clients: Annotated[int | None, Said("Clients.", minimum=0)]
    tenants: Annotated[int | None, Said("Tenants.", minimum=0)]
    resizes: Annotated[int | None, Said("How often it was resized.", minimum=0)]
    puts: Annotated[int | None, Said("Blocks stored since the statistics were last set to zero.", minimum=0)]
    puts_bit_exact: Annotated[
        int | None,
        Said("Of these, blocks that the codec could not hold well enough and that were stored bit-exact.", minimum=0),
    ]
    created_ns: Annotated[int, Said("When it was made, CLOCK_REALTIME.", minimum=0)]


@dataclass(frozen=True, kw_only=True)
class Tenant:
    """A tenant and its counters."""

    name: Annotated[str, Said("Name.")]
    index: Annotated[int, Said("Number of the tenant in its pool.", minimum=0)]
    clients: Annotated[int, Said("Clients.", minimum=0)]
    used_bytes: Annotated[int, Said("Bytes taken now, in whole pages.", minimum=0)]
    blocks: Annotated[int, Said("Blocks stored.", minimum=0)]
    puts: Annotated[int, Said("Blocks stored.", minimum=0)]
    gets: Annotated[int, Said("Blocks asked for.", minimum=0)]
    hits: Annotated[int, Said("Gets that found their block.", minimum=0)]
    misses: Annotated[int, Said("Gets that did not.", minimum=0)]
    lookup_misses: Annotated[
        int,
        Said(
            "Look-ups that did not find their block; by prefix: all blocks from the first that is missing.", minimum=0
        ),
    ]
    wanted: Annotated[int, Said("Blocks wanted: gets and lookup_misses.", minimum=0)]
    hit_share: Annotated[
        float | None,
        Said(
            "Blocks served over blocks wanted (gets, and look-ups that found nothing); null when none was wanted.",
            minimum=0,
            maximum=1,
        ),
    ]
    in_bytes: Annotated[int, Said("Raw bytes put.", minimum=0)]
    out_bytes: Annotated[int, Said("Raw bytes got.", minimum=0)]
    evicted_blocks: Annotated[int, Said("Blocks of this tenant that were evicted.", minimum=0)]


@dataclass(frozen=True, kw_only=True)
class Client:
    """A process attached to a pool."""

    pid: Annotated[int, Said("Process.", minimum=0)]
    command: Annotated[str, Said("The name of its program.")]
    uid: Annotated[int, Said("Owner.", minimum=0)]
    tenant: Annotated[str | None, Said("Tenant it counts for.")]
    alive: Annotated[bool, Said("False: it died without detaching.")]
    attached_ns: Annotated[int, Said("When it attached, CLOCK_REALTIME.", minimum=0)]
    allocated_bytes: Annotated[int, Said("Memory it holds for unsealed fills.", minimum=0)]


@dataclass(frozen=True, kw_only=True)
class PoolList(Document):
    """What `speckvctl pool list --json` prints."""

    schema: ClassVar[str] = "speckvctl.pool-list"
    pools: Annotated[list[Pool], Said("Pools.")]
    next: Annotated[str | None, Said("What to type next where there is nothing to show yet.")] = None


@dataclass(frozen=True, kw_only=True)
class PoolShow(Document):
    """What `speckvctl pool show --json` prints."""

    schema: ClassVar[str] = "speckvctl.pool-show"
    pool: Annotated[Pool, Said("The pool.")]
    tenants: Annotated[list[Tenant], Said("Tenants.")]
    clients: Annotated[list[Client], Said("Clients.")]


@dataclass(frozen=True, kw_only=True)
class PoolPlan:
    """A planned pool."""

    name: Annotated[str, Said("Name.")]
    codec: Annotated[str, Said("How blocks are stored.", enum=[*CODECS])]
    calibration_digest: Annotated[
        str | None,
        Said(
            "Digest of the calibration that blocks are coded with, hexadecimal; null in modes without one.",
            pattern="^[0-9a-f]{32}$",
        ),
    ]
    placement: Annotated[
        str, Said("Where blocks are encoded and decoded: by the card, or by this machine.", enum=[*PLACEMENTS])
    ]
    eviction: Annotated[str, Said("What a put does that finds no room.", enum=[*EVICTIONS])]
    geometry: Annotated[Geometry, Said("Shape of a block.")]
    block_bytes: Annotated[int, Said("Raw bytes of one block.", minimum=0)]
    asked_bytes: Annotated[
        int, Said("The capacity that was asked for; capacity_bytes is rounded up from it.", minimum=0)
    ]
    capacity_bytes: Annotated[int, Said("Room for data; on a device: for all pools together.", minimum=0)]
    quota_bytes: Annotated[int, Said("Stored bytes allowed in all.", minimum=0)]
    tenant_quota_bytes: Annotated[int | None, Said("Stored bytes allowed to one tenant; null: no limit.", minimum=0)]
    uid: Annotated[int, Said("Owner.", minimum=0)]
    gid: Annotated[int, Said("Group.", minimum=0)]
    mode: Annotated[str, Said("Permission bits, octal, as text.", pattern="^0[0-7]{3}$")]


@dataclass(frozen=True, kw_only=True)
class PoolCreate(Document):
    """What `speckvctl pool create --json` prints."""

    schema: ClassVar[str] = "speckvctl.pool-create"
    device: Annotated[str, Said("Name of the device, as typed.")]
    dry_run: Annotated[bool, Said("True: nothing was changed.")]
    device_created: Annotated[bool, Said("True: the host device was made too.")]
    replaced: Annotated[str | None, Said("What was overwritten to make it; null when nothing was.")]
    plan: Annotated[PoolPlan, Said("What was asked for, with the defaults that are known before.")]
    pool: Annotated[Pool | None, Said("The pool as created; null in a dry run.")]


@dataclass(frozen=True, kw_only=True)
class PoolResize(Document):
    """What `speckvctl pool resize --json` prints."""

    schema: ClassVar[str] = "speckvctl.pool-resize"
    device: Annotated[str, Said("Name of the device, as typed.")]
    dry_run: Annotated[bool, Said("True: nothing was changed.")]
    from_bytes: Annotated[int, Said("Capacity before.", minimum=0)]
    to_bytes: Annotated[int, Said("Capacity after.", minimum=0)]
    blocks_dropped: Annotated[int | None, Said("Blocks that did not fit; null in a dry run.", minimum=0)]
    pool: Annotated[Pool, Said("The pool afterwards; in a dry run as it is.")]


@dataclass(frozen=True, kw_only=True)
class PoolSet(Document):
    """What `speckvctl pool set --json` prints."""

    schema: ClassVar[str] = "speckvctl.pool-set"
    device: Annotated[str, Said("Name of the device, as typed.")]
    dry_run: Annotated[bool, Said("True: nothing was changed.")]
    changes: Annotated[list[Change], Said("Settings that changed, as text.")]
    pool: Annotated[Pool, Said("The pool with the changes, in a dry run too.")]


@dataclass(frozen=True, kw_only=True)
class PoolDestroy(Document):
    """What `speckvctl pool destroy --json` prints."""

    schema: ClassVar[str] = "speckvctl.pool-destroy"
    device: Annotated[str, Said("Name of the device, as typed.")]
    pool: Annotated[str, Said("Name of the pool.")]
    dry_run: Annotated[bool, Said("True: nothing was changed.")]
    blocks_lost: Annotated[
        int | None, Said("Blocks that were stored there; null when they could not be counted.", minimum=0)
    ]
    bytes_freed: Annotated[int, Said("Bytes given back to the device or the system.", minimum=0)]


@dataclass(frozen=True, kw_only=True)
class PoolCheck(Document):
    """What `speckvctl pool check --json` prints."""

    schema: ClassVar[str] = "speckvctl.pool-check"
    device: Annotated[str, Said("Name of the device, as typed.")]
    pool: Annotated[str, Said("Name of the pool.")]
    deep: Annotated[bool, Said("True: every section's checksum was verified.")]
    repair: Annotated[bool, Said("True: what was found was to be repaired.")]
    clean: Annotated[bool, Said("True: sound, or repaired.")]
    findings: Annotated[int, Said("Leaked pages, lost, bad and stale entries, added up.", minimum=0)]
    pages: Annotated[int, Said("Pages in all.", minimum=0)]
    pages_free: Annotated[int, Said("Free pages.", minimum=0)]
    pages_used: Annotated[int, Said("Pages that hold blocks.", minimum=0)]
    pages_allocated: Annotated[int, Said("Pages held by live clients' allocations.", minimum=0)]
    pages_leaked: Annotated[int, Said("Leaked pages: allocated, in no block.", minimum=0)]
    blocks: Annotated[int, Said("Blocks stored.", minimum=0)]
    blocks_verified: Annotated[int, Said("Blocks whose checksums were verified.", minimum=0)]
    blocks_unindexed: Annotated[int, Said("Blocks that a look-up would not find.", minimum=0)]
    blocks_bad: Annotated[int, Said("Blocks that do not verify.", minimum=0)]
    index_stale: Annotated[int, Said("Index entries that point at nothing.", minimum=0)]
    clients_dead: Annotated[int, Said("Clients that died without detaching.", minimum=0)]
    repaired: Annotated[int, Said("Repairs made.", minimum=0)]

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode.DONE if self.clean else ExitCode.VERIFICATION_FAILED
