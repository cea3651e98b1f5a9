# SPDX-License-Identifier: MIT
"""The committed manual pages are those that the command tree gives, and mandoc likes them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from speckvctl.tree import NOUNS


def test_the_pages_have_not_drifted_from_the_commands(repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, repository / "man" / "generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_tables_of_the_help_are_lists_in_the_pages(repository: Path) -> None:
    from speckv import card

    from speckvctl.prefetcher import evaluation

    for page, table in (("device", card.FAULTS), ("prefetcher", evaluation.BASELINES)):
        text = (repository / "man" / f"speckvctl-{page}.1").read_text(encoding="utf-8").replace("\\-", "-")
        items = re.findall(r"^\.It Cm (.*)\n(?!\.)", text, re.MULTILINE)
        assert sorted(", ".join(items).split(", ")) == sorted(table)


def test_every_page_is_installed(repository: Path) -> None:
    pages = {path.name for path in (repository / "man").glob("*.1")}
    assert pages == {"speckvctl.1", *(f"speckvctl-{noun}.1" for noun in NOUNS)}
    build = (repository / "man" / "meson.build").read_text(encoding="utf-8")
    assert {line.strip(" ',") for line in build.splitlines() if ".1'" in line} == pages


def test_mandoc_finds_nothing_to_say(repository: Path) -> None:
    mandoc = shutil.which("mandoc")
    if mandoc is None:
        pytest.skip("mandoc is not installed: apt install mandoc")
    for page in sorted((repository / "man").glob("*.1")):
        done = subprocess.run([mandoc, "-T", "lint", page], capture_output=True, text=True, check=False)
        # Our own pages are only found where they are installed.
        said = [line for line in done.stdout.splitlines() if "referenced manual not found: Xr speckvctl" not in line]
        assert not said
