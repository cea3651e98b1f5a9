# SPDX-License-Identifier: MIT
"""Prefetchers at the command line: what is refused, and that nothing is written then."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, Finished, Unchanged, environment

Remember = Callable[[], Unchanged]
EVAL = ("prefetcher", "eval")
TRAIN = ("train-prefetcher", "conversations.jsonl", "-o", "new.safetensors")


def refused(done: Finished, code: int, *words: str) -> None:
    """One line on stderr, nothing on stdout, the exit code, and every word in the line."""
    assert (done.code, done.out) == (code, ""), done.err
    for word in words:
        assert word in done.line, f"'{word}' is not in: {done.line}"
    assert "Traceback" not in done.err and "internal error" not in done.err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((*EVAL, "conversations.jsonl"), 2, ["a model and a trace"]),
        ((*EVAL, "--baseline", "lru", "model.safetensors", "conversations.jsonl"), 2, ["a trace alone"]),
        ((*EVAL, "--baseline", "oracle", "conversations.jsonl"), 2, ["'oracle'", "popularity"]),
        ((*EVAL, "--baseline", "lru", "conversations.jsonl", "--score-from-ms", "1e12"), 2, ["the trace ends at"]),
        ((*EVAL, "--baseline", "lru", "conversations.jsonl", "--cache-share", "2"), 2, ["--cache-share"]),
        ((*EVAL, "--baseline", "lru", "none.jsonl"), 4, ["none.jsonl"]),
        ((*EVAL, "none.safetensors", "conversations.jsonl"), 4, ["none.safetensors"]),
        ((*EVAL, "conversations.jsonl", "conversations.jsonl"), 7, ["not a safetensors file"]),
        ((*EVAL, "model.safetensors", "model.safetensors"), 7, ["line 1"]),
        ((*EVAL, "--baseline", "lru", "conversations.jsonl", "--scores", "no/where"), 4, ["no/"]),
        (("prefetcher", "show", "conversations.jsonl"), 7, ["not a safetensors file"]),
        (("train-prefetcher", "conversations.jsonl", "-o", "no/where"), 4, ["is not a folder"]),
        (("train-prefetcher", "conversations.jsonl", "-o", "."), 2, ["is a folder"]),
        (("train-prefetcher", "conversations.jsonl", "-o", "conversations.jsonl"), 7, ["not a safetensors file"]),
        (("train-prefetcher", "none.jsonl", "-o", "new.safetensors", "--dry-run"), 4, ["none.jsonl"]),
        (("train-prefetcher", "trace.jsonl", "-o", "new.safetensors", "--dry-run"), 2, ["too short to learn from"]),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line_and_nothing_is_written(
    chat: Cli, unchanged: Remember, arguments: tuple[str, ...], code: int, words: list[str]
) -> None:
    check = unchanged()
    refused(chat(*arguments), code, *words)
    check()


@pytest.mark.parametrize(
    ("name", "change", "code", "word"),
    [
        ("cut short", lambda data: data[:-100], 7, "cut short"),
        ("foreign", lambda data: data.replace(b"speckv-return-model", b"somebody-elses-file"), 7, "not a model of"),
        ("newer", lambda data: data.replace(b'"version":"0"', b'"version":"1"'), 8, "version 1"),
        (
            "another shape",
            lambda data: data.replace(b'"shape":[22,128]', b'"shape":[128,22]'),
            8,
            "head is I8 [128, 22]",
        ),
    ],
)
def test_a_model_of_something_else_is_refused_for_what_it_is(
    chat: Cli, name: str, change: Callable[[bytes], bytes], code: int, word: str
) -> None:
    whole = (chat.folder / "model.safetensors").read_bytes()
    changed = change(whole)
    assert changed != whole
    (chat.folder / "other.safetensors").write_bytes(changed)
    refused(chat("prefetcher", "show", "other.safetensors"), code, "other.safetensors", word)
    refused(chat(*EVAL, "other.safetensors", "conversations.jsonl"), code, "other.safetensors", word)


@pytest.fixture
def without_torch(chat: Cli, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Finished]:
    folder = tmp_path_factory.mktemp("no-torch")
    (folder / "torch.py").write_text("raise ImportError('there is none')\n", encoding="ascii")

    def run(*arguments: str) -> Finished:
        return chat(*arguments, env=environment(PYTHONPATH=str(folder)))

    return run


def test_without_torch_training_is_refused_and_says_what_to_type(
    without_torch: Callable[..., Finished], unchanged: Remember
) -> None:
    check = unchanged()
    refused(without_torch(*TRAIN), 8, "torch", "pip install '.[train]' in the source tree")
    refused(without_torch(*EVAL, "--baseline", "mlp", "conversations.jsonl"), 8, "torch", "pip install")
    assert without_torch(*TRAIN, "--dry-run").code == 0
    check()


@pytest.mark.parametrize("baseline", ["lru", "child", "popularity", "age"])
def test_baselines_need_neither_a_model_nor_torch(without_torch: Callable[..., Finished], baseline: str) -> None:
    done = without_torch(*EVAL, "--baseline", baseline, "conversations.jsonl", "--score-from-ms", "5000", "--json")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert (document["baseline"], document["model"], document["p50_latency_ns"]) == (baseline, None, None)
    assert document["issued_blocks"] == document["useful_blocks"] + document["late_blocks"] + document["unused_blocks"]
    if baseline == "lru":
        assert document["gpu_hit_share"] == document["lru_gpu_hit_share"]


def test_a_model_is_judged_on_what_it_has_not_seen_or_it_is_said(chat: Cli) -> None:
    pytest.importorskip("torch", reason="torch is not installed: pip install 'speckv[train]'")
    trained = chat.document(*TRAIN, "--minutes", "0.02")
    assert [row["name"] for row in trained["rows"]][-1] == "model"
    shown = chat.document("prefetcher", "show", "new.safetensors")
    assert shown["trace_digests"] == [trace["digest"] for trace in trained["traces"]]
    late = chat.document(*EVAL, "new.safetensors", "conversations.jsonl")
    assert late["seen_in_training"] is False
    assert late["gpu_hit_share"] == trained["rows"][-1]["gpu_hit_share"]
    early = chat.document(*EVAL, "new.safetensors", "conversations.jsonl", "--score-from-ms", "0")
    assert early["seen_in_training"] is True
    assert "figures are biased" in chat.ok(*EVAL, "new.safetensors", "conversations.jsonl", "--score-from-ms", "0").out


def test_real_traces_give_the_figures_that_are_known(cli: Cli, shared_dir: Path) -> None:
    trace = shared_dir / "data" / "traces" / "conversation_trace.dev.jsonl.gz"
    if not trace.is_file():
        pytest.skip(f"no real data: {trace.name} is not there")
    document = cli.document(*EVAL, "--baseline", "age", trace)
    # The most recent child of every stored step, in the last fifth of the time.
    assert document["chain_top1"] == pytest.approx(0.9425, abs=0.0005)
    assert document["demanded_blocks"] == 17430
    assert document["lru_gpu_hit_share"] == pytest.approx(0.4513, abs=0.001)
