# SPDX-License-Identifier: MIT
"""The blocks of README.md can be typed as they stand, in the source tree, and its lines fit a page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SECTIONS = {
    "A first pool": "every block is lost",
    "An emulated card": "stop card0 --remove",
}


def block(readme: str, section: str) -> str:
    """The first block of commands below a heading."""
    text = readme.split(f"\n## {section}\n", 1)[1].split("\n## ")[0]
    lines = re.search(r"(?:^    .*\n)+", text, re.MULTILINE)
    assert lines is not None, f"{section} has no block"
    return re.sub(r"^    ", "", lines[0], flags=re.MULTILINE)


@pytest.mark.parametrize("section", SECTIONS)
def test_a_block_can_be_typed_as_it_stands(section: str, repository: Path, runtime_dir: Path) -> None:
    commands = block((repository / "README.md").read_text(encoding="utf-8"), section)
    assert SECTIONS[section] in commands
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "80"}
    commands = commands.replace(". .venv/bin/activate", ":")  # this interpreter's environment instead
    done = subprocess.run(
        ["bash", "-euxc", commands],
        cwd=repository,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert not list(runtime_dir.glob("*.pools")), "a device was left behind"


def test_the_first_lines_say_what_exists_and_what_does_not(repository: Path) -> None:
    head = " ".join((repository / "README.md").read_text(encoding="utf-8").split("\n## ")[0].split())
    assert "Exists today" in head and "Does not exist yet" in head


def test_lines_fit_a_page(repository: Path) -> None:
    for number, line in enumerate((repository / "README.md").read_text(encoding="utf-8").splitlines(), 1):
        assert len(line) <= (130 if line.startswith("|") else 116), f"line {number}: {len(line)} characters"


def test_codecs_are_in_one_table(repository: Path) -> None:
    from speckvctl.results.words import CODECS

    table = (repository / "README.md").read_text(encoding="utf-8").split("\n## Codecs\n")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `([a-z0-9-]+)`", table, re.MULTILINE)) == set(CODECS)


def test_exit_codes_are_all_in_the_list(repository: Path) -> None:
    from speckvctl.exitcodes import ExitCode

    text = " ".join((repository / "README.md").read_text(encoding="utf-8").split())
    listed = text.split("these exit codes: ")[1].split(". ")[0]
    assert [int(code) for code in re.findall(r"\b\d+\b", listed)] == sorted(map(int, ExitCode))


def test_what_is_named_in_the_tree_is_there(repository: Path) -> None:
    text = (repository / "README.md").read_text(encoding="utf-8")
    for path in re.findall(r"(?:libspeckv|speckvctl|bitstreams|rtl|kmod|man)/[\w./-]+\.\w+", text):
        assert (repository / path).exists(), path
