# SPDX-License-Identifier: MIT
"""Documents about prefetchers as text; every figure with its definition."""

from __future__ import annotations

from speckvctl import results
from speckvctl.quantities import format_count, format_duration, format_share, format_size
from speckvctl.render.dispatch import lines_of
from speckvctl.render.text import columns, one_line, paint, pairs, plural

_DEFINITIONS = [
    "GPU hits: stored blocks that requests needed and that were in the GPU's cache.",
    "Useful: prefetched blocks needed after they came and before they went, over issued.",
    "Late: prefetched blocks needed before they had arrived, over issued. No hits.",
    "Coverage: useful over (useful + needed blocks that were not there).",
    "Chain: stored blocks that were the last, or one of the last four, successors seen.",
]


@lines_of.register
def evaluated(document: results.PrefetcherEval) -> list[str]:
    cache = f"{format_count(document.cache_blocks)} blocks ({format_share(document.cache_share)} of the trace's)"
    issued = f"{format_count(document.issued_blocks)} blocks: {format_count(document.useful_blocks)} useful, "
    issued += f"{format_count(document.late_blocks)} late, {format_count(document.unused_blocks)} unused"
    chain = f"top 1 {format_share(document.chain_top1)}, top 4 {format_share(document.chain_top4)}"
    step = []
    if document.p50_latency_ns is not None:  # a model's
        text = f"p50 {format_duration(document.p50_latency_ns)}, p99 {format_duration(document.p99_latency_ns)}"
        step.append(("A step", text))
    lines = pairs(
        [
            ("Model", document.model or f"baseline {document.baseline}"),
            ("Trace", document.trace),
            ("Counted", f"{plural(document.requests, 'request')} from {document.score_from_ms / 1000:,.0f} s on"),
            ("Cache", cache),
            (
                "Budget",
                f"{document.prefetch_blocks_per_second:g} blocks/s ahead, {document.window_ms / 1000:g} s window",
            ),
            ("GPU hits", f"{format_share(document.gpu_hit_share)} of {plural(document.demanded_blocks, 'block')}"),
            ("with LRU", format_share(document.lru_gpu_hit_share)),
            ("Issued", issued),
            ("Useful", format_share(document.useful_share)),
            ("Late", format_share(document.late_share)),
            ("Coverage", format_share(document.coverage)),
            ("Chain", chain),
            *step,
        ]
    )
    if document.seen_in_training:
        lines += ["", paint("The model has seen part of what is counted.", "yellow") + " The figures are biased."]
    if document.scores is not None:
        lines += ["", f"Wrote {one_line(document.scores)}."]
    return [*lines, "", *_DEFINITIONS]


@lines_of.register
def trained(document: results.TrainPrefetcher) -> list[str]:
    lines = columns(
        ["TRACE", ">REQUESTS", ">LEARN", ">VALIDATE", ">TEST", ">RETURNS"],
        [
            [
                trace.trace,
                format_count(trace.requests),
                format_count(trace.train_turns),
                format_count(trace.choose_turns),
                format_count(trace.judge_turns),
                format_count(trace.train_returns),
            ]
            for trace in document.traces
        ],
    )
    if document.dry_run:
        end = f"Would learn from this for at most {document.minutes:g} minutes and write {one_line(document.output)}."
        if document.torch is None:
            end = "Training needs torch, which is not installed. Next: pip install '.[train]' in the source tree"
        return [*lines, "", end]
    rows = columns(
        ["TRACE", "BY", ">LOSS", ">GPU HITS", ">USEFUL", ">LATE", ">COVERAGE"],
        [
            [
                row.trace,
                row.name,
                "-" if row.loss is None else f"{row.loss:.4f}",
                format_share(row.gpu_hit_share),
                format_share(row.useful_share),
                format_share(row.late_share),
                format_share(row.coverage),
            ]
            for row in document.rows
        ],
    )
    setting = (
        f"{format_share(document.cache_share)} of the blocks, {document.prefetch_blocks_per_second:g} blocks/s ahead"
    )
    return [
        *lines,
        "",
        f"On the last 20% of each trace, which nothing was learned from; a cache of {setting}:",
        *rows,
        "",
        "Loss: negative log-likelihood of a bin of time to return, nats.",
        *_DEFINITIONS[:-1],
        "",
        *_verdicts(document.rows),
        f"Wrote {one_line(document.output)} after {plural(document.epochs, 'round')} ({document.stopped}).",
    ]


def _verdicts(rows: list[results.PrefetcherRow]) -> list[str]:
    """A sentence per trace: is the model better than the least recently used?"""
    shares = {(row.trace, row.name): row.gpu_hit_share for row in rows}
    lines = []
    for (trace, name), share in shares.items():
        lru = shares.get((trace, "lru"))
        if name == "model" and share is not None and lru is not None:
            better = "more than" if share > lru else "no more than"
            lines.append(
                f"{trace}: the model serves {format_share(share)} from the GPU, {better} LRU's {format_share(lru)}."
            )
    return lines


@lines_of.register
def shown(document: results.PrefetcherShow) -> list[str]:
    learned = [
        f"{name} (until {until:,.0f} s, chosen by what came until {chosen:,.0f} s)"
        for name, until, chosen in zip(document.traces, document.train_until_s, document.chosen_until_s, strict=True)
    ]
    loss = "-" if document.validation_loss is None else f"{document.validation_loss:.4f} nats a bin"
    return pairs(
        [
            ("Model", document.model),
            ("SHA-256", document.digest),
            ("Size", format_size(document.file_bytes)),
            ("Is", document.architecture),
            ("Weights", format_count(document.weights)),
            ("Window", f"{document.window_ms / 1000:g} s"),
            ("Learned from", f"{plural(document.train_turns, 'turn')}, {document.split}"),
            *(("", text) for text in learned),
            ("Trained", f"{plural(document.epochs, 'round')}, seed {document.seed}, {document.trained_with}"),
            ("Loss", f"{loss}, on what it was chosen by"),
            ("Features", document.features[0]),
            *(("", name) for name in document.features[1:]),
        ]
    )
