# SPDX-License-Identifier: MIT
"""A calibration is what a model's KV shows: it loads, keeps its ratio, and puts errors where they do not hurt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'speckv[codec]'")

import speckv  # noqa: E402
from safetensors.numpy import load, save  # noqa: E402
from speckv.codec import Calibration, Identity, decode_frame, encode_frame  # noqa: E402

from speckvctl.codecs import calibration, llama  # noqa: E402
from tests.unit.codec_eval import tiny  # noqa: E402

SHAPE = speckv.Geometry(tiny.LAYERS, tiny.KV_HEADS, tiny.HEAD_DIM, 64)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> llama.Llama:
    folder = tmp_path_factory.mktemp("tiny") / "model"
    tiny.write(folder)
    return llama.load(folder)


@pytest.fixture(scope="module")
def made(model: llama.Llama) -> calibration.Made:
    return calibration.make(model, tiny.documents(4, 200).astype(np.int64), ratio=5.0, source="tests")


def through(file: bytes, words: Any, position: int) -> tuple[Any, int]:
    loaded = Calibration(file)
    frame = encode_frame(SHAPE, "q5c", words, identity=Identity(first_position=position), calibration=loaded)
    out = np.empty_like(words)
    decode_frame(frame, out=out, calibration=loaded)
    return out, len(frame)


def block(model: llama.Llama, first: int, seed: int = 11) -> Any:
    """KV of 64 tokens that were not calibrated on, as bf16 words [layer][K, V][head][token][channel]."""
    kept: list[Any] = []
    ids = torch.from_numpy(tiny.documents(1, first + 64, seed).astype(np.int64))
    with torch.inference_mode():
        model.hidden(ids, keep=lambda _layer, k, v: kept.append(torch.stack((k[0, :, first:], v[0, :, first:]))))
    return torch.stack(kept).bfloat16().view(torch.int16).numpy()


def values(words: Any) -> Any:
    return (words.astype(np.uint16).astype(np.uint32) << 16).view(np.float32)


def test_the_file_loads_and_frames_keep_the_ratio(model: llama.Llama, made: calibration.Made) -> None:
    loaded = Calibration(made.file)
    assert (loaded.layers, loaded.kv_heads, loaded.head_dim) == (tiny.LAYERS, tiny.KV_HEADS, tiny.HEAD_DIM)
    assert loaded.codecs == (speckv.Codec.Q5C,)
    assert made.ratio >= 5.0 and made.documents == 4 and made.tokens == 4 * 199 and made.loss_nats > 0
    words = block(model, 64)
    _, size = through(made.file, words, 64)
    assert words.nbytes / size == pytest.approx(made.ratio)


def test_values_come_back_with_the_true_position_only(model: llama.Llama, made: calibration.Made) -> None:
    words = block(model, 128)
    exact = values(words)

    def loss(position: int) -> float:
        found, _ = through(made.file, words, position)
        return float(((values(found) - exact)[:, 0] ** 2).mean() / (exact[:, 0] ** 2).mean())

    assert loss(128) < 0.2
    # A rotation that comes off wrongly goes on again just so: only the mean is in the wrong place.
    assert loss(128) <= loss(131) * 1.02


def test_shaping_puts_errors_where_they_do_not_hurt() -> None:
    rng = np.random.default_rng(5)
    width = 64
    directions = rng.normal(size=(width, 4))
    sensitivity = directions @ directions.T + 0.01 * np.eye(width)  # in a few directions of rotated values
    rows, columns = np.tril_indices(width, -1)
    tables: dict[str, Any] = {
        "q5c.unit": np.full((1, 2, 1), -9, np.int8),
        "q5c.mean": np.zeros((1, 2, 1, width), np.int16),
        "q5c.bits": np.full((1, 2, 1), 3, np.uint8),
        "q5c.levels": np.zeros((1, 2, 1, 32), np.int16),
        "q5c.shaping": np.zeros((1, 2, 1, width * (width - 1) // 2), np.int16),
    }
    tables["q5c.levels"][..., :8] = calibration.levels(3)
    about = {"format": calibration.FORMAT, "version": calibration.VERSION, "rotary": "none"}
    plain = Calibration(save(tables, about))
    tables["q5c.shaping"][...] = calibration._shaping(sensitivity)[rows, columns]
    shaped = Calibration(save(tables, about))
    shape = speckv.Geometry(1, 1, width, 64)
    words = torch.from_numpy(rng.normal(size=(2, 64, width))).bfloat16().view(torch.int16).numpy()
    rotation = calibration._rotation(width, "cpu").numpy()
    cost, error = [], []
    for loaded in (plain, shaped):
        out = np.empty_like(words)
        decode_frame(encode_frame(shape, "q5c", words, calibration=loaded), out=out, calibration=loaded)
        lost = (values(out) - values(words)) @ rotation
        cost.append(float(np.einsum("xtc,cd,xtd->", lost, sensitivity, lost)))
        error.append(float((lost**2).sum()))
    assert cost[1] < 0.4 * cost[0]
    assert error[1] < 3 * error[0]


def test_bits_go_where_they_save_most() -> None:
    losses = np.array([4.0**-w for w in calibration.WIDTHS])[:, None, None, None] * np.array([[[1.0, 64.0]] * 2])
    widths = calibration._widths(losses, 14)
    assert widths.sum() == 14 and (widths[..., 1] == widths[..., 0] + 3).all()
    assert (calibration._widths(losses, 99) == 5).all()


def test_level_tables_are_those_of_a_normal_distribution() -> None:
    # Max, "Quantizing for minimum distortion" (1960), table I.
    assert calibration.levels(1).tolist() == [-204, 204]
    assert np.allclose(calibration.levels(2) / 256, [-1.510, -0.4528, 0.4528, 1.510], atol=2e-3)
    assert np.allclose(calibration.levels(3)[4:] / 256, [0.2451, 0.7560, 1.344, 2.152], atol=3e-3)


def test_the_file_says_what_it_was_made_from(made: calibration.Made) -> None:
    tensors = load(made.file)
    assert tensors["q5c.bits"].tolist() == made.widths.tolist()
    assert b'"source":"tests"' in made.file and b'"documents":"4"' in made.file


def test_a_ratio_out_of_reach_is_refused(model: llama.Llama) -> None:
    with pytest.raises(calibration.CalibrationError, match="out of reach"):
        calibration.make(model, tiny.documents(1, 140).astype(np.int64), ratio=15.0)


def test_the_same_seed_makes_the_same_file(model: llama.Llama, made: calibration.Made, tmp_path: Path) -> None:
    again = calibration.make(model, tiny.documents(4, 200).astype(np.int64), ratio=5.0, source="tests")
    assert load(again.file)["q5c.bits"].tolist() == made.widths.tolist()
