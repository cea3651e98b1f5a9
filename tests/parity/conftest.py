# SPDX-License-Identifier: MIT
"""The C library installed into a folder of its own, and programs compiled against it as a user would."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PREFIX = "/usr/local"
FLAGS = ["-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Werror"]

Compile = Callable[[Path], Path]


def _run(*command: object, environment: dict[str, str] | None = None) -> str:
    words = [str(word) for word in command]
    done = subprocess.run(words, env={**os.environ, **(environment or {})}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def installed(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the library as `meson install` puts it."""
    meson = Path(sys.executable).with_name("meson")
    build, root = repository / "build" / "parity", tmp_path_factory.mktemp("installed")
    if not (build / "build.ninja").exists():
        _run(
            meson,
            "setup",
            build,
            repository,
            f"-Dprefix={PREFIX}",
            "-Dlibdir=lib",
            "-Dpython=disabled",
            "-Dtests=false",
        )
    _run(meson, "compile", "-C", build)
    _run(meson, "install", "--no-rebuild", "-C", build, "--destdir", root)
    return root


@pytest.fixture(scope="session")
def compile_c(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """Compile one source against the installed library, with what pkg-config says about it."""
    library = installed / PREFIX.lstrip("/") / "lib"
    folder = tmp_path_factory.mktemp("programs")
    where = {"PKG_CONFIG_LIBDIR": str(library / "pkgconfig"), "PKG_CONFIG_SYSROOT_DIR": str(installed)}
    flags = _run("pkg-config", "--cflags", "--libs", "speckv", environment=where).split()
    compiler = os.environ.get("CC") or shutil.which("cc") or "gcc"

    def compile_one(source: Path) -> Path:
        program = folder / source.stem
        if not program.exists():
            _run(compiler, *FLAGS, source, "-o", program, *flags, f"-Wl,-rpath,{library}")
        return program

    return compile_one
