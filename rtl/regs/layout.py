# SPDX-License-Identifier: MIT
"""Sizes and offsets of kmod/include/uapi/linux/speckv.h, as the compiler sees them.

usage: python rtl/regs/layout.py     after a deliberate change of the contract: writes speckv_layout.h (static
assertions for every user of the header) and tests/unit/contracts/uapi_layout.txt (the table pinned by the tests).
"""

import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "kmod/include/uapi"
HEADER = FOLDER / "linux/speckv.h"
ASSERTS = FOLDER / "linux/speckv_layout.h"
TABLE = ROOT / "tests/unit/contracts/uapi_layout.txt"

_STRUCT = re.compile(r"^struct (\w+) \{\n(.*?)^\};", re.MULTILINE | re.DOTALL)
_MEMBER = re.compile(r"^\t(?:struct )?\w+ (\w+)((?:\[\w+\])*);", re.MULTILINE)

_ASSERTS_HEAD = """\
/* SPDX-License-Identifier: MIT */
/*
 * speckv_layout.h - every size and offset of speckv.h, which includes this file. Written by
 * rtl/regs/layout.py after a deliberate change of the contract.
 */
#ifndef _UAPI_SPECKV_LAYOUT_H
#define _UAPI_SPECKV_LAYOUT_H

#ifdef __cplusplus
#define SPECKV_ASSERT static_assert
#else
#define SPECKV_ASSERT _Static_assert
#endif
#define SPECKV_SIZE(name, bytes) SPECKV_ASSERT(sizeof(struct speckv_##name) == (bytes), #name)
#define SPECKV_AT(name, member, offset, bytes) \\
	SPECKV_ASSERT(__builtin_offsetof(struct speckv_##name, member) == (offset) && \\
		sizeof(((struct speckv_##name *)0)->member) == (bytes), #name "." #member)
"""
_ASSERTS_TAIL = """
#undef SPECKV_SIZE
#undef SPECKV_AT
#undef SPECKV_ASSERT

#endif
"""


@dataclass(frozen=True)
class Member:
    name: str
    offset: int
    size: int


Layout = dict[str, tuple[int, list[Member]]]
"""Structure -> its size and members, in the header's order."""


def declared() -> dict[str, list[str]]:
    """Structures and member names, read from the header's text."""
    text = HEADER.read_text(encoding="utf-8")
    return {name: [member[0] for member in _MEMBER.findall(body)] for name, body in _STRUCT.findall(text)}


def measure(compiler: Sequence[str]) -> Layout:
    """Sizes and offsets by this compiler, without the assertions."""
    structures = declared()
    lines = []
    for name, members in structures.items():
        lines.append(f'printf("%zu\\n", sizeof(struct {name}));')
        for member in members:
            place = f"offsetof(struct {name}, {member}), sizeof(((struct {name} *)0)->{member})"
            lines.append(f'printf("%zu %zu\\n", {place});')
    program = (
        "#define _UAPI_SPECKV_LAYOUT_H\n#include <stddef.h>\n#include <stdio.h>\n#include <linux/speckv.h>\n"
        "int main(void)\n{\n" + "\n".join(lines) + "\nreturn 0;\n}\n"
    )
    with tempfile.TemporaryDirectory() as scratch:
        source, binary = Path(scratch, "probe.c"), Path(scratch, "probe")
        source.write_text(program, encoding="utf-8")
        subprocess.run([*compiler, f"-I{FOLDER}", "-o", str(binary), str(source)], check=True)
        printed = iter(subprocess.run([str(binary)], check=True, capture_output=True, text=True).stdout.splitlines())
    layout: Layout = {}
    for name, members in structures.items():
        size = int(next(printed))
        places = [Member(member, *map(int, next(printed).split())) for member in members]
        layout[name] = (size, places)
    return layout


def table(layout: Layout) -> str:
    lines = [
        "# SPDX-License-Identifier: MIT",
        "# structure size, then member offset size: written by rtl/regs/layout.py",
    ]
    for name, (size, members) in layout.items():
        lines.append(f"{name} {size}")
        lines += [f"\t{member.name} {member.offset} {member.size}" for member in members]
    return "\n".join(lines) + "\n"


def asserts(layout: Layout) -> str:
    lines = [_ASSERTS_HEAD]
    for name, (size, members) in layout.items():
        short = name.removeprefix("speckv_")
        lines.append(f"SPECKV_SIZE({short}, {size});")
        lines += [f"SPECKV_AT({short}, {member.name}, {member.offset}, {member.size});" for member in members]
        lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n" + _ASSERTS_TAIL


if __name__ == "__main__":
    ASSERTS.touch()
    measured = measure(["cc", "-std=c11", "-Wall", "-Wextra", "-Werror"])
    ASSERTS.write_text(asserts(measured), encoding="utf-8")
    TABLE.write_text(table(measured), encoding="utf-8")
