# SPDX-License-Identifier: MIT
"""Context: the root object of the binding."""

from __future__ import annotations

import os
import threading
from typing import Any

from speckv import callbacks
from speckv._speckv import ffi, lib
from speckv.device import Device
from speckv.errors import InvalidError, check
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
        folder = os.environ.get("SPECKV_RUNTIME_DIR", "") if runtime_dir is None else os.fspath(runtime_dir)
        if rc and folder and not folder.startswith("/"):
            raise InvalidError(rc, f"the runtime folder '{folder}' (SPECKV_RUNTIME_DIR) is not an absolute path")
        check(rc, what=f"runtime folder {folder}")
        self._ctx = out[0]  # only for error texts, which outlive it
        self._handle = Handle("the context", out[0], lib.speckv_ctx_destroy)

    @property
    def runtime_dir(self) -> str:
        """The folder of named media in force."""
        return str(self._handle.call(lambda ctx: os.fsdecode(ffi.string(lib.speckv_ctx_runtime_dir(ctx)))))

    def devices(self) -> list[DeviceInfo]:
        """Every host device that this user can see."""
        found: list[DeviceInfo] = []
        relay = callbacks.Relay(lambda info: found.append(from_c(DeviceInfo, info)))
        rc = self._handle.call(lib.speckv_device_foreach, callbacks.DEVICE, relay.arg)
        relay.finish()
        self._check(rc)
        return found

    def probe(self, name: str) -> DeviceInfo:
        """Probe a device name without changes."""
        info = ffi.new("struct speckv_device_info *")
        self._check(self._handle.call(lib.speckv_device_probe, c_text(name), info))
        return from_c(DeviceInfo, info)

    def open(self, name: str, *, create: bool = False, format: bool = False) -> Device:
        """Open a device; `create` creates a missing medium, `format` overwrites foreign contents."""
        flags = (lib.SPECKV_OPEN_CREATE if create else 0) | (lib.SPECKV_OPEN_FORMAT if format else 0)
        out = ffi.new("struct speckv_device **")

        def opened(ctx: Any) -> Device:
            self._check(lib.speckv_device_open(ctx, c_text(name), flags, out))
            return Device(name, out[0], self._handle)

        device: Device = self._handle.call(opened)
        return device

    def plan_pool(self, device: str, config: PoolConfig) -> PoolConfig:
        """`config` with the defaults of Device.create_pool() filled in; opens and creates nothing."""
        planned = ffi.new("struct speckv_pool_config *")
        self._check(self._handle.call(lib.speckv_pool_plan, c_text(device), config.to_c(), planned))
        return from_c(PoolConfig, planned)

    def remove(self, name: str, *, pools: bool = False, dry_run: bool = False) -> None:
        """Remove a host device; `pools` destroys and zeroes its pools too."""
        flags = (lib.SPECKV_REMOVE_POOLS if pools else 0) | (lib.SPECKV_REMOVE_DRY_RUN if dry_run else 0)
        self._check(self._handle.call(lib.speckv_device_remove, c_text(name), flags))

    def open_folder(
        self, path: str | os.PathLike[str], *, make: bool = False, group: bool = False, link: bool = True
    ) -> int:
        """The descriptor of a folder that only root and this user can change; the caller closes it.

        `make`: create it if missing. `group`: accept another user's, if a group of this process may read it. `link`:
        the last component may be a link made by root or this user.
        """
        flags = (lib.SPECKV_FOLDER_MAKE if make else 0) | (lib.SPECKV_FOLDER_GROUP if group else 0)
        flags |= 0 if link else lib.SPECKV_FOLDER_PLAIN
        return self._descriptor(self._handle.call(lib.speckv_folder_open, c_text(os.fspath(path)), flags))

    def open_file(self, folder: int, path: str | os.PathLike[str], flags: int, mode: int = 0o600) -> int:
        """The descriptor of a regular file in an open folder: the last component of `path`, not a link."""
        return self._descriptor(self._handle.call(lib.speckv_file_open, folder, c_text(os.fspath(path)), flags, mode))

    def _descriptor(self, rc: int) -> int:
        return check(rc, self._ctx)

    def _check(self, rc: int) -> None:
        check(rc, self._ctx)

    def __repr__(self) -> str:
        return "<speckv.Context closed>" if self._handle.closed else f"<speckv.Context {self.runtime_dir}>"
