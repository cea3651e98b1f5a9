# SPDX-License-Identifier: MIT
"""Sizes of C sources: files of at most 500 lines, functions of at most 80, or a reason at their head."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

FILE_LINES = 500
FUNCTION_LINES = 80
#: Tables, a contract that the kernel wants in one header, and what is generated.
TABLES = {
    "kmod/include/uapi/linux/speckv.h",
    "kmod/include/uapi/linux/speckv_layout.h",
    "libspeckv/codec/rotary.c",
    "libspeckv/predictor/sigmoid.h",
}
#: What the comment above a longer function says, with the reason behind it.
REASON = "Long: "


@pytest.fixture(scope="module")
def sources(repository: Path) -> list[Path]:
    found = [
        p for folder in ("libspeckv", "kmod", "tests") for e in "ch" for p in (repository / folder).rglob(f"*.{e}")
    ]
    return [path for path in sorted(found) if str(path.relative_to(repository)) not in TABLES]


def functions(text: str) -> Iterator[tuple[str, int, str]]:
    """Name, lines of the body, and the comment above of each function of a formatted source."""
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if line != "{":
            continue
        end = lines.index("}", number) if "}" in lines[number:] else number
        head = number
        while head and lines[head - 1].strip() and not lines[head - 1].startswith(("}", "#")):
            head -= 1
        above = "\n".join(lines[head:number])
        comment, _, signature = above.rpartition("*/")
        name = re.search(r"(\w+)\(", signature)
        yield name[1] if name else signature, end - number - 1, comment


def test_no_source_is_too_long(repository: Path, sources: list[Path]) -> None:
    assert len(sources) > 200
    lengths = {str(path.relative_to(repository)): len(path.read_text("utf-8").splitlines()) for path in sources}
    assert not {name: lines for name, lines in lengths.items() if lines > FILE_LINES}


def test_no_function_is_too_long_without_a_reason(repository: Path, sources: list[Path]) -> None:
    seen = 0
    found = []
    for path in sources:
        for name, lines, comment in functions(path.read_text("utf-8")):
            seen += 1
            if lines > FUNCTION_LINES and REASON not in comment:
                found.append(f"{path.relative_to(repository)}: {name}: {lines} lines")
    assert seen > 2000
    assert not found


def test_long_functions_are_seen() -> None:
    body = "\tstep();\n" * (FUNCTION_LINES + 1)
    ((name, lines, comment),) = functions(
        f"/* Why.\n * {REASON}a table of steps. */\nint\nlong_one(void)\n{{\n{body}}}\n"
    )
    assert (name, lines) == ("long_one", FUNCTION_LINES + 1)
    assert REASON in comment
