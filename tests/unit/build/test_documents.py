# SPDX-License-Identifier: MIT
"""The documents name what is there: folders, files, targets; and the picture is the one that its source draws."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCUMENTS = ("docs/ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_and_paths_lead_somewhere(repository: Path, name: str) -> None:
    path = repository / name
    text = path.read_text("utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if not link.startswith("http")]
    assert all((path.parent / link).exists() for link in links)
    roots = (repository, repository / "libspeckv", repository / "libspeckv/client")
    for word in re.findall(r"`([a-z0-9_./]+/[A-Za-z0-9_./]*)`", text):
        assert any((root / word).exists() for root in roots) or word.startswith("build/"), f"{name} names {word}"


def test_make_targets_that_are_named_are_there(repository: Path) -> None:
    makefile = (repository / "Makefile").read_text("utf-8")
    for name in DOCUMENTS:
        for target in re.findall(
            r"(?:`|^    )make ([a-z][a-z-]+)\b", (repository / name).read_text("utf-8"), re.MULTILINE
        ):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{name} names make {target}"


def test_the_picture_is_what_its_source_draws(repository: Path) -> None:
    subprocess.run([sys.executable, "docs/picture.py", "--check"], cwd=repository, check=True)
