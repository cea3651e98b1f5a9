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


def test_suites_that_are_named_are_there(repository: Path) -> None:
    listed = subprocess.run(
        [sys.executable, ".ci/test.py", "--list"], cwd=repository, check=True, capture_output=True, text=True
    ).stdout.split()
    named = re.findall(r'make test SUITE="([^"]+)"', "".join((repository / n).read_text("utf-8") for n in DOCUMENTS))
    assert named
    assert {suite for names in named for suite in names.split()} <= set(listed)


#: What a newcomer looks for, and the file that a guess by the folders' names leads to.
SOUGHT = {
    "libspeckv/client/pool/evict.c": "pages_claim(",
    "libspeckv/client/backend/card_blocks.c": "SPECKV_IO_READ",
    "libspeckv/bundle/bundle.c": "EVP_DigestVerify(",
    "libspeckv/codec/qx_decode_avx2.c": "CODEC_QX_DECODE(avx2)",
    "speckvctl/results/pools.py": "class PoolShow(",
    "libspeckv/transport/vfio_user_wire.h": "struct vfu_header",
}


@pytest.mark.parametrize("file", SOUGHT)
def test_folders_are_named_for_what_lies_in_them(repository: Path, file: str) -> None:
    assert SOUGHT[file] in (repository / file).read_text("utf-8")
