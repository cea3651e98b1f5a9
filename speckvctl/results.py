# SPDX-License-Identifier: MIT
"""What commands hand to a renderer: one frozen dataclass a document, fields named as in the JSON.

The same object feeds the table and the JSON, so the two cannot disagree. Units stand in the names; None means that a
value is not available. `schemas/*.json` publishes the same shapes, and a test holds the two together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from speckvctl.cards.facts import Card, EmulatedCard
from speckvctl.exitcodes import ExitCode


@dataclass(frozen=True, kw_only=True)
class Document:
    schema: ClassVar[str]
    version: ClassVar[int] = 0

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode.DONE


# ---- errors ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ErrorDetail:
    code: str
    exit_code: int
    errno: str | None
    message: str
    next: str | None


@dataclass(frozen=True, kw_only=True)
class ErrorDocument(Document):
    schema: ClassVar[str] = "speckvctl.error"
    error: ErrorDetail

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode(self.error.exit_code)


# ---- devices ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Device:
    """A host engine or a card; counts are None where it is not ready to be counted."""

    name: str
    kind: str
    state: str
    found: str
    path: str
    uuid: str | None
    layout_version: int | None
    durability: str | None
    single_inode: bool
    numa_node: int | None
    uid: int | None
    gid: int | None
    mode: str | None
    pools: int | None
    codecs: list[str]
    capacity_bytes: int | None
    used_bytes: int | None
    free_bytes: int | None
    created_ns: int | None
    manager_pid: int | None
    manager_command: str | None


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """A piece of hardware that could carry an engine (or is a card), as the kernel shows it."""

    kind: str
    name: str
    sysfs_path: str
    driver: str | None
    vendor_id: int | None
    device_id: int | None
    numa_node: int | None
    capacity_bytes: int | None
    note: str | None  # why it is not usable yet, and what to type next


@dataclass(frozen=True, kw_only=True)
class DeviceList(Document):
    schema: ClassVar[str] = "speckvctl.device-list"
    devices: list[Device]
    hardware: list[Hardware] | None


@dataclass(frozen=True, kw_only=True)
class DeviceShow(Document):
    schema: ClassVar[str] = "speckvctl.device-show"
    device: Device
    pools: list[Pool]
    card: Card | None


@dataclass(frozen=True, kw_only=True)
class Step:
    name: str
    passed: bool
    errno: str | None
    elapsed_ns: int
    detail: str


@dataclass(frozen=True, kw_only=True)
class DeviceSelftest(Document):
    schema: ClassVar[str] = "speckvctl.device-selftest"
    device: str
    passed: bool
    steps: list[Step]

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode.DONE if self.passed else ExitCode.VERIFICATION_FAILED


@dataclass(frozen=True, kw_only=True)
class DeviceClose(Document):
    schema: ClassVar[str] = "speckvctl.device-close"
    device: str
    dry_run: bool
    pools_destroyed: list[str]
    blocks_lost: int
    bytes_freed: int


# ---- cards -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Change:
    setting: str
    before: str
    after: str


@dataclass(frozen=True, kw_only=True)
class DeviceSet(Document):
    schema: ClassVar[str] = "speckvctl.device-set"
    device: str
    dry_run: bool
    saved: bool
    changes: list[Change]
    settings: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class DeviceReset(Document):
    schema: ClassVar[str] = "speckvctl.device-reset"
    device: str
    dry_run: bool
    what: str
    running_image: str
    functions_lost: int


@dataclass(frozen=True, kw_only=True)
class DeviceInject(Document):
    schema: ClassVar[str] = "speckvctl.device-inject"
    device: str
    dry_run: bool
    fault: str
    pool: str | None
    value: int
    count: int


@dataclass(frozen=True, kw_only=True)
class Flash(Document):
    """What is in the running image is read back from the card, after it was started again."""

    schema: ClassVar[str] = "speckvctl.flash"
    device: str
    dry_run: bool
    action: str
    bundle: str | None
    bundle_bytes: int | None
    bundle_sha256: str | None
    bundle_revision: str | None
    image: str
    resumed_bytes: int
    activation: str | None
    before_image: str
    before_revision: str
    running_image: str
    running_revision: str
    verified: bool
    audit: str | None


@dataclass(frozen=True, kw_only=True)
class EmuStart(Document):
    schema: ClassVar[str] = "speckvctl.emu-start"
    dry_run: bool
    card: EmulatedCard


@dataclass(frozen=True, kw_only=True)
class EmuStop(Document):
    schema: ClassVar[str] = "speckvctl.emu-stop"
    dry_run: bool
    name: str
    stopped: bool
    killed: bool
    removed: bool


@dataclass(frozen=True, kw_only=True)
class EmuList(Document):
    schema: ClassVar[str] = "speckvctl.emu-list"
    cards: list[EmulatedCard]


@dataclass(frozen=True, kw_only=True)
class EmuStatus(Document):
    schema: ClassVar[str] = "speckvctl.emu-status"
    card: EmulatedCard


# ---- pools -----------------------------------------------------------------------------------------------------------


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


# ---- statistics and events -------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Quantiles are upper bounds of histogram buckets; None when nothing was measured."""

    count: int
    p50_ns: int | None
    p90_ns: int | None
    p99_ns: int | None
    p999_ns: int | None


@dataclass(frozen=True, kw_only=True)
class PoolStats:
    pool: str
    taken_ns: int
    since_ns: int
    hit_share: float | None
    ratio: float | None
    counters: dict[str, int]
    latency: dict[str, Latency]
    tenants: list[Tenant]


@dataclass(frozen=True, kw_only=True)
class StatsDocument(Document):
    schema: ClassVar[str] = "speckvctl.stats"
    device: str
    reset: bool
    dry_run: bool
    pools: list[PoolStats]


@dataclass(frozen=True, kw_only=True)
class EventRow:
    time_ns: int
    device: str
    pool: str | None
    sequence: int | None
    severity: str
    kind: str
    pid: int | None
    text: str


@dataclass(frozen=True, kw_only=True)
class EventsDocument(Document):
    schema: ClassVar[str] = "speckvctl.events"
    events: list[EventRow]


# ---- top -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class TopDevice:
    """A device at one tick; health, temperature, link and queue depth are a card's, None where nobody measures them."""

    name: str
    kind: str
    state: str
    found: str
    health: str | None
    temperature_millicelsius: int | None
    link: str | None
    queue_depth: int | None
    pools: int | None
    clients: int | None
    capacity_bytes: int | None
    used_bytes: int | None
    free_bytes: int | None
    in_bytes_per_second: int | None
    out_bytes_per_second: int | None


@dataclass(frozen=True, kw_only=True)
class Prefetching:
    """What a pool's counters say of prefetches. Shares are None where there is nothing to divide by, or no counter."""

    asked: int
    staged: int
    used: int
    unused: int
    accuracy: float | None
    coverage: float | None
    unused_share: float | None
    late_share: float | None
    depth: int | None


@dataclass(frozen=True, kw_only=True)
class TenantRates:
    name: str
    index: int
    hit_share: float | None
    in_bytes_per_second: int
    out_bytes_per_second: int


@dataclass(frozen=True, kw_only=True)
class PoolInterval:
    """What happened in a pool between two ticks; the differences of what PoolStats has in sum."""

    elapsed_ns: int
    in_bytes_per_second: int
    out_bytes_per_second: int
    gets_per_second: float
    puts_per_second: float
    hit_share: float | None
    counters: dict[str, int]
    latency: dict[str, Latency]
    prefetching: Prefetching
    tenants: list[TenantRates]


@dataclass(frozen=True, kw_only=True)
class HistogramBucket:
    up_to_ns: int
    count: int


@dataclass(frozen=True, kw_only=True)
class TopPool:
    """A pool at one tick; what is inside is None, or empty, when this user may not look."""

    pool: Pool
    stats: PoolStats | None
    prefetching: Prefetching | None
    interval: PoolInterval | None
    clients: list[Client]
    histograms: dict[str, list[HistogramBucket]]


@dataclass(frozen=True, kw_only=True)
class Top(Document):
    schema: ClassVar[str] = "speckvctl.top"
    tick: int
    time_ns: int
    interval_ns: int | None
    devices: list[TopDevice]
    pools: list[TopPool]
    events: list[EventRow]


# ---- replay ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Replay(Document):
    schema: ClassVar[str] = "speckvctl.replay"
    device: str
    pool: str
    trace: str
    format: str
    dry_run: bool
    interrupted: bool
    codec: str
    clients: int
    block_bytes: int
    requests: int
    requests_total: int
    blocks_read: int
    blocks_written: int
    blocks_refused: int
    blocks_vanished: int
    hit_share: float | None
    bytes_raw: int
    bytes_stored: int
    ratio: float | None
    get_p50_ns: int | None
    get_p99_ns: int | None
    put_p50_ns: int | None
    put_p99_ns: int | None
    get_bytes_per_second: int | None
    put_bytes_per_second: int | None
    verified_blocks: int
    mismatches: int
    errors: int
    elapsed_ns: int | None
    problems: list[str]

    @property
    def exit_code(self) -> ExitCode:
        if self.mismatches:
            return ExitCode.VERIFICATION_FAILED
        return ExitCode.FAILED if self.errors or self.interrupted else ExitCode.DONE


# ---- codecs ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class CodecTensors:
    """K and V of one layer of a file; stored_bytes is of their frames."""

    k: str
    v: str
    layer: int | None
    dtype: str
    heads: int
    tokens: int
    head_dim: int
    raw_bytes: int
    stored_bytes: int
    ratio: float
    k_relative_rmse: float | None
    v_relative_rmse: float | None


@dataclass(frozen=True, kw_only=True)
class CodecEval(Document):
    """Perplexities are None without a model. The plain ones are by the rule of blocks, prefix_* by that of a prefix."""

    schema: ClassVar[str] = "speckvctl.codec-eval"
    file: str
    codec: str
    calibration: str | None
    calibration_digest: str | None
    isa: str
    block_tokens: int
    raw_bytes: int
    stored_bytes: int
    ratio: float
    exact: bool
    encode_bytes_per_second: float | None
    decode_bytes_per_second: float | None
    k_relative_rmse: float | None
    v_relative_rmse: float | None
    model: str | None
    tokens: str | None
    documents: int | None
    perplexity_reference: float | None
    perplexity: float | None
    perplexity_increase_percent: float | None
    perplexity_standard_error_percent: float | None
    prefix_tokens: int | None
    prefix_perplexity_reference: float | None
    prefix_perplexity: float | None
    prefix_perplexity_increase_percent: float | None
    prefix_perplexity_standard_error_percent: float | None
    run_ratio: float | None
    tensors: list[CodecTensors]
    skipped: list[str]


@dataclass(frozen=True, kw_only=True)
class CodecRow:
    """A mode or a peer."""

    name: str
    kind: str
    exact: bool
    ratio: float
    encode_bytes_per_second: float | None
    decode_bytes_per_second: float | None
    k_relative_rmse: float | None
    v_relative_rmse: float | None
    perplexity_increase_percent: float | None
    perplexity_standard_error_percent: float | None
    prefix_perplexity_increase_percent: float | None
    prefix_perplexity_standard_error_percent: float | None


@dataclass(frozen=True, kw_only=True)
class CodecLeftOut:
    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class CodecCompare(Document):
    schema: ClassVar[str] = "speckvctl.codec-compare"
    file: str
    isa: str
    raw_bytes: int
    block_tokens: int
    model: str | None
    tokens: str | None
    documents: int | None
    perplexity_reference: float | None
    prefix_tokens: int | None
    prefix_perplexity_reference: float | None
    rows: list[CodecRow]
    left_out: list[CodecLeftOut]
    plot: str | None


@dataclass(frozen=True, kw_only=True)
class CodecCalibrate(Document):
    """k_bits and v_bits: of each layer, of each KV head."""

    schema: ClassVar[str] = "speckvctl.codec-calibrate"
    file: str
    dry_run: bool
    codec: str
    calibration_digest: str
    file_bytes: int
    model: str
    tokens: str
    documents: int
    document_tokens: int
    ratio: float
    perplexity_reference: float
    expected_increase_percent: float
    k_bits: list[list[float]]
    v_bits: list[list[float]]


@dataclass(frozen=True, kw_only=True)
class CodecEncode(Document):
    schema: ClassVar[str] = "speckvctl.codec-encode"
    file: str
    frames: str
    dry_run: bool
    codec: str
    calibration_digest: str | None
    block_tokens: int
    tensors: int
    frame_count: int
    raw_bytes: int
    stored_bytes: int
    ratio: float
    skipped: list[str]


@dataclass(frozen=True, kw_only=True)
class CodecDecode(Document):
    schema: ClassVar[str] = "speckvctl.codec-decode"
    frames: str
    file: str
    dry_run: bool
    codecs: list[str]
    tensors: int
    frame_count: int
    raw_bytes: int
    stored_bytes: int


@dataclass(frozen=True, kw_only=True)
class VectorModes:
    """Vectors of one mode."""

    codec: str
    vectors: int
    stored_frames: int


@dataclass(frozen=True, kw_only=True)
class CodecVectors(Document):
    schema: ClassVar[str] = "speckvctl.codec-vectors"
    folder: str
    written: bool
    dry_run: bool
    isas: list[str]
    modes: list[VectorModes]
    differences: list[str]

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode.VERIFICATION_FAILED if self.differences else ExitCode.DONE


# ---- the prefetcher --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class PrefetcherEval(Document):
    """Counts and shares are of what happened from score_from_ms on; None where there was nothing to count."""

    schema: ClassVar[str] = "speckvctl.prefetcher-eval"
    model: str | None
    baseline: str | None
    trace: str
    trace_digest: str
    cache_share: float
    cache_blocks: int
    prefetch_blocks_per_second: float
    score_from_ms: float
    window_ms: int
    seen_in_training: bool
    requests: int
    demanded_blocks: int
    gpu_hit_share: float | None
    lru_gpu_hit_share: float | None
    issued_blocks: int
    useful_blocks: int
    late_blocks: int
    unused_blocks: int
    useful_share: float | None
    late_share: float | None
    coverage: float | None
    chain_top1: float | None
    chain_top4: float | None
    p50_latency_ns: int | None
    p99_latency_ns: int | None
    scores: str | None


@dataclass(frozen=True, kw_only=True)
class TrainingTrace:
    """A trace and its parts: learned from, chosen by, judged by."""

    trace: str
    digest: str
    requests: int
    train_turns: int
    choose_turns: int
    judge_turns: int
    train_returns: int


@dataclass(frozen=True, kw_only=True)
class PrefetcherRow:
    """One way to decide, on the part of one trace that nothing was learned from."""

    trace: str
    name: str
    loss: float | None
    gpu_hit_share: float | None
    useful_share: float | None
    late_share: float | None
    coverage: float | None


@dataclass(frozen=True, kw_only=True)
class TrainPrefetcher(Document):
    schema: ClassVar[str] = "speckvctl.train-prefetcher"
    output: str
    dry_run: bool
    torch: str | None
    seed: int
    minutes: float
    traces: list[TrainingTrace]
    epochs: int
    stopped: str | None
    window_ms: int | None
    cache_share: float
    prefetch_blocks_per_second: float
    rows: list[PrefetcherRow]


@dataclass(frozen=True, kw_only=True)
class PrefetcherShow(Document):
    schema: ClassVar[str] = "speckvctl.prefetcher-show"
    model: str
    digest: str
    file_bytes: int
    architecture: str
    weights: int
    features: list[str]
    window_ms: int
    traces: list[str]
    trace_digests: list[str]
    train_until_s: list[float]
    chosen_until_s: list[float]
    split: str
    seed: int
    train_turns: int
    epochs: int
    validation_loss: float | None
    trained_with: str


@dataclass(frozen=True, kw_only=True)
class PrefetcherLoad(Document):
    schema: ClassVar[str] = "speckvctl.prefetcher-load"
    device: str
    dry_run: bool
    model: str
    digest: str
    replaced_digest: str | None


@dataclass(frozen=True, kw_only=True)
class PrefetcherUnload(Document):
    schema: ClassVar[str] = "speckvctl.prefetcher-unload"
    device: str
    dry_run: bool
    digest: str


# ---- doctor ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Check:
    name: str
    status: str  # ok, warning or failed
    detail: str
    next: str | None = field(default=None)


@dataclass(frozen=True, kw_only=True)
class DoctorReport(Document):
    schema: ClassVar[str] = "speckvctl.doctor"
    failed: int
    warnings: int
    checks: list[Check]

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode.FAILED if self.failed else ExitCode.DONE


# ---- bundles ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class BitstreamManifest:
    name: str
    configuration: str
    part: str
    rtl_revision: str
    map_version: str
    security_version: int
    build_id: str
    clock_hz: int
    fmax_hz: int
    tools: str
    bitstream_bytes: int
    bitstream_sha256: str


@dataclass(frozen=True, kw_only=True)
class BitstreamBuild(Document):
    schema: ClassVar[str] = "speckvctl.bitstream-build"
    bundle: str
    dry_run: bool
    bundle_bytes: int
    key_id: str | None  # None: unsigned
    manifest: BitstreamManifest


@dataclass(frozen=True, kw_only=True)
class BitstreamInspect(Document):
    schema: ClassVar[str] = "speckvctl.bitstream-inspect"
    bundle: str
    bundle_bytes: int
    key_id: str | None  # None: unsigned
    manifest: BitstreamManifest


@dataclass(frozen=True, kw_only=True)
class BitstreamVerify(Document):
    schema: ClassVar[str] = "speckvctl.bitstream-verify"
    bundle: str
    bundle_bytes: int
    key_id: str
    key: str  # file of the trusted key
    manifest: BitstreamManifest


@dataclass(frozen=True, kw_only=True)
class BitstreamSign(Document):
    schema: ClassVar[str] = "speckvctl.bitstream-sign"
    bundle: str
    dry_run: bool
    changed: bool
    bundle_bytes: int
    key_id: str
    replaced_key_id: str | None

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode.DONE if self.changed else ExitCode.NOTHING_TO_DO


@dataclass(frozen=True, kw_only=True)
class BitstreamKeygen(Document):
    schema: ClassVar[str] = "speckvctl.bitstream-keygen"
    secret_key: str
    public_key: str
    dry_run: bool
    key_id: str | None  # None: not made yet
