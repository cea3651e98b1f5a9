# SPDX-License-Identifier: MIT
"""JSON is read as the format has it: what is JSON gives its value, the rest is refused in plain words."""

from __future__ import annotations

import json
import math

import hypothesis.strategies as st
import pytest
from hypothesis import given

from speckvctl import jsontext

NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=5),
    lambda part: st.lists(part, max_size=4) | st.dictionaries(st.text(max_size=3), part, max_size=4),
    max_leaves=20,
)


@given(value=VALUES, indent=st.sampled_from([None, 2]), ascii=st.booleans())
def test_what_is_json_is_read(value: object, indent: int | None, ascii: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii)
    assert jsontext.loads(text.encode("utf-8", "surrogatepass" if ascii else "strict")) == value


def pairs_differ(pairs: list[tuple[str, object]]) -> dict[str, object]:
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        raise ValueError
    return dict(pairs)


def reference(data: bytes) -> object:
    """By the module itself, with its own hooks."""

    def refuse(_: str) -> None:
        raise ValueError

    def finite(text: str) -> float:
        if not math.isfinite(float(text)):
            raise ValueError
        return float(text)

    return json.loads(data.decode("utf-8"), object_pairs_hook=pairs_differ, parse_constant=refuse, parse_float=finite)


PIECES = st.sampled_from(
    ['{"a":', '"a"', "1", "1e999", "-", "NaN", "Infinity", ",", ":", "[", "]", "}", " ", "\n", "\f"]
)


@given(data=st.lists(PIECES, max_size=12).map("".join).map(str.encode) | st.binary(max_size=20))
def test_what_is_refused_is_what_the_reference_refuses(data: bytes) -> None:
    try:
        expected = reference(data)
    except ValueError:
        with pytest.raises(jsontext.JsonError):
            jsontext.loads(data)
    else:
        assert jsontext.loads(data) == expected


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "it ends at column 1"),
        (b'{"a": [1, 2', "it ends at column 12"),
        (b"{\n  a: 1\n}", "line 2, column 3"),
        (b'{"a": 1, "b": {"c": 0, "c": 1}}', '"c" stands twice'),
        (b"[NaN]", "NaN is not a number of JSON"),
        (b"[-Infinity]", "-Infinity is not a number of JSON"),
        (b"1e999", "beyond all"),
        (b"9" * 5000, "more digits"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'"\xc3(', "not UTF-8 at byte 2"),
        ('{"a": 1}'.encode("utf-16"), "iconv -f UTF-16"),
        ('{"a": 1}'.encode("utf-32"), "iconv -f UTF-32"),
    ],
)
def test_reasons_are_in_plain_words(data: bytes, words: str) -> None:
    with pytest.raises(jsontext.JsonError) as caught:
        jsontext.loads(data)
    reason = str(caught.value)
    assert words in reason and len(reason) < 120
    for theirs in ("Expecting", "delimiter", "recursion", "codec can't", "Exceeds", "Extra"):
        assert theirs not in reason
