# SPDX-License-Identifier: MIT
"""Bundles: signed bitstreams, read, built, signed and verified by the C library; and the keys that sign them."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from speckv._speckv import ffi, lib
from speckv.errors import DamagedError, InvalidError, SpeckvError, check
from speckv.types import c_text

KEY_BYTES = 32
#: Most bytes of a bundle file.
BYTES_MAX = int(lib.SPECKV_BUNDLE_BITSTREAM_OFFSET) + int(lib.SPECKV_BUNDLE_BITSTREAM_BYTES_MAX)

Buffer = bytes | bytearray | memoryview

_REASONS = {
    errno.EBADMSG: "not a bundle, cut short, or damaged",
    errno.EPROTONOSUPPORT: "a bundle of another version of the format",
    errno.ENOKEY: "not signed",
    errno.EKEYREJECTED: "signed by a key that is not trusted",
    errno.EXDEV: "for another part",
    errno.ESTALE: "of a security version that is too low",
    errno.EILSEQ: "its bitstream is not the one that the manifest names",
}
_KEY_REASONS = {
    errno.EBADMSG: "no such key in PEM",
    errno.EOPNOTSUPP: "a key, but not of Ed25519",
    errno.EACCES: "encrypted with a passphrase, which is not supported",
    errno.EINVAL: "too long to be a key",
}


class RefusedError(DamagedError):
    """A bundle or a key file is refused; `errno` is the reason (speckv/bundle.h)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A bundle's description of its bitstream. In a new bundle, size and digest are computed."""

    name: str
    configuration: str
    part: str
    tools: str
    build_id: bytes
    clock_hz: int
    fmax_hz: int
    map_major: int
    map_minor: int
    rtl_major: int
    rtl_minor: int
    rtl_patch: int
    security_version: int
    bitstream_bytes: int = 0
    bitstream_sha256: bytes = bytes(32)


_TEXTS = ("name", "configuration", "part", "tools")
_BYTES = ("build_id", "bitstream_sha256")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle's contents, before its signature is verified."""

    manifest: Manifest
    key_id: bytes | None  # SHA-256 of the claimed signer's public key


def verify(
    data: Buffer, public_keys: Sequence[bytes], *, part: str | None = None, security_version: int = 0
) -> Manifest:
    """The manifest of a bundle that one of the keys has signed; RefusedError otherwise."""
    for key in public_keys:
        _need_key(key)
    held = ffi.from_buffer(b"".join(public_keys))
    named = ffi.new("char[]", c_text(part)) if part is not None else ffi.NULL
    keys = ffi.new("struct speckv_bundle_keys *")
    keys.public_keys, keys.count, keys.part = ffi.cast("const uint8_t *", held), len(public_keys), named
    try:
        keys.security_version = security_version
    except OverflowError as exc:
        raise InvalidError(errno.EINVAL, f"a security version is a 32-bit number, not {security_version}") from exc
    out = ffi.new("struct speckv_bundle_manifest *")
    _accept(lib.speckv_bundle_verify(ffi.from_buffer(data), len(data), keys, out), _REASONS)
    return _manifest(out)


def inspect(data: Buffer) -> Bundle:
    """Parse a bundle without verifying its signature; RefusedError if it is damaged."""
    out = ffi.new("struct speckv_bundle *")
    _accept(lib.speckv_bundle_inspect(ffi.from_buffer(data), len(data), out), _REASONS)
    return Bundle(_manifest(out.manifest), bytes(ffi.buffer(out.key_id)) if out.is_signed else None)


def build(manifest: Manifest, bitstream: Buffer) -> bytearray:
    """An unsigned bundle."""
    wanted = ffi.new("struct speckv_bundle_manifest *")
    try:
        for name in Manifest.__slots__:
            value = getattr(manifest, name)
            if name in _BYTES:
                room = ffi.buffer(getattr(wanted, name))
                if len(value) != len(room):
                    raise ValueError(f"{name} has {len(room)} bytes, not {len(value)}")
                room[:] = value
            else:
                setattr(wanted, name, value.encode("ascii") if name in _TEXTS else value)
    except (IndexError, OverflowError, ValueError) as exc:  # the last one includes: not ASCII
        raise InvalidError(errno.EINVAL, f"invalid manifest: {exc}") from exc
    out = bytearray(int(lib.SPECKV_BUNDLE_BITSTREAM_OFFSET) + len(bitstream))
    rc = lib.speckv_bundle_build(
        wanted, ffi.from_buffer(bitstream), len(bitstream), ffi.from_buffer(out, require_writable=True), len(out)
    )
    check(rc, what="bundle not built: invalid manifest field, or empty or too long bitstream")
    return out


def sign(data: bytearray, secret_key: bytes) -> None:
    """Sign a bundle in place, replacing an existing signature."""
    _need_key(secret_key)
    _accept(lib.speckv_bundle_sign(ffi.from_buffer(data, require_writable=True), len(data), secret_key), _REASONS)


def generate_key() -> bytes:
    """A new secret key."""
    return _bytes(lib.speckv_bundle_key_generate)


def public_key(secret_key: bytes) -> bytes:
    """The public half of a secret key."""
    _need_key(secret_key)
    return _bytes(lambda out: lib.speckv_bundle_key_public(secret_key, out))


def key_id(public: bytes) -> bytes:
    """The name of a public key: its SHA-256."""
    _need_key(public)
    return _bytes(lambda out: lib.speckv_bundle_key_id(public, out))


def secret_to_pem(secret_key: bytes) -> str:
    """PKCS#8."""
    return _pem(lib.speckv_bundle_secret_to_pem, secret_key)


def public_to_pem(public: bytes) -> str:
    """SubjectPublicKeyInfo."""
    return _pem(lib.speckv_bundle_public_to_pem, public)


def secret_from_pem(pem: bytes) -> bytes:
    """Parse a secret key file; RefusedError if it is not one."""
    return _bytes(lambda out: lib.speckv_bundle_secret_from_pem(pem, len(pem), out), _KEY_REASONS)


def public_from_pem(pem: bytes) -> bytes:
    """Parse a public key file; RefusedError if it is not one."""
    return _bytes(lambda out: lib.speckv_bundle_public_from_pem(pem, len(pem), out), _KEY_REASONS)


def _need_key(key: bytes) -> None:
    if len(key) != KEY_BYTES:
        raise InvalidError(errno.EINVAL, f"a key has {KEY_BYTES} bytes, not {len(key)}")


def _accept(rc: int, reasons: dict[int, str]) -> None:
    if -rc in reasons:
        raise RefusedError(rc, reasons[-rc])
    check(rc, what="a bundle")


def _bytes(call: Callable[[Any], int], reasons: dict[int, str] | None = None) -> bytes:
    out = ffi.new("uint8_t[]", KEY_BYTES)
    _accept(call(out), reasons or {})
    return bytes(ffi.buffer(out))


def _pem(call: Callable[[bytes, Any, int], int], key: bytes) -> str:
    _need_key(key)
    text = ffi.new("char[]", int(lib.SPECKV_BUNDLE_PEM_BYTES))
    check(call(key, text, len(text)), what="a key as PEM")
    return str(ffi.string(text).decode("ascii"))


def _manifest(c: Any) -> Manifest:
    fields: dict[str, Any] = {}
    for name in Manifest.__slots__:
        value = getattr(c, name)
        if name in _TEXTS:
            fields[name] = ffi.string(value).decode("ascii")
        else:
            fields[name] = bytes(ffi.buffer(value)) if name in _BYTES else int(value)
    return Manifest(**fields)


__all__ = [
    "BYTES_MAX",
    "KEY_BYTES",
    "Bundle",
    "Manifest",
    "RefusedError",
    "SpeckvError",
    "build",
    "generate_key",
    "inspect",
    "key_id",
    "public_from_pem",
    "public_key",
    "public_to_pem",
    "secret_from_pem",
    "secret_to_pem",
    "sign",
    "verify",
]
