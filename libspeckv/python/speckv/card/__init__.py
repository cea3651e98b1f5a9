# SPDX-License-Identifier: MIT
"""Administration of cards: identity, health, logs, firmware, settings, tests, prefetcher; and control of emulated
cards' processes.

with speckv.Context() as context, speckv.card.Admin(context, "emu:card0") as admin:
    print(admin.info().part, admin.health().temperature_millicelsius)
"""

from __future__ import annotations

from speckv.card.admin import Admin, Progress
from speckv.card.emulator import FAULTS, Connection, EmulatorStatus, control, emulated, inject, is_card, status, stop
from speckv.card.types import (
    Ability,
    Activation,
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
)

__all__ = [
    "FAULTS",
    "Ability",
    "Activation",
    "Admin",
    "CardError",
    "CardEvent",
    "CardInfo",
    "Condition",
    "Connection",
    "EmulatorStatus",
    "Grant",
    "Health",
    "Image",
    "ImageState",
    "Progress",
    "Restart",
    "Setting",
    "Slot",
    "Started",
    "control",
    "emulated",
    "inject",
    "is_card",
    "status",
    "stop",
]
