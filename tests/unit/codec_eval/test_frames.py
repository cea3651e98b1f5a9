# SPDX-License-Identifier: MIT
"""Files of frames: what was encoded comes back, and nothing else is believed."""

from __future__ import annotations

import errno
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from speckv import codec

from speckvctl.codecs import distortion, frames, modes, tensors
from speckvctl.codecs.frames import FramesError, Reader
from speckvctl.errors import UnsupportedError
from tests.unit.codec_eval import kv

LOSSY = [mode for mode in codec.modes() if mode not in ("raw", "lossless")]


def encoded(folder: Path, mode: str = "q4x", block_tokens: int = 64) -> Path:
    pairs, _ = tensors.read_pairs(kv.pairs(folder / "kv.safetensors"), block_tokens)
    used = modes.mode(mode)
    frames.write(folder / "kv.frames", pairs, block_tokens, (used.encode(pair, block_tokens) for pair in pairs))
    return folder / "kv.frames"


def decode(path: Path, out: Path | None = None) -> int:
    reader = Reader(path)
    used = {mode: modes.mode(mode) for mode in reader.modes}
    return frames.decode(reader, used, out, lambda _, __: None)


@pytest.mark.parametrize("mode", codec.modes())
@pytest.mark.parametrize("block_tokens", [64, 128])
def test_what_is_judged_is_what_is_written_and_read_back(mode: str, block_tokens: int, tmp_path: Path) -> None:
    path = encoded(tmp_path, mode, block_tokens)
    pairs, _ = tensors.read_pairs(tmp_path / "kv.safetensors", block_tokens)
    total, _ = distortion.judge(modes.mode(mode), pairs, block_tokens, lambda _, __: None)
    assert path.stat().st_size == total.stored_bytes
    assert decode(path, tmp_path / "new.safetensors") == total.raw_bytes
    back, _ = tensors.read_pairs(tmp_path / "new.safetensors", block_tokens)
    again = distortion.Tally()
    for was, now in zip(pairs, back, strict=True):
        assert (was.k_name, was.v_name, was.dtype) == (now.k_name, now.v_name, now.dtype)
        again.merge(distortion.compare(was, now, 0))
    assert (again.k, again.v) == (total.k, total.v)
    assert total.exact == (mode not in LOSSY)


@settings(max_examples=60)
@given(data=st.data())
def test_a_changed_byte_or_a_missing_end_is_never_read_as_tensors(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("frames")
    path = encoded(folder)
    whole = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        whole = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        place = data.draw(st.integers(0, len(whole) - 1) | st.integers(0, 600))
        whole[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(whole)
    kept = folder / "new.safetensors"
    kept.write_bytes((folder / "kv.safetensors").read_bytes())
    before = kept.read_bytes()
    try:
        decode(path, kept)
    except FramesError as exc:
        assert exc.errno in (errno.EBADMSG, errno.EPROTONOSUPPORT)
        assert kept.read_bytes() == before
    else:  # padding, which no checksum covers
        assert kept.read_bytes() != before
        assert len(list(folder.iterdir())) == 3
        decoded, _ = tensors.read_pairs(kept, 64)
        path = encoded(folder)
        decode(path, folder / "right.safetensors")
        assert all(
            np.array_equal(a.k, b.k) and np.array_equal(a.v, b.v)
            for a, b in zip(decoded, tensors.read_pairs(folder / "right.safetensors", 64)[0], strict=True)
        )


def rewritten(path: Path, version: int = 0, text: bytes | None = None) -> None:
    """With a head of one's own, its checksums right."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<I", data, 12)
    old, text = data[24 : 24 + length], text if text is not None else data[24 : 24 + length]
    body = data[(24 + len(old) + 63) // 64 * 64 :]
    head = struct.pack("<8sIII", b"SKVFILE\0", version, len(text), codec.crc32c(text))
    start = head + struct.pack("<I", codec.crc32c(head)) + text
    path.write_bytes(start + bytes(-len(start) % 64) + body)


ENTRY = '{"block_tokens":64,"pairs":[{"k":"a.k","v":"a.v","layer":0,"tokens":%s}]}'
DIRECTORIES: dict[str, tuple[str | bytes, str]] = {
    "not JSON": (b"{", "its directory: not JSON"),
    "not text": (b"\xff", "its directory: not UTF-8"),
    "deep": (b"[" * 20000, "its directory: nested too deeply"),
    "a list": (b"[]", "its directory has no block_tokens"),
    "a key twice": (b'{"block_tokens":64,"block_tokens":64,"pairs":[]}', "stands twice"),
    "no pairs": (b'{"block_tokens":64,"pairs":[]}', "its directory lists no pair"),
    "odd blocks": (b'{"block_tokens":63,"pairs":[{}]}', "no block_tokens from 64"),
    "a pair without a name": (b'{"block_tokens":64,"pairs":[{}]}', "lacks k, v"),
    "no pair at all": (b'{"block_tokens":64,"pairs":[7]}', "lacks k, v"),
    "half a surrogate pair": ((ENTRY % "128").replace("a.k", r"\ud800.k"), "invalid pair in its directory"),
    "no tokens": (ENTRY % "0", "invalid pair in its directory"),
    "odd tokens": (ENTRY % "65", "invalid pair in its directory"),
    "endless tokens": (ENTRY % "6400000000000", "invalid pair in its directory"),
    "more digits than any": (ENTRY % ("9" * 5000), "more digits"),
    "NaN tokens": (ENTRY % "NaN", "NaN is not a number of JSON"),
    "fewer tokens": (ENTRY % "64", "follow the last frame"),
    "more tokens": (ENTRY % "640", "frame 2 of a.k is out of its place"),
}


@pytest.mark.parametrize("case", DIRECTORIES)
def test_a_directory_that_lies_is_refused(case: str, tmp_path: Path) -> None:
    text, reason = DIRECTORIES[case]
    path = encoded(tmp_path)
    rewritten(path, text=text if isinstance(text, bytes) else text.encode())
    with pytest.raises(FramesError, match=reason):
        Reader(path)


def test_frames_and_files_from_the_future_are_unsupported(tmp_path: Path) -> None:
    path = encoded(tmp_path)
    rewritten(path, version=1)
    with pytest.raises(FramesError, match="version 1; this build reads 0") as caught:
        Reader(path)
    assert caught.value.errno == errno.EPROTONOSUPPORT
    for offset, value, number in ((4, 2, errno.EPROTONOSUPPORT), (6, 77, errno.EOPNOTSUPP)):
        data = bytearray(encoded(tmp_path).read_bytes())
        begin = data.index(b"SKVF", 64)
        data[begin + offset] = value
        data[begin + 124 : begin + 128] = struct.pack("<I", codec.crc32c(bytes(data[begin : begin + 124])))
        path.write_bytes(data)
        with pytest.raises(FramesError, match=r"frame 0 of doc\.layer0\.k is") as refused:
            Reader(path)
        assert refused.value.errno == number


def test_a_frame_that_is_whole_but_not_in_its_place_is_refused(tmp_path: Path) -> None:
    path = encoded(tmp_path)
    data = path.read_bytes()
    size = Reader(path).entries[0].frames[0].frame_bytes
    begin = data.index(b"SKVF", 64)
    first, second = data[begin : begin + size], data[begin + size : begin + 2 * size]
    path.write_bytes(data[:begin] + second + first + data[begin + 2 * size :])
    with pytest.raises(FramesError, match=r"frame 0 of doc\.layer0\.k is out of its place"):
        Reader(path)


def test_values_that_are_not_finite_are_refused_with_the_tensors_name(tmp_path: Path) -> None:
    bits = kv.like_kv((1, 64, 64))
    bits[0, 4, 5] = 0x7F80  # the first four tokens are kept as they are
    path = kv.write(tmp_path / "kv.safetensors", {"a.k": ("BF16", bits), "a.v": ("BF16", bits)})
    pairs, _ = tensors.read_pairs(path, 64)
    with pytest.raises(UnsupportedError, match=r"a\.k and a\.v: a value is not finite"):
        modes.mode("q4x").encode(pairs[0], 64)
    assert modes.mode("raw").encode(pairs[0], 64)


def test_blocks_that_a_mode_would_spoil_are_kept_bit_exact_and_counted(tmp_path: Path) -> None:
    bits = kv.like_kv((1, 192, 64))
    bits[0, 64:128] = 0x3F80 + np.arange(64) % 2  # constants: nothing differs from the mean
    path = kv.write(tmp_path / "kv.safetensors", {"a.k": ("BF16", kv.like_kv((1, 192, 64))), "a.v": ("BF16", bits)})
    pairs, _ = tensors.read_pairs(path, 64)
    mode = modes.mode("q4x")
    made = mode.encode(pairs[0], 64)
    assert [mode.refused(frame) for frame in made] == [False, True, False]
    assert [codec.parse_frame(frame).identity.first_position for frame in made] == [0, 64, 128]
    back = pairs[0].with_blocks(mode.decode(made))
    assert np.array_equal(back.v[:, 64:128], pairs[0].v[:, 64:128])
    total, _ = distortion.judge(mode, pairs, 64, lambda done, of: None)
    assert (total.blocks, total.bit_exact_blocks, total.exact) == (3, 1, False)
    assert mode.rates(pairs).encode is None  # all tokens in one frame


def test_a_shape_that_a_mode_does_not_take_is_refused_with_the_tensors_name(tmp_path: Path) -> None:
    bits = kv.like_kv((1, 64, 72))
    path = kv.write(tmp_path / "kv.safetensors", {"a.k": ("BF16", bits), "a.v": ("BF16", bits)})
    pairs, _ = tensors.read_pairs(path, 64)
    with pytest.raises(UnsupportedError, match="takes no bf16 with head size 72"):
        modes.mode("q4x").encode(pairs[0], 64)
