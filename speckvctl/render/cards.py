# SPDX-License-Identifier: MIT
"""Documents about cards as text."""

from __future__ import annotations

from speckvctl import results
from speckvctl.cards import settings
from speckvctl.quantities import format_count, format_duration, format_size, format_time, user_name
from speckvctl.render.dispatch import STATES, lines_of
from speckvctl.render.text import columns, one_line, paint, pairs, plural


def facts_of(card: results.Card) -> list[tuple[str, str]]:
    """The facts that `device show` adds for a card."""
    temperature = f"{card.temperature_millicelsius / 1000:g} C"
    limits = f"slows at {card.throttle_millicelsius / 1000:g} C, stops at {card.trip_millicelsius / 1000:g} C"
    memory = f"{format_count(card.corrected_errors)} corrected, {format_count(card.uncorrected_errors)} uncorrected "
    memory += f"errors, {plural(card.poisoned_pages, 'poisoned page')}"
    cycles = f"{plural(card.power_cycles, 'power cycle')}, {format_count(card.unsafe_power_cycles)} without a shutdown"
    return [
        ("Model", f"{card.model}, serial {card.serial}"),
        ("Part", card.part),
        ("Runs", f"image {card.running_image}, revision {card.rtl_revision}, build {card.build_id}"),
        ("Register map", card.map_version),
        ("Personality", card.personality),
        ("Can", ", ".join(card.abilities)),
        ("Health", "healthy" if card.healthy else ", ".join(card.conditions)),
        ("Temperature", f"{temperature}; {limits}"),
        ("Link", link_text(card.link)),
        ("Under way", plural(card.outstanding_commands, "command")),
        ("Up", f"{format_duration(card.uptime_ns)}; {cycles}"),
        ("Memory", memory),
        ("Prefetcher", card.prefetcher_digest or "none loaded"),
        ("Security", f"minimum security version {card.security_version}"),
        *(("Trusts" if not index else "", key) for index, key in enumerate(card.key_ids)),
        *(
            (settings.LABELS.get(name, name).capitalize(), settings.as_text(name, value))
            for name, value in card.settings.items()
        ),
    ]


def link_text(link: results.CardLink | None) -> str:
    if link is None:
        return "not reported"
    most = f"{link.lanes_most}x{link.megatransfers_per_second_most / 1000:g}GT/s"
    return str(link) + ("" if most == str(link) else f", at most {most}")


def tables_of(card: results.Card) -> list[str]:
    """Tables of a card's slots and connections."""
    lines = ["", *_slots(card.slots)] if card.slots else []
    return [*lines, "", *_functions(card.functions)] if card.functions else lines


def _slots(slots: list[results.CardSlot]) -> list[str]:
    lines = columns(
        ["SLOT", "STATE", "RUNS", "REVISION", "BUILD", ">BYTES", "COMMITTED"],
        [
            [
                slot.image,
                slot.state,
                "yes" if slot.running else "no",
                slot.rtl_revision or "-",
                slot.build_id or "-",
                format_count(slot.bitstream_bytes or slot.received_bytes),
                format_time(slot.committed_ns),
            ]
            for slot in slots
        ],
        STATES,
    )
    return lines + [f"slot {slot.image}: {one_line(slot.reason)}" for slot in slots if slot.reason]


def _functions(functions: list[results.CardFunction]) -> list[str]:
    return columns(
        [">FUNCTION", "RIGHTS", ">PROCESS", "USER", "COMMAND"],
        [
            [
                str(one.function),
                "admin" if one.admin else "I/O",
                str(one.pid),
                user_name(one.uid),
                one.command or "-",
            ]
            for one in functions
        ],
    )


@lines_of.register
def changed(document: results.DeviceSet) -> list[str]:
    would = "Would set" if document.dry_run else "Set"
    lines = [f"{would} {one.setting} of {document.device}: {one.before} -> {one.after}" for one in document.changes]
    kept = ", and saved over a power cycle" if document.saved else ""
    return lines or [f"{document.device}: already as requested{kept}."]


@lines_of.register
def reset(document: results.DeviceReset) -> list[str]:
    what = {"card": "", "engine": "the engine of ", "counters": "the statistics of "}[document.what]
    if document.dry_run:
        return [f"Would reset {what}{document.device}; {plural(document.functions_lost, 'connection')} would be lost."]
    runs = f"; it runs image {document.running_image}" if document.what == "card" else ""
    return [f"Reset {what}{document.device}{runs}."]


@lines_of.register
def injected(document: results.DeviceInject) -> list[str]:
    would = "would inject" if document.dry_run else "injected"
    where = f" in pool {document.pool}" if document.pool else ""
    value = f"value {document.value}, " if document.value else ""
    return [f"{document.device}: {would} fault '{document.fault}'{where} ({value}count {document.count})."]


ACTIVATIONS = {
    "done": "done",
    "needs_rescan": "done; the card was found again",
    "needs_power_cycle": "when the card is started again",
}


@lines_of.register
def flashed(document: results.Flash) -> list[str]:
    what = {"flash": one_line(document.bundle or ""), "rollback": "the previous image", "golden": "the golden image"}
    what_text = what[document.action]
    runs = f"image {document.running_image}, revision {document.running_revision}"
    if document.dry_run:
        lines = [f"Would start {what_text} ({document.image}) on {document.device}, in place of {runs}."]
        if document.pools_out_of_service:
            lines.append(f"Out of service then: {', '.join(document.pools_out_of_service)}.")
        if document.bundle is not None:
            sent = (document.bundle_bytes or 0) - document.resumed_bytes
            lines = [
                f"Would write {what_text}, revision {document.bundle_revision}, to slot {document.image.upper()}"
                f" of {document.device}:",
                f"{format_size(sent)} to send. It runs {runs}.",
            ]
        return lines
    lines = pairs(
        [
            ("Card", document.device),
            ("Before", f"image {document.before_image}, revision {document.before_revision}"),
            ("Runs", f"{runs}{', as read back' if document.verified else ', until it is started again'}"),
            ("Activation", ACTIVATIONS.get(document.activation or "", "-")),
            *([("Resumed", f"{format_size(document.resumed_bytes)} were there")] if document.resumed_bytes else []),
            *([("Record", document.audit)] if document.audit else []),
        ]
    )
    if document.activation == "needs_power_cycle":
        again = f"speckvctl emu stop {document.device.removeprefix('emu:')}, and start"
        return [*lines, "", f"{paint('Needs a power cycle', 'yellow')} to run {what_text}. Next: {again}"]
    return [*lines, "", f"{paint('Verified', 'green')}: {document.device} runs {what_text}."]


def _card(card: results.EmulatedCard) -> list[str]:
    factory = {True: "factory state, without an engine", False: "with an engine", None: "-"}[card.factory]
    lines = pairs(
        [
            ("Card", card.device),
            ("State", card.state),
            ("Process", str(card.pid) if card.pid is not None else "-"),
            ("Memory", format_size(card.memory_bytes)),
            ("Golden image", factory),
            ("Runs", f"image {card.running_image}" if card.running_image else "-"),
            ("Started", format_time(card.started_ns)),
            ("Folder", card.folder),
            ("Log", card.log),
        ]
    )
    if card.detail:
        lines.append(f"Next: {one_line(card.detail)}" if card.state == "stopped" else one_line(card.detail))
    if card.functions:
        lines += ["", *_functions(card.functions)]
    return lines


@lines_of.register
def started(document: results.EmuStart) -> list[str]:
    card = document.card
    if document.dry_run:
        kind = "in factory state" if card.factory else "with an engine"
        return [f"Would start {card.device}, {kind}, with {format_size(card.memory_bytes)}, in {card.folder}."]
    next_step = f"speckvctl device show {card.device}"
    return [f"Started {card.device}, process {card.pid}, in {one_line(card.folder)}. Next: {next_step}"]


@lines_of.register
def stopped(document: results.EmuStop) -> list[str]:
    name = f"emu:{document.name}"
    if document.dry_run:
        return [f"Would {'stop and remove' if document.removed else 'stop'} {name}."]
    how = "Killed" if document.killed else "Stopped"
    if not document.stopped:
        return [f"Removed {name}."]
    return [f"{how} {name}{', and removed it' if document.removed else ''}."]


@lines_of.register
def listed(document: results.EmuList) -> list[str]:
    if not document.cards:
        return ["No emulated card. Next: speckvctl emu start card0"]
    lines = columns(
        ["CARD", "STATE", ">PROCESS", ">MEMORY", "RUNS", ">CONNECTIONS"],
        [
            [
                card.device,
                card.state,
                str(card.pid) if card.pid is not None else "-",
                format_size(card.memory_bytes),
                card.running_image or "-",
                format_count(len(card.functions)) if card.running_image else "-",
            ]
            for card in document.cards
        ],
        STATES,
    )
    return lines + [one_line(f"{card.device}: {card.detail}") for card in document.cards if card.detail]


@lines_of.register
def status(document: results.EmuStatus) -> list[str]:
    return _card(document.card)


@lines_of.register
def loaded(document: results.PrefetcherLoad) -> list[str]:
    would = "Would load" if document.dry_run else "Loaded"
    instead = f", in place of {document.replaced_digest}" if document.replaced_digest else ""
    return [f"{would} {one_line(document.model)} into {document.device}{instead}:", document.digest]


@lines_of.register
def unloaded(document: results.PrefetcherUnload) -> list[str]:
    would = "Would unload" if document.dry_run else "Unloaded"
    return [f"{would} the prefetcher of {document.device}:", document.digest]
