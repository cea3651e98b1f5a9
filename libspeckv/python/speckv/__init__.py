# SPDX-License-Identifier: MIT
"""Pools of KV cache on CXL-attached and host memory: the Python binding of libspeckv.

with speckv.Context() as context, context.open("host:DRAM", create=True) as device:
    device.create_pool(speckv.PoolConfig("kv", 1 << 30))
    with device.attach("kv") as pool:
        pool.put(keys, blocks)             # (n, block_bytes) in, numpy or torch, no copy
        statuses = pool.get(keys, blocks)  # 0, or a negative errno, per block
"""

from __future__ import annotations

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

from speckv import bundle
from speckv._speckv import ffi as _ffi
from speckv._speckv import lib as _lib
from speckv.context import Context
from speckv.device import Device, Progress
from speckv.errors import (
    BusyError,
    ClosedError,
    DamagedError,
    ExistsError,
    ForkedError,
    InvalidError,
    NotFoundError,
    NothingToDoError,
    PermissionDeniedError,
    PoolFullError,
    SpeckvError,
    StaleError,
    UnknownParameterError,
    UnsupportedError,
    VersionError,
    WaitTimeoutError,
)
from speckv.keys import KeySpec, derive_key
from speckv.types import (
    CheckReport,
    ClientInfo,
    Codec,
    DeviceInfo,
    DType,
    Durability,
    Event,
    Eviction,
    Geometry,
    MediumState,
    Placement,
    PoolConfig,
    PoolInfo,
    PoolState,
    SelftestStep,
    Severity,
    Stats,
    TenantInfo,
    histogram_bounds,
    histogram_quantile,
)

if TYPE_CHECKING:
    from speckv import card, codec
    from speckv.memory import Memory
    from speckv.op import Op
    from speckv.pool import Params, Pool
    from speckv.requests import Buffers, Keys, Statuses
else:
    #: Imported on first use: names that need numpy, whose import takes longer than most administration, and rare ones.
    _ON_DEMAND = {
        "Buffers": "requests",
        "Keys": "requests",
        "Memory": "memory",
        "Op": "op",
        "Params": "pool",
        "Pool": "pool",
        "Statuses": "requests",
        "card": "card",
        "codec": "codec",
    }

    def __getattr__(name: str) -> object:
        if name not in _ON_DEMAND:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = _import_module(f"{__name__}.{_ON_DEMAND[name]}")
        found = module if name == _ON_DEMAND[name] else getattr(module, name)
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *_ON_DEMAND})


def version() -> str:
    """Version of the C library, "major.minor.patch"."""
    return str(_ffi.string(_lib.speckv_version()).decode())


__version__ = version()


__all__ = [
    "Buffers",
    "BusyError",
    "CheckReport",
    "ClientInfo",
    "ClosedError",
    "Codec",
    "Context",
    "DType",
    "DamagedError",
    "Device",
    "DeviceInfo",
    "Durability",
    "Event",
    "Eviction",
    "ExistsError",
    "ForkedError",
    "Geometry",
    "InvalidError",
    "KeySpec",
    "Keys",
    "MediumState",
    "Memory",
    "NotFoundError",
    "NothingToDoError",
    "Op",
    "Params",
    "PermissionDeniedError",
    "Placement",
    "Pool",
    "PoolConfig",
    "PoolFullError",
    "PoolInfo",
    "PoolState",
    "Progress",
    "SelftestStep",
    "Severity",
    "SpeckvError",
    "StaleError",
    "Stats",
    "Statuses",
    "TenantInfo",
    "UnknownParameterError",
    "UnsupportedError",
    "VersionError",
    "WaitTimeoutError",
    "bundle",
    "card",
    "codec",
    "derive_key",
    "histogram_bounds",
    "histogram_quantile",
    "version",
]
