# SPDX-License-Identifier: MIT
"""Documents about codecs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from speckvctl.exitcodes import ExitCode
from speckvctl.results.document import Document


@dataclass(frozen=True, kw_only=True)
class CodecTensors:
    """K and V of one layer of a file; stored_bytes is of their frames."""

    k: str
    v: str
    layer: int | None
    dtype: str
    heads: int
    tokens: int
    head_dim: int
    raw_bytes: int
    stored_bytes: int
    ratio: float
    k_relative_rmse: float | None
    v_relative_rmse: float | None


@dataclass(frozen=True, kw_only=True)
class CodecEval(Document):
    """Perplexities are None without a model. The plain ones are by the rule of blocks, prefix_* by that of a prefix."""

    schema: ClassVar[str] = "speckvctl.codec-eval"
    file: str
    codec: str
    calibration: str | None
    calibration_digest: str | None
    isa: str
    block_tokens: int
    raw_bytes: int
    stored_bytes: int
    ratio: float
    exact: bool
    encode_bytes_per_second: float | None
    decode_bytes_per_second: float | None
    k_relative_rmse: float | None
    v_relative_rmse: float | None
    model: str | None
    tokens: str | None
    documents: int | None
    perplexity_reference: float | None
    perplexity: float | None
    perplexity_increase_percent: float | None
    perplexity_standard_error_percent: float | None
    prefix_tokens: int | None
    prefix_perplexity_reference: float | None
    prefix_perplexity: float | None
    prefix_perplexity_increase_percent: float | None
    prefix_perplexity_standard_error_percent: float | None
    run_ratio: float | None
    tensors: list[CodecTensors]
    skipped: list[str]


@dataclass(frozen=True, kw_only=True)
class CodecRow:
    """A mode or a peer."""

    name: str
    kind: str
    exact: bool
    ratio: float
    encode_bytes_per_second: float | None
    decode_bytes_per_second: float | None
    k_relative_rmse: float | None
    v_relative_rmse: float | None
    perplexity_increase_percent: float | None
    perplexity_standard_error_percent: float | None
    prefix_perplexity_increase_percent: float | None
    prefix_perplexity_standard_error_percent: float | None


@dataclass(frozen=True, kw_only=True)
class CodecLeftOut:
    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class CodecCompare(Document):
    schema: ClassVar[str] = "speckvctl.codec-compare"
    file: str
    isa: str
    raw_bytes: int
    block_tokens: int
    model: str | None
    tokens: str | None
    documents: int | None
    perplexity_reference: float | None
    prefix_tokens: int | None
    prefix_perplexity_reference: float | None
    rows: list[CodecRow]
    left_out: list[CodecLeftOut]
    plot: str | None


@dataclass(frozen=True, kw_only=True)
class CodecCalibrate(Document):
    """k_bits and v_bits: of each layer, of each KV head. A dry run calibrates nothing, and knows none of them."""

    schema: ClassVar[str] = "speckvctl.codec-calibrate"
    file: str
    dry_run: bool
    codec: str
    calibration_digest: str | None
    file_bytes: int | None
    model: str
    tokens: str
    documents: int
    document_tokens: int
    ratio: float | None
    perplexity_reference: float | None
    expected_increase_percent: float | None
    k_bits: list[list[float]]
    v_bits: list[list[float]]


@dataclass(frozen=True, kw_only=True)
class CodecEncode(Document):
    schema: ClassVar[str] = "speckvctl.codec-encode"
    file: str
    frames: str
    dry_run: bool
    codec: str
    calibration_digest: str | None
    block_tokens: int
    tensors: int
    frame_count: int
    raw_bytes: int
    stored_bytes: int
    ratio: float
    skipped: list[str]


@dataclass(frozen=True, kw_only=True)
class CodecDecode(Document):
    schema: ClassVar[str] = "speckvctl.codec-decode"
    frames: str
    file: str
    dry_run: bool
    codecs: list[str]
    tensors: int
    frame_count: int
    raw_bytes: int
    stored_bytes: int


@dataclass(frozen=True, kw_only=True)
class VectorModes:
    """Vectors of one mode."""

    codec: str
    vectors: int
    stored_frames: int


@dataclass(frozen=True, kw_only=True)
class CodecVectors(Document):
    schema: ClassVar[str] = "speckvctl.codec-vectors"
    folder: str
    written: bool
    dry_run: bool
    isas: list[str]
    modes: list[VectorModes]
    differences: list[str]

    @property
    def exit_code(self) -> ExitCode:
        return ExitCode.VERIFICATION_FAILED if self.differences else ExitCode.DONE
