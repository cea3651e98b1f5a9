# SPDX-License-Identifier: MIT
"""A sample of every device and pool: the library's data, with the time of the calls."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from speckvctl import describe, eventlog, library, results
from speckvctl.cards import access

if TYPE_CHECKING:
    import speckv


@dataclass(frozen=True)
class PoolSample:
    info: speckv.PoolInfo
    at_ns: int
    """CLOCK_MONOTONIC when the counters were read: rates must not depend on a clock that is set."""
    stats: speckv.Stats | None = None
    tenants: list[speckv.TenantInfo] = field(default_factory=list)
    clients: list[speckv.ClientInfo] = field(default_factory=list)


@dataclass(frozen=True)
class DeviceSample:
    """A device; fields after the pools are of cards only."""

    device: results.Device
    pools: list[PoolSample] = field(default_factory=list)
    health: str | None = None
    temperature_millicelsius: int | None = None
    prefetch_depth: int | None = None
    link: str | None = None
    queue_depth: int | None = None


@dataclass(frozen=True)
class Sample:
    time_ns: int
    at_ns: int
    devices: list[DeviceSample]
    events: list[results.EventRow]


class Sampler:
    """Samples one device, or all. Devices and pools may appear and disappear between two samples."""

    def __init__(self, device: str | None) -> None:
        if device is not None:
            library.check_device_name(device)
        self.device = device
        self._log = eventlog.Reader(eventlog.Filter())

    def require(self) -> None:
        """A named device must exist at the start; later it may disappear and return."""
        if self.device is None:
            return
        if library.is_card(self.device):
            with library.context() as ctx:
                access.look(ctx, self.device, refuse=("absent",))
            return
        with library.device(self.device):
            pass

    def look(self) -> Sample:
        time_ns, at_ns = time.time_ns(), time.monotonic_ns()
        devices: list[DeviceSample] = []
        events: list[results.EventRow] = []
        with library.context() as ctx:
            devices += [self._look_at(ctx, info, events) for info in self._engines(ctx)]
            devices += [self._look_at_card(ctx, name, events) for name in self._cards(ctx)]
        return Sample(time_ns, at_ns, devices, eventlog.in_order(events))

    def _engines(self, ctx: speckv.Context) -> Iterable[speckv.DeviceInfo]:
        if self.device is None:
            found = [info for info in ctx.devices() if not library.is_card(info.name)]
        else:
            found = [] if library.is_card(self.device) else [ctx.probe(self.device)]
        return sorted((info for info in found if info.state != "absent"), key=lambda info: info.name)

    def _cards(self, ctx: speckv.Context) -> Iterable[str]:
        import speckv

        found = speckv.card.emulated(ctx)
        return [name for name in found if self.device in (None, name)]

    def _look_at(self, ctx: speckv.Context, info: speckv.DeviceInfo, events: list[results.EventRow]) -> DeviceSample:
        import speckv

        described = describe.device(info)
        if info.state != "ready":
            return DeviceSample(described)
        pools: list[PoolSample] = []
        try:
            with ctx.open(info.name) as dev:
                pools += _pools_of(dev)
                events += self._log.read([dev])
        except speckv.SpeckvError as exc:  # gone or being recreated: shown in its row, and retried
            return DeviceSample(replace(described, state="failed", found=str(exc)), pools)
        return DeviceSample(described, pools)

    def _look_at_card(self, ctx: speckv.Context, name: str, events: list[results.EventRow]) -> DeviceSample:
        import speckv

        try:
            with speckv.card.Admin(ctx, name) as admin:
                info, health = admin.info(), admin.health()
                depth = admin.setting(speckv.card.Setting.PREFETCH_DEPTH)
                with access.opened(ctx, admin) as devices:
                    pools = [pool for dev in devices for pool in _pools_of(dev)]
                    events += self._log.read(devices, [admin])
                return DeviceSample(
                    describe.card_device(info, access.stopped(admin, health)),
                    pools,
                    health=",".join(map(str, health.conditions)) or "healthy",
                    temperature_millicelsius=health.temperature_millicelsius,
                    prefetch_depth=depth,
                    link=str(link) if (link := describe.card_link(health)) else None,
                    queue_depth=health.outstanding,
                )
        except speckv.SpeckvError as exc:
            described = describe.unreachable_card(ctx, name, exc)
        pools = []
        if described.state == "denied":  # without administration rights the pools may still be accessible
            with suppress(speckv.SpeckvError), ctx.open(name) as dev:
                pools += _pools_of(dev)
        return DeviceSample(described, pools)


def _pools_of(dev: speckv.Device) -> list[PoolSample]:
    looked = (_look_into(dev, info) for info in dev.pools())
    return [sample for sample in looked if sample is not None]


def _look_into(dev: speckv.Device, info: speckv.PoolInfo) -> PoolSample | None:
    import speckv

    name = info.config.name
    if not info.accessible:
        return PoolSample(info, time.monotonic_ns())
    try:
        stats, at_ns = dev.stats(name), time.monotonic_ns()
        return PoolSample(info, at_ns, stats, dev.tenants(name), dev.clients(name))
    except speckv.NotFoundError:
        return None  # destroyed since it was listed
    except speckv.SpeckvError:
        return PoolSample(info, time.monotonic_ns())  # its permissions changed, or it is being destroyed
