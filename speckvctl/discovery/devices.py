# SPDX-License-Identifier: MIT
"""Hardware that can hold KV pools: cards, CXL memory, dax devices, memory-only NUMA nodes."""

from __future__ import annotations

import errno
import importlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from speckvctl.discovery import identification as ids

_NODE = re.compile(r"node([0-9]{1,9})")
_MEMORY_TOTAL = re.compile(r"MemTotal:\s+([0-9]{1,18}) kB")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,19}|0x[0-9a-fA-F]{1,16}")
_NODE_MAX = 1 << 15
_INTERLEAVE_MAX = 64  # ways; the CXL specification has 16


class DiscoveryError(OSError):
    """Devices cannot be enumerated on this machine at all (libudev or pyudev is missing)."""

    errno = errno.EOPNOTSUPP


class FoundKind(StrEnum):
    CARD = "card"
    FACTORY_CARD = "factory-card"
    CXL_MEMORY = "cxl-memory"
    DAX = "dax"
    NUMA = "numa"


@dataclass(frozen=True, slots=True)
class Found:
    """One piece of hardware. `name` is its command-line name; `sysfs_path` identifies it."""

    kind: FoundKind
    name: str
    sysfs_path: str
    capacity_bytes: int | None = None
    numa_node: int | None = None
    driver: str | None = None
    vendor_id: int | None = None
    device_id: int | None = None
    note: str | None = None
    """Why it is not usable yet and what to type next; None when a pool can be made on it now."""


def udev_context() -> Any:
    """A connection to udev. pyudev and libudev are loaded here, so that commands without discovery do not pay for
    them."""
    try:
        return importlib.import_module("pyudev").Context()
    except (ImportError, OSError, AttributeError) as error:  # no pyudev; libudev.so.1 missing or damaged
        missing = "pyudev" if isinstance(error, ModuleNotFoundError) else "libudev"
        advice = "pip install pyudev" if missing == "pyudev" else "Debian, Ubuntu: apt install libudev1"
        raise DiscoveryError(f"cannot look for devices: {missing} cannot be loaded ({advice})") from error


def discover(context: Any | None = None, sysfs_root: str = "/sys") -> list[Found]:
    """All hardware, cards first, in a stable order. Devices removed during discovery are left out."""
    context = udev_context() if context is None else context
    dax = [_Device(device) for device in context.list_devices(subsystem="dax")]
    found = [
        *_cards(context),
        *_cxl(context, dax),
        *_dax(dax, sysfs_root),
        *memory_nodes(sysfs_root),
    ]
    order = list(FoundKind)
    return sorted(found, key=lambda item: (order.index(item.kind), _natural(item.name)))


def memory_nodes(sysfs_root: str = "/sys") -> list[Found]:
    """NUMA nodes with memory and no CPUs: CXL (or other) memory onlined as system memory."""
    found = []
    for folder in Path(sysfs_root, "devices/system/node").glob("node*"):
        match = _NODE.fullmatch(folder.name)
        if match is None:
            continue
        try:
            cpus = folder.joinpath("cpulist").read_text(encoding="ascii", errors="replace").strip()
            memory = _MEMORY_TOTAL.search(folder.joinpath("meminfo").read_text(encoding="ascii", errors="replace"))
        except OSError:
            continue
        capacity = _size(int(memory[1]) * 1024) if memory else None
        node = int(match[1])
        if cpus or not capacity or node > _NODE_MAX:
            continue
        found.append(Found(FoundKind.NUMA, f"host:numa{node}", str(folder), capacity, numa_node=node))
    return found


def _size(value: int | None) -> int | None:
    """A plausible size in bytes; None otherwise."""
    return None if value is None or value >= 1 << 60 else value


class _Device:
    """Typed access to a udev device's attributes; missing or unreadable: None."""

    def __init__(self, device: Any) -> None:
        self.raw = device
        self.path: str = device.sys_path
        self.name: str = device.sys_name
        self.node: str | None = device.device_node
        self.type: str | None = device.device_type

    def text(self, attribute: str) -> str | None:
        try:
            value = self.raw.attributes.get(attribute)
        except OSError:
            return None
        return None if value is None else value.decode("utf-8", "replace").strip()

    def number(self, attribute: str) -> int | None:
        """Parse decimal, or hexadecimal with 0x, as the kernel writes them; negative: None."""
        value = self.text(attribute)
        return int(value, 0) if value is not None and _NUMBER.fullmatch(value) else None

    def size(self, attribute: str = "size") -> int | None:
        return _size(self.number(attribute))

    def short(self, attribute: str) -> int | None:
        """An id of 16 bits."""
        value = self.number(attribute)
        return None if value is None or value > 0xFFFF else value

    def node_number(self, attribute: str) -> int | None:
        node = self.number(attribute)
        return None if node is None or node > _NODE_MAX else node

    @property
    def numa_node(self) -> int | None:
        return self.node_number("numa_node")

    @property
    def driver(self) -> str | None:
        return _link_name(self.path, "driver")


def _cards(context: Any) -> Iterator[Found]:
    nodes: dict[str, _Device] = {}  # PCI function's path -> its class device
    for raw in context.list_devices(subsystem=ids.CLASS_NAME):
        parent = raw.find_parent("pci")
        device = _Device(raw)
        if parent is None:
            yield Found(
                FoundKind.CARD,
                device.node or f"/dev/{device.name}",
                device.path,
                device.size("capacity_bytes"),
                device.numa_node,
                ids.CLASS_NAME,
            )
        else:
            nodes[parent.sys_path] = device
    for raw in context.list_devices(subsystem="pci"):
        function = _Device(raw)
        vendor, device_id = function.number("vendor"), function.number("device")
        if vendor != ids.PCI_VENDOR or device_id not in (ids.PCI_DEVICE_CARD, ids.PCI_DEVICE_FACTORY):
            continue
        node = nodes.get(function.path)
        factory = device_id == ids.PCI_DEVICE_FACTORY
        driver = function.driver
        yield Found(
            FoundKind.FACTORY_CARD if factory else FoundKind.CARD,
            function.name if node is None else node.node or f"/dev/{node.name}",
            function.path,
            None if node is None else node.size("capacity_bytes"),
            function.numa_node,
            driver,
            vendor,
            device_id,
            _card_note(function.name, factory, driver, node is not None),
        )


def _card_note(address: str, factory: bool, driver: str | None, has_node: bool) -> str | None:
    if factory:
        return f"holds the maker's factory image, no engine yet: speckvctl flash {address} BUNDLE"
    if driver is None:
        return "no driver bound: modprobe speckv"
    if driver != ids.CLASS_NAME:
        return (
            f"bound to {driver}, not to our driver: echo {address} > /sys/bus/pci/drivers/{driver}/unbind, "
            f"then echo {address} > /sys/bus/pci/drivers/{ids.CLASS_NAME}/bind"
        )
    return None if has_node else "the driver made no device node, so its start failed: dmesg | grep speckv"


def _cxl(context: Any, dax: list[_Device]) -> Iterator[Found]:
    memdevs: list[_Device] = []
    regions: list[_Device] = []
    endpoints: dict[str, str] = {}  # endpoint decoder -> memory device behind it
    for raw in context.list_devices(subsystem="cxl"):
        device = _Device(raw)
        if device.type == "cxl_memdev":
            memdevs.append(device)
        elif device.type == "cxl_region":
            regions.append(device)
        elif device.type == "cxl_decoder_endpoint":
            memdev = _link_name(os.path.dirname(device.path), "uport")
            if memdev is not None:
                endpoints[device.name] = memdev
    owner: dict[str, _Device] = {}  # memory device -> its region
    for region in regions:
        for target in range(min(region.number("interleave_ways") or 1, _INTERLEAVE_MAX)):
            memdev = endpoints.get(region.text(f"target{target}") or "")
            if memdev is not None:
                owner[memdev] = region
    for memdev_device in memdevs:
        yield _memdev(memdev_device, owner.get(memdev_device.name), dax)
    for region in regions:
        yield Found(
            FoundKind.CXL_MEMORY,
            region.name,
            region.path,
            region.size(),
            driver=region.driver,
            note=_region_note(region, dax),
        )
    driven = {os.path.dirname(device.path) for device in memdevs}
    for raw in context.list_devices(subsystem="pci"):
        function = _Device(raw)
        if function.number("class") == ids.PCI_CLASS_CXL_MEMORY and function.path not in driven:
            yield Found(
                FoundKind.CXL_MEMORY,
                function.name,
                function.path,
                numa_node=function.numa_node,
                driver=function.driver,
                vendor_id=function.short("vendor"),
                device_id=function.short("device"),
                note="a CXL memory expander without its driver: modprobe cxl_pci cxl_mem",
            )


def _memdev(device: _Device, region: _Device | None, dax: list[_Device]) -> Found:
    sizes = [size for kind in ("ram", "pmem") if (size := device.size(f"{kind}/size")) is not None]
    function = device.raw.find_parent("pci")
    pci = None if function is None else _Device(function)
    if region is not None:
        note = f"mapped by {region.name}: {_region_note(region, dax)}"
    elif device.driver is None:
        note = "the memory driver is not bound: modprobe cxl_mem"
    else:
        kind = "ram" if device.number("ram/size") else "pmem"
        note = f"no region maps it yet: cxl create-region -t {kind} -m {device.name}"
    return Found(
        FoundKind.CXL_MEMORY,
        device.name,
        device.path,
        sum(sizes) if sizes else None,
        device.numa_node,
        device.driver,
        None if pci is None else pci.short("vendor"),
        None if pci is None else pci.short("device"),
        note,
    )


def _region_note(region: _Device, dax: list[_Device]) -> str:
    below = _below(region, dax)
    if below:
        return f"use {_dax_name(below[0])}"
    if region.driver is None:
        return f"the region is not enabled: cxl enable-region {region.name}"
    if region.text("mode") == "pmem":
        return "persistent memory without a namespace: ndctl create-namespace -m devdax"
    return "the region has no dax device: modprobe -a dax_cxl device_dax"


def _below(region: _Device, dax: list[_Device]) -> list[_Device]:
    return [device for device in dax if device.path.startswith(region.path + "/") and device.size()]


def _dax(devices: list[_Device], sysfs_root: str) -> Iterator[Found]:
    for device in devices:
        size = device.size()
        if not size:  # the region's empty seed device, or removed meanwhile
            continue
        node = device.node_number("target_node")
        node = device.numa_node if node is None else node
        driver = device.driver
        note = None
        if driver == "kmem":
            note = _kmem_note(device.name, node, sysfs_root)
        elif driver is None:
            note = f"no driver bound: daxctl reconfigure-device -m devdax {device.name}"
        yield Found(FoundKind.DAX, _dax_name(device), device.path, size, node, driver, note=note)


def _kmem_note(name: str, node: int | None, sysfs_root: str) -> str:
    """Note on a device bound to kmem: system memory, whose blocks may be offline."""
    where = "a NUMA node" if node is None else f"NUMA node {node}"
    back = f"give it back with daxctl reconfigure-device -f -m devdax {name}"
    has = None if node is None else _node_has_memory(node, sysfs_root)
    if has is None:
        return f"taken as system memory, {where}: {back}"
    if not has:
        return f"taken as system memory, {where}, which has none online: daxctl online-memory {name}, or {back}"
    return f"online as system memory, {where}: use host:numa{node}, or {back}"


def _node_has_memory(node: int, sysfs_root: str) -> bool | None:
    try:
        text = Path(sysfs_root, f"devices/system/node/node{node}/meminfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    memory = _MEMORY_TOTAL.search(text)
    return None if memory is None else int(memory[1]) > 0


def _dax_name(device: _Device) -> str:
    return f"host:{device.node or f'/dev/{device.name}'}"


def _link_name(path: str, link: str) -> str | None:
    try:
        return os.path.basename(os.readlink(os.path.join(path, link)))
    except OSError:
        return None


def _natural(text: str) -> list[tuple[int, str]]:
    """numa10 after numa9."""
    parts: Iterable[str] = re.split(r"(\d+)", text)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]
