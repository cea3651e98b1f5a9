# SPDX-License-Identifier: MIT
"""The C library reads the file that train-prefetcher writes: the same model as its flat form, and nothing else."""

from __future__ import annotations

import errno
import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from speckv import predictor
from speckv._speckv import ffi, lib

from speckvctl.prefetcher import model
from tests.unit.prefetcher.blank import blank_model

pytest.importorskip("safetensors", reason="safetensors is not installed")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    model.save(blank_model(3), path)
    return path.read_bytes()


def parse(data: bytes) -> Any:
    """The model, or what is wrong with it."""
    out = ffi.new("struct speckv_predictor **")
    rc = lib.speckv_predictor_parse(ffi.from_buffer(data), len(data), out)
    return ffi.gc(out[0], lib.speckv_predictor_destroy) if rc == 0 else -int(rc)


def split(data: bytes) -> tuple[dict[str, Any], bytes]:
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def join(table: dict[str, Any], body: bytes) -> bytes:
    text = json.dumps(table).encode()
    return struct.pack("<Q", len(text)) + text + body


def test_a_file_is_the_model_that_was_written(data: bytes) -> None:
    loaded, flat = parse(data), blank_model(3).predictor()
    assert lib.speckv_predictor_features(loaded) == flat.features
    assert lib.speckv_predictor_bins(loaded) == flat.bins
    assert lib.speckv_predictor_window_ms(loaded) == 30_000
    edges = lib.speckv_predictor_edges_ms(loaded)
    assert [edges[i] for i in range(flat.bins + 1)] == flat.edges_ms.tolist()
    rng, state = np.random.default_rng(1), ffi.new("struct speckv_predictor_state *")
    survival, again, before = ffi.new("uint32_t[65]"), ffi.new("uint32_t[65]"), None
    for turn in range(5):
        inputs = rng.integers(-128, 128, flat.features).astype(np.int8)
        at = ffi.cast("int8_t *", inputs.ctypes.data)
        assert lib.speckv_predictor_step(loaded, state if turn else ffi.NULL, at, state, survival) == 0
        before, expected = flat.step(before, inputs)
        assert bytes(ffi.buffer(state)) == before
        assert list(survival)[: flat.bins + 1] == expected.tolist()
        assert lib.speckv_predictor_curve(loaded, state, again) == 0
        assert list(again) == list(survival)
    # A step without a curve is the same step.
    twin = ffi.new("struct speckv_predictor_state *")
    assert lib.speckv_predictor_step(loaded, state, at, twin, ffi.NULL) == 0
    assert lib.speckv_predictor_step(loaded, state, at, state, survival) == 0
    assert bytes(ffi.buffer(twin)) == bytes(ffi.buffer(state))


def test_the_order_of_tensors_and_of_their_bytes_is_the_files_own(data: bytes) -> None:
    table, body = split(data)
    names = [name for name in table if name != "__metadata__"]
    moved, parts = {"__metadata__": table["__metadata__"]}, b""
    for name in reversed(names):
        begin, end = table[name]["data_offsets"]
        offsets = [len(parts), len(parts) + end - begin]
        moved[name] = {"data_offsets": offsets, "shape": table[name]["shape"], "dtype": table[name]["dtype"]}
        parts += body[begin:end]
    turned, plain = parse(join(moved, parts)), parse(data)
    curves = []
    for loaded in (turned, plain):
        state, survival = ffi.new("struct speckv_predictor_state *"), ffi.new("uint32_t[65]")
        assert lib.speckv_predictor_step(loaded, ffi.NULL, ffi.new("int8_t[64]", [9] * 64), state, survival) == 0
        curves.append(list(survival))
    assert curves[0] == curves[1]


def test_the_window_is_the_files(data: bytes) -> None:
    table, body = split(data)
    table["__metadata__"]["window_ms"] = "2147483648"
    assert lib.speckv_predictor_window_ms(parse(join(table, body))) == 1 << 31


def test_a_member_that_the_format_does_not_know_is_passed_over(data: bytes) -> None:
    table, body = split(data)
    table["head_bias"]["more"] = [1, {"deep": None}]
    assert lib.speckv_predictor_bins(parse(join(table, body))) > 0


def empty(table: dict[str, Any]) -> dict[str, Any]:
    end = max(entry["data_offsets"][1] for name, entry in table.items() if name != "__metadata__")
    return {"dtype": "I8", "shape": [0], "data_offsets": [end, end]}


CHANGES: dict[str, tuple[int, Callable[[dict[str, Any]], Any]]] = {
    "another format": (errno.EOPNOTSUPP, lambda t: t["__metadata__"].update(format="pt")),
    "no format": (errno.EOPNOTSUPP, lambda t: t["__metadata__"].pop("format")),
    "no metadata": (errno.EOPNOTSUPP, lambda t: t.pop("__metadata__")),
    "another version": (errno.EPROTONOSUPPORT, lambda t: t["__metadata__"].update(version="1")),
    "no window": (errno.EBADMSG, lambda t: t["__metadata__"].pop("window_ms")),
    "a window of 0": (errno.EBADMSG, lambda t: t["__metadata__"].update(window_ms="0")),
    "a window of words": (errno.EBADMSG, lambda t: t["__metadata__"].update(window_ms="30s")),
    "too long a window": (errno.EBADMSG, lambda t: t["__metadata__"].update(window_ms="2147483649")),
    "an empty tensor more": (errno.EOPNOTSUPP, lambda t: t.update(extra=empty(t))),
    "another type": (errno.EOPNOTSUPP, lambda t: t["head_bias"].update(dtype="F32")),
    "another shape": (errno.EOPNOTSUPP, lambda t: t["layers.1.input"].update(shape=[256, 256])),
    "a dimension more": (errno.EOPNOTSUPP, lambda t: t["layers.0.bias"].update(shape=[512, 1])),
    "a tensor of another name": (errno.EOPNOTSUPP, lambda t: t.update(extra=t.pop("head_bias"))),
    "more than its bytes": (errno.EBADMSG, lambda t: t["layers.0.bias"].update(shape=[513])),
    "a dimension of 2^31": (errno.EBADMSG, lambda t: t["layers.0.input"].update(shape=[512, 1 << 31])),
    "a tensor's bytes, and no tensor": (errno.EBADMSG, lambda t: t.pop("head_bias")),
    "beyond the end": (errno.EBADMSG, lambda t: t["head_bias"].update(data_offsets=[1 << 30, (1 << 30) + 88])),
    "backwards": (errno.EBADMSG, lambda t: t["head_bias"].update(data_offsets=[88, 0])),
    "shorter": (errno.EBADMSG, lambda t: t["head_bias"].update(data_offsets=[0, 84])),
    "shared bytes": (errno.EBADMSG, lambda t: t["head_bias"].update(data_offsets=t["head_scale"]["data_offsets"])),
    "no offsets": (errno.EBADMSG, lambda t: t["head_bias"].pop("data_offsets")),
    "a negative offset": (errno.EBADMSG, lambda t: t["head_bias"].update(data_offsets=[-1, 87])),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_does_not_fit_is_refused_for_what_it_is(data: bytes, what: str) -> None:
    number, change = CHANGES[what]
    table, body = split(data)
    change(table)
    assert parse(join(table, body)) == number


def test_bytes_left_over_are_refused(data: bytes) -> None:
    assert parse(data + b"\0") == errno.EBADMSG
    table, body = split(data)
    assert parse(join(table, body[:-1])) == errno.EBADMSG
    text = json.dumps(table).encode() + b"x"
    assert parse(struct.pack("<Q", len(text)) + text + body) == errno.EBADMSG


@settings(max_examples=200)
@given(st.data())
def test_a_part_of_a_file_is_refused(data: bytes, draw: st.DataObject) -> None:
    length = draw.draw(st.integers(0, len(data) - 1))
    assert parse(data[:length]) in (errno.EBADMSG, errno.EOPNOTSUPP)


@settings(max_examples=200)
@given(st.data())
def test_a_number_out_of_its_range_is_refused(data: bytes, draw: st.DataObject) -> None:
    table, body = split(data)
    name = draw.draw(st.sampled_from([n for n in table if n.endswith("scale")]))
    at = table[name]["data_offsets"][0] + 4 * draw.draw(st.integers(0, table[name]["shape"][0] - 1))
    value = draw.draw(st.integers(-(1 << 31), -1) | st.integers((1 << 24) + 1, (1 << 31) - 1))
    assert parse(join(table, body[:at] + struct.pack("<i", value) + body[at + 4 :])) == errno.EBADMSG


def test_a_null_is_refused() -> None:
    out = ffi.new("struct speckv_predictor **")
    assert lib.speckv_predictor_parse(ffi.NULL, 0, out) == -errno.EINVAL
    assert lib.speckv_predictor_parse(b"", 0, ffi.NULL) == -errno.EINVAL
    assert lib.speckv_predictor_parse(b"", 0, out) == -errno.EBADMSG
    assert predictor.ONE // 10_000 == lib.SPECKV_PREDICTOR_WORTH
