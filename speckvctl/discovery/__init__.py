# SPDX-License-Identifier: MIT
"""Finding cards and memory on this machine. pyudev is imported only when something is looked for."""

from speckvctl.discovery.devices import DiscoveryError, Found, FoundKind, discover, memory_nodes
from speckvctl.discovery.hotplug import HotplugAction, HotplugEvent, watch

__all__ = [
    "DiscoveryError",
    "Found",
    "FoundKind",
    "HotplugAction",
    "HotplugEvent",
    "discover",
    "memory_nodes",
    "watch",
]
