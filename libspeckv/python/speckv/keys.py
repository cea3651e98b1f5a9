# SPDX-License-Identifier: MIT
"""Block keys: 32 bytes, derived in C from all that makes the KV of equal tokens differ."""

from __future__ import annotations

import errno
import functools
from dataclasses import dataclass, field
from typing import Any

from speckv._speckv import ffi, lib
from speckv.errors import InvalidError, PermissionDeniedError, check
from speckv.types import Geometry, c_text

_SINGLE_TENANT = 1  # struct speckv_key_spec.flags


@dataclass(frozen=True, slots=True)
class KeySpec:
    """Inputs of a key besides the engine's block hash; the fields are those of struct speckv_key_spec."""

    model_digest: bytes
    geometry: Geometry
    rope: str = ""
    scales: str = ""
    parallel_rank: int = 0
    parallel_size: int = 1
    group: int = 0
    single_tenant: bool = False
    tenant_secret: str = field(default="", repr=False)
    cache_salt: str = ""


@functools.lru_cache(maxsize=64)
def _c_spec(spec: KeySpec) -> tuple[Any, Any]:
    """The C struct, and the memory that it points to."""
    if len(spec.model_digest) != 32:
        raise InvalidError(errno.EINVAL, f"a model digest has 32 bytes, not {len(spec.model_digest)}")
    texts = {name: ffi.new("char[]", c_text(getattr(spec, name))) for name in _TEXTS}
    c_spec = ffi.new("struct speckv_key_spec *", {"model_digest": spec.model_digest, **texts})
    c_spec.geometry = spec.geometry.to_c()[0]
    try:
        c_spec.parallel_rank, c_spec.parallel_size = spec.parallel_rank, spec.parallel_size
        c_spec.group = spec.group
    except OverflowError as exc:
        raise InvalidError(errno.EINVAL, f"rank, size and group of a key are 32-bit numbers: {spec}") from exc
    c_spec.flags = _SINGLE_TENANT if spec.single_tenant else 0
    return c_spec, texts


_TEXTS = ("rope", "scales", "tenant_secret", "cache_salt")


def derive_key(spec: KeySpec, engine_hash: bytes | bytearray | memoryview) -> bytes:
    """Key of an engine's block hash; a hash under 16 bytes is refused unless the spec says single_tenant."""
    out = ffi.new("struct speckv_key *")
    rc = lib.speckv_key_derive(_c_spec(spec)[0], ffi.from_buffer(engine_hash), len(engine_hash), out)
    if rc == -errno.EPERM:
        raise PermissionDeniedError(
            rc, f"a hash of {len(engine_hash)} bytes can collide: 16 at least, or a pool of a single tenant"
        )
    check(rc, what="deriving a key")
    return bytes(ffi.buffer(out))
