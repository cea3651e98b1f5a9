# SPDX-License-Identifier: MIT
"""Loads the model and documents given to a command, and measures what codecs cost on them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import speckv

from speckvctl import results
from speckvctl.errors import UnsupportedError, UsageError

if TYPE_CHECKING:
    from speckvctl.reference.decoder import Decoder, Shape
    from speckvctl.reference.loss import Loss
    from speckvctl.reference.tasks import Context, Score, Task

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class TaskPlan:
    """What items of tasks to make."""

    items: int  # of each task
    context: int | None  # tokens of needles; None: as many as the model takes, within bounds
    seed: int


@dataclass(frozen=True)
class Model:
    """A loaded model, and what to run it on."""

    decoder: Decoder
    ids: Any = None  # of documents; None: none
    prefix: int | None = None
    tasks: Mapping[Task, list[Context]] | None = None
    skipped: Callable[[], Any] | None = None  # the documents before `ids`, to fit peers on; None: none
    dtype: speckv.DType = speckv.DType.BF16

    def answer(self, stores: Mapping[str, Any], progress: Progress) -> dict[str, dict[Task, Score]]:
        """The score of each store in each task."""
        from speckvctl.reference import tasks

        return tasks.run(self.decoder, self.tasks or {}, stores, progress)

    def measure(self, stores: Mapping[str, Any], progress: Progress) -> dict[str, tuple[Loss | None, Loss]]:
        """The loss of each store, by the block rule, unless it codes layers together, and by the prefix rule."""
        from speckvctl.reference import loss
        from speckvctl.reference.loss import Rule

        assert self.prefix is not None
        losses = loss.measure(self.decoder, self.ids, stores, prefix=self.prefix, progress=progress)
        return {name: (losses.get((name, Rule.BLOCKS)), losses[name, Rule.PREFIX]) for name in stores}


@dataclass(frozen=True)
class OneLayer:
    """A store that codes one layer; the others stay raw."""

    store: Any
    layer: int

    def __call__(self, layer: int, k: Any, v: Any) -> Any:
        return self.store(layer, k, v) if layer == self.layer else (k, v)


def by_layer(store: Any, layers: int) -> dict[str, OneLayer]:
    """A store for each layer, named by its number."""
    return {str(layer): OneLayer(store, layer) for layer in range(layers)}


def described(loss: Loss) -> results.CodecLoss:
    """The loss as a document has it."""
    return results.CodecLoss(
        perplexity_reference=loss.perplexity_reference,
        perplexity=loss.perplexity,
        perplexity_increase_percent=loss.increase_percent,
        perplexity_standard_error_percent=loss.standard_error_percent,
        kl_millinats=loss.kl,
        kl_standard_error_millinats=loss.kl_standard_error,
        worst_document=loss.worst,
        worst_kl_millinats=1000 * float(loss.divergence[loss.worst]),
        top1_agreement=float(loss.agreement.mean()),
    )


def described_tasks(model: Model, scores: Mapping[Task, Score]) -> list[results.CodecTask]:
    """The scores as a document has them, and their average."""
    assert model.tasks is not None
    found = [
        results.CodecTask(
            name=str(task),
            items=len(score.decoded),
            stored_tokens=max(len(context.stored) for context in model.tasks[task]),
            reference_percent=score.reference_percent,
            reference_standard_error_points=score.reference_standard_error,
            percent=score.percent,
            difference_points=score.difference,
            difference_standard_error_points=score.difference_standard_error,
            lost=score.lost,
            gained=score.gained,
        )
        for task, score in scores.items()
    ]
    average = results.CodecTask(
        name="average",
        items=sum(row.items for row in found),
        stored_tokens=None,
        reference_percent=statistics.fmean(row.reference_percent for row in found),
        reference_standard_error_points=_mean_error(row.reference_standard_error_points for row in found),
        percent=statistics.fmean(row.percent for row in found),
        difference_points=statistics.fmean(row.difference_points for row in found),
        difference_standard_error_points=_mean_error(row.difference_standard_error_points for row in found),
        lost=sum(row.lost for row in found),
        gained=sum(row.gained for row in found),
    )
    return [*found, average]


def _mean_error(values: Iterable[float | None]) -> float | None:
    """Standard error of the mean of independent values that have these."""
    known = list(values)
    errors = [error for error in known if error is not None]
    return math.hypot(*errors) / len(known) if len(errors) == len(known) else None


ITEMS = 400  # of each task


def plan(*, tasks: bool, items: int | None, context: int | None, seed: int | None) -> TaskPlan | None:
    """What the options of tasks ask for; None: no tasks."""
    if tasks:
        return TaskPlan(ITEMS if items is None else items, context, seed or 0)
    if (items, context, seed) != (None, None, None):
        raise UsageError("--task-items, --context and --seed are for --tasks", "--tasks --model DIR")
    return None


def check_options(
    model: Path | None,
    tokens: Path | None,
    documents: int | None,
    skip: int,
    prefix_tokens: int | None,
    compute: str = "cpu",
    *,
    by_layer: bool = False,
    tasks: TaskPlan | None = None,
) -> None:
    """Check the options early."""
    if tasks is not None and model is None:
        raise UsageError("--tasks are for a model to answer", "--tasks --model DIR")
    if tasks is None and (model is None) != (tokens is None):
        raise UsageError("--model takes --tokens, --tasks or both", "--model DIR --tokens FILE")
    if model is None and compute != "cpu":
        raise UsageError("--compute says where a model is run", "--model DIR --tokens FILE")
    if tokens is None and (documents is not None or skip or prefix_tokens is not None or by_layer):
        raise UsageError(
            "--documents, --skip-documents, --prefix-tokens and --by-layer say how a model is run on --tokens",
            "--model DIR --tokens FILE",
        )
    if prefix_tokens is not None and prefix_tokens % 64:
        raise UsageError(f"--prefix-tokens: {prefix_tokens} is not a multiple of 64", "--prefix-tokens 1024")
    if model is not None:
        check_compute(compute)


def require_torch() -> None:
    try:
        import torch  # noqa: F401
    except ImportError as exc:
        raise UnsupportedError(
            "running a model needs torch, which is not installed", "pip install '.[codec]' in the source tree"
        ) from exc


def check_compute(name: str) -> None:
    """Check that torch is installed and has this device."""
    kind, _, index = name.partition(":")
    if not (name == "cpu" or (kind == "cuda" and (name == kind or (index.isascii() and index.isdigit())))):
        raise UsageError(f"--compute: '{name}' is neither cpu nor a GPU", "--compute cpu, cuda or cuda:1")
    require_torch()
    import torch

    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise UnsupportedError(f"torch {torch.__version__} finds no {name} here", "--compute cpu")


def load(
    model: Path,
    tokens: Path | None,
    documents: int | None,
    skip: int,
    prefix_tokens: int | None,
    compute: str = "cpu",
    tasks: TaskPlan | None = None,
) -> Model:
    """Checks all that is not the weights first: a model takes a while to load."""
    from speckvctl.reference import documents as reading
    from speckvctl.reference import loading

    shape = loading.check(model)
    ids = prefix = skipped = None
    if tokens is not None:
        read = partial(reading.read, tokens, shape, tokenizer=lambda: loading.tokenizer(model))
        ids = read(documents, skip=skip)
        skipped = partial(read, skip) if skip else None
        prefix = prefix_tokens or ids.shape[1] // 2 // 64 * 64
        if prefix + 2 > ids.shape[1]:
            raise UsageError(
                f"--prefix-tokens: nothing of {ids.shape[1]} tokens is left behind {prefix}",
                "a smaller --prefix-tokens",
            )
    made = _tasks(model, shape, tasks) if tasks is not None else None
    return Model(loading.load(model, device=compute), ids, prefix, made, skipped)


def _tasks(model: Path, shape: Shape, plan: TaskPlan) -> dict[Task, list[Context]]:
    from speckvctl.reference import loading
    from speckvctl.reference import tasks as making

    most = min(shape.context, making.MOST_CONTEXT)
    if plan.context is not None and plan.context > shape.context:
        raise UsageError(
            f"--context: {plan.context} tokens are more than the {shape.context} of {model}", f"--context {most}"
        )
    tokenize = loading.tokenizer(model, "the tasks are texts, and need it")
    return making.make(tokenize, shape, items=plan.items, context=plan.context or most, seed=plan.seed)
