# SPDX-License-Identifier: MIT
"""Replay of block traces against a pool: a load generator that verifies every byte read."""

from __future__ import annotations

from speckvctl.replay.client import Mismatch
from speckvctl.replay.payload import ContentsError
from speckvctl.replay.runner import Plan, ReplayConfig, ReplayProgress, ReplayResult, execute, plan, run
from speckvctl.replay.traces import Trace, TraceError

__all__ = [
    "ContentsError",
    "Mismatch",
    "Plan",
    "ReplayConfig",
    "ReplayProgress",
    "ReplayResult",
    "Trace",
    "TraceError",
    "execute",
    "plan",
    "run",
]
