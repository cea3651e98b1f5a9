# SPDX-License-Identifier: MIT
"""Context: where everything starts."""

from __future__ import annotations

import os
import threading

from speckv import callbacks
from speckv._speckv import ffi, lib
from speckv.device import Device
from speckv.errors import check
from speckv.handle import Handle, Owner
from speckv.types import DeviceInfo, PoolConfig, c_text, from_c

_environment = threading.Lock()


class Context(Owner):
    """Finds and opens devices. Close it, or use it as a context manager; that closes what was opened through it."""

    def __init__(self, runtime_dir: str | os.PathLike[str] | None = None) -> None:
        """`runtime_dir` is the folder of named media; default: SPECKV_RUNTIME_DIR, else the library's choice."""
        out = ffi.new("struct speckv_ctx **")
        with _environment:  # the library reads the folder from the environment, and only there
            before = os.environ.get("SPECKV_RUNTIME_DIR")
            if runtime_dir is not None:
                os.environ["SPECKV_RUNTIME_DIR"] = os.fspath(runtime_dir)
            try:
                rc = lib.speckv_ctx_create(out)
            finally:
                if runtime_dir is not None:
                    if before is None:
                        del os.environ["SPECKV_RUNTIME_DIR"]
                    else:
                        os.environ["SPECKV_RUNTIME_DIR"] = before
        check(rc, what=f"runtime folder {os.environ.get('SPECKV_RUNTIME_DIR') if runtime_dir is None else runtime_dir}")
        self._handle = Handle("the context", out[0], lib.speckv_ctx_destroy)

    @property
    def runtime_dir(self) -> str:
        """The folder of named media in force."""
        return str(os.fsdecode(ffi.string(lib.speckv_ctx_runtime_dir(self._handle.get()))))

    def devices(self) -> list[DeviceInfo]:
        """Every host engine that this user can see."""
        ctx = self._handle.get()
        found: list[DeviceInfo] = []
        relay = callbacks.Relay(lambda info: found.append(from_c(DeviceInfo, info)))
        rc = lib.speckv_device_foreach(ctx, callbacks.DEVICE, relay.arg)
        relay.finish()
        check(rc, ctx)
        return found

    def probe(self, name: str) -> DeviceInfo:
        """Look at what lies at a device name, and change nothing."""
        ctx = self._handle.get()
        info = ffi.new("struct speckv_device_info *")
        check(lib.speckv_device_probe(ctx, c_text(name), info), ctx)
        return from_c(DeviceInfo, info)

    def open(self, name: str, *, create: bool = False, format: bool = False) -> Device:
        """Open a device; `create` makes a missing medium, `format` overwrites one that is not ours."""
        ctx = self._handle.get()
        flags = (lib.SPECKV_OPEN_CREATE if create else 0) | (lib.SPECKV_OPEN_FORMAT if format else 0)
        out = ffi.new("struct speckv_device **")
        check(lib.speckv_device_open(ctx, c_text(name), flags, out), ctx)
        return Device(name, out[0], self._handle)

    def plan_pool(self, device: str, config: PoolConfig) -> PoolConfig:
        """What Device.create_pool() would make of `config`, the defaults filled in: nothing is opened or made."""
        ctx = self._handle.get()
        planned = ffi.new("struct speckv_pool_config *")
        check(lib.speckv_pool_plan(ctx, c_text(device), config.to_c(), planned), ctx)
        return from_c(PoolConfig, planned)

    def remove(self, name: str, *, pools: bool = False) -> None:
        """Close a host engine for good; `pools` destroys its pools too, zeroing them."""
        ctx = self._handle.get()
        flags = lib.SPECKV_REMOVE_POOLS if pools else 0
        check(lib.speckv_device_remove(ctx, c_text(name), flags), ctx)

    def __repr__(self) -> str:
        return "<speckv.Context closed>" if self._handle.closed else f"<speckv.Context {self.runtime_dir}>"
