# SPDX-License-Identifier: MIT
"""Administration of cards: identity, health, logs, firmware, settings, tests, prefetcher; and control of emulated
cards' processes.

with speckv.Context() as context, speckv.card.Admin(context, "emu:card0") as admin:
    print(admin.info().part, admin.health().temperature_millicelsius)
"""

from __future__ import annotations

import errno
import functools
import json
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeVar

from speckv import callbacks
from speckv._speckv import ffi, lib
from speckv.errors import InvalidError, NotFoundError, SpeckvError, check
from speckv.handle import Handle, Owner
from speckv.types import Codec, SelftestStep, Severity, Stats, c_text, from_c, members, stats_from_c, text_of

if TYPE_CHECKING:
    from speckv.context import Context

#: Called with bytes done and total; return True to stop, keeping what is done.
Progress = Callable[[int, int], bool | None]

_Enum = TypeVar("_Enum", bound=StrEnum)
_Item = TypeVar("_Item")


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
_ACTIVATIONS = {
    int(lib.SPECKV_ACTIVATED): Activation.DONE,
    int(lib.SPECKV_ACTIVATED_NEEDS_RESCAN): Activation.NEEDS_RESCAN,
    int(lib.SPECKV_ACTIVATED_NEEDS_POWER_CYCLE): Activation.NEEDS_POWER_CYCLE,
}


@functools.cache
def _names(enum: type[StrEnum]) -> dict[int, str]:
    """C value -> name of the member."""
    name, prefix = _C_ENUMS[enum]
    return {value: key.removeprefix(prefix) for value, key in ffi.typeof(f"enum {name}").elements.items()}


def _values(enum: type[_Enum]) -> dict[int, _Enum]:
    return {value: enum[name] for value, name in _names(enum).items()}


def _member(enum: type[_Enum], value: int) -> _Enum:
    try:
        return _values(enum)[value]
    except KeyError:
        raise SpeckvError(errno.EPROTONOSUPPORT, f"the card says {value}, which this build does not know") from None


def _value(enum: type[_Enum], member: str) -> int:
    for value, known in _values(enum).items():
        if known == member:
            return value
    raise InvalidError(errno.EINVAL, f"{member!r} is not one of {', '.join(_values(enum).values())}")


def _bits(enum: type[_Enum], value: int) -> tuple[_Enum, ...]:
    return tuple(member for bit, member in sorted(_values(enum).items()) if value & bit)


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


class Admin(Owner):
    """An administrator's connection to a card. Close it, or use it as a context manager."""

    def __init__(self, context: Context, name: str) -> None:
        self.name = name
        self._ctx = context._ctx

        def connected(ctx: Any) -> Handle:
            out = ffi.new("struct speckv_admin **")
            self._check(lib.speckv_admin_open(ctx, c_text(name), out))
            return Handle(f"administration of {name}", out[0], lib.speckv_admin_close, context._handle)

        self._handle = context._handle.call(connected)

    def info(self) -> CardInfo:
        c = ffi.new("struct speckv_card_info *")
        self._check(self._handle.call(lib.speckv_admin_info, c))
        ids = bytes(ffi.buffer(c.key_ids))
        return CardInfo(
            name=text_of(c.name),
            path=os.fsdecode(ffi.string(c.path)),
            model=text_of(c.model),
            serial=text_of(c.serial),
            part=text_of(c.part),
            uuid=str(uuid.UUID(bytes=bytes(ffi.buffer(c.uuid)))),
            map_version=f"{c.map_major}.{c.map_minor}",
            rtl_revision=_revision(c),
            build_id=_build_id(c),
            abilities=_bits(Ability, c.abilities),
            codec_modes=tuple(Codec(codec) for bit, codec in members(Codec).items() if c.codec_modes >> bit & 1),
            running=_member(Image, c.running),
            security_version=int(c.security_version),
            pools=int(c.pools),
            pools_max=int(c.pools_max),
            functions_max=int(c.functions_max),
            queue_pairs_max=int(c.queue_pairs_max),
            sessions=int(c.sessions),
            transfer_bytes=int(c.transfer_bytes),
            memory_bytes=int(c.memory_bytes),
            memory_free_bytes=int(c.memory_free_bytes),
            model_digest=bytes(ffi.buffer(c.model_digest)) if c.has_model else None,
            key_ids=tuple(ids[32 * i : 32 * i + 32] for i in range(c.keys)),
        )

    def health(self) -> Health:
        c = ffi.new("struct speckv_card_health *")
        self._check(self._handle.call(lib.speckv_admin_health, c))
        numbers = {name: int(getattr(c, name)) for name in Health.__slots__ if name != "conditions"}
        return Health(conditions=_bits(Condition, c.conditions), **numbers)

    def stats(self, pool: int = 0) -> Stats:
        """Counters and latencies of the card, or of one pool by its number."""
        c = ffi.new("struct speckv_stats *")
        self._check(self._handle.call(lib.speckv_admin_stats, pool, c))
        return stats_from_c(c)

    def pool_number(self, name: str) -> int:
        """The card's number of a pool."""
        out = ffi.new("uint32_t *")
        self._check(self._handle.call(lib.speckv_admin_pool, c_text(name), out))
        return int(out[0])

    def grants(self) -> list[Grant]:
        """The grants in force: functions and their rights to pools."""

        def convert(c: Any) -> Grant:
            return Grant(can_write=bool(c.can_write), **_numbers(c, "function", "queue", "pool"))

        return self._collect(lib.speckv_admin_grants, callbacks.CARD_GRANT, convert)

    # ---- logs

    def events(self, after: int = 0) -> list[CardEvent]:
        """Events after a sequence number, oldest first."""

        def convert(c: Any) -> CardEvent:
            name = lib.speckv_card_event_name(c.kind)
            return CardEvent(
                kind=text_of(name) if name else str(c.kind),
                severity=Severity(members(Severity).get(int(c.severity), Severity.ERROR)),
                text=text_of(c.text),
                **_numbers(c, "sequence", "time_ns", "function", "pool", "value"),
            )

        return self._collect(lib.speckv_admin_events, callbacks.CARD_EVENT, convert, after)

    def errors(self, after: int = 0) -> list[CardError]:
        """Commands that failed, after a sequence number, oldest first."""
        names = [name for name in CardError.__slots__ if name != "text"]
        return self._collect(
            lib.speckv_admin_errors,
            callbacks.CARD_ERROR,
            lambda c: CardError(text=text_of(c.text), **_numbers(c, *names)),
            after,
        )

    # ---- firmware

    def slots(self) -> list[Slot]:
        """Golden, A and B; none on a card without flash."""

        def convert(c: Any) -> Slot:
            return Slot(
                image=_member(Image, c.image),
                state=_member(ImageState, c.state),
                running=bool(c.running),
                rtl_revision=_revision(c),
                build_id=_build_id(c),
                bitstream_sha256=bytes(ffi.buffer(c.bitstream_sha256)),
                key_id=bytes(ffi.buffer(c.key_id)),
                reason=text_of(c.reason),
                **_numbers(c, "security_version", "boots", "bitstream_bytes", "received_bytes", "committed_ns"),
            )

        return self._collect(lib.speckv_admin_slots, callbacks.CARD_SLOT, convert)

    def lock_firmware(self, *, dry_run: bool = False) -> None:
        """Lock the card's flash for writing, until close; BusyError names the holder.

        A dry run only checks that no other process holds the lock.
        """
        self._check(self._handle.call(lib.speckv_admin_firmware_lock, lib.SPECKV_LOCK_DRY_RUN if dry_run else 0))

    def firmware_received(self, image: str, bundle: bytes) -> int:
        """Bytes of this bundle that a slot has received."""
        out = ffi.new("uint64_t *")
        self._check(
            self._handle.call(
                lib.speckv_admin_firmware_received, _value(Image, image), ffi.from_buffer(bundle), len(bundle), out
            )
        )
        return int(out[0])

    def download_firmware(self, image: str, bundle: bytes, progress: Progress | None = None) -> None:
        """Send a bundle to a slot, resuming an earlier download of it. Needs the lock."""
        relay = callbacks.Relay(progress or (lambda done, total: None))
        rc = self._handle.call(
            lib.speckv_admin_firmware_download,
            _value(Image, image),
            ffi.from_buffer(bundle),
            len(bundle),
            callbacks.PROGRESS if progress else ffi.NULL,
            relay.arg,
        )
        relay.finish()
        self._check(rc)

    def commit_firmware(self, image: str, bundle: bytes, *, dry_run: bool = False) -> None:
        """Have the card verify a downloaded bundle and enter it in its boot record.

        Needs the lock, except for a dry run.
        """
        flags = lib.SPECKV_COMMIT_DRY_RUN if dry_run else 0
        self._check(
            self._handle.call(
                lib.speckv_admin_firmware_commit, _value(Image, image), ffi.from_buffer(bundle), len(bundle), flags
            )
        )

    def activate_firmware(self, image: str, bundle: bytes | None = None, *, dry_run: bool = False) -> Started:
        """Boot a committed bundle's slot, the golden or the previous image; or report what that requires."""
        out = ffi.new("struct speckv_activation *")
        data = ffi.NULL if bundle is None else ffi.from_buffer(bundle)
        flags = lib.SPECKV_ACTIVATE_DRY_RUN if dry_run else 0
        self._check(
            self._handle.call(
                lib.speckv_admin_firmware_activate, _value(Image, image), data, len(bundle or b""), flags, out
            )
        )
        return Started(
            activation=_ACTIVATIONS[int(out.need)],
            image=_values(Image)[int(out.image)],
            has_engine=bool(out.engine),
        )

    # ---- settings, resets, tests

    def setting(self, setting: str) -> int:
        out = ffi.new("int64_t *")
        self._check(self._handle.call(lib.speckv_admin_setting, _value(Setting, setting), out))
        return int(out[0])

    def set(self, setting: str, value: int, *, save: bool = False) -> None:
        """Change a setting; `save` keeps it over a power cycle."""
        flags = lib.SPECKV_SET_SAVE if save else 0
        try:
            rc = self._handle.call(lib.speckv_admin_set, _value(Setting, setting), value, flags)
        except OverflowError as exc:
            raise InvalidError(errno.EINVAL, f"{setting} cannot be {value}") from exc
        self._check(rc)

    def reset(self, what: str = Restart.CARD) -> None:
        """Reset; Restart.CARD invalidates this connection."""
        self._check(self._handle.call(lib.speckv_admin_reset, _value(Restart, what)))

    def selftest(self, on_step: Callable[[SelftestStep], None] | None = None) -> list[SelftestStep]:
        """Run every self-test; a step that fails is in the list, not an exception. Changes nothing that is stored."""
        steps: list[SelftestStep] = []

        def collect(item: Any) -> None:
            steps.append(from_c(SelftestStep, item))
            if on_step is not None:
                on_step(steps[-1])

        relay = callbacks.Relay(collect)
        rc = self._handle.call(lib.speckv_admin_selftest, callbacks.SELFTEST, relay.arg)
        relay.finish()
        if all(step.passed for step in steps):
            self._check(rc)  # it could not start
        return steps

    # ---- prefetcher

    def load_model(self, file: bytes, progress: Progress | None = None) -> None:
        """Load a prefetcher; the previous one stays in force until the load is complete."""
        relay = callbacks.Relay(progress or (lambda done, total: None))
        rc = self._handle.call(
            lib.speckv_admin_model_load,
            ffi.from_buffer(file),
            len(file),
            callbacks.PROGRESS if progress else ffi.NULL,
            relay.arg,
        )
        relay.finish()
        self._check(rc)

    def unload_model(self) -> None:
        self._check(self._handle.call(lib.speckv_admin_model_unload))

    # ----

    def _check(self, rc: int) -> None:
        check(rc, self._ctx)

    def _collect(self, function: Any, callback: Any, convert: Callable[[Any], _Item], *arguments: int) -> list[_Item]:
        found: list[_Item] = []
        relay = callbacks.Relay(lambda item: found.append(convert(item)))
        rc = self._handle.call(function, *arguments, callback, relay.arg)
        relay.finish()
        self._check(rc)
        return found

    def __repr__(self) -> str:
        return f"<speckv.card.Admin of {self.name}{' closed' if self._handle.closed else ''}>"


def _numbers(c: Any, *names: str) -> dict[str, int]:
    return {name: int(getattr(c, name)) for name in names}


def _revision(c: Any) -> str:
    return f"{c.rtl_major}.{c.rtl_minor}.{c.rtl_patch}"


def _build_id(c: Any) -> bytes:
    return int(c.build_id).to_bytes(8, "little")


# ---- the process behind an emulated card -----------------------------------------------------------------------------

_ANSWER_BYTES = 16384


@dataclass(frozen=True, slots=True)
class Connection:
    """A function of an emulated card: the process that connected."""

    function: int
    admin: bool
    pid: int
    uid: int


@dataclass(frozen=True, slots=True)
class EmulatorStatus:
    name: str
    pid: int
    memory_bytes: int
    engine: bool
    running: Image
    started_ns: int
    connections: tuple[Connection, ...]


def is_card(device: str) -> bool:
    """Whether a device name is a card's, by its scheme; the card need not exist."""
    return bool(lib.speckv_device_is_card(c_text(device)))


def emulated(context: Context) -> list[str]:
    """Device names of the emulated cards of the runtime folder, running or not."""
    try:
        os.close(context.open_folder(context.runtime_dir, group=True))  # checked even without cards in it
        folder = context.open_folder(os.path.join(context.runtime_dir, "emu"), group=True, link=False)
    except NotFoundError:
        return []
    try:
        names = sorted(os.listdir(folder))
    finally:
        os.close(folder)
    return [f"emu:{name}" for name in names if not name.startswith(".")]


def control(context: Context, name: str, command: str) -> dict[str, Any]:
    """One command of the emulator, and its answer."""
    answer = ffi.new("char[]", _ANSWER_BYTES)
    rc = context._handle.call(lib.speckv_emu_control, c_text(name), c_text(command), answer, _ANSWER_BYTES)
    check(rc, context._ctx)
    try:
        said = json.loads(text_of(answer))
        if not isinstance(said, dict):
            raise ValueError(said)
    except ValueError as exc:
        raise SpeckvError(errno.EPROTO, f"{name}: unexpected answer of its emulator: {exc}") from exc
    return said


def status(context: Context, name: str) -> EmulatorStatus:
    said = control(context, name, "status")
    return EmulatorStatus(
        name=str(said["name"]),
        pid=int(said["pid"]),
        memory_bytes=int(said["memory_bytes"]),
        engine=bool(said["engine"]),
        running=_member(Image, int(said["running_slot"])),
        started_ns=int(said["started_ns"]),
        connections=tuple(
            Connection(int(one["function"]), bool(one["admin"]), int(one["pid"]), int(one["uid"]))
            for one in said["connections"]
        ),
    )


def stop(context: Context, name: str) -> None:
    """Ask an emulated card to exit; its state is kept."""
    control(context, name, "stop")


def inject(context: Context, name: str, fault: str, *, pool: int = 0, value: int = 0, count: int = 1) -> None:
    """Inject a fault from FAULTS into an emulated card."""
    if fault not in FAULTS:
        raise InvalidError(errno.EINVAL, f"no fault '{fault}'; there are {', '.join(FAULTS)}")
    control(context, name, f"inject {fault} {pool} {value} {count}")


#: Faults of an emulated card, with the use of `value`, `count` and `pool`.
FAULTS: dict[str, str] = {
    "lost-interrupt": "the next COUNT interrupts do not arrive",
    "duplicate-interrupt": "the next COUNT interrupts arrive twice",
    "poison": "the page at address VALUE of pool POOL has an uncorrectable error; COUNT 0 heals it",
    "corrected-error": "COUNT corrected memory errors are counted",
    "torn-program": "the next flash write stops after VALUE bytes",
    "torn-erase": "the next flash erase stops after VALUE bytes",
    "slow": "the next COUNT I/O commands take VALUE nanoseconds longer; POOL: only that one's",
    "stuck": "the next COUNT I/O commands never complete",
    "unstick": "commands that hang go on",
    "lost-completion": "the next COUNT I/O commands are carried out and not answered",
    "bad-boot": "the next COUNT first boots of an image do not report healthy",
    "fatal": "the card stops; VALUE: cause of register FATAL_CAUSE",
    "temperature": "the card is VALUE millidegrees Celsius warm",
    "power-cut": "power is lost when VALUE more bytes of flash were written or erased",
}
