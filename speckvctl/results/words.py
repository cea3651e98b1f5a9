# SPDX-License-Identifier: MIT
"""Words of the library that schemas and options list, without loading it; a test compares them."""

from __future__ import annotations

DTYPES = ("bf16", "fp16", "fp8_e4m3", "fp8_e5m2")
CODECS = ("raw", "int8-delta-rle", "q4x", "q5c", "e7c", "lossless", "q3x", "q5x")
PLACEMENTS = ("host", "card")
EVICTIONS = ("lru", "none")
DEVICE_STATES = (
    "ready",
    "unrecognized",
    "other_version",
    "incomplete",
    "truncated",
    "denied",
    "absent",
    "factory",
    "offline",
    "failed",
)
