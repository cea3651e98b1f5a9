# SPDX-License-Identifier: MIT
"""libspeckv/client is in layers: calls and includes go to a file's own folder or to lower ones, and in no circle."""

from __future__ import annotations

import re
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

#: From the lowest; "" is the folder itself. `card` is the administrator's way to a card, `backend/card.c` a pool's.
LAYERS = ("", "card", "store", "backend", "pool", "admin")
INCLUDE = re.compile(r'^#include "([^"]+)"', re.MULTILINE)


@pytest.fixture(scope="module")
def client(repository: Path) -> Path:
    return repository / "libspeckv" / "client"


def rank(file: str) -> int:
    """Of a path in client/."""
    return LAYERS.index(file.rpartition("/")[0])


@pytest.fixture(scope="module")
def calls(client: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, set[str]]]:
    """Caller -> called file -> names, as the linker sees them: what one object needs and another has."""
    folder = tmp_path_factory.mktemp("objects")
    root = client.parent.parent
    includes = [f"-I{root / p}" for p in ("libspeckv", "libspeckv/include", "kmod/include/uapi", "rtl/regs")]
    flags = ["-c", "-O0", "-w", "-std=gnu11", "-D_GNU_SOURCE", '-DSPECKV_VERSION="0"', *includes]
    needs: dict[str, set[str]] = {}
    owner: dict[str, str] = {}
    for number, source in enumerate(sorted(client.rglob("*.c"))):
        file, made = str(source.relative_to(client)), folder / f"{number}.o"
        subprocess.run(["cc", *flags, f"-I{client}", source, "-o", made], check=True)
        lines = subprocess.run(["nm", made], capture_output=True, text=True, check=True).stdout.splitlines()
        needs[file] = {line.split()[1] for line in lines if line.split()[0] == "U"}
        owner |= {p[2]: file for line in lines if len(p := line.split()) == 3 and p[1] in "BDRTVW"}
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for caller, names in needs.items():
        for name in names & owner.keys():
            if owner[name] != caller:
                found[caller][owner[name]].add(name)
    return found


def test_every_folder_is_a_layer(client: Path) -> None:
    assert {str(p.parent.relative_to(client)) for p in client.rglob("*.c")} == {layer or "." for layer in LAYERS}


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


def test_no_include_goes_up(client: Path) -> None:
    seen = 0
    for path in sorted([*client.rglob("*.c"), *client.rglob("*.h")]):
        file = str(path.relative_to(client))
        for name in INCLUDE.findall(path.read_text()):
            beside = path.parent / name
            other = str(beside.relative_to(client)) if beside.exists() else name.removeprefix("client/")
            if beside.exists() or name.startswith("client/"):
                seen += 1
                assert rank(other) <= rank(file), f"{file} includes {other}"
    assert seen > 40


def test_no_backend_is_named_outside_its_folder(client: Path) -> None:
    """Code of other folders asks what a device can do, not which kind it is. Comments and texts may name one."""
    placed = "SPECKV_PLACED_CARD"  # a public word for where a codec runs
    named = []
    for path in sorted(p for layer in ("store", "pool", "admin") for p in (client / layer).glob("*.[ch]")):
        code = re.sub(r'"(\\.|[^"\\])*"', '""', re.sub(r"/\*.*?\*/", " ", path.read_text(), flags=re.DOTALL))
        words = re.findall(r"\w*card\w*|mapped_device", code, re.IGNORECASE)
        named += [f"{path}: {word}" for word in words if "discard" not in word and word != placed]
    assert not named
