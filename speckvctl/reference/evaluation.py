# SPDX-License-Identifier: MIT
"""Loads the model and documents given to a command, and measures what codecs cost on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import speckv

from speckvctl import results
from speckvctl.errors import UnsupportedError, UsageError

if TYPE_CHECKING:
    from speckvctl.reference.decoder import Decoder
    from speckvctl.reference.loss import Loss

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Model:
    decoder: Decoder
    ids: Any
    prefix: int
    skipped: Callable[[], Any] | None = None  # the documents before `ids`, to fit peers on; None: none
    dtype: speckv.DType = speckv.DType.BF16

    def measure(self, stores: Mapping[str, Any], progress: Progress) -> dict[str, tuple[Loss | None, Loss]]:
        """The loss of each store, by the block rule, unless it codes layers together, and by the prefix rule."""
        from speckvctl.reference import loss
        from speckvctl.reference.loss import Rule

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


def check_options(
    model: Path | None,
    tokens: Path | None,
    documents: int | None,
    skip: int,
    prefix_tokens: int | None,
    compute: str = "cpu",
    *,
    by_layer: bool = False,
) -> None:
    """Check the options early."""
    if (model is None) != (tokens is None):
        raise UsageError("--model and --tokens go together", "both of them, or neither")
    if model is None and (documents is not None or skip or prefix_tokens is not None or compute != "cpu" or by_layer):
        raise UsageError(
            "--documents, --skip-documents, --prefix-tokens, --by-layer and --compute say how a model is run",
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
    model: Path, tokens: Path, documents: int | None, skip: int, prefix_tokens: int | None, compute: str = "cpu"
) -> Model:
    from speckvctl.reference import documents as reading
    from speckvctl.reference import loading

    shape = loading.check(model)
    read = partial(reading.read, tokens, shape, tokenizer=lambda: loading.tokenizer(model))
    ids = read(documents, skip=skip)
    prefix = prefix_tokens or ids.shape[1] // 2 // 64 * 64
    if prefix + 2 > ids.shape[1]:
        raise UsageError(
            f"--prefix-tokens: nothing of {ids.shape[1]} tokens is left behind {prefix}", "a smaller --prefix-tokens"
        )
    return Model(loading.load(model, device=compute), ids, prefix, partial(read, skip) if skip else None)
