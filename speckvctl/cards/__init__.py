# SPDX-License-Identifier: MIT
"""Cards: their description, emulated cards as processes, and flashing."""
