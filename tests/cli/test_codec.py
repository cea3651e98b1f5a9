# SPDX-License-Identifier: MIT
"""speckvctl codec: figures that a third party finds again, and a clear refusal of everything that is not K and V."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import speckv
from safetensors.numpy import load_file
from speckv import codec

from tests.cli.conftest import Cli
from tests.unit.codec_eval import kv, tiny

SHAPE = (2, 256, 128)


@pytest.fixture
def cache(cli: Cli) -> Cli:
    """A folder with K and V in fp16, which numpy reads too."""
    kv.pairs(cli.folder / "kv16.safetensors", shape=SHAPE, dtype="F16")
    return cli


def relative_rmse(was: dict[str, Any], now: dict[str, Any], kind: str) -> float:
    names = [name for name in now if name.endswith(f".{kind}")]
    errors = sum(((now[name].astype(np.float64) - was[name]) ** 2).sum() for name in names)
    return float(np.sqrt(errors / sum((was[name].astype(np.float64) ** 2).sum() for name in names)))


def error_share(was: dict[str, Any], now: dict[str, Any], kind: str) -> float:
    names = [name for name in now if name.endswith(f".{kind}")]
    errors = energy = 0.0
    for name in names:
        groups = was[name].astype(np.float64)
        groups = groups.reshape(groups.shape[0], -1, 64, groups.shape[-1])
        errors += ((now[name].astype(np.float64) - was[name]) ** 2).sum()
        energy += ((groups - groups.mean(2, keepdims=True)) ** 2).sum()
    return errors / energy


@pytest.mark.parametrize("mode", codec.modes())
def test_a_third_party_finds_the_figures_of_eval_in_the_files(mode: str, cache: Cli) -> None:
    said = cache.document("codec", "eval", "kv16.safetensors", "--codec", mode)
    made = cache.document("codec", "encode", "kv16.safetensors", "-o", "kv16.frames", "--codec", mode)
    cache.document("codec", "decode", "kv16.frames", "-o", "back.safetensors")
    was, now = (load_file(cache.folder / name) for name in ("kv16.safetensors", "back.safetensors"))
    assert sorted(now) == [f"doc.layer{layer}.{kind}" for layer in (0, 1) for kind in "kv"]
    size = (cache.folder / "kv16.frames").stat().st_size
    assert said["ratio"] == sum(tensor.nbytes for tensor in now.values()) / size == made["ratio"]
    assert said["k_relative_rmse"] == pytest.approx(relative_rmse(was, now, "k"), rel=1e-9)
    assert said["v_relative_rmse"] == pytest.approx(relative_rmse(was, now, "v"), rel=1e-9)
    for kind in "kv":
        assert said[f"{kind}_error_share"] == pytest.approx(error_share(was, now, kind), rel=1e-9)
    assert (said["file_bit_exact_blocks"], made["bit_exact_frames"]) == (0, 0)
    assert said["exact"] == all(np.array_equal(now[name], was[name]) for name in now)
    assert said["exact"] == (mode in ("raw", "lossless"))
    assert said["encode_bytes_per_second"] > 0 and said["decode_bytes_per_second"] > 0


def test_the_shared_model_is_run_on_what_was_decoded(cache: Cli) -> None:
    pytest.importorskip("torch", reason="torch is not installed: pip install 'speckv[codec]'")
    tiny.write(cache.folder / "model")
    np.save(cache.folder / "tokens.npy", tiny.documents(3, 200))
    run = ("--model", "model", "--tokens", "tokens.npy")
    lossy = cache.document("codec", "eval", "kv16.safetensors", *run, "--documents", "2", "--prefix-tokens", "64")
    assert (lossy["documents"], lossy["prefix_tokens"]) == (2, 64)
    for rule in (lossy["blocks"], lossy["prefix"]):
        increase = 100 * (rule["perplexity"] / rule["perplexity_reference"] - 1)
        assert increase != 0
        assert rule["perplexity_increase_percent"] == pytest.approx(increase, abs=1e-9)
        assert rule["perplexity_standard_error_percent"] > 0 and rule["kl_standard_error_millinats"] > 0
        assert 0 < rule["kl_millinats"] < rule["worst_kl_millinats"] and rule["worst_document"] in (0, 1)
        assert 0.5 < rule["top1_agreement"] <= 1
    assert 3.5 < lossy["run_ratio"] < 4.5
    # Two documents, two layers: three blocks by one rule, one by the other.
    assert (lossy["run_blocks"], lossy["run_bit_exact_blocks"]) == (16, 0)
    raw = cache.document("codec", "eval", "kv16.safetensors", "--codec", "raw", *run, "--skip-documents", "1")
    assert raw["documents"] == 2
    assert raw["blocks"]["perplexity_reference"] != lossy["blocks"]["perplexity_reference"]
    assert abs(raw["blocks"]["perplexity_increase_percent"]) < 1e-3 and raw["blocks"]["kl_millinats"] < 1e-3
    assert raw["prefix"]["kl_millinats"] < 1e-6 and raw["prefix"]["top1_agreement"] == 1
    table = cache.document("codec", "compare", "kv16.safetensors", *run, "--documents", "2", "--prefix-tokens", "64")
    rows = {row["name"]: row for row in table["rows"]}
    for key in ("blocks", "prefix"):
        assert rows["q4x"][key] == pytest.approx(lossy[key], rel=1e-6)
        assert rows["raw"][key] is None and rows["zstd -1"][key] is None
        assert rows["KIVI 4-bit"][key]["kl_millinats"] > 0
    apart = cache.document("codec", "eval", "kv16.safetensors", *run, "--documents", "2", "--by-layer")
    assert [row["layer"] for row in apart["layers"]] == [0, 1] and lossy["layers"] is None
    for rule in ("blocks", "prefix"):
        parts = [row[rule]["kl_millinats"] for row in apart["layers"]]
        assert all(0 < part < 1.5 * apart[rule]["kl_millinats"] for part in parts) and parts[0] != parts[1]
        assert 0.5 < sum(parts) / apart[rule]["kl_millinats"] < 2
    assert "ONE LAYER" in cache.ok("codec", "eval", "kv16.safetensors", *run, "--by-layer").out
    shown = cache.ok("codec", "eval", "kv16.safetensors", *run).out
    assert "± " in shown and "KL, MNAT" in shown and "0 of 24 blocks of a layer" in shown


def test_the_model_answers_questions_on_what_was_decoded(cache: Cli) -> None:
    pytest.importorskip("torch", reason="torch is not installed: pip install 'speckv[codec]'")
    tiny.write(cache.folder / "model", max_position_embeddings=2048)
    tiny.write_tokenizer(cache.folder / "model")
    run = ("--tasks", "--model", "model", "--task-items", "4", "--context", "512", "--seed", "3")
    said = cache.document("codec", "eval", "kv16.safetensors", *run)
    tasks = {row["name"]: row for row in said["tasks"]}
    assert list(tasks) == ["arithmetic", "needle", "code", "average"]
    assert [tasks[name]["items"] for name in tasks] == [4, 4, 4, 12]
    assert (said["tokens"], said["blocks"], said["task_seed"]) == (None, None, 3)
    assert 3.5 < said["tasks_ratio"] < 4.5 and tasks["arithmetic"]["stored_tokens"] == 256
    raw = cache.document("codec", "eval", "kv16.safetensors", "--codec", "raw", *run)
    for row in raw["tasks"]:
        assert row["percent"] == row["reference_percent"] == tasks[row["name"]]["reference_percent"]
        assert row["difference_points"] == row["lost"] == row["gained"] == 0
    np.save(cache.folder / "tokens.npy", tiny.documents(5, 260))
    on = ("--tokens", "tokens.npy", "--skip-documents", "3", "--documents", "2")
    table = cache.document("codec", "compare", "kv16.safetensors", "--codec", "q4x", "--codec", "raw", *run, *on)
    rows = {row["name"]: row for row in table["rows"]}
    assert rows["q4x"]["tasks"] == said["tasks"] and rows["q4x"]["prefix"]["kl_millinats"] > 0
    assert rows["raw"]["tasks"] is None and rows["zstd -1"]["tasks"] is None
    assert len(rows["fp8 e4m3 scaled"]["tasks"]) == 4
    # The file is not of this model.
    assert any(left["name"] == "KVTC-like 8x" and "all layers" in left["reason"] for left in table["left_out"])
    made = ("codec", "extract", "--model", "model", "--tokens", "tokens.npy", "-o", "made.safetensors")
    cache.ok(*made, "--documents", "1")
    fitted = cache.ok("codec", "compare", "made.safetensors", "--codec", "q4x", *run, *on).out
    assert "KVTC-like 8x, points" in fitted and "raw, percent right" in fitted
    assert "GAINED" in cache.ok("codec", "eval", "kv16.safetensors", *run, *on, "--by-layer").out


def test_tasks_that_a_model_cannot_be_given_are_refused_and_say_why(cache: Cli) -> None:
    pytest.importorskip("torch", reason="torch is not installed: pip install 'speckv[codec]'")
    tiny.write(cache.folder / "model")
    call = ("codec", "eval", "kv16.safetensors", "--tasks", "--model", "model")
    assert "has no tokenizer" in cache.failure(*call)["message"]
    tiny.write_tokenizer(cache.folder / "model")
    long = cache.failure(*call, "--context", "513")
    assert long["exit_code"] == 2 and "more than the 512 of model" in long["message"]
    assert "the model takes 512" in cache.failure(*call)["message"]  # the code task needs more


def test_extracted_tensors_are_the_models_own_cache_and_other_verbs_read_them(cache: Cli) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'speckv[codec]'")
    transformers = pytest.importorskip(
        "transformers", reason="transformers is not installed: pip install 'speckv[codec]'"
    )
    tiny.write(cache.folder / "model")
    np.save(cache.folder / "tokens.npy", tiny.documents(3, 200))
    call = ("codec", "extract", "--model", "model", "--tokens", "tokens.npy", "-o", "made.safetensors")
    said = cache.document(*call, "--skip-documents", "1")
    assert (said["documents"], said["document_tokens"]) == (2, 192)
    from safetensors.torch import load_file as load_bf16  # numpy has no bf16

    made = load_bf16(cache.folder / "made.safetensors")
    assert sum(tensor.nbytes for tensor in made.values()) == said["raw_bytes"]
    model = transformers.AutoModelForCausalLM.from_pretrained(cache.folder / "model", dtype=torch.float32)
    for document, ids in enumerate(tiny.documents(3, 200)[1:]):
        with torch.no_grad():
            own = model(torch.from_numpy(ids[None].astype(np.int64)), use_cache=True).past_key_values
        for layer, states in enumerate(own.layers):
            for kind, values in (("k", states.keys), ("v", states.values)):
                found = made[f"doc{document}.layer{layer}.{kind}"].float()
                # Later layers see those before them through a cache of bf16.
                near = {"rtol": 2**-7, "atol": 0.05 if layer else 1e-6}
                assert torch.allclose(found, values[0, :, :192].bfloat16().float(), **near)
    assert len(made) == 2 * 2 * len(own.layers)
    assert cache.document("codec", "eval", "made.safetensors")["raw_bytes"] == said["raw_bytes"]
    before = (cache.folder / "made.safetensors").read_bytes()
    assert cache.document(*call, "--documents", "1", "--dry-run")["raw_bytes"] == said["raw_bytes"] // 2
    assert (cache.folder / "made.safetensors").read_bytes() == before


def test_the_plot_is_written_with_the_table(cache: Cli) -> None:
    text = cache.ok("codec", "compare", "kv16.safetensors", "--codec", "q4x", "--no-peers", "--svg", "plot.svg").out
    assert "Wrote plot.svg." in text
    picture = ElementTree.fromstring((cache.folder / "plot.svg").read_text("utf-8"))
    points = [element.attrib for element in picture.iter() if element.tag.endswith("circle")]
    words = [element.text or "" for element in picture.iter() if element.tag.endswith("text")]
    (row,) = cache.document("codec", "compare", "kv16.safetensors", "--codec", "q4x", "--no-peers")["rows"]
    assert len(points) == 1 and float(points[0]["cx"]) > 0 and float(points[0]["cy"]) > 0
    assert any(word.startswith("q4x ") and f"{row['ratio']:.2f}" in word for word in words), words


def test_frames_of_more_tokens_save_more(cache: Cli) -> None:
    by_64 = cache.document("codec", "eval", "kv16.safetensors")
    by_256 = cache.document("codec", "eval", "kv16.safetensors", "--block-tokens", "256")
    assert by_64["ratio"] < by_256["ratio"] < 4.5
    assert by_64["k_relative_rmse"] == by_256["k_relative_rmse"]


def test_a_golden_frame_that_differs_is_a_failed_verification(chat: Cli) -> None:
    assert "makes and reads all of them" in chat.ok("codec", "vectors", "vectors").out
    index = chat.folder / "vectors" / "index.txt"
    index.write_text(index.read_text("ascii").replace(" mixed ", " smooth ", 1), "ascii")
    done = chat("codec", "vectors", "vectors")
    assert done.code == 7
    assert "This build differs" in done.out


BITS = kv.like_kv(SHAPE)
INFINITE = BITS.copy()
INFINITE[1, 100, 7] = 0xFF80


def cut(data: bytes) -> bytes:
    return data[:-100]


def flipped(data: bytes) -> bytes:
    place = data.index(b"SKVF", 64) + 1000
    return data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]


def later(data: bytes, offset: int = 4) -> bytes:
    """The first frame, of a version or mode that is not known yet."""
    begin = data.index(b"SKVF", 64)
    header = bytearray(data[begin : begin + 124])
    header[offset] = 9
    return data[:begin] + header + struct.pack("<I", codec.crc32c(bytes(header))) + data[begin + 128 :]


BAD_TENSORS: dict[str, tuple[dict[str, tuple[str, Any]], int, str]] = {
    "integers": ({"k": ("I8", BITS.view(np.int8)), "v": ("I8", BITS.view(np.int8))}, 8, "k is i8"),
    "empty": ({"k": ("BF16", BITS[:0]), "v": ("BF16", BITS[:0])}, 2, "k is empty"),
    "odd-sized": ({"k": ("BF16", BITS[:, :250]), "v": ("BF16", BITS[:, :250])}, 2, "250 tokens"),
    "not finite": ({"k": ("BF16", INFINITE), "v": ("BF16", BITS)}, 8, "not finite"),
    "an odd head": ({"k": ("BF16", BITS[..., :50]), "v": ("BF16", BITS[..., :50])}, 8, "head size 50"),
    "neither": ({"weights": ("BF16", BITS)}, 2, "no tensors named k and v"),
}


@pytest.mark.parametrize("case", BAD_TENSORS)
def test_bad_tensors_are_refused_and_the_output_stays(case: str, chat: Cli) -> None:
    held, code, reason = BAD_TENSORS[case]
    kv.write(chat.folder / "bad.safetensors", held)
    before = (chat.folder / "kv.frames").read_bytes()
    error = chat.failure("codec", "encode", "bad.safetensors", "-o", "kv.frames")
    assert error["exit_code"] == code
    assert reason in error["message"]
    assert (chat.folder / "kv.frames").read_bytes() == before
    assert not [path for path in chat.folder.iterdir() if path.name.startswith(".")]


def test_what_a_mode_cannot_hold_is_left_out_of_the_table(chat: Cli) -> None:
    kv.write(chat.folder / "bad.safetensors", BAD_TENSORS["not finite"][0])
    assert chat.failure("codec", "eval", "bad.safetensors")["exit_code"] == 8
    table = chat.document("codec", "compare", "bad.safetensors", "--no-peers")
    assert {row["name"] for row in table["rows"]} == {"raw", "lossless"}
    assert any(left["name"] == "q4x" and "not finite" in left["reason"] for left in table["left_out"])


@pytest.mark.parametrize(
    ("spoil", "code", "reason"),
    [(cut, 7, "frame"), (flipped, 7, "frame 0 of"), (later, 8, "version"), (lambda d: later(d, 6), 8, "mode")],
    ids=["cut short", "flipped bit", "later version", "later mode"],
)
def test_bad_frames_are_refused_and_the_output_stays(spoil: Any, code: int, reason: str, chat: Cli) -> None:
    (chat.folder / "bad.frames").write_bytes(spoil((chat.folder / "kv.frames").read_bytes()))
    before = (chat.folder / "kv.safetensors").read_bytes()
    error = chat.failure("codec", "decode", "bad.frames", "-o", "kv.safetensors")
    assert error["exit_code"] == code
    assert reason in error["message"]
    assert (chat.folder / "kv.safetensors").read_bytes() == before
    assert not [path for path in chat.folder.iterdir() if path.name.startswith(".")]


def test_another_file_is_not_written_over(chat: Cli) -> None:
    for command in (
        ("encode", "kv.safetensors", "-o", "kv.safetensors"),
        ("encode", "kv.safetensors", "-o", "trace.jsonl"),
        ("decode", "kv.frames", "-o", "kv.frames"),
        ("decode", "kv.frames", "-o", "vectors"),
    ):
        assert chat.failure("codec", *command)["exit_code"] == 2
    assert chat.failure("codec", "encode", "kv.safetensors", "-o", "none/new.frames")["exit_code"] == 4


WRONG_OPTIONS = [
    (["--codec", "zip"], 2),
    (["--codec", "q5c"], 2),
    (["--codec", "e7c"], 2),
    (["--codec", "q5c", "--calibration", "kv.safetensors"], 7),
    (["--calibration", "kv.safetensors"], 2),
    (["--block-tokens", "100"], 2),
    (["--model", "model"], 2),
    (["--skip-documents", "3"], 2),
    (["--prefix-tokens", "100", "--model", "m", "--tokens", "t"], 2),
    (["--model", "none", "--tokens", "none.npy"], 4),
    (["--compute", "cuda"], 2),
    (["--tasks"], 2),
    (["--task-items", "3"], 2),
    (["--context", "300", "--model", "m", "--tokens", "t"], 2),
    (["--tasks", "--model", "m", "--documents", "3"], 2),
    (["--tasks", "--model", "m", "--context", "100"], 2),
    (["--model", "m", "--tokens", "t", "--compute", "abacus"], 2),
    (["--model", "m", "--tokens", "t", "--compute", "cuda:99"], 8),
]


@pytest.mark.parametrize(("options", "code"), WRONG_OPTIONS, ids=lambda value: " ".join(map(str, np.atleast_1d(value))))
def test_options_that_cannot_be_are_refused_before_anything_runs(options: list[str], code: int, chat: Cli) -> None:
    if "none.npy" in options:
        pytest.importorskip("torch", reason="torch is not installed: pip install 'speckv[codec]'")
    assert chat.failure("codec", "eval", "kv.safetensors", *options)["exit_code"] == code


def test_a_calibration_is_made_for_the_mode_that_is_asked_for(chat: Cli) -> None:
    pytest.importorskip("torch", reason="torch is not installed: pip install 'speckv[codec]'")
    command = ["calibrate", "--model", "model", "--tokens", "tokens.npy", "-o", "new.safetensors", "--ratio", "4"]
    said = chat.document("codec", *command, "--codec", "e7c")
    assert said["codec"] == "e7c" and said["ratio"] >= 4
    wrong = chat.failure("codec", "eval", "kv.safetensors", "--codec", "q5c", "--calibration", "new.safetensors")
    assert "for e7c, not for q5c" in wrong["message"]
    assert chat.failure("codec", *command, "--codec", "q4x")["exit_code"] == 2


WRONG_CALIBRATIONS: dict[str, tuple[dict[str, int], list[str], str]] = {
    "a size of head that no codec takes": (
        {"head_dim": 32, "num_attention_heads": 8, "num_key_value_heads": 4},
        [],
        "head size 32",
    ),
    "a ratio that no width reaches": ({}, ["--ratio", "15"], "out of reach"),
    "a model without its weights": ({"num_hidden_layers": 3}, [], "has no tensor model.layers.2"),
}


@pytest.mark.parametrize("case", WRONG_CALIBRATIONS)
def test_a_dry_run_of_calibrate_refuses_what_the_shape_tells(case: str, cli: Cli) -> None:
    pytest.importorskip("torch", reason="torch is not installed: pip install 'speckv[codec]'")
    changes, options, words = WRONG_CALIBRATIONS[case]
    tiny.write(cli.folder / "model", **changes)
    np.save(cli.folder / "tokens.npy", tiny.documents(1, 130))
    command = ["calibrate", "--model", "model", "--tokens", "tokens.npy", "-o", "new.safetensors", *options]
    real, dry = cli("codec", *command), cli("codec", *command, "--dry-run")
    assert real.code == dry.code in (1, 2, 7) and words in real.line and real.err == dry.err


def test_tensors_of_another_model_than_the_calibrations_are_refused(chat: Cli, repository: Path) -> None:
    of = repository / "tests" / "vectors" / "calibrated" / "e7c-bf16-h64-none-tiny-29.safetensors"
    error = chat.failure("codec", "eval", "kv.safetensors", "--codec", "e7c", "--calibration", of)
    assert "the calibration has no layer" in error["message"] and error["errno"] == "ERANGE"


@pytest.mark.shared
def test_the_published_tensors_give_the_promised_ratio(cli: Cli, shared_dir: Path) -> None:
    said = cli.document("codec", "eval", shared_dir / "model" / "kv_dev.safetensors")
    assert said["ratio"] >= 4.3
    assert len(said["tensors"]) == 8 and len(said["skipped"]) == 4
    assert json.dumps(said)


def test_replay_reports_the_ratio_of_the_frames_that_it_stored(chat: Cli) -> None:
    chat.ok("pool", "create", "host:DRAM", "small", "--size", "64MiB", "--codec", "q4x")
    replay = ["replay", "trace.jsonl", "--device", "host:DRAM", "--pool", "small", "--kv", "kv.safetensors"]
    said = chat.document(*replay, "--max-rate")
    one = speckv.Geometry()
    assert said["blocks_written"] > 0
    assert said["bytes_raw"] == said["blocks_written"] * one.block_bytes
    # the first block of a sequence holds its first tokens as they are
    least, most = codec.frame_min_bytes(one, "q4x"), codec.frame_max_bytes(one, "q4x")
    assert least * said["blocks_written"] < said["bytes_stored"] < most * said["blocks_written"]
    assert said["ratio"] == said["bytes_raw"] / said["bytes_stored"]
    assert chat.document("pool", "show", "host:DRAM", "small")["pool"]["ratio"] == pytest.approx(said["ratio"])
