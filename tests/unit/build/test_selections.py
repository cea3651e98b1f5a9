# SPDX-License-Identifier: MIT
"""Tests that acceptance rows, mutations and CONTRIBUTING.md select by name are there.

A test that was renamed would else be missed only when the row runs, or never: an expression of -k with several names
goes on selecting by the others.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.accept import run as accept
from tests.mutation import run as mutation

OPERATORS = frozenset("();<>|&")
#: A program of a build folder.
BUILT = re.compile(r"\bbuild/(?:c|bench)/((?:libspeckv|tests)/[\w/-]+)")


@dataclass
class Named:
    """What the commands of one place select."""

    pytest: set[tuple[tuple[str, ...], str]] = field(default_factory=set)  # paths and ids; an expression of -k
    meson: set[str] = field(default_factory=set)
    programs: set[str] = field(default_factory=set)

    def read(self, command: str) -> None:
        self.programs.update(BUILT.findall(command))
        for words in simple_commands(command):
            tools = [Path(word).name for word in words]
            if "pytest" in tools:
                self.read_pytest(words[tools.index("pytest") + 1 :])
            elif "meson" in tools and words[tools.index("meson") + 1 :][:1] == ["test"]:
                self.read_meson(words[tools.index("meson") + 2 :])

    def read_pytest(self, words: list[str]) -> None:
        parser = argparse.ArgumentParser()
        parser.add_argument("-q", action="store_true")
        parser.add_argument("-k", default="")
        parser.add_argument("paths", nargs="+")
        options = parser.parse_args(words)
        self.pytest |= {((path,), options.k) for path in options.paths}
        self.pytest |= {(tuple(options.paths), name) for name in re.split(r" (?:or|and(?: not)?) ", options.k)}

    def read_meson(self, words: list[str]) -> None:
        parser = argparse.ArgumentParser()
        parser.add_argument("-C")
        for flag in ("-v", "--no-rebuild", "--print-errorlogs"):
            parser.add_argument(flag, action="store_true")
        parser.add_argument("titles", nargs="+")
        self.meson.update(parser.parse_args(words).titles)


def simple_commands(command: str) -> Iterator[list[str]]:
    """The words of a shell's line, cut at its operators."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    words: list[str] = []
    for word in lexer:
        if OPERATORS.issuperset(word):
            yield words
            words = []
        else:
            words.append(word)
    yield words


@pytest.fixture(scope="module")
def named(repository: Path) -> dict[str, Named]:
    """By place: a suite of the acceptance, `mutation`, CONTRIBUTING.md."""
    found = {suite: Named() for suite in accept.suites()}
    for suite, selected in found.items():
        for point in importlib.import_module(f"tests.accept.suites.{suite}").POINTS:
            selected.read(point.command)
    found["mutation"] = Named()
    for patch in mutation.read_patches(mutation.PATCHES):
        found["mutation"].meson.update(patch.meson)
        for selection in patch.pytest:
            found["mutation"].read_pytest(shlex.split(selection))
    found["CONTRIBUTING.md"] = Named()
    for line in re.findall(r"(?m)^    (.*)", (repository / "CONTRIBUTING.md").read_text("utf-8")):
        found["CONTRIBUTING.md"].read(line.partition("  #")[0])
    return found


# ---- pytest ----------------------------------------------------------------------------------------------------------

COLLECT = """
import json, sys
from pathlib import Path
import pytest

class Counts:
    def __init__(self, selections):
        self.selections, self.skipped, self.counts = selections, [], []

    def pytest_collectreport(self, report):
        if report.skipped:  # a whole file: what it needs is not installed
            self.skipped.append(report.nodeid)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config, items):
        mark = config.pluginmanager.get_plugin("mark")  # -k is its option
        for paths, config.option.keyword in self.selections:
            chosen = [item for item in items if any(below(item.nodeid, path) for path in paths)]
            mark.pytest_collection_modifyitems(chosen, config)
            skipped = [node for node in self.skipped if any(below(node, path) for path in paths)]
            self.counts.append(len(chosen) + len(skipped))
        config.option.keyword = ""

def below(node, path):
    return node.startswith(path) and node[len(path) : len(path) + 1] in ("", "/", ":", "[")

counts = Counts(json.load(sys.stdin))
files = {path.partition("::")[0] for paths, _ in counts.selections for path in paths}
options = ["--collect-only", "-qq", "-p", "no:cacheprovider", *sorted(filter(lambda file: Path(file).exists(), files))]
assert pytest.main(options, plugins=[counts]) == 0
Path(sys.argv[1]).write_text(json.dumps(counts.counts), "utf-8")
"""


def collected(repository: Path, folder: Path, selections: list[tuple[tuple[str, ...], str]]) -> list[int]:
    """How many tests each selects: all are collected once, and pytest's own filter is asked for each."""
    counts = folder / "counts.json"
    done = subprocess.run(
        [sys.executable, "-c", COLLECT, counts],
        cwd=repository,
        env={**os.environ, "PYTHONSAFEPATH": "1"},
        input=json.dumps(selections),
        capture_output=True,
        text=True,
        check=False,
    )
    assert counts.exists(), done.stdout + done.stderr
    found: list[int] = json.loads(counts.read_text("utf-8"))
    return found


def test_every_selection_of_pytest_finds_a_test(repository: Path, tmp_path: Path, named: dict[str, Named]) -> None:
    selections = sorted({selection for selected in named.values() for selection in selected.pytest})
    assert len(selections) > 50 and all(named[suite].pytest for suite in accept.suites())
    wrong = [
        ((*selections[0][0],), "no_such_test"),
        (("tests/unit/build/test_selections.py::test_no_such",), ""),
        (("tests/unit/build/test_no_such.py",), ""),
    ]
    *counts, first, second, third = collected(repository, tmp_path, [*selections, *wrong])
    assert (first, second, third) == (0, 0, 0)
    unmatched = {selection for selection, count in zip(selections, counts, strict=True) if not count}
    assert not {place: selected.pytest & unmatched for place, selected in named.items() if selected.pytest & unmatched}


# ---- meson -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def introspected(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A build folder that is as new as its sources, and its introspection: that of the C tests, or one set up here."""
    build = repository / "build" / "c"
    rules = [
        *repository.glob("meson*"),
        *(p for f in ("libspeckv", "tests") for p in (repository / f).rglob("meson.*")),
    ]
    made = build / "meson-info" / "intro-tests.json"
    if not made.exists() or made.stat().st_mtime < max(path.stat().st_mtime for path in rules):
        build = tmp_path_factory.mktemp("meson") / "c"
        tools = Path(sys.executable).parent
        subprocess.run(
            [tools / "meson", "setup", build, repository, "-Dpython=disabled"],
            env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"},
            stdout=subprocess.DEVNULL,
            check=True,
        )
    return build, build / "meson-info"


def test_every_title_of_a_c_test_is_one(introspected: tuple[Path, Path], named: dict[str, Named]) -> None:
    titles = {test["name"] for test in json.loads((introspected[1] / "intro-tests.json").read_text("utf-8"))}
    assert len(titles) > 100 and len({title for selected in named.values() for title in selected.meson}) > 50
    assert not {place: selected.meson - titles for place, selected in named.items() if selected.meson - titles}


def test_every_program_of_a_build_is_made(introspected: tuple[Path, Path], named: dict[str, Named]) -> None:
    targets = json.loads((introspected[1] / "intro-targets.json").read_text("utf-8"))
    made = {str(Path(file).relative_to(introspected[0].resolve())) for target in targets for file in target["filename"]}
    assert named["card"].programs and named["trust"].programs and named["codec"].programs
    assert not {place: selected.programs - made for place, selected in named.items() if selected.programs - made}
