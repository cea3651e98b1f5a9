# SPDX-License-Identifier: MIT
"""Rows of the codec suite about models that others made. Imported by suites/codec.py.

SPECKV_ACCEPT_MODELS names a folder. Each NAME.npy in it (token ids [document][token]) or NAME.txt is the text of a
model: NAME, a folder as published, or NAME.gguf. A model has the bars of that name in BARS that its own begins with, in
any case; all others have to meet the bars of every model.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.accept.frame import Bar, Figure, NotMeasuredError, Outcome, Point, at_least, exactly
from tests.accept.suites.foundation import Measure

DOCUMENTS = 24
PREFIX = 1024
KIVI = "KIVI 4-bit"
#: No document may lose more, in thousandths of a nat a token.
WORST = 50.0

Document = Callable[[Outcome], dict[str, Any]]


@dataclass(frozen=True)
class Bars:
    """Of a model: least ratio, and the most by the rules of a prefix and of blocks."""

    ratio: float
    q4x_kl: tuple[float, float]
    q4x_percent: tuple[float, float]
    q5x_kl: tuple[float, float]
    q3x_kl: tuple[float, float]


BARS = {
    "qwen2.5": Bars(4.30, (1.2, 2.8), (0.15, 0.15), (0.3, 0.8), (1.8, 4.4)),
    "smollm2": Bars(4.22, (3.0, 8.5), (0.75, 1.3), (0.8, 2.2), (6.0, 17.0)),
}
OWN = Bars(4.30, (1.1, 3.2), (0.15, 0.30), (0.3, 0.9), (1.1, 4.5))


@dataclass(frozen=True)
class Subject:
    name: str
    model: str
    tokens: str
    bars: Bars | None


def subjects(folder: Path | None) -> list[Subject]:
    """The models of a folder, by name."""
    found = []
    for text in sorted(folder.iterdir()) if folder is not None and folder.is_dir() else []:
        for model in (text.with_suffix(""), text.with_suffix(".gguf")):
            if text.suffix in (".npy", ".txt") and model.exists():
                bars = next((bars for name, bars in BARS.items() if text.stem.lower().startswith(name)), None)
                found.append(Subject(text.stem, str(model), str(text), bars))
                break
    return found


def compare(subject: Subject, compute: str) -> str:
    """The command: K and V of one document for the sizes of peers, and all on the same documents."""
    ctl, kv = ".venv/bin/speckvctl", f"build/accept/{subject.name.replace(' ', '-')}.safetensors"
    on = f"--model {shlex.quote(subject.model)} --tokens {shlex.quote(subject.tokens)} --compute {compute}"
    return (
        f"mkdir -p build/accept && {ctl} codec extract {on} --documents 1 -o {shlex.quote(kv)} >&2 && "
        f"{ctl} codec compare {shlex.quote(kv)} {on} --codec q3x --codec q4x --codec q5x "
        f"--documents {DOCUMENTS} --prefix-tokens {PREFIX} --json"
    )


def points(document: Document, compute: str) -> list[Point]:
    """The rows; `document` reads the command's JSON from an Outcome."""
    folder = os.environ.get("SPECKV_ACCEPT_MODELS")
    found = [Subject("our 30M model", "../shared/model", "../shared/model/eval_dev.npy", OWN)]
    found += subjects(Path(folder) if folder else None)
    rows = [row for subject in found for row in _of(subject, document, compute)]
    for name, bars in BARS.items():
        if not any(subject.bars is bars for subject in found):
            rows.append(Point(f"{name}: all of its rows", "true", _missing(name), exactly(1), True))
    return rows


def _missing(name: str) -> Measure:
    def measure(outcome: Outcome) -> Figure:
        raise NotMeasuredError(f"SPECKV_ACCEPT_MODELS names no folder with a model named {name}*")

    return measure


def _of(subject: Subject, document: Document, compute: str) -> list[Point]:
    command, bars = compare(subject, compute), subject.bars

    def row(text: str, measure: Measure, bar: Bar | None) -> Point:
        return Point(f"{subject.name}: {text}", command, measure, bar, True, minutes=300)

    def figure(codec: str, rule: str, key: str, unit: str) -> Measure:
        def measure(outcome: Outcome) -> Figure:
            loss = _rows(document, outcome)[codec][rule]
            error = loss["kl_standard_error_millinats" if unit == "mnat" else "perplexity_standard_error_percent"]
            return Figure(loss[key], unit, f"± {error:.3f}")

        return measure

    def of_kivi(rule: str) -> Measure:
        def measure(outcome: Outcome) -> Figure:
            rows = _rows(document, outcome)
            ours, theirs = (rows[name][rule]["kl_millinats"] for name in ("q4x", KIVI))
            return Figure(ours / theirs, "of KIVI", f"{ours:.3f} of {theirs:.3f} mnat")

        return measure

    def worst(outcome: Outcome) -> Figure:
        loss = _rows(document, outcome)["q4x"]
        return Figure(max(loss[rule]["worst_kl_millinats"] for rule in ("prefix", "blocks")), "mnat")

    def ratio(outcome: Outcome) -> Figure:
        found = _rows(document, outcome)["q4x"]
        share = 100 * found["run_bit_exact_blocks"] / found["run_blocks"]
        return Figure(found["run_ratio"], "x", f"{share:.2f} % of blocks bit-exact")

    rows = [row("q4x: ratio, all bytes", ratio, at_least(bars.ratio) if bars else None)]
    for index, rule in enumerate(("prefix", "blocks")):
        for codec in ("q4x", "q5x", "q3x"):
            most = getattr(bars, f"{codec}_kl")[index] if bars else None
            bar = None if most is None else Bar("<=", most)
            rows.append(row(f"{codec}: KL, {rule}", figure(codec, rule, "kl_millinats", "mnat"), bar))
        most = bars.q4x_percent[index] if bars else None
        bar = None if most is None else Bar("<=", most)
        rows.append(row(f"q4x: perplexity, {rule}", figure("q4x", rule, "perplexity_increase_percent", "%"), bar))
        rows.append(row(f"q4x beside KIVI 4-bit: KL, {rule}", of_kivi(rule), Bar("<=", 1.0)))
    rows.append(row("q4x: the worst document", worst, Bar("<=", WORST)))
    return rows


def _rows(document: Document, outcome: Outcome) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in document(outcome)["rows"]}
