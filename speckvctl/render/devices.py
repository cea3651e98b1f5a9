# SPDX-License-Identifier: MIT
"""Documents about devices as text."""

from __future__ import annotations

from speckvctl import results
from speckvctl.quantities import format_count, format_duration, format_size, format_time, suggested_size
from speckvctl.render import cards
from speckvctl.render.dispatch import STATES, lines_of, next_step, owner
from speckvctl.render.pools import pool_table
from speckvctl.render.text import columns, one_line, paint, pairs, plural


@lines_of.register
def listed(document: results.DeviceList) -> list[str]:
    lines: list[str] = []
    if document.devices:
        lines += columns(
            ["DEVICE", "STATE", ">POOLS", ">CAPACITY", ">ALLOCATED", ">FREE"],
            [
                [
                    device.name,
                    device.state,
                    format_count(device.pools),
                    format_size(device.capacity_bytes),
                    format_size(device.allocated_bytes),
                    format_size(device.free_bytes),
                ]
                for device in document.devices
            ],
            STATES,
        )
        lines += [
            one_line(f"{device.name} is {device.state}: {device.found}")
            for device in document.devices
            if device.state != "ready"
        ]
    else:
        lines.append("No device yet." + next_step(document.next))
    if document.hardware:
        lines += ["", *_hardware(document.hardware)]
    elif document.hardware is not None:
        lines += ["", "No hardware found: no cards, CXL memory, devdax or memory-only NUMA nodes."]
    return lines


def _hardware(found: list[results.Hardware]) -> list[str]:
    lines = columns(
        ["HARDWARE", "KIND", ">NODE", ">CAPACITY", "DRIVER", "USABLE"],
        [
            [
                item.name,
                item.kind,
                format_count(item.numa_node),
                format_size(item.capacity_bytes),
                item.driver or "-",
                "no" if item.note else "yes",
            ]
            for item in found
        ],
        {"yes": "green", "no": "yellow"},
    )
    return lines + [one_line(f"{item.name}: {item.note}") for item in found if item.note]


@lines_of.register
def shown(document: results.DeviceShow) -> list[str]:
    device = document.device
    if device.kind == "card":
        return _card(document)
    manager = "none"
    if device.manager_pid is not None:
        manager = f"process {device.manager_pid} ({device.manager_command or 'unknown'}) now"
    durability = {
        "process": "outlives every process; lost at reboot",
        "power": "every completed put survives power loss",
    }.get(device.durability or "", device.durability or "-")
    lines = pairs(
        [
            ("Device", device.name),
            ("State", device.state),
            ("Found", device.found),
            ("Path", device.path),
            ("UUID", device.uuid or "-"),
            ("Capacity", format_size(device.capacity_bytes)),
            ("Allocated", format_size(device.allocated_bytes)),
            ("Free", format_size(device.free_bytes)),
            ("Durability", durability),
            (
                "Isolation",
                "all pools in one file, one owner" if device.single_inode else "one file per pool, with its own owner",
            ),
            ("NUMA node", format_count(device.numa_node)),
            ("Owner", f"{owner(device.uid, device.gid)} {device.mode or ''}"),
            ("Codecs", ", ".join(device.codecs)),
            ("Created", format_time(device.created_ns)),
            *([("Changed by", manager)] if device.manager_pid is not None else []),
        ]
    )
    if document.pools:
        lines += ["", *pool_table(document.pools, with_device=False)]
    elif device.state == "ready":
        size = suggested_size(device.free_bytes)
        lines += ["", f"No pools. Next: speckvctl pool create {device.name} NAME --size {size}"]
    return lines


def _card(document: results.DeviceShow) -> list[str]:
    device = document.device
    lines = pairs(
        [
            ("Device", device.name),
            ("State", device.state),
            ("Found", device.found),
            ("Path", device.path),
            ("UUID", device.uuid or "-"),
            ("Capacity", format_size(device.capacity_bytes)),
            ("Allocated", format_size(device.allocated_bytes)),
            ("Free", format_size(device.free_bytes)),
            ("Owner", f"{owner(device.uid, device.gid)} {device.mode or ''}"),
            ("Codecs", ", ".join(device.codecs) or "-"),
            *(cards.facts_of(document.card) if document.card else []),
        ]
    )
    lines += cards.tables_of(document.card) if document.card else []
    if document.pools:
        lines += ["", *pool_table(document.pools, with_device=False)]
    elif device.state == "ready":
        size = suggested_size(device.free_bytes)
        lines += ["", f"No pools. Next: speckvctl pool create {device.name} NAME --size {size}"]
    elif device.state == "factory":
        lines += ["", f"It has no engine yet. Next: speckvctl flash {device.name} BUNDLE"]
    return lines


@lines_of.register
def tested(document: results.DeviceSelftest) -> list[str]:
    lines = columns(
        ["STEP", "RESULT", ">TIME", "DETAIL"],
        [
            [step.name, "ok" if step.passed else "failed", format_duration(step.elapsed_ns), step.detail]
            for step in document.steps
        ],
        STATES,
    )
    bad = sum(not step.passed for step in document.steps)
    verdict = f"{document.device}: {plural(len(document.steps), 'step')}, "
    return [*lines, "", verdict + (paint(f"{bad} failed", "red") if bad else "all passed")]


@lines_of.register
def closed(document: results.DeviceClose) -> list[str]:
    would = "Would close" if document.dry_run else "Closed"
    if not document.pools_destroyed:
        return [f"{would} {document.device}: it has no pools."]
    lost = f"{plural(len(document.pools_destroyed), 'pool')} with {plural(document.blocks_lost, 'block')}"
    names = f" ({', '.join(document.pools_destroyed)})" if document.pools_destroyed else ""
    return [f"{would} {document.device}: {lost}{names} lost, {format_size(document.bytes_freed)} returned."]
