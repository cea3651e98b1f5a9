# SPDX-License-Identifier: MIT
"""Arguments and options that several verbs of codec share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from speckvctl import completion
from speckvctl.commands.options import whole
from speckvctl.errors import UsageError
from speckvctl.results.words import CODECS

BLOCK_TOKENS = 64

File = Annotated[
    Path, typer.Argument(metavar="FILE", help="safetensors with tensors named k and v, [head][token][channel].")
]
CodecName = Annotated[
    str,
    typer.Option(
        "--codec",
        metavar="CODEC",
        help=f"{', '.join(CODECS[:-1])} or {CODECS[-1]}.",
        autocompletion=completion.codecs,
    ),
]
Calibration = Annotated[
    Path | None, typer.Option("--calibration", metavar="FILE", help="For q5c and e7c: codec calibrate makes it.")
]
BlockTokens = Annotated[
    int, whole("--block-tokens", metavar="N", least=64, most=65472, help="Tokens of a frame, a multiple of 64.")
]
ModelFolder = Annotated[
    Path | None,
    typer.Option(
        "--model", metavar="MODEL", help="Decoder, a folder as published or a GGUF file: run it on decoded KV."
    ),
]
Tokens = Annotated[
    Path | None,
    typer.Option("--tokens", metavar="FILE", help="What to run it on: token ids, .npy [document][token], or text."),
]
RunModel = Annotated[
    Path, typer.Option("--model", metavar="MODEL", help="Decoder, a folder as published or a GGUF file.")
]
RunTokens = Annotated[
    Path,
    typer.Option("--tokens", metavar="FILE", help="What to run it on: token ids, .npy [document][token], or text."),
]
Documents = Annotated[
    int | None, whole("--documents", metavar="N", least=1, most=1 << 20, help="Use at most N documents.")
]
SkipDocuments = Annotated[
    int,
    whole(
        "--skip-documents",
        metavar="N",
        least=0,
        most=1 << 20,
        help="Skip the first N documents (those used for calibration).",
    ),
]
Compute = Annotated[
    str, typer.Option("--compute", metavar="DEVICE", help="Where the model runs: cpu, or a GPU: cuda, cuda:1.")
]
PrefixTokens = Annotated[
    int | None,
    whole("--prefix-tokens", metavar="N", least=64, most=1 << 24, help="Length of the restored prefix. Default: half."),
]
Tasks = Annotated[
    bool,
    typer.Option("--tasks", help="Let the model answer arithmetic, needles in a long text, and code on decoded KV."),
]
TaskItems = Annotated[
    int | None,
    whole("--task-items", metavar="N", least=1, most=1 << 20, help="Questions of each task. Default: 400."),
]
Context = Annotated[
    int | None,
    whole(
        "--context",
        metavar="N",
        least=256,
        most=1 << 24,
        help="Tokens of the text with needles. Default: the model's longest, 32768 at most.",
    ),
]
TaskSeed = Annotated[
    int | None, whole("--seed", metavar="N", least=0, most=1 << 62, help="Seed of the tasks. Default: 0.")
]


def blocks_of(block_tokens: int) -> int:
    if block_tokens % BLOCK_TOKENS:
        raise UsageError(f"--block-tokens: {block_tokens} is not a multiple of {BLOCK_TOKENS}", "--block-tokens 64")
    return block_tokens
