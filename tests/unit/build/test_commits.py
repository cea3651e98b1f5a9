# SPDX-License-Identifier: MIT
"""The form of commit messages is checked: subject, length, a reason where it is due."""

from __future__ import annotations

import runpy
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
    for tool in ("ruff check", "ruff format --check", "mypy", ".ci/commits.py"):
        assert f"{tool}\n" in hooks
