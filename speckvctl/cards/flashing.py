# SPDX-License-Identifier: MIT
"""Flashing: verify on the host, download, commit (the card verifies), activate, read back the running version."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speckvctl import results
from speckvctl.bundles import files, trust
from speckvctl.cards import access, audit, emulation
from speckvctl.console import ProgressCallback
from speckvctl.errors import BusyError, CliError, DamagedError, NothingToDoError, UnsupportedError
from speckvctl.render.text import plural

if TYPE_CHECKING:
    import speckv
    from speckv import card
    from speckv.bundle import Manifest

BOOT_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class FlashRequest:
    """The request: a bundle for a slot, or a rollback to an image on the card."""

    device: str
    path: Path | None = None
    image: str | None = None
    back_to: str | None = None  # "previous" or "golden"
    trusted: list[Path] = field(default_factory=list)
    dry_run: bool = False

    @property
    def action(self) -> str:
        return {"previous": "rollback", "golden": "golden"}.get(self.back_to or "", "flash")


@dataclass(frozen=True)
class Bundle:
    path: Path
    data: bytes
    manifest: Manifest
    key_id: bytes
    sha256: str


def flash(
    ctx: speckv.Context, request: FlashRequest, progress: ProgressCallback, agree: Callable[[str], None]
) -> results.Flash:
    """`agree` is called before pools go out of service, and raises to abort."""
    import speckv

    with speckv.card.Admin(ctx, request.device) as admin:
        info, slots = admin.info(), admin.slots()
        if not slots:
            raise UnsupportedError(f"{request.device} has no flash")
        bundle = None if request.path is None else _judged(ctx, request, info)
        image = _choose(request, admin, slots, bundle)
        refuse_clients(ctx, admin)
        admin.lock_firmware(dry_run=request.dry_run)
        held = admin.firmware_received(image, bundle.data) if bundle is not None else 0
        back = None if bundle is not None else _back(request, admin, info, image)
        next_image = image if back is None else str(back.image)
        pools = [] if back is None else _pools(ctx, admin)
        if request.dry_run:
            if bundle is not None and held == len(bundle.data):
                admin.commit_firmware(image, bundle.data, dry_run=True)
            return _document(request, info, bundle, next_image, held, pools)
        if back is not None and pools:
            agree(_loss(request, slots, back, pools))
        facts = {
            "uuid": info.uuid,
            "image": image,
            "bundle": bundle
            and {
                "path": str(bundle.path.absolute()),
                "sha256": bundle.sha256,
                "key_id": bundle.key_id.hex(),
                "rtl_revision": _revision(bundle.manifest),
                "security_version": bundle.manifest.security_version,
            },
            "before": {"image": str(info.running), "rtl_revision": info.rtl_revision},
        }
        with _recorded(ctx, request, facts) as finish:
            if bundle is not None:
                admin.download_firmware(image, bundle.data, progress)
                admin.commit_firmware(image, bundle.data)
            refuse_clients(ctx, admin, committed=bundle is not None)
            activation, running = _activate(ctx, admin, image, bundle)
            if running is not None:
                _compare(request, next_image, bundle, running)
            file = finish(str(activation), running)
    return _document(
        request, info, bundle, next_image, held, pools, activation=str(activation), running=running, file=file
    )


# ---- before anything is written --------------------------------------------------------------------------------------


def _judged(ctx: speckv.Context, request: FlashRequest, info: card.CardInfo) -> Bundle:
    from speckv import bundle

    assert request.path is not None
    data = files.read_bundle(request.path)
    keys = _keys(ctx, request, info)
    try:
        with files.refusals(request.path):
            manifest = bundle.verify(data, keys, part=info.part, security_version=info.security_version)
            key_id = bundle.inspect(data).key_id
    except DamagedError as exc:
        if exc.errno != errno.ESTALE:
            raise
        raise _too_old(request, str(exc), info) from exc
    if key_id not in info.key_ids:
        raise DamagedError(
            f"{request.path}: {request.device} does not trust its signer, {(key_id or b'').hex()[:16]}",
            f"speckvctl device show {request.device}, for the keys that it trusts",
            errno.EKEYREJECTED,
        )
    return Bundle(request.path, data, manifest, key_id, sha256(data).hexdigest())


def _keys(ctx: speckv.Context, request: FlashRequest, info: card.CardInfo) -> list[bytes]:
    """`trusted` alone if given; else this machine's keys, and for an emulated card also its own and the test key."""
    from speckvctl.cards.testkey import TEST_PUBLIC_KEY

    if request.trusted:
        return [key.public for key in trust.trusted(request.trusted)]
    if "emulated" not in info.abilities:
        return [key.public for key in trust.trusted(None)]
    own = emulation.trusted_keys(ctx, Path(info.path))
    machine = [key.public for key in trust.trusted(None)] if any(trust.FOLDER.glob("*.pub")) else []
    return [*own, TEST_PUBLIC_KEY, *machine]


def _choose(request: FlashRequest, admin: card.Admin, slots: list[card.Slot], bundle: Bundle | None) -> str:
    """The target slot: one that is not running, preferably with a partial download of this bundle."""
    running = next(slot for slot in slots if slot.running)
    if bundle is None:
        if request.back_to == "golden" and running.image == "golden":
            raise NothingToDoError(f"{request.device} runs its golden image already", None, errno.EALREADY)
        assert request.back_to is not None
        return request.back_to
    if running.bitstream_sha256 == bundle.manifest.bitstream_sha256:
        raise NothingToDoError(
            f"{request.device} runs this bitstream already, in slot {running.image.upper()}; nothing to do",
            f"speckvctl device show {request.device}",
            errno.EALREADY,
        )
    if request.image is not None:
        if request.image == running.image:
            other = "b" if request.image == "a" else "a"
            raise BusyError(
                f"slot {request.image.upper()} of {request.device} is the one that runs", f"--slot {other}", errno.EBUSY
            )
        return request.image
    free = [slot for slot in slots if not slot.running and slot.image != "golden"]
    spare = ("empty", "rejected", "writing", "written")
    return max(
        free,
        key=lambda slot: (
            admin.firmware_received(slot.image, bundle.data),
            slot.state in spare,
            -slot.committed_ns,
            slot.image == "a",
        ),
    ).image


def _back(request: FlashRequest, admin: card.Admin, info: card.CardInfo, image: str) -> card.Started:
    """The image a rollback would start. The card runs the same checks as for the activation."""
    import speckv

    try:
        return admin.activate_firmware(image, dry_run=True)
    except speckv.PermissionDeniedError as exc:
        raise _too_old(request, str(exc), info) from exc


def _too_old(request: FlashRequest, why: str, info: card.CardInfo) -> DamagedError:
    return DamagedError(
        f"{why}; {request.device} accepts security version {info.security_version} at least",
        f"speckvctl flash {request.device} BUNDLE, with one of that version",
        errno.ESTALE,
    )


def _pools(ctx: speckv.Context, admin: card.Admin) -> list[str]:
    """Names of the pools that are in service now: none on a card without an engine."""
    if not admin.info().pools:
        return []
    with access.opened(ctx, admin) as devices:
        return [pool.config.name for device in devices for pool in device.pools()]


def _loss(request: FlashRequest, slots: list[card.Slot], back: card.Started, pools: list[str]) -> str:
    revision = next(slot.rtl_revision for slot in slots if slot.image == back.image)
    until = "while the card starts" if back.has_engine else "until an image with an engine is flashed: it has none"
    what = f"{plural(len(pools), 'pool')} of {request.device} ({', '.join(pools)})"
    return f"starting image {back.image}, revision {revision}, takes {what} out of service {until}"


def refuse_clients(ctx: speckv.Context, admin: card.Admin, *, committed: bool = False) -> None:
    """Refuse while clients are connected: a restart destroys their queue pairs."""
    holders = access.clients(ctx, admin)
    if holders:
        state = "; the bundle is in its slot, not activated" if committed else "; nothing was changed"
        raise BusyError(
            f"{admin.name} is in use by {access.named(holders)}{state}",
            f"end them (speckvctl device show {admin.name} lists its connections), and repeat the command",
            errno.EBUSY,
        )


# ---- writing ---------------------------------------------------------------------------------------------------------


def _activate(
    ctx: speckv.Context, admin: card.Admin, image: str, bundle: Bundle | None
) -> tuple[card.Activation, card.CardInfo | None]:
    """Activate the image; returns the running image, or None if a power cycle is needed."""
    from speckv.card import Activation, Restart

    events = admin.events()
    after = events[-1].sequence if events else 0
    activation = admin.activate_firmware(image, None if bundle is None else bundle.data).activation
    if activation is Activation.NEEDS_POWER_CYCLE:
        return activation, None
    if activation is Activation.NEEDS_RESCAN:
        admin.reset(Restart.CARD)
    return activation, wait_for_boot(ctx, admin.name, after)


def wait_for_boot(ctx: speckv.Context, device: str, after: int) -> card.CardInfo:
    """Wait for the boot event in the card's log; returns the running image."""
    import speckv

    until = time.monotonic() + BOOT_SECONDS
    pause, last = 0.005, "it did not report its start"
    while time.monotonic() < until:
        try:
            with speckv.card.Admin(ctx, device) as admin:
                if any(event.kind == "booted" for event in admin.events(after)):
                    return admin.info()
        except (speckv.PermissionDeniedError, speckv.UnsupportedError):
            raise
        except speckv.SpeckvError as exc:
            last = str(exc)
        time.sleep(pause)
        pause = min(2 * pause, 0.25)
    raise CliError(f"{device} did not come back within {BOOT_SECONDS} s: {last}", f"speckvctl device show {device}")


def _compare(request: FlashRequest, image: str, bundle: Bundle | None, running: card.CardInfo) -> None:
    """Check that the requested image runs: the card may have fallen back."""
    right = running.running == image
    if bundle is not None:
        right = right and running.build_id == bundle.manifest.build_id
        right = right and running.rtl_revision == _revision(bundle.manifest)
    if not right:
        raise DamagedError(
            f"{request.device} runs image {running.running}, revision {running.rtl_revision}, not the requested one:"
            " the image did not report healthy, and the card fell back",
            f"speckvctl device show {request.device}",
            errno.EBADMSG,
        )


# ---- reports ---------------------------------------------------------------------------------------------------------


@contextmanager
def _recorded(
    ctx: speckv.Context, request: FlashRequest, facts: dict[str, Any]
) -> Iterator[Callable[[str, card.CardInfo | None], Path | None]]:
    """Write the audit records: start and result."""
    audit.record(ctx, request.action, request.device, "begun", **facts)

    def finish(activation: str, running: card.CardInfo | None) -> Path | None:
        after = running and {"image": str(running.running), "rtl_revision": running.rtl_revision}
        return audit.record(ctx, request.action, request.device, "done", **facts, activation=activation, after=after)

    try:
        yield finish
    except BaseException as exc:
        why = str(exc) or type(exc).__name__
        audit.record(ctx, request.action, request.device, "failed", **facts, reason=why)
        raise


def _revision(manifest: Manifest) -> str:
    return f"{manifest.rtl_major}.{manifest.rtl_minor}.{manifest.rtl_patch}"


def _document(
    request: FlashRequest,
    before: card.CardInfo,
    bundle: Bundle | None,
    image: str,
    resumed: int,
    pools: list[str],
    *,
    activation: str | None = None,
    running: card.CardInfo | None = None,
    file: Path | None = None,
) -> results.Flash:
    now = running or before
    return results.Flash(
        device=request.device,
        dry_run=request.dry_run,
        action=request.action,
        bundle=None if bundle is None else str(bundle.path),
        bundle_bytes=None if bundle is None else len(bundle.data),
        bundle_sha256=None if bundle is None else bundle.sha256,
        bundle_revision=None if bundle is None else _revision(bundle.manifest),
        image=image,
        resumed_bytes=resumed,
        pools_out_of_service=pools,
        activation=activation,
        before_image=str(before.running),
        before_revision=before.rtl_revision,
        running_image=str(now.running),
        running_revision=now.rtl_revision,
        verified=running is not None,
        audit=None if file is None else str(file),
    )
