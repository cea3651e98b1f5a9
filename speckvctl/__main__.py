# SPDX-License-Identifier: MIT
"""Entry point, kept short so that Ctrl-C is handled while the rest is imported."""

import gc
import sys


def run() -> int:
    try:
        gc.disable()  # imports make hardly any garbage, and much that the collector would look through
        from speckvctl.app import main

        gc.freeze()
        gc.enable()
        return main()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(run())
