# SPDX-License-Identifier: MIT
"""A pool to work on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import speckv


@pytest.fixture
def pool(device: speckv.Device) -> Iterator[speckv.Pool]:
    """Raw, 16 MiB, blocks of 64 KiB."""
    device.create_pool(speckv.PoolConfig("kv", 16 << 20))
    with device.attach("kv", tenant="test") as attached:
        yield attached
