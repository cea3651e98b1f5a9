# SPDX-License-Identifier: MIT
"""Mutation tests: apply one patch at a time to a copy of the source, and check that the named tests fail.

usage: python tests/mutation/run.py [--only REGEX] [--list] [--json FILE] [--keep FOLDER]     (`make mutation` for all)

patches/SUBSYSTEM.toml have the patches: a file, the text to replace (`old`, which must occur exactly once), the new
text, and the tests that must fail: of meson by their names, of pytest by their ids. A patch is a promise that the
property is tested, not that its line is the only one for it. The copy is built once; then each patch is applied, built,
tested and reverted. Exit code 0 only if every patch is killed: a patch that does not apply or does not compile is an
error.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
PATCHES = Path(__file__).with_name("patches")
PATIENCE = 10  # timeout: multiple of the unpatched test's time, and minimum
LEAST_SECONDS = 120.0
BASELINE_SECONDS = 900.0
BUILD_SECONDS = 1800.0


@dataclass(frozen=True)
class Patch:
    name: str
    file: str
    old: str
    new: str
    meson: tuple[str, ...] = ()
    pytest: tuple[str, ...] = ()

    @property
    def part(self) -> str:
        pieces = Path(self.file).parts
        return pieces[1] if pieces[0] == "libspeckv" else pieces[0]


@dataclass
class Outcome:
    name: str
    file: str
    verdict: str  # killed, survived, stale, not built
    by: str = ""
    seconds: float = 0.0


@dataclass
class Tree:
    """The copy and its builds."""

    root: Path
    targets: dict[str, list[str]] = field(default_factory=dict)  # of a meson test: what ninja builds for it
    baseline: dict[str, float] = field(default_factory=dict)  # seconds of each test, unpatched

    @property
    def build(self) -> Path:
        return self.root / "build" / "c"

    @property
    def overlay(self) -> Path:
        return self.root / "overlay"


# ---- patches ---------------------------------------------------------------------------------------------------------


def read_patches(folder: Path) -> list[Patch]:
    """The patches of every file of a folder, in the order of their names."""
    patches: dict[str, Patch] = {}
    for path in sorted(folder.glob("*.toml")):
        for entry in tomllib.loads(path.read_text("utf-8"))["patch"]:
            patch = Patch(
                name=entry["name"],
                file=entry["file"],
                old=entry["old"],
                new=entry["new"],
                meson=tuple(entry.get("meson", ())),
                pytest=tuple(entry.get("pytest", ())),
            )
            if patch.name in patches:
                raise SystemExit(f"{path}: two patches are named '{patch.name}'")
            if not (patch.meson or patch.pytest) or patch.old == patch.new:
                raise SystemExit(f"{path}: '{patch.name}' changes nothing, or names no test")
            if patch.part != path.stem:
                raise SystemExit(f"{path}: '{patch.name}' belongs into {patch.part}.toml")
            patches[patch.name] = patch
    return list(patches.values())


def problem_of(patch: Patch, root: Path) -> str | None:
    """Why a patch cannot be applied. None: it can."""
    path = root / patch.file
    if not path.is_file():
        return "its file is not there"
    count = path.read_text("utf-8").count(patch.old)
    return None if count == 1 else f"its text stands there {count} times"


# ---- the copy --------------------------------------------------------------------------------------------------------


def copy_tree(to: Path) -> None:
    """Copy the tracked and the new files of the working tree."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.decode().split("\0")
    for name in filter(None, names):
        source = ROOT / name
        if not source.is_file():  # removed, and not committed yet
            continue
        target = to / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)


def run(command: Sequence[object], cwd: Path, seconds: float, env: dict[str, str] | None = None) -> tuple[int, str]:
    """Run a command in a process group that ends with it; exit code (-1: timeout) and output."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        with subprocess.Popen(
            [str(word) for word in command],
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process:
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                code = -1
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        output.seek(0)
        return code, output.read()


def environment(tree: Tree) -> dict[str, str]:
    env = dict(os.environ, PATH=f"{BIN}:{os.environ['PATH']}", CCACHE_BASEDIR=str(tree.root), CCACHE_NOHASHDIR="1")
    env["PYTHONSAFEPATH"] = "1"
    env["PYTHONPATH"] = str(tree.overlay)
    env["SPECKV_RUNTIME_DIR"] = str(tree.root / "runtime")
    return env


def build_tree(tree: Tree, patches: Sequence[Patch]) -> None:
    """Configure and build the targets of the patches' tests once."""
    wanted = {name for patch in patches for name in patch.meson}
    if wanted:
        command = [BIN / "meson", "setup", tree.build, tree.root, "-Dpython=disabled", "-Dwerror=false"]
        code, text = run(command, tree.root, BUILD_SECONDS, environment(tree))
        if code:
            raise SystemExit(f"{text[-4000:]}\nmutation: meson setup failed")
        tree.targets = targets_of(tree)
        unknown = sorted(wanted - tree.targets.keys())
        if unknown:
            raise SystemExit(f"mutation: no test is named {unknown[0]!r}")
        code, text = ninja(tree, sorted({target for name in wanted for target in tree.targets[name]}))
        if code:
            raise SystemExit(f"{text[-4000:]}\nmutation: the unbroken tree does not build")
    if any(patch.pytest for patch in patches):
        lay_over(tree)


def targets_of(tree: Tree) -> dict[str, list[str]]:
    info = tree.build / "meson-info"
    files = {
        target["id"]: [str(Path(name).relative_to(tree.build)) for name in target["filename"]]
        for target in json.loads((info / "intro-targets.json").read_text())
    }
    return {
        test["name"]: [name for target in test["depends"] for name in files[target]]
        for test in json.loads((info / "intro-tests.json").read_text())
    }


def ninja(tree: Tree, targets: Sequence[str]) -> tuple[int, str]:
    return run([BIN / "ninja", "-C", tree.build, *targets], tree.root, BUILD_SECONDS, environment(tree))


def lay_over(tree: Tree) -> None:
    """The installed packages once more, with the copy's Python over them: found before the installed ones."""
    site = Path(subprocess.run(
        [sys.executable, "-P", "-c", "import speckv; print(speckv.__file__)"], stdout=subprocess.PIPE, check=True
    ).stdout.decode().strip()).parents[1]  # fmt: skip
    tree.overlay.mkdir()
    for name in ("speckv", ".speckv.mesonpy.libs", "speckvctl"):
        if (site / name).is_dir():
            shutil.copytree(site / name, tree.overlay / name, ignore=shutil.ignore_patterns("__pycache__"))
    for package, source in (("speckv", tree.root / "libspeckv/python/speckv"), ("speckvctl", tree.root / "speckvctl")):
        for path in source.rglob("*.py"):
            target = tree.overlay / package / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            target.symlink_to(path)


# ---- tests -----------------------------------------------------------------------------------------------------------


def meson_test(tree: Tree, name: str, seconds: float) -> tuple[int, str]:
    options = ["--no-rebuild", "--print-errorlogs", "--timeout-multiplier", "10"]
    command = [BIN / "meson", "test", "-C", tree.build, *options, name]
    return run(command, tree.root, seconds, environment(tree))


def pytest(tree: Tree, name: str, seconds: float) -> tuple[int, str]:
    command = [BIN / "pytest", "-q", "-x", "-p", "no:cacheprovider", *name.split()]
    return run(command, tree.root, seconds, environment(tree))


def tests_of(patch: Patch) -> list[tuple[str, Callable[[Tree, str, float], tuple[int, str]]]]:
    return [*((name, meson_test) for name in patch.meson), *((name, pytest) for name in patch.pytest)]


def check_unbroken(tree: Tree, patches: Sequence[Patch]) -> None:
    """Check that the tests pass unpatched: a failing test would kill every patch."""
    for patch in patches:
        for name, test in tests_of(patch):
            if name in tree.baseline:
                continue
            start = time.monotonic()
            code, text = test(tree, name, BASELINE_SECONDS)
            if code:
                raise SystemExit(f"{text[-6000:]}\nmutation: {name!r} fails in the unbroken tree (exit code {code})")
            tree.baseline[name] = time.monotonic() - start
            print(f"  {tree.baseline[name]:7.1f} s  {name}", flush=True)


def try_patch(tree: Tree, patch: Patch) -> Outcome:
    problem = problem_of(patch, tree.root)
    if problem:
        return Outcome(patch.name, patch.file, "stale", problem)
    path = tree.root / patch.file
    whole = path.read_text("utf-8")
    start = time.monotonic()
    try:
        path.write_text(whole.replace(patch.old, patch.new), "utf-8")
        outcome = judge(tree, patch)
    finally:
        path.write_text(whole, "utf-8")
    outcome.seconds = round(time.monotonic() - start, 1)
    return outcome


def judge(tree: Tree, patch: Patch) -> Outcome:
    if patch.meson:
        code, text = ninja(tree, sorted({target for name in patch.meson for target in tree.targets[name]}))
        if code:
            return Outcome(patch.name, patch.file, "not built", text[-1500:])
    for name, test in tests_of(patch):
        seconds = max(LEAST_SECONDS, PATIENCE * tree.baseline[name])
        code, text = test(tree, name, seconds)
        if test is pytest and code not in (0, 1, -1):
            return Outcome(patch.name, patch.file, "not built", text[-1500:])
        if code:
            return Outcome(patch.name, patch.file, "killed", name + (" (took too long)" if code == -1 else ""))
    return Outcome(patch.name, patch.file, "survived", ", ".join(name for name, _ in tests_of(patch)))


# ---- report ----------------------------------------------------------------------------------------------------------


def table(outcomes: Sequence[Outcome]) -> None:
    width = max(len(outcome.name) for outcome in outcomes)
    for outcome in outcomes:
        reason = outcome.by.strip().splitlines()[-1] if outcome.by.strip() else ""
        print(f"{outcome.verdict:9}  {outcome.name:{width}}  {outcome.seconds:7.1f} s  {reason}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="REGEX", default="", help="patches whose name or file it is found in")
    parser.add_argument("--list", action="store_true", help="say which patches there are and whether they apply")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the outcomes there too")
    parser.add_argument("--keep", metavar="FOLDER", type=Path, help="make the copy there, and leave it")
    options = parser.parse_args()
    patches = read_patches(PATCHES)
    patches = [p for p in patches if re.search(options.only, p.name) or re.search(options.only, p.file)]
    if not patches:
        raise SystemExit(f"mutation: no patch matches {options.only!r}")
    if options.list:
        problems = {patch.name: problem_of(patch, ROOT) for patch in patches}
        for patch in patches:
            print(f"{patch.part:10}  {patch.name}" + (f": {problems[patch.name]}" if problems[patch.name] else ""))
        print(f"{len(patches)} patches, {sum(map(bool, problems.values()))} of them stale")
        return 1 if any(problems.values()) else 0
    folder = options.keep or Path(tempfile.mkdtemp(prefix="speckv-mutation-"))
    folder.mkdir(parents=True, exist_ok=True)
    tree = Tree(folder / "tree")
    try:
        shutil.rmtree(tree.root, ignore_errors=True)
        copy_tree(tree.root)
        (tree.root / "runtime").mkdir(mode=0o700)
        print(f"mutation: building {folder}", flush=True)
        build_tree(tree, patches)
        print("mutation: the tests, unbroken", flush=True)
        check_unbroken(tree, patches)
        outcomes = []
        for number, patch in enumerate(patches, 1):
            outcome = try_patch(tree, patch)
            outcomes.append(outcome)
            place = f"{number:3} of {len(patches)}"
            print(f"{place}  {outcome.verdict:9}  {outcome.seconds:6.1f} s  {patch.name}", flush=True)
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    killed = sum(outcome.verdict == "killed" for outcome in outcomes)
    print()
    table(outcomes)
    print(f"\n{killed} of {len(outcomes)} killed")
    if options.json:
        options.json.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=2) + "\n")
    return 0 if killed == len(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
