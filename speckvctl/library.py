# SPDX-License-Identifier: MIT
"""Calls the library `speckv` for the commands.

`speckv` and everything it imports is imported here, on first use, so that help and usage errors stay fast.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from speckvctl import describe, results
from speckvctl.console import note
from speckvctl.errors import AbsentError, DamagedError, DeniedError, UnsupportedError, UsageError
from speckvctl.quantities import suggested_size

if TYPE_CHECKING:
    import speckv


@contextmanager
def context() -> Iterator[speckv.Context]:
    import speckv

    with speckv.Context() as ctx:
        yield ctx


def is_card(name: str) -> bool:
    from speckv import card

    return card.is_card(name)


def check_device_name(name: str) -> str:
    """Refuse an invalid device name, or an unsupported kind of device, before any access."""
    if name.startswith(("host:", "emu:")) and not name.endswith(":"):
        return name
    if name.startswith("/dev/speckv"):
        raise UnsupportedError(f"{name}: cards are not supported by this build", "use host:DRAM, or emu:NAME")
    raise UsageError(
        f"'{name}' is not a device name", "name host:DRAM, host:numaN, host:/path/to/file, host:/dev/daxX.Y or emu:NAME"
    )


def first_pool(ctx: speckv.Context, name: str = "host:DRAM") -> str:
    """The command that creates a pool on a device, with a size that fits the free space."""
    import speckv

    free: int | None = None
    with suppress(speckv.SpeckvError):
        free = ctx.probe(name).free_bytes
    return f"speckvctl pool create {name} NAME --size {suggested_size(free)}"


def left_over(info: speckv.DeviceInfo, known: Iterable[str] = ()) -> list[str]:
    """Pool files without a record in the table: the table was lost or recreated."""
    if is_card(info.name) or info.state not in ("absent", "ready") or info.single_inode:
        return []
    try:
        names = os.listdir(f"{info.path}.pools")
    except OSError:
        return []
    return sorted(name for name in names if not name.startswith(".") and name not in known)


def hidden_left(info: speckv.DeviceInfo, known: Iterable[str] = ()) -> list[str]:
    """Temporary and lock files of pools, by uuid, that belong to no known pool."""
    if is_card(info.name) or info.state not in ("absent", "ready") or info.single_inode:
        return []
    of_known = {uuid.replace("-", "") for uuid in known}
    with suppress(OSError):
        found = (re.fullmatch(r"\.([0-9a-f]{32})\.(new|lock)", name) for name in os.listdir(f"{info.path}.pools"))
        return sorted(match[0] for match in found if match and match[1] not in of_known)
    return []


def require_ready(info: speckv.DeviceInfo) -> None:
    """Refuse a device that cannot be opened, with the next command; the library's errors cover the rest.

    A reachable card has no medium before its first pool: for a card, opening it reports the error.
    """
    if is_card(info.name):
        require_permission(info)
        return
    if info.state == "absent" and (left := left_over(info)):
        raise AbsentError(
            f"the table of {info.name} is gone; left of it in {info.path}.pools: {', '.join(left)}",
            f"speckvctl pool check {info.name} {left[0]} --repair",
            errno.ENOENT,
        )
    if info.state == "absent":
        raise AbsentError(
            f"{info.name} does not exist yet: its first pool creates it",
            f"speckvctl pool create {info.name} NAME --size {suggested_size(info.free_bytes or None)}",
            errno.ENOENT,
        )
    require_permission(info)


def require_permission(info: speckv.DeviceInfo) -> None:
    if info.state == "denied":
        raise DeniedError(
            f"{info.name}: no permission to look at {info.path}: {info.found}", "speckvctl doctor", errno.EACCES
        )
    if info.state == "offline" or (info.state == "absent" and is_card(info.name) and not info.capacity_bytes):
        raise AbsentError(info.found, None, errno.ENXIO)


@contextmanager
def device(name: str) -> Iterator[speckv.Device]:
    """An existing device, open."""
    check_device_name(name)
    with context() as ctx:
        require_ready(ctx.probe(name))
        with ctx.open(name) as dev:
            yield dev


@contextmanager
def repaired_device(name: str, pool: str) -> Iterator[speckv.Device]:
    """Open an existing device; if its table is lost, adopt the named pool's file first."""
    check_device_name(name)
    with context() as ctx:
        info = ctx.probe(name)
        left = pool in left_over(info)
        if not left:
            require_ready(info)
        with ctx.open(name, create=left) as dev:
            if left and pool in left_over(info, (found.config.name for found in dev.pools())):
                path = f"{info.path}.pools/{pool}"
                if info.state == "absent" and not dev.pools():
                    dev.close()
                    ctx.remove(name)  # created in vain
                raise DamagedError(
                    f"{path} is not an intact pool: it cannot be taken over", f"mv {path} /var/tmp/", errno.EUCLEAN
                )
            yield dev


def ready_devices(ctx: speckv.Context, *, warn: bool = True) -> Iterator[speckv.Device]:
    """Open every host device that is usable; warn about the others."""
    import speckv

    for info in ctx.devices():
        reason = info.found
        if info.state == "ready" or (info.state == "absent" and is_card(info.name)):
            try:
                dev = ctx.open(info.name)
            except speckv.SpeckvError as exc:
                reason = str(exc)
            else:
                with dev:
                    yield dev
                continue
        if warn:
            note(f"warning: left out {info.name}: {reason}")


@contextmanager
def chosen_devices(name: str | None) -> Iterator[Iterator[speckv.Device]]:
    """The named device, or all devices."""
    if name is not None:
        with device(name) as dev:
            yield iter([dev])
    else:
        with context() as ctx:
            yield ready_devices(ctx)


def hardware() -> list[results.Hardware] | None:
    """Hardware that could carry an engine; without libudev only NUMA nodes, None if there are none."""
    from speckvctl import discovery

    try:
        found = discovery.discover()
    except discovery.DiscoveryError as exc:
        note(f"warning: {exc}; of hardware, only memory-only NUMA nodes are listed")
        nodes = discovery.memory_nodes()
        return [describe.hardware(item) for item in nodes] if nodes else None
    return [describe.hardware(item) for item in found]
