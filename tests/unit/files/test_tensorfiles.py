# SPDX-License-Identifier: MIT
"""Safetensors files that are not sound are refused in our words, not in those of the package that reads them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from speckvctl import tensorfiles

F32 = '"dtype":"F32","shape":[1]'


def header(text: str | bytes, data: bytes = b"", count: int | None = None) -> bytes:
    text = text.encode() if isinstance(text, str) else text
    return (len(text) if count is None else count).to_bytes(8, "little") + text + data


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it ends within its header"),
        (header("{}", count=1000), "it ends within its header"),
        (header("{}", count=1 << 40), "its header is larger than any"),
        (header(b'{"\xff":1}'), "its header is not UTF-8"),
        (header("{"), "its header is not JSON"),
        (header(""), "its header is not JSON"),
        (header("{a: 1}"), "its header is not JSON"),
        (header('{"a":1}'), "does not describe tensors"),
        (header("[]"), "does not describe tensors"),
        (header('{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,4]}}', bytes(4)), "does not describe tensors"),
        (header(f'{{"a":{{{F32}}}}}'), "leaves out a tensor's dtype, shape or place"),
        (header('{"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}', bytes(4)), "dtype is F99, which this build"),
        (header(f'{{"a":{{{F32},"data_offsets":[4,8]}}}}', bytes(8)), "overlap, or leave a gap"),
        (header(f'{{"a":{{{F32},"data_offsets":[0,4]}}}}', bytes(2)), "shorter or longer than its tensors"),
        (header(f'{{"a":{{{F32},"data_offsets":[0,8]}}}}', bytes(8)), "are not those of its data"),
        (
            header('{"a":{"dtype":"F32","shape":[18446744073709551615,2],"data_offsets":[0,4]}}', bytes(4)),
            "larger than any file",
        ),
        (header('{"a":{"dtype":"F4","shape":[1],"data_offsets":[0,1]}}', bytes(1)), "ends within a byte"),
    ],
)
def test_reasons_are_in_plain_words(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "file.safetensors"
    path.write_bytes(content)
    with pytest.raises(tensorfiles.UnsoundError) as caught:
        tensorfiles.entries(path)
    reason = str(caught.value)
    assert words in reason and len(reason) < 140
    for theirs in (
        "deserializ",
        "line 1",
        "column",
        "variant",
        "expected",
        "metadata",
        "`",
        "EOF",
        "JSON in",
        "struct",
    ):
        assert theirs not in reason


def test_a_reason_that_is_not_known_is_not_passed_on() -> None:
    assert tensorfiles._reason("Error while deserializing header: FooError { x: 1 }") == "its header is not sound"


def test_the_oldest_reader_that_is_taken_has_what_we_call(repository: Path) -> None:
    """offset_keys() came with 0.6.2."""
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    (line,) = (line for line in project["dependencies"] if line.startswith("safetensors"))
    least = re.fullmatch(r"safetensors>=([0-9.]+)", line)
    assert least and tuple(map(int, least[1].split("."))) >= (0, 6, 2)
