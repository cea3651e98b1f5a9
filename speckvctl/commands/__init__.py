# SPDX-License-Identifier: MIT
"""One module a noun: parse, call the library, hand a typed result to a renderer."""
