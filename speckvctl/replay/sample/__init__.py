# SPDX-License-Identifier: MIT
"""The sample trace and KV, for machines without real data (README.md)."""

from __future__ import annotations

from pathlib import Path

TRACE = Path(__file__).parent / "trace_sample.jsonl"
KV = Path(__file__).parent / "kv_sample.safetensors"
