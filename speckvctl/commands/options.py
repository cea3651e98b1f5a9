# SPDX-License-Identifier: MIT
"""Arguments and options shared by several verbs."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from speckvctl import completion
from speckvctl.errors import UsageError
from speckvctl.quantities import parse_decimal, parse_whole
from speckvctl.tree import NOUNS, verb_suggestions

_Function = TypeVar("_Function", bound=Callable[..., Any])
_TYPE = re.compile(r"\s+<[^>]*>$")
_REQUIRED = re.compile(r"\s*\[required\]$")
#: Widest help: longer lines are hard to read.
HELP_COLUMNS = 110
#: Arguments also accepted as options of that name.
NAMED = ("device", "pool")


@cache
def _named_options() -> dict[str, Any]:
    """--device and --pool as the parser and the completion see them."""
    probe = typer.Typer(add_completion=False)

    @probe.command()
    def take(
        device: Annotated[
            str | None, typer.Option(metavar="DEVICE", help="DEVICE.", autocompletion=completion.devices)
        ] = None,
        pool: Annotated[str | None, typer.Option(metavar="POOL", help="POOL.", autocompletion=completion.pools)] = None,
    ) -> None:
        """Never run."""

    options: dict[str, Any] = {str(p.name): p for p in typer.main.get_command(probe).params if p.name in NAMED}
    for option in options.values():
        option.hidden, option.expose_value = True, False
    return options


class PlainCommand(TyperCommand):
    """Help as manuals have it: "Usage: speckvctl pool show [OPTIONS] DEVICE POOL".

    DEVICE and POOL may also be given as --device and --pool: `parse_args` puts them where the arguments stand.
    """

    def _named(self) -> dict[str, Any]:
        """Arguments also accepted as options, by the option."""
        own = {option for parameter in self.params for option in parameter.opts if option.startswith("-")}
        return {
            f"--{p.name}": p
            for p in self.params
            if p.param_type_name == "argument" and p.name in NAMED and f"--{p.name}" not in own
        }

    def get_params(self, ctx: Any) -> list[Any]:
        return [*super().get_params(ctx), *(_named_options()[p.name] for p in self._named().values() if p.name)]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, self._placed(ctx, args))

    def _placed(self, ctx: Any, args: list[str]) -> list[str]:
        """Move the values of --device and --pool to their places among the arguments."""
        named = self._named()
        if not named or not any(word.partition("=")[0] in named for word in args):
            return args
        given: dict[str, str] = {}
        options, words = [], []
        rest = list(args)
        while rest:
            word = rest.pop(0)
            name, joined, value = word.partition("=")
            if word == "--":
                words += rest
                break
            if name in named and (joined or rest):
                given[name] = value if joined else rest.pop(0)
            elif word.startswith("-") and word != "-":
                options.append(word)
                if rest and self._takes_value(word):
                    options.append(rest.pop(0))
            else:
                words.append(word)
        placed: list[str] = []
        for parameter in self.params:
            if parameter.param_type_name != "argument":
                continue
            option = f"--{parameter.name}"
            if option in given and not words:
                ctx.default_map = {**(ctx.default_map or {}), parameter.name: given[option]}
            elif option in given:
                placed.append(given[option])
            else:
                count = 1 if parameter.nargs == 1 else len(words)
                placed, words = placed + words[:count], words[count:]
        if words and not ctx.resilient_parsing:
            option = next(iter(given))
            raise UsageError(
                f"too many arguments: '{words[-1]}' beside {' and '.join(given)}",
                f"{ctx.command_path} --help",
            )
        return [*options, *(["--"] if placed else []), *placed, *words]

    def _takes_value(self, word: str) -> bool:
        """Whether the word after this option is its value."""
        known: dict[str, Any] = {
            o: p for p in self.params for o in (*p.opts, *p.secondary_opts) if p.param_type_name == "option"
        }
        if word.startswith("--"):
            return "=" not in word and word in known and not known[word].is_flag
        for index, letter in enumerate(word[1:], 1):
            option = known.get(f"-{letter}")
            if option is None:
                return False
            if not option.is_flag:
                return index == len(word) - 1
        return False

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        pieces = ["[OPTIONS]"]
        for parameter in self.get_params(ctx):
            if parameter.param_type_name != "argument":
                continue
            piece = parameter.metavar or (parameter.name or "").upper()
            if " " not in piece:  # several words state themselves what is optional or repeated
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


class NounGroup(TyperGroup):
    """The verbs of a noun: found by their aliases too, each with its whole first sentence in the list."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        noun = NOUNS.get(self.name or "")
        word = noun.aliases.get(args[0], args[0]) if noun else args[0]
        command = self.get_command(ctx, word)
        if command is None and noun is not None and not word.startswith("-") and not ctx.resilient_parsing:
            near = verb_suggestions(str(self.name), word)
            hint = f". Did you mean '{near[0].split()[-1]}'?" if near else ""
            next_step = f"speckvctl {near[0]} --help" if near else f"speckvctl {self.name} --help"
            raise UsageError(f"there is no '{self.name} {word}'{hint}", next_step)
        return super().resolve_command(ctx, [word, *args[1:]])

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        rows = []
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            text = " ".join((command.help or "").split("\n\n")[0].split()) if command else ""
            rows.append((name, text.split(". ")[0].removesuffix(".") + "."))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class App(typer.Typer):
    """A noun: plain help; errors go to the handler in app.py."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            cls=NounGroup,
            rich_markup_mode=None,
            pretty_exceptions_enable=False,
            add_completion=False,
            context_settings={"help_option_names": ["-h", "--help"], "max_content_width": HELP_COLUMNS},
            subcommand_metavar="VERB [ARGS]...",
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
    typer.Argument(
        metavar="DEVICE",
        help="host:DRAM, host:numaN, host:/path/to/file, host:/dev/daxX.Y or emu:NAME.",
        autocompletion=completion.devices,
    ),
]
HostDevice = Annotated[
    str,
    typer.Argument(
        metavar="DEVICE",
        help="host:DRAM, host:numaN, host:/path/to/file or host:/dev/daxX.Y.",
        autocompletion=completion.devices,
    ),
]
Card = Annotated[
    str,
    typer.Argument(metavar="DEVICE", help="A card: emu:NAME, created by emu start.", autocompletion=completion.cards),
]
OptionalDevice = Annotated[
    str | None,
    typer.Argument(metavar="DEVICE", help="The device. Default: all.", autocompletion=completion.devices),
]
OptionalPool = Annotated[
    str | None,
    typer.Argument(metavar="POOL", help="The pool. Default: all.", autocompletion=completion.pools),
]
PoolName = Annotated[str, typer.Argument(metavar="POOL", help="Name of the pool.", autocompletion=completion.pools)]
Json = Annotated[bool, typer.Option("--json", "-j", help="Print one JSON document, for failures too.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Skip the confirmation of what will be lost.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")]
