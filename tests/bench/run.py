# SPDX-License-Identifier: MIT
"""Throughput compared with peers in the same run: medians, ratios, and the machine.

Usage: .venv/bin/python tests/bench/run.py [--json] [--quick]
The programs are built in build/bench, optimised and without sanitizers. Peers take turns of about a millisecond. A rate
is that of the median turn, which excludes other load on the core.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BIN = Path(sys.executable).parent
BUILD = ROOT / "build" / "bench"
PEERS = ROOT / "build" / "peers"
CI = os.environ.get("CI") == "true"
BATCH = 32


@dataclass(frozen=True, slots=True)
class Series:
    """Seconds of each turn; every turn does the same work."""

    units: int
    seconds: list[float]

    @property
    def rate(self) -> float:
        return self.units / statistics.median(self.seconds)

    def over(self, peer: Series) -> float:
        """The ratio to the peer's rate."""
        return self.rate / peer.rate


@dataclass(frozen=True, slots=True)
class Figure:
    name: str
    value: float
    unit: str
    text: str


@dataclass(slots=True)
class Measured:
    series: dict[str, Series] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)  # tools from .ci/apt-packages

    def read(self, output: str) -> None:
        for line in output.splitlines():
            item = json.loads(line)
            if "skipped" in item:
                self.skipped[item["skipped"]] = item["reason"]
            else:
                self.series[item["series"]] = Series(item["units"], item["seconds"])

    def lacks(self, names: Sequence[str], tool: str) -> None:
        self.missing.append(tool)
        self.skipped.update(dict.fromkeys(names, f"{tool} is not installed"))


# -- the machine


def last_level_cache() -> int:
    """Bytes; 0 if the kernel does not report it."""
    sizes = {}
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        number, unit = re.fullmatch(r"(\d+)([KMG]?)", (index / "size").read_text().strip()).groups()  # type: ignore[union-attr]
        sizes[int((index / "level").read_text())] = int(number) << {"": 0, "K": 10, "M": 20, "G": 30}[unit]
    return sizes[max(sizes)] if sizes else 0


def machine() -> dict[str, str | int]:
    """The machine of the figures."""
    model = re.search(r"^(?:model name|CPU implementer)\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    try:
        from speckv import codec

        isa = codec.isa()
    except ImportError as error:
        isa = f"unknown: {error}"
    return {
        "cpu": model[1] if model else os.uname().machine,
        "cores": len(os.sched_getaffinity(0)),
        "last_level_cache_bytes": last_level_cache(),
        "isa": isa,
        "kernel": os.uname().release,
        "load_average": f"{os.getloadavg()[0]:.1f}",
    }


# -- measuring


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def call(*command: object) -> bool:
    """Run with its output on stderr; whether it worked."""
    return subprocess.run([str(c) for c in command], cwd=ROOT, check=False, stdout=sys.stderr).returncode == 0


def build() -> None:
    """A release build of its own: a benchmark of a debug or sanitized build measures that."""
    meson = BIN / "meson"
    options = ["-Dpython=disabled", "--buildtype=release", "-Dwerror=false"]
    ready = (BUILD / "build.ninja").exists() or call(meson, "setup", BUILD, *options)
    if ready and not has_hiredis():  # it may have been installed since: meson caches a failed look-up
        ready = call(meson, "setup", "--clearcache", "--reconfigure", BUILD)
    if not ready or not call(meson, "compile", "-C", BUILD, "bench"):
        raise SystemExit("bench: the programs do not build")


def has_hiredis() -> bool:
    """Whether the programs were built with the C client."""
    found = json.loads((BUILD / "meson-info" / "intro-dependencies.json").read_text())
    return any(dependency["name"] == "hiredis" for dependency in found)


def install_peers() -> None:
    """Python peers, beside .venv and not in it. A failure shows when the peer is imported."""
    done, wanted = PEERS / ".done", (HERE / "peers.txt").read_text()
    if done.exists() and done.read_text() == wanted:
        return
    say("pip downloads the Python peers (redis-py, LMCache 0.5.6 without CUDA) into build/peers: about 150 MB")
    shutil.rmtree(PEERS, ignore_errors=True)
    options = ["-qq", "--no-deps", "--only-binary", ":all:", "--target", PEERS, "-r", HERE / "peers.txt"]
    if call(BIN / "python", "-m", "pip", "install", *options):
        done.write_text(wanted)


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[list[str]]:
    """Start a Redis without persistence on a private socket; yields its options, empty if it is not installed."""
    server, socket = shutil.which("redis-server"), folder / "redis.sock"
    if not server:
        yield []
        return
    options = ["--port", "0", "--unixsocket", socket, "--save", "", "--appendonly", "no", "--dir", folder]
    process = subprocess.Popen([server, *map(str, options)], stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        for _ in range(100):
            if socket.exists() or process.poll() is not None:
                break
            time.sleep(0.05)
        yield ["--redis", str(socket), "--redis-pid", str(process.pid)]
    finally:
        process.terminate()
        process.wait()


def run(measured: Measured, folder: Path, *command: object) -> None:
    """Run one program in a runtime folder of its own and read its series."""
    words = [str(c) for c in command]
    say(" ".join(words))
    runtime = folder / "runtime"
    runtime.mkdir()
    environment = {**os.environ, "SPECKV_RUNTIME_DIR": str(runtime), "PYTHONSAFEPATH": "1", "PYTHONPATH": str(PEERS)}
    done = subprocess.run(words, env=environment, cwd=folder, stdout=subprocess.PIPE, text=True, check=False)
    shutil.rmtree(runtime)
    if done.returncode:
        raise SystemExit(f"bench: exit status {done.returncode}")
    measured.read(done.stdout)


def measure(quick: bool) -> Measured:
    """Build and run every program; also the peers that could not run, with reasons."""
    measured = Measured()
    size = ["--mib", max(256, 4 * last_level_cache() >> 20), "--batch", BATCH]
    rounds, keys = (3, 1 << 17) if quick else (9, 1 << 20)
    build()
    install_peers()
    programs = BUILD / "tests" / "bench"
    card = ["--card", BUILD / "libspeckv" / "emulator" / "speckv-emu"]
    shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="speckv-bench-", dir=shm) as name:
        folder = Path(name)
        with redis_server(folder) as redis:
            in_c = ["redis_get_one_core", "redis_get_two_cores", "redis_put_one_core", "redis_put_two_cores"]
            if not redis:
                measured.lacks([*in_c, "python_redis_get", "python_redis_plain_get"], "redis-server")
            elif not has_hiredis():
                measured.lacks(in_c, "libhiredis-dev")
            run(
                measured,
                folder,
                programs / "blocks",
                *size,
                "--rounds",
                rounds,
                *card,
                *(redis if has_hiredis() else []),
            )
        with redis_server(folder) as redis:  # a fresh folder, without the previous blocks
            program = [BIN / "python", HERE / "python_peers.py"]
            run(measured, folder, *program, *size, "--rounds", rounds, "--lmcache", *redis)
        run(measured, folder, programs / "lookups", "--keys", keys, "--rounds", rounds)
    return measured


# -- figures

RATES = {
    "memory_read": ("bytes", "sequential read of private memory, one core: the roofline"),
    "memcpy_get": ("bytes", "memcpy of 64 KiB blocks in random order from shared memory to a ring of buffers"),
    "speckv_get": ("bytes", "get of the same blocks with CRC"),
    "memcpy_put": ("bytes", "memcpy of the same blocks the other way"),
    "speckv_put": ("bytes", "put of the same blocks"),
    "card_get": ("bytes", "get of the same blocks from an emulated card, whose process has a core of its own"),
    "card_put": ("bytes", "put of the same blocks to it"),
    "redis_get_one_core": ("bytes", "Redis, hiredis, pipelined; server and client share one core"),
    "redis_get_two_cores": ("bytes", "Redis, hiredis, pipelined; the server has a core of its own"),
    "redis_put_one_core": ("bytes", "Redis SET, pipelined; server and client share one core"),
    "redis_put_two_cores": ("bytes", "Redis SET, pipelined; the server has a core of its own"),
    "python_speckv_get": ("bytes", "get from Python into a numpy array"),
    "python_redis_get": ("bytes", "redis-py with hiredis, MGET, from Python; server and client share one core"),
    "python_redis_plain_get": ("bytes", "the same without hiredis: as `pip install redis` has it"),
    "lmcache_get": ("bytes", "LMCache 0.5.6, local CPU backend: get and copy into a buffer, no CRC"),
    "speckv_lookup": ("keys", "batched look-ups, half of them hits"),
    "hash_map_lookup": ("keys", "std::unordered_map of this process, the same keys"),
}
RATIOS = {
    "get_vs_memcpy": ("speckv_get", "memcpy_get"),
    "get_vs_roofline": ("speckv_get", "memory_read"),
    "put_vs_memcpy": ("speckv_put", "memcpy_put"),
    "card_get_vs_host_get": ("card_get", "speckv_get"),
    "get_vs_redis_one_core": ("speckv_get", "redis_get_one_core"),
    "memcpy_vs_redis_one_core": ("memcpy_get", "redis_get_one_core"),
    "get_vs_redis_two_cores": ("speckv_get", "redis_get_two_cores"),
    "put_vs_redis_one_core": ("speckv_put", "redis_put_one_core"),
    "put_vs_redis_two_cores": ("speckv_put", "redis_put_two_cores"),
    "python_get_vs_redis_py": ("python_speckv_get", "python_redis_get"),
    "python_get_vs_plain_redis_py": ("python_speckv_get", "python_redis_plain_get"),
    "python_get_vs_lmcache": ("python_speckv_get", "lmcache_get"),
    "lookup_vs_hash_map": ("speckv_lookup", "hash_map_lookup"),
}


def figures(series: dict[str, Series]) -> list[Figure]:
    """All rates measured, then all ratios with both sides measured."""
    found = [
        Figure(f"{name}_{unit}_per_s", series[name].rate, f"{unit}/s", text)
        for name, (unit, text) in RATES.items()
        if name in series
    ]
    for name, (ours, peer) in RATIOS.items():
        if ours in series and peer in series:
            found.append(Figure(name, series[ours].over(series[peer]), "x", f"{ours} : {peer}"))
    return found


def shown(figure: Figure) -> str:
    if figure.unit == "x":
        return f"{figure.value:.2f} x"
    scale, prefix = (1e9, "G") if figure.unit == "bytes/s" else (1e6, "M ")
    return f"{figure.value / scale:.2f} {prefix}{figure.unit.replace('bytes', 'B')}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, fewer keys; the same working set")
    arguments = parser.parse_args()
    here, measured = machine(), measure(arguments.quick)
    found = figures(measured.series)
    if arguments.json:
        document = {"schema": "speckv.bench", "version": 1, "machine": here, "figures": [asdict(f) for f in found]}
        print(json.dumps({**document, "skipped": measured.skipped}, indent=2))
    else:
        print("\n".join(f"{key.replace('_', ' ')}: {value}" for key, value in here.items()) + "\n")
        for figure in found:
            print(f"{figure.name:<34}{shown(figure):>16}  {figure.text}")
        for name, reason in measured.skipped.items():
            print(f"skipped: {name}: {reason}")
    if CI and measured.missing:
        say(f"not installed, though .ci/apt-packages lists it: {', '.join(measured.missing)}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
