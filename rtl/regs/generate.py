# SPDX-License-Identifier: MIT
"""Generate the SystemVerilog block, the C header and the reference from speckv.rdl.

usage: python rtl/regs/generate.py [FOLDER]     (default: the folder of speckv.rdl)

PeakRDL and its plug-ins are needed (peakrdl==1.5.0). What they write is committed, so that a build needs none of them;
a test generates again and compares.
"""

import re
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE = HERE / "speckv.rdl"
SYSTEMVERILOG, PACKAGE, HEADER, REFERENCE = OUTPUTS = (
    "speckv_regs.sv",
    "speckv_regs_pkg.sv",
    "speckv_regs.h",
    "REGISTERS.md",
)
# Other versions write other text: a difference must mean that the map changed.
VERSIONS = {"peakrdl": "1.5.0", "peakrdl-regblock": "1.3.1", "peakrdl-cheader": "1.1.0", "peakrdl-markdown": "1.0.3"}

_NOTICE = "Generated from speckv.rdl by generate.py: change that file, not this one."
_HOSTED = "#include <stdint.h>\n#include <assert.h>\n"
_ANYWHERE = """#ifdef __KERNEL__
#include <linux/build_bug.h>
#include <linux/types.h>
#else
#include <stdint.h>
#include <assert.h>
#endif
"""


#: Enumerations that the C header has, as PeakRDL-cheader writes masks only; and what their names begin with in C.
_ENUMS = {"speckv_slot_state": "SPECKV_SLOT_STATE_", "speckv_fatal_cause": "SPECKV_FATAL_"}
_BEFORE_ENUMS = "// reg - speckv_regs.MAGIC\n"


class VersionError(Exception):
    """The installed generators are not those that the committed files were made with."""


def generate(folder: Path) -> None:
    """Write all outputs into `folder`."""
    wrong = [f"{name} is {version(name)}, not {wanted}" for name, wanted in VERSIONS.items() if version(name) != wanted]
    if wrong:
        raise VersionError("; ".join(wrong))
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch)
        style = ["--type-style", "hier"]
        _peakrdl("regblock", made, "--cpuif", "axi4-lite-flat", "--default-reset", "rst_n", *style)
        _peakrdl("c-header", made / HEADER, "--std", "gnu11", *style)
        _peakrdl("markdown", made / REFERENCE, "-P", "PAIRS=1", "-P", "PAGES=1", "-P", "SLOTS=1")
        for name in (SYSTEMVERILOG, PACKAGE):
            _write(folder / name, f"// SPDX-License-Identifier: MIT\n// {_NOTICE}\n", (made / name).read_text("utf-8"))
        header = (made / HEADER).read_text("utf-8")
        if _HOSTED not in header or header.count(_BEFORE_ENUMS) != 1:
            raise VersionError("the C header does not include what it used to")
        use = (
            "/*\n * The structures are for offsetof(): registers are read and written with 32-bit accesses of the\n"
            " * platform's own kind (readl/writel, or a volatile uint32_t), never through a packed structure.\n */\n"
        )
        _write(
            folder / HEADER,
            f"/* SPDX-License-Identifier: MIT */\n/* {_NOTICE} */\n{use}",
            header.replace(_HOSTED, _ANYWHERE).replace(_BEFORE_ENUMS, enums() + _BEFORE_ENUMS),
        )
        _write(
            folder / REFERENCE,
            f"<!-- SPDX-License-Identifier: MIT -->\n<!-- {_NOTICE} -->\n",
            _reference((made / REFERENCE).read_text("utf-8")),
        )


def enums() -> str:
    """The enumerations of the description, in C."""
    text = SOURCE.read_text("utf-8")
    made = []
    for name, prefix in _ENUMS.items():
        (body,) = re.findall(rf"^enum {name} {{\n(.*?)^}};", text, re.MULTILINE | re.DOTALL)
        values = re.findall(r'^\s+(\w+)\s*=\s*\d+\'d(\d+) { desc = "(.*)"; };$', body, re.MULTILINE)
        if len(values) != len(body.splitlines()):
            raise VersionError(f"enum {name}: a line is not NAME = N'dVALUE {{ desc = ...; }};")
        lines = [f"    {prefix}{value} = {number}, // {what}" for value, number, what in values]
        made.append("\n".join([f"enum {name} {{", *lines, "};"]) + "\n\n")
    return "".join(made)


def _reference(text: str) -> str:
    """Without the name of the folder that it was made in, and without sizes that hold for the shortened arrays only."""
    text = text.replace(str(SOURCE), SOURCE.name)
    blocks = re.compile(r"^#+ .* (?:address map|register file)\n\n(?:- .*\n)+", re.MULTILINE)
    sizes = re.compile(r"^- (?:Size|Total Size|Array Dimensions): .*\n", re.MULTILINE)
    return blocks.sub(lambda block: sizes.sub("", block[0]), text)


def _peakrdl(exporter: str, output: Path, *options: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "peakrdl", exporter, str(SOURCE), "-o", str(output), *options],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def _write(path: Path, head: str, body: str) -> None:
    lines = [line.rstrip() for line in (head + body).splitlines()]
    path.write_text("\n".join(lines).rstrip("\n") + "\n", encoding="utf-8")


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
