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


def test_what_shells_people_and_programs_read_is_there(installed: Path) -> None:
    share = installed / PREFIX.lstrip("/") / "share"
    for name in (
        "bash-completion/completions/speckvctl",
        "zsh/site-functions/_speckvctl",
        "fish/vendor_completions.d/speckvctl.fish",
        "man/man1/speckvctl-pool.1",
        "speckv/schemas/pool-list.json",
        "speckv/examples/quickstart.c",
    ):
        assert (share / name).is_file(), name


def test_every_user_can_read_it(installed: Path) -> None:
    closed = [
        path
        for path in (installed / PREFIX.lstrip("/")).rglob("*")
        if not path.is_symlink()
        and path.stat().st_mode & (0o5 if path.is_dir() else 0o4) != (0o5 if path.is_dir() else 0o4)
    ]
    assert not closed


def test_the_list_names_every_file_outside_its_folder(installed: Path) -> None:
    root = installed / PREFIX.lstrip("/")
    listed = (root / "lib" / "speckv" / "installed-files").read_text().splitlines()
    there = {
        f"/{path.relative_to(installed)}"
        for path in root.rglob("*")
        if (path.is_symlink() or path.is_file()) and not path.is_relative_to(root / "lib" / "speckv")
    }
    assert there - {f"{PREFIX}/include/other.h"} == set(listed)
    assert len(listed) == len(set(listed))


def test_an_installation_that_was_interrupted_can_be_removed(repository: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PREFIX": PREFIX, "DESTDIR": str(tmp_path)}
    # pip has nothing to install from: that ends it after the library's files are in place
    cut = {**environment, "PIP_INDEX_URL": "file:///nowhere", "PIP_EXTRA_INDEX_URL": "", "PIP_NO_CACHE_DIR": "1"}
    done = subprocess.run(["make", "-C", repository, "install"], env=cut, check=False, timeout=550)
    assert done.returncode != 0
    assert list(tmp_path.rglob("libspeckv.so"))
    make("uninstall", repository, tmp_path)
    assert files_below(tmp_path) == {"opt", PREFIX.lstrip("/")}


def test_installing_takes_no_torch(repository: Path) -> None:
    setup = subprocess.run(
        ["bash", "-x", repository / ".ci" / "setup", "install"], capture_output=True, text=True, check=True, timeout=550
    )
    assert "torch" not in "".join(line for line in setup.stderr.splitlines() if "pip install" in line)


def test_nothing_installed_names_the_staging_folder(installed: Path) -> None:
    texts = [p for p in installed.rglob("*") if p.is_file() and p.suffix in {"", ".pc", ".cfg", ".fish", ".csh"}]
    assert texts
    assert not [p for p in texts if str(installed).encode() in p.read_bytes()]


def test_uninstall_leaves_only_what_was_there_before(installed: Path, repository: Path) -> None:
    make("uninstall", repository, installed)
    top = PREFIX.lstrip("/")
    assert files_below(installed) == {"opt", top, f"{top}/include", f"{top}/include/other.h"}
