# SPDX-License-Identifier: MIT
"""The library's data and parameters as frozen dataclasses; field names and units are those of the C structs."""

from __future__ import annotations

import dataclasses
import errno
import functools
import types
import typing
import uuid
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from speckv._speckv import ffi, lib
from speckv.errors import InvalidError

_Struct = TypeVar("_Struct")


class DType(StrEnum):
    BF16 = "bf16"
    FP16 = "fp16"
    FP8_E4M3 = "fp8_e4m3"
    FP8_E5M2 = "fp8_e5m2"


class Codec(StrEnum):
    RAW = "raw"
    INT8_DELTA_RLE = "int8-delta-rle"
    Q4X = "q4x"
    Q5C = "q5c"
    E7C = "e7c"
    LOSSLESS = "lossless"
    Q3X = "q3x"
    Q5X = "q5x"


class MediumState(StrEnum):
    ABSENT = "absent"
    READY = "ready"
    UNRECOGNIZED = "unrecognized"
    OTHER_VERSION = "other_version"
    INCOMPLETE = "incomplete"
    TRUNCATED = "truncated"
    DENIED = "denied"
    OFFLINE = "offline"  # an unresponsive card


class Durability(StrEnum):
    PROCESS = "process"
    POWER = "power"


class Eviction(StrEnum):
    LRU = "lru"
    NONE = "none"


class PoolState(StrEnum):
    ACTIVE = "active"
    CREATING = "creating"
    RESIZING = "resizing"
    DESTROYING = "destroying"
    LOST = "lost"
    DAMAGED = "damaged"


class Placement(StrEnum):
    HOST = "host"
    CARD = "card"


class Severity(StrEnum):
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


#: Enum -> the C enum and the prefix of its members.
_C_ENUMS: dict[type[StrEnum], tuple[str, str]] = {
    DType: ("speckv_dtype", "SPECKV_DTYPE_"),
    Codec: ("speckv_codec", "SPECKV_CODEC_"),
    MediumState: ("speckv_medium_state", "SPECKV_MEDIUM_"),
    Durability: ("speckv_durability", "SPECKV_DURABLE_"),
    Eviction: ("speckv_eviction", "SPECKV_EVICT_"),
    PoolState: ("speckv_pool_state", "SPECKV_POOL_"),
    Placement: ("speckv_placement", "SPECKV_PLACED_"),
    Severity: ("speckv_severity", "SPECKV_"),
}


@functools.cache
def members(enum: type[StrEnum]) -> dict[int, StrEnum]:
    """C value -> member."""
    name, prefix = _C_ENUMS[enum]
    return {value: enum[key.removeprefix(prefix)] for value, key in sorted(ffi.typeof(f"enum {name}").elements.items())}


def codecs_of(bits: int) -> tuple[Codec, ...]:
    """The modes whose bits are set."""
    return tuple(Codec(member) for bit, member in members(Codec).items() if bits >> bit & 1)


def modes() -> tuple[Codec, ...]:
    """The codec modes that this build can encode and decode without a calibration."""
    return codecs_of(int(lib.speckv_codec_modes()))


def calibrated_modes() -> tuple[Codec, ...]:
    """The same, of the modes that need a calibration."""
    return codecs_of(int(lib.speckv_codec_calibrated_modes()))


@functools.cache
def c_value(enum: type[StrEnum], member: str) -> int:
    """C value of a member or of its text."""
    for value, known in members(enum).items():
        if known == member:
            return value
    names = ", ".join(members(enum).values())
    raise InvalidError(errno.EINVAL, f"{member!r} is not one of {names}")


@dataclass(frozen=True, slots=True)
class Geometry:
    """Shape of one block: K and V of `layers` layers, each [kv_heads][tokens][head_dim] of `dtype`."""

    layers: int = 1
    kv_heads: int = 2
    head_dim: int = 128
    tokens: int = 64
    dtype: DType = DType.BF16

    @property
    def block_bytes(self) -> int:
        """Raw bytes of one block; 0 when the shape is not valid."""
        return int(lib.speckv_geometry_bytes(self.to_c()))

    def to_c(self) -> Any:
        """A new struct speckv_geometry."""
        try:
            return ffi.new(
                "struct speckv_geometry *",
                {
                    "layers": self.layers,
                    "kv_heads": self.kv_heads,
                    "head_dim": self.head_dim,
                    "tokens": self.tokens,
                    "dtype": c_value(DType, self.dtype),
                },
            )
        except OverflowError as exc:
            raise InvalidError(errno.EINVAL, f"a shape beyond what a block can have: {self}") from exc


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    name: str
    path: str
    found: str
    uuid: str
    state: MediumState
    layout_version: int
    single_inode: bool
    durability: Durability
    uid: int
    gid: int
    mode: int
    pools: int
    codec_modes: tuple[Codec, ...]
    numa_node: int  # -1: none
    capacity_bytes: int
    allocated_bytes: int
    free_bytes: int
    created_ns: int
    manager_pid: int  # 0: none
    manager_command: str


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """Parameters of a pool; 0 and None stand for the library's defaults (pool.h)."""

    name: str
    capacity_bytes: int
    max_bytes: int = 0
    quota_bytes: int = 0
    tenant_quota_bytes: int = 0
    geometry: Geometry = Geometry()
    codec: Codec = Codec.RAW
    eviction: Eviction = Eviction.LRU
    page_bytes: int = 0
    uid: int | None = None
    gid: int | None = None
    mode: int = 0
    single_tenant: bool = False
    first_layer: int = 0  # of the pool's blocks in the calibration, and first_head
    first_head: int = 0
    calibration: bytes | None = None  # its file; None in data from the library: see Device.calibration()

    def to_c(self) -> Any:
        """A new struct speckv_pool_config, valid for the lifetime of this object: it points to `calibration`."""
        config = ffi.new("struct speckv_pool_config *")
        put_text(config, "name", self.name)
        config.geometry = self.geometry.to_c()[0]
        config.codec = c_value(Codec, self.codec)
        config.eviction = c_value(Eviction, self.eviction)
        config.single_tenant = bool(self.single_tenant)
        for field in ("capacity_bytes", "max_bytes", "quota_bytes", "tenant_quota_bytes", "page_bytes", "mode"):
            put_number(config, field, getattr(self, field))
        for field in ("first_layer", "first_head"):
            put_number(config, field, getattr(self, field))
        if self.calibration is not None:
            config.calibration = ffi.cast("void *", ffi.from_buffer(self.calibration))
            config.calibration_bytes = len(self.calibration)
        for field in ("uid", "gid"):
            number = getattr(self, field)
            put_number(config, field, 0xFFFFFFFF if number is None else number)
        return config


@dataclass(frozen=True, slots=True)
class PoolInfo:
    config: PoolConfig  # with the defaults filled in
    uuid: str
    path: str
    state: PoolState
    accessible: bool
    block_bytes: int
    used_bytes: int
    free_bytes: int
    blocks: int
    raw_bytes: int
    stored_bytes: int
    table_bytes: int
    created_ns: int
    resizes: int
    puts: int
    puts_bit_exact: int
    clients: int
    tenants: int
    placement: Placement
    calibration: bytes | None  # digest of the pool's calibration; None in modes without one

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def capacity_bytes(self) -> int:
        return self.config.capacity_bytes


@dataclass(frozen=True, slots=True)
class TenantInfo:
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
    bytes_in: int
    bytes_out: int
    evicted_blocks: int


@dataclass(frozen=True, slots=True)
class ClientInfo:
    slot: int
    pid: int
    uid: int
    tenant: int  # index of a TenantInfo
    command: str
    attached_ns: int
    alive: bool
    allocated_bytes: int


@dataclass(frozen=True, slots=True)
class Event:
    sequence: int
    time_ns: int
    kind: str
    severity: Severity
    pid: int
    pool: str  # empty: the device's own log
    text: str


@dataclass(frozen=True, slots=True)
class SelftestStep:
    name: str
    detail: str
    result: int  # 0 or -errno
    elapsed_ns: int

    @property
    def passed(self) -> bool:
        return self.result == 0


@dataclass(frozen=True, slots=True)
class CheckReport:
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
    repaired: int
    clients_dead: int
    clean: bool  # sound, or repaired


@dataclass(frozen=True, slots=True)
class Stats:
    """Counters and latency histograms of one pool since `since_ns`."""

    taken_ns: int
    since_ns: int
    counters: dict[str, int]
    histograms: dict[str, tuple[int, ...]]

    def histogram(self, op: str) -> list[int]:
        """Samples per bucket of "get", "put", "lookup" or "stage"; bounds: histogram_bounds()."""
        try:
            return list(self.histograms[op])
        except KeyError:
            raise InvalidError(errno.EINVAL, f"no histogram {op!r}; there are {', '.join(self.histograms)}") from None

    def quantile(self, op: str, share: float) -> int | None:
        """Nanoseconds below which `share` (0..1) of the samples lie; None when there are none."""
        return histogram_quantile(self.histogram(op), share)


@functools.cache
def histogram_bounds() -> tuple[int, ...]:
    """Inclusive upper bound, in nanoseconds, of every histogram bucket."""
    return tuple(int(lib.speckv_histogram_bound(bucket)) for bucket in range(lib.SPECKV_HIST_BUCKETS))


def histogram_quantile(buckets: typing.Sequence[int], share: float) -> int | None:
    """Value below which `share` (0..1) of a histogram's samples lie; None when it is empty."""
    if not 0.0 <= share <= 1.0:
        raise InvalidError(errno.EINVAL, f"a share is from 0 to 1, not {share}")
    if not any(buckets):
        return None
    return int(lib.speckv_histogram_quantile(ffi.new(f"uint64_t[{lib.SPECKV_HIST_BUCKETS}]", list(buckets)), share))


# ---- between C structs and these -------------------------------------------------------------------------------------


def text_of(field: Any) -> str:
    """A char array as text."""
    return str(ffi.string(field).decode("utf-8", "replace"))


def c_text(text: str) -> bytes:
    """Text as a C string; refused if C would truncate it."""
    encoded = text.encode("utf-8", "surrogateescape")
    if 0 in encoded:
        raise InvalidError(errno.EINVAL, f"{text!r} contains a NUL")
    return encoded


def put_text(struct: Any, field: str, text: str) -> None:
    """Copy text with its NUL into a char array; refused if it does not fit."""
    encoded = c_text(text)
    room = ffi.sizeof(getattr(struct, field)) - 1
    if len(encoded) > room:
        raise InvalidError(errno.EINVAL, f"{text!r}: a {field} has at most {room} bytes")
    setattr(struct, field, encoded)


def put_number(struct: Any, field: str, number: int) -> None:
    try:
        setattr(struct, field, number)
    except OverflowError as exc:
        raise InvalidError(errno.EINVAL, f"{field} cannot be {number}") from exc


def from_c(kind: type[_Struct], struct: Any) -> _Struct:
    """A dataclass from the C struct whose fields have the same names."""
    hints = _hints(typing.cast(typing.Hashable, kind))
    return kind(**{name: _convert(hint, name, struct) for name, hint in hints.items() if hasattr(struct, name)})


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _convert(hint: Any, name: str, struct: Any) -> object:
    value = getattr(struct, name)
    if name == "uuid":
        return str(uuid.UUID(bytes=bytes(ffi.buffer(value))))
    if name == "calibration":
        return _digest(value)
    if name == "codec_modes":
        return tuple(codec for bit, codec in members(Codec).items() if value >> bit & 1)
    if name == "kind":
        known = lib.speckv_event_kind_name(value)
        return text_of(known) if known else str(value)
    if hint is str:
        return text_of(value)
    if hint is bool:
        return bool(value)
    if hint is int or isinstance(hint, types.UnionType):
        return int(value)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return members(hint).get(int(value)) or _unknown(hint, int(value))
    return from_c(hint, value)


def _digest(field: Any) -> bytes | None:
    """A digest, if present; a configuration has only a pointer, which the library leaves NULL."""
    if ffi.typeof(field).kind == "pointer":
        return None
    digest = bytes(ffi.buffer(field))
    return digest if any(digest) else None


def _unknown(enum: type[StrEnum], value: int) -> StrEnum:
    """An unknown value, of a newer library or a damaged medium: passed through."""
    member = str.__new__(enum, f"unknown({value})")
    member._name_ = "UNKNOWN"
    member._value_ = str(member)
    return member


def stats_from_c(struct: Any) -> Stats:
    """Counters and histograms, under the lower-case C names."""

    def names(enum: str, prefix: str) -> list[tuple[int, str]]:
        elements = ffi.typeof(f"enum {enum}").elements
        return [
            (index, key.removeprefix(prefix).lower())
            for index, key in sorted(elements.items())
            if key.startswith(prefix)
        ]

    return Stats(
        taken_ns=int(struct.taken_ns),
        since_ns=int(struct.since_ns),
        counters={name: int(struct.counters[index]) for index, name in names("speckv_counter", "SPECKV_COUNT_")},
        histograms={name: tuple(struct.histograms[index]) for index, name in names("speckv_histogram", "SPECKV_HIST_")},
    )
