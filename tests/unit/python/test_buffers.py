# SPDX-License-Identifier: MIT
"""Blocks are read and written where they lie, in whatever holds them; what cannot be is refused, never copied."""

from __future__ import annotations

import array
import mmap
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import speckv
from hypothesis import given
from speckv import requests

KEYS = np.arange(4 * 32, dtype=np.uint8).reshape(4, 32)
BLOCK = 65536


@given(
    count=st.integers(1, 6),
    step=st.sampled_from([1, 2, 3, -1, -2]),
    row=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    dtype=st.sampled_from(["u1", "u2", "f4", "f8"]),
)
def test_rows_are_the_addresses_of_the_arrays_own_rows(count: int, step: int, row: list[int], dtype: str) -> None:
    whole = np.zeros((count * abs(step), *row), dtype)
    part = whole[::step][:count]
    found = requests.rows(part, count, write=True)
    addresses = np.broadcast_to(np.asarray(found.addresses, np.uintp), count)
    assert addresses.tolist() == [part[index].__array_interface__["data"][0] for index in range(count)]
    assert found.row_bytes == part[0].nbytes


@given(data=st.data())
def test_an_array_whose_blocks_are_not_contiguous_is_refused(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(2, 4), min_size=3, max_size=4))
    axes = data.draw(st.permutations(range(len(shape))).filter(lambda order: list(order[1:]) != sorted(order[1:])))
    part = np.zeros(shape).transpose(axes)
    with pytest.raises(speckv.InvalidError, match="side by side"):
        requests.rows(part, part.shape[0], write=False)


def test_a_get_writes_into_the_callers_array(pool: speckv.Pool) -> None:
    blocks = np.random.default_rng(0).integers(0, 256, (4, BLOCK), np.uint8)
    assert pool.put(KEYS, blocks).tolist() == [0] * 4
    arena = np.zeros((8, 2, 2, 64, 128), np.uint16)
    assert pool.get(KEYS, arena[::2]).tolist() == [0] * 4
    assert (arena[::2].reshape(4, -1).view(np.uint8) == blocks).all()
    assert not arena[1::2].any()


HOLDERS: dict[str, Callable[[], Any]] = {
    "bytearray": lambda: bytearray(BLOCK),
    "memoryview": lambda: memoryview(bytearray(BLOCK)),
    "array": lambda: array.array("i", bytes(BLOCK)),
    "mmap": lambda: mmap.mmap(-1, BLOCK),
    "numpy": lambda: np.zeros((2, 64, 256), np.float16),
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_anything_that_holds_bytes_holds_a_block(pool: speckv.Pool, holder: str) -> None:
    source, target = HOLDERS[holder](), HOLDERS[holder]()
    memoryview(source).cast("B")[:] = bytes(range(256)) * 256
    assert pool.put(b"a" * 32, source).tolist() == [0]
    assert pool.get([b"a" * 32], [target]).tolist() == [0]
    assert bytes(target) == bytes(source)


def test_bf16_tensors_are_used_without_conversion(pool: speckv.Pool) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    blocks = torch.randn(4, 2, 2, 64, 128).to(torch.bfloat16)
    assert pool.put(KEYS, blocks).tolist() == [0] * 4
    arena = torch.zeros(4, 2, 2, 2, 64, 128, dtype=torch.bfloat16)
    back = arena[:, 1]
    assert pool.get(KEYS, back).tolist() == [0] * 4
    assert torch.equal(back, blocks)
    assert not arena[:, 0].any()
    assert pool.get(KEYS, [back[index] for index in range(4)]).tolist() == [0] * 4
    with pytest.raises(speckv.InvalidError, match="side by side"):
        pool.put(KEYS, blocks.transpose(2, 3))
    with pytest.raises(TypeError, match="CPU"):
        pool.put(KEYS, blocks.to("meta"))


def test_torch_is_never_imported_by_the_binding(run_python: Callable[[str], str]) -> None:
    assert run_python("import speckv, sys; print('torch' in sys.modules)") == "False\n"


def test_a_read_only_buffer_takes_no_get_but_gives_a_put(pool: speckv.Pool) -> None:
    block = np.full(BLOCK, 3, np.uint8)
    block.flags.writeable = False
    assert pool.put(b"k" * 32, block).tolist() == [0]
    assert pool.put(b"l" * 32, bytes(BLOCK)).tolist() == [0]
    for refused in (block, bytes(BLOCK), [bytes(BLOCK)]):
        with pytest.raises(speckv.InvalidError, match="read-only"):
            pool.get(b"k" * 32, refused)


def test_rows_that_overlap_take_no_get(pool: speckv.Pool) -> None:
    blocks = np.broadcast_to(np.zeros(BLOCK, np.uint8), (4, BLOCK))
    assert pool.put(KEYS, blocks).tolist() == [0] * 4
    overlapping = np.lib.stride_tricks.as_strided(np.zeros(2 * BLOCK, np.uint8), (4, BLOCK), (64, 1))
    with pytest.raises(speckv.InvalidError, match="side by side"):
        pool.get(KEYS, overlapping)


@pytest.mark.parametrize(
    ("keys", "buffers", "text"),
    [
        (b"short", np.zeros(BLOCK, np.uint8), "32"),
        ([b"a" * 32, b"b"], np.zeros((2, BLOCK), np.uint8), "32"),
        (KEYS.astype(np.uint16), np.zeros((4, BLOCK), np.uint8), "uint16"),
        (KEYS, np.zeros((3, BLOCK), np.uint8), "4 keys"),
        (KEYS, [np.zeros(BLOCK, np.uint8)] * 3, "3 buffers"),
        (KEYS, np.zeros((4, BLOCK - 1), np.uint8), "65536"),
        (b"a" * 32, np.zeros(BLOCK + 1, np.uint8), "65536"),
        ([b"a" * 32] * 2, [bytearray(BLOCK), bytearray(BLOCK - 1)], "one size"),
    ],
)
def test_keys_and_buffers_that_do_not_fit_are_refused(pool: speckv.Pool, keys: Any, buffers: Any, text: str) -> None:
    with pytest.raises(speckv.InvalidError, match=text):
        pool.put(keys, buffers)


def test_what_holds_no_bytes_is_a_type_error(pool: speckv.Pool) -> None:
    with pytest.raises(TypeError, match="bytes-like"):
        pool.put(b"a" * 32, object())


def test_a_steady_get_makes_no_new_request_array(pool: speckv.Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = np.zeros((4, BLOCK), np.uint8)
    pool.put(KEYS, blocks)
    made: list[int] = []
    original = requests.Batch.__init__

    def count(self: requests.Batch, capacity: int) -> None:
        made.append(capacity)
        original(self, capacity)

    monkeypatch.setattr(requests.Batch, "__init__", count)
    for _ in range(3):
        pool.get(KEYS, blocks)
        pool.get(bytes(KEYS[0]), blocks[0])
    assert made == []


def test_a_call_inside_a_call_does_not_share_the_request_array() -> None:
    outer = requests.take(4)
    inner = requests.take(4)
    assert outer is not inner
    requests.give(inner)
    requests.give(outer)
    assert requests.take(1) is outer
    requests.give(outer)
