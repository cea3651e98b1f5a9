# SPDX-License-Identifier: MIT
"""A pool to replay against, and small traces."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import speckv

Write = Callable[..., Path]


@pytest.fixture
def device(device: speckv.Device) -> speckv.Device:
    """With a pool "kv" to replay against."""
    device.create_pool(speckv.PoolConfig("kv", 64 << 20))
    return device


@pytest.fixture
def write_trace(tmp_path: Path) -> Write:
    """Write chains of ids as a Mooncake trace, one request each; or lines as they are."""

    def write(*requests: list[int] | str, name: str = "trace.jsonl", **more: Any) -> Path:
        path = tmp_path / name
        lines = [
            request
            if isinstance(request, str)
            else json.dumps(
                {"timestamp": 10 * number, "input_length": 512, "output_length": 1, "hash_ids": request, **more}
            )
            for number, request in enumerate(requests)
        ]
        path.write_text("\n".join(lines) + "\n")
        return path

    return write
