# SPDX-License-Identifier: MIT
"""speckvctl bitstream: build, inspect, verify, sign, keygen."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speckvctl import results
from speckvctl.bundles import files, reports, trust
from speckvctl.commands.options import App, DryRun, Json, whole
from speckvctl.errors import DamagedError, UsageError
from speckvctl.files import check_new, check_place, write
from speckvctl.render import finish

if TYPE_CHECKING:
    from speckv.bundle import Manifest

app = App(no_args_is_help=True)

Bundle = Annotated[Path, typer.Argument(metavar="BUNDLE", help="File of a bundle.")]
SecurityVersion = Annotated[
    int, whole("--security-version", metavar="N", least=0, most=2**32 - 1, help="Counts fixes of security holes.")
]


@app.callback()
def bitstream() -> None:
    """Build, show, verify and sign bundles: bitstreams with a manifest and a signature.

    A card takes a bundle whose signer it trusts, for its own part, of no lower security version than it has seen.
    This machine trusts the signers whose public keys are in /etc/speckv/keys.d.

    \b
    Examples:
      speckvctl bitstream inspect regs-only.bundle
      speckvctl bitstream verify regs-only.bundle --trust test.pub
    """


@app.verb("build")
def build_bundle(
    bitstream: Annotated[Path, typer.Argument(metavar="BITSTREAM", help="The bitstream, as the tools wrote it.")],
    report: Annotated[Path, typer.Argument(metavar="REPORT", help="Its build report, JSON.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="BUNDLE", help="File to write.")],
    key: Annotated[
        Path | None, typer.Option("--key", metavar="SECRET", help="Sign with this key. Default: unsigned.")
    ] = None,
    security_version: SecurityVersion = 0,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Put a bitstream and what its build's report says of it into a bundle.

    rtl/boards/ulx3s/build.py writes both. The same input gives the same bytes. An existing bundle is replaced, any
    other file is not.

    \b
    Examples:
      speckvctl bitstream build regs-only.bit regs-only.json -o new.bundle \\
          --dry-run
      speckvctl bitstream build regs-only.bit regs-only.json -o new.bundle \\
          --key test.pem
    """
    from speckv import bundle

    data = files.read_bitstream(bitstream)
    made = bundle.build(reports.manifest_of(report, bitstream, data, security_version), data)
    if key is not None:
        bundle.sign(made, files.read_secret_key(key))
    check_place(output)
    files.check_replaceable(output)
    if not dry_run:
        write(output, made)
    seen = bundle.inspect(made)
    document = results.BitstreamBuild(
        bundle=str(output),
        dry_run=dry_run,
        bundle_bytes=len(made),
        key_id=_hex(seen.key_id),
        manifest=_manifest(seen.manifest),
    )
    finish(document, as_json=as_json)


@app.verb("inspect")
def inspect_bundle(bundle_path: Bundle, as_json: Json = False) -> None:
    """Show a bundle's manifest ("show" is the same). Form and bitstream are checked, the signature is not.

    \b
    Examples:
      speckvctl bitstream inspect regs-only.bundle
      speckvctl bitstream inspect regs-only.bundle --json
    """
    from speckv import bundle

    data = files.read_bundle(bundle_path)
    with files.refusals(bundle_path):
        seen = bundle.inspect(data)
    document = results.BitstreamInspect(
        bundle=str(bundle_path),
        bundle_bytes=len(data),
        key_id=_hex(seen.key_id),
        manifest=_manifest(seen.manifest),
    )
    finish(document, as_json=as_json)


@app.verb("verify")
def verify_bundle(
    bundle_path: Bundle,
    trusted: Annotated[
        list[Path] | None,
        typer.Option(
            "--trust",
            metavar="PUBLIC",
            help="Trust this key, or the *.pub of this folder, instead of /etc/speckv/keys.d. May be repeated.",
        ),
    ] = None,
    part: Annotated[
        str | None, typer.Option("--part", metavar="PART", help="Refuse a bundle for another FPGA part.")
    ] = None,
    security_version: Annotated[
        int,
        whole(
            "--security-version",
            metavar="N",
            least=0,
            most=2**32 - 1,
            help="Refuse a lower security version than this.",
        ),
    ] = 0,
    as_json: Json = False,
) -> None:
    """Verify a bundle as a card would: form, signer, manifest, part, security version, bitstream.

    Exit code 7 when it is refused; the error says which of these it was.

    \b
    Examples:
      speckvctl bitstream verify regs-only.bundle --trust test.pub
      speckvctl bitstream verify regs-only.bundle --trust test.pub \\
          --part LFE5U-85F-6BG381C --json
    """
    from speckv import bundle

    data = files.read_bundle(bundle_path)
    keys = trust.trusted(trusted)
    with files.refusals(bundle_path):
        seen = bundle.inspect(data)
        try:
            manifest = bundle.verify(data, [key.public for key in keys], part=part, security_version=security_version)
        except bundle.RefusedError as exc:
            if exc.errno != errno.EXDEV:
                raise
            reason = f"{bundle_path}: for the part {seen.manifest.part}, not for {part}"
            raise DamagedError(reason, f"a bundle for {part}", exc.errno) from exc
        key_id = seen.key_id
    (signer, *_) = [key for key in keys if key.key_id == key_id]
    document = results.BitstreamVerify(
        bundle=str(bundle_path),
        bundle_bytes=len(data),
        key_id=signer.key_id.hex(),
        key=str(signer.path),
        manifest=_manifest(manifest),
    )
    finish(document, as_json=as_json)


@app.verb("sign")
def sign_bundle(
    bundle_path: Bundle,
    key: Annotated[Path, typer.Option("--key", metavar="SECRET", help="The key to sign with, PEM.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="BUNDLE", help="File to write. Default: BUNDLE itself.")
    ] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Sign a bundle. An existing signature is replaced.

    Exit code 3 when this key has signed it already.

    \b
    Examples:
      speckvctl bitstream sign unsigned.bundle --key test.pem --dry-run
      speckvctl bitstream sign unsigned.bundle --key test.pem -o signed.bundle
    """
    from speckv import bundle

    data = bytearray(files.read_bundle(bundle_path))
    secret = files.read_secret_key(key)
    with files.refusals(bundle_path):
        before = bundle.inspect(data).key_id
        signed = bytearray(data)
        bundle.sign(signed, secret)
    target = output or bundle_path
    check_place(target)
    files.check_replaceable(target)
    changed = output is not None or signed != data
    if changed and not dry_run:
        write(target, signed)
    document = results.BitstreamSign(
        bundle=str(target),
        dry_run=dry_run,
        changed=changed,
        bundle_bytes=len(signed),
        key_id=bundle.key_id(bundle.public_key(secret)).hex(),
        replaced_key_id=_hex(before),
    )
    finish(document, as_json=as_json)


@app.verb("keygen")
def make_key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The files are NAME.pem and NAME.pub.")],
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Make a key pair that signs bundles: NAME.pem, which is secret, and NAME.pub, which verifiers need.

    Existing files are not replaced. To trust the key, put NAME.pub into /etc/speckv/keys.d.

    \b
    Examples:
      speckvctl bitstream keygen release --dry-run
      speckvctl bitstream keygen release
    """
    from speckv import bundle

    if not name or name.endswith("/"):
        raise UsageError(f"'{name}' names no file", "speckvctl bitstream keygen release")
    secret_path, public_path = Path(f"{name}.pem"), Path(f"{name}.pub")
    check_place(secret_path, "NAME")
    for path in (secret_path, public_path):
        check_new(path)
    key_id = None
    if not dry_run:
        secret = bundle.generate_key()
        public = bundle.public_key(secret)
        key_id = bundle.key_id(public).hex()
        write(secret_path, bundle.secret_to_pem(secret).encode(), mode=0o600, new=True)
        write(public_path, bundle.public_to_pem(public).encode(), mode=0o644, new=True)
    document = results.BitstreamKeygen(
        secret_key=str(secret_path), public_key=str(public_path), dry_run=dry_run, key_id=key_id
    )
    finish(document, as_json=as_json)


def _hex(key_id: bytes | None) -> str | None:
    return key_id.hex() if key_id is not None else None


def _manifest(manifest: Manifest) -> results.BitstreamManifest:
    return results.BitstreamManifest(
        name=manifest.name,
        configuration=manifest.configuration,
        part=manifest.part,
        rtl_revision=f"{manifest.rtl_major}.{manifest.rtl_minor}.{manifest.rtl_patch}",
        map_version=f"{manifest.map_major}.{manifest.map_minor}",
        security_version=manifest.security_version,
        build_id=manifest.build_id.hex(),
        clock_hz=manifest.clock_hz,
        fmax_hz=manifest.fmax_hz,
        tools=manifest.tools,
        bitstream_bytes=manifest.bitstream_bytes,
        bitstream_sha256=manifest.bitstream_sha256.hex(),
    )
