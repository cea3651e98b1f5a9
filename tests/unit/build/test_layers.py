# SPDX-License-Identifier: MIT
"""The host library is in layers: calls and includes go to a file's own folder or to lower ones, and in no circle."""

from __future__ import annotations

import ast
import re
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

#: Folders of libspeckv, from the lowest. `client/card` is the administrator's way to a card, `backend/` a pool's.
LAYERS = (
    "base",
    "transport",
    "client/card",
    "client/store",
    "client/backend",
    "client/pool",
    "client/admin",
)
INCLUDE = re.compile(r'^#include "([^"]+)"', re.MULTILINE)


@pytest.fixture(scope="module")
def library(repository: Path) -> Path:
    return repository / "libspeckv"


def rank(file: str) -> int:
    """Of a path in libspeckv."""
    return LAYERS.index(file.rpartition("/")[0])


def files(library: Path, pattern: str) -> list[Path]:
    return sorted(path for layer in LAYERS for path in (library / layer).glob(pattern))


def code(path: Path, *, texts: bool = False) -> str:
    """Without comments and, unless they are asked for, without what texts say."""
    source = re.sub(r"/\*.*?\*/|//[^\n]*", " ", path.read_text(), flags=re.DOTALL)
    return source if texts else re.sub(r'"(\\.|[^"\\])*"', '""', source)


@pytest.fixture(scope="module")
def calls(library: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, set[str]]]:
    """Caller -> called file -> names, as the linker sees them: what one object needs and another has."""
    folder = tmp_path_factory.mktemp("objects")
    includes = [f"-I{library.parent / p}" for p in ("libspeckv", "libspeckv/include", "kmod/include/uapi", "rtl/regs")]
    flags = ["-c", "-O0", "-w", "-std=gnu11", "-D_GNU_SOURCE", '-DSPECKV_VERSION="0"', *includes]
    needs: dict[str, set[str]] = {}
    owner: dict[str, str] = {}
    for number, source in enumerate(files(library, "*.c")):
        file, made = str(source.relative_to(library)), folder / f"{number}.o"
        subprocess.run(["cc", *flags, source, "-o", made], check=True)
        lines = subprocess.run(["nm", made], capture_output=True, text=True, check=True).stdout.splitlines()
        needs[file] = {line.split()[1] for line in lines if line.split()[0] == "U"}
        owner |= {p[2]: file for line in lines if len(p := line.split()) == 3 and p[1] in "BDRTVW"}
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for caller, names in needs.items():
        for name in names & owner.keys():
            if owner[name] != caller:
                found[caller][owner[name]].add(name)
    return found


def test_every_folder_is_a_layer(library: Path) -> None:
    inside = {str(p.parent.relative_to(library)) for p in (library / "client").rglob("*.c")}
    assert inside == {layer for layer in LAYERS if layer.startswith("client/")}


def test_no_call_goes_up(calls: dict[str, dict[str, set[str]]]) -> None:
    assert sum(len(names) for called in calls.values() for names in called.values()) > 500
    assert not [
        f"{caller} calls {', '.join(sorted(names))} of {other}"
        for caller, called in calls.items()
        for other, names in called.items()
        if rank(other) > rank(caller)
    ]


def test_no_files_call_each_other_in_a_circle(calls: dict[str, dict[str, set[str]]]) -> None:
    left = {file: set(called) for file, called in calls.items()}
    while ends := [file for file, called in left.items() if not called & left.keys()]:
        for file in ends:
            del left[file]
    assert not left, "each of these calls another of them"


def test_no_include_goes_up(library: Path) -> None:
    seen = 0
    for path in files(library, "*.[ch]"):
        file = str(path.relative_to(library))
        for name in INCLUDE.findall(path.read_text()):
            found = path.parent / name
            other = str((found if found.exists() else library / name).relative_to(library))
            if other.rpartition("/")[0] in LAYERS:
                seen += 1
                assert rank(other) <= rank(file), f"{file} includes {other}"
    assert seen > 60


def test_no_backend_is_named_outside_its_folder(library: Path) -> None:
    """Code of other folders asks what a device can do, not which kind it is. Comments and texts may name one."""
    placed = "SPECKV_PLACED_CARD"  # a public word for where a codec runs
    named = []
    for path in files(library, "*.[ch]"):
        if path.parent.name in ("store", "pool", "admin"):
            words = re.findall(r"\w*card\w*|mapped_device", code(path), re.IGNORECASE)
            named += [f"{path}: {word}" for word in words if "discard" not in word and word != placed]
    assert not named


def test_schemes_of_cards_are_known_to_the_transport_alone(library: Path) -> None:
    asked = re.compile(r'str\w*cmp\([^;]*"emu|"(emu:|emu)%?s?"|\b\w*name \+ 4\b')
    assert not [
        path
        for path in files(library, "*.[ch]")
        if path.parent.name != "transport" and asked.search(code(path, texts=True))
    ]


def imported(path: Path) -> set[str]:
    """Modules of speckvctl that a file imports when it runs: at its head or in a function, not for types alone."""
    names: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text("utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        waiting += ast.iter_child_nodes(node)
    return {name for name in names if name.startswith("speckvctl.")}


def test_models_and_peers_are_loaded_by_the_codec_commands_alone(repository: Path) -> None:
    root = repository / "speckvctl"
    own = {"calibration", "comparison", "reference"}
    seen = 0
    for path in sorted(root.rglob("*.py")):
        used = {name.split(".")[1] for name in imported(path)} & own
        room = path.relative_to(root).parts[0]
        seen += len(used)
        if room not in own and path.parent != root / "commands" / "codec":
            assert not used, f"{path} imports {used}"
        assert not (room == "reference" and used - {"reference"}), f"{path} imports {used}"
    assert seen > 5
