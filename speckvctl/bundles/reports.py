# SPDX-License-Identifier: MIT
"""The report of a bitstream's build (rtl/syn/build.py writes it), as the manifest of its bundle."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speckvctl.bundles import files
from speckvctl.errors import DamagedError, UnsupportedError, UsageError

if TYPE_CHECKING:
    from speckv.bundle import Manifest

KIND, VERSION = "speckv.bitstream", 0
_TEXTS = ("name", "configuration", "part", "tools")
_NUMBERS = ("clock_hz", "fmax_hz", "map_major", "map_minor", "rtl_major", "rtl_minor", "rtl_patch")


def manifest_of(path: Path, bitstream: Path, data: bytes, security_version: int) -> Manifest:
    """What the report says, after holding it against the bitstream it is about."""
    from speckv import bundle

    report = _parse(path)
    fields: dict[str, Any] = {}
    for name in (*_TEXTS, *_NUMBERS, "build_id", "bitstream_sha256"):
        value, kind = report.get(name), int if name in _NUMBERS else str
        if type(value) is not kind:
            raise UsageError(f"{path}: '{name}' is missing, or is not {'a number' if kind is int else 'text'}")
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
        report = json.loads(files.read_text(path))
    except ValueError as exc:
        raise UsageError(f"{path} is not the report of a build: {exc}", "python rtl/syn/build.py") from exc
    if not isinstance(report, dict) or report.get("report") != KIND:
        raise UsageError(f"{path} is not the report of a build", "python rtl/syn/build.py")
    if report.get("version") != VERSION:
        raise UnsupportedError(f"{path}: a report of version {report.get('version')}, not {VERSION}")
    return report
