# SPDX-License-Identifier: MIT
"""Bytes of a terminal become the same keys wherever they are cut; the line editor is a line editor."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from speckvctl.top.keys import Decoder
from speckvctl.top.state import Editor

KEYS = {
    b"\x1b[A": "up",
    b"\x1bOB": "down",
    b"\x1b[1;5C": "right",
    b"\x1b[D": "left",
    b"\x1b[H": "home",
    b"\x1b[4~": "end",
    b"\x1b[3;2~": "delete",
    b"\x1b[5~": "page-up",
    b"\x1b[6~": "page-down",
    b"\x1b[Z": "back-tab",
    b"\r": "enter",
    b"\t": "tab",
    b"\x7f": "backspace",
    b"\x15": "ctrl-u",
    b"q": "q",
    "ß".encode(): "ß",
    "語".encode(): "語",
}


def decoded(pieces: list[bytes]) -> list[str]:
    decoder = Decoder()
    keys = [key for piece in pieces for key in decoder.feed(piece)]
    return keys + decoder.settle()


@given(st.lists(st.sampled_from(sorted(KEYS))), st.data())
def test_keys_survive_any_cut(sent: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)))))
    pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert decoded(pieces) == [KEYS[key] for key in sent]


@given(st.lists(st.binary(max_size=40)))
def test_any_bytes_become_keys_or_nothing(pieces: list[bytes]) -> None:
    for key in decoded(pieces):
        assert key and (len(key) > 1 or key.isprintable())


def test_an_escape_that_nothing_follows_is_a_key_once_time_is_up() -> None:
    decoder = Decoder()
    assert decoder.feed(b"\x1b") == [] and decoder.waiting
    assert decoder.settle() == ["escape"] and not decoder.waiting
    assert decoder.feed(b"\x1bq") == ["escape", "q"]
    assert decoder.feed(b"\x1b[") == [] and decoder.settle() == ["escape"]
    assert decoder.feed(b"\x1b[15~\x1b[?1;2c\x1b[99z") == []
    assert decoder.feed(b"\x1b[" + b"1" * 100) != [] and not decoder.waiting  # no sequence is that long


@given(st.lists(st.one_of(st.sampled_from(["left", "right", "home", "end", "backspace", "delete"]), st.characters())))
def test_the_editor_does_what_a_list_with_a_cursor_does(keys: list[str]) -> None:
    editor, text, at = Editor(), list[str](), 0
    for key in keys:
        editor.press(key)
        match key:
            case "left":
                at = max(0, at - 1)
            case "right":
                at = min(len(text), at + 1)
            case "home":
                at = 0
            case "end":
                at = len(text)
            case "backspace" if at:
                at -= 1
                del text[at]
            case "backspace":
                pass
            case "delete":
                del text[at : at + 1]
            case _:
                text.insert(at, key)
                at += 1
        assert (editor.text, editor.at) == ("".join(text), at)


def test_the_editor_cuts_words_and_ends() -> None:
    editor = Editor("one two  ", 9)
    editor.press("ctrl-w")
    assert (editor.text, editor.at) == ("one ", 4)
    editor.press("ctrl-w")
    editor.press("ctrl-w")
    assert (editor.text, editor.at) == ("", 0)
    editor = Editor("abcd", 2)
    editor.press("ctrl-k")
    assert editor.text == "ab"
    editor.press("ctrl-u")
    assert editor.text == ""
