# SPDX-License-Identifier: MIT
"""The five behaviours of the Python binding."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest
import speckv

from tests.conftest import MEMORY


@pytest.fixture
def device(runtime_dir: object) -> Iterator[speckv.Device]:
    with speckv.Context() as context, context.open(MEMORY, create=True) as opened:
        opened.create_pool(speckv.PoolConfig("parity", 32 << 20))
        yield opened


@pytest.fixture
def pool(device: speckv.Device) -> Iterator[speckv.Pool]:
    with device.attach("parity") as attached:
        yield attached


def test_the_library_object_can_be_constructed_and_closed_again_and_again(runtime_dir: object) -> None:
    for _ in range(2):
        context = speckv.Context()
        assert context.runtime_dir == str(runtime_dir)
        context.close()
        with pytest.raises(speckv.SpeckvError, match="closed"):
            context.devices()


def test_memory_can_be_allocated_and_freed(device: speckv.Device, pool: speckv.Pool) -> None:
    memory = pool.alloc(1 << 20)
    assert len(memory) == 1 << 20
    assert device.check_pool("parity").pages_allocated > 0
    memory.free()
    assert device.check_pool("parity").pages_allocated == 0


def test_access_gives_the_allocation_itself_not_a_copy(pool: speckv.Pool) -> None:
    with pool.alloc(1 << 20) as memory:
        assert not memory.array.any()
        memory.access(8192, 4096)[:] = np.arange(4096) % 251
        assert (memory.array[8192 : 8192 + 4096] == np.arange(4096) % 251).all()
        assert memory.array[8191] == 0 and memory.array[8192 + 4096] == 0
        with pytest.raises(speckv.InvalidError):
            memory.access((1 << 20) - 1, 2)


def test_prefetched_blocks_are_served_from_the_staging_buffer(device: speckv.Device, pool: speckv.Pool) -> None:
    key, block = b"p" * 32, np.full(pool.block_bytes, 9, np.uint8)
    assert pool.put(key, block).tolist() == [0]
    assert pool.prefetch(key) == 1
    while not device.stats("parity").counters["prefetched"]:  # the suite's time limit ends a wait in vain
        time.sleep(0.001)
    back = np.zeros_like(block)
    assert pool.get(key, back).tolist() == [0]
    assert (back == 9).all()
    assert device.stats("parity").counters["prefetch_used"] == 1


def test_parameters_are_set_and_read_back_and_unknown_ones_refused(pool: speckv.Pool) -> None:
    for depth in ("1", "2", "4", "8", "16"):
        pool.params["prefetch_depth"] = depth
        assert pool.params["prefetch_depth"] == depth
    for codec in speckv.codec.modes():
        pool.params["codec"] = codec
        assert pool.params["codec"] == codec
    with pytest.raises(speckv.UnknownParameterError, match="prefetch_depth"):
        pool.params["no_such_parameter"] = "1"
    with pytest.raises(speckv.InvalidError, match="16"):
        pool.params["prefetch_depth"] = "17"
