# SPDX-License-Identifier: MIT
"""The form of commit messages is checked: subject, length, a reason where it is due."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def script(repository: Path) -> dict[str, Any]:
    return runpy.run_path(str(repository / ".ci" / "commits.py"))


@pytest.mark.parametrize(
    ("message", "files", "fault"),
    [
        ("client: cut a file\n\nBecause.", ["libspeckv/a.c"], None),
        ("tests: see more", ["tests/a.py"], None),
        ("client, card: cut a file\n\nBecause.", ["libspeckv/a.c"], "subsystem"),
        ("client: cut a file", ["tests/a.py", "libspeckv/a.c"], "why"),
        ("Cut a file\n\nBecause.", ["libspeckv/a.c"], "subsystem"),
        ("client: " + "x" * 65 + "\n\nBecause.", ["libspeckv/a.c"], "73 characters"),
        ("", ["tests/a.py"], "subsystem"),
    ],
)
def test_faults_are_named(script: dict[str, Any], message: str, files: list[str], fault: str | None) -> None:
    found = script["faults"](message, files)
    assert (not found) if fault is None else fault in " ".join(found)


def test_hooks_are_those_of_the_lint_suite(repository: Path) -> None:
    hooks = (repository / ".pre-commit-config.yaml").read_text("utf-8")
    for tool in ("ruff check", "ruff format --check", "mypy", "clang-format --dry-run -Werror", ".ci/commits.py"):
        assert f"{tool}\n" in hooks


def test_as_a_hook_it_sees_what_git_hands_it(repository: Path, tmp_path: Path) -> None:
    def git(*words: str) -> None:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", *words]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    def hook(message: str) -> int:
        (tmp_path / "message").write_text(message, "utf-8")
        command = [sys.executable, str(tmp_path / ".ci" / "commits.py"), str(tmp_path / "message")]
        return subprocess.run(command, capture_output=True, check=False).returncode

    (tmp_path / ".ci").mkdir()
    shutil.copy(repository / ".ci" / "commits.py", tmp_path / ".ci")
    git("init", "-q")
    git("add", ".ci")
    diff_below = "\n# ------------------------ >8 ------------------------\ndiff --git a/x b/x\n"
    assert hook("ci: add it\n\nBecause.\n# a remark of git\n") == 0
    assert hook("ci: add it\n" + diff_below) != 0  # the diff of `git commit -v` is no body
    git("commit", "-q", "-m", "ci: add it\n\nBecause.")
    assert hook("ci: add it") != 0  # nothing is staged: the message of that commit is amended
    assert hook("fixup! ci: add it") == hook("Merge branch 'x'") == 0
    assert hook('Revert "ci: add it"\n') != 0  # it stays, and has a form like any other
