# SPDX-License-Identifier: MIT
"""Documents about bundles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from speckvctl.exitcodes import ExitCode
from speckvctl.results.described import Said
from speckvctl.results.document import Document


@dataclass(frozen=True, kw_only=True)
class BitstreamManifest:
    """What a bundle says of its bitstream."""

    name: Annotated[str, Said("What was built.")]
    configuration: Annotated[str, Said("Which of its configurations, such as regs-only.")]
    part: Annotated[str, Said("FPGA part, as cards name it.")]
    rtl_revision: Annotated[str, Said("Version of the logic: major.minor.patch.")]
    map_version: Annotated[str, Said("Version of the register map: major.minor.")]
    security_version: Annotated[int, Said("Cards refuse a lower one than they have seen.", minimum=0)]
    build_id: Annotated[str, Said("First 8 bytes of the SHA-256 of the sources, in hexadecimal.")]
    clock_hz: Annotated[int, Said("Clock that timing was checked for.", minimum=0)]
    fmax_hz: Annotated[int, Said("Fastest clock that the tools say it holds.", minimum=0)]
    tools: Annotated[str, Said("What it was built with.")]
    bitstream_bytes: Annotated[int, Said("Size of the bitstream.", minimum=0)]
    bitstream_sha256: Annotated[str, Said("SHA-256 of the bitstream, in hexadecimal.")]


@dataclass(frozen=True, kw_only=True)
class BitstreamBuild(Document):
    """What `speckvctl bitstream build --json` prints."""

    schema: ClassVar[str] = "speckvctl.bitstream-build"
    bundle: Annotated[str, Said("File of the bundle, as typed.")]
    dry_run: Annotated[bool, Said("True: nothing was written.")]
    bundle_bytes: Annotated[int, Said("Size of the bundle.", minimum=0)]
    key_id: Annotated[str | None, Said("SHA-256 of the public key that is said to have signed; null: unsigned.")]
    manifest: Annotated[BitstreamManifest, Said("What the bundle says of its bitstream.")]


@dataclass(frozen=True, kw_only=True)
class BitstreamInspect(Document):
    """What `speckvctl bitstream inspect --json` prints."""

    schema: ClassVar[str] = "speckvctl.bitstream-inspect"
    bundle: Annotated[str, Said("File of the bundle, as typed.")]
    bundle_bytes: Annotated[int, Said("Size of the bundle.", minimum=0)]
    key_id: Annotated[str | None, Said("SHA-256 of the public key that is said to have signed; null: unsigned.")]
    manifest: Annotated[BitstreamManifest, Said("What the bundle says of its bitstream.")]


@dataclass(frozen=True, kw_only=True)
class BitstreamVerify(Document):
    """What `speckvctl bitstream verify --json` prints."""

    schema: ClassVar[str] = "speckvctl.bitstream-verify"
    bundle: Annotated[str, Said("File of the bundle, as typed.")]
    bundle_bytes: Annotated[int, Said("Size of the bundle.", minimum=0)]
    key_id: Annotated[str, Said("SHA-256 of the public key that signed.")]
    key: Annotated[str, Said("File of the trusted key that signed.")]
    manifest: Annotated[BitstreamManifest, Said("What the bundle says of its bitstream.")]


@dataclass(frozen=True, kw_only=True)
class BitstreamSign(Document):
    """What `speckvctl bitstream sign --json` prints."""

    schema: ClassVar[str] = "speckvctl.bitstream-sign"
    bundle: Annotated[str, Said("File of the bundle, as typed.")]
    dry_run: Annotated[bool, Said("True: nothing was written.")]
    changed: Annotated[bool, Said("False: this key had signed it already.")]
    bundle_bytes: Annotated[int, Said("Size of the bundle.", minimum=0)]
    key_id: Annotated[str, Said("SHA-256 of the public key that signs now.")]
    replaced_key_id: Annotated[str | None, Said("The same of the signature before; null: there was none.")]

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode.DONE if self.changed else ExitCode.NOTHING_TO_DO


@dataclass(frozen=True, kw_only=True)
class BitstreamKeygen(Document):
    """What `speckvctl bitstream keygen --json` prints."""

    schema: ClassVar[str] = "speckvctl.bitstream-keygen"
    secret_key: Annotated[str, Said("File of the secret key.")]
    public_key: Annotated[str, Said("File of the public key.")]
    dry_run: Annotated[bool, Said("True: nothing was written.")]
    key_id: Annotated[str | None, Said("SHA-256 of the public key; null: not made.")]
