# SPDX-License-Identifier: MIT
"""speckvctl flash."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from speckvctl import library
from speckvctl.cards import flashing
from speckvctl.commands.options import App, Card, DryRun, Json
from speckvctl.console import confirm, progress
from speckvctl.errors import UnsupportedError, UsageError
from speckvctl.render import finish

app = App()


@app.verb("flash")
def flash(
    device: Card,
    bundle: Annotated[
        Path | None, typer.Argument(metavar="BUNDLE", help="File of a signed bundle; none with --rollback or --golden.")
    ] = None,
    slot: Annotated[
        str | None, typer.Option("--slot", metavar="a|b", help="Where to write it. Default: where nothing runs.")
    ] = None,
    rollback: Annotated[bool, typer.Option("--rollback", help="Start the previous image.")] = False,
    golden: Annotated[bool, typer.Option("--golden", help="Start the built-in image.")] = False,
    trusted: Annotated[
        list[Path] | None,
        typer.Option(
            "--trust",
            metavar="PUBLIC",
            help="Trust this key, or the *.pub of this folder, instead of /etc/speckv/keys.d. May be repeated.",
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before pools go out of service.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Put a signed bitstream into a card, start it, and compare what runs then. Exit code 3 when it runs already.

    This machine and the card both verify the bundle: its signer, its part, its security version, its bitstream. The
    slot that runs is not touched until the new one has started well; if that fails, the card boots the old one again.
    The same command resumes an interrupted flash where it stopped.

    A card never starts an image whose security version is below the highest that has run well on it, unless it is
    signed by a key that the card was created with for that. --golden always starts; below that version it has no
    engine until it is flashed. Going back on a card with pools says which go out of service, and needs --yes.

    Clients have to end first: the card restarts. "activation" in the JSON is the outcome: done, needs_rescan (the card
    became another device, and was found again), or needs_power_cycle (it runs the old image until the machine, or the
    emulated card, is started again).

    Emulated cards trust the keys they were made with; other cards only those in /etc/speckv/keys.d.

    \b
    Examples:
      speckvctl flash emu:card0 regs-only.bundle --dry-run
      speckvctl flash emu:card0 regs-only.bundle --json
      speckvctl flash emu:card0 --rollback
    """
    library.check_device_name(device)
    if not library.is_card(device):
        raise UnsupportedError(f"{device} is host memory: there is nothing to flash", "speckvctl device list")
    if slot is not None and slot.lower() not in ("a", "b"):
        raise UsageError(f"--slot: '{slot}' is neither a nor b", "--slot a")
    given = rollback + golden + (bundle is not None)
    if given != 1:
        which = "one of BUNDLE, --rollback and --golden"
        problem = f"{which} is needed" if not given else f"give only {which}"
        raise UsageError(problem, f"speckvctl flash {device} BUNDLE")
    if slot is not None and bundle is None:
        raise UsageError("--slot says where a bundle goes; there is none", f"speckvctl flash {device} BUNDLE --slot a")
    request = flashing.FlashRequest(
        device=device,
        path=bundle,
        image=slot.lower() if slot else None,
        back_to="previous" if rollback else "golden" if golden else None,
        trusted=trusted or [],
        dry_run=dry_run,
    )
    option = "--rollback" if rollback else "--golden"

    def agree(loss: str) -> None:
        confirm(loss, yes=yes, as_json=as_json, command=f"speckvctl flash {device} {option} --yes")

    with library.context() as ctx, progress(f"flashing {device}", "bytes") as tell:
        document = flashing.flash(ctx, request, tell, agree)
    finish(document, as_json=as_json)
