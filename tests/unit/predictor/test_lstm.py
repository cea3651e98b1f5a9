# SPDX-License-Identifier: MIT
"""Quantised inference in C is, to the bit, what the reference computes; nothing but a whole model is loaded."""

from __future__ import annotations

import errno
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import speckv
from hypothesis import given, settings
from hypothesis import strategies as st
from speckv import codec, predictor

from tests.unit.predictor import reference


@pytest.fixture(params=["portable", "sse42", "avx2", "avx512"])
def isa(request: pytest.FixtureRequest) -> str:
    try:
        codec.force_isa(request.param)
    except speckv.SpeckvError:
        pytest.skip(f"this CPU has no {request.param}")
    request.addfinalizer(lambda: codec.force_isa("auto"))
    return str(request.param)


@pytest.mark.parametrize(
    ("features", "bins", "loud"), [(14, 22, 1.0), (1, 1, 1.0), (64, 64, 1.0), (33, 5, 30.0), (16, 22, 0.01)]
)
def test_every_step_is_that_of_the_reference(isa: str, features: int, bins: int, loud: float) -> None:
    weights = reference.random_weights(features * 100 + bins, features, bins, loud)
    model = predictor.Predictor(weights.flat())
    assert (model.features, model.bins) == (features, bins)
    assert model.edges_ms.tolist() == weights.edges_ms
    rng = np.random.default_rng(7)
    state, packed = reference.empty(), None
    for _ in range(4):
        inputs = rng.integers(-128, 128, features)
        state, expected = reference.step(weights, state, inputs.tolist())
        packed, survival = model.step(packed, inputs.astype(np.int8))
        assert packed == reference.state_bytes(state)
        assert survival.tolist() == expected
    assert expected[0] == predictor.ONE and expected == sorted(expected, reverse=True)


def test_turns_of_a_tree_go_on_from_their_own_parents() -> None:
    model = predictor.Predictor(reference.random_weights(1, 14, 22).flat())
    inputs = np.random.default_rng(2).integers(-128, 128, (6, 14)).astype(np.int8)
    parent = np.array([predictor.NO_REQUEST, 0, 0, 1, predictor.NO_REQUEST, 2], np.uint32)
    states, curves = model.run(inputs, parent=parent)
    for turn, last in enumerate(parent):
        before = None if last == predictor.NO_REQUEST else states[last].tobytes()
        after, curve = model.step(before, inputs[turn])
        assert after == states[turn].tobytes()
        assert curve.tolist() == curves[turn].tolist()
    with pytest.raises(ValueError, match="parent"):
        model.run(inputs, parent=np.zeros(6, np.uint32))


def test_the_table_of_the_logistic_function_is_right_to_the_last_digit(repository: Path) -> None:
    text = (repository / "libspeckv/predictor/sigmoid.h").read_text(encoding="utf-8")
    numbers = re.findall(r"\d+", text[text.index("{") :])
    assert [int(number) for number in numbers] == reference.TABLE


FLAT = reference.random_weights(3, 14, 22).flat()


def sealed(flat: bytearray) -> bytes:
    """With a checksum that fits."""
    flat[60:64] = struct.pack("<I", codec.crc32c(flat[64:], codec.crc32c(flat[:60])))
    return bytes(flat)


def refused(flat: bytes) -> int:
    with pytest.raises(speckv.SpeckvError) as caught:
        predictor.Predictor(flat)
    return abs(caught.value.errno or 0)


@settings(max_examples=200)
@given(st.integers(0, len(FLAT) - 1), st.integers(1, 255))
def test_one_changed_byte_is_found(at: int, change: int) -> None:
    damaged = bytearray(FLAT)
    damaged[at] ^= change
    assert refused(bytes(damaged)) in (errno.EBADMSG, errno.EPROTONOSUPPORT)


@settings(max_examples=100)
@given(st.integers(0, len(FLAT) - 1))
def test_a_part_of_a_model_is_refused(length: int) -> None:
    assert refused(FLAT[:length]) == errno.EBADMSG
    assert refused(sealed(bytearray(FLAT[:length]))) == errno.EBADMSG if length >= 64 else True


@pytest.mark.parametrize(
    ("at", "value", "number"),
    [
        (8, struct.pack("<I", 1), errno.EPROTONOSUPPORT),
        (16, struct.pack("<H", 15), errno.EBADMSG),  # another length
        (16, struct.pack("<H", 65), errno.EOPNOTSUPP),
        (16, struct.pack("<H", 0), errno.EOPNOTSUPP),
        (18, struct.pack("<H", 3), errno.EOPNOTSUPP),
        (20, struct.pack("<H", 64), errno.EOPNOTSUPP),
        (22, struct.pack("<H", 65), errno.EOPNOTSUPP),
        (30, b"\1", errno.EBADMSG),  # reserved
        (64, struct.pack("<I", 1), errno.EBADMSG),  # the first edge is 0
        (68, struct.pack("<I", 0), errno.EBADMSG),  # edges rise
        (64 + 22 * 4, struct.pack("<I", 0xFFFFFFFF), errno.EBADMSG),  # beyond the largest edge
        (len(FLAT) - 4, struct.pack("<i", (1 << 20) + 1), errno.EBADMSG),  # a bias
        (len(FLAT) - 4 * 23, struct.pack("<i", -1), errno.EBADMSG),  # a scale
    ],
)
def test_a_value_out_of_its_range_is_refused_for_what_it_is(at: int, value: bytes, number: int) -> None:
    changed = bytearray(FLAT)
    changed[at : at + len(value)] = value
    assert refused(sealed(changed)) == number


def test_nothing_may_follow_a_model() -> None:
    assert refused(FLAT + b"\0") == errno.EBADMSG
