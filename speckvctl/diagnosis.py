# SPDX-License-Identifier: MIT
"""The checks of `speckvctl doctor`. They are isolated: an exception in one does not hide the others."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

from speckvctl import folders, library
from speckvctl.errors import describe
from speckvctl.quantities import format_size, user_name
from speckvctl.render.text import plural
from speckvctl.results import Check

#: Less than this leaves room for trivial pools only.
SMALL_MEMORY = 1 << 30
SMALL_TMPFS = 256 << 20
#: Has MADV_POPULATE_WRITE, and open-file-description locks in every file system.
OLDEST_KERNEL = (5, 14)
INSTALL = "pip install . in the source tree"
MACHINES = ("x86_64", "aarch64")


def ok(name: str, detail: str, next_step: str | None = None) -> Check:
    return Check(name=name, status="ok", detail=detail, next=next_step)


def warning(name: str, detail: str, next_step: str) -> Check:
    return Check(name=name, status="warning", detail=detail, next=next_step)


def failed(name: str, detail: str, next_step: str) -> Check:
    return Check(name=name, status="failed", detail=detail, next=next_step)


def examine() -> list[Check]:
    checks: list[Check] = []
    for name, look in _CHECKS:
        try:
            checks += look(name)
        except ImportError:
            checks.append(failed(name, "not looked at: the library cannot be loaded", INSTALL))
        except Exception as exc:  # an exception is a finding, and the other checks run
            checks.append(
                failed(name, describe(exc, "speckvctl doctor").error.message, "SPECKVCTL_DEBUG=1 speckvctl doctor")
            )
    return checks


def _kernel(name: str) -> Iterator[Check]:
    system = os.uname()
    text = f"{system.sysname} {system.release}, {system.machine}"
    numbers = [int(part) for part in system.release.split("-")[0].split(".")[:2] if part.isdigit()]
    if system.machine not in MACHINES:
        yield failed(name, f"{text}: not a machine this is built for", f"use one of {', '.join(MACHINES)}")
    elif tuple(numbers) < OLDEST_KERNEL:
        yield warning(name, f"{text}: older than what this is tested on", "update to Linux 5.14 or newer")
    else:
        yield ok(name, text)


def _extension(name: str) -> Iterator[Check]:
    try:
        import speckv
    except ImportError as exc:
        yield failed(name, f"the library cannot be loaded: {exc}", INSTALL)
        return
    yield ok(name, f"libspeckv {speckv.version()}")


def _processor(name: str) -> Iterator[Check]:
    from speckv import codec

    isa = codec.isa()
    forced = os.environ.get("SPECKV_ISA")
    if forced:
        yield warning(name, f"codec kernels: {isa}, forced by SPECKV_ISA={forced}", "unset SPECKV_ISA")
    else:
        yield ok(name, f"codec kernels: {isa}; {len(os.sched_getaffinity(0))} CPUs for this process")


def _runtime_dir() -> Path:
    import speckv

    with speckv.Context() as ctx:
        return Path(ctx.runtime_dir)


def _runtime_folder(name: str) -> Iterator[Check]:
    """Owner and mode of the runtime folder and its subfolders: the check that every command makes before use."""
    import speckv

    with speckv.Context() as ctx:
        folder = Path(ctx.runtime_dir)
        if not os.path.lexists(folder):
            parent = _nearest(folder)
            if os.access(parent, os.W_OK | os.X_OK):
                yield ok(name, f"{folder}: not there yet, the first pool makes it")
            else:
                yield failed(
                    name,
                    f"{folder} cannot be made: {parent} is not writable",
                    "export SPECKV_RUNTIME_DIR=$(mktemp -d /dev/shm/speckv-XXXXXX)",
                )
            return
        parts = ("", "emu", "cards", "media") if folder.is_dir() else ("",)
        found = [trouble for part in parts if (trouble := folders.trouble(ctx, folder / part, link=not part))]
    for text, command in found:
        yield failed(name, text, command or f"ls -ld {folder}")
    if found:
        return
    owner = user_name(folder.stat().st_uid)
    if not os.access(folder, os.W_OK | os.X_OK):
        yield warning(name, f"{folder} belongs to {owner}: pools can be used, not created", "create pools as that user")
    else:
        yield ok(name, f"{folder}, owner {owner}")


def _memory(name: str) -> Iterator[Check]:
    values = dict(_meminfo())
    available, total = values.get("MemAvailable"), values.get("MemTotal")
    text = f"{format_size(available)} of {format_size(total)} available"
    if available is not None and available < SMALL_MEMORY:
        yield warning(name, text, "free memory, or put pools on a file: host:/path/to/file")
    else:
        yield ok(name, text)


def _meminfo() -> Iterator[tuple[str, int]]:
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        key, _, value = line.partition(":")
        number, _, unit = value.strip().partition(" ")
        if unit == "kB" and number.isascii() and number.isdecimal() and len(number) < 18:
            yield key, int(number) << 10


def _tmpfs(name: str) -> Iterator[Check]:
    folder = _nearest(_runtime_dir())
    kind = _file_system(folder)
    room = os.statvfs(folder)
    size, free = room.f_blocks * room.f_frsize, room.f_bavail * room.f_frsize
    text = f"{folder}: {kind}, {format_size(free)} of {format_size(size)} free"
    if kind not in ("tmpfs", "ramfs", "hugetlbfs"):
        yield warning(
            name, f"{text}: pools of host:DRAM would lie on a disk", "export SPECKV_RUNTIME_DIR=/dev/shm/mine"
        )
    elif free < SMALL_TMPFS:
        yield warning(name, text, f"mount -o remount,size=75% {_mount_point(folder)}")
    else:
        yield ok(name, text)


def _media(name: str) -> Iterator[Check]:
    import speckv

    from speckvctl.cards import access

    found = False
    with speckv.Context() as ctx:
        stopped = {}
        with suppress(speckv.PermissionDeniedError):  # an untrusted folder: reported by the check of folders
            stopped = {card.name: card.found for card in access.devices(ctx) if card.state == "failed"}
        for info in ctx.devices():
            found = True
            if info.name in stopped:
                yield warning(name, f"{info.name}: {stopped[info.name]}", f"speckvctl device show {info.name}")
                continue
            if info.state == "denied" and (command := folders.command_in(info.found)):
                yield failed(name, f"{info.name}: {info.found}", command)
                continue
            if info.state != "ready":
                yield warning(name, f"{info.name}: {info.found}", f"speckvctl device show {info.name}")
                continue
            try:
                with ctx.open(info.name) as dev:
                    yield from _pools(name, dev)
            except speckv.SpeckvError as exc:
                yield warning(name, f"{info.name}: {exc}", f"speckvctl device show {info.name}")
        for place in _places(Path(ctx.runtime_dir)):  # no table, so no device
            info = ctx.probe(place)
            if info.state == "absent" and (left := library.left_over(info)):
                found = True
                yield _lost_table(name, info.name, info.path, left)
            elif info.state == "absent" and (hidden := library.hidden_left(info)):
                found = True
                yield _left_files(name, info.name, info.path, hidden)
    if not found:
        with speckv.Context() as ctx:
            yield ok(name, "no device yet", library.first_pool(ctx).replace("NAME", "chat"))


def _places(runtime: Path) -> Iterator[str]:
    """Names of devices whose pools are files, in use or not."""
    for pools in sorted(runtime.glob("*.pools")):
        yield f"host:{pools.stem}"
    for link in sorted((runtime / "media").glob("*")):
        with suppress(OSError):
            yield f"host:{link.readlink()}"


def _lost_table(name: str, device: str, path: str, left: list[str]) -> Check:
    return failed(
        name,
        f"{device}: its table is gone; left in {path}.pools: {', '.join(left)}",
        f"speckvctl pool check {device} {left[0]} --repair",
    )


def _left_files(name: str, device: str, path: str, files: list[str], known: Iterable[str] = ()) -> Check:
    free = next(pool for number in count(1) if (pool := f"chat{number if number > 1 else ''}") not in known)
    return warning(
        name,
        f"{device}: {path}.pools has files of interrupted creations, which the next one removes: {', '.join(files)}",
        f"speckvctl pool create {device} {free} --size 64MiB",
    )


def _pools(name: str, dev: object) -> Iterator[Check]:
    import speckv

    assert isinstance(dev, speckv.Device)
    pools = dev.pools()
    left = library.left_over(dev.info(), [pool.config.name for pool in pools])
    hidden = library.hidden_left(dev.info(), [pool.uuid for pool in pools])
    troubled = bool(left or hidden)
    if hidden:
        yield _left_files(name, dev.name, dev.info().path, hidden, {pool.config.name for pool in pools})
    for file in left:
        path = f"{dev.info().path}.pools/{file}"
        yield failed(
            name,
            f"{dev.name}: {path} is not a pool of it; if check --repair cannot take it over, move the file away",
            f"speckvctl pool check {dev.name} {file} --repair",
        )
    for pool in pools:
        check = f"speckvctl pool check {dev.name} {pool.config.name} --repair"
        dead = sum(not client.alive for client in dev.clients(pool.config.name)) if pool.accessible else 0
        if pool.state in ("lost", "damaged"):
            troubled = True
            what = (
                "lost: its file is gone" if pool.state == "lost" else "damaged: its file was truncated or overwritten"
            )
            yield failed(
                name,
                f"{dev.name}: pool {pool.config.name} is {what}; "
                "logind's RemoveIPC at logout and cleaners of /dev/shm do that",
                f"speckvctl pool destroy {dev.name} {pool.config.name}",
            )
            continue
        if pool.state != "active":
            troubled = True
            yield warning(name, f"{dev.name}: pool {pool.config.name} is still {pool.state}", check)
        if dead:
            troubled = True
            yield warning(name, f"{dev.name}: pool {pool.config.name} has {plural(dead, 'client')} that died", check)
    if not troubled:
        yield ok(name, f"{dev.name}: ready, {plural(len(pools), 'pool')}")


def _discovery(name: str) -> Iterator[Check]:
    from speckvctl import discovery

    try:
        found = discovery.discover()
    except discovery.DiscoveryError as exc:
        yield warning(name, str(exc), "apt install libudev1")
        return
    unusable = [item for item in found if item.note]
    for item in unusable:
        yield warning(name, f"{item.kind} {item.name} is not usable yet", item.note or "")
    if not unusable:
        yield ok(name, f"works; {len(found)} found: cards, CXL memory, dax, memory-only nodes")


def _nearest(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    while not path.exists():
        path = path.parent
    return path


def _mount(path: Path) -> tuple[str, str]:
    """(mount point, file system) of a path."""
    best = ("/", "unknown")
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        fields, _, rest = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), fields.split()[4])
        if path.is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, rest.split()[0])
    return best


def _file_system(path: Path) -> str:
    return _mount(path.resolve())[1]


def _mount_point(path: Path) -> str:
    return _mount(path.resolve())[0]


_CHECKS: list[tuple[str, Callable[[str], Iterator[Check]]]] = [
    ("kernel", _kernel),
    ("library", _extension),
    ("processor", _processor),
    ("memory", _memory),
    ("runtime folder", _runtime_folder),
    ("file system", _tmpfs),
    ("media", _media),
    ("discovery", _discovery),
]
