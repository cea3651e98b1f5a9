# SPDX-License-Identifier: MIT
"""speckvctl codec: eval, compare, extract, calibrate, the verbs that run a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speckvctl import completion, files, results
from speckvctl.commands.codec.options import (
    BLOCK_TOKENS,
    BlockTokens,
    Calibration,
    CodecName,
    Compute,
    Context,
    Documents,
    File,
    ModelFolder,
    PrefixTokens,
    RunModel,
    RunTokens,
    SkipDocuments,
    TaskItems,
    Tasks,
    TaskSeed,
    Tokens,
    blocks_of,
)
from speckvctl.commands.options import DryRun, Json, decimal, whole
from speckvctl.console import progress
from speckvctl.errors import UsageError
from speckvctl.render import finish

if TYPE_CHECKING:
    from speckvctl.codecs.distortion import Tally
    from speckvctl.codecs.tensors import Pair
    from speckvctl.reference.evaluation import Model
    from speckvctl.reference.loss import Loss


def eval_codec(
    file: File,
    codec_name: CodecName = "q4x",
    calibration: Calibration = None,
    block_tokens: BlockTokens = BLOCK_TOKENS,
    model: ModelFolder = None,
    tokens: Tokens = None,
    documents: Documents = None,
    skip_documents: SkipDocuments = 0,
    prefix_tokens: PrefixTokens = None,
    tasks: Tasks = False,
    task_items: TaskItems = None,
    context: Context = None,
    seed: TaskSeed = None,
    by_layer: Annotated[
        bool, typer.Option("--by-layer", help="Also run the model once for each layer, with that layer alone coded.")
    ] = False,
    compute: Compute = "cpu",
    as_json: Json = False,
) -> None:
    """Evaluate one codec on a file's K and V: ratio, errors, speed, and with a model what it costs.

    With --model and --tokens the model is run on what comes out of the codec, by two rules. Blocks: every full block
    of 64 tokens, of every layer, is the decoded one for all tokens after it. Prefix: the first tokens' K and V were
    stored and come back decoded, and only what follows is counted, as when a serving engine restores a prefix. KL is
    the divergence of the prediction from that on raw K and V: the figure to rank codecs by. Errors are over documents.
    --by-layer shows which layers it comes from.

    With --model and --tasks the model answers questions with one right answer, made from a seed: arithmetic, needles in
    a text of --context tokens, and completion of code. Whole blocks of each prompt were stored and come back decoded.
    Right answers are counted, and compared with those on raw K and V; errors are of pairs of answers. A model of one
    billion parameters takes minutes on a GPU, and hours on a CPU: use fewer --task-items and a shorter --context there.

    Any decoder that transformers has will do, if all its layers keep K and V alike. This needs torch and transformers.

    Speeds are of one core, on tensors that may be in its caches.

    \b
    Examples:
      speckvctl codec eval kv.safetensors
      speckvctl codec eval kv.safetensors --codec int8-delta-rle --json
      speckvctl codec eval kv.safetensors --tasks --model model \\
          --task-items 2 --context 1024
    """
    from speckv import codec as library

    from speckvctl.codecs import distortion, modes, tensors
    from speckvctl.reference import evaluation

    mode = modes.mode(codec_name, calibration)
    plan = evaluation.plan(tasks=tasks, items=task_items, context=context, seed=seed)
    evaluation.check_options(
        model, tokens, documents, skip_documents, prefix_tokens, compute, by_layer=by_layer, tasks=plan
    )
    pairs, others = tensors.read_pairs(file, blocks_of(block_tokens))
    with progress("coding", "tensors") as tell:
        total, rows = distortion.judge(mode, pairs, block_tokens, tell)
    rates = mode.rates(pairs)
    run = blocks = prefix = stored = layers = answers = asked = None
    if model is not None:
        run = evaluation.load(model, tokens, documents, skip_documents, prefix_tokens, compute, plan)
    if run is not None and run.ids is not None:
        stored = mode.store(run.dtype)
        ones = evaluation.by_layer(mode.store(run.dtype), run.decoder.shape.layers) if by_layer else {}
        with progress("running the model", "documents") as tell:
            losses = run.measure({mode.name: stored, **ones}, tell)
        blocks, prefix = losses[mode.name]
        layers = [_layer_loss(one.layer, *losses[name]) for name, one in ones.items()] if by_layer else None
    if run is not None and run.tasks is not None:
        asked = mode.store(run.dtype)
        with progress("answering", "items") as tell:
            answers = evaluation.described_tasks(run, run.answer({mode.name: asked}, tell)[mode.name])
    document = results.CodecEval(
        file=str(file),
        codec=mode.name,
        calibration=str(calibration) if calibration else None,
        calibration_digest=mode.calibration_digest,
        isa=library.isa(),
        block_tokens=block_tokens,
        raw_bytes=total.raw_bytes,
        stored_bytes=total.stored_bytes,
        ratio=total.ratio,
        exact=total.exact,
        file_blocks=total.blocks,
        file_bit_exact_blocks=total.bit_exact_blocks,
        encode_bytes_per_second=rates.encode,
        decode_bytes_per_second=rates.decode,
        k_relative_rmse=total.k.relative_rmse,
        v_relative_rmse=total.v.relative_rmse,
        k_error_share=total.k.error_share,
        v_error_share=total.v.error_share,
        model=str(model) if model else None,
        tokens=str(tokens) if tokens else None,
        documents=len(run.ids) if run and run.ids is not None else None,
        blocks=evaluation.described(blocks) if blocks else None,
        prefix_tokens=run.prefix if run else None,
        prefix=evaluation.described(prefix) if prefix else None,
        run_ratio=stored.ratio if stored else None,
        run_blocks=stored.frames if stored else None,
        run_bit_exact_blocks=stored.refused if stored else None,
        layers=layers,
        task_seed=plan.seed if plan else None,
        tasks=answers,
        tasks_ratio=asked.ratio if asked else None,
        tensors=[_tensors(pair, row) for pair, row in zip(pairs, rows, strict=True)],
        skipped=others,
    )
    finish(document, as_json=as_json)


def _layer_loss(layer: int, blocks: Loss | None, prefix: Loss) -> results.CodecLayerLoss:
    from speckvctl.reference.evaluation import described

    assert blocks is not None  # a mode codes each layer by itself
    return results.CodecLayerLoss(layer=layer, blocks=described(blocks), prefix=described(prefix))


def _tensors(pair: Pair, tally: Tally) -> results.CodecTensors:
    return results.CodecTensors(
        k=pair.k_name,
        v=pair.v_name,
        layer=pair.layer,
        dtype=pair.dtype,
        heads=pair.heads,
        tokens=pair.tokens,
        head_dim=pair.head_dim,
        raw_bytes=tally.raw_bytes,
        stored_bytes=tally.stored_bytes,
        ratio=tally.ratio,
        k_relative_rmse=tally.k.relative_rmse,
        v_relative_rmse=tally.v.relative_rmse,
        k_error_share=tally.k.error_share,
        v_error_share=tally.v.error_share,
    )


def compare_codecs(
    file: File,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--codec",
            metavar="CODEC",
            help="Only this codec. May be repeated. Default: all.",
            autocompletion=completion.codecs,
        ),
    ] = None,
    calibration: Calibration = None,
    peers: Annotated[bool, typer.Option("--peers/--no-peers", help="Show peers beside our codecs.")] = True,
    model: ModelFolder = None,
    tokens: Tokens = None,
    documents: Documents = None,
    skip_documents: SkipDocuments = 0,
    prefix_tokens: PrefixTokens = None,
    tasks: Tasks = False,
    task_items: TaskItems = None,
    context: Context = None,
    seed: TaskSeed = None,
    compute: Compute = "cpu",
    svg: Annotated[
        Path | None,
        typer.Option("--svg", metavar="FILE", help="Draw ratio and loss as an SVG; a file there is replaced."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare all codecs and their peers in one table: ratio, errors, speed, and with a model its loss.

    Peers: zstd -1 and -3, lz4, byte shuffle with zstd, casts to fp8 with and without a scale of each head, MXFP4,
    NVFP4, KIVI with 4 bits, and coders after TurboQuant, CacheGen and KVTC, which are our own from the papers. The last
    is fitted to the model on the documents that --skip-documents leaves out; without them it is left out. Compressors
    of bytes get the same blocks of 64 tokens and lose nothing. The sizes of the others count scales, offsets and
    entropy-coded bits, but no headers. Losses and tasks are those of codec eval.

    \b
    Examples:
      speckvctl codec compare kv.safetensors --no-peers
      speckvctl codec compare kv.safetensors --codec raw --codec q4x \\
          --svg plot.svg --json
      speckvctl codec compare kv.safetensors --codec q4x --no-peers \\
          --tasks --model model --task-items 2 --context 1024
    """
    from speckv import codec as library

    from speckvctl.codecs import tensors
    from speckvctl.comparison import plot, table
    from speckvctl.reference import evaluation

    plan = evaluation.plan(tasks=tasks, items=task_items, context=context, seed=seed)
    evaluation.check_options(model, tokens, documents, skip_documents, prefix_tokens, compute, tasks=plan)
    if svg is not None:
        files.check_place(svg, "--svg")
    pairs, _ = tensors.read_pairs(file, BLOCK_TOKENS)
    coders, left_out = table.coders(only, calibration, peers=peers)
    run: Model | None = None
    if model is not None:
        run = evaluation.load(model, tokens, documents, skip_documents, prefix_tokens, compute, plan)
    if peers:
        with progress("fitting", "documents") as tell:
            coders += table.fitted(run, left_out, tell)
    with progress("coding", "codecs") as tell:
        rows = table.judge(coders, pairs, left_out, tell)
    if run is not None and run.ids is not None:
        with progress("running the model", "documents") as tell:
            table.run(rows, run, tell)
    if run is not None and run.tasks is not None:
        with progress("answering", "items") as tell:
            table.answer(rows, run, tell)
    document = results.CodecCompare(
        file=str(file),
        isa=library.isa(),
        raw_bytes=sum(pair.raw_bytes for pair in pairs),
        block_tokens=BLOCK_TOKENS,
        model=str(model) if model else None,
        tokens=str(tokens) if tokens else None,
        documents=len(run.ids) if run and run.ids is not None else None,
        prefix_tokens=run.prefix if run else None,
        task_seed=plan.seed if plan else None,
        rows=[row.result() for row in rows],
        left_out=[results.CodecLeftOut(name=name, reason=reason) for name, reason in left_out.items()],
        plot=str(svg) if svg else None,
    )
    if svg is not None:
        plot.write(svg, document)
    finish(document, as_json=as_json)


def extract(
    model: RunModel,
    tokens: RunTokens,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="safetensors file to write.")],
    documents: Documents = None,
    skip_documents: SkipDocuments = 0,
    compute: Compute = "cpu",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Write the K and V that a model makes of a text, in bf16, as the other verbs read them.

    Tensors are named doc0.layer0.k and have the shape [head][token][channel], after the rotary embedding; whole blocks
    of 64 tokens only. Any decoder that transformers has will do, if all its layers keep K and V alike. --dry-run
    checks all that can be known without the model's weights, and tells the size. An existing safetensors file is
    replaced, any other file is not; a failure leaves it unchanged. This needs torch and transformers.

    \b
    Examples:
      speckvctl codec extract --model model --tokens tokens.npy \\
          -o new.safetensors --documents 1
      speckvctl codec extract --model model --tokens tokens.npy \\
          -o new.safetensors --dry-run --json
    """
    import math

    from speckvctl.codecs import tensors
    from speckvctl.reference import evaluation

    evaluation.check_compute(compute)
    files.check_place(output)
    tensors.check_replaceable(output)
    from speckvctl.reference import documents as reading
    from speckvctl.reference import extraction, loading

    shape = loading.check(model)
    ids = reading.read(tokens, shape, documents, skip=skip_documents, tokenizer=lambda: loading.tokenizer(model))
    made = extraction.shapes(shape, ids)
    if not dry_run:
        loaded = loading.load(model, device=compute)
        with progress("running the model", "documents") as tell:
            extraction.write(loaded, ids, output, tell)
    document = results.CodecExtract(
        file=str(output),
        dry_run=dry_run,
        model=str(model),
        tokens=str(tokens),
        documents=len(ids),
        document_tokens=next(iter(made.values()))[1][1],
        layers=shape.layers,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        dtype="bf16",
        raw_bytes=2 * sum(math.prod(size) for _, size in made.values()),
    )
    finish(document, as_json=as_json)


def calibrate(
    model: RunModel,
    tokens: RunTokens,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Calibration to write.")],
    codec_name: Annotated[
        str,
        typer.Option("--codec", metavar="CODEC", help="q5c or e7c.", autocompletion=completion.calibrated_codecs),
    ] = "q5c",
    ratio: Annotated[
        float | None,
        decimal(
            "--ratio",
            metavar="R",
            least=1,
            most=64,
            help="Least compression ratio. Default: 5 in q5c, 7.5 in e7c.",
        ),
    ] = None,
    documents: Documents = None,
    seed: Annotated[int, whole("--seed", metavar="N", least=0, most=1 << 62, help="Seed of the random draws.")] = 0,
    compute: Compute = "cpu",
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Make a calibration of a model for q5c or e7c, from text like what it will serve.

    The model is run, forwards and back, to learn where in K and V small errors change its predictions. In q5c heads
    that matter get more bits, and the encoder moves errors to where they do not matter. In e7c each head gets a
    transform that puts what matters into few coefficients; its ratio is measured on the last documents, with tables
    from the first ones; other text may take more or less. Some ten documents of 2048 tokens are enough; a calibration
    should not be evaluated on the text it was made from. This needs torch and transformers, and minutes of CPU.
    --dry-run checks all that can be known without the model's weights; what ratio e7c reaches cannot.

    What these modes lose differs from model to model, and on some it is more than q3x loses without a calibration:
    run 'codec eval' on other text before a pool uses the file.

    Pools and frames name the calibration by its digest. Frames cannot be read without that file: keep it.

    \b
    Examples:
      speckvctl codec calibrate --model model --tokens tokens.npy \\
          -o new.safetensors --documents 1 --json
      speckvctl codec calibrate --model model --tokens tokens.npy \\
          -o new.safetensors --documents 1 --codec e7c --ratio 4
    """
    import math

    from speckv.codec import Calibration as Loaded

    from speckvctl.codecs import modes, tensors
    from speckvctl.reference import evaluation

    if codec_name not in modes.CALIBRATED:
        raise UsageError(
            f"--codec: {codec_name} takes no calibration", f"--codec with one of {', '.join(modes.CALIBRATED)}"
        )
    evaluation.check_compute(compute)
    files.check_place(output)
    tensors.check_replaceable(output)
    from speckvctl.calibration import making
    from speckvctl.reference import documents as reading
    from speckvctl.reference import loading

    shape = loading.check(model)
    ids = reading.read(tokens, shape, documents, tokenizer=lambda: loading.tokenizer(model))
    making.check(shape, ratio=ratio, codec=codec_name)
    if dry_run:
        planned = results.CodecCalibrate(
            file=str(output),
            dry_run=True,
            codec=codec_name,
            calibration_digest=None,
            file_bytes=None,
            model=str(model),
            tokens=str(tokens),
            documents=len(ids),
            document_tokens=int(ids.shape[1]),
            ratio=None,
            perplexity_reference=None,
            expected_increase_percent=None,
            k_bits=[],
            v_bits=[],
        )
        finish(planned, as_json=as_json)
        return
    loaded = loading.load(model, device=compute)
    with progress("calibrating", "documents") as tell:
        made = making.make(
            loaded, ids, ratio=ratio, codec=codec_name, seed=seed, source=f"{model.name} {tokens.name}", progress=tell
        )
    files.write(output, made.file)
    document = results.CodecCalibrate(
        file=str(output),
        dry_run=False,
        codec=codec_name,
        calibration_digest=Loaded(made.file).digest.hex(),
        file_bytes=len(made.file),
        model=str(model),
        tokens=str(tokens),
        documents=made.documents,
        document_tokens=made.tokens,
        ratio=made.ratio,
        perplexity_reference=math.exp(made.reference_nats),
        expected_increase_percent=100 * math.expm1(made.loss_nats),
        k_bits=made.bits[:, 0].tolist(),
        v_bits=made.bits[:, 1].tolist(),
    )
    finish(document, as_json=as_json)
