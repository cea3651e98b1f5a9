# SPDX-License-Identifier: MIT
"""`make install` gives a library to build against and a command that runs; `make uninstall` leaves nothing."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

PREFIX = "/opt/speckv-test"
PROGRAM = """
#include <speckv/speckv.h>
#include <stdio.h>
int main(void) { return puts(speckv_version()) < 0; }
"""


def make(goal: str, repository: Path, destdir: Path) -> None:
    environment = {**os.environ, "PREFIX": PREFIX, "DESTDIR": str(destdir)}
    subprocess.run(["make", "-C", repository, goal], env=environment, check=True, timeout=550)


def files_below(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}


@pytest.fixture(scope="module")
def installed(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A staging folder after `make install`, with a file of somebody else in the same prefix."""
    destdir = tmp_path_factory.mktemp("stage")
    (destdir / PREFIX.lstrip("/") / "include").mkdir(parents=True)
    (destdir / PREFIX.lstrip("/") / "include" / "other.h").touch()
    make("install", repository, destdir)
    yield destdir


def test_a_program_builds_with_pkg_config_and_runs(installed: Path, tmp_path: Path) -> None:
    (pc,) = installed.rglob("speckv.pc")
    environment = {**os.environ, "PKG_CONFIG_PATH": str(pc.parent), "PKG_CONFIG_SYSROOT_DIR": str(installed)}
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "speckv"], env=environment, capture_output=True, text=True, check=True
    ).stdout.split()
    source, program = tmp_path / "program.c", tmp_path / "program"
    source.write_text(PROGRAM)
    subprocess.run(["cc", "-Wall", "-Werror", source, "-o", program, *flags], check=True)
    (library,) = installed.glob(f".{PREFIX}/**/libspeckv.so")
    environment = {**os.environ, "LD_LIBRARY_PATH": str(library.parent)}
    done = subprocess.run([program], env=environment, capture_output=True, text=True, check=True)
    assert f"Version: {done.stdout.strip()}" in pc.read_text()


def test_the_command_runs_from_its_own_environment(installed: Path) -> None:
    root = installed / PREFIX.lstrip("/")
    assert os.readlink(root / "bin" / "speckvctl") == "../lib/speckv/bin/speckvctl"
    assert (root / "bin" / "speckvctl").read_text().startswith(f"#!{PREFIX}/lib/speckv/bin/python")
    script: list[Path | str] = [root / "lib" / "speckv" / "bin" / "python", root / "bin" / "speckvctl", "--help"]
    assert "pool" in subprocess.run(script, capture_output=True, text=True, check=True).stdout


def test_nothing_installed_names_the_staging_folder(installed: Path) -> None:
    texts = [p for p in installed.rglob("*") if p.is_file() and p.suffix in {"", ".pc", ".cfg", ".fish", ".csh"}]
    assert texts
    assert not [p for p in texts if str(installed).encode() in p.read_bytes()]


def test_uninstall_leaves_only_what_was_there_before(installed: Path, repository: Path) -> None:
    make("uninstall", repository, installed)
    top = PREFIX.lstrip("/")
    assert files_below(installed) == {"opt", top, f"{top}/include", f"{top}/include/other.h"}
