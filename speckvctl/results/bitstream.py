# SPDX-License-Identifier: MIT
"""Documents about bundles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from speckvctl.exitcodes import ExitCode
from speckvctl.results.document import Document


@dataclass(frozen=True, kw_only=True)
class BitstreamManifest:
    name: str
    configuration: str
    part: str
    rtl_revision: str
    map_version: str
    security_version: int
    build_id: str
    clock_hz: int
    fmax_hz: int
    tools: str
    bitstream_bytes: int
    bitstream_sha256: str


@dataclass(frozen=True, kw_only=True)
class BitstreamBuild(Document):
    schema: ClassVar[str] = "speckvctl.bitstream-build"
    bundle: str
    dry_run: bool
    bundle_bytes: int
    key_id: str | None  # None: unsigned
    manifest: BitstreamManifest


@dataclass(frozen=True, kw_only=True)
class BitstreamInspect(Document):
    schema: ClassVar[str] = "speckvctl.bitstream-inspect"
    bundle: str
    bundle_bytes: int
    key_id: str | None  # None: unsigned
    manifest: BitstreamManifest


@dataclass(frozen=True, kw_only=True)
class BitstreamVerify(Document):
    schema: ClassVar[str] = "speckvctl.bitstream-verify"
    bundle: str
    bundle_bytes: int
    key_id: str
    key: str  # file of the trusted key
    manifest: BitstreamManifest


@dataclass(frozen=True, kw_only=True)
class BitstreamSign(Document):
    schema: ClassVar[str] = "speckvctl.bitstream-sign"
    bundle: str
    dry_run: bool
    changed: bool
    bundle_bytes: int
    key_id: str
    replaced_key_id: str | None

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode.DONE if self.changed else ExitCode.NOTHING_TO_DO


@dataclass(frozen=True, kw_only=True)
class BitstreamKeygen(Document):
    schema: ClassVar[str] = "speckvctl.bitstream-keygen"
    secret_key: str
    public_key: str
    dry_run: bool
    key_id: str | None  # None: not made yet
