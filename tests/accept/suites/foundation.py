# SPDX-License-Identifier: MIT
"""The promises of the foundation: from a bare machine to a served trace."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from tests.accept.frame import Figure, NotMeasuredError, Outcome, Point, at_least, below, exactly

Measure = Callable[[Outcome], Figure]


# -- how figures are read


def counted(pattern: str, unit: str = "") -> Measure:
    """The number in the group of a regular expression."""
    return lambda outcome: Figure(float(outcome.find(pattern)[1].replace(",", "")), unit)


def said(pattern: str, unit: str = "times") -> Measure:
    """The number of matches in the output."""
    return lambda outcome: Figure(len(re.findall(pattern, outcome.output, re.MULTILINE)), unit)


def pytest_failures(outcome: Outcome) -> Figure:
    """Failures of a pytest run in which something ran; skips stand in the note."""
    last = outcome.find(r"^(?:=+ )?(\d+ (?:passed|failed|skipped|error|deselected).*) in [\d.]+s")[1]
    count = {word.rstrip("s"): int(number) for number, word in re.findall(r"(\d+) (\w+)", last)}
    if not count.get("passed", 0) + count.get("failed", 0):
        raise NotMeasuredError(f"no test ran: {last}")
    return Figure(count.get("failed", 0) + count.get("error", 0), "failed", last)


def meson_failures(outcome: Outcome) -> Figure:
    """Failures of a meson test run in which something ran; a skipped test is not a pass."""
    count = {
        key: int(n)
        for key, n in re.findall(r"^(Ok|Fail|Unexpected Pass|Skipped|Timeout):\s+(\d+)", outcome.output, re.M)
    }
    if not count.get("Ok", 0) + count.get("Fail", 0) + count.get("Timeout", 0):
        raise NotMeasuredError("skipped on this machine" if count.get("Skipped") else "no test ran")
    return Figure(
        sum(count.get(key, 0) for key in ("Fail", "Timeout", "Unexpected Pass")), "failed", f"{count['Ok']} ok"
    )


def bare_roots(outcome: Outcome) -> list[tuple[str, str]]:
    """Each root and how it ended: the last lines of `make test-bare`."""
    found = re.findall(r"^test-bare: (\w+ \w+): (passed|not tested: .*|make \w+ failed)$", outcome.output, re.M)
    if not found:
        raise NotMeasuredError(outcome.output.strip().splitlines()[-1] if outcome.output.strip() else "it said nothing")
    return [(root, how) for root, how in found]


def roots_passed(outcome: Outcome) -> Figure:
    roots = bare_roots(outcome)
    return Figure(sum(how == "passed" for _, how in roots), "roots", "; ".join(map(": ".join, roots)))


def roots_failed(outcome: Outcome) -> Figure:
    return Figure(sum("failed" in how for _, how in bare_roots(outcome)), "roots")


def table_seconds(outcome: Outcome) -> Figure:
    """Sum over the suites of the final table of `make test`."""
    rows = re.findall(r"^[\w/-]+ +\d+ +\d+ +\d+ +([\d.]+)$", outcome.stdout, re.M)
    if not rows:
        raise NotMeasuredError("no table of suites")
    return Figure(
        sum(map(float, rows)), "s", f"{len(rows)} suites; the command took {outcome.seconds:.0f} s with its set-up"
    )


def skips_without_reason(outcome: Outcome) -> Figure:
    """Skips without a reason, among those that the last line of `make test` counts."""
    skips = int(outcome.find(r"^\d+ passed, \d+ failed, (\d+) skipped$")[1])
    reasons = re.findall(r"^skipped: \S+: \S.*$", outcome.stdout, re.M)
    return Figure(skips - len(reasons), "skips", f"{skips} skipped")


def bench(name: str, unit: str) -> Measure:
    """A figure of the benchmark's JSON; not measured, with its reason, without one."""

    def measure(outcome: Outcome) -> Figure:
        if not outcome.stdout.strip():
            raise NotMeasuredError((outcome.stderr.strip().splitlines() or ["it said nothing"])[-1])
        document = json.loads(outcome.stdout)
        for figure in document["figures"]:
            if figure["name"] == name:
                rates = {f["name"]: f["value"] for f in document["figures"] if f["unit"] == "bytes/s"}
                sides = [s.strip() for s in figure["text"].split(":")] if figure["unit"] == "x" else []
                gigabytes = [f"{rates[f'{s}_bytes_per_s'] / 1e9:.2f}" for s in sides if f"{s}_bytes_per_s" in rates]
                return Figure(figure["value"], unit, f"{' : '.join(gigabytes)} GB/s" if gigabytes else "")
        reasons = "; ".join(f"{peer}: {why}" for peer, why in document["skipped"].items())
        raise NotMeasuredError(reasons or f"the benchmark has no figure {name}")

    return measure


# -- the commands

BARE = "make test-bare"
TEST = "make test"
BENCH = ".venv/bin/python tests/bench/run.py --json"
PYTEST = ".venv/bin/pytest -q"
TREE = f"{PYTEST} tests/cli/test_tree.py"


#: The build folder of the C tests, which `make test` may not have created yet.
C_BUILD = ".venv/bin/python .ci/test.py --build >&2"


def meson(test: str) -> str:
    return f"{C_BUILD} && .venv/bin/meson test -C build/c --no-rebuild -v {test!r}"


KILLS = meson("client 1,000 kills at random instants")
SCENARIO = meson("client made, filled by two, seen by a fourth, one killed, resized, checked, destroyed")
STEADY = meson("client steady state makes no system call and no allocation")

POINTS = [
    # a bare machine
    Point(
        "bare roots: `make demo` and `make test` are the only set-up",
        BARE,
        roots_passed,
        at_least(1),
        True,
        minutes=240,
    ),
    Point("bare roots: none of those that the mirror has fails", BARE, roots_failed, exactly(0), True, minutes=240),
    Point(
        "make test: nothing fails", TEST, counted(r"^\d+ passed, (\d+) failed", "failed"), exactly(0), True, minutes=60
    ),
    # The limit for the foundation alone was 10 minutes (399 s measured); for the whole project it is 30.
    Point("make test: under 30 minutes warm", TEST, table_seconds, below(1800), True, minutes=60),
    Point("make test: every skip has its reason", TEST, skips_without_reason, exactly(0), True, minutes=60),
    Point("make demo: ends with a summary", "make demo", said("^What to type next"), exactly(1)),
    Point("make demo: safe to run twice", "make demo && make demo", said("^What to type next"), exactly(2)),
    # nothing lost, nothing wrong
    Point(
        "one pool, made, filled by two at once, seen as tenants by a fourth, one killed, resized, checked, destroyed",
        SCENARIO,
        meson_failures,
        exactly(0),
    ),
    Point(
        "SIGKILLs at random instants",
        KILLS,
        counted(r"([\d,]+) kills: nothing", "kills"),
        at_least(1000),
        True,
        minutes=30,
    ),
    Point("... without a lost block", KILLS, said("kills: .*nothing lost", "time said"), exactly(1), True, minutes=30),
    Point("... without a wrong byte", KILLS, said("kills: .*nothing wrong", "time said"), exactly(1), True, minutes=30),
    Point(
        "... without a leaked page", KILLS, said("kills: .*nothing leaked", "time said"), exactly(1), True, minutes=30
    ),
    # the command tree
    Point(
        "command tree: equals the design's built verbs",
        f"{TREE} -k 'test_the_tree or every_verb_has'",
        pytest_failures,
        exactly(0),
    ),
    Point(
        "command tree: JSON of every verb valid against its schema",
        f"{TREE} -k 'json or schema'",
        pytest_failures,
        exactly(0),
    ),
    Point("command tree: exit codes", f"{TREE} -k 'exit_code'", pytest_failures, exactly(0)),
    Point("command tree: every example in a help works", f"{TREE} -k 'example'", pytest_failures, exactly(0)),
    Point(
        "bad input: one line, its own exit code, nothing changed",
        f"{PYTEST} tests/cli/test_errors.py",
        pytest_failures,
        exactly(0),
    ),
    Point(
        "speckvctl --help: CPU time, warm",
        ".venv/bin/python tests/accept/cpu_time.py 20 .venv/bin/speckvctl --help",
        counted(r"median CPU time of 20 runs: ([\d.]+) ms", "ms"),
        below(150),
    ),
    Point(
        "speckvctl --help: the list of imports is pinned",
        f"{PYTEST} tests/cli/test_help.py -k imports",
        pytest_failures,
        exactly(0),
    ),
    # speed
    Point("get of 64 KiB raw blocks with CRC, of memcpy", BENCH, bench("get_vs_memcpy", "x"), at_least(0.8)),
    Point("batched look-ups, one core", BENCH, bench("speckv_lookup_keys_per_s", "keys/s"), at_least(3e6)),
    Point("steady state: no system call and no heap allocation", STEADY, meson_failures, exactly(0)),
    # 10x is expected where the server has a core of its own; it hangs on how fast the machine's memory is beside its
    # system calls (12.9x, 12.6x and 9.0x on three EPYCs). On one core memcpy itself is at 7x to 11x.
    Point(
        "get, of Redis on a Unix socket: C, pipelined, all on one core",
        BENCH,
        bench("get_vs_redis_one_core", "x"),
        None,
    ),
    Point("... what memcpy itself reaches there", BENCH, bench("memcpy_vs_redis_one_core", "x"), None),
    Point("... C, pipelined, a second core for the server", BENCH, bench("get_vs_redis_two_cores", "x"), at_least(10)),
    Point("... Python, redis-py with hiredis", BENCH, bench("python_get_vs_redis_py", "x"), None),
    Point("... Python, redis-py as pip installs it", BENCH, bench("python_get_vs_plain_redis_py", "x"), None),
    Point(
        "get in Python, of LMCache's local CPU backend", BENCH, bench("python_get_vs_lmcache", "x"), None, optional=True
    ),
    # parity
    Point("parity: C API, allocator, Python, parameters", f"{PYTEST} tests/parity", pytest_failures, exactly(0)),
]
