# SPDX-License-Identifier: MIT
"""Documents to run a model on: token ids from a .npy file, or a text that the model's tokenizer cuts."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from speckvctl.reference.decoder import Shape

BLOCK = 64
TEXT_TOKENS = 2048  # of a document made from a text
MAX_FILE_BYTES = 1 << 30

Ints = npt.NDArray[np.int64]


class TokensError(Exception):
    """A file of token ids, or a text, that is invalid or does not fit the model."""

    def __init__(self, path: Path, reason: str, number: int = errno.EINVAL) -> None:
        super().__init__(f"{path}: {reason}")
        self.errno = number


def read(
    path: Path,
    shape: Shape,
    documents: int | None = None,
    *,
    skip: int = 0,
    tokenizer: Callable[[], Callable[[str], list[int]]] | None = None,
) -> Ints:
    """Token ids [document][token], at most `documents` behind the first `skip`, checked against the model.

    A file that is not named .npy is UTF-8 text: it is cut into documents of TEXT_TOKENS tokens, or of what the model
    takes at most; a last one that is shorter is left out, unless it is the only one. `tokenizer` is asked for then.
    """
    if path.stat().st_size > MAX_FILE_BYTES:
        raise TokensError(path, f"larger than {MAX_FILE_BYTES >> 20} MiB: not token ids, and too long a text")
    found = _ids(path) if tokenizer is None or path.suffix == ".npy" else _text(path, shape, tokenizer())
    if not 2 * BLOCK < found.shape[1] <= shape.context or not len(found):
        raise TokensError(
            path, f"shape {list(found.shape)}: {2 * BLOCK + 1} to {shape.context} tokens a document are needed"
        )
    ids: Ints = np.asarray(found[skip:][:documents]).astype(np.int64)
    if not len(ids):
        raise TokensError(path, f"holds {len(found)} documents, and {skip} are skipped")
    if ids.min() < 0 or ids.max() >= shape.vocabulary:
        raise TokensError(path, f"holds ids outside the model's {shape.vocabulary} tokens")
    return ids


def _ids(path: Path) -> npt.NDArray[np.integer]:
    try:
        found = np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception as exc:  # numpy's own, tokenize's, those of a Python parser
        raise TokensError(path, "not a .npy file of token ids, or one that is cut short", errno.EBADMSG) from exc
    if found.ndim != 2 or found.dtype.kind not in "iu":
        raise TokensError(path, "not integers of shape [document][token]")
    return found


def _text(path: Path, shape: Shape, tokenize: Callable[[str], list[int]]) -> Ints:
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as exc:
        raise TokensError(path, f"neither a .npy file nor UTF-8 text: byte {exc.start}", errno.EBADMSG) from exc
    ids = tokenize(text)
    length = min(TEXT_TOKENS, shape.context)
    count = len(ids) // length
    if count == 0:
        return np.array([ids], np.int64)
    return np.array(ids[: count * length], np.int64).reshape(count, length)
