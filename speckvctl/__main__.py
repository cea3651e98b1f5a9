# SPDX-License-Identifier: MIT
"""Entry point, kept short so that Ctrl-C is handled while the rest is imported."""

import gc
import sys


def run() -> int:
    try:
        gc.disable()  # imports create hardly any garbage, and many objects for the collector to scan
        from speckvctl.app import main

        gc.freeze()
        gc.enable()
        return main()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(run())
