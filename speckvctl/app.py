# SPDX-License-Identifier: MIT
"""The entry point: the root of the command tree, and the one place where errors become a line and an exit code."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from speckvctl import streams
from speckvctl.errors import CliError, InterruptedByUserError, describe, line_for_people
from speckvctl.exitcodes import MEANING
from speckvctl.render import show
from speckvctl.tree import NOUNS, command_path

EXIT_CODES = "\b\nExit codes:\n" + "\n".join(f"  {int(code)}  {text}" for code, text in MEANING.items())


class _CarriedError(Exception):
    """A failure of a command on its way past typer, which would end without a word on some."""

    def __init__(self, carried: Exception) -> None:
        super().__init__(str(carried))
        self.carried = carried


class LazyRoot(TyperGroup):
    """Imports the module of a noun only when that noun is used."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (OSError, EOFError) as exc:
            raise _CarriedError(exc) from exc
        except KeyboardInterrupt as exc:
            raise InterruptedByUserError from exc

    def list_commands(self, ctx: Any) -> list[str]:
        return list(NOUNS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in NOUNS:
            return None
        module = importlib.import_module(f"speckvctl.commands.{cmd_name.replace('-', '_')}")
        command = typer.main.get_command(module.app)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, noun.summary) for name, noun in NOUNS.items()])


app = typer.Typer(
    cls=LazyRoot,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    subcommand_metavar="NOUN [VERB] [ARGS]...",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        from speckvctl.render import write

        write(f"speckvctl {version('speckv')}\n")
        raise typer.Exit()


@app.callback(epilog=EXIT_CODES)
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Run compressed KV-cache pools for serving language models, on host memory or on CXL-SpecKV cards.

    Every command takes --json, which prints one document that a published schema describes, for failures too.
    Data goes to stdout; warnings, questions and progress go to stderr.

    \b
    Examples:
      speckvctl doctor
      speckvctl pool create host:DRAM chat --size 64MiB
      speckvctl pool list
      speckvctl device list --json
    """


def main(arguments: list[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = bool(os.environ.get("SPECKVCTL_DEBUG"))
    try:
        streams.prepare()
        result = typer.main.get_command(app).main(arguments, prog_name="speckvctl", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except KeyboardInterrupt:
        return _fail(InterruptedByUserError(), arguments)
    except Exception as exc:
        if debug:
            raise
        return _fail(exc.carried if isinstance(exc, _CarriedError) else exc, arguments)


def _fail(exc: Exception, arguments: list[str]) -> int:
    context = getattr(exc, "ctx", None)
    path = context.command_path if context is not None else command_path(arguments)
    if type(exc).__name__ == "NoArgsIsHelpError":
        sys.stderr.write(f"{exc}\n")
        return 2
    document = describe(exc, path)
    sys.stderr.write(line_for_people(exc, document, path) + "\n")
    if "--json" in arguments and sys.stdout is not None:
        try:
            show(document, as_json=True)
        except typer.Exit as stop:
            return stop.exit_code
        except CliError:  # stdout is what failed
            pass
    return document.error.exit_code
