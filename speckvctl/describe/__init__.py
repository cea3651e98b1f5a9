# SPDX-License-Identifier: MIT
"""Objects of the library `speckv` to documents of results/. Nothing here opens a device; the owner of a path and
the name of a process are looked up.
"""

from __future__ import annotations

from speckvctl.describe.cards import (
    card,
    card_device,
    card_functions,
    card_link,
    card_slot,
    known_card,
    unreachable_card,
)
from speckvctl.describe.devices import device, event, hardware
from speckvctl.describe.pools import clients, geometry, latency, pool, ratio, share, statistics, tenants

__all__ = [
    "card",
    "card_device",
    "card_functions",
    "card_link",
    "card_slot",
    "clients",
    "device",
    "event",
    "geometry",
    "hardware",
    "known_card",
    "latency",
    "pool",
    "ratio",
    "share",
    "statistics",
    "tenants",
    "unreachable_card",
]
