# SPDX-License-Identifier: MIT
"""Cards: what is shown of them, emulated ones as processes, and the way of a bundle into their flash."""
