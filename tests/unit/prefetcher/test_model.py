# SPDX-License-Identifier: MIT
"""Model files: written whole or not at all, run by the C library to the bit, refused for what is wrong with them."""

from __future__ import annotations

import errno
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from speckvctl.prefetcher import features, model, survival
from speckvctl.prefetcher.model import ModelError
from tests.unit.predictor import reference
from tests.unit.prefetcher.blank import blank_model, random_network


def as_reference(made: model.Model) -> reference.Weights:
    """The same tensors for the slow reference."""
    wide = {name: tensor.astype(np.int64) for name, tensor in made.tensors.items()}
    names = ("input", "recurrent", "input_scale", "recurrent_scale", "bias")
    layers = [{name: wide[f"layers.{layer}.{name}"] for name in names} for layer in range(2)]
    return reference.Weights(wide["edges_ms"].tolist(), layers, wide["head"], wide["head_scale"], wide["head_bias"])


def test_a_saved_model_is_read_back_and_runs_to_the_bit_as_the_reference(tmp_path: Path) -> None:
    path = tmp_path / "m"
    model.save(blank_model(3, seed=7), path)
    loaded = model.load(path)
    assert loaded.provenance.seed == 7
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["m"]
    weights = as_reference(loaded)
    assert weights.flat() == loaded.flat()
    state, packed, runner = reference.empty(), None, loaded.predictor()
    rng = np.random.default_rng(0)
    for _ in range(3):
        inputs = rng.integers(-127, 128, len(features.NAMES))
        state, expected = reference.step(weights, state, inputs.tolist())
        packed, got = runner.step(packed, inputs.astype(np.int8))
        assert got.tolist() == expected


def test_int8_says_nearly_what_the_network_says() -> None:
    network = random_network(5)
    runner = blank_model(5).predictor()
    inputs = np.random.default_rng(1).normal(0, 1, (20, len(features.NAMES)))
    rounded = features.quantise(inputs, np.zeros(inputs.shape[1]), np.ones(inputs.shape[1]))

    def logistic(x: Any) -> Any:
        return 1 / (1 + np.exp(-x))

    h, c = np.zeros((2, 128)), np.zeros((2, 128))
    packed = None
    for row in rounded:
        packed, curve = runner.step(packed, row)
        below: Any = row / features.PER_DEVIATION
        for layer in range(2):
            gates = network[f"lstm.weight_ih_l{layer}"] @ below + network[f"lstm.weight_hh_l{layer}"] @ h[layer]
            gates = gates + network[f"lstm.bias_ih_l{layer}"] + network[f"lstm.bias_hh_l{layer}"]
            i, f, g, o = np.split(gates, 4)
            c[layer] = logistic(f) * c[layer] + logistic(i) * np.tanh(g)
            below = h[layer] = logistic(o) * np.tanh(c[layer])
        hazards = logistic(network["head.weight"] @ below + network["head.bias"])
        assert survival.hazards_of(curve[None])[0] == pytest.approx(hazards, abs=0.01)


def test_a_model_is_not_half_written_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m"
    model.save(blank_model(1), path)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        model.save(blank_model(2), path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["m"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("model") / "m"
    model.save(blank_model(), path)
    return path.read_bytes()


def refused(path: Path, data: bytes) -> ModelError:
    path.write_bytes(data)
    with pytest.raises(ModelError) as caught:
        model.load(path)
    assert "\n" not in str(caught.value)
    return caught.value


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_part_of_a_model_is_refused(tmp_path: Path, whole: bytes, data: st.DataObject) -> None:
    length = data.draw(st.integers(0, len(whole) - 1))
    refused(tmp_path / "m", whole[:length])


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_table_with_a_changed_byte_gives_a_model_or_a_reason(
    tmp_path: Path, whole: bytes, data: st.DataObject
) -> None:
    changed = bytearray(whole)
    end = 8 + int.from_bytes(whole[:8], "little")
    changed[data.draw(st.integers(0, end - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "m"
    path.write_bytes(changed)
    try:
        model.load(path).predictor()
    except ModelError as exc:
        assert exc.errno in (errno.EBADMSG, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT)


def with_metadata(whole: bytes, **changes: str | None) -> bytes:
    size = int.from_bytes(whole[:8], "little")
    table = json.loads(whole[8 : 8 + size])
    table["__metadata__"] = {
        name: value for name, value in {**table["__metadata__"], **changes}.items() if value is not None
    }
    encoded = json.dumps(table).encode()
    return struct.pack("<Q", len(encoded)) + encoded + whole[8 + size :]


NAN = json.dumps([float("nan")] * len(features.NAMES))
ZEROS = json.dumps([0.0] * len(features.NAMES))


@pytest.mark.parametrize(
    ("changes", "number", "said"),
    [
        ({"format": None}, errno.EBADMSG, "not a model of"),
        ({"format": "pt"}, errno.EBADMSG, "not a model of"),
        ({"version": "1"}, errno.EPROTONOSUPPORT, "version 1"),
        ({"features": '["age"]'}, errno.EOPNOTSUPP, "other features"),
        ({"features": "["}, errno.EBADMSG, "metadata"),
        ({"feature_mean": "[1, 2]"}, errno.EBADMSG, "scales"),
        ({"feature_mean": NAN}, errno.EBADMSG, "feature_mean: NaN is not a number"),
        ({"feature_deviation": ZEROS}, errno.EBADMSG, "above 0"),
        ({"window_ms": "0"}, errno.EBADMSG, "above 0"),
        ({"window_ms": "soon"}, errno.EBADMSG, "metadata"),
        ({"window_ms": "1e3"}, errno.EBADMSG, "window"),
        ({"feature_mean": "[[1], [2, 3]]"}, errno.EBADMSG, "scales"),
        ({"feature_mean": '{"a": 1, "a": 2}'}, errno.EBADMSG, "stands twice"),
        ({"provenance": "{}"}, errno.EBADMSG, "provenance does not say"),
        ({"provenance": "[" * 100_000}, errno.EBADMSG, "nested too deeply"),
        ({"provenance": None}, errno.EBADMSG, "metadata"),
    ],
)
def test_metadata_of_something_else_is_refused(
    tmp_path: Path, whole: bytes, changes: dict[str, str | None], number: int, said: str
) -> None:
    error = refused(tmp_path / "m", with_metadata(whole, **changes))
    assert (error.errno, said in str(error)) == (number, True), str(error)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("traces", [1]),
        ("traces", "none"),
        ("traces", ["\ud800"]),
        ("trace_digests", ["xyz"]),
        ("trace_digests", [7]),
        ("seed", -1),
        ("seed", 1 << 64),
        ("seed", True),
        ("split", None),
        ("train_until_s", ["0"]),
        ("train_until_s", []),
        ("chosen_until_s", [1e301]),
        ("epochs", 1.5),
        ("validation_loss", "small"),
        ("trained_with", {}),
    ],
)
def test_a_provenance_that_no_document_could_tell_is_refused(
    tmp_path: Path, whole: bytes, field: str, value: object
) -> None:
    size = int.from_bytes(whole[:8], "little")
    made = json.loads(json.loads(whole[8 : 8 + size])["__metadata__"]["provenance"])
    changed = with_metadata(whole, provenance=json.dumps({**made, field: value}))
    assert "provenance has a value that cannot be" in str(refused(tmp_path / "m", changed))


def test_another_shape_is_named(tmp_path: Path) -> None:
    from safetensors.numpy import save

    metadata = {"format": model.FORMAT, "version": "0"}
    tensors = {name: np.zeros(shape, dtype) for name, dtype, shape in model.layout()}
    smaller = {**tensors, "head": np.zeros((22, 64), np.int8)}
    error = refused(tmp_path / "m", save(smaller, metadata=metadata))
    assert error.errno == errno.EOPNOTSUPP
    assert "head is I8 [22, 64]; I8 [22, 128] was expected" in str(error)
    missing = {name: tensor for name, tensor in tensors.items() if name != "head_bias"}
    assert "head_bias is missing" in str(refused(tmp_path / "m", save(missing, metadata=metadata)))
    more = {**tensors, "attention": np.zeros(1, np.int8)}
    assert "attention is not a tensor" in str(refused(tmp_path / "m", save(more, metadata=metadata)))


def test_numbers_out_of_their_range_are_refused_by_the_library(tmp_path: Path) -> None:
    made = blank_model()
    made.tensors["head_bias"][3] = 1 << 24
    path = tmp_path / "m"
    model.save(made, path)
    with pytest.raises(ModelError, match="not those of a model"):
        model.load(path)


def test_a_model_knows_what_it_has_seen() -> None:
    made = blank_model(trace_digests=["ab"], chosen_until_s=[80.0])
    assert made.has_seen("ab", 79.0)
    assert not made.has_seen("ab", 80.0)
    assert not made.has_seen("cd", 0.0)
