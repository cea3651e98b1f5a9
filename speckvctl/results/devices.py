# SPDX-License-Identifier: MIT
"""Documents about devices, among them cards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from speckvctl.exitcodes import ExitCode
from speckvctl.results.cards import Card, EmulatedCard
from speckvctl.results.document import Change, Document
from speckvctl.results.pools import Pool


@dataclass(frozen=True, kw_only=True)
class Device:
    """A host device or a card; counts are None where it is not ready to be counted."""

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
    allocated_bytes: int | None
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
    next: str | None = None


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
    pools_out_of_service: list[str]
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
