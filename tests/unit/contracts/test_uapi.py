# SPDX-License-Identifier: MIT
"""The memory contract (uapi/linux/speckv.h): layout pinned, compiles everywhere, agrees with its neighbours."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from rtl.regs import layout as uapi
else:  # a script of the tree, not of a package
    spec = importlib.util.spec_from_file_location("layout", Path(__file__).parents[3] / "rtl/regs/layout.py")
    uapi = sys.modules["layout"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(uapi)

CC, CXX = os.environ.get("CC", "cc"), os.environ.get("CXX", "c++")
WARNINGS = ["-Wall", "-Wextra", "-Werror"]
# The 32-bit C library is rarely installed, and not needed: these headers declare types only.
MULTIARCH = ["-idirafter", f"/usr/include/{sysconfig.get_config_var('MULTIARCH')}"]
DIALECTS = {
    "C11": [CC, "-x", "c", "-std=c11", "-pedantic", "-Wpadded"],
    "GNU C17": [CC, "-x", "c", "-std=gnu17", "-Wpadded"],
    "C++17": [CXX, "-x", "c++", "-std=c++17", "-pedantic"],
    "32-bit C11": [CC, "-m32", "-x", "c", "-std=c11", "-Wpadded", *MULTIARCH],
    "32-bit C++17": [CXX, "-m32", "-x", "c++", "-std=c++17", *MULTIARCH],
}
INCLUDE = [f"-I{uapi.FOLDER}", f"-I{uapi.ROOT / 'libspeckv/include'}", f"-I{uapi.ROOT / 'rtl/regs'}"]
ENTRY = ("opcode", "flags", "command_id")


def compiles(source: str, command: list[str], include: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    arguments = [*command, *WARNINGS, *(INCLUDE if include is None else include), "-fsyntax-only", "-"]
    return subprocess.run(arguments, input=source, capture_output=True, text=True, check=False)


def holds(*claims: str) -> str:
    asserts = "\n".join(f'_Static_assert({claim}, "");' for claim in claims)
    names = ("stddef.h", "speckv/speckv.h", "linux/speckv.h", "speckv_regs.h")
    return "".join(f"#include <{name}>\n" for name in names) + f"{asserts}\n"


def constants(prefix: str) -> dict[str, int]:
    text = uapi.HEADER.read_text(encoding="utf-8")
    found = re.findall(rf"^#define {prefix}(\w+) (?:\(1u << (\d+)\)|(0x[0-9a-f]+|\d+))(?:\s|$)", text, re.MULTILINE)
    assert found
    return {name: 1 << int(bit) if bit else int(value, 0) for name, bit, value in found}


@pytest.fixture(scope="module")
def layout() -> uapi.Layout:
    return uapi.measure([CC, "-std=c11"])


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_header_and_its_asserts_compile_without_hidden_padding(dialect: str) -> None:
    command = DIALECTS[dialect]
    if "-m32" in command and compiles("int x;", command).returncode != 0:
        pytest.skip("this compiler has no 32-bit mode (-m32)")
    done = compiles("#include <linux/speckv.h>\n", command)
    assert done.returncode == 0, done.stderr


def test_the_layout_is_the_pinned_table(layout: uapi.Layout) -> None:
    assert uapi.table(layout) == uapi.TABLE.read_text(encoding="utf-8"), "deliberate? run rtl/regs/layout.py"


def test_every_size_and_offset_has_its_assert(layout: uapi.Layout) -> None:
    assert uapi.asserts(layout) == uapi.ASSERTS.read_text(encoding="utf-8"), "deliberate? run rtl/regs/layout.py"


def test_members_follow_each_other_without_holes(layout: uapi.Layout) -> None:
    for name, (size, members) in layout.items():
        end = 0
        for member in members:
            assert member.offset == end, f"{name}.{member.name}: a hole, or a member that the parser did not see"
            end += member.size
        assert end == size, name


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("\t__le32 capacity; /* bytes of the page run", "\t__le64 capacity; /* bytes of the page run"),
        ("\t__le16 sq_head;", "\t__le16 sq_tail_seen;"),
        ("\t__u8 reserved[56];\n};\n\n/*\n * One client's", "\t__u8 reserved[52];\n};\n\n/*\n * One client's"),
        ("\t__le16 status; /* SPECKV_STATUS_*; events", "\t__u8 status; /* SPECKV_STATUS_*; events"),
    ],
)
def test_a_changed_layout_does_not_compile(tmp_path: Path, old: str, new: str) -> None:
    (tmp_path / "linux").mkdir()
    shutil.copy(uapi.ASSERTS, tmp_path / "linux")
    text = uapi.HEADER.read_text(encoding="utf-8")
    assert text.count(old) == 1
    changed, program = tmp_path / "linux/speckv.h", "#include <linux/speckv.h>\n"
    changed.write_text(text, encoding="utf-8")
    assert compiles(program, [CC, "-x", "c", "-std=c11"], [f"-I{tmp_path}"]).returncode == 0
    changed.write_text(text.replace(old, new), encoding="utf-8")
    done = compiles(program, [CC, "-x", "c", "-std=c11"], [f"-I{tmp_path}"])
    assert done.returncode != 0
    assert "static assertion" in done.stderr or "has no member" in done.stderr


def test_every_command_is_64_bytes_and_begins_alike(layout: uapi.Layout) -> None:
    commands = {name: value for name, value in layout.items() if name.startswith(("speckv_cmd_", "speckv_sqe"))}
    assert len(commands) == 15
    for name, (size, members) in commands.items():
        assert size == 64, name
        assert tuple(member.name for member in members[: len(ENTRY)]) == ENTRY, name
        assert [(member.offset, member.size) for member in members[:5]] == [(0, 1), (1, 1), (2, 2), (4, 2), (6, 2)], (
            name
        )
    assert layout["speckv_cqe"][0] == 16


def test_opcodes_are_those_of_the_design() -> None:
    admin, io = constants("SPECKV_ADMIN_"), constants("SPECKV_IO_")
    assert " ".join(admin) == (
        "IDENTIFY GET_LOG CREATE_POOL RESIZE_POOL DELETE_POOL SANITIZE LOAD_MODEL FW_DOWNLOAD FW_COMMIT FW_ACTIVATE "
        "SELF_TEST SET_FEATURE GET_FEATURE RESET GRANT"
    )
    assert " ".join(io) == (
        "NOP WRITE READ COPY PREFETCH INVALIDATE ACQUIRE_SHARED ACQUIRE_EXCLUSIVE WRITEBACK FLUSH TOUCH PREDICT"
    )
    for opcodes in (admin, io):
        assert len(set(opcodes.values())) == len(opcodes)
        assert max(opcodes.values()) < 256


@pytest.mark.parametrize(
    "prefix", ["SPECKV_STATUS_", "SPECKV_LOG_", "SPECKV_FEATURE_", "SPECKV_CARD_", "SPECKV_TEST_", "SPECKV_CAP_"]
)
def test_values_of_one_kind_are_distinct(prefix: str) -> None:
    values = {name: value for name, value in constants(prefix).items() if name not in ("CLEAR", "SAVE")}
    assert len(set(values.values())) == len(values)


def test_the_registers_say_the_same() -> None:
    page, slot = "offsetof(speckv_regs_t, DOORBELLS.PAGE[1])", "offsetof(speckv_regs_t, DOORBELLS.PAGE[1].SLOT[2])"
    slots = "((speckv_regs_t *)0)->DOORBELLS.PAGE[0].SLOT"
    same = {  # register -> member of struct speckv_doorbell_page
        "SLOT[2].SQ_TAIL": "slot[2].sq_tail",
        "SLOT[2].CQ_HEAD": "slot[2].cq_head",
        "NEED_WAKE": "need_wake",
    }
    claims = [
        "SPECKV_MAGIC == SPECKV_REGS__MAGIC__VALUE_reset",
        "SPECKV_MAP_MAJOR == SPECKV_REGS__MAP_VERSION__MAJOR_reset",
        "SPECKV_MAP_MINOR == SPECKV_REGS__MAP_VERSION__MINOR_reset",
        f"{page} % sizeof(struct speckv_doorbell_page) == 0",
        f"{page} - offsetof(speckv_regs_t, DOORBELLS) == sizeof(struct speckv_doorbell_page)",
        f"{slot} - {page} == offsetof(struct speckv_doorbell_page, slot[2])",
        f"sizeof({slots}) / sizeof({slots}[0]) == SPECKV_DOORBELL_SLOTS",
    ]
    for register, member in same.items():
        there = f"offsetof(speckv_regs_t, DOORBELLS.PAGE[1].{register}) - {page}"
        claims.append(f"{there} == offsetof(struct speckv_doorbell_page, {member})")
    caps = constants("SPECKV_CAP_")
    registers = re.findall(
        r"SPECKV_REGS__CAPS__(\w+)_bp", (uapi.ROOT / "rtl/regs/speckv_regs.h").read_text(encoding="utf-8")
    )
    assert set(registers) == set(caps)
    claims += [f"SPECKV_CAP_{name} == SPECKV_REGS__CAPS__{name}_bm" for name in caps]
    done = compiles(holds(*claims), [CC, "-x", "c", "-std=c11"])
    assert done.returncode == 0, done.stderr


def test_the_library_says_the_same() -> None:
    shape = ["layers", "kv_heads", "head_dim", "tokens", "dtype"]
    done = compiles(
        holds(
            "sizeof(struct speckv_shape) == sizeof(struct speckv_geometry)",
            *[f"offsetof(struct speckv_shape, {m}) == offsetof(struct speckv_geometry, {m})" for m in shape],
            "sizeof(struct speckv_log_counters) == sizeof(struct speckv_stats)",
            "offsetof(struct speckv_log_counters, histograms) == offsetof(struct speckv_stats, histograms)",
            "sizeof(((struct speckv_block_identity *)0)->key) == SPECKV_KEY_BYTES",
            "sizeof(((struct speckv_pool_description *)0)->name) == SPECKV_NAME_BYTES",
            "sizeof(((struct speckv_pool_description *)0)->uuid) == SPECKV_UUID_BYTES",
        ),
        [CC, "-x", "c", "-std=c11"],
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("dialect", ["C11", "C++17"])
@pytest.mark.parametrize("order", ["library first", "library last"])
def test_it_lives_beside_the_public_headers(dialect: str, order: str) -> None:
    both = ["#include <speckv/speckv.h>", "#include <linux/speckv.h>"]
    source = "\n".join(both if order == "library first" else both[::-1]) + "\n"
    command = [word for word in DIALECTS[dialect] if word != "-Wpadded"]
    done = compiles(source, command)
    assert done.returncode == 0, done.stderr


def test_every_ioctl_argument_begins_with_size_and_flags(layout: uapi.Layout) -> None:
    text = uapi.HEADER.read_text(encoding="utf-8")
    calls = re.findall(r"^#define SPECKV_IOC_\w+ _IOWR\('S', (0x\w\w), struct (\w+)\)$", text, re.MULTILINE)
    assert len(calls) == len(re.findall(r"^#define SPECKV_IOC_", text, re.MULTILINE)) == 10
    assert len({number for number, _ in calls}) == len(calls)
    for _, structure in calls:
        size, members = layout[structure]
        assert [(m.name, m.offset, m.size) for m in members[:2]] == [("size", 0, 4), ("flags", 4, 4)], structure
        assert size % 8 == 0, structure
