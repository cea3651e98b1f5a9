# SPDX-License-Identifier: MIT
"""The command's first steps, short enough that Ctrl-C is answered while the rest is loaded."""

import sys


def run() -> int:
    try:
        from speckvctl.app import main

        return main()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(run())
