# SPDX-License-Identifier: MIT
"""Discovery of cards and memory on this machine. pyudev is imported on first use."""

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
