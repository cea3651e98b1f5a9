# SPDX-License-Identifier: MIT
"""The processes behind emulated cards: list, status, faults. Imported by this package."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from speckv._speckv import ffi, lib
from speckv.card.types import Image, member_of
from speckv.errors import InvalidError, NotFoundError, SpeckvError, check
from speckv.types import c_text, text_of

if TYPE_CHECKING:
    from speckv.context import Context

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
        running=member_of(Image, int(said["running_slot"])),
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
