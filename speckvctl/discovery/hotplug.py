# SPDX-License-Identifier: MIT
"""Hot plug and hot unplug of what discover() finds, for `events --follow`."""

from __future__ import annotations

import errno
import importlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from speckvctl.discovery import identification as ids
from speckvctl.discovery.devices import Found, discover, udev_context

_SUBSYSTEMS = ("pci", "cxl", "dax", ids.CLASS_NAME, "node", "memory")  # memory: a node's blocks come online one by one
_BATCH = 4096
_OVERFLOW = "overflow"


class HotplugAction(StrEnum):
    ADD = "add"
    REMOVE = "remove"
    CHANGE = "change"


@dataclass(frozen=True, slots=True)
class HotplugEvent:
    action: HotplugAction
    found: Found
    """As it is now; after REMOVE, as it was last seen."""
    time_ns: int


def watch(
    stop: threading.Event | Callable[[], bool],
    context: Any | None = None,
    *,
    sysfs_root: str = "/sys",
    source: str | None = None,
    poll_seconds: float = 0.25,
) -> Iterator[HotplugEvent]:
    """Events from the moment of this call (not of the first next()) until `stop` is set or returns True.

    `source`: "udev" receives events after udev's rules ran, "kernel" before; default: udev if its daemon runs.
    """
    context = udev_context() if context is None else context
    if source is None:
        source = "udev" if os.path.exists("/run/udev/control") else "kernel"
    monitor = importlib.import_module("pyudev").Monitor.from_netlink(context, source)
    for subsystem in _SUBSYSTEMS:
        monitor.filter_by(subsystem)
    monitor.start()
    known = {found.sysfs_path: found for found in discover(context, sysfs_root)}
    stopped = stop.is_set if isinstance(stop, threading.Event) else stop
    return _events(monitor, context, sysfs_root, known, stopped, poll_seconds)


def _events(
    monitor: Any,
    context: Any,
    sysfs_root: str,
    known: dict[str, Found],
    stopped: Callable[[], bool],
    poll_seconds: float,
) -> Iterator[HotplugEvent]:
    gone: set[str] = set()  # the kernel sends "remove" before it deletes the sysfs folder: ignore what is still there
    unsettled = False
    while not stopped():
        batch = _drain(monitor, poll_seconds)
        if not batch and not unsettled:
            continue
        unsettled = any(action == "remove" for action, _ in batch)
        changed = set()
        for action, path in batch:
            # In order, so that a card removed and added again between two scans gives two events, not none.
            if action == "remove":
                gone.add(path)
                if path in known:
                    yield HotplugEvent(HotplugAction.REMOVE, known.pop(path), time.time_ns())
            elif action == _OVERFLOW:
                gone.clear()
            else:
                gone.discard(path)
                if action == "change":
                    changed.add(path)
        # Full scan: a uevent of one device can change others (driver bound, region created).
        seen = {found.sysfs_path: found for found in discover(context, sysfs_root)}
        gone &= seen.keys()
        now = {path: found for path, found in seen.items() if path not in gone}
        for path in [path for path in known if path not in now]:
            yield HotplugEvent(HotplugAction.REMOVE, known.pop(path), time.time_ns())
        for path, found in now.items():
            if path not in known:
                yield HotplugEvent(HotplugAction.ADD, found, time.time_ns())
            elif known[path] != found or path in changed:
                yield HotplugEvent(HotplugAction.CHANGE, found, time.time_ns())
        known = now


def _drain(monitor: Any, poll_seconds: float) -> list[tuple[str, str]]:
    """Pending uevents as (action, sysfs path); empty after a timeout."""
    batch: list[tuple[str, str]] = []
    timeout = poll_seconds
    while len(batch) < _BATCH:
        try:
            device = monitor.poll(timeout)
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            device = None
            batch.append((_OVERFLOW, ""))  # the kernel dropped uevents: the full scan covers them
        if device is None:
            break
        batch.append((device.action, device.sys_path))
        timeout = 0.0
    return batch
