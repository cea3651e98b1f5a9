# SPDX-License-Identifier: MIT
"""Parts of documents about a card; fields named as in the JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from speckvctl.results.described import Said


@dataclass(frozen=True, kw_only=True)
class CardSlot:
    """An image slot; its contents are None if nothing was committed."""

    image: Annotated[str, Said("golden, a or b.")]
    state: Annotated[
        str,
        Said("State of what is in it.", enum=["empty", "writing", "written", "verified", "trial", "good", "rejected"]),
    ]
    running: Annotated[bool, Said("True: this one runs.")]
    rtl_revision: Annotated[str | None, Said("Revision of the logic; null: nothing committed.")]
    security_version: Annotated[int | None, Said("Its security version.", minimum=0)]
    build_id: Annotated[str | None, Said("Digest of the sources it was built from; null: nothing committed.")]
    bitstream_bytes: Annotated[int | None, Said("Size of the bitstream; null: nothing committed.", minimum=0)]
    bitstream_sha256: Annotated[str | None, Said("SHA-256 of the bitstream; null: nothing committed.")]
    key_id: Annotated[str | None, Said("SHA-256 of the key that signed it; null: nothing committed.")]
    received_bytes: Annotated[int | None, Said("Bytes of a download that is not committed; null: none.", minimum=0)]
    committed_ns: Annotated[int | None, Said("When it was committed, CLOCK_REALTIME; null: not.", minimum=0)]
    reason: Annotated[str | None, Said("Why it was rejected; null: it was not.")]


@dataclass(frozen=True, kw_only=True)
class CardFunction:
    """A connection to an emulated card: the process that made it."""

    function: Annotated[int, Said("Number of the function.", minimum=0)]
    admin: Annotated[bool, Said("True: it may administer the card.")]
    pid: Annotated[int, Said("Process.", minimum=0)]
    uid: Annotated[int, Said("User of the process.", minimum=0)]
    command: Annotated[str | None, Said("Name of its program, without arguments; null when it has ended.")]


@dataclass(frozen=True, kw_only=True)
class CardLink:
    """The PCI Express link to a card: trained and maximum speed and width."""

    megatransfers_per_second: Annotated[int, Said("Rate of one lane.", minimum=1)]
    lanes: Annotated[int, Said("Lanes that are in use.", minimum=1)]
    megatransfers_per_second_most: Annotated[int, Said("The rate that the card could have.", minimum=0)]
    lanes_most: Annotated[int, Said("The lanes that the card has.", minimum=0)]

    def __str__(self) -> str:
        return f"{self.lanes}x{self.megatransfers_per_second / 1000:g}GT/s"


@dataclass(frozen=True, kw_only=True)
class Card:
    """What only a card has, as its administrator sees it."""

    model: Annotated[str, Said("Kind of card.")]
    serial: Annotated[str, Said("Serial number.")]
    part: Annotated[str, Said("FPGA part, as a bundle's manifest names it.")]
    personality: Annotated[str, Said("'factory': no engine, until it is flashed.", enum=["card", "factory"])]
    map_version: Annotated[str, Said("Version of the register map.")]
    rtl_revision: Annotated[str, Said("Revision of the logic.")]
    build_id: Annotated[str, Said("Digest of the sources it was built from, 16 hexadecimal digits.")]
    abilities: Annotated[list[str], Said("What it can do.")]
    running_image: Annotated[str, Said("Image that runs: golden, a or b.")]
    security_version: Annotated[int, Said("Lowest security version that a bundle may have.", minimum=0)]
    healthy: Annotated[bool, Said("True: no condition.")]
    conditions: Annotated[list[str], Said("What keeps it from being healthy.")]
    temperature_millicelsius: Annotated[int, Said("Temperature.")]
    throttle_millicelsius: Annotated[int, Said("It slows down from here on.")]
    trip_millicelsius: Annotated[int, Said("It stops here.")]
    uptime_ns: Annotated[int, Said("Since it was started.", minimum=0)]
    throttled_ns: Annotated[int, Said("Time spent slowed down.", minimum=0)]
    power_cycles: Annotated[int, Said("How often it was started.", minimum=0)]
    unsafe_power_cycles: Annotated[int, Said("Of these, without a shutdown before.", minimum=0)]
    corrected_errors: Annotated[int, Said("Memory errors that were corrected.", minimum=0)]
    uncorrected_errors: Annotated[int, Said("Memory errors that were not.", minimum=0)]
    poisoned_pages: Annotated[int, Said("Pages with an uncorrectable error.", minimum=0)]
    flash_erases: Annotated[int, Said("Erases of the slot that was erased most often.", minimum=0)]
    link: Annotated[
        CardLink | None, Said("The PCI Express link, as trained and at most; null where the card does not tell.")
    ]
    outstanding_commands: Annotated[
        int, Said("Commands under way: submitted by any client, and not completed.", minimum=0)
    ]
    prefetcher_digest: Annotated[str | None, Said("SHA-256 of the prefetcher's file; null: none is loaded.")]
    key_ids: Annotated[list[str], Said("SHA-256 of each key that may sign bundles for it.")]
    settings: Annotated[dict[str, int], Said("Every setting of the card, by name.")]
    slots: Annotated[list[CardSlot], Said("Places of images.")]
    functions: Annotated[list[CardFunction], Said("Who is connected, one entry a connection.")]


@dataclass(frozen=True, kw_only=True)
class EmulatedCard:
    """An emulated card: its process, or its state while stopped."""

    name: Annotated[str, Said("Name of the card, without emu:.")]
    device: Annotated[str, Said("Name of the device.")]
    state: Annotated[str, Said("State of its process.", enum=["running", "stopped", "hung", "lost"])]
    detail: Annotated[str, Said("What stands in the way of it, or what to type next.")]
    folder: Annotated[str, Said("Folder of its state.")]
    log: Annotated[str, Said("What its process said.")]
    pid: Annotated[int | None, Said("Its process; null when there is none, or it is not known.", minimum=0)]
    memory_bytes: Annotated[int | None, Said("Device memory.", minimum=0)]
    factory: Annotated[bool | None, Said("True: made without an engine in its golden image; null: not known.")]
    engine: Annotated[bool | None, Said("True: what runs has an engine; null: it does not answer.")]
    running_image: Annotated[str | None, Said("Image that runs; null: it does not answer.")]
    started_ns: Annotated[int | None, Said("When its process was started, CLOCK_REALTIME.", minimum=0)]
    functions: Annotated[list[CardFunction], Said("Who is connected, one entry a connection.")]
