# SPDX-License-Identifier: MIT
"""Run the suites and print one table: what ran, what was skipped and why, how long it took.

Usage: .venv/bin/python .ci/test.py [SUITE ...]     suites: --list; none named: all but `soak`
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = ROOT / ".venv" / "bin"
BUILD = ROOT / "build"
CI = os.environ.get("CI") == "true"
#: Parallel tests: many wait for clocks and other processes and leave a core idle.
WORKERS = os.environ.get("SPECKV_TEST_WORKERS") or str(2 * len(os.sched_getaffinity(0)))
# What runs once more with an emulated card in the place of memory: every pool, block, replay and CLI test, the examples
# of the help among them. Not cli/test_discovery.py and cli/test_manual.py: they look at a machine's hardware and at
# texts, and at no device.
ON_CARD = (
    "parity",
    "unit/python",
    "unit/replay/test_replay.py",
    *(f"cli/test_{name}.py" for name in ("errors", "events", "help", "listing", "tree")),
)
NOT_SUITES = {"accept", "bench", "vectors"}  # run by make accept and make bench; data


@dataclass
class Result:
    """Results of a suite."""

    passed: int = 0
    failures: list[str] = field(default_factory=list)
    skips: list[str] = field(default_factory=list)
    why: dict[str, list[str]] = field(default_factory=dict)  # of a failed test, the last lines of its output
    seconds: float = 0.0

    def missing(self, tool: str) -> None:
        """A missing tool: an error in CI, elsewhere a skip that names it."""
        (self.failures if CI else self.skips).append(f"{tool} is not installed")


def run(command: Sequence[object], *, env: dict[str, str] | None = None, minutes: int = 90) -> int:
    """Run a command on this terminal; its exit status, or 124 when it hung."""
    words = [str(c) for c in command]
    process = subprocess.Popen(words, cwd=ROOT, env={**os.environ, **(env or {})}, process_group=0)
    try:
        return process.wait(minutes * 60)
    except BaseException as error:
        os.killpg(process.pid, 9)
        process.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            return 124
        raise


def build(folder: Path, options: Sequence[str]) -> str | None:
    """Set up and compile a build folder; silent on success, returns the failure otherwise."""
    # tests/meson.build globs folders: meson itself would not notice a new one.
    plan = " ".join([*options, *sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("tests/**/meson.build"))])
    stamp = folder / "plan"
    setup: list[object] = [BIN / "meson", "setup", "--wipe", folder, "-Dpython=disabled", *options]
    steps: dict[str, list[object]] = {"meson compile": [BIN / "meson", "compile", "-C", folder]}
    if not stamp.exists() or stamp.read_text() != plan:
        steps = {"meson setup": setup, **steps}
        folder.mkdir(parents=True, exist_ok=True)
    for name, command in steps.items():
        words = [str(c) for c in command]
        done = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode:
            print(done.stdout, flush=True)
            return f"{name} failed"
        stamp.write_text(plan)
    return None


def read_junit(path: Path, status: int, result: Result) -> None:
    """Add the cases of a JUnit file; a failing run without a failing case is a failure too."""
    cases = list(ET.parse(path).getroot().iter("testcase")) if path.exists() else []
    for case in cases:
        name = f"{case.get('classname', '')}.{case.get('name', '')}".strip(".")
        skip, bad = case.find("skipped"), [*case.iter("failure"), *case.iter("error")]
        if bad:
            result.failures.append(name)
            output = [e.text or "" for e in (*bad, *case.iter("system-out"), *case.iter("system-err"))]
            result.why[name] = "\n".join(output).strip().splitlines()[-12:]
        elif skip is not None:
            output = (case.findtext("system-out") or "").strip().splitlines()
            reason = skip.get("message") or (output[-1] if output else "no reason given")
            optional = "torch" in reason  # omitted by .ci/setup if there is no CPU build
            missing = CI and "is not installed" in reason and not optional
            (result.failures if missing else result.skips).append(f"{name}: {reason}")
        else:
            result.passed += 1
    if status and not result.failures:
        result.failures.append(f"exit status {status}" if cases else f"did not run: exit status {status}")
    if not status and not cases:
        result.failures.append("no test was found")


def meson_suite(name: str, options: Sequence[str], tests: Sequence[str], minutes: int = 90) -> Callable[[Result], None]:
    """C tests in a build folder of their own."""

    def go(result: Result) -> None:
        folder = BUILD / name
        if failure := build(folder, options):
            result.failures.append(failure)
            return
        log = folder / "meson-logs" / "junit.junit.xml"
        log.unlink(missing_ok=True)
        # ThreadSanitizer needs a fixed address-space layout, without randomization.
        still = ["setarch", "--addr-no-randomize"] if name == "c-tsan" else []
        if still and subprocess.run([*still, "true"], check=False).returncode:
            still = []
        environment = {
            "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=1:detect_stack_use_after_return=1",
            "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
            "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
        }
        command = [*still, BIN / "meson", "test", "-C", folder, "--logbase", "junit", "--print-errorlogs"]
        command += ["--num-processes", WORKERS, *tests]
        read_junit(log, run(command, env=environment, minutes=minutes), result)

    return go


def pytest_suite(folder: str, *files: str, on_card: bool = False) -> Callable[[Result], None]:
    """A folder below tests/, or rtl/, or some files: the installed package; on an emulated card instead of memory."""

    def go(result: Result) -> None:
        log = BUILD / "junit" / f"{folder.replace('/', '-')}.xml"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.unlink(missing_ok=True)
        # PYTHONSAFEPATH: test the installed package, not the one in this folder.
        # loadfile: the tests of a file may share state and stay together.
        command = [
            BIN / "pytest",
            "-q",
            f"--numprocesses={WORKERS}",
            "--dist=loadfile",
            f"--junit-xml={log}",
            *([f"tests/{name}" for name in files] or ["rtl" if folder == "rtl" else f"tests/{folder}"]),
        ]
        card = {"SPECKV_TEST_EMULATOR": str(BIN / "speckv-emu")} if on_card else {}
        read_junit(log, run(command, env={"PYTHONSAFEPATH": "1", **card}), result)

    return go


def tidy(result: Result) -> None:
    """clang-tidy on every source of the library."""
    tool, database = BIN / "clang-tidy", BUILD / "c" / "compile_commands.json"
    if not tool.exists():
        return result.missing("clang-tidy")
    if failure := build(database.parent, []):
        return result.failures.append(f"clang-tidy: {failure}")
    entries = json.loads(database.read_text())
    files = sorted({os.path.normpath(Path(e["directory"]) / e["file"]) for e in entries})
    files = [f for f in files if Path(f).is_relative_to(ROOT / "libspeckv")]

    # A source is checked again if it, a header, the configuration or the tool changed.
    headers = sorted(p for f in ("libspeckv", "kmod/include", "rtl/regs") for p in (ROOT / f).rglob("*.h"))
    surroundings = b"".join(p.read_bytes() for p in [ROOT / ".ci" / "clang-tidy", ROOT / "pyproject.toml", *headers])
    (BUILD / "tidy").mkdir(exist_ok=True)

    def check(file: str) -> tuple[str, str]:
        clean = BUILD / "tidy" / hashlib.sha256(surroundings + file.encode() + Path(file).read_bytes()).hexdigest()
        if clean.exists():
            return file, ""
        config = f"--config-file={ROOT / '.ci' / 'clang-tidy'}"
        command = [tool, "--quiet", config, "--extra-arg=-Wno-unknown-warning-option", "-p", database.parent, file]
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True, cwd=ROOT, check=False)
        if done.returncode:
            return file, done.stdout + done.stderr or "no output"
        clean.touch()
        return file, ""

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for file, findings in pool.map(check, files):
            if findings:
                print(findings, flush=True)
                result.failures.append(f"clang-tidy {os.path.relpath(file, ROOT)}")
            else:
                result.passed += 1


def c_sources() -> list[Path]:
    """Every source and header in C. .clang-format-ignore names those that are generated."""
    return sorted(p for f in ("libspeckv", "kmod", "tests") for e in ("c", "h") for p in (ROOT / f).rglob(f"*.{e}"))


def lint(result: Result) -> None:
    """Formatters, type checker, static analysis; each check or file counts as one test."""
    checks: dict[str, list[str | Path]] = {
        "ruff check": [BIN / "ruff", "check", "-q", "."],
        "ruff format": [BIN / "ruff", "format", "-q", "--check", "."],
        "mypy": [BIN / "mypy"],
        "clang-format": [BIN / "clang-format", "--dry-run", "-Werror", *c_sources()],
    }
    if (ROOT / ".git").exists():
        checks["commits"] = [Path(sys.executable), ".ci/commits.py"]
    for name, command in checks.items():
        if not Path(command[0]).exists():
            result.missing(name)
        elif run(command):
            result.failures.append(name)
        else:
            result.passed += 1
    tidy(result)


def suites() -> dict[str, Callable[[Result], None]]:
    """Every suite by name, in the order they run."""
    folders = {
        "/".join(p.relative_to(ROOT / "tests").parts[: 2 if p.is_relative_to(ROOT / "tests" / "unit") else 1])
        for p in (ROOT / "tests").rglob("test_*.py")
    }
    plain = ["--no-suite", "soak"]
    sanitize = ["-Db_lundef=false", "--timeout-multiplier=5"]
    return {
        "lint": lint,
        "c": meson_suite("c", [], plain),
        "c-asan": meson_suite("c-asan", ["-Db_sanitize=address,undefined", sanitize[0]], [*plain, sanitize[1]]),
        "c-tsan": meson_suite(
            "c-tsan",
            ["-Db_sanitize=thread", "-Dc_args=-Wno-tsan", sanitize[0]],
            [*plain, "--no-suite", "no-tsan", sanitize[1]],
        ),
        **{f: pytest_suite(f) for f in sorted(folders) if f.split("/")[0] not in NOT_SUITES},
        "rtl": pytest_suite("rtl"),
        "on-card": pytest_suite("on-card", *ON_CARD, on_card=True),
        "soak": meson_suite("c", [], ["--suite", "soak", "--timeout-multiplier=0"], minutes=240),
    }


def table(results: dict[str, Result]) -> None:
    """Print the table of results; its last line is for scripts."""
    width = max(map(len, results), default=0) + 2
    print(f"\n{'suite':<{width}}{'passed':>8}{'failed':>8}{'skipped':>9}{'seconds':>10}")
    for name, r in results.items():
        print(f"{name:<{width}}{r.passed:>8}{len(r.failures):>8}{len(r.skips):>9}{r.seconds:>10.1f}")
    for title, lines in (
        ("skipped", [f"{n}: {s}" for n, r in results.items() for s in r.skips]),
        ("failed", [f"{n}: {f}" for n, r in results.items() for f in r.failures]),
    ):
        for line in lines:
            print(f"{title}: {' '.join(line.split())}")
    for name, why in ((n, w) for r in results.values() for n, w in r.why.items()):
        print(f"why: {name}:", *why, sep="\n    ")  # again, as a log may be cut in its middle
    passed = sum(r.passed for r in results.values())
    failed, skipped = sum(len(r.failures) for r in results.values()), sum(len(r.skips) for r in results.values())
    print(f"{passed} passed, {failed} failed, {skipped} skipped")


def main() -> int:
    known = suites()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("suite", nargs="*", help="none: all but soak")
    parser.add_argument("--list", action="store_true", help="name the suites and stop")
    parser.add_argument("--build", action="store_true", help="build the C tests and stop")
    arguments = parser.parse_args()
    os.environ["PATH"] = f"{BIN}:{os.environ['PATH']}"  # ninja for meson; speckvctl for tests
    if arguments.build:
        why = build(ROOT / "build" / "c", [])
        print(why or "build/c is built")
        return int(why is not None)
    if arguments.list:
        print("\n".join(known))
        return 0
    names: list[str] = arguments.suite or [n for n in known if n != "soak"]
    if unknown := [n for n in names if n not in known]:
        parser.error(f"no suite {', '.join(unknown)}; there are: {', '.join(known)}")
    results: dict[str, Result] = {}
    shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="speckv-test-", dir=shm) as runtime:
        os.environ["SPECKV_RUNTIME_DIR"] = runtime  # for C tests that do not create one
        for name in names:
            print(f"\n== {name}", flush=True)
            results[name], start = Result(), time.monotonic()
            known[name](results[name])
            results[name].seconds = time.monotonic() - start
    table(results)
    return int(any(r.failures for r in results.values()))


if __name__ == "__main__":
    sys.exit(main())
