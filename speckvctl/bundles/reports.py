# SPDX-License-Identifier: MIT
"""The report of a bitstream's build (rtl/boards/ulx3s/build.py writes it), as the manifest of its bundle."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speckvctl import jsontext
from speckvctl.errors import DamagedError, UnsupportedError, UsageError

if TYPE_CHECKING:
    from speckv.bundle import Manifest

KIND, VERSION = "speckv.bitstream", 0
MAX_BYTES = 1 << 16
_TEXTS = ("name", "configuration", "part", "tools")
_NUMBERS = ("clock_hz", "fmax_hz", "map_major", "map_minor", "rtl_major", "rtl_minor", "rtl_patch")


def manifest_of(path: Path, bitstream: Path, data: bytes, security_version: int) -> Manifest:
    """The manifest from a report, checked against its bitstream."""
    from speckv import bundle

    report = _parse(path)
    fields: dict[str, Any] = {}
    for name in (*_TEXTS, *_NUMBERS, "build_id", "bitstream_sha256"):
        value: Any = report.get(name)
        kind = int if name in _NUMBERS else str
        if type(value) is not kind:
            raise UsageError(f"{path}: '{name}' is missing, or is not {'a number' if kind is int else 'text'}")
        most = 1 << (64 if name.endswith("_hz") else 32)
        if jsontext.has_surrogate(value) if isinstance(value, str) else not 0 <= value < most:
            raise UsageError(f"{path}: '{name}' has a value that no bundle can hold")
        fields[name] = value
    digest = sha256(data).hexdigest()
    if fields.pop("bitstream_sha256") != digest:
        raise DamagedError(f"{path} is the report of another bitstream than {bitstream}", "build both again")
    try:
        fields["build_id"] = bytes.fromhex(fields["build_id"])
    except ValueError as exc:
        raise UsageError(f"{path}: 'build_id' is not hexadecimal") from exc
    return bundle.Manifest(**fields, security_version=security_version)


def _parse(path: Path) -> dict[str, Any]:
    try:
        report = jsontext.read(path, MAX_BYTES)
    except jsontext.JsonError as exc:
        raise UsageError(f"{path} is not the report of a build: {exc}", "python rtl/boards/ulx3s/build.py") from exc
    if report.get("report") != KIND:
        raise UsageError(f"{path} is not the report of a build", "python rtl/boards/ulx3s/build.py")
    if report.get("version") != VERSION:
        raise UnsupportedError(f"{path}: a report of version {report.get('version')}, not {VERSION}")
    return report
