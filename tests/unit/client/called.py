# SPDX-License-Identifier: MIT
"""Every exported function of pools and codec is called by a C test. Usage: called.py MAP INCLUDE FOLDER ..."""

from __future__ import annotations

import re
import sys
from pathlib import Path

HEADERS = ["base.h", "device.h", "pool.h", "block.h", "codec.h"]


def main() -> int:
    exported = set(re.findall(r"^\t(speckv_\w+);", Path(sys.argv[1]).read_text(), re.MULTILINE))
    declared = {f for h in HEADERS for f in re.findall(r"\b(speckv_\w+)\(", (Path(sys.argv[2]) / h).read_text())}
    sources = [p for folder in sys.argv[3:] for p in sorted(Path(folder).glob("*.[ch]"))]
    called = {f for p in sources for f in re.findall(r"\b(speckv_\w+)\(", p.read_text())}
    wanted = exported & declared
    missing = sorted(wanted - called)
    print(f"{len(wanted)} functions, {len(sources)} sources; called by none: {', '.join(missing) or 'none'}")
    return 1 if missing or not wanted else 0


if __name__ == "__main__":
    sys.exit(main())
