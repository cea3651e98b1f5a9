# SPDX-License-Identifier: MIT
"""Administration of a card over its privileged queue pair. Imported by this package."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from speckv import callbacks
from speckv._speckv import ffi, lib
from speckv.card.types import (
    ACTIVATIONS,
    Ability,
    CardError,
    CardEvent,
    CardInfo,
    Condition,
    Grant,
    Health,
    Image,
    ImageState,
    Restart,
    Setting,
    Slot,
    Started,
    bits_of,
    member_of,
    value_of,
    values_of,
)
from speckv.errors import InvalidError, check
from speckv.handle import Handle, Owner
from speckv.types import Codec, SelftestStep, Severity, Stats, c_text, from_c, members, stats_from_c, text_of

if TYPE_CHECKING:
    from speckv.context import Context

#: Called with bytes done and total; return True to stop, keeping what is done.
Progress = Callable[[int, int], bool | None]

_Item = TypeVar("_Item")


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
            abilities=bits_of(Ability, c.abilities),
            codec_modes=tuple(Codec(codec) for bit, codec in members(Codec).items() if c.codec_modes >> bit & 1),
            running=member_of(Image, c.running),
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
        return Health(conditions=bits_of(Condition, c.conditions), **numbers)

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
                image=member_of(Image, c.image),
                state=member_of(ImageState, c.state),
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
                lib.speckv_admin_firmware_received, value_of(Image, image), ffi.from_buffer(bundle), len(bundle), out
            )
        )
        return int(out[0])

    def download_firmware(self, image: str, bundle: bytes, progress: Progress | None = None) -> None:
        """Send a bundle to a slot, resuming an earlier download of it. Needs the lock."""
        relay = callbacks.Relay(progress or (lambda done, total: None))
        rc = self._handle.call(
            lib.speckv_admin_firmware_download,
            value_of(Image, image),
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
                lib.speckv_admin_firmware_commit, value_of(Image, image), ffi.from_buffer(bundle), len(bundle), flags
            )
        )

    def activate_firmware(self, image: str, bundle: bytes | None = None, *, dry_run: bool = False) -> Started:
        """Boot a committed bundle's slot, the golden or the previous image; or report what that requires."""
        out = ffi.new("struct speckv_activation *")
        data = ffi.NULL if bundle is None else ffi.from_buffer(bundle)
        flags = lib.SPECKV_ACTIVATE_DRY_RUN if dry_run else 0
        self._check(
            self._handle.call(
                lib.speckv_admin_firmware_activate, value_of(Image, image), data, len(bundle or b""), flags, out
            )
        )
        return Started(
            activation=ACTIVATIONS[int(out.need)],
            image=values_of(Image)[int(out.image)],
            has_engine=bool(out.engine),
        )

    # ---- settings, resets, tests

    def setting(self, setting: str) -> int:
        out = ffi.new("int64_t *")
        self._check(self._handle.call(lib.speckv_admin_setting, value_of(Setting, setting), out))
        return int(out[0])

    def set(self, setting: str, value: int, *, save: bool = False) -> None:
        """Change a setting; `save` keeps it over a power cycle."""
        flags = lib.SPECKV_SET_SAVE if save else 0
        try:
            rc = self._handle.call(lib.speckv_admin_set, value_of(Setting, setting), value, flags)
        except OverflowError as exc:
            raise InvalidError(errno.EINVAL, f"{setting} cannot be {value}") from exc
        self._check(rc)

    def reset(self, what: str = Restart.CARD) -> None:
        """Reset; Restart.CARD invalidates this connection."""
        self._check(self._handle.call(lib.speckv_admin_reset, value_of(Restart, what)))

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
