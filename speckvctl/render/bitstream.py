# SPDX-License-Identifier: MIT
"""Documents about bundles as text."""

from __future__ import annotations

from speckvctl import results
from speckvctl.quantities import format_count
from speckvctl.render.dispatch import lines_of
from speckvctl.render.text import one_line, paint, pairs


def _bundle(path: str, size: int, key_id: str | None, manifest: results.BitstreamManifest) -> list[str]:
    return pairs(
        [
            ("Bundle", f"{path}, {format_count(size)} bytes"),
            ("Logic", f"{manifest.name} {manifest.configuration} {manifest.rtl_revision}, build {manifest.build_id}"),
            ("Part", manifest.part),
            ("Register map", manifest.map_version),
            ("Timing", f"{manifest.clock_hz / 1e6:.2f} MHz wanted, {manifest.fmax_hz / 1e6:.2f} MHz held"),
            ("Security", f"version {manifest.security_version}"),
            ("Tools", manifest.tools),
            ("Bitstream", f"{format_count(manifest.bitstream_bytes)} bytes"),
            ("", manifest.bitstream_sha256),
            ("Signer", key_id or "none: unsigned"),
        ]
    )


@lines_of.register
def built(document: results.BitstreamBuild) -> list[str]:
    verb = "Would write" if document.dry_run else "Wrote"
    lines = _bundle(document.bundle, document.bundle_bytes, document.key_id, document.manifest)
    if document.key_id is None:
        return [f"{verb}:", *lines, "", f"Next: speckvctl bitstream sign {document.bundle} --key KEY.pem"]
    return [f"{verb}:", *lines]


@lines_of.register
def inspected(document: results.BitstreamInspect) -> list[str]:
    lines = _bundle(document.bundle, document.bundle_bytes, document.key_id, document.manifest)
    return [*lines, "", "The signature was not verified. Next: speckvctl bitstream verify " + one_line(document.bundle)]


@lines_of.register
def verified(document: results.BitstreamVerify) -> list[str]:
    lines = _bundle(document.bundle, document.bundle_bytes, document.key_id, document.manifest)
    return [*lines, "", paint("Verified", "green") + f": signed by {one_line(document.key)}."]


@lines_of.register
def signed(document: results.BitstreamSign) -> list[str]:
    name = one_line(document.bundle)
    if not document.changed:
        return [f"{name} is signed by this key already:", document.key_id]
    verb = "Would sign" if document.dry_run else "Signed"
    replaced = [f"in place of {document.replaced_key_id}"] if document.replaced_key_id else []
    return [f"{verb} {name} with key", document.key_id, *replaced]


@lines_of.register
def keys_made(document: results.BitstreamKeygen) -> list[str]:
    names = f"{one_line(document.secret_key)} (secret) and {one_line(document.public_key)}"
    if document.key_id is None:
        return [f"Would make {names}."]
    return [f"Made {names}, key", document.key_id]
