# SPDX-License-Identifier: MIT
"""Small traces with sessions in them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

Sessions = Callable[..., Path]


@pytest.fixture
def sessions(tmp_path: Path) -> Sessions:
    """Write a trace of sessions that come back after 5 to 9 s while they last; in fleet's form where `fleet`."""

    def write(count: int = 60, *, seed: int = 1, fleet: bool = False, name: str = "trace.jsonl") -> Path:
        rng = random.Random(seed)
        requests = []
        fresh = iter(range(10**9))
        for session in range(count):
            time, chain = rng.uniform(0, 400), [next(fresh), next(fresh)]
            for turn in range(rng.choice((1, 1, 4, 6))):
                chain = [*chain, *(next(fresh) for _ in range(rng.randint(1, 3)))]
                request = {
                    "timestamp": round(1000 * time),
                    "input_length": 512 * len(chain),
                    "output_length": 10 * turn + 5,
                    "hash_ids": chain,
                }
                if fleet:
                    request |= {"session_id": f"s{session}", "stop": "tool_use" if turn % 2 else "", "api_time": 1.5}
                requests.append(request)
                time += rng.uniform(5, 9)
        requests.sort(key=lambda request: float(request["timestamp"]))  # type: ignore[arg-type]
        path = tmp_path / name
        path.write_text("\n".join(map(json.dumps, requests)) + "\n", encoding="ascii")
        return path

    return write
