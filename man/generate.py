#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Write the manual pages from the command tree: prose, options and examples are those of --help.

python man/generate.py           writes man/*.1
python man/generate.py --check   exits 1 and names the pages that have drifted
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from speckvctl.app import app
from speckvctl.exitcodes import MEANING
from speckvctl.tree import ENVIRONMENT, NOUNS

DATE = "November 23, 2026"  # of the interface that the pages describe
FOLDER = Path(__file__).resolve().parent
FILES = {
    "/etc/speckv/keys.d": "Trusted signing keys (*.pub) for bundles.",
    "/dev/shm/speckv": "Devices in host memory, one file per pool.",
}
TOKEN = re.compile(r"(--?[a-z][a-z-]*)")


def escape(text: str) -> str:
    """Text as mdoc takes it: no control lines, no escapes, no ligature minus."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"(?m)^([.'])", r"\\&\1", text)


def prose(text: str) -> Iterator[str]:
    """Sentences, each from a line of its own, in lines that fit a terminal."""
    for sentence in re.split(r"(?<=[.!?]) (?=[A-Z-])", text):
        for line in textwrap.wrap(sentence, 72, break_long_words=False, break_on_hyphens=False):
            yield escape(line)


def sections(help_text: str) -> tuple[str, list[list[str]], list[str]]:
    """A docstring's summary, further paragraphs as mdoc, and examples."""
    summary, *parts = help_text.strip().split("\n\n")
    paragraphs, examples = [], []
    for part in parts:
        lines = [line for line in part.splitlines() if line.strip() != "\b"]
        if lines and lines[0].strip() == "Examples:":
            examples = textwrap.dedent("\n".join(lines[1:])).splitlines()
        elif "\b" in part:
            paragraphs.append([*tagged(rows(lines), "Cm")])
        else:
            paragraphs.append([".Pp", *prose(" ".join(line.strip() for line in lines))])
    return " ".join(line.strip() for line in summary.splitlines()), paragraphs, examples


def rows(lines: list[str]) -> dict[str, str]:
    """A table of help: what is explained, and its text, which further lines may hold behind more than one space."""
    found: dict[str, str] = {}
    for line in lines:
        key, text = re.split(r"  +|$", line, maxsplit=1)
        key = key or list(found)[-1]
        found[key] = f"{found.get(key, '')} {text.strip()}".strip()
    return found


def options(command: Any, kind: str) -> Iterator[str]:
    context = typer.Context(command, info_name="speckvctl", **command.context_settings)
    rows = [(p, p.get_help_record(context)) for p in command.get_params(context) if p.param_type_name == kind]
    rows = [(p, record) for p, record in rows if record is not None]
    if not rows:
        return
    yield ".Bl -tag -width Ds"
    for parameter, record in rows:
        if kind == "argument":
            yield f".It Ar {escape(parameter.metavar or parameter.name)}"
        else:
            flags = [option.lstrip("-") for option in parameter.opts]
            flags.sort(key=len)
            value = f" Ar {escape(parameter.metavar)}" if parameter.metavar else ""
            yield ".It " + " , ".join("Fl " + ("\\-" if len(f) > 1 else "") + escape(f) for f in flags) + value
        text = record[1]
        yield from prose(re.sub(r"\s*\[required\]$", "", text) if kind == "argument" else text)
    yield ".El"


def synopsis(path: list[str], command: Any) -> Iterator[str]:
    context = typer.Context(command, info_name=" ".join(path))
    yield f".Nm {path[0]}"
    words = [f"Cm {escape(word)}" for word in path[1:]] + ["Op Ar options"]
    for parameter in command.get_params(context):
        if parameter.param_type_name == "argument":
            name = escape(parameter.metavar or parameter.name)
            words.append(f"Ar {name}" if parameter.required else f"Op Ar {name}")
    for word in words:
        yield f".{word}"


def body(command: Any) -> Iterator[str]:
    summary, paragraphs, examples = sections(command.help or "")
    yield from prose(summary)
    for paragraph in paragraphs:
        yield from paragraph
    yield from options(command, "argument")
    yield from options(command, "option")
    if examples:
        yield ".Pp"
        yield "Examples:"
        yield from literal(examples)


def literal(lines: list[str]) -> Iterator[str]:
    yield ".Bd -literal -offset indent"
    yield from (escape(line) for line in lines)
    yield ".Ed"


def tagged(rows: dict[str, str], macro: str) -> Iterator[str]:
    yield ".Bl -tag -width Ds"
    for key, text in rows.items():
        yield f".It {macro} {escape(key)}"
        yield from prose(text)
    yield ".El"


def head(name: str, summary: str) -> Iterator[str]:
    yield '.\\" SPDX-License-Identifier: MIT'
    yield '.\\" Written by man/generate.py from the help of the commands; change that, and run it again.'
    yield f".Dd {DATE}"
    yield ".ds doc-volume-operating-system SpecKV"
    yield ".ds doc-default-operating-system SpecKV"
    yield f".Dt {name.upper()} 1"
    yield ".Os"
    yield ".nh"
    yield ".Sh NAME"
    yield f".Nm {name}"
    yield f".Nd {escape(summary.rstrip('.')[0].lower() + summary.rstrip('.')[1:])}"


def tail(own: str, examples: list[str] | None = None) -> Iterator[str]:
    yield ".Sh ENVIRONMENT"
    yield from tagged(ENVIRONMENT, "Ev")
    yield ".Sh FILES"
    yield from tagged(FILES, "Pa")
    yield ".Sh EXIT STATUS"
    yield ".Bl -tag -width Ds"
    for code, text in MEANING.items():
        yield f".It {int(code)}"
        yield escape(text[0].upper() + text[1:]) + "."
    yield ".El"
    if examples:
        yield ".Sh EXAMPLES"
        yield from literal(examples)
    yield ".Sh SEE ALSO"
    pages = sorted({"speckvctl", *(f"speckvctl-{noun}" for noun in NOUNS)} - {own})
    for index, page in enumerate(pages):
        yield f".Xr {page} 1" + (" ," if index < len(pages) - 1 else "")


def noun_page(noun: str, command: Any) -> str:
    name = f"speckvctl-{noun}"
    verbs = {verb: command.get_command(typer.Context(command), verb) for verb in NOUNS[noun].verbs}
    lines = [*head(name, NOUNS[noun].summary), ".Sh SYNOPSIS"]
    for path, one in [(["speckvctl", noun, verb], sub) for verb, sub in verbs.items()] or [
        (["speckvctl", noun], command)
    ]:
        lines += synopsis(path, one)
    lines.append(".Sh DESCRIPTION")
    if verbs:
        summary, paragraphs, _ = sections(command.callback.__doc__ or command.help or "")
        lines += prose(summary)
        for paragraph in paragraphs:
            lines += paragraph
        for verb, sub in verbs.items():
            lines += [f".Ss speckvctl {noun} {verb}", *body(sub)]
    else:
        lines += body(command)
    return "\n".join([*lines, *tail(name)]) + "\n"


def root_page(root: Any) -> str:
    summary, paragraphs, examples = sections(root.help or "")
    lines = [*head("speckvctl", "run compressed KV-cache pools"), ".Sh SYNOPSIS"]
    lines += [".Nm speckvctl", ".Ar noun", ".Op Ar verb", ".Op Ar options", ".Op Ar arguments"]
    lines += [".Sh DESCRIPTION", *prose(summary)]
    for paragraph in paragraphs:
        lines += paragraph
    lines += [".Pp", "The nouns:"]
    lines += tagged({noun: f"{entry.summary} See speckvctl-{noun}(1)." for noun, entry in NOUNS.items()}, "Cm")
    lines += [".Pp", "The options of", ".Nm", "itself:", *options(root, "option")]
    return "\n".join([*lines, *tail("speckvctl", examples)]) + "\n"


def pages() -> dict[str, str]:
    root = typer.main.get_command(app)
    written = {"speckvctl.1": root_page(root)}
    for noun in NOUNS:
        written[f"speckvctl-{noun}.1"] = noun_page(noun, root.get_command(typer.Context(root), noun))  # type: ignore[attr-defined]
    return written


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the manual pages from the command tree.")
    parser.add_argument("--check", action="store_true", help="write nothing; name pages that have drifted")
    check = parser.parse_args().check
    wanted = pages()
    there = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.1")}
    drifted = sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))
    if check:
        for name in drifted:
            print(f"man/{name} has drifted from the command tree; run python man/generate.py", file=sys.stderr)
        return 1 if drifted else 0
    for name in drifted:
        if name in wanted:
            (FOLDER / name).write_text(wanted[name], encoding="utf-8")
        else:
            (FOLDER / name).unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
