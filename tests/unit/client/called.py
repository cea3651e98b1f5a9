# SPDX-License-Identifier: MIT
"""Every function that the library exports is called by a C test. Usage: called.py MAP FOLDER ..."""

from __future__ import annotations

import re
import sys
from pathlib import Path


def main() -> int:
    exported = set(re.findall(r"^\t(speckv_\w+);", Path(sys.argv[1]).read_text(), re.MULTILINE))
    sources = [p for folder in sys.argv[2:] for p in sorted(Path(folder).glob("*.[ch]"))]
    called = {name for p in sources for name in re.findall(r"\b(speckv_\w+)\(", p.read_text())}
    missing = sorted(exported - called)
    print(f"{len(exported)} functions, {len(sources)} sources; called by none: {', '.join(missing) or 'none'}")
    return 1 if missing or not exported else 0


if __name__ == "__main__":
    sys.exit(main())
