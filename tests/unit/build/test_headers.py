# SPDX-License-Identifier: MIT
"""Each public header stands alone, in C99 and in C++."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

HEADERS = [
    "base.h",
    "block.h",
    "bundle.h",
    "card.h",
    "codec.h",
    "device.h",
    "folder.h",
    "pool.h",
    "predictor.h",
    "speckv.h",
]
DIALECTS = [["cc", "-x", "c", "-std=c99"], ["c++", "-x", "c++", "-std=c++11"]]


def test_all_public_headers_are_tested(repository: Path) -> None:
    assert sorted(p.name for p in (repository / "libspeckv/include/speckv").iterdir()) == HEADERS


@pytest.mark.parametrize("dialect", DIALECTS, ids=["c99", "c++11"])
@pytest.mark.parametrize("header", HEADERS)
def test_header_compiles_alone_without_a_warning(header: str, dialect: list[str], repository: Path) -> None:
    command = [*dialect, "-Wall", "-Wextra", "-pedantic-errors", "-Werror", "-fsyntax-only"]
    command += ["-I", str(repository / "libspeckv/include"), "-"]
    source = f"#include <speckv/{header}>\n#include <speckv/{header}>\n"
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
