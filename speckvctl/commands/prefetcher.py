# SPDX-License-Identifier: MIT
"""speckvctl prefetcher: eval, load, unload, show."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speckvctl import completion, results
from speckvctl.cards import access
from speckvctl.commands.options import App, Card, DryRun, Json, decimal
from speckvctl.console import note_sorted, progress
from speckvctl.errors import NothingToDoError, UnsupportedError, UsageError
from speckvctl.files import check_place
from speckvctl.render import finish
from speckvctl.render.text import plural

if TYPE_CHECKING:
    from speckvctl.prefetcher.dataset import Dataset
    from speckvctl.prefetcher.evaluation import Scorer
    from speckvctl.prefetcher.model import Model

app = App(no_args_is_help=True)


@app.callback()
def prefetcher() -> None:
    """Evaluate prefetchers on real traces, load them into cards, and show model files.

    A prefetcher predicts which idle session returns, and when. That decides what stays in the GPU's cache and what is
    prefetched.

    \b
    Examples:
      speckvctl prefetcher eval model.safetensors conversations.jsonl
      speckvctl prefetcher show model.safetensors
    """


@app.verb("eval")
def eval_prefetcher(
    files: Annotated[
        list[str],
        typer.Argument(metavar="[MODEL] TRACE", help="Model file and trace; with --baseline the trace alone."),
    ],
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline",
            metavar="NAME",
            help="No model: lru, child, popularity, age or mlp (needs torch).",
            autocompletion=completion.baselines,
        ),
    ] = None,
    cache_share: Annotated[
        float,
        decimal("--cache-share", metavar="F", least=0, most=1, help="GPU's cache, as a share of the trace's blocks."),
    ] = 0.05,
    blocks_per_second: Annotated[
        float,
        decimal(
            "--prefetch-blocks-per-second",
            metavar="N",
            least=1e-6,
            most=1e9,
            or_zero=True,
            help="Budget; 0 fetches nothing.",
        ),
    ] = 50,
    score_from_ms: Annotated[
        float | None,
        decimal(
            "--score-from-ms",
            metavar="T",
            least=0,
            most=1e12,
            help="Count from this time after the first request on. Default: at 80%.",
        ),
    ] = None,
    scores: Annotated[
        str | None,
        typer.Option("--scores", metavar="FILE", help="Write every demand, prefetch and eviction as JSON lines."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Evaluate a model, or a baseline, beside LRU: a trace against a GPU's cache in front of a pool.

    Every block that a request needs and that was seen before is in the pool. A block that is fetched ahead takes
    1/budget seconds to arrive, one after the other. Scores are renewed, and prefetches issued, once a second of the
    trace. A trace must have one clock for all its sessions.

    \b
    lru         the least recently used block is evicted; nothing is fetched
    child       LRU; the last successor of a request's last block is fetched
    popularity  LRU; sessions with many recent turns are fetched
    age         one survival curve for all sessions, learned from what came
                before T
    mlp         a model without memory, trained for at most a minute on what
                came before T

    \b
    Examples:
      speckvctl prefetcher eval model.safetensors conversations.jsonl
      speckvctl prefetcher eval --baseline age conversations.jsonl \\
          --cache-share 0.1 --json
      speckvctl prefetcher eval --baseline lru conversations.jsonl \\
          --score-from-ms 0 --scores log.jsonl
    """
    from speckvctl.prefetcher import dataset, evaluation, model

    if baseline is not None and baseline not in evaluation.BASELINES:
        raise UsageError(f"--baseline: there is no '{baseline}'", f"--baseline {', '.join(evaluation.BASELINES)}")
    wanted = 1 if baseline is not None else 2
    if len(files) != wanted:
        what = "a trace alone" if baseline is not None else "a model and a trace, or --baseline NAME and a trace"
        raise UsageError(f"{plural(len(files), 'file')} given; {what} is needed", "speckvctl prefetcher eval --help")
    if scores is not None:
        check_place(Path(scores), "--scores")
    loaded = model.load(Path(files[0])) if baseline is None else None
    with progress("evaluating", "requests") as tell:
        tell(0, 0)
        data = dataset.read(Path(files[-1]), lambda count: tell(count, 0))
        note_sorted(files[-1], data.moved)
        start_ms = dataset.CHOOSE_SHARE * data.end * 1000 if score_from_ms is None else score_from_ms
        if start_ms > data.end * 1000:
            raise UsageError(
                f"--score-from-ms: the trace ends at {data.end * 1000:.0f} ms", "a smaller --score-from-ms"
            )
        settings = evaluation.Settings(cache_share, blocks_per_second, start_ms)
        scorer = _scorer(data, loaded, baseline, start_ms / 1000)
        measures = evaluation.measure(data, scorer, settings)
        plain = evaluation.measure(data, evaluation.lru(), settings)
        if scores is not None:
            evaluation.write_log(data, scorer, settings, Path(scores))
    latency = evaluation.step_times_ns(data, loaded) if loaded is not None else (None, None)
    result = measures.result
    document = results.PrefetcherEval(
        model=files[0] if loaded is not None else None,
        baseline=baseline,
        trace=files[-1],
        trace_digest=data.digest,
        cache_share=cache_share,
        cache_blocks=settings.capacity(data),
        prefetch_blocks_per_second=blocks_per_second,
        score_from_ms=start_ms,
        window_ms=scorer.window_ms,
        seen_in_training=loaded is not None and loaded.has_seen(data.digest, start_ms / 1000),
        requests=result.requests,
        demanded_blocks=result.demanded,
        gpu_hit_share=measures.gpu_hit_share,
        lru_gpu_hit_share=plain.gpu_hit_share,
        issued_blocks=result.issued,
        useful_blocks=result.useful,
        late_blocks=result.late,
        unused_blocks=result.unused,
        useful_share=measures.useful_share,
        late_share=measures.late_share,
        coverage=measures.coverage,
        chain_top1=measures.chain_top1,
        chain_top4=measures.chain_top4,
        p50_latency_ns=latency[0],
        p99_latency_ns=latency[1],
        scores=scores,
    )
    finish(document, as_json=as_json)


def _scorer(data: Dataset, model: Model | None, baseline: str | None, learn_until: float) -> Scorer:
    from speckvctl.prefetcher import evaluation

    if model is not None:
        return evaluation.quantised(data, model)
    match baseline:
        case "child":
            return evaluation.child()
        case "popularity":
            return evaluation.popularity(data)
        case "age":
            return evaluation.age(data, learn_until)
        case "mlp":
            from speckvctl.prefetcher import training

            training.require_torch()
            return training.mlp_baseline(data, learn_until)
        case _:
            return evaluation.lru()


@app.verb("load")
def load_prefetcher(
    device: Card,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model file.")],
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Load a model into a card; the previous one stays in use until it is complete.

    Exit code 3 when it is loaded already.

    \b
    Examples:
      speckvctl prefetcher load emu:card0 model.safetensors --dry-run
      speckvctl prefetcher load emu:card0 model.safetensors
    """
    import hashlib

    from speckvctl.prefetcher import model as models

    path = Path(model)
    models.load(path)  # the card validates only the format
    data = path.read_bytes()
    with access.administered(device) as admin, progress(f"loading into {device}", "bytes") as tell:
        info = admin.info()
        digest = hashlib.sha256(data).digest()
        if info.model_digest == digest:
            raise NothingToDoError(f"{device} has this prefetcher loaded", None, errno.EALREADY)
        if "predictor" not in info.abilities:
            raise UnsupportedError(f"{device} has no engine for prefetchers yet", f"speckvctl flash {device} BUNDLE")
        if not dry_run:
            admin.load_model(data, tell)
    document = results.PrefetcherLoad(
        device=device,
        dry_run=dry_run,
        model=model,
        digest=digest.hex(),
        replaced_digest=info.model_digest.hex() if info.model_digest else None,
    )
    finish(document, as_json=as_json)


@app.verb("unload")
def unload_prefetcher(device: Card, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Unload a card's model: eviction is by least recent use again. Exit code 3 when there is none.

    \b
    Examples:
      speckvctl prefetcher unload emu:card0 --dry-run
      speckvctl prefetcher unload emu:card0
    """
    with access.administered(device) as admin:
        digest = admin.info().model_digest
        if digest is None:
            raise NothingToDoError(f"{device} has no prefetcher loaded", None, errno.EALREADY)
        if not dry_run:
            admin.unload_model()
    finish(results.PrefetcherUnload(device=device, dry_run=dry_run, digest=digest.hex()), as_json=as_json)


@app.verb("show")
def show_prefetcher(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model file.")], as_json: Json = False
) -> None:
    """Show what a model file is, and what it was made from.

    \b
    Examples:
      speckvctl prefetcher show model.safetensors
      speckvctl prefetcher show model.safetensors --json
    """
    import hashlib

    from speckvctl.prefetcher import features
    from speckvctl.prefetcher import model as models

    path = Path(model)
    loaded = models.load(path)
    made = loaded.provenance
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    document = results.PrefetcherShow(
        model=model,
        digest=digest,
        file_bytes=path.stat().st_size,
        architecture=models.ARCHITECTURE,
        weights=sum(tensor.size for tensor in loaded.tensors.values() if tensor.dtype.itemsize == 1),
        features=list(features.NAMES),
        window_ms=loaded.window_ms,
        traces=made.traces,
        trace_digests=made.trace_digests,
        train_until_s=made.train_until_s,
        chosen_until_s=made.chosen_until_s,
        split=made.split,
        seed=made.seed,
        train_turns=made.train_turns,
        epochs=made.epochs,
        validation_loss=made.validation_loss,
        trained_with=made.trained_with,
    )
    finish(document, as_json=as_json)
