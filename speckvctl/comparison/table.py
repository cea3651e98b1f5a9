# SPDX-License-Identifier: MIT
"""All modes and all peers on the same tensors and the same documents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from speckv import Codec

from speckvctl import results
from speckvctl.codecs import distortion as judging
from speckvctl.codecs import modes
from speckvctl.codecs.distortion import Tally
from speckvctl.codecs.modes import CALIBRATED, Mode, Rates, Stored
from speckvctl.codecs.tensors import Pair
from speckvctl.comparison import peers
from speckvctl.errors import CliError, UnsupportedError
from speckvctl.reference import evaluation

if TYPE_CHECKING:
    from speckvctl.comparison.kvtc import Kvtc
    from speckvctl.reference.evaluation import Model
    from speckvctl.reference.loss import Loss

Progress = Callable[[int, int], None]
Coder: TypeAlias = "Mode | peers.Peer | Kvtc"


@dataclass
class Row:
    coder: Coder
    tally: Tally
    rates: Rates
    blocks: Loss | None = None
    prefix: Loss | None = None
    stored: Stored | None = None  # of a mode that a model was run on
    tasks: list[results.CodecTask] | None = None
    tasks_stored: Stored | None = None

    @property
    def kind(self) -> str:
        match self.coder:
            case Mode():
                return "mode"
            case peers.Compressor():
                return "compressor"
            case peers.Quantiser():
                return "quantiser"
            case _:
                return "coder"

    def result(self) -> results.CodecRow:
        return results.CodecRow(
            name=self.coder.name,
            kind=self.kind,
            exact=self.tally.exact,
            ratio=self.tally.ratio,
            encode_bytes_per_second=self.rates.encode,
            decode_bytes_per_second=self.rates.decode,
            k_relative_rmse=self.tally.k.relative_rmse,
            v_relative_rmse=self.tally.v.relative_rmse,
            k_error_share=self.tally.k.error_share,
            v_error_share=self.tally.v.error_share,
            blocks=evaluation.described(self.blocks) if self.blocks else None,
            prefix=evaluation.described(self.prefix) if self.prefix else None,
            run_ratio=self.stored.ratio if self.stored else None,
            run_blocks=self.stored.frames if self.stored else None,
            run_bit_exact_blocks=self.stored.refused if self.stored else None,
            tasks=self.tasks,
            tasks_ratio=self.tasks_stored.ratio if self.tasks_stored else None,
        )


def coders(only: list[str] | None, calibration: Path | None, *, peers: bool) -> tuple[list[Coder], dict[str, str]]:
    """The coders to compare, and those left out with the reason."""
    found: list[Coder] = []
    left_out: dict[str, str] = {}
    for name in only or [str(mode) for mode in Codec]:
        if only is None and calibration is None and name in CALIBRATED:
            left_out[name] = "needs --calibration"
        else:
            try:
                found.append(modes.mode(name, calibration if name in CALIBRATED else None))
            except CliError as exc:
                if only is not None:
                    raise
                left_out[name] = exc.message
    return found + (_peers(left_out) if peers else []), left_out


def _peers(left_out: dict[str, str]) -> list[Coder]:
    found: list[Coder] = []
    for name, make in (
        ("zstd, lz4", peers.compressors),
        ("fp8, MXFP4, NVFP4, KIVI, TurboQuant, CacheGen", peers.quantisers),
    ):
        try:
            found += make()
        except UnsupportedError as exc:
            left_out[name] = exc.message
    return found


FITTED = "KVTC"


def fitted(model: Model | None, left_out: dict[str, str], progress: Progress) -> list[Coder]:
    """The peers that are fitted to a model, on the documents that are skipped; without them, left out."""
    if model is None or model.skipped is None:
        left_out[FITTED] = "it is fitted to a model on the documents that --skip-documents leaves out"
        return []
    from speckvctl.comparison import kvtc

    try:
        return [kvtc.fit(model.decoder, model.skipped(), progress)]
    except UnsupportedError as exc:
        left_out[FITTED] = exc.message
        return []


def judge(coders: list[Coder], pairs: list[Pair], left_out: dict[str, str], progress: Progress) -> list[Row]:
    """Run every coder on every tensor; one that cannot encode them is left out with the reason."""
    rows = []
    for done, coder in enumerate(coders):
        progress(done, len(coders))
        try:
            if isinstance(coder, Mode):
                tally, _ = judging.judge(coder, pairs, modes.BLOCK_TOKENS, lambda _, __: None)
                rows.append(Row(coder, tally, coder.rates(pairs)))
            else:
                rows.append(Row(coder, *coder.judge(pairs)))
        except UnsupportedError as exc:
            left_out[coder.name] = exc.message
    return rows


def run(rows: list[Row], model: Model, progress: Progress) -> None:
    """The loss of every row, all on the same documents."""
    stores, kept = _stores(rows, model)
    found = model.measure(stores, progress) if stores else {}
    for row in rows:
        if row.coder.name in found:
            row.blocks, row.prefix = found[row.coder.name]
        row.stored = kept.get(row.coder.name)


def answer(rows: list[Row], model: Model, progress: Progress) -> None:
    """The answers of every row to the same questions."""
    stores, kept = _stores(rows, model)
    found = model.answer(stores, progress) if stores else {}
    for row in rows:
        scores = found.get(row.coder.name)
        row.tasks = evaluation.described_tasks(model, scores) if scores else None
        row.tasks_stored = kept.get(row.coder.name)


def _stores(rows: list[Row], model: Model) -> tuple[dict[str, Any], dict[str, Stored]]:
    """The stores of all rows that lose something, by their names, and those of them that count their bytes."""
    stores: dict[str, Any] = {}
    counted: dict[str, Stored] = {}
    for row in rows:
        match row.coder:
            case Mode() if not row.tally.exact:
                stores[row.coder.name] = counted[row.coder.name] = row.coder.store(model.dtype)
            case peers.Quantiser():
                stores[row.coder.name] = row.coder.store
            case peers.CacheGen():
                stores[row.coder.name] = peers.CacheGen(model.decoder.shape.layers).store
            case peers.Compressor() | Mode():
                pass
            case whole:
                stores[row.coder.name] = whole
    return stores, counted
