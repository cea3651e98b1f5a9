# SPDX-License-Identifier: MIT
"""Documents about devices, among them cards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from speckvctl.exitcodes import ExitCode
from speckvctl.results.cards import Card, EmulatedCard
from speckvctl.results.described import Said
from speckvctl.results.document import Change, Document
from speckvctl.results.pools import Pool
from speckvctl.results.words import DEVICE_STATES


@dataclass(frozen=True, kw_only=True)
class Device:
    """A host device or a card; counts are None where it is not ready to be counted."""

    name: Annotated[str, Said("Name.")]
    kind: Annotated[str, Said("Kind.", enum=["host-engine", "card"])]
    state: Annotated[
        str,
        Said(
            "State.",
            enum=[*DEVICE_STATES],
        ),
    ]
    found: Annotated[str, Said("Description of what is there, one line.")]
    path: Annotated[str, Said("File or node that holds it.")]
    uuid: Annotated[str | None, Said("RFC 9562 identifier.")]
    layout_version: Annotated[int | None, Said("Version of the medium's layout.", minimum=0)]
    durability: Annotated[
        str | None,
        Said(
            "What survives: 'process' is lost at reboot, 'power' survives power loss.", enum=["process", "power", None]
        ),
    ]
    single_inode: Annotated[bool, Said("True: all pools lie in one inode and share one owner.")]
    numa_node: Annotated[int | None, Said("NUMA node; null when it has none.", minimum=0)]
    uid: Annotated[int | None, Said("Owner.", minimum=0)]
    gid: Annotated[int | None, Said("Group.", minimum=0)]
    mode: Annotated[str | None, Said("Permission bits, octal, as text.", pattern="^0[0-7]{3}$")]
    pools: Annotated[int | None, Said("Pools.", minimum=0)]
    codecs: Annotated[list[str], Said("Modes this device encodes and decodes.")]
    capacity_bytes: Annotated[int | None, Said("Room for data; on a device: for all pools together.", minimum=0)]
    allocated_bytes: Annotated[
        int | None,
        Said(
            "Bytes taken by pools, full or empty, and by their tables; what pools hold is their used_bytes.", minimum=0
        ),
    ]
    free_bytes: Annotated[int | None, Said("Bytes that can still be taken.", minimum=0)]
    created_ns: Annotated[int | None, Said("When it was made, CLOCK_REALTIME.", minimum=0)]
    manager_pid: Annotated[int | None, Said("Process that holds the manager lock now; null when none does.", minimum=0)]
    manager_command: Annotated[str | None, Said("The name of its program.")]


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """A piece of hardware that could carry an engine (or is a card), as the kernel shows it."""

    kind: Annotated[str, Said("Kind.", enum=["card", "factory-card", "cxl-memory", "dax", "numa"])]
    name: Annotated[str, Said("Name.")]
    sysfs_path: Annotated[str, Said("Where the kernel shows it.")]
    driver: Annotated[str | None, Said("Kernel driver bound to it.")]
    vendor_id: Annotated[int | None, Said("PCI vendor.", minimum=0)]
    device_id: Annotated[int | None, Said("PCI device.", minimum=0)]
    numa_node: Annotated[int | None, Said("NUMA node; null when it has none.", minimum=0)]
    capacity_bytes: Annotated[int | None, Said("Room for data; on a device: for all pools together.", minimum=0)]
    note: Annotated[str | None, Said("Why it is not usable yet and what to type next; null when it is usable.")]


@dataclass(frozen=True, kw_only=True)
class DeviceList(Document):
    """What `speckvctl device list --json` prints."""

    schema: ClassVar[str] = "speckvctl.device-list"
    devices: Annotated[list[Device], Said("Host engines that exist.")]
    hardware: Annotated[
        list[Hardware] | None, Said("Cards and memory that the kernel shows; null when it cannot be asked.")
    ]
    next: Annotated[str | None, Said("What to type next where there is nothing to show yet.")] = None


@dataclass(frozen=True, kw_only=True)
class DeviceShow(Document):
    """What `speckvctl device show --json` prints."""

    schema: ClassVar[str] = "speckvctl.device-show"
    device: Annotated[Device, Said("The device.")]
    pools: Annotated[list[Pool], Said("Pools.")]
    card: Annotated[
        Card | None, Said("What only a card has; null for a host device, and for a card that does not answer.")
    ]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a self-test."""

    name: Annotated[str, Said("Name.")]
    passed: Annotated[bool, Said("True when nothing failed.")]
    errno: Annotated[str | None, Said("Symbolic errno, such as ENOENT; null when there was none.")]
    elapsed_ns: Annotated[int, Said("Time it took.", minimum=0)]
    detail: Annotated[str, Said("Description, one line.")]


@dataclass(frozen=True, kw_only=True)
class DeviceSelftest(Document):
    """What `speckvctl device selftest --json` prints."""

    schema: ClassVar[str] = "speckvctl.device-selftest"
    device: Annotated[str, Said("Name of the device, as typed.")]
    passed: Annotated[bool, Said("True when nothing failed.")]
    steps: Annotated[list[Step], Said("Steps, in the order they ran.")]

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode.DONE if self.passed else ExitCode.VERIFICATION_FAILED


@dataclass(frozen=True, kw_only=True)
class DeviceClose(Document):
    """What `speckvctl device close --json` prints."""

    schema: ClassVar[str] = "speckvctl.device-close"
    device: Annotated[str, Said("Name of the device, as typed.")]
    dry_run: Annotated[bool, Said("True: nothing was changed.")]
    pools_destroyed: Annotated[list[str], Said("Names of the pools that went with it.")]
    blocks_lost: Annotated[int, Said("Blocks that were stored there; null when they could not be counted.", minimum=0)]
    bytes_freed: Annotated[int, Said("Bytes given back to the device or the system.", minimum=0)]


@dataclass(frozen=True, kw_only=True)
class DeviceSet(Document):
    """What `speckvctl device set --json` prints."""

    schema: ClassVar[str] = "speckvctl.device-set"
    device: Annotated[str, Said("Name of the device, as typed.")]
    dry_run: Annotated[bool, Said("True: nothing was changed.")]
    saved: Annotated[bool, Said("True: kept over a power cycle.")]
    changes: Annotated[list[Change], Said("Settings that changed, as text.")]
    settings: Annotated[dict[str, int], Said("Every setting of the card, by name, afterwards.")]


@dataclass(frozen=True, kw_only=True)
class DeviceReset(Document):
    """What `speckvctl device reset --json` prints."""

    schema: ClassVar[str] = "speckvctl.device-reset"
    device: Annotated[str, Said("Name of the device, as typed.")]
    dry_run: Annotated[bool, Said("True: nothing was changed.")]
    what: Annotated[str, Said("What was started again.", enum=["card", "engine", "counters"])]
    running_image: Annotated[str, Said("Image that runs: golden, a or b.")]
    functions_lost: Annotated[int, Said("Connections of clients that were taken away.", minimum=0)]


@dataclass(frozen=True, kw_only=True)
class DeviceInject(Document):
    """What `speckvctl device inject --json` prints."""

    schema: ClassVar[str] = "speckvctl.device-inject"
    device: Annotated[str, Said("Name of the device, as typed.")]
    dry_run: Annotated[bool, Said("True: nothing was changed.")]
    fault: Annotated[str, Said("Fault, by name.")]
    pool: Annotated[str | None, Said("Pool that it is about.")]
    value: Annotated[int, Said("As the fault says.")]
    count: Annotated[int, Said("How many times.", minimum=0)]


@dataclass(frozen=True, kw_only=True)
class Flash(Document):
    """What `speckvctl flash --json` prints.

    What is in the running image is read back from the card, after it was started again.
    """

    schema: ClassVar[str] = "speckvctl.flash"
    device: Annotated[str, Said("Name of the device, as typed.")]
    dry_run: Annotated[bool, Said("True: nothing was changed.")]
    action: Annotated[str, Said("What was asked for.", enum=["flash", "rollback", "golden"])]
    bundle: Annotated[str | None, Said("File of the bundle; null when none was named.")]
    bundle_bytes: Annotated[int | None, Said("Size of the bundle.", minimum=0)]
    bundle_sha256: Annotated[str | None, Said("SHA-256 of the bundle, 64 hexadecimal digits.")]
    bundle_revision: Annotated[str | None, Said("Revision of the logic, as the manifest says.")]
    image: Annotated[str, Said("Image that was, or would be, started: a, b or golden.", enum=["a", "b", "golden"])]
    resumed_bytes: Annotated[int, Said("Bytes that an earlier, interrupted try had sent.", minimum=0)]
    pools_out_of_service: Annotated[
        list[str],
        Said(
            "Pools that going back takes out of service: while the card starts, or until an image with an engine runs."
        ),
    ]
    activation: Annotated[
        str | None,
        Said(
            "What starting it took: 'done', 'needs_rescan' (it became another device, and was "
            "looked for again) or 'needs_power_cycle'; null in a dry run.",
            enum=["done", "needs_rescan", "needs_power_cycle", None],
        ),
    ]
    before_image: Annotated[str, Said("Image that ran before.")]
    before_revision: Annotated[str, Said("Its revision.")]
    running_image: Annotated[str, Said("Image that runs: golden, a or b.")]
    running_revision: Annotated[str, Said("Revision of what runs now.")]
    verified: Annotated[bool, Said("True: what runs was read back, and is what was asked for.")]
    audit: Annotated[str | None, Said("File of the audit record; null when none was written.")]


@dataclass(frozen=True, kw_only=True)
class EmuStart(Document):
    """What `speckvctl emu start --json` prints."""

    schema: ClassVar[str] = "speckvctl.emu-start"
    dry_run: Annotated[bool, Said("True: nothing was changed.")]
    card: Annotated[EmulatedCard, Said("The card.")]


@dataclass(frozen=True, kw_only=True)
class EmuStop(Document):
    """What `speckvctl emu stop --json` prints."""

    schema: ClassVar[str] = "speckvctl.emu-stop"
    dry_run: Annotated[bool, Said("True: nothing was changed.")]
    name: Annotated[str, Said("Name of the card, without emu:.")]
    stopped: Annotated[bool, Said("True: it was running, and is not any more.")]
    killed: Annotated[bool, Said("True: it did not end by itself.")]
    removed: Annotated[bool, Said("True: its memory, flash and keys are gone.")]


@dataclass(frozen=True, kw_only=True)
class EmuList(Document):
    """What `speckvctl emu list --json` prints."""

    schema: ClassVar[str] = "speckvctl.emu-list"
    cards: Annotated[list[EmulatedCard], Said("Emulated cards of the runtime folder.")]


@dataclass(frozen=True, kw_only=True)
class EmuStatus(Document):
    """What `speckvctl emu status --json` prints."""

    schema: ClassVar[str] = "speckvctl.emu-status"
    card: Annotated[EmulatedCard, Said("The card.")]
