# SPDX-License-Identifier: MIT
"""Pools in a codec with a calibration: the pool keeps the file, and everything works without naming it again."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import speckv
from speckv import codec

from tests.cli.conftest import Cli, write_kv, write_trace
from tests.cli.test_errors import Remember, refused

CREATE = ("pool", "create", "host:DRAM", "small", "--size", "8MiB")
CALIBRATED = (*CREATE, "--codec", "q5c", "--calibration", "calibration.safetensors")
REPLAY = ("replay", "trace.jsonl", "--device", "host:DRAM", "--pool", "small", "--kv", "kv64.safetensors", "--max-rate")
#: Of the fixture: the whole of a model with two layers of one KV head.
SHAPE = speckv.Geometry(layers=2, kv_heads=1, head_dim=64)


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:32]


@pytest.fixture
def small(chat: Cli) -> Cli:
    """The world of `chat`, a pool `small` with a calibration, KV of its head size, and no calibration file any more."""
    chat.ok(*CALIBRATED)
    write_kv(chat.folder / "kv64.safetensors", head_dim=64)
    (chat.folder / "calibration.safetensors").rename(chat.folder / "elsewhere")
    return chat


def test_a_pool_takes_its_shape_from_the_calibration_and_shows_its_digest(chat: Cli) -> None:
    digest = digest_of(chat.folder / "calibration.safetensors")
    planned = chat.document(*CALIBRATED, "--dry-run")
    assert planned["plan"]["calibration_digest"] == digest
    made = chat.document(*CALIBRATED)
    assert {**planned["plan"]} == made["plan"] and made["plan"]["placement"] == "host"
    assert made["pool"]["calibration_digest"] == digest and made["pool"]["codec"] == "q5c"
    assert made["pool"]["geometry"] == {"layers": 2, "kv_heads": 1, "head_dim": 64, "tokens": 64, "dtype": "bf16"}
    assert digest in chat.ok("pool", "show", "host:DRAM", "small").out
    assert chat.document("pool", "show", "host:DRAM", "chat")["pool"]["calibration_digest"] is None
    assert "Calibration" not in chat.ok("pool", "show", "host:DRAM", "chat").out


def test_a_part_of_the_model_is_named(chat: Cli) -> None:
    error = chat.failure(*CALIBRATED, "--layers", "1")
    assert error["exit_code"] == 2 and "layers 2, the blocks have 1" in error["message"]
    assert "--first-layer" in error["next"]
    for layer, name in ((0, "first"), (1, "last")):
        command = ["pool", "create", "host:DRAM", name, *CALIBRATED[4:], "--layers", "1", "--first-layer", str(layer)]
        assert chat.document(*command)["pool"]["geometry"]["layers"] == 1


def test_replay_verifies_every_byte_and_reports_the_true_ratio(small: Cli) -> None:
    said = small.document(*REPLAY)
    assert said["blocks_written"] > 0 and said["blocks_read"] > 0
    assert (said["verified_blocks"], said["mismatches"], said["errors"]) == (said["blocks_read"], 0, 0)
    loaded = codec.Calibration.load(small.folder / "elsewhere")
    zeros = bytes(SHAPE.block_bytes)
    first, later = (
        codec.encode_frame(
            SHAPE, "q5c", zeros, identity=codec.Identity(first_position=position), calibration=loaded
        ).nbytes
        for position in (0, SHAPE.tokens)
    )
    sessions = 3  # of write_trace(), and each has one block that keeps its first tokens
    assert said["bytes_stored"] == sessions * first + (said["blocks_written"] - sessions) * later
    assert said["ratio"] == said["blocks_written"] * SHAPE.block_bytes / said["bytes_stored"]
    again = small.document(*REPLAY, "--clients", "2")
    assert (again["blocks_written"], again["hit_share"], again["mismatches"], again["errors"]) == (0, 1.0, 0, 0)
    pool = small.document("pool", "show", "host:DRAM", "small")["pool"]
    assert pool["ratio"] == said["ratio"]
    assert pool["effective_capacity_bytes"] == pool["capacity_bytes"] * pool["raw_bytes"] // pool["used_bytes"]
    assert pool["effective_capacity_bytes"] > 2 * pool["capacity_bytes"]


def test_a_pool_holds_blocks_whose_length_their_content_decides(chat: Cli) -> None:
    """e7c is entropy coded: a block claims the most it could need, and gives back what it does not."""
    golden = Path(__file__).resolve().parent.parent / "vectors" / "calibrated"
    loaded = codec.Calibration.load(golden / "e7c-bf16-h64-halves-channels-13.safetensors")
    chat.ok(*CREATE, "--codec", "e7c", "--calibration", golden / "e7c-bf16-h64-halves-channels-13.safetensors")
    write_kv(chat.folder / "kv64.safetensors", head_dim=64)
    said = chat.document(*REPLAY)
    assert said["blocks_written"] > 0 and said["blocks_read"] > 0
    assert (said["verified_blocks"], said["mismatches"], said["errors"]) == (said["blocks_read"], 0, 0)
    shape = speckv.Geometry(layers=loaded.layers, kv_heads=loaded.kv_heads, head_dim=64)
    assert said["bytes_raw"] == said["blocks_written"] * shape.block_bytes
    assert said["bytes_stored"] <= said["blocks_written"] * codec.frame_max_bytes(shape, "e7c")
    pool = chat.document("pool", "show", "host:DRAM", "small")["pool"]
    assert (pool["codec"], pool["ratio"]) == ("e7c", said["ratio"])
    assert chat.document("pool", "check", "host:DRAM", "small", "--deep")


def test_an_id_at_two_positions_is_two_blocks(small: Cli) -> None:
    """What comes back depends on the position; an engine's hash depends on it too."""
    lines = [
        f'{{"timestamp": {n}, "input_length": 512, "output_length": 1, "hash_ids": {ids}}}\n'
        for n, ids in enumerate(([1, 2], [2, 1], [1, 2], [2, 1]))
    ]
    (small.folder / "trace.jsonl").write_text("".join(lines))
    said = small.document(*REPLAY)
    assert (said["blocks_written"], said["blocks_read"], said["mismatches"]) == (4, 4, 0)


def test_a_foreign_calibration_stops_only_its_readers(small: Cli) -> None:
    small.ok(*REPLAY)
    pool = small.document("pool", "show", "host:DRAM", "small")["pool"]
    medium, file = Path(pool["path"]), (small.folder / "elsewhere").read_bytes()
    offset = medium.read_bytes().find(file)
    assert offset > 0
    with medium.open("r+b") as stream:
        stream.seek(offset + len(file) - 1)
        stream.write(bytes([file[-1] ^ 1]))
    error = small.failure(*REPLAY)
    assert error["exit_code"] == 7
    assert pool["calibration_digest"] in error["message"] and "create it anew" in error["message"]
    assert small.document("pool", "show", "host:DRAM", "small")["pool"]["blocks"] == pool["blocks"]
    assert small.document("pool", "check", "host:DRAM", "small", "--deep")["clean"] is True
    assert small.document("stats", "host:DRAM", "small")["pools"][0]["ratio"] == pool["ratio"]
    small.ok("pool", "resize", "host:DRAM", "small", "--size", "16MiB")
    small.ok("pool", "destroy", "host:DRAM", "small", "--yes")


WRONG = [
    (["--codec", "q5c"], 2, "needs a calibration"),
    (["--codec", "q4x", "--calibration", "calibration.safetensors"], 2, "takes no calibration"),
    (["--codec", "q4x", "--first-layer", "1"], 2, "takes no calibration"),
    (["--codec", "q5c", "--calibration", "none.safetensors"], 4, "none.safetensors"),
    (["--codec", "q5c", "--calibration", "kv.safetensors"], 7, "kv.safetensors: not a calibration"),
    (["--codec", "q5c", "--calibration", "cut.safetensors"], 7, "cut.safetensors: not a calibration"),
    (["--codec", "q5c", "--calibration", "h80.safetensors", "--head-dim", "64"], 2, "head size 80"),
    (["--codec", "q5c", "--calibration", "calibration.safetensors", "--layers", "3"], 2, "layers 2"),
    (["--codec", "q5c", "--calibration", "calibration.safetensors", "--kv-heads", "8"], 2, "KV heads 1"),
    (["--codec", "q5c", "--calibration", "calibration.safetensors", "--block-bytes", "64KiB"], 2, "head size 64"),
    (["--codec", "q5c", "--calibration", "calibration.safetensors", "--first-layer", "2"], 2, "none is left"),
    (["--codec", "q5c", "--calibration", "calibration.safetensors", "--first-head", "-1"], 2, "from 0 to 65535"),
    (["--codec", "q5c", "--calibration", "calibration.safetensors", "--dtype", "fp8_e4m3"], 2, "no such block shape"),
]


@pytest.mark.parametrize(("options", "code", "reason"), WRONG, ids=[" ".join(row[0][1:]) for row in WRONG])
def test_what_cannot_be_is_refused_and_leaves_nothing(
    options: list[str], code: int, reason: str, chat: Cli, unchanged: Remember
) -> None:
    whole = (chat.folder / "calibration.safetensors").read_bytes()
    (chat.folder / "cut.safetensors").write_bytes(whole[:-100])
    vectors = Path(__file__).resolve().parents[1] / "vectors" / "calibrated"
    shutil.copy(next(vectors.glob("*-h80-*.safetensors")), chat.folder / "h80.safetensors")
    refused(chat(*CREATE, *options), code, reason)
    names = {pool["name"] for pool in chat.document("pool", "list")["pools"]}
    assert names == {"chat"}


def test_on_a_card_this_machine_codes_and_says_so(card: Cli) -> None:
    words = ["emu:card0" if word == "host:DRAM" else word for word in CALIBRATED]
    said = card.ok(*words).out
    assert "The card cannot code q5c: this machine does" in said
    pool = card.document("pool", "show", "emu:card0", "small")["pool"]
    assert pool["placement"] == "host"
    write_kv(card.folder / "kv64.safetensors", head_dim=64)
    write_trace(card.folder / "trace.jsonl")
    replay = ["emu:card0" if word == "host:DRAM" else word for word in REPLAY]
    done = card.document(*replay)
    assert done["verified_blocks"] == done["blocks_read"] > 0 and done["mismatches"] == done["errors"] == 0
    made = card.document("pool", "create", "emu:card0", "other", "--size", "8MiB", "--codec", "q4x")
    assert made["plan"]["placement"] == made["pool"]["placement"] == "card"
