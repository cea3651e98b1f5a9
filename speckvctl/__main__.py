# SPDX-License-Identifier: MIT
import sys

from speckvctl.app import main

if __name__ == "__main__":
    sys.exit(main())
