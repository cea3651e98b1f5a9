# SPDX-License-Identifier: MIT
"""Documents about codecs as text."""

from __future__ import annotations

from speckvctl import results
from speckvctl.quantities import format_count, format_ratio, format_size
from speckvctl.render.dispatch import lines_of
from speckvctl.render.text import columns, one_line, pairs, plural

_RULES = [
    "Blocks: every full block of 64 tokens of every layer is the decoded one for all tokens after it.",
    "Prefix: the first tokens were stored and come back decoded; only what follows is counted.",
]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}%"


def _rate(rate: float | None) -> str:
    return "-" if rate is None else f"{rate / 1e9:.2f} GB/s"


def _increase(percent: float | None, error: float | None) -> str:
    if percent is None:
        return "-"
    return f"{percent:+.3f}%" + (f" ± {error:.3f}" if error is not None else "")


@lines_of.register
def evaluated(document: results.CodecEval) -> list[str]:
    sizes = f"{format_size(document.raw_bytes)} raw, {format_size(document.stored_bytes)} stored"
    sizes += f" in frames of {document.block_tokens} tokens"
    errors = "nothing: every bit comes back"
    if not document.exact:
        errors = f"K {_percent(document.k_relative_rmse)}, V {_percent(document.v_relative_rmse)} relative error"
        errors += f"; of what differs from the mean: K {_percent(document.k_error_share)}"
        errors += f", V {_percent(document.v_error_share)} of the energy"
    speed = f"{_rate(document.encode_bytes_per_second)} in, {_rate(document.decode_bytes_per_second)} out"
    rows = [
        ("File", document.file),
        ("Codec", document.codec),
        *([("Calibration", f"{document.calibration} ({document.calibration_digest})")] if document.calibration else []),
        ("Ratio", f"{document.ratio:.3f}x ({sizes})"),
        ("Loses", errors),
        ("Speed", f"{speed}, one core, {document.isa}"),
    ]
    if document.file_bit_exact_blocks:
        exact = f"{document.file_bit_exact_blocks} of {plural(document.file_blocks, 'frame')}"
        rows.append(("Bit-exact", f"{exact}, since the codec cannot hold them"))
    lines = pairs(rows)
    lines += [
        "",
        *columns(
            ["LAYER", "K", ">RATIO", ">K ERROR", ">V ERROR", ">K SHARE", ">V SHARE"],
            [
                [
                    "-" if row.layer is None else str(row.layer),
                    row.k,
                    f"{row.ratio:.3f}x",
                    _percent(row.k_relative_rmse),
                    _percent(row.v_relative_rmse),
                    _percent(row.k_error_share),
                    _percent(row.v_error_share),
                ]
                for row in document.tensors
            ],
        ),
    ]
    if document.skipped:
        lines += ["", f"Neither K nor V: {one_line(', '.join(document.skipped))}."]
    tasks = _tasks(document) if document.tasks else []
    if document.blocks is None or document.prefix is None:
        return lines + tasks
    rules = [("blocks", document.blocks), (f"prefix of {document.prefix_tokens}", document.prefix)]
    kept = f"{document.run_bit_exact_blocks} of {plural(document.run_blocks or 0, 'block')} of a layer"
    lines += [
        "",
        f"{one_line(document.model or '')} on {plural(document.documents or 0, 'document')}:",
        *columns(
            ["RULE", ">PERPLEXITY", ">DECODED", ">INCREASE", ">KL, MNAT", ">WORST", ">SAME TOP-1"],
            [
                [
                    rule,
                    f"{loss.perplexity_reference:.4f}",
                    f"{loss.perplexity:.4f}",
                    _increase(loss.perplexity_increase_percent, loss.perplexity_standard_error_percent),
                    _divergence(loss),
                    f"{loss.worst_kl_millinats:.2f} (#{loss.worst_document})",
                    _percent(loss.top1_agreement),
                ]
                for rule, loss in rules
            ],
        ),
        *(_by_layer(document.layers) if document.layers else []),
        f"Ratio of the model's own K and V, all layers of a block in a frame: {document.run_ratio:.3f}x.",
        f"Stored bit-exact, since the codec cannot hold them: {kept}.",
        "",
        *_RULES,
        *tasks,
    ]
    return lines


def _points(value: float, error: float | None, sign: str = "") -> str:
    return f"{value:{sign}.2f}" + (f" ± {error:.2f}" if error is not None else "")


def _difference(task: results.CodecTask) -> str:
    return _points(task.difference_points, task.difference_standard_error_points, "+")


def _reference(task: results.CodecTask) -> str:
    return _points(task.reference_percent, task.reference_standard_error_points)


def _prompts(tasks: list[results.CodecTask], seed: int | None) -> str:
    sizes = ", ".join(f"{task.stored_tokens:,} ({task.name})" for task in tasks if task.stored_tokens is not None)
    return f"Whole blocks of a prompt come back decoded, in tokens: {sizes}. Seed {seed}."


def _tasks(document: results.CodecEval) -> list[str]:
    tasks = document.tasks or []
    return [
        "",
        f"{one_line(document.model or '')}, right answers in percent:",
        *columns(
            ["TASK", ">ITEMS", ">RAW K AND V", ">DECODED", ">POINTS", ">LOST", ">GAINED"],
            [
                [
                    task.name,
                    format_count(task.items),
                    _reference(task),
                    f"{task.percent:.2f}",
                    _difference(task),
                    format_count(task.lost),
                    format_count(task.gained),
                ]
                for task in tasks
            ],
        ),
        _prompts(tasks, document.task_seed),
        f"Ratio of the K and V of the prompts, all layers of a block in a frame: {document.tasks_ratio:.3f}x.",
    ]


def _compared_tasks(document: results.CodecCompare) -> list[str]:
    """The answers on raw K and V, and how far each row is from them."""
    rows = [(row, row.tasks) for row in document.rows if row.tasks]
    if not rows:
        return []
    tasks = rows[0][1]
    return [
        "",
        *columns(
            ["TASKS", *(f">{task.name.upper()}" for task in tasks)],
            [
                ["raw, percent right", *map(_reference, tasks)],
                *([f"{row.name}, points", *map(_difference, found)] for row, found in rows),
            ],
        ),
        f"Each on {plural(tasks[0].items, 'item')}, with its standard error; of differences it is paired.",
        _prompts(tasks, document.task_seed),
    ]


def _by_layer(layers: list[results.CodecLayerLoss]) -> list[str]:
    """Divergence of each layer alone, and its share of their sum."""
    sums = [sum(row.blocks.kl_millinats for row in layers), sum(row.prefix.kl_millinats for row in layers)]
    return [
        "",
        *columns(
            ["ONE LAYER", ">KL, BLOCKS", ">SHARE", ">KL, PREFIX", ">SHARE"],
            [
                [str(row.layer)]
                + [
                    cell
                    for loss, whole in zip((row.blocks, row.prefix), sums, strict=True)
                    for cell in (_divergence(loss), _percent(loss.kl_millinats / whole if whole else None))
                ]
                for row in layers
            ],
        ),
        "",
    ]


def _divergence(loss: results.CodecLoss) -> str:
    error = loss.kl_standard_error_millinats
    return f"{loss.kl_millinats:.3f}" + (f" ± {error:.3f}" if error is not None else "")


def _losses(row: results.CodecRow) -> list[str]:
    none = "exact" if row.exact else "-"
    rules = (row.blocks, row.prefix)
    return [_divergence(loss) if loss else none for loss in rules] + [
        _increase(loss.perplexity_increase_percent, loss.perplexity_standard_error_percent) if loss else none
        for loss in rules
    ]


@lines_of.register
def compared(document: results.CodecCompare) -> list[str]:
    with_model = document.tokens is not None
    lines = columns(
        ["NAME", ">RATIO", ">ENCODE", ">DECODE", ">K ERROR", ">V ERROR"]
        + [">KL, BLOCKS", ">KL, PREFIX", ">PERPLEXITY, BLOCKS", ">PREFIX"] * with_model,
        [
            [
                row.name,
                format_ratio(row.ratio),
                _rate(row.encode_bytes_per_second),
                _rate(row.decode_bytes_per_second),
                "exact" if row.exact else _percent(row.k_relative_rmse),
                "exact" if row.exact else _percent(row.v_relative_rmse),
                *(_losses(row) if with_model else []),
            ]
            for row in document.rows
        ],
    )
    if document.left_out:
        lines += ["", *(one_line(f"Left out: {left.name}: {left.reason}.") for left in document.left_out)]
    if with_model:
        lines += [
            "",
            f"KL in thousandths of a nat a token, and increase of perplexity, on "
            f"{plural(document.documents or 0, 'document')}, each with its standard error; a prefix of "
            f"{document.prefix_tokens} tokens.",
            *_RULES,
        ]
    lines += _compared_tasks(document)
    if document.plot is not None:
        lines += ["", f"Wrote {one_line(document.plot)}."]
    return lines


@lines_of.register
def calibrated(document: results.CodecCalibrate) -> list[str]:
    text = f"{plural(document.documents, 'document')} of {one_line(document.tokens)}"
    if document.dry_run:
        what = f"calibrate {document.codec} for {one_line(document.model)}"
        return [f"Would {what} with {text}, {document.document_tokens:,} tokens each, into {one_line(document.file)}."]
    rows = [
        [str(layer), " ".join(f"{bits:.3g}" for bits in k), " ".join(f"{bits:.3g}" for bits in v)]
        for layer, (k, v) in enumerate(zip(document.k_bits, document.v_bits, strict=True))
    ]
    return [
        *pairs(
            [
                ("Codec", f"{document.codec}, ratio {document.ratio:.3f}x in frames of 64 tokens"),
                ("Model", one_line(document.model)),
                ("Text", f"{text}, perplexity {document.perplexity_reference:.4f}"),
                ("Expected", f"{document.expected_increase_percent:+.3f}% perplexity on this text"),
                ("Digest", document.calibration_digest or "-"),
            ]
        ),
        "",
        *columns(["LAYER", "K BITS", "V BITS"], rows),
        "",
        f"Wrote {one_line(document.file)}.",
    ]


@lines_of.register
def extracted(document: results.CodecExtract) -> list[str]:
    heads = (
        f"{plural(document.layers, 'layer')}, {plural(document.kv_heads, 'KV head')} of {document.head_dim} channels"
    )
    return [
        *pairs(
            [
                ("Model", one_line(document.model)),
                ("Shape", f"{heads}, {document.dtype}"),
                ("Documents", f"{document.documents} of {plural(document.document_tokens, 'token')}"),
                ("Size", format_size(document.raw_bytes)),
            ]
        ),
        f"{'Would write' if document.dry_run else 'Wrote'} {one_line(document.file)}.",
    ]


@lines_of.register
def encoded(document: results.CodecEncode) -> list[str]:
    lines = pairs(
        [
            ("Codec", document.codec),
            ("Tensors", f"{format_count(document.tensors)}, in {plural(document.frame_count, 'frame')}"),
            ("Raw", format_size(document.raw_bytes)),
            ("Frames", f"{format_size(document.stored_bytes)}, ratio {document.ratio:.3f}x"),
        ]
    )
    if document.bit_exact_frames:
        lines.append(f"Bit-exact, since the codec cannot hold them: {plural(document.bit_exact_frames, 'frame')}.")
    if document.skipped:
        lines.append(f"Neither K nor V, left out: {one_line(', '.join(document.skipped))}.")
    return [*lines, f"{'Would write' if document.dry_run else 'Wrote'} {one_line(document.frames)}."]


@lines_of.register
def decoded(document: results.CodecDecode) -> list[str]:
    return [
        *pairs(
            [
                ("Codec", ", ".join(document.codecs)),
                ("Frames", f"{format_count(document.frame_count)}, {format_size(document.stored_bytes)}"),
                ("Tensors", f"{format_count(document.tensors)}, {format_size(document.raw_bytes)}"),
            ]
        ),
        f"{'Would write' if document.dry_run else 'Wrote'} {one_line(document.file)}.",
    ]


@lines_of.register
def vectors(document: results.CodecVectors) -> list[str]:
    lines = columns(
        ["CODEC", ">VECTORS", ">STORED"],
        [[row.codec, format_count(row.vectors), format_count(row.stored_frames)] for row in document.modes],
    )
    kernels = ", ".join(document.isas)
    if document.differences:
        return [*lines, "", *map(one_line, document.differences), f"This build differs ({kernels} kernels)."]
    if document.written or document.dry_run:
        return [*lines, f"{'Wrote' if document.written else 'Would write'} {one_line(document.folder)}."]
    return [*lines, f"This build makes and reads all of them, with {kernels} kernels."]
