# SPDX-License-Identifier: MIT
"""speckvctl train-prefetcher."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from speckvctl import results
from speckvctl.commands.options import App, DryRun, Json, decimal, whole
from speckvctl.console import note_sorted, progress
from speckvctl.files import check_place
from speckvctl.render import finish

app = App()


@app.verb("train-prefetcher")
def train_prefetcher(
    traces: Annotated[
        list[str],
        typer.Argument(metavar="TRACE", help="Traces with one clock each; .gz and .xz are read as they are."),
    ],
    output: Annotated[str, typer.Option("--output", "-o", metavar="MODEL", help="Model file to write.")],
    minutes: Annotated[
        float, decimal("--minutes", metavar="M", least=0.01, most=10_000, help="Train no longer than this.")
    ] = 10,
    seed: Annotated[int, whole("--seed", metavar="S", least=0, most=2**31 - 1, help="Seed for weights and order.")] = 0,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Train a prefetcher on serving traces: which idle session comes back, and when.

    Of each trace the first 60% of the time is learned from, the next 20% says when to stop, and the last 20% gives the
    figures that are shown, beside those of LRU, most recent child, popularity, an age-only curve and an MLP. Sessions
    are found by the blocks that their prompts share; returns after a trace's end are not counted as never.

    Training runs on the CPU and needs torch. The same traces and seed give the same model, unless the time ran out.

    \b
    Examples:
      speckvctl train-prefetcher conversations.jsonl -o new.safetensors --dry-run
      speckvctl train-prefetcher conversations.jsonl -o new.safetensors \\
          --minutes 5 --dry-run --json
    """
    from speckvctl.prefetcher import dataset, model, training

    path = Path(output)
    check_place(path)
    if path.exists():
        model.load(path)  # only a model file may be overwritten
    version = training.torch_version()
    if not dry_run:
        training.require_torch()
    with progress("reading", "requests") as tell:
        tell(0, 0)
        splits = [training.Split.of(dataset.read(Path(trace), lambda count: tell(count, 0))) for trace in traces]
    for split in splits:
        note_sorted(str(split.data.path), split.data.moved)
        split.check()
    outcome = None
    if not dry_run:
        with progress("training", "% of the time") as tell:
            outcome = training.train_model(
                splits, seed=seed, seconds=60 * minutes, progress=lambda _, __, share: tell(round(100 * share), 100)
            )
        model.save(outcome.model, path)
    document = results.TrainPrefetcher(
        output=output,
        dry_run=dry_run,
        torch=version,
        seed=seed,
        minutes=minutes,
        traces=[
            results.TrainingTrace(
                trace=split.data.path.name,
                digest=split.data.digest,
                requests=len(split.data),
                train_turns=int(split.train.sum()),
                choose_turns=int(split.choose.sum()),
                judge_turns=int(split.judge.sum()),
                train_returns=split.returns,
            )
            for split in splits
        ],
        epochs=outcome.trained.epochs if outcome else 0,
        stopped=outcome.trained.stopped if outcome else None,
        window_ms=outcome.model.window_ms if outcome else None,
        cache_share=training.JUDGED_CACHE_SHARE,
        prefetch_blocks_per_second=training.JUDGED_BLOCKS_PER_SECOND,
        rows=[
            results.PrefetcherRow(
                trace=row.trace,
                name=row.name,
                loss=row.loss,
                gpu_hit_share=row.measures.gpu_hit_share,
                useful_share=row.measures.useful_share,
                late_share=row.measures.late_share,
                coverage=row.measures.coverage,
            )
            for row in (outcome.rows if outcome else [])
        ],
    )
    finish(document, as_json=as_json)
