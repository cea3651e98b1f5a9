# SPDX-License-Identifier: MIT
"""One look at every device and pool: what the library says at this instant, with the time it was asked."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from speckvctl import eventlog, library, results

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
    device: results.Device
    pools: list[PoolSample] = field(default_factory=list)


@dataclass(frozen=True)
class Sample:
    time_ns: int
    at_ns: int
    devices: list[DeviceSample]
    events: list[results.EventRow]


class Sampler:
    """Looks at one device, or at all there are. Devices and pools may come and go between two looks."""

    def __init__(self, device: str | None) -> None:
        if device is not None:
            library.check_device_name(device)
        self.device = device
        self._log = eventlog.Reader(eventlog.Filter())

    def require(self) -> None:
        """A device that was named must be there when the command starts; later it may go and come again."""
        if self.device is not None:
            with library.device(self.device):
                pass

    def look(self) -> Sample:
        time_ns, at_ns = time.time_ns(), time.monotonic_ns()
        devices: list[DeviceSample] = []
        events: list[results.EventRow] = []
        with library.context() as ctx:
            for info in self._found(ctx):
                devices.append(self._look_at(ctx, info, events))
        events.sort(key=lambda row: (row.time_ns, row.device, row.pool or "", row.sequence or 0))
        return Sample(time_ns, at_ns, devices, events)

    def _found(self, ctx: speckv.Context) -> Iterable[speckv.DeviceInfo]:
        found = ctx.devices() if self.device is None else [ctx.probe(self.device)]
        return sorted((info for info in found if info.state != "absent"), key=lambda info: info.name)

    def _look_at(self, ctx: speckv.Context, info: speckv.DeviceInfo, events: list[results.EventRow]) -> DeviceSample:
        import speckv

        described = library.device_result(info)
        if info.state != "ready":
            return DeviceSample(described)
        pools: list[PoolSample] = []
        try:
            with ctx.open(info.name) as dev:
                for pool in dev.pools():
                    sampled = _look_into(dev, pool)
                    if sampled is not None:
                        pools.append(sampled)
                events += self._log.read([dev])
        except speckv.SpeckvError as exc:  # it went away, or is being made anew: said in its row, and looked at again
            return DeviceSample(_failed(described, str(exc)), pools)
        return DeviceSample(described, pools)


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


def _failed(device: results.Device, why: str) -> results.Device:
    from dataclasses import replace

    return replace(device, state="failed", found=why)
