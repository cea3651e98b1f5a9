# SPDX-License-Identifier: MIT
"""The promises of the codecs: ratio, cost in perplexity, speed, and independent verification of all of it.

Needs the optional real data (../shared/model). A mode that this build lacks is a row that is not measured: a miss.
SPECKV_ACCEPT_MODELS names a folder of models that others made; see models.py.
SPECKV_ACCEPT_COMPUTE=cuda runs the model on a GPU: a minute a row instead of a quarter of an hour.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any

from tests.accept import models
from tests.accept.frame import Bar, Figure, NotMeasuredError, Outcome, Point, at_least, exactly
from tests.accept.suites.foundation import PYTEST, Measure, counted, meson, meson_failures, pytest_failures, said

KV = "../shared/model/kv_dev.safetensors"
MODEL = "../shared/model"
TOKENS = "../shared/model/eval_dev.npy"
COMPUTE = os.environ.get("SPECKV_ACCEPT_COMPUTE", "cpu")
ON = f"--model {MODEL} --tokens {TOKENS} --compute {COMPUTE}"
SPECKVCTL = ".venv/bin/speckvctl"

#: A calibration is made from the first documents and evaluated on the others.
CALIBRATED = 16
LOSSY_PEERS = {
    *("fp8 e4m3 cast", "fp8 e4m3 scaled", "MXFP4", "NVFP4", "KIVI 4-bit"),
    *("TurboQuant-like 4/3", "CacheGen-style"),
}
EXACT_PEERS = {"zstd -1", "zstd -3", "lz4", "byte shuffle + zstd -1"}
FIXED_RATE = {"q4x", "q5c"}
#: Margin on the ratio: in variable-rate modes the size depends on the text.
RESERVE = {"e7c": 1.02}


def at_most(value: float) -> Bar:
    return Bar("<=", value)


# -- how figures are read


def document(outcome: Outcome) -> dict[str, Any]:
    """The JSON document of the command; not measured, with the reason, without one."""
    if not outcome.stdout.strip().startswith("{"):
        raise NotMeasuredError((outcome.stderr.strip().splitlines() or ["it said nothing"])[-1])
    found: dict[str, Any] = json.loads(outcome.stdout[outcome.stdout.index("{") :])
    if found["schema"] == "speckvctl.error":
        raise NotMeasuredError(found["error"]["message"])
    return found


def key(name: str, unit: str = "", scale: float = 1.0) -> Measure:
    return lambda outcome: Figure(scale * document(outcome)[name], unit)


def increase(rule: str = "blocks", above: float = 0.0) -> Measure:
    """Increase of perplexity in percent; not measured unless the ratio is above `above`."""

    def measure(outcome: Outcome) -> Figure:
        said = document(outcome)
        if said["run_ratio"] < above:
            raise NotMeasuredError(f"the ratio is {said['run_ratio']:.3f}, below {above}")
        error, count = said[rule]["perplexity_standard_error_percent"], said["documents"]
        note = f"± {error:.3f}, {count} documents, ratio {said['run_ratio']:.3f}x"
        return Figure(said[rule]["perplexity_increase_percent"], "%", note)

    return measure


def ratio_of(dtype: str) -> Measure:
    """Ratio of the tensors of one dtype, in frames of one layer."""

    def measure(outcome: Outcome) -> Figure:
        rows = [row for row in document(outcome)["tensors"] if row["dtype"] == dtype]
        return Figure(sum(row["raw_bytes"] for row in rows) / sum(row["stored_bytes"] for row in rows), "x")

    return measure


def with_vnni(measure: Measure) -> Measure:
    """Measured with AVX-512 VNNI kernels only."""

    def measured(outcome: Outcome) -> Figure:
        isa = document(outcome)["isa"]
        if isa != "avx512":
            raise NotMeasuredError(f"this processor has {isa} kernels, and no VNNI; they do {measure(outcome)}")
        return measure(outcome)

    return measured


def agreement(outcome: Outcome) -> Figure:
    """Groups of all modes on which two sets of vector kernels and the reference agree bit for bit."""
    failed = meson_failures(outcome)
    if failed.value:
        return Figure(0, "groups", "they differ: see the log")
    sets = re.search(r"beside the portable reference(.*)", outcome.output)
    if not sets or not {"avx2", "avx512"} <= set(sets[1].split()):
        raise NotMeasuredError(f"this processor has{sets[1] if sets else ' none'} beside the reference")
    modes = re.findall(r"^(\w+): (\d+) groups, \d+ tokens, equal in every bit", outcome.output, re.M)
    return Figure(sum(int(n) for _, n in modes), "groups", ", ".join(f"{name} {n}" for name, n in modes))


def rows_of(outcome: Outcome) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in document(outcome)["rows"]}


def absent(names: set[str]) -> Measure:
    """How many of these are not in the table."""

    def measure(outcome: Outcome) -> Figure:
        missing = sorted(names - set(rows_of(outcome)))
        return Figure(len(missing), "absent", ", ".join(missing))

    return measure


def not_beating_zstd(names: set[str], keys: tuple[str, ...]) -> Measure:
    """How many of these modes are absent, or behind zstd -1 in one of the keys."""

    def measure(outcome: Outcome) -> Figure:
        rows = rows_of(outcome)
        behind = {name for name in names if any(_value(rows, name, k) <= _value(rows, "zstd -1", k) for k in keys)}
        return Figure(len(behind), "modes", ", ".join(sorted(behind)))

    return measure


def _value(rows: dict[str, dict[str, Any]], name: str, key: str) -> float:
    return float(rows[name][key] or 0) if name in rows else 0.0


def of_memcpy(line: str) -> Measure:
    return counted(rf"^{line} +[\d.]+ GB/s +([\d.]+) of memcpy", "of memcpy")


# -- the commands


def evaluated(mode: str, more: str = "") -> str:
    return f"{SPECKVCTL} codec eval {KV} --codec {mode} --json{more}"


def run(mode: str, more: str = "") -> str:
    return evaluated(mode, f" {ON}{more}")


def calibration(mode: str, ratio: float) -> tuple[str, str]:
    """A calibration file for at least that ratio, and the command that makes it."""
    file = f"build/accept/{mode}-{ratio}.safetensors"
    make = f"{SPECKVCTL} codec calibrate {ON} --documents {CALIBRATED} --codec {mode}"
    make += f" --ratio {ratio * RESERVE.get(mode, 1):.3f}"
    return file, f"mkdir -p build/accept && {make} -o {file} >&2"


def calibrated(mode: str, ratio: float) -> str:
    """A calibration, and its results on other documents."""
    file, make = calibration(mode, ratio)
    return f"{make} && {run(mode, f' --calibration {file} --skip-documents {CALIBRATED}')}"


Q5C, MAKE_Q5C = calibration("q5c", 5.0)
COMPARE = f"{SPECKVCTL} codec compare {KV} --json"
COMPARE_Q5C = f"{MAKE_Q5C} && {SPECKVCTL} codec compare {KV} --calibration {Q5C} --json"
BUILD = (
    "{ test -f build/bench/build.ninja || .venv/bin/meson setup build/bench -Dpython=disabled --buildtype=release "
    "-Dwerror=false; } >&2 && .venv/bin/meson compile -C build/bench bench >&2"
)
COPY = f"{BUILD} && build/bench/tests/bench/codec_copy --mib 256"
CLI = f"{PYTEST} tests/cli/test_codec.py"
FORMAT = f"{PYTEST} tests/unit/codec_eval/test_frames.py"


def targets(mode: str, bars: list[tuple[float, float]]) -> list[Point]:
    """Two rows for each ratio and the largest allowed increase."""
    rows = []
    for ratio, most in bars:
        command = calibrated(mode, ratio)
        text = f"{mode}, calibrated for {ratio}x, all layers of a block in a frame"
        rows += [
            Point(f"{text}: ratio", command, key("run_ratio", "x"), at_least(ratio), True, minutes=240),
            Point(
                "... perplexity increase, rule of blocks, documents it was not made from",
                command,
                increase(above=ratio),
                at_most(most),
                True,
                minutes=240,
            ),
            Point("... rule of a prefix", command, increase("prefix", above=ratio), None, True, minutes=240),
        ]
    return rows


POINTS = [
    # ratio and perplexity
    Point("q4x: ratio, frames of one layer and 64 tokens", evaluated("q4x"), key("ratio", "x"), at_least(4.3)),
    Point("q4x: perplexity increase, rule of blocks", run("q4x"), increase(), at_most(0.30), True, minutes=120),
    Point("... rule of a prefix", run("q4x"), increase("prefix"), None, True, minutes=120),
    *models.points(document, COMPUTE),
    *targets("q5c", [(5.0, 0.35), (5.5, 0.50)]),
    *targets("e7c", [(5.6, 0.35), (6.3, 0.50)]),
    Point("lossless: ratio of bf16", evaluated("lossless"), ratio_of("bf16"), at_least(1.40)),
    Point("lossless: ratio of fp16", evaluated("lossless"), ratio_of("fp16"), at_least(1.12)),
    Point("lossless: every bit comes back", evaluated("lossless"), key("exact"), exactly(1)),
    Point(
        "int8-delta-rle and every peer stand in one table",
        COMPARE,
        absent({"int8-delta-rle", *LOSSY_PEERS, *EXACT_PEERS}),
        exactly(0),
        minutes=60,
    ),
    Point(
        "zstd -1: behind every lossy fixed-rate mode in ratio and decode",
        COMPARE_Q5C,
        not_beating_zstd(FIXED_RATE, ("ratio", "decode_bytes_per_second")),
        exactly(0),
        minutes=60,
    ),
    Point(
        "zstd -1: behind lossless in ratio", COMPARE, not_beating_zstd({"lossless"}, ("ratio",)), exactly(0), minutes=60
    ),
    # speed, one core, memory to memory
    Point("q4x: decode, of memcpy", COPY, of_memcpy("q4x frame: parse, decode"), at_least(0.8)),
    Point("q4x: encode, of memcpy", COPY, of_memcpy("q4x frame: encode"), at_least(0.25)),
    Point(
        "e7c: decode, one core with VNNI",
        calibrated("e7c", 5.6),
        with_vnni(key("decode_bytes_per_second", "GB/s", 1e-9)),
        at_least(1.0),
        True,
        minutes=240,
    ),
    # the same everywhere
    Point(
        "reference = AVX2 = AVX-512 on 100 million groups",
        meson("codec agree long"),
        agreement,
        at_least(100e6),
        True,
        minutes=600,
    ),
    Point(
        "golden frames: made and read by every set of kernels, from inputs of another making",
        f"{SPECKVCTL} codec vectors tests/vectors --json",
        lambda outcome: Figure(len(document(outcome)["differences"]), "differences"),
        exactly(0),
    ),
    Point(
        "a third party finds ratio and loss of eval in the files of encode and decode",
        f"{CLI} -k third_party",
        pytest_failures,
        exactly(0),
    ),
    # bad input
    Point("fuzzing of every decoder, bounded", meson("codec fuzz"), meson_failures, exactly(0)),
    Point("... for 30 CPU minutes", meson("codec fuzz long"), meson_failures, exactly(0), True, minutes=90),
    Point("bad tensors, frames and options: a named error, output untouched", CLI, pytest_failures, exactly(0)),
    Point("files of frames with any byte changed or cut: never tensors", FORMAT, pytest_failures, exactly(0)),
    # in use
    Point("make demo: a pool with q4x", "make demo", said("--codec q4x"), exactly(1)),
    Point("replay reports the true ratio", f"{CLI} -k replay", pytest_failures, exactly(0)),
]
