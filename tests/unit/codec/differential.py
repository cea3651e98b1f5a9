# SPDX-License-Identifier: MIT
"""Mutated safetensors files: the C reader and the format's reference reader give the same verdict on every one.

usage: differential.py TEST_CODEC_SAFETENSORS [MUTANTS] [SEED]     exit 77: no safetensors package here
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from typing import Any

DTYPES = ("U8", "I8", "I16", "U64", "BF16", "F16", "F32", "F8_E4M3", "F4", "F6_E2M3", "BOOL", "C64", "F8_E8M0")
TEXTS = ("a", "b", "layer0.k", "é", "😀", "", "a\u0000", 'q"', "x\\y", "__metadata__", "dtype")
PIECES = (
    ' \n\t\r,:[]{}"\\-+.eE0123456789',
    "\\u0061", "\\ud83d\\ude00", "\\ud800", "\\udc00", "\\n", "\\x", "null", "true", "1e5", "1e309", "-0", "1.5", "01",
    '"a":1', '"dtype":"U8"', '"shape":[2]', '"data_offsets":[0,2]', '"__metadata__":{"a":"b"}', '"__metadata__":null',
    "18446744073709551615", "18446744073709551616", "4294967296", "[]", "{}", "[1,{}]", "\x00", "\x1f", "\x7f",
)  # fmt: skip
BITS = {"U64": 64, "C64": 64, "F32": 32, "I16": 16, "BF16": 16, "F16": 16, "F4": 4, "F6_E2M3": 6}


def sound(rng: random.Random) -> tuple[dict[str, Any], int]:
    """The header of a file with some tensors, and how long its data is."""
    header: dict[str, Any] = {}
    if rng.random() < 0.4:
        header["__metadata__"] = {rng.choice(TEXTS): rng.choice(TEXTS) for _ in range(rng.randrange(3))}
    at, tensors = 0, []
    for _ in range(rng.randrange(5)):
        dtype = rng.choice(DTYPES)
        shape = [rng.randrange(5) for _ in range(rng.randrange(4))]
        count = 1
        for n in shape:
            count *= n
        bits = count * BITS.get(dtype, 8)
        if bits % 8:
            continue
        tensors.append({"dtype": dtype, "shape": shape, "data_offsets": [at, at + bits // 8]})
        at += bits // 8
    rng.shuffle(tensors)
    for tensor in tensors:
        header[rng.choice(TEXTS) + str(rng.randrange(4))] = tensor
    return header, at


def as_text(rng: random.Random, header: dict[str, Any]) -> str:
    return json.dumps(header, ensure_ascii=rng.random() < 0.5, separators=rng.choice(((",", ":"), (", ", ": "))))


def values(rng: random.Random, header: dict[str, Any]) -> None:
    """Mutate values in the header, which stays valid JSON."""
    if not header:
        return
    name = rng.choice(list(header))
    entry = header[name]
    odd: list[Any] = [None, 1, -1, 2.0, "U8", [], {}, [0], [0, 2, 2], True, 1 << 64, {"U8": None}, "\ud800", "x8"]
    if not isinstance(entry, dict) or rng.random() < 0.1:
        header[name] = rng.choice([*odd, ["U8", [2], [0, 2]]])
    elif rng.random() < 0.3 and entry:
        del entry[rng.choice(list(entry))]
    elif rng.random() < 0.5 and isinstance(entry.get("data_offsets"), list):
        which = rng.choice(("data_offsets", "shape"))
        numbers = entry.get(which)
        if isinstance(numbers, list) and numbers and all(type(n) is int for n in numbers):
            numbers[rng.randrange(len(numbers))] += rng.choice((-1, 1, 2, 1 << 32, 1 << 63))
    else:
        entry[rng.choice(("dtype", "shape", "data_offsets", "more", "a"))] = rng.choice(
            [*odd, {"deep": [1, {"x": []}]}]
        )


def characters(rng: random.Random, text: bytes) -> bytes:
    at = rng.randrange(len(text) + 1)
    match rng.randrange(5):
        case 0:
            return text[:at] + text[at + rng.randrange(1, 4) :]
        case 1:
            piece = rng.choice(PIECES)
            return text[:at] + (rng.choice(piece) if len(piece) > 20 else piece).encode() + text[at:]
        case 2:
            return text[:at] + bytes([rng.randrange(256)]) + text[at + 1 :]
        case 3:
            over = rng.choice(PIECES[1:]).encode()
            return text[:at] + over + text[at + len(over) :]
        case _:
            end = min(len(text), at + rng.randrange(1, 60))
            return text[:end] + text[at:end] + text[end:]


def member_twice(rng: random.Random, text: str, header: dict[str, Any]) -> str:
    """Duplicate a key, with its own or another value."""
    if not header:
        return text
    one, other = rng.choice(list(header)), rng.choice(list(header))
    member = f"{json.dumps(one)}:{json.dumps(header[other])}"
    return text[:-1] + "," + member + "}" if rng.random() < 0.5 else "{" + member + "," + text[1:]


def mutant(rng: random.Random) -> bytes:
    header, size = sound(rng)
    kind = rng.randrange(6)
    if kind == 0:
        values(rng, header)
    text = as_text(rng, header)
    if kind == 1:
        text = member_twice(rng, text, header)
    raw = text.encode("utf-8", "surrogatepass")
    if kind in (2, 3):
        for _ in range(rng.randrange(1, 4)):
            raw = characters(rng, raw)
    raw = rng.choice((b"", b"", b"", b" ", b"\n")) + raw + rng.choice((b"", b" ", b"   \n"))
    data = bytes(max(0, size + (rng.choice((-1, 1, 2, 8)) if kind == 4 else 0)))
    length = len(raw) + (rng.choice((-1, 1, 8, 1 << 33, (1 << 64) - len(raw) - 8)) if kind == 5 else 0)
    file = (length % (1 << 64)).to_bytes(8, "little") + raw + data
    return file[: rng.randrange(len(file))] if rng.random() < 0.02 else file


def main() -> int:
    try:
        from safetensors import SafetensorError, deserialize
    except ImportError:
        return 77
    program, count, seed = sys.argv[1], int((sys.argv[2:] or ["10000"])[0]), int((sys.argv[3:] or ["1"])[0])
    rng = random.Random(seed)
    files = [mutant(rng) for _ in range(count)]
    stream = b"".join(len(file).to_bytes(8, "little") + file for file in files)
    done = subprocess.run([program, "--verdicts"], input=stream, stdout=subprocess.PIPE, check=True)
    ours = [int(line) for line in done.stdout.split()]
    assert len(ours) == len(files), f"{len(ours)} verdicts on {len(files)} files"
    sides, wrong = [0, 0], 0
    for file, verdict in zip(files, ours, strict=True):
        try:
            deserialize(file)  # type: ignore[no-untyped-call]
            reason = None
        except SafetensorError as exc:
            reason = str(exc)
        sides[reason is None] += 1
        if (verdict == 0) != (reason is None):
            wrong += 1
            if wrong <= 10:
                print(f"{file!r}: here {verdict}, the reference says {reason or 'sound'}")
    print(f"{count} files: {sides[1]} sound, {sides[0]} not, {wrong} verdicts differ")
    assert min(sides) > count // 20, "both kinds"
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
