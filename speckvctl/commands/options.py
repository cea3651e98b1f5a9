# SPDX-License-Identifier: MIT
"""Arguments and options that several verbs share, so that they read and behave the same everywhere."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand

from speckvctl.quantities import parse_decimal, parse_whole

_Function = TypeVar("_Function", bound=Callable[..., Any])
_TYPE = re.compile(r"\s+<[^>]*>$")
_REQUIRED = re.compile(r"\s*\[required\]$")


class PlainCommand(TyperCommand):
    """Help as manuals have it: "Usage: speckvctl pool show [OPTIONS] DEVICE POOL"."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        pieces = ["[OPTIONS]"]
        for parameter in self.get_params(ctx):
            if parameter.param_type_name != "argument":
                continue
            piece = parameter.metavar or (parameter.name or "").upper()
            if " " not in piece:  # others say themselves what is optional and what is repeated
                piece += "..." if parameter.nargs != 1 and not piece.endswith("...") else ""
                piece = piece if parameter.required else f"[{piece}]"
            pieces.append(piece)
        return pieces

    def format_options(self, ctx: Any, formatter: Any) -> None:
        records: dict[str, list[tuple[str, str]]] = {"argument": [], "option": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                name, text = record
                if parameter.param_type_name == "argument":  # the usage line shows which ones are required
                    name, text = _TYPE.sub("", name), _REQUIRED.sub("", text)
                records[parameter.param_type_name].append((name, text))
        for kind, rows in records.items():
            if rows:
                with formatter.section(f"{kind.capitalize()}s"):
                    formatter.write_dl(rows)


class App(typer.Typer):
    """A noun: plain help, and errors left to the one handler at the top."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            rich_markup_mode=None,
            pretty_exceptions_enable=False,
            add_completion=False,
            context_settings={"help_option_names": ["-h", "--help"]},
            **settings,
        )

    def verb(self, name: str) -> Callable[[_Function], _Function]:
        return self.command(name, cls=PlainCommand)


def whole(*names: str, metavar: str, least: int, most: int, help: str) -> Any:
    """An option that is a whole number from `least` to `most`."""

    def parse(text: Any) -> int:
        return parse_whole(str(text), names[0], least, most)

    return typer.Option(*names, metavar=metavar, help=help, parser=parse)


def decimal(*names: str, metavar: str, least: float, most: float, help: str, or_zero: bool = False) -> Any:
    """An option that is a number from `least` to `most`; `or_zero`: 0 has a meaning of its own."""

    def parse(text: Any) -> float:
        return parse_decimal(str(text), names[0], least, most, or_zero=or_zero)

    return typer.Option(*names, metavar=metavar, help=help, parser=parse)


Device = Annotated[
    str,
    typer.Argument(metavar="DEVICE", help="host:DRAM, host:numaN, host:/path/to/file, host:/dev/daxX.Y or emu:NAME."),
]
OptionalDevice = Annotated[
    str | None, typer.Argument(metavar="DEVICE", help="The device; without it, every one there is.")
]
PoolName = Annotated[str, typer.Argument(metavar="POOL", help="Name of the pool.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document, for failures too.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask: lose what the command says will be lost.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")]
