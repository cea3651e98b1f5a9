# SPDX-License-Identifier: MIT
"""An independent verifier of bitstreams/FORMAT.md for tests; shares no code with the library. Slow and plain.

Ed25519 is RFC 8032's verification equation with integers.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import re
import struct

TYPE = b"application/vnd.speckv.bundle.v0+json"
LIMITS = {
    "bitstream_bytes": 1 << 28, "clock_hz": 10**12, "fmax_hz": 10**12, "map_major": 65535, "map_minor": 65535,
    "rtl_major": 65535, "rtl_minor": 255, "rtl_patch": 255, "security_version": 2**32 - 1,
}  # fmt: skip
DIGITS = {"bitstream_sha256": 64, "build_id": 16}
TEXTS = {"configuration": 31, "name": 31, "part": 31, "tools": 127}


class Refused(Exception):
    def __init__(self, number: int) -> None:
        super().__init__(errno.errorcode[number])
        self.errno = number


def require(condition: object, number: int = errno.EBADMSG) -> None:
    if not condition:
        raise Refused(number)


def verify(data: bytes, keys: list[bytes], part: str | None = None, security_version: int = 0) -> dict[str, object]:
    require(len(data) >= 4096 and data[:8] == b"SPKVBNDL")
    version, envelope_bytes, bitstream_bytes = struct.unpack_from("<IIQ", data, 8)
    require(version == 0, errno.EPROTONOSUPPORT)
    require(envelope_bytes <= 4032 and bitstream_bytes <= 1 << 28 and len(data) == 4096 + bitstream_bytes)
    require(not any(data[24:64]) and not any(data[64 + envelope_bytes : 4096]))
    payload, signature = read_envelope(data[64 : 64 + envelope_bytes])
    require(signature is not None, errno.ENOKEY)
    assert signature is not None
    by_name = {hashlib.sha256(key).hexdigest(): key for key in keys}
    require(signature[0] in by_name, errno.EKEYREJECTED)
    pae = b"DSSEv1 %d %s %d %s" % (len(TYPE), TYPE, len(payload), payload)
    require(ed25519_verify(by_name[signature[0]], pae, signature[1]))
    manifest = read_manifest(payload)
    require(part is None or manifest["part"] == part, errno.EXDEV)
    found = manifest["security_version"]
    assert isinstance(found, int)
    require(found >= security_version, errno.ESTALE)
    require(manifest["bitstream_bytes"] == bitstream_bytes)
    require(hashlib.sha256(data[4096:]).hexdigest() == manifest["bitstream_sha256"], errno.EILSEQ)
    return manifest


def read_envelope(text: bytes) -> tuple[bytes, tuple[str, bytes] | None]:
    try:
        envelope = json.loads(text.decode("ascii"))
        payload = base64.b64decode(envelope["payload"], validate=True)
        signatures = [(one["keyid"], base64.b64decode(one["sig"], validate=True)) for one in envelope["signatures"]]
        # Canonical encoding: re-encoding gives the same bytes.
        again = {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": TYPE.decode(),
            "signatures": [{"keyid": name, "sig": base64.b64encode(sig).decode()} for name, sig in signatures],
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise Refused(errno.EBADMSG) from exc
    require(json.dumps(again, separators=(",", ":")).encode() == text)
    require(len(payload) <= 1024 and len(signatures) <= 1)
    for name, signature in signatures:
        require(isinstance(name, str) and re.fullmatch(r"[0-9a-f]{64}", name) and len(signature) == 64)
    return payload, signatures[0] if signatures else None


def read_manifest(text: bytes) -> dict[str, object]:
    try:
        manifest = json.loads(text.decode("ascii"))
    except (ValueError, RecursionError) as exc:
        raise Refused(errno.EBADMSG) from exc
    require(isinstance(manifest, dict) and set(manifest) == {*LIMITS, *DIGITS, *TEXTS})
    require(json.dumps(manifest, separators=(",", ":"), sort_keys=True).encode() == text)
    for name, limit in LIMITS.items():
        require(type(manifest[name]) is int and 0 <= manifest[name] <= limit)
    for name, count in DIGITS.items():
        require(isinstance(manifest[name], str) and re.fullmatch(rf"[0-9a-f]{{{count}}}", manifest[name]))
    for name, most in TEXTS.items():
        require(isinstance(manifest[name], str) and re.fullmatch(rf"[ !#-\[\]-~]{{1,{most}}}", manifest[name]))
    require(manifest["bitstream_bytes"] >= 1)
    return {**manifest}


# ---- Ed25519 ---------------------------------------------------------------------------------------------------------

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
ROOT = pow(2, (P - 1) // 4, P)
Point = tuple[int, int, int, int]  # extended coordinates: x = X/Z, y = Y/Z, T = XY/Z


def add(a: Point, b: Point) -> Point:
    e, f = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    g, h = 2 * a[3] * b[3] * D % P, 2 * a[2] * b[2] % P
    x, y, z, w = f - e, h - g, h + g, f + e
    return x * y % P, z * w % P, y * z % P, x * w % P


def multiply(scalar: int, point: Point) -> Point:
    result: Point = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point = add(point, point)
        scalar >>= 1
    return result


def decode(encoded: bytes) -> Point | None:
    value = int.from_bytes(encoded, "little")
    sign, y = value >> 255, value & (2**255 - 1)
    if y >= P:
        return None
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT % P
    if (x * x - square) % P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = P - x
    return x, y, 1, x * y % P


_base = decode((4 * pow(5, -1, P) % P).to_bytes(32, "little"))
assert _base is not None
BASE: Point = _base


def ed25519_verify(key: bytes, message: bytes, signature: bytes) -> bool:
    a, r, s = decode(key), decode(signature[:32]), int.from_bytes(signature[32:], "little")
    if a is None or r is None or s >= ORDER:
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % ORDER
    left, right = multiply(s, BASE), add(r, multiply(k, a))
    return not ((left[0] * right[2] - right[0] * left[2]) % P or (left[1] * right[2] - right[1] * left[2]) % P)
