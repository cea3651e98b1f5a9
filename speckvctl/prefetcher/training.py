# SPDX-License-Identifier: MIT
"""Training of the return model and of its MLP control, on the CPU, within a bounded time. Needs torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from speckv import predictor

from speckvctl.errors import UnsupportedError
from speckvctl.prefetcher import evaluation, features, survival
from speckvctl.prefetcher.dataset import CHOOSE_SHARE, TRAIN_SHARE, Dataset, DatasetError
from speckvctl.prefetcher.evaluation import Measures, Scorer, Settings
from speckvctl.prefetcher.model import Model, Provenance, quantise

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SEGMENT = 64  # turns per segment that count in the loss
WARM_UP = 16  # turns before them that only warm up the state
BATCH = 32  # segments
PATIENCE = 6  # rounds without a better validation loss
MAX_EPOCHS = 120
LEAST_TURNS, LEAST_RETURNS = 50, 10

#: Settings for the figures of a new model.
JUDGED_CACHE_SHARE, JUDGED_BLOCKS_PER_SECOND = 0.05, 50.0
MLP_SECONDS = 60.0

Progress = Callable[[str, int, float], None]  # model, round, share of the time


def torch_version() -> str | None:
    """Version of the installed torch, without importing it."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("torch")
    except PackageNotFoundError:
        return None


def require_torch() -> None:
    try:
        import torch  # noqa: F401
    except ImportError as exc:
        raise UnsupportedError(
            f"training needs torch, which cannot be loaded: {exc}", "pip install '.[train]' in the source tree"
        ) from exc


@dataclass(frozen=True)
class Split:
    """One trace's inputs and its labels, censored where each part ends. Times are seconds of the trace."""

    data: Dataset
    values: Floats
    train: npt.NDArray[np.bool_]
    choose: npt.NDArray[np.bool_]
    judge: npt.NDArray[np.bool_]
    train_labels: tuple[Floats, Floats]
    choose_labels: tuple[Floats, Floats]
    judge_labels: tuple[Floats, Floats]

    @classmethod
    def of(cls, data: Dataset) -> Split:
        """Split by time, never shuffled: 60% training, 20% validation, 20% test."""
        early, late = TRAIN_SHARE * data.end, CHOOSE_SHARE * data.end
        return cls(
            data=data,
            values=features.matrix(data),
            train=data.times < early,
            choose=(data.times >= early) & (data.times < late),
            judge=data.times >= late,
            train_labels=survival.labels(data, early),
            choose_labels=survival.labels(data, late),
            judge_labels=survival.labels(data, data.end),
        )

    @property
    def returns(self) -> int:
        return int(self.train_labels[0][self.train].sum())

    def check(self) -> None:
        turns = int(self.train.sum())
        if turns < LEAST_TURNS or self.returns < LEAST_RETURNS:
            raise DatasetError(
                f"{self.data.path}: too short to learn from: {turns} turns and {self.returns} returns in its first "
                f"60% of time; {LEAST_TURNS} and {LEAST_RETURNS} are needed"
            )


@dataclass(frozen=True)
class Trained:
    """The result of one training."""

    hazards: list[Floats]  # of each trace's turns
    weights: dict[str, Floats]
    epochs: int
    stopped: str  # converged, limit or time
    validation_loss: float | None


@dataclass(frozen=True)
class Segment:
    trace: int
    turns: Ints  # a path of a session's tree
    counted: npt.NDArray[np.bool_]  # in the loss: each turn in one segment


def segments(parent: Ints, wanted: npt.NDArray[np.bool_], trace: int) -> list[Segment]:
    """Cut paths from first turns into segments with warm-up, so that every wanted turn counts in the loss once."""
    has_wanted_child = np.zeros(len(parent), bool)
    has_wanted_child[parent[wanted & (parent >= 0)]] = True
    taken = np.zeros(len(parent), bool)
    out = []
    for leaf in np.nonzero(wanted & ~has_wanted_child)[0].tolist():
        path = []
        turn = leaf
        while turn >= 0:
            path.append(turn)
            turn = int(parent[turn])
        path.reverse()
        turns = np.array(path)
        fresh = wanted[turns] & ~taken[turns]
        for begin in range(int(np.argmax(fresh)), len(turns), SEGMENT):
            counted = fresh[begin : begin + SEGMENT]
            before = min(begin, WARM_UP)
            flags = np.concatenate([np.zeros(before, bool), counted])
            if counted.any():
                out.append(Segment(trace, turns[begin - before : begin + SEGMENT], flags))
        taken[turns] = True
    return out


def standardise(splits: Sequence[Split]) -> tuple[Floats, Floats]:
    """Mean and deviation of each feature over the training parts; a constant feature has deviation 1."""
    values = np.concatenate([split.values[split.train] for split in splits])
    deviation = values.std(axis=0)
    return values.mean(axis=0), np.where(deviation < 1e-6, 1.0, deviation)


def as_the_model_sees(values: Floats, mean: Floats, deviation: Floats) -> Floats:
    """Round and saturate as in int8, so that training and inference have the same inputs."""
    return features.quantise(values, mean, deviation) / features.PER_DEVIATION


def train(
    kind: str,
    splits: Sequence[Split],
    mean: Floats,
    deviation: Floats,
    *,
    seed: int,
    seconds: float,
    progress: Progress,
) -> Trained:
    """Fit "lstm" or "mlp". Keeps the best round on the validation part; the test part is not used."""
    import torch

    torch.manual_seed(seed)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # fixes the order of sums, so that the result does not depend on the number of cores
    try:
        return _train(torch, kind, splits, mean, deviation, seed, seconds, progress)
    finally:
        torch.set_num_threads(threads)


def _network(torch: Any, kind: str, start: Floats) -> Any:
    nn = torch.nn
    inputs, hidden = len(features.NAMES), predictor.HIDDEN

    class Network(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            if kind == "lstm":
                self.lstm = nn.LSTM(inputs, hidden, predictor.LAYERS, batch_first=True)
            else:
                self.mlp = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
            self.head = nn.Linear(hidden, survival.BINS)
            nn.init.zeros_(self.head.weight)  # initialised to the age-only curve
            self.head.bias.data = torch.tensor(np.log(start / (1 - start)), dtype=torch.float32)

        def forward(self, values: Any) -> Any:
            return self.head(self.lstm(values)[0] if kind == "lstm" else self.mlp(values))

    return Network()


def _train(
    torch: Any,
    kind: str,
    splits: Sequence[Split],
    mean: Floats,
    deviation: Floats,
    seed: int,
    seconds: float,
    progress: Progress,
) -> Trained:
    inputs = [as_the_model_sees(split.values, mean, deviation).astype(np.float32) for split in splits]
    learn = [s for n, split in enumerate(splits) for s in segments(split.data.parent, split.train, n)]
    choose = [s for n, split in enumerate(splits) for s in segments(split.data.parent, split.choose, n)]
    event, risk = (np.concatenate([s.train_labels[part][s.train] for s in splits]) for part in (0, 1))
    network = _network(torch, kind, survival.age_hazards(event, risk))
    optimiser = torch.optim.Adam(network.parameters(), 2e-3 if kind == "mlp" else 1e-3, weight_decay=1e-5)
    loss_of = torch.nn.BCEWithLogitsLoss(reduction="none")
    learn_labels = [tuple(part.astype(np.float32) for part in split.train_labels) for split in splits]
    choose_labels = [tuple(part.astype(np.float32) for part in split.choose_labels) for split in splits]

    def losses(batch: list[Segment], labels: list[Any]) -> tuple[Any, Any]:
        longest = max(len(segment.turns) for segment in batch)
        values = np.zeros((len(batch), longest, len(features.NAMES)), np.float32)
        came = np.zeros((len(batch), longest, survival.BINS), np.float32)
        there = np.zeros_like(came)
        for row, segment in enumerate(batch):
            length = len(segment.turns)
            values[row, :length] = inputs[segment.trace][segment.turns]
            came[row, :length] = labels[segment.trace][0][segment.turns]
            there[row, :length] = labels[segment.trace][1][segment.turns] * segment.counted[:, None]
        weight = torch.from_numpy(there)
        return (loss_of(network(torch.from_numpy(values)), torch.from_numpy(came)) * weight).sum(), weight.sum()

    order = np.random.default_rng(seed)
    began = time.monotonic()
    best: tuple[float, dict[str, Any], int] | None = None
    stopped, epoch = "limit", 0
    for epoch in range(1, MAX_EPOCHS + 1):
        network.train()
        shuffled = order.permutation(len(learn))
        for begin in range(0, len(learn), BATCH):
            total, weight = losses([learn[i] for i in shuffled[begin : begin + BATCH]], learn_labels)
            if not weight:
                continue
            optimiser.zero_grad()
            (total / weight).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            progress(kind, epoch, (time.monotonic() - began) / seconds)
            if time.monotonic() - began > seconds:
                break
        network.eval()
        with torch.no_grad():
            parts = [losses(choose[i : i + BATCH], choose_labels) for i in range(0, len(choose), BATCH)]
        weight = float(sum(float(part[1]) for part in parts))
        value = sum(float(part[0]) for part in parts) / weight if weight else 0.0
        if best is None or value < best[0]:
            best = value, {name: tensor.clone() for name, tensor in network.state_dict().items()}, epoch
        elif epoch - best[2] >= PATIENCE:
            stopped = "converged"
            break
        if time.monotonic() - began > seconds:
            stopped = "time"
            break
    assert best is not None
    network.load_state_dict(best[1])
    return Trained(
        hazards=[_hazards(torch, network, kind, split, inputs[n]) for n, split in enumerate(splits)],
        weights={name: tensor.double().numpy() for name, tensor in best[1].items()},
        epochs=epoch,
        stopped=stopped,
        validation_loss=best[0] if choose else None,
    )


def _hazards(torch: Any, network: Any, kind: str, split: Split, inputs: npt.NDArray[np.float32]) -> Floats:
    """Hazards of every turn, run from its session's first turn."""
    out = np.zeros((len(inputs), survival.BINS))
    with torch.no_grad():
        if kind == "mlp":
            return np.asarray(torch.sigmoid(network(torch.from_numpy(inputs))).double().numpy())
        depth = features.turns(split.data.parent)
        states = np.zeros((2, predictor.LAYERS, len(inputs), predictor.HIDDEN), np.float32)
        for turn in range(int(depth.max()) + 1):
            rows = np.nonzero(depth == turn)[0]
            last = split.data.parent[rows]
            before = tuple(torch.from_numpy(state[:, last]) for state in states) if turn else None
            said, after = network.lstm(torch.from_numpy(inputs[rows])[:, None], before)
            for state, new in zip(states, after, strict=True):
                state[:, rows] = new.numpy()
            out[rows] = torch.sigmoid(network.head(said[:, 0])).double().numpy()
    return out


# ---- comparison with baselines ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One policy, evaluated on the test part of one trace."""

    trace: str
    name: str
    loss: float | None
    measures: Measures


@dataclass(frozen=True)
class Outcome:
    model: Model
    trained: Trained
    rows: list[Row]


def train_model(splits: Sequence[Split], *, seed: int, seconds: float, progress: Progress) -> Outcome:
    """Train the MLP control (a quarter of the time) and the LSTM, quantise, and compare with the baselines."""
    mean, deviation = standardise(splits)
    fit = partial(train, splits=splits, mean=mean, deviation=deviation, seed=seed)
    control = fit("mlp", seconds=seconds / 4, progress=lambda kind, epoch, share: progress(kind, epoch, share / 4))
    trained = fit(
        "lstm", seconds=seconds * 3 / 4, progress=lambda kind, epoch, share: progress(kind, epoch, 0.25 + share * 0.75)
    )
    model = Model(
        quantise(trained.weights),
        mean,
        deviation,
        evaluation.WINDOW_MS,
        Provenance(
            traces=[split.data.path.name for split in splits],
            trace_digests=[split.data.digest for split in splits],
            seed=seed,
            split="60% of the time to learn from, 20% to choose by, 20% to be judged by",
            train_until_s=[TRAIN_SHARE * split.data.end for split in splits],
            chosen_until_s=[CHOOSE_SHARE * split.data.end for split in splits],
            train_turns=int(sum(split.train.sum() for split in splits)),
            epochs=trained.epochs,
            validation_loss=trained.validation_loss,
            trained_with=f"torch {torch_version()}",
        ),
    )
    rows = []
    for number, split in enumerate(splits):
        rows += judge(split, model, control.hazards[number], trained.hazards[number])
    return Outcome(model, trained, rows)


def judge(split: Split, model: Model, control: Floats, unrounded: Floats) -> list[Row]:
    """Evaluate the model, its float version and the baselines on the test part of a trace."""
    data = split.data
    settings = Settings(JUDGED_CACHE_SHARE, JUDGED_BLOCKS_PER_SECOND, CHOOSE_SHARE * data.end * 1000)
    event, risk = split.train_labels
    hazards = np.tile(survival.age_hazards(event[split.train], risk[split.train]), (len(data), 1))
    deciders: list[Scorer] = [
        evaluation.lru(),
        evaluation.child(),
        evaluation.popularity(data),
        evaluation.returning("age", hazards),
        evaluation.returning("mlp", control),
        evaluation.returning("lstm in float", unrounded),
        evaluation.quantised(data, model),
    ]
    rows = []
    for decider in deciders:
        loss = None
        if decider.policy is predictor.Policy.SCORE and decider.curves is not None:
            hazards = survival.hazards_of(decider.curves)[split.judge]
            loss = survival.mean_loss(hazards, *(part[split.judge] for part in split.judge_labels))
        rows.append(Row(data.path.name, decider.name, loss, evaluation.measure(data, decider, settings)))
    return rows


def mlp_baseline(data: Dataset, learn_until: float) -> Scorer:
    """The MLP control, trained for at most a minute on the trace up to a time; its last quarter stops it."""
    early = 0.75 * learn_until
    split = Split(
        data=data,
        values=features.matrix(data),
        train=data.times < early,
        choose=(data.times >= early) & (data.times < learn_until),
        judge=data.times >= learn_until,
        train_labels=survival.labels(data, early),
        choose_labels=survival.labels(data, learn_until),
        judge_labels=survival.labels(data, data.end),
    )
    split.check()
    mean, deviation = standardise([split])
    trained = train(
        "mlp", [split], mean, deviation, seed=0, seconds=MLP_SECONDS, progress=lambda kind, epoch, share: None
    )
    return evaluation.returning("mlp", trained.hazards[0])
