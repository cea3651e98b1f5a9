# SPDX-License-Identifier: MIT
"""Compares the checked-out commit with another: both built alike, run in turns, ratios of medians.

Usage: .venv/bin/python tests/bench/against.py REVISION [--rounds N] [--json]
A ratio is new over old, as speed: above 1 is faster. Rates are first divided by the peer of the same process (memcpy,
a hash map), so that load affects both. Uncommitted changes are not measured; a line on stderr says so.
Exit status 0 whatever the ratios: the caller applies bars.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BIN = Path(sys.executable).parent
WORK = ROOT / "build" / "against"
#: Figure: the series, and the peer of the same process that it is divided by.
SERIES = {
    "get": ("speckv_get", "memcpy_get"),
    "put": ("speckv_put", "memcpy_put"),
    "card_get": ("card_get", "memcpy_get"),
    "card_put": ("card_put", "memcpy_put"),
    "lookup": ("speckv_lookup", "hash_map_lookup"),
}
#: CPU time of puts into a full pool, each of which evicts a block; divided by that of a copy.
EVICT = """
import time
import numpy as np, speckv
count, block = 128, 65536
blocks = np.random.default_rng(7).integers(0, 256, (count, block), np.uint8)
room = np.empty((8, count, block), np.uint8)
keys = lambda n: [(n * count + i).to_bytes(32, "little") for i in range(count)]
puts = copies = 0.0
with speckv.Context() as context, context.open("host:DRAM", create=True) as device:
    device.create_pool(speckv.PoolConfig("kv", 64 << 20))
    with device.attach("kv") as pool:
        for n in range(300):
            batch, begun = keys(n), time.thread_time()
            pool.put(batch, blocks)
            middle = time.thread_time()
            room[n % 8] = blocks
            if n >= 16:
                puts, copies = puts + middle - begun, copies + time.thread_time() - middle
    assert device.stats("kv").counters["evictions"] > 250 * count
print(copies / puts)
"""
COMMANDS = {"help": ["--help"], "pool_list": ["pool", "list"], "device_list": ["device", "list", "--json"]}


def call(*command: object) -> None:
    words = [str(c) for c in command]
    done = subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise SystemExit(
            f"against: {' '.join(map(str, command))}: exit status {done.returncode}\n{done.stdout[-4000:]}"
        )


def call_for(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def commit_of(revision: str) -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--verify", f"{revision}^{{commit}}"], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"against: no commit {revision}; a shallow clone lacks it: git fetch --unshallow")
    return done.stdout.strip()


def prepare(commit: str) -> Path:
    """Check out and build a commit's benchmark programs and Python package, once."""
    tree = WORK / commit[:12]
    if (tree / ".ready").exists():
        return tree
    print(f"against: building {commit[:12]}", file=sys.stderr, flush=True)
    data = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True).stdout
    tree.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        archive.extractall(tree / "source", filter="data")
    options = ["-Dpython=disabled", "--buildtype=release", "-Dwerror=false"]
    if not (tree / "bench" / "build.ninja").exists():
        call(BIN / "meson", "setup", tree / "bench", tree / "source", *options)
    call(BIN / "meson", "compile", "-C", tree / "bench", "bench")
    pip = [BIN / "python", "-m", "pip", "install", "-qq", "--no-deps", "--no-build-isolation"]
    call(*pip, "--target", tree / "site", tree / "source")
    (tree / ".ready").touch()
    return tree


def series(tree: Path, program: str, *options: object) -> dict[str, float]:
    """Rate of each series of one run."""
    with tempfile.TemporaryDirectory(prefix="speckv-against-", dir="/dev/shm") as runtime:
        command = [str(tree / "bench" / "tests" / "bench" / program), *map(str, options)]
        environment = {**os.environ, "SPECKV_RUNTIME_DIR": runtime}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    items = [json.loads(line) for line in done.stdout.splitlines()]
    return {i["series"]: i["units"] / statistics.median(i["seconds"]) for i in items if "series" in i}


def environment_of(tree: Path, runtime: str) -> dict[str, str]:
    """Environment for a tree's Python."""
    environment = {**os.environ, "SPECKV_RUNTIME_DIR": runtime, "PYTHONPATH": str(tree / "site"), "PYTHONSAFEPATH": "1"}
    environment["OPENBLAS_NUM_THREADS"] = "1"
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


def evicting(tree: Path) -> float:
    """Rate of puts that evict, over that of copies."""
    with tempfile.TemporaryDirectory(prefix="speckv-against-", dir="/dev/shm") as runtime:
        command = [str(BIN / "python"), "-c", EVICT]
        environment = environment_of(tree, runtime)
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout)


def cpu_seconds(tree: Path, words: list[str]) -> float:
    """User and system time of one speckvctl."""
    with tempfile.TemporaryDirectory(prefix="speckv-against-", dir="/dev/shm") as runtime:
        command = [str(BIN / "python"), "-m", "speckvctl", *words]
        process = subprocess.Popen(command, env=environment_of(tree, runtime), stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 3):
        raise SystemExit(f"against: {' '.join(command)}: exit status {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def one_round(tree: Path) -> dict[str, float]:
    emulator = tree / "bench" / "libspeckv" / "emulator" / "speckv-emu"
    rates = series(tree, "blocks", "--mib", 256, "--rounds", 2, "--card", emulator)
    rates |= series(tree, "lookups", "--keys", 1 << 18, "--rounds", 2)
    found = {name: rates[ours] / rates[peer] for name, (ours, peer) in SERIES.items()}
    found["put_evicting"] = statistics.median(evicting(tree) for _ in range(3))
    return found | {
        name: 1 / statistics.median(cpu_seconds(tree, words) for _ in range(5)) for name, words in COMMANDS.items()
    }


def main() -> int:
    os.environ["PATH"] = f"{BIN}:{os.environ['PATH']}"  # meson and ninja, for pip's build
    about = f"{(__doc__ or '').splitlines()[0]} Changes that are not committed are not measured."
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("revision", help="the commit to compare with")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each tree, 7 by default")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    arguments = parser.parse_args()
    old, new = prepare(commit_of(arguments.revision)), prepare(commit_of("HEAD"))
    if call_for("git", "status", "--porcelain", "--untracked-files=no"):
        print(f"against: changes that are not committed are not in {new.name}", file=sys.stderr, flush=True)
    figures: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for n in range(arguments.rounds):
        order = [old, new] if n % 2 else [new, old]
        found = {tree: one_round(tree) for tree in order}
        for name in found[new]:
            figures[name].append((found[old][name], found[new][name]))
        print(f"against: round {n + 1} of {arguments.rounds}", file=sys.stderr, flush=True)
    rows = []
    for name, pairs in figures.items():
        before, after = (statistics.median(side) for side in zip(*pairs, strict=True))
        each = sorted(b / a for a, b in pairs)
        rows.append({"name": name, "ratio": after / before, "lowest": each[0], "highest": each[-1]})
    if arguments.json:
        document = {"schema": "speckv.against", "version": 1, "old": old.name, "new": new.name, "figures": rows}
        print(json.dumps(document, indent=2))
    else:
        print(f"new {new.name} over old {old.name}, {arguments.rounds} rounds each")
        for row in rows:
            print(f"{row['name']:<12} {row['ratio']:.3f}   rounds {row['lowest']:.3f} to {row['highest']:.3f}")
        print(f"slowest figure: {min(r['ratio'] for r in rows):.3f} of the old speed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
