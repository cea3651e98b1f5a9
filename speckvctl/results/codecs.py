# SPDX-License-Identifier: MIT
"""Documents about codecs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from speckvctl.exitcodes import ExitCode
from speckvctl.results.described import Said
from speckvctl.results.document import Document


@dataclass(frozen=True, kw_only=True)
class CodecTensors:
    """K and V of one layer of a file; stored_bytes is of their frames."""

    k: Annotated[str, Said("Name of the tensor with K.")]
    v: Annotated[str, Said("Name of the tensor with V.")]
    layer: Annotated[int | None, Said("Layer that the name tells; null: none.", minimum=0)]
    dtype: Annotated[str, Said("dtype.")]
    heads: Annotated[int, Said("KV heads.", minimum=0)]
    tokens: Annotated[int, Said("Tokens.", minimum=0)]
    head_dim: Annotated[int, Said("Channels of a head.", minimum=0)]
    raw_bytes: Annotated[int, Said("Bytes of both.", minimum=0)]
    stored_bytes: Annotated[int, Said("Bytes of their frames.", minimum=0)]
    ratio: Annotated[float, Said("raw_bytes / stored_bytes.", minimum=0)]
    k_relative_rmse: Annotated[
        float | None,
        Said("Root of the mean squared error of K over that of K; null: K is all zero and is not any more.", minimum=0),
    ]
    v_relative_rmse: Annotated[float | None, Said("The same of V.", minimum=0)]
    k_error_share: Annotated[
        float | None,
        Said(
            "Squared error of K over the squared differences of K from the mean of each channel over 64 tokens; null: "
            "there are none, and K changed.",
            minimum=0,
        ),
    ]
    v_error_share: Annotated[float | None, Said("The same of V.", minimum=0)]


@dataclass(frozen=True, kw_only=True)
class CodecLoss:
    """What a codec costs a model by one rule; means over documents and over their tokens that count."""

    perplexity_reference: Annotated[float, Said("Perplexity with nothing lost.", minimum=0)]
    perplexity: Annotated[float, Said("Perplexity on decoded K and V.", minimum=0)]
    perplexity_increase_percent: Annotated[float, Said("Increase over the reference.")]
    perplexity_standard_error_percent: Annotated[
        float | None, Said("Standard error of that increase, over documents; null for one document.", minimum=0)
    ]
    kl_millinats: Annotated[
        float,
        Said(
            "Divergence (Kullback-Leibler) from the prediction on raw K and V to that on decoded ones, in thousandths "
            "of a nat a token.",
            minimum=0,
        ),
    ]
    kl_standard_error_millinats: Annotated[
        float | None, Said("Its standard error, over documents; null for one document.", minimum=0)
    ]
    worst_document: Annotated[int, Said("Document with the largest divergence, of those run, from 0.", minimum=0)]
    worst_kl_millinats: Annotated[float, Said("Divergence of that document.", minimum=0)]
    top1_agreement: Annotated[
        float, Said("Share of tokens whose likeliest successor stays the same.", minimum=0, maximum=1)
    ]


@dataclass(frozen=True, kw_only=True)
class CodecLayerLoss:
    """What a codec costs a model where only one layer is coded."""

    layer: Annotated[int, Said("Number of the layer, from 0.", minimum=0)]
    blocks: Annotated[CodecLoss, Said("Loss by blocks.")]
    prefix: Annotated[CodecLoss, Said("Loss behind a prefix.")]


@dataclass(frozen=True, kw_only=True)
class CodecTask:
    """Answers of a model on decoded K and V, beside its answers on raw ones to the same questions."""

    name: Annotated[
        str,
        Said("Task; average: the mean of the others.", enum=["arithmetic", "needle", "code", "average"]),
    ]
    items: Annotated[int, Said("Questions.", minimum=1)]
    stored_tokens: Annotated[
        int | None, Said("Tokens of a prompt that come back decoded, at most; null: of an average.", minimum=64)
    ]
    reference_percent: Annotated[float, Said("Right answers on raw K and V, in percent.", minimum=0, maximum=100)]
    reference_standard_error_points: Annotated[
        float | None, Said("Its standard error, over prompts; null for one prompt.", minimum=0)
    ]
    percent: Annotated[float, Said("Right answers on decoded K and V, in percent.", minimum=0, maximum=100)]
    difference_points: Annotated[float, Said("percent - reference_percent.", minimum=-100, maximum=100)]
    difference_standard_error_points: Annotated[
        float | None,
        Said("Its standard error, of answers in pairs, over prompts; null for one prompt.", minimum=0),
    ]
    lost: Annotated[int, Said("Answers that are right on raw K and V alone.", minimum=0)]
    gained: Annotated[int, Said("Answers that are right on decoded K and V alone.", minimum=0)]


@dataclass(frozen=True, kw_only=True)
class CodecEval(Document):
    """What `speckvctl codec eval --json` prints. Losses are None without a model."""

    schema: ClassVar[str] = "speckvctl.codec-eval"
    file: Annotated[str, Said("safetensors file with K and V.")]
    codec: Annotated[str, Said("Mode.")]
    calibration: Annotated[str | None, Said("Calibration file; null in modes without one.")]
    calibration_digest: Annotated[str | None, Said("Digest that frames name it by; null in modes without one.")]
    isa: Annotated[str, Said("Set of kernels in use.")]
    block_tokens: Annotated[int, Said("Tokens of a frame.", minimum=0)]
    raw_bytes: Annotated[int, Said("Bytes of K and V.", minimum=0)]
    stored_bytes: Annotated[int, Said("Bytes of the frames, headers, tables and checksums included.", minimum=0)]
    ratio: Annotated[float, Said("raw_bytes / stored_bytes.", minimum=0)]
    exact: Annotated[bool, Said("True: every bit comes back.")]
    file_blocks: Annotated[int, Said("Frames of one layer that the file makes.", minimum=0)]
    file_bit_exact_blocks: Annotated[
        int, Said("Of them, those that the codec cannot hold: they are stored bit-exact.", minimum=0)
    ]
    encode_bytes_per_second: Annotated[float | None, Said("Raw bytes in, one core; null: not timed.", minimum=0)]
    decode_bytes_per_second: Annotated[float | None, Said("Raw bytes out, one core; null: not timed.", minimum=0)]
    k_relative_rmse: Annotated[
        float | None,
        Said("Root of the mean squared error of K over that of K; null: K is all zero and is not any more.", minimum=0),
    ]
    v_relative_rmse: Annotated[float | None, Said("The same of V.", minimum=0)]
    k_error_share: Annotated[
        float | None,
        Said(
            "Squared error of K over the squared differences of K from the mean of each channel over 64 tokens; null: "
            "there are none, and K changed.",
            minimum=0,
        ),
    ]
    v_error_share: Annotated[float | None, Said("The same of V.", minimum=0)]
    model: Annotated[str | None, Said("Folder or GGUF file of the model; null: none was run.")]
    tokens: Annotated[str | None, Said("File of token ids, or text; null: no model was run.")]
    documents: Annotated[int | None, Said("Documents that it was run on.", minimum=0)]
    blocks: Annotated[
        CodecLoss | None,
        Said("Loss where every full block of 64 tokens of every layer is the decoded one for later tokens."),
    ]
    prefix_tokens: Annotated[int | None, Said("Tokens restored in the rule of a prefix.", minimum=0)]
    prefix: Annotated[CodecLoss | None, Said("Loss of what follows a prefix that comes back decoded.")]
    run_ratio: Annotated[
        float | None,
        Said("Ratio of the K and V that the model made, in frames of 64 tokens of all its layers.", minimum=0),
    ]
    run_blocks: Annotated[int | None, Said("Blocks of one layer that the model made, by both rules.", minimum=0)]
    run_bit_exact_blocks: Annotated[
        int | None, Said("Of them, those that the codec cannot hold: they are stored bit-exact.", minimum=0)
    ]
    layers: Annotated[
        list[CodecLayerLoss] | None, Said("Losses where one layer alone is coded, with --by-layer; null: not run.")
    ]
    task_seed: Annotated[int | None, Said("Seed of the tasks; null: they were not run.", minimum=0)]
    tasks: Annotated[list[CodecTask] | None, Said("Answers to tasks, with --tasks; null: not run.")]
    tasks_ratio: Annotated[float | None, Said("Ratio of the K and V of their prompts, as run_ratio.", minimum=0)]
    tensors: Annotated[list[CodecTensors], Said("Each layer of the file.")]
    skipped: Annotated[list[str], Said("Tensors that are neither K nor V.")]


@dataclass(frozen=True, kw_only=True)
class CodecRow:
    """A mode or a peer."""

    name: Annotated[str, Said("Name.")]
    kind: Annotated[
        str,
        Said(
            "mode, compressor (of bytes), quantiser (of floats) or coder (a quantiser with entropy coding).",
            enum=["mode", "compressor", "quantiser", "coder"],
        ),
    ]
    exact: Annotated[bool, Said("True: every bit comes back.")]
    ratio: Annotated[float, Said("Bytes of K and V over what is stored of them; of peers without headers.", minimum=0)]
    encode_bytes_per_second: Annotated[float | None, Said("Raw bytes in, one core; null: not timed.", minimum=0)]
    decode_bytes_per_second: Annotated[float | None, Said("Raw bytes out, one core; null: not timed.", minimum=0)]
    k_relative_rmse: Annotated[
        float | None,
        Said("Root of the mean squared error of K over that of K; null: K is all zero and is not any more.", minimum=0),
    ]
    v_relative_rmse: Annotated[float | None, Said("The same of V.", minimum=0)]
    k_error_share: Annotated[
        float | None,
        Said(
            "Squared error of K over the squared differences of K from the mean of each channel over 64 tokens; null: "
            "there are none, and K changed.",
            minimum=0,
        ),
    ]
    v_error_share: Annotated[float | None, Said("The same of V.", minimum=0)]
    blocks: Annotated[CodecLoss | None, Said("Loss by the rule of blocks; null: not run, or nothing to lose.")]
    prefix: Annotated[CodecLoss | None, Said("Loss by the rule of a prefix; null: no model, or nothing to lose.")]
    run_ratio: Annotated[
        float | None,
        Said("Ratio of the K and V that the model made, in frames of 64 tokens of all its layers.", minimum=0),
    ]
    run_blocks: Annotated[int | None, Said("Blocks of one layer that the model made, by both rules.", minimum=0)]
    run_bit_exact_blocks: Annotated[
        int | None, Said("Of them, those that the mode cannot hold: they are stored bit-exact.", minimum=0)
    ]
    tasks: Annotated[list[CodecTask] | None, Said("Answers to tasks; null: not run, or nothing to lose.")]
    tasks_ratio: Annotated[float | None, Said("Ratio of the K and V of their prompts, as run_ratio.", minimum=0)]


@dataclass(frozen=True, kw_only=True)
class CodecLeftOut:
    """A peer that could not be compared."""

    name: Annotated[str, Said("Mode or peer.")]
    reason: Annotated[str, Said("Why.")]


@dataclass(frozen=True, kw_only=True)
class CodecCompare(Document):
    """What `speckvctl codec compare --json` prints."""

    schema: ClassVar[str] = "speckvctl.codec-compare"
    file: Annotated[str, Said("safetensors file with K and V.")]
    isa: Annotated[str, Said("Set of kernels in use.")]
    raw_bytes: Annotated[int, Said("Bytes of K and V.", minimum=0)]
    block_tokens: Annotated[int, Said("Tokens of a frame.", minimum=0)]
    model: Annotated[str | None, Said("Folder or GGUF file of the model; null: none was run.")]
    tokens: Annotated[str | None, Said("File of token ids, or text; null: no model was run.")]
    documents: Annotated[int | None, Said("Documents that it was run on.", minimum=0)]
    prefix_tokens: Annotated[int | None, Said("Tokens restored in the rule of a prefix.", minimum=0)]
    task_seed: Annotated[int | None, Said("Seed of the tasks; null: they were not run.", minimum=0)]
    rows: Annotated[list[CodecRow], Said("Modes and peers.")]
    left_out: Annotated[list[CodecLeftOut], Said("What could not be compared, and why.")]
    plot: Annotated[str | None, Said("SVG that was written.")]


@dataclass(frozen=True, kw_only=True)
class CodecCalibrate(Document):
    """What `speckvctl codec calibrate --json` prints.

    k_bits and v_bits: per layer and KV head; None in a dry run, which does not calibrate.
    """

    schema: ClassVar[str] = "speckvctl.codec-calibrate"
    file: Annotated[str, Said("Calibration, a safetensors file.")]
    dry_run: Annotated[bool, Said("True: nothing was changed.")]
    codec: Annotated[str, Said("Mode that it is for.")]
    calibration_digest: Annotated[
        str | None, Said("Digest that pools and frames name it by, in hexadecimal; null in a dry run.")
    ]
    file_bytes: Annotated[int | None, Said("Bytes of the calibration; null in a dry run.", minimum=0)]
    model: Annotated[str, Said("Folder or GGUF file of the model.")]
    tokens: Annotated[str, Said("File of the token ids, or text, that the model was run on.")]
    documents: Annotated[int, Said("Documents that the model was run on.", minimum=0)]
    document_tokens: Annotated[int, Said("Tokens predicted in them.", minimum=0)]
    ratio: Annotated[
        float | None,
        Said("Raw bytes over the bytes of a frame of 64 tokens of all layers; null in a dry run.", minimum=0),
    ]
    perplexity_reference: Annotated[
        float | None, Said("Perplexity on these documents with nothing lost; null in a dry run.", minimum=0)
    ]
    expected_increase_percent: Annotated[
        float | None, Said("Increase of perplexity to expect on these documents, to second order; null in a dry run.")
    ]
    k_bits: Annotated[
        list[list[float]],
        Said("Bits of a value of K: of each layer, of each KV head.", items={"items": {"minimum": 0}}),
    ]
    v_bits: Annotated[
        list[list[float]],
        Said("Bits of a value of V: of each layer, of each KV head.", items={"items": {"minimum": 0}}),
    ]


@dataclass(frozen=True, kw_only=True)
class CodecExtract(Document):
    """What `speckvctl codec extract --json` prints."""

    schema: ClassVar[str] = "speckvctl.codec-extract"
    file: Annotated[str, Said("safetensors file.")]
    dry_run: Annotated[bool, Said("True: nothing was changed.")]
    model: Annotated[str, Said("Folder or GGUF file of the model.")]
    tokens: Annotated[str, Said("File of token ids, or text.")]
    documents: Annotated[int, Said("Documents.", minimum=0)]
    document_tokens: Annotated[int, Said("Tokens of each whose K and V are written.", minimum=0)]
    layers: Annotated[int, Said("Layers of the model.", minimum=0)]
    kv_heads: Annotated[int, Said("KV heads.", minimum=0)]
    head_dim: Annotated[int, Said("Channels of a head.", minimum=0)]
    dtype: Annotated[str, Said("dtype.")]
    raw_bytes: Annotated[int, Said("Bytes of K and V.", minimum=0)]


@dataclass(frozen=True, kw_only=True)
class CodecEncode(Document):
    """What `speckvctl codec encode --json` prints."""

    schema: ClassVar[str] = "speckvctl.codec-encode"
    file: Annotated[str, Said("safetensors file with K and V.")]
    frames: Annotated[str, Said("File of frames.")]
    dry_run: Annotated[bool, Said("True: nothing was changed.")]
    codec: Annotated[str, Said("Mode.")]
    calibration_digest: Annotated[str | None, Said("Digest that frames name it by; null in modes without one.")]
    block_tokens: Annotated[int, Said("Tokens of a frame.", minimum=0)]
    tensors: Annotated[int, Said("Tensors.", minimum=0)]
    frame_count: Annotated[int, Said("Frames.", minimum=0)]
    bit_exact_frames: Annotated[
        int, Said("Of them, those whose values the codec cannot hold: they are bit-exact.", minimum=0)
    ]
    raw_bytes: Annotated[int, Said("Bytes of K and V.", minimum=0)]
    stored_bytes: Annotated[int, Said("Bytes of the frames, headers, tables and checksums included.", minimum=0)]
    ratio: Annotated[float, Said("raw_bytes / stored_bytes.", minimum=0)]
    skipped: Annotated[list[str], Said("Tensors that are neither K nor V.")]


@dataclass(frozen=True, kw_only=True)
class CodecDecode(Document):
    """What `speckvctl codec decode --json` prints."""

    schema: ClassVar[str] = "speckvctl.codec-decode"
    frames: Annotated[str, Said("File of frames.")]
    file: Annotated[str, Said("safetensors file.")]
    dry_run: Annotated[bool, Said("True: nothing was changed.")]
    codecs: Annotated[list[str], Said("Modes of the frames.")]
    tensors: Annotated[int, Said("Tensors.", minimum=0)]
    frame_count: Annotated[int, Said("Frames.", minimum=0)]
    raw_bytes: Annotated[int, Said("Bytes of K and V.", minimum=0)]
    stored_bytes: Annotated[int, Said("Bytes of the frames, headers, tables and checksums included.", minimum=0)]


@dataclass(frozen=True, kw_only=True)
class VectorModes:
    """Vectors of one mode."""

    codec: Annotated[str, Said("Mode.")]
    vectors: Annotated[int, Said("Lines of index.txt.", minimum=0)]
    stored_frames: Annotated[int, Said("Frames that are stored whole.", minimum=0)]


@dataclass(frozen=True, kw_only=True)
class CodecVectors(Document):
    """What `speckvctl codec vectors --json` prints."""

    schema: ClassVar[str] = "speckvctl.codec-vectors"
    folder: Annotated[str, Said("Folder of golden frames.")]
    written: Annotated[bool, Said("True: the folder was written.")]
    dry_run: Annotated[bool, Said("True: nothing was changed.")]
    isas: Annotated[list[str], Said("Sets of kernels that were held to it.")]
    modes: Annotated[list[VectorModes], Said("Vectors of each mode.")]
    differences: Annotated[list[str], Said("Vectors that this build makes otherwise, at most 20.")]

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode.VERIFICATION_FAILED if self.differences else ExitCode.DONE
