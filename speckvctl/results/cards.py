# SPDX-License-Identifier: MIT
"""What is shown of a card: parts of documents, fields named as in the JSON."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class CardSlot:
    """A place of an image. What is in it is None where nothing was committed."""

    image: str
    state: str
    running: bool
    rtl_revision: str | None
    security_version: int | None
    build_id: str | None
    bitstream_bytes: int | None
    bitstream_sha256: str | None
    key_id: str | None
    received_bytes: int | None
    committed_ns: int | None
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class CardFunction:
    """A connection to an emulated card: the process that made it."""

    function: int
    admin: bool
    pid: int
    uid: int
    command: str | None


@dataclass(frozen=True, kw_only=True)
class CardLink:
    """The PCI Express link to a card: as trained, and at most."""

    megatransfers_per_second: int
    lanes: int
    megatransfers_per_second_most: int
    lanes_most: int

    def __str__(self) -> str:
        return f"{self.lanes}x{self.megatransfers_per_second / 1000:g}GT/s"


@dataclass(frozen=True, kw_only=True)
class Card:
    model: str
    serial: str
    part: str
    personality: str
    map_version: str
    rtl_revision: str
    build_id: str
    abilities: list[str]
    running_image: str
    security_version: int
    healthy: bool
    conditions: list[str]
    temperature_millicelsius: int
    throttle_millicelsius: int
    trip_millicelsius: int
    uptime_ns: int
    throttled_ns: int
    power_cycles: int
    unsafe_power_cycles: int
    corrected_errors: int
    uncorrected_errors: int
    poisoned_pages: int
    flash_erases: int
    link: CardLink | None
    outstanding_commands: int
    prefetcher_digest: str | None
    key_ids: list[str]
    settings: dict[str, int]
    slots: list[CardSlot]
    functions: list[CardFunction]


@dataclass(frozen=True, kw_only=True)
class EmulatedCard:
    """A process that is a card, or its state without one."""

    name: str
    device: str
    state: str
    detail: str
    folder: str
    log: str
    pid: int | None
    memory_bytes: int | None
    factory: bool | None
    engine: bool | None
    running_image: str | None
    started_ns: int | None
    functions: list[CardFunction]
