# SPDX-License-Identifier: MIT
"""Values of a card, and their enumerations in C. Imported by this package."""

from __future__ import annotations

import errno
import functools
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from speckv._speckv import ffi, lib
from speckv.errors import InvalidError, SpeckvError
from speckv.types import Codec, Severity

_Enum = TypeVar("_Enum", bound=StrEnum)


class Ability(StrEnum):
    ADMIN = "admin"
    ENGINE = "engine"
    PREDICTOR = "predictor"
    DIRECTORY = "directory"
    HDM = "hdm"
    FLASH = "flash"
    FLASH_SIGNATURE = "flash_signature"
    SHARED_DOORBELL = "shared_doorbell"
    PEER_DMA = "peer_dma"
    EMULATED = "emulated"
    INJECT = "inject"
    THERMAL = "thermal"


class Condition(StrEnum):
    """Conditions of an unhealthy card."""

    THROTTLED = "throttled"
    TRIPPED = "tripped"
    MEMORY = "memory"
    FELL_BACK = "fell_back"
    FATAL = "fatal"


class Image(StrEnum):
    """An image slot; PREVIOUS: the previously running image, for activation only."""

    GOLDEN = "golden"
    A = "a"
    B = "b"
    PREVIOUS = "previous"


class ImageState(StrEnum):
    EMPTY = "empty"
    WRITING = "writing"
    WRITTEN = "written"
    VERIFIED = "verified"
    TRIAL = "trial"
    GOOD = "good"
    REJECTED = "rejected"


class Activation(StrEnum):
    DONE = "done"
    NEEDS_RESCAN = "needs_rescan"
    NEEDS_POWER_CYCLE = "needs_power_cycle"


class Restart(StrEnum):
    """Scope of a reset: all queue pairs, the whole card, or its statistics."""

    ENGINE = "engine"
    CARD = "card"
    COUNTERS = "counters"


class Setting(StrEnum):
    THROTTLE_MILLICELSIUS = "throttle_millicelsius"
    INTERRUPT_COALESCING = "interrupt_coalescing"
    SCRUB_SECONDS = "scrub_seconds"
    PREFETCH_BYTES_PER_SECOND = "prefetch_bytes_per_second"
    PREFETCH_DEPTH = "prefetch_depth"
    RECALL_TIMEOUT_MS = "recall_timeout_ms"
    POLL_MICROSECONDS = "poll_microseconds"


#: Enum -> the C enum and the prefix of its members.
_C_ENUMS: dict[type[StrEnum], tuple[str, str]] = {
    Ability: ("speckv_ability", "SPECKV_ABILITY_"),
    Condition: ("speckv_condition", "SPECKV_CONDITION_"),
    Image: ("speckv_image", "SPECKV_IMAGE_"),
    ImageState: ("speckv_image_state", "SPECKV_IMAGE_"),
    Restart: ("speckv_restart", "SPECKV_RESTART_"),
    Setting: ("speckv_setting", "SPECKV_SETTING_"),
}
ACTIVATIONS = {
    int(lib.SPECKV_ACTIVATED): Activation.DONE,
    int(lib.SPECKV_ACTIVATED_NEEDS_RESCAN): Activation.NEEDS_RESCAN,
    int(lib.SPECKV_ACTIVATED_NEEDS_POWER_CYCLE): Activation.NEEDS_POWER_CYCLE,
}


@functools.cache
def names_of(enum: type[StrEnum]) -> dict[int, str]:
    """C value -> name of the member."""
    name, prefix = _C_ENUMS[enum]
    return {value: key.removeprefix(prefix) for value, key in ffi.typeof(f"enum {name}").elements.items()}


def values_of(enum: type[_Enum]) -> dict[int, _Enum]:
    return {value: enum[name] for value, name in names_of(enum).items()}


def member_of(enum: type[_Enum], value: int) -> _Enum:
    try:
        return values_of(enum)[value]
    except KeyError:
        raise SpeckvError(errno.EPROTONOSUPPORT, f"the card reports {value}, unknown to this build") from None


def value_of(enum: type[_Enum], member: str) -> int:
    for value, known in values_of(enum).items():
        if known == member:
            return value
    raise InvalidError(errno.EINVAL, f"{member!r} is not one of {', '.join(values_of(enum).values())}")


def bits_of(enum: type[_Enum], value: int) -> tuple[_Enum, ...]:
    return tuple(member for bit, member in sorted(values_of(enum).items()) if value & bit)


@dataclass(frozen=True, slots=True)
class CardInfo:
    name: str
    path: str
    model: str
    serial: str
    part: str
    uuid: str
    map_version: str
    rtl_revision: str  # of the running image
    build_id: bytes
    abilities: tuple[Ability, ...]
    codec_modes: tuple[Codec, ...]
    running: Image
    security_version: int
    pools: int
    pools_max: int
    functions_max: int
    queue_pairs_max: int
    sessions: int
    transfer_bytes: int
    memory_bytes: int
    memory_free_bytes: int
    model_digest: bytes | None  # SHA-256 of the prefetcher's file; None: none is loaded
    key_ids: tuple[bytes, ...]  # of the keys that may sign bundles

    @property
    def has_engine(self) -> bool:
        """False: the factory personality, which has no pools."""
        return Ability.ENGINE in self.abilities


@dataclass(frozen=True, slots=True)
class Health:
    temperature_millicelsius: int
    throttle_millicelsius: int
    trip_millicelsius: int
    conditions: tuple[Condition, ...]  # empty: healthy
    uptime_ns: int
    power_cycles: int
    unsafe_power_cycles: int
    corrected_errors: int
    uncorrected_errors: int
    poisoned_pages: int
    throttled_ns: int
    flash_erases: int
    outstanding: int
    link_megatransfers: int  # the link: 0 if the card does not report it
    link_lanes: int
    link_megatransfers_most: int
    link_lanes_most: int


@dataclass(frozen=True, slots=True)
class Slot:
    image: Image
    state: ImageState
    running: bool
    rtl_revision: str
    security_version: int
    boots: int
    build_id: bytes
    bitstream_bytes: int
    received_bytes: int
    committed_ns: int
    bitstream_sha256: bytes
    key_id: bytes
    reason: str  # why it was rejected


@dataclass(frozen=True, slots=True)
class Started:
    """What an activation requires, and the next boot image."""

    activation: Activation
    image: Image
    has_engine: bool  # False: pools are unavailable until an image with an engine runs


@dataclass(frozen=True, slots=True)
class Grant:
    """Rights of one function to one pool."""

    function: int
    queue: int  # 0xffff: every queue pair of the function
    pool: int
    can_write: bool


@dataclass(frozen=True, slots=True)
class CardEvent:
    sequence: int
    time_ns: int
    kind: str
    severity: Severity
    function: int
    pool: int  # its number; 0: none
    value: int
    text: str


@dataclass(frozen=True, slots=True)
class CardError:
    """A command that failed."""

    sequence: int
    time_ns: int
    function: int
    queue: int  # 0xffff: the admin queue
    command_id: int
    opcode: int
    pool: int
    field: int
    status: int
    address: int
    text: str
