# SPDX-License-Identifier: MIT
"""The shared library exports what the public headers promise, by version, and nothing else."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import speckv

PROTOTYPE = re.compile(r"^[a-z][\w *]*?\b(\w+)\(", re.MULTILINE)
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)


@pytest.fixture(scope="module")
def prototypes(repository: Path) -> set[str]:
    """Functions that the public headers declare; type definitions of callbacks are none."""
    names: set[str] = set()
    for header in (repository / "libspeckv" / "include" / "speckv").glob("*.h"):
        text = COMMENT.sub("", header.read_text())
        names |= {m[1] for m in PROTOTYPE.finditer(text) if not m[0].startswith("typedef")}
    return names


@pytest.fixture(scope="module")
def exported() -> dict[str, str]:
    """Symbol -> version of the installed library."""
    (library,) = (Path(speckv.__file__).parent.parent / ".speckv.mesonpy.libs").glob("libspeckv.so.*")
    lines = subprocess.run(
        ["nm", "--dynamic", "--defined-only", library], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    symbols = (line.split()[-1] for line in lines if " A " not in line)  # A: the version itself
    return {name: version for name, _, version in (s.partition("@@") for s in symbols)}


def test_headers_declare_only_names_with_our_prefix(prototypes: set[str]) -> None:
    assert len(prototypes) > 50
    assert not {p for p in prototypes if not p.startswith("speckv_")}


def test_library_exports_exactly_the_declared_functions(prototypes: set[str], exported: dict[str, str]) -> None:
    assert set(exported) == prototypes


def test_version_script_names_each_function_once(prototypes: set[str], repository: Path) -> None:
    text = (repository / "libspeckv" / "libspeckv.map").read_text()
    named = re.findall(r"^\t(speckv_\w+);$", text, re.MULTILINE)
    assert sorted(named) == sorted(prototypes)


def test_every_symbol_carries_the_version_of_its_release(exported: dict[str, str]) -> None:
    assert set(exported.values()) == {"SPECKV_0.1"}
