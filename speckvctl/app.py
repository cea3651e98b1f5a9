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
from speckvctl.errors import CliError, InterruptedByUserError, UsageError, describe, line_for_people
from speckvctl.exitcodes import MEANING
from speckvctl.render import show
from speckvctl.render.text import room, wrapped
from speckvctl.tree import ENVIRONMENT, NOUNS, command_path, given, normalized, streams_documents, suggestions

EXIT_CODES = "Exit codes:\n" + "\n".join(f"  {int(code)}  {text}" for code, text in MEANING.items())
#: Width of help, as in commands/options.py, which help of the root does not import.
HELP_COLUMNS = 110


class _CarriedError(Exception):
    """Carries a command's exception past typer, which exits silently on some."""

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

    def get_params(self, ctx: Any) -> list[Any]:
        """Omit typer's completion options: they split words at colons, which device names contain."""
        return [p for p in super().get_params(ctx) if p.name not in ("install_completion", "show_completion")]

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        word = args[0]
        if word not in NOUNS and not word.startswith("-") and not ctx.resilient_parsing:
            near = suggestions(word)
            hint = f". Did you mean {' or '.join(repr(one) for one in near)}?" if near else ""
            raise UsageError(
                f"there is no command '{word}'{hint}", f"speckvctl {near[0]} --help" if near else "speckvctl --help"
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, noun.summary) for name, noun in NOUNS.items()])

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Environment"):
            formatter.write_dl(list(ENVIRONMENT.items()))
        super().format_epilog(ctx, formatter)


app = typer.Typer(
    cls=LazyRoot,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    subcommand_metavar="NOUN [VERB] [ARGS]...",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": HELP_COLUMNS},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        from speckvctl.render import write

        write(f"speckvctl {version('speckv')}\n")
        raise typer.Exit()


def _print_completion(shell: str | None) -> None:
    if shell is not None:
        from speckvctl import completion
        from speckvctl.render import write

        if shell not in completion.SHELLS:
            shells = ", ".join(completion.SHELLS)
            raise UsageError(f"--completion: '{shell}' is not one of {shells}", 'eval "$(speckvctl --completion bash)"')
        write(completion.script(shell))
        raise typer.Exit()


@app.callback(epilog="\b\n" + EXIT_CODES)
def root(
    version: Annotated[
        bool,
        typer.Option("--version", "-V", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", "-j", help="Print one JSON document; before the noun or after the verb.")
    ] = False,
    completion: Annotated[
        str | None,
        typer.Option(
            "--completion",
            metavar="SHELL",
            callback=_print_completion,
            is_eager=True,
            help="Print what completes words in bash, zsh or fish, and exit.",
        ),
    ] = None,
) -> None:
    """Run compressed KV-cache pools for serving language models, on host memory or on CXL-SpecKV cards.

    Every command takes --json, which prints one document that a published schema describes, for failures too.
    Data goes to stdout; warnings, questions and progress go to stderr. DEVICE and POOL may be given as --device and
    --pool too. Sizes are 4G, 4Gi or 4GiB (4 x 1024^3 bytes), 4GB (4 x 1000^3), or plain bytes.

    "speckvctl help NOUN VERB" is "speckvctl NOUN VERB --help"; every noun has a man page, such as speckvctl-pool(1).

    \b
    Examples:
      speckvctl doctor
      speckvctl pool create host:DRAM chat --size 64MiB
      speckvctl pool list
      speckvctl device list --json
    """


def main(arguments: list[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    arguments = normalized(sys.argv[1:] if arguments is None else arguments)
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
    line = line_for_people(exc, document, path)
    width = room(sys.stderr)
    sys.stderr.write("\n".join(wrapped(line, width, "  ")) + "\n")
    if given(arguments, "--json", "j") and sys.stdout is not None:
        try:
            show(document, as_json=True, compact=streams_documents(path, arguments))
        except typer.Exit as stop:
            return stop.exit_code
        except CliError:  # stdout failed
            pass
    return document.error.exit_code
