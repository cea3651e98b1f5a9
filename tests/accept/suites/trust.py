# SPDX-License-Identifier: MIT
"""Promises on trust, loss and reporting: under hostile peers, faults, threads, forks, clock changes, odd terminals."""

from __future__ import annotations

import re

from tests.accept.frame import Figure, NotMeasuredError, Outcome, Point, at_least, below, exactly
from tests.accept.suites.foundation import C_BUILD, PYTEST, counted, meson_failures, pytest_failures, said

#: The baseline commit for comparisons of speed.
BASELINE = "675964f"


def tests(*names: str) -> str:
    """Some C tests by name, in one run."""
    return f"{C_BUILD} && .venv/bin/meson test -C build/c --no-rebuild " + " ".join(f"{name!r}" for name in names)


def client(*titles: str) -> str:
    return tests(*(f"client {title}" for title in titles))


def slowest(outcome: Outcome) -> Figure:
    """The slowest figure of a comparison with another commit."""
    rows = re.findall(r"^(\w+) +([\d.]+)   rounds ([\d.]+) to ([\d.]+)$", outcome.stdout, re.M)
    if not rows:
        raise NotMeasuredError("no row of a figure")
    name, ratio, low, high = min(rows, key=lambda row: float(row[1]))
    return Figure(float(ratio), "x", f"{name}, rounds {low} to {high}")


def of_lru(outcome: Outcome, only: str = "") -> Figure:
    """The lowest hit share of a pool over that of exact LRU, in the rows of tests/bench/eviction.py."""
    rows = re.findall(r"^(.+?) +[\d.]+ +[\d,]+ +[\d,]+ +([\d.]+)% +([\d.]+)%$", outcome.stdout, re.M)
    shares = [(float(pool) / max(float(lru), 0.1), name) for name, lru, pool in rows if only in name]
    if not shares:
        raise NotMeasuredError("no row of a trace")
    ratio, name = min(shares)
    return Figure(ratio, "x", f"{name}; {len(shares)} rows")


def not_killed(outcome: Outcome) -> Figure:
    """Patches of `make mutation` that no test caught, or that do not apply."""
    found = outcome.find(r"^(\d+) of (\d+) killed")
    return Figure(int(found[2]) - int(found[1]), "patches")


def not_handled(outcome: Outcome) -> Figure:
    """Programs that still show a fault: exit code 0 is handled, 77 cannot run on this machine."""
    ends = dict(re.findall(r"^(F\d+)\S* ended (\d+)$", outcome.stdout, re.M))
    if not ends:
        raise NotMeasuredError("the programs are not there")
    standing = [name for name, status in ends.items() if status not in ("0", "77")]
    untried = sum(status == "77" for status in ends.values())
    if untried == len(ends):
        raise NotMeasuredError("no program can be tried on this machine")
    return Figure(len(standing), "programs", " ".join(standing) or f"of {len(ends)}, {untried} not tried here")


def c(text: str, command: str, slow: bool = False, minutes: int = 30) -> Point:
    return Point(text, command, meson_failures, exactly(0), slow, minutes=minutes)


def py(text: str, selection: str, slow: bool = False, minutes: int = 30) -> Point:
    return Point(text, f"{PYTEST} {selection}", pytest_failures, exactly(0), slow, minutes=minutes)


TORTURE = "build/c/tests/unit/client/client_torture"
EMULATOR = "env SPECKV_TEST_EMULATOR=build/c/libspeckv/emulator/speckv-emu"
HOSTILE = f"{C_BUILD} && build/c/tests/unit/emulator/hostile_peers build/c/libspeckv/emulator/speckv-emu 10"
EVICTION = ".venv/bin/python tests/bench/eviction.py $(ls ../shared/data/traces/*.[gx]z 2>/dev/null)"
CUTS = f"{C_BUILD} && build/c/tests/card/test_card_flash_cuts 1000"
POWER = f"{C_BUILD} && build/c/tests/unit/client/client_powerloss 40"
MIXED = f"{C_BUILD} && {TORTURE} 1000 0 mixed"
CARD_KILLS = f"{C_BUILD} && for i in $(seq 10); do {EMULATOR} {TORTURE} 1000 || exit 1; done"
CARD_KILLS_AT_ONCE = (
    f"{C_BUILD} && for i in $(seq 10); do for j in 1 2 3; do {EMULATOR} {TORTURE} 1000 & p[j]=$!; done; "
    "for j in 1 2 3; do wait ${p[j]} || exit 1; done; done"
)
#: External programs, each of which provokes a fault and exits with 0 if it is handled.
FIELD = (
    "t=$(mktemp -d); mkdir $t/field; cp -r ../shared/repro/field/. $t/field/; cp $t/field/lib.sh $t/; "
    "for f in $t/field/F*.sh; do SPECKVCTL=$PWD/.venv/bin/speckvctl timeout 300 bash $f >/dev/null 2>&1; "
    'echo "$(basename $f) ended $?"; done; rm -rf $t'
)
AGAINST = f".venv/bin/python tests/bench/against.py {BASELINE}"

POINTS = [
    # A. Trust and isolation
    c(
        "A1 folders, tables, files and links of another user are refused, on every path",
        client(
            "what another user made or can change is refused and not touched",
            "a pool is for its owner and its group, also while it changes hands",
        ),
    ),
    py("A1 ... by privileged commands too, and doctor says the same", "tests/cli/test_trust.py"),
    py("A2 ... nor of a card", "tests/cli/test_trust.py -k locks"),
    py("A1 ... a link of another user in a folder for all is not followed", "tests/unit/files/test_files.py"),
    c(
        "A2 no lock or table can be held by those who may not write",
        client(
            "what another user can hold stops no manager",
            "a writer of a table directs no manager",
            "one manager at a time, dead ones are finished, handles end at fork",
        ),
    ),
    c(
        "A3 one peer of a card stops no other: 64 hostile peers of every kind",
        tests("emulator hostile", "emulator beside 64 hostile peers, nothing of a client fails"),
    ),
    Point(
        "A3 ... p99 of a good client beside them, of its own alone",
        HOSTILE,
        counted(r"p99 ratio ([\d.]+)", "x"),
        below(10),
    ),
    Point("A3 ... calls of the good client that failed", HOSTILE, counted(r"failed (\d+)", "failed"), exactly(0)),
    c(
        "A4 nothing boots below the security version: activate, rollback, golden, resume, boot",
        tests("card flash", "card flash boots", "card flash cuts"),
    ),
    py(
        "A4 ... from the command line, with pools named that go out of service",
        "tests/cli/test_flash.py -k 'security_version or going_back or rollback_and_golden'",
    ),
    # B. Loss
    c(
        "B1 a refused call has changed nothing, and dry runs are refused alike",
        client("a refused call has changed nothing, and dry runs are refused alike"),
    ),
    py("B1 ... and end with the exit code of the real run", "tests/cli/test_dry_runs.py"),
    c(
        "B2 a handle that outlived what it names is stale, and removes nothing",
        client(
            "what another user made or can change is refused and not touched",
            "a handle acts on what it opened, never on what has its name by now",
        ),
    ),
    c(
        "B3 an unknown boot is not another one; a rebuild keeps tenants; a check changes no byte",
        client(
            "an index is rebuilt where no client lives and none closed the pool, and keeps tenants",
            "after another boot the index is rebuilt from sound frames",
        ),
    ),
    c(
        "B4 what did not reach its medium was not done, and is said",
        client("what did not reach its medium was not done, and is said"),
    ),
    Point(
        "B4 power-loss states replayed",
        POWER,
        counted(r"([\d,]+) power-loss states", "states"),
        at_least(5000),
        True,
        minutes=60,
    ),
    Point("B4 ... nothing acknowledged lost", POWER, said("power-loss states: nothing"), exactly(1), True, minutes=60),
    c(
        "B5 files that vanish or shrink are noticed, and nothing left is overwritten",
        client("a file that goes or shrinks under its clients ends calls, not processes"),
    ),
    py("B6 space is reserved before it is promised: full tmpfs, limits, read-only", "tests/cli/test_space.py"),
    c("B6 ... by a card", tests("card backing")),
    c(
        "B7 a dead manager cripples no client",
        client(
            "one manager at a time, dead ones are finished, handles end at fork",
            "a manager dies before a call of its, and clients go on",
        ),
    ),
    c(
        "B8 threads and forks: handles are safe in use, in children, in finalizers",
        client(
            "a child of a busy process ends what it inherits, and changes no other process's state",
            "threads and processes at the same keys read right bytes",
        ),
    ),
    py("B8 ... in Python", "tests/unit/python/test_threads.py"),
    c(
        "B9 no order or interval comes from the wall clock",
        tests("client the ends of chains go first, in an order that no clock turns", "emulator clock"),
    ),
    Point("B10 a chain longer than its pool, of LRU", EVICTION, lambda o: of_lru(o, "a chain"), at_least(2), True),
    Point("B10 no trace serves less per byte than LRU", EVICTION, of_lru, at_least(0.99), True, minutes=60),
    Point(
        "B11 a card under kills of its clients: runs of 1,000 alone",
        CARD_KILLS,
        said(r"\d+ kills: nothing lost", "runs"),
        at_least(10),
        True,
        minutes=120,
    ),
    Point(
        "B11 ... three at a time",
        CARD_KILLS_AT_ONCE,
        said(r"\d+ kills: nothing lost", "runs"),
        at_least(30),
        True,
        minutes=240,
    ),
    # C. Truth on the screen
    c(
        "C1 one hit share: each wanted block once, never above one",
        client("each wanted block counts once, and no share is above one"),
    ),
    py(
        "C1 ... the same in stats, top, pool show and replay",
        "tests/cli/test_top.py tests/unit/replay/test_replay.py -k 'figure or interval or reads_what'",
    ),
    py("C2 allocated and used are two words; events name programs and units", "tests/cli/test_events.py"),
    py("C3 a failed card says why while it is down", "tests/cli/test_card_device.py"),
    c(
        "C4 safetensors: the same verdict as the reference reader",
        tests("codec safetensors", "codec safetensors differential"),
    ),
    py("C4 ... JSON and traces: what the formats allow", "tests/unit/files tests/unit/replay/test_traces.py"),
    py("C5 figures of the system are looked at before they are told", "tests/unit/discovery"),
    py("C6 every number of every option is used or refused", "tests/cli/test_numbers.py", minutes=60),
    py("C6 ... streams closed or full, and Ctrl-C", "tests/cli/test_streams.py", minutes=60),
    py("C7 no cursor: refused; no colour: still visible", "tests/cli/test_top_ends.py -k 'cursor or colour'"),
    # D. The command line
    py(
        "D the command tree, its help, aliases, sizes and errors",
        "tests/cli/test_tree.py tests/cli/test_help.py tests/cli/test_errors.py tests/cli/test_quantities.py",
        minutes=60,
    ),
    py("D ... as other users, with a pool that a group shares", "tests/cli/test_users.py"),
    py("D ... make install, uninstall, man pages, README's first block", "tests/unit/build", minutes=60),
    # E. Tests that can fail
    Point(
        "E mutations killed",
        "make mutation",
        counted(r"(\d+) of \d+ killed", "killed"),
        at_least(60),
        True,
        minutes=120,
    ),
    Point(
        "E ... and none survived",
        "make mutation",
        not_killed,
        exactly(0),
        True,
        minutes=120,
    ),
    # all of it together
    Point("programs that showed faults and do still", FIELD, not_handled, exactly(0)),
    Point(
        "SIGKILLs among threads, forks and clock steps",
        MIXED,
        counted(r"([\d,]+) mixed kills: nothing", "kills"),
        at_least(1000),
        True,
        minutes=60,
    ),
    Point(
        "power cuts in flashing: from the factory", CUTS, counted(r"(\d+) cuts from the factory", "cuts"), at_least(500)
    ),
    Point("power cuts in flashing: of an update", CUTS, counted(r"(\d+) cuts of an update", "cuts"), at_least(500)),
    Point(
        "no figure got slower: the slowest, of the commit before", AGAINST, slowest, at_least(0.95), True, minutes=60
    ),
]
