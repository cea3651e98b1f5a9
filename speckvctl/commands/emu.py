# SPDX-License-Identifier: MIT
"""speckvctl emu: start, stop, list, status."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Annotated

import typer

from speckvctl import completion, library, results
from speckvctl.bundles import files
from speckvctl.cards import emulation
from speckvctl.commands.options import App, DryRun, Json, Yes
from speckvctl.console import confirm, note
from speckvctl.errors import NothingToDoError
from speckvctl.quantities import parse_positive_size
from speckvctl.render import finish
from speckvctl.results.cards import EmulatedCard

app = App(no_args_is_help=True)

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="Name of the card, or emu:NAME, which is its device name.",
        autocompletion=completion.card_names,
    ),
]


@app.callback()
def emu() -> None:
    """Run emulated cards: processes that are cards, down to registers, flash and DMA.

    A card keeps its memory and its flash in a folder, so that it survives being stopped or killed.

    \b
    Examples:
      speckvctl emu list
      speckvctl emu list --json
    """


@app.verb("start")
def start_card(
    name: Name,
    folder: Annotated[
        Path | None,
        typer.Option("--dir", metavar="FOLDER", help="Folder of its state. Default: in the runtime folder."),
    ] = None,
    memory: Annotated[
        str | None, typer.Option("--memory", metavar="SIZE", help="Device memory of a new card. Default: 1GiB.")
    ] = None,
    factory: Annotated[
        bool, typer.Option("--factory", help="A new card in factory state: no engine until it is flashed.")
    ] = False,
    power_cycle: Annotated[
        bool, typer.Option("--power-cycle", help="A new card that starts another image only after a restart.")
    ] = False,
    key: Annotated[
        list[Path] | None,
        typer.Option(
            "--key", metavar="PUBLIC", help="Key that may sign bundles for a new card; up to 4. Default: the test key."
        ),
    ] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Start a card in the background, and return when it is ready. Exit code 3 when it is running already.

    A card that exists is started with the settings it was created with. Its memory is allocated as pools are created.

    \b
    Examples:
      speckvctl emu start card0
      speckvctl emu start card1 --memory 64MiB --factory --dir card1 --json
    """
    name = emulation.name_of(name)
    request = emulation.StartRequest(
        folder=folder,
        memory_bytes=parse_positive_size(memory, "--memory") if memory else None,
        factory=factory or None,
        power_cycle=power_cycle or None,
        keys=tuple(files.read_public_key(path) for path in key or ()),
    )
    with library.context() as ctx:
        if dry_run:
            emulation.program()
            where, making, _ = emulation.plan(ctx, name, request)
            if large := emulation.too_large(name, where, making):
                note(large)
            card = _planned(name, where, making)
        else:
            card = emulation.start(ctx, name, request, warn=note)
    finish(results.EmuStart(dry_run=dry_run, card=card), as_json=as_json)


def _planned(name: str, folder: Path, making: emulation.Making) -> EmulatedCard:
    return EmulatedCard(
        name=name,
        device=f"emu:{name}",
        state="stopped",
        detail="",
        folder=str(folder),
        log=str(folder / "log"),
        pid=None,
        memory_bytes=making.memory_bytes,
        factory=making.factory,
        engine=None,
        running_image=None,
        started_ns=None,
        functions=[],
    )


@app.verb("stop")
def stop_card(
    name: Name,
    remove: Annotated[bool, typer.Option("--remove", help="Delete the card: its memory, its flash, its keys.")] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Stop a card. What it holds stays, unless --remove is given. Exit code 3 when it is not running.

    Clients lose their connection, but no blocks. A card that does not exit by itself is killed.

    \b
    Examples:
      speckvctl emu stop card0 --dry-run
      speckvctl emu stop card0 --remove --yes
    """
    name = emulation.name_of(name)
    with library.context() as ctx:
        card = emulation.find(ctx, name)
        running = card.state in ("running", "hung")
        if not running and not remove:
            raise NothingToDoError(f"emu:{name} is not running", f"speckvctl emu start {name}", errno.EALREADY)
        emulation.check_stop(ctx, card, remove=remove)
        done = emulation.Stopped(running, False)
        if not dry_run:
            if remove:
                loss = f"removing emu:{name} loses its pools and its flash, in {card.folder}"
                confirm(loss, yes=yes, as_json=as_json, command=f"speckvctl emu stop {name} --remove --yes")
            done = emulation.stop(ctx, name)
            if remove:
                emulation.remove(ctx, name)
    document = results.EmuStop(dry_run=dry_run, name=name, stopped=done.stopped, killed=done.killed, removed=remove)
    finish(document, as_json=as_json)


@app.verb("list")
def list_cards(as_json: Json = False) -> None:
    """List the emulated cards of this user's runtime folder, running or not.

    \b
    Examples:
      speckvctl emu list
      speckvctl emu list --json
    """
    with library.context() as ctx:
        cards = emulation.all_cards(ctx)
    finish(results.EmuList(cards=cards), as_json=as_json)


@app.verb("status")
def show_status(name: Name, as_json: Json = False) -> None:
    """Show an emulated card: its process, its folder, and its clients. For its contents: speckvctl device show.

    \b
    Examples:
      speckvctl emu status card0
      speckvctl emu status card0 --json
    """
    name = emulation.name_of(name)
    with library.context() as ctx:
        card = emulation.find(ctx, name)
    finish(results.EmuStatus(card=card), as_json=as_json)
