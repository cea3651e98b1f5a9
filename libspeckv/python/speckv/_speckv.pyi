# SPDX-License-Identifier: MIT
# Generated from the C headers at build time (build_cffi.py): its names are checked by the C compiler, not here.
from typing import Any

ffi: Any
lib: Any
