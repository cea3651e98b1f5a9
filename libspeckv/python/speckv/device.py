# SPDX-License-Identifier: MIT
"""Device: a card or a host device, and the administration of its pools."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from speckv import callbacks
from speckv._speckv import ffi, lib
from speckv.errors import check
from speckv.handle import Handle, Owner
from speckv.types import (
    CheckReport,
    ClientInfo,
    DeviceInfo,
    Event,
    Eviction,
    PoolConfig,
    PoolInfo,
    SelftestStep,
    Stats,
    TenantInfo,
    c_text,
    c_value,
    from_c,
    put_number,
    stats_from_c,
)

if TYPE_CHECKING:
    from speckv.pool import Pool

#: Called with units done and total; return True to cancel at the next safe point.
Progress = Callable[[int, int], bool | None]

_Item = TypeVar("_Item")


class Device(Owner):
    """Created by Context.open(). Close it, or use it as a context manager; that closes its pools' attachments."""

    def __init__(self, name: str, pointer: Any, parent: Handle) -> None:
        self.name = name
        self._ctx = lib.speckv_device_ctx(pointer)  # only for error texts, which outlive it
        self._handle = Handle(f"device {name}", pointer, lib.speckv_device_close, parent)

    def info(self) -> DeviceInfo:
        info = ffi.new("struct speckv_device_info *")
        self._check(self._handle.call(lib.speckv_device_info, info))
        return from_c(DeviceInfo, info)

    def selftest(self, on_step: Callable[[SelftestStep], None] | None = None) -> list[SelftestStep]:
        """Run the self-test; a step that fails is in the list, not an exception. Changes nothing that is stored."""
        steps: list[SelftestStep] = []

        def collect(item: Any) -> None:
            steps.append(from_c(SelftestStep, item))
            if on_step is not None:
                on_step(steps[-1])

        relay = callbacks.Relay(collect)
        rc = self._handle.call(lib.speckv_device_selftest, callbacks.SELFTEST, relay.arg)
        relay.finish()
        if all(step.passed for step in steps):
            self._check(rc)  # it could not start
        return steps

    def create_pool(self, config: PoolConfig) -> PoolInfo:
        info = ffi.new("struct speckv_pool_info *")
        self._check(self._handle.call(lib.speckv_pool_create, config.to_c(), info))
        return from_c(PoolInfo, info)

    def pool(self, name: str) -> PoolInfo:
        info = ffi.new("struct speckv_pool_info *")
        self._check(self._handle.call(lib.speckv_pool_info, c_text(name), info))
        return from_c(PoolInfo, info)

    def calibration(self, name: str) -> bytes:
        """The file of a pool's calibration, verified. NotFoundError for a pool whose codec needs none."""
        size = ffi.new("uint64_t *")
        rc = self._handle.call(lib.speckv_pool_calibration, c_text(name), ffi.NULL, 0, size)
        if rc != -errno.ENOSPC:
            self._check(rc)
        file = bytearray(int(size[0]))
        where = ffi.from_buffer(file)
        self._check(self._handle.call(lib.speckv_pool_calibration, c_text(name), where, len(file), size))
        return bytes(file[: int(size[0])])

    def pools(self) -> list[PoolInfo]:
        return self._collect(lib.speckv_pool_foreach, callbacks.POOL, PoolInfo)

    def resize_pool(
        self,
        name: str,
        capacity_bytes: int,
        *,
        evict: bool = False,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> PoolInfo:
        flags = (lib.SPECKV_RESIZE_EVICT if evict else 0) | (lib.SPECKV_RESIZE_DRY_RUN if dry_run else 0)
        info = ffi.new("struct speckv_pool_info *")
        config = ffi.new("struct speckv_pool_config *")
        put_number(config, "capacity_bytes", capacity_bytes)  # refuses out-of-range values before the C call
        self._with_progress(
            progress, lib.speckv_pool_resize, c_text(name), config.capacity_bytes, flags, result=(info,)
        )
        return from_c(PoolInfo, info)

    def set_pool(
        self,
        name: str,
        *,
        quota_bytes: int | None = None,
        tenant_quota_bytes: int | None = None,
        eviction: Eviction | str | None = None,
        uid: int | None = None,
        gid: int | None = None,
        mode: int | None = None,
        dry_run: bool = False,
    ) -> PoolInfo:
        """Change the given settings, all or none. NothingToDoError if nothing would change."""
        config = ffi.new("struct speckv_pool_config *", {"uid": 0xFFFFFFFF, "gid": 0xFFFFFFFF})
        mask = lib.SPECKV_SET_DRY_RUN if dry_run else 0
        for field, number, bit in (
            ("quota_bytes", quota_bytes, lib.SPECKV_SET_QUOTA),
            ("tenant_quota_bytes", tenant_quota_bytes, lib.SPECKV_SET_TENANT_QUOTA),
            ("uid", uid, lib.SPECKV_SET_OWNER),
            ("gid", gid, lib.SPECKV_SET_OWNER),
            ("mode", mode, lib.SPECKV_SET_MODE),
        ):
            if number is not None:
                put_number(config, field, number)
                mask |= bit
        if mask & lib.SPECKV_SET_OWNER and (uid is None or gid is None):
            now = self.pool(name).config.to_c()  # uid and gid are set together: keep the one not given
            if uid is None:
                config.uid = now.uid
            else:
                config.gid = now.gid
        if eviction is not None:
            config.eviction = c_value(Eviction, eviction)
            mask |= lib.SPECKV_SET_EVICTION
        info = ffi.new("struct speckv_pool_info *")
        self._check(self._handle.call(lib.speckv_pool_set, c_text(name), mask, config, info))
        return from_c(PoolInfo, info)

    def destroy_pool(self, name: str, *, dry_run: bool = False, progress: Progress | None = None) -> None:
        """Zero and remove a pool; `dry_run` only raises the errors."""
        if dry_run:
            self._check(self._handle.call(lib.speckv_pool_destroy_check, c_text(name)))
            return
        self._with_progress(progress, lib.speckv_pool_destroy, c_text(name))

    def check_pool(
        self, name: str, *, deep: bool = False, repair: bool = False, progress: Progress | None = None
    ) -> CheckReport:
        """Check a pool, in use or not. Findings are in the report (`.clean`), not exceptions."""
        flags = (lib.SPECKV_CHECK_DEEP if deep else 0) | (lib.SPECKV_CHECK_REPAIR if repair else 0)
        report = ffi.new("struct speckv_check_report *")
        rc = self._with_progress(
            progress, lib.speckv_pool_check, c_text(name), flags, result=(report,), accept=-errno.EUCLEAN
        )
        fields = {field: int(getattr(report, field)) for field, _ in ffi.typeof("struct speckv_check_report").fields}
        return CheckReport(**fields, clean=rc == 0)

    def stats(self, pool: str) -> Stats:
        stats = ffi.new("struct speckv_stats *")
        self._check(self._handle.call(lib.speckv_pool_stats, c_text(pool), stats))
        return stats_from_c(stats)

    def reset_stats(self, pool: str, *, dry_run: bool = False) -> None:
        """Set counters and histograms to zero; `dry_run` only raises the errors."""
        function = lib.speckv_pool_stats_reset_check if dry_run else lib.speckv_pool_stats_reset
        self._check(self._handle.call(function, c_text(pool)))

    def tenants(self, pool: str) -> list[TenantInfo]:
        return self._collect(lib.speckv_pool_tenants, callbacks.TENANT, TenantInfo, c_text(pool))

    def clients(self, pool: str) -> list[ClientInfo]:
        return self._collect(lib.speckv_pool_clients, callbacks.CLIENT, ClientInfo, c_text(pool))

    def events(self, pool: str | None = None, after: int = 0) -> list[Event]:
        """Events with a sequence above `after`, oldest first: of the device, or of one pool."""
        name = ffi.NULL if pool is None else ffi.new("char[]", c_text(pool))
        return self._collect(lib.speckv_events, callbacks.EVENT, Event, name, after)

    def attach(
        self,
        pool: str,
        *,
        tenant: str | None = None,
        read_only: bool = False,
        workers: int = 0,
        staging_bytes: int = 0,
    ) -> Pool:
        """Attach this process to a pool, to put and get blocks."""
        from speckv.pool import Pool  # imported here: it needs numpy, administration does not

        name = ffi.NULL if tenant is None else ffi.new("char[]", c_text(tenant))
        attach = ffi.new("struct speckv_attach *", {"tenant": name})
        attach.flags = lib.SPECKV_ATTACH_READ_ONLY if read_only else 0
        put_number(attach, "workers", workers)
        put_number(attach, "staging_bytes", staging_bytes)
        out = ffi.new("struct speckv_pool **")

        def attached(device: Any) -> Pool:
            self._check(lib.speckv_pool_open(device, c_text(pool), attach, out))
            return Pool(pool, out[0], self._handle)

        made: Pool = self._handle.call(attached)
        return made

    def __repr__(self) -> str:
        return f"<speckv.Device {self.name}{' closed' if self._handle.closed else ''}>"

    def _check(self, rc: int) -> int:
        return check(rc, self._ctx)

    def _collect(self, function: Any, callback: Any, kind: type[_Item], *arguments: Any) -> list[_Item]:
        items: list[_Item] = []
        relay = callbacks.Relay(lambda item: items.append(from_c(kind, item)))
        rc = self._handle.call(function, *arguments, callback, relay.arg)
        relay.finish()
        self._check(rc)
        return items

    def _with_progress(
        self, progress: Progress | None, function: Any, *arguments: Any, result: tuple[Any, ...] = (), accept: int = 0
    ) -> int:
        """Call `function` with a progress callback; `accept` is a negative code that is no failure."""
        if progress is None:
            rc = self._handle.call(function, *arguments, ffi.NULL, ffi.NULL, *result)
        else:
            relay = callbacks.Relay(progress)
            rc = self._handle.call(function, *arguments, callbacks.PROGRESS, relay.arg, *result)
            relay.finish()
        return int(rc) if rc == accept else self._check(rc)
