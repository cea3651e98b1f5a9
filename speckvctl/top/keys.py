# SPDX-License-Identifier: MIT
"""Decodes terminal input to keys: "a", "enter", "up", "ctrl-u". Input may be split anywhere."""

from __future__ import annotations

import codecs
import re

#: Final part of a sequence after ESC [ or ESC O -> key. Modifiers ("1;5A") are ignored.
_SEQUENCES = {
    "A": "up",
    "B": "down",
    "C": "right",
    "D": "left",
    "H": "home",
    "F": "end",
    "Z": "back-tab",
    "1~": "home",
    "7~": "home",
    "4~": "end",
    "8~": "end",
    "3~": "delete",
    "5~": "page-up",
    "6~": "page-down",
}
_CONTROLS = {
    "\r": "enter",
    "\n": "enter",
    "\t": "tab",
    "\x7f": "backspace",
    "\x08": "backspace",
    "\x01": "home",
    "\x05": "end",
    "\x02": "left",
    "\x06": "right",
    "\x04": "delete",
}
_SEQUENCE = re.compile(r"\x1b[\[O]([0-9;?]*)([A-Za-z~])")
_BEGUN = re.compile(r"\x1b([\[O][0-9;?]*)?$")
#: No sequence of a terminal is longer.
_LONGEST = 32


class Decoder:
    """Feed bytes, take keys. A lone escape becomes the key "escape" after settle()."""

    def __init__(self) -> None:
        self._text = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    @property
    def waiting(self) -> bool:
        """Whether the pending bytes may be the start of a sequence."""
        return bool(self._rest)

    def feed(self, data: bytes) -> list[str]:
        self._rest += self._text.decode(data)
        return self._take(final=False)

    def settle(self) -> list[str]:
        return self._take(final=True)

    def _take(self, *, final: bool) -> list[str]:
        keys: list[str] = []
        text, at = self._rest, 0
        while at < len(text):
            if text[at] != "\x1b":
                keys += _plain(text[at])
                at += 1
                continue
            whole = _SEQUENCE.match(text, at)
            if whole is not None:
                at = whole.end()
                known = _SEQUENCES.get(whole[2]) or _SEQUENCES.get(whole[1].split(";")[0] + whole[2])
                keys += [known] if known else []
            elif not final and _BEGUN.match(text, at) and len(text) - at < _LONGEST:
                break
            else:
                keys.append("escape")
                at += 1
                if text[at : at + 1] in ("[", "O"):  # a partial sequence is not text
                    at = len(text)
        self._rest = text[at:]
        return keys


def _plain(character: str) -> list[str]:
    if character in _CONTROLS:
        return [_CONTROLS[character]]
    if character < " ":
        return [f"ctrl-{chr(ord(character) + 96)}"] if character != "\0" else []
    return [character] if character.isprintable() else []
