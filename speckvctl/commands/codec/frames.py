# SPDX-License-Identifier: MIT
"""speckvctl codec: encode, decode, vectors, the verbs that run no model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from speckvctl import files, results
from speckvctl.commands.codec.options import BLOCK_TOKENS, BlockTokens, Calibration, CodecName, File, blocks_of
from speckvctl.commands.options import DryRun, Json
from speckvctl.console import ProgressCallback, progress
from speckvctl.render import finish

if TYPE_CHECKING:
    from speckvctl.codecs.modes import Mode
    from speckvctl.codecs.tensors import Pair

Frames = Annotated[Path, typer.Argument(metavar="FRAMES", help="A file of frames, as codec encode writes it.")]


def encode_file(
    file: File,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FRAMES", help="File of frames to write.")],
    codec_name: CodecName = "q4x",
    calibration: Calibration = None,
    block_tokens: BlockTokens = BLOCK_TOKENS,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Turn a file's K and V into frames. Tensors that are neither are left out, and named.

    The size of FRAMES is what codec eval calls stored; --dry-run encodes too, to tell it. An existing file of
    frames is replaced, any other file is not; a failure leaves it unchanged.

    \b
    Examples:
      speckvctl codec encode kv.safetensors -o new.frames --dry-run
      speckvctl codec encode kv.safetensors -o new.frames \\
          --codec int8-delta-rle --json
    """
    from speckvctl.codecs import frames, modes, tensors

    mode = modes.mode(codec_name, calibration)
    pairs, others = tensors.read_pairs(file, blocks_of(block_tokens))
    files.check_place(output)
    frames.check_replaceable(output)
    frames.check_names(output, pairs, block_tokens)
    with progress("encoding", "tensors") as tell:
        stored, exact = _encode(mode, pairs, block_tokens, output, dry_run, tell)
    raw = sum(pair.raw_bytes for pair in pairs)
    document = results.CodecEncode(
        file=str(file),
        frames=str(output),
        dry_run=dry_run,
        codec=mode.name,
        calibration_digest=mode.calibration_digest,
        block_tokens=block_tokens,
        tensors=2 * len(pairs),
        frame_count=sum(pair.tokens for pair in pairs) // block_tokens,
        bit_exact_frames=exact,
        raw_bytes=raw,
        stored_bytes=stored,
        ratio=raw / stored,
        skipped=others,
    )
    finish(document, as_json=as_json)


def _encode(
    mode: Mode, pairs: list[Pair], block_tokens: int, output: Path, dry_run: bool, tell: ProgressCallback
) -> tuple[int, int]:
    """Bytes of the file, and how many of its frames are bit-exact as the codec refuses their values."""
    from speckvctl.codecs import frames

    exact = 0

    def coded() -> frames.Coded:
        nonlocal exact
        for done, pair in enumerate(pairs):
            tell(done, len(pairs))
            made = mode.encode(pair, block_tokens)
            exact += sum(mode.refused(frame) for frame in made)
            yield made

    if dry_run:
        size = frames.overhead(pairs, block_tokens) + sum(frame.nbytes for of_pair in coded() for frame in of_pair)
    else:
        size = frames.write(output, pairs, block_tokens, coded())
    return size, exact


def decode_file(
    source: Frames,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="safetensors file to write.")],
    calibration: Calibration = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Turn a file of frames back into K and V, names, shapes and dtypes as they were. Every checksum is verified.

    --dry-run decodes too, to verify them. An existing safetensors file is replaced, any other file is not; a
    failure leaves it unchanged.

    \b
    Examples:
      speckvctl codec decode kv.frames -o new.safetensors --dry-run
      speckvctl codec decode kv.frames -o new.safetensors --json
    """
    from speckvctl.codecs import frames, modes, tensors

    reader = frames.Reader(source)
    codecs = [modes.mode(name, calibration, of_frames=True) for name in reader.modes]
    files.check_place(output)
    tensors.check_replaceable(output)
    with progress("decoding", "tensors") as tell:
        raw = frames.decode(reader, {mode.codec: mode for mode in codecs}, None if dry_run else output, tell)
    document = results.CodecDecode(
        frames=str(source),
        file=str(output),
        dry_run=dry_run,
        codecs=list(reader.modes),
        tensors=2 * len(reader.entries),
        frame_count=sum(len(entry.frames) for entry in reader.entries),
        raw_bytes=raw,
        stored_bytes=reader.size,
    )
    finish(document, as_json=as_json)


def golden_vectors(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Golden frames: index.txt and NAME.frame.")],
    write: Annotated[bool, typer.Option("--write", help="Replace them with those of this build.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Compare this build with golden frames, with every kernel set of this machine; exit code 7 where it differs.

    Every line of index.txt is computed again: its input from style and seed, its frame, and what that decodes to. With
    --write the checksums in index.txt and the stored frames become those of this build; the lines themselves stay. Of
    codecs with a calibration the stored frames are read, no others are made.

    \b
    Examples:
      speckvctl codec vectors vectors
      speckvctl codec vectors vectors --write --dry-run --json
    """
    from speckvctl.codecs import vectors

    with progress("checking", "vectors") as tell:
        found = vectors.update(folder, dry_run, tell) if write else vectors.check(folder, tell)
    document = results.CodecVectors(
        folder=str(folder),
        written=write and not dry_run,
        dry_run=dry_run,
        isas=found.isas,
        modes=[results.VectorModes(codec=name, vectors=n, stored_frames=m) for name, (n, m) in found.modes.items()],
        differences=found.differences,
    )
    finish(document, as_json=as_json)
