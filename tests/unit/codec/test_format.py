# SPDX-License-Identifier: MIT
"""The stored golden frames, read by a decoder written from libspeckv/codec/FORMAT.md alone.

It is slow and plain on purpose: exact fractions and no library of ours, so that the C code and the specification
cannot be wrong together.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import pytest

VECTORS = Path(__file__).resolve().parents[2] / "vectors"
FRAMES = sorted(path.stem for path in VECTORS.glob("*.frame"))
MODES = {0: "raw", 1: "int8-delta-rle", 2: "q4x", 3: "q5c", 4: "e7c", 5: "lossless", 6: "q3x", 7: "q5x"}
DTYPES = {1: "bf16", 2: "fp16", 3: "fp8_e4m3", 4: "fp8_e5m2"}
MANTISSA_BITS = {"bf16": 7, "fp16": 10}
BIAS = {"bf16": 127, "fp16": 15}


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


CRC_TABLE = _crc_table()


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


@dataclass(frozen=True)
class Header:
    mode: str
    dtype: str
    layers: int
    kv_heads: int
    head_dim: int
    tokens: int
    raw_bytes: int
    frame_bytes: int
    sections: int
    table_crc: int
    first_position: int
    calibration: bytes


def parse(frame: bytes) -> Header:
    magic, version, mode, dtype = struct.unpack_from("<4sHBB", frame, 0)
    layers, kv_heads, head_dim, tokens, raw_bytes, frame_bytes = struct.unpack_from("<4H2I", frame, 8)
    sections, flags, table_crc, tenant, header_crc = struct.unpack_from("<2H3I", frame, 112)
    assert (magic, version, flags, tenant) == (b"SKVF", 1, 0, 0)
    assert header_crc == crc32c(frame[:124])
    assert frame_bytes == len(frame) and frame_bytes % 64 == 0
    assert sections == 2 * layers
    return Header(
        MODES[mode],
        DTYPES[dtype],
        layers,
        kv_heads,
        head_dim,
        tokens,
        raw_bytes,
        frame_bytes,
        sections,
        table_crc,
        int.from_bytes(frame[24:32], "little"),
        frame[96:112],
    )


def value(dtype: str, bits: int) -> Fraction:
    mantissa = MANTISSA_BITS[dtype]
    exponent, fraction = (bits & 0x7FFF) >> mantissa, bits & ((1 << mantissa) - 1)
    if exponent:
        fraction += 1 << mantissa
    power = max(exponent, 1) - BIAS[dtype] - mantissa
    magnitude = Fraction(fraction) * Fraction(2) ** power
    return -magnitude if bits & 0x8000 else magnitude


def nearest(dtype: str, target: Fraction) -> int:
    """Bit pattern of the number nearest to `target`, ties to the even pattern; a zero is +0."""
    low, high = 0, (0x7F80 if dtype == "bf16" else 0x7C00) - 1
    while low < high:  # the largest pattern not above the magnitude
        middle = (low + high + 1) // 2
        low, high = (middle, high) if value(dtype, middle) <= abs(target) else (low, middle - 1)
    if low == (0x7F80 if dtype == "bf16" else 0x7C00) - 1:
        return low | 0x8000 if target < 0 else low  # saturates
    below, above = abs(target) - value(dtype, low), value(dtype, low + 1) - abs(target)
    if above < below or (above == below and low & 1):
        low += 1
    return low | 0x8000 if target < 0 and low else low


def decode_raw(header: Header, tensor: int, parameter: int, section: bytes) -> bytes:
    assert parameter == 0
    return section


def expand_runs(section: bytes, at: int, count: int) -> tuple[bytes, int]:
    out = bytearray()
    while len(out) < count:
        control = section[at]
        if control < 128:
            out += section[at + 1 : at + 2 + control]
            at += 2 + control
        else:
            out += bytes([section[at + 1]]) * (control - 125)
            at += 2
    assert len(out) == count
    return bytes(out), at


def decode_int8_delta_rle(header: Header, tensor: int, parameter: int, section: bytes) -> bytes:
    words: list[int] = []
    at = 0
    for _ in range(header.kv_heads * header.tokens // 64):
        scales = struct.unpack_from("<64H", section, at)
        at += 128
        if parameter == 1:
            differences, at = expand_runs(section, at, 64 * header.head_dim)
        else:
            differences, at = section[at : at + 64 * header.head_dim], at + 64 * header.head_dim
        row = [0] * header.head_dim
        for token in range(64):
            here = differences[token * header.head_dim : (token + 1) * header.head_dim]
            row = [(a + d) & 0xFF for a, d in zip(row, here, strict=True)]
            assert 128 not in row
            largest = value(header.dtype, scales[token])
            words += [nearest(header.dtype, largest * (q - 256 if q > 127 else q) / 127) for q in row]
    assert at == len(section)
    return struct.pack(f"<{len(words)}H", *words)


EIGHTHS = [1024, 1117, 1218, 1328, 1448, 1579, 1722, 1878]
QX_BITS = {"q3x": (3, 3), "q4x": (4, 3), "q5x": (5, 4)}


def walsh_hadamard(values: list[int]) -> list[int]:
    return [sum(-x if (i & j).bit_count() & 1 else x for i, x in enumerate(values)) for j in range(len(values))]


def transformed(values: list[int]) -> list[int]:
    """Slice by slice."""
    piece = min(128, len(values) & -len(values))
    return [x for c in range(0, len(values), piece) for x in walsh_hadamard(values[c : c + piece])]


def half_step(scale: int, octaves: int = -32) -> Fraction:
    return Fraction(EIGHTHS[(scale - 1) % 8]) * Fraction(2) ** ((scale - 1) // 8 + octaves) if scale else Fraction(0)


def binary32(x: Fraction) -> Fraction:
    """The nearest number with 24 significant bits; none here is too large or too small for the type."""
    unit = Fraction(2) ** (math.frexp(float(abs(x)))[1] - 24)
    if abs(x) >= unit * 2**24:  # the double was rounded up, or down, to a power of two
        unit *= 2
    elif abs(x) < unit * 2**23:
        unit /= 2
    return round(x / unit) * unit  # ties to even


def sign(c: int, head_dim: int) -> int:
    piece = min(128, head_dim & -head_dim)
    half = (piece.bit_length() - 1) // 2
    return -1 if (c % piece & c % piece >> half & (1 << half) - 1).bit_count() % 2 else 1


def qx_levels(string: int, head_dim: int, bits: int) -> list[int]:
    inner = 5 * 2 ** (bits - 3)
    positive = [2 * k + 1 if k < inner else 2 * inner + 2 + 4 * (k - inner) for k in range(2**bits)]
    every = [-x for x in reversed(positive)] + positive
    paths, levels = [0, 0], []
    for c in range(head_dim):
        path, place = divmod(string >> bits * c & (2**bits - 1), 2 ** (bits - 1))
        levels.append(every[4 * place + 2 * (path ^ paths[-2]) + paths[-1]])
        paths.append(path)
    return levels


def decode_fixed(header: Header, tensor: int, parameter: int, section: bytes) -> bytes:
    assert parameter == (0 if header.first_position else 4)
    bits, head_dim, is_k = QX_BITS[header.mode][tensor], header.head_dim, tensor == 0
    token_bytes, side_bytes = head_dim * bits // 8, (7 * head_dim // 8 + 1 + 63) // 64 * 64 if is_k else 0
    group_bytes, groups = 64 + side_bytes + 64 * token_bytes, header.kv_heads * header.tokens // 64
    assert len(section) == groups * group_bytes + 2 * header.kv_heads * parameter * head_dim and group_bytes % 64 == 0
    words: list[int] = []
    for group in range(0, groups * group_bytes, group_bytes):
        means, factors = [Fraction(0)] * head_dim, [1] * head_dim
        if is_k:
            part, end = section[group + 64 :], 7 * head_dim // 8
            fields = [int.from_bytes(part[:end], "little") >> 7 * c & 127 for c in range(head_dim)]
            means = [((field & 31) - 16) * half_step(part[end]) for field in fields]
            factors = [1 << (field >> 5) for field in fields]
            assert not any(part[end + 1 : side_bytes])
        for token in range(64):
            start = group + 64 + side_bytes + token * token_bytes
            string = int.from_bytes(section[start : start + token_bytes], "little")
            byte = section[group + token]
            step = half_step(byte & 127, -24) if is_k else half_step(byte)
            alone = is_k and byte > 127
            words += [
                nearest(header.dtype, sign(c, head_dim) * binary32(v * step * factors[c] + (0 if alone else means[c])))
                for c, v in enumerate(transformed(qx_levels(string, head_dim, bits)))
            ]
    raw = struct.pack(f"<{len(words)}H", *words)
    at = groups * group_bytes
    for head in range(header.kv_heads if parameter else 0):
        first, length = head * 2 * header.tokens * head_dim, 2 * parameter * head_dim
        raw = raw[:first] + section[at : at + length] + raw[first + length :]
        at += length
    return raw


LOSSLESS_PLAIN = {"bf16": 7, "fp16": 10, "fp8_e4m3": 3, "fp8_e5m2": 2}


class BitString:
    """Items of a few bits each, the lowest bit first."""

    def __init__(self, data: bytes) -> None:
        self.value = int.from_bytes(data, "little")

    def take(self, bits: int) -> int:
        item = self.value & (1 << bits) - 1
        self.value >>= bits
        return item


def range_symbols(tables: list[bytes], states: list[int], code: bytes) -> list[int]:
    """Symbols of one group, a table a run, in the order of its elements; the states are left as the last step does."""
    symbols = [0] * (64 * len(tables))
    taken = 0
    for run, frequencies in enumerate(tables):
        starts = [sum(frequencies[:s]) for s in range(32)]
        owner = [s for s in range(32) for _ in range(frequencies[s])]
        for k in range(64):
            high, low = divmod(states[k], 256)
            s = owner[low]
            symbols[64 * run + 4 * (k % 16) + k // 16] = s
            states[k] = frequencies[s] * high + low - starts[s]
            if states[k] < 1 << 15:
                states[k] = 256 * states[k] + code[taken]
                taken += 1
    assert taken == len(code)
    return symbols


def range_states(section: bytes, at: int) -> tuple[list[int], int]:
    """States from their powers on, and where they end."""
    powers_string = BitString(section[at : at + 24])
    powers = [15 + powers_string.take(3) for _ in range(64)]
    end = at + 24 + (sum(powers) + 7) // 8
    string = BitString(section[at + 24 : end])
    return [(1 << power) + string.take(power) for power in powers], end


def last_plain(states: list[int]) -> bytes:
    return sum((state - (1 << 15)) << 15 * k for k, state in enumerate(states)).to_bytes(120, "little")


def decode_lossless(header: Header, tensor: int, parameter: int, section: bytes) -> bytes:
    if parameter == 0:
        return section
    assert parameter in (1, 2)
    plain, width = LOSSLESS_PLAIN[header.dtype], 8 if header.dtype.startswith("fp8") else 16
    frequencies, (origin,), at = section[:32], struct.unpack_from("<H", section, 32), 34
    assert sum(frequencies) == 256
    out = bytearray()
    for _ in range(header.kv_heads):
        base = [origin] * header.head_dim
        if parameter == 2:
            offsets = BitString(section[at : at + header.head_dim // 2])
            base = [origin + 2 * offsets.take(4) for _ in base]
            at += header.head_dim // 2
        for _ in range(header.tokens // 64):
            code_bytes, escape_count = struct.unpack_from("<2H", section, at)
            states, at = range_states(section, at + 4)
            symbols = range_symbols([frequencies] * header.head_dim, states, section[at : at + code_bytes])
            at += code_bytes
            escapes = list(struct.unpack_from(f"<{escape_count}H", section, at))
            at += 2 * escape_count
            plain_bytes = 8 * plain * header.head_dim - 120
            assert symbols.count(31) == escape_count and all(1 << 15 <= state < 1 << 16 for state in states)
            bits = BitString(section[at : at + plain_bytes] + last_plain(states))
            at += plain_bytes
            for element, symbol in enumerate(symbols):
                value = escapes.pop(0) if symbol == 31 else base[element % header.head_dim] + symbol
                value %= 1 << width - plain
                rest, sign = bits.take(plain - 1), bits.take(1)
                out += (sign << width - 1 | value << plain - 1 | rest).to_bytes(width // 8, "little")
    assert at == len(section)
    return bytes(out)


# ---- q5c: sections 7 and 8 -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tables:
    """A calibration, by the specification of safetensors."""

    rotary: str
    shapes: dict[str, list[int]]
    numbers: dict[str, list[int]]

    def of(self, name: str, layer: int, tensor: int, head: int) -> list[int]:
        """What there is of a head."""
        shape = self.shapes[name]
        width = math.prod(shape[3:])
        at = ((layer * 2 + tensor) * shape[2] + head) * width
        return self.numbers[name][at : at + width]


def read_calibration(file: bytes) -> Tables:
    length = int.from_bytes(file[:8], "little")
    table, data = json.loads(file[8 : 8 + length]), file[8 + length :]
    metadata = table.pop("__metadata__")
    assert metadata["format"] == "speckv-calibration" and metadata["version"] == "1"
    numbers = {}
    for name, entry in table.items():
        begin, end = entry["data_offsets"]
        letter = {"U64": "Q", "I16": "h", "U8": "B", "I8": "b"}[entry["dtype"]]
        numbers[name] = list(struct.unpack(f"<{math.prod(entry['shape'])}{letter}", data[begin:end]))
    return Tables(metadata["rotary"], {name: entry["shape"] for name, entry in table.items()}, numbers)


SINES = [round(32767 * math.sin(math.pi * i / 1024)) for i in range(513)]
SINES += SINES[511::-1]
SINES += [-x for x in SINES[1:1024]]


def test_the_sine_table_is_the_specified_one() -> None:
    assert len(SINES) == 2048 and sum(SINES[:513]) == 10696746
    assert all(abs(math.fmod(32767 * math.sin(math.pi * i / 1024), 1) - 0.5) > 1e-6 for i in range(513))


def angle(phase: int) -> tuple[int, int]:
    """Cosine and sine."""
    step = (phase + 2**52) % 2**64 >> 53
    return SINES[(step + 512) % 2048], SINES[step]


def limit(x: int, most: int) -> int:
    return max(-most, min(most, x))


# Section 8.2: the levels above zero at each width.
Q5C_HALVES = {
    1: [100, 305],
    2: [46, 162, 275, 479],
    3: [28, 90, 149, 216, 285, 368, 477, 652],
    4: [15, 47, 77, 110, 141, 175, 209, 245, 282, 323, 367, 417, 477, 551, 650, 802],
    5: [
        *(8, 25, 41, 58, 74, 92, 108, 125, 142, 160, 177, 195, 212, 231, 249, 269),
        *(289, 310, 331, 353, 376, 401, 428, 456, 488, 523, 562, 608, 661, 725, 810, 938),
    ],
}


def q5c_levels(codes: list[int], bits: int) -> list[int]:
    """Levels of a token's codes, channel by channel."""
    levels = [-x for x in reversed(Q5C_HALVES[bits])] + Q5C_HALVES[bits]
    found, one_before, two_before = [], 0, 0
    for u in codes:
        path = u >> bits - 1
        found.append(levels[4 * (u % (1 << bits - 1)) + 2 * (path ^ two_before) + one_before])
        one_before, two_before = path, one_before
    return found


def with_sinks(section: bytes, at: int, header: Header, parameter: int, out: bytes) -> bytes:
    """The section's values with the first tokens of each head, which lie at its end, put in their places."""
    length = 2 * 4 * header.head_dim if parameter >> 15 & 1 else 0
    for head in range(header.kv_heads):
        first = head * 2 * header.tokens * header.head_dim
        out = out[:first] + section[at : at + length] + out[first + length :]
        at += length
    assert at == len(section)
    return out


Q5C_EIGHTHS = [2048, 2233, 2435, 2656, 2896, 3158, 3444, 3756]


def decode_q5c(header: Header, tensor: int, parameter: int, section: bytes, tables: Tables) -> bytes:
    layer, first_head, head_dim = parameter & 0x7FFF, parameter >> 16, header.head_dim
    words: list[int] = []
    at = 0
    for head in range(first_head, first_head + header.kv_heads):
        (bits,), (unit,) = tables.of("q5c.bits", layer, tensor, head), tables.of("q5c.unit", layer, tensor, head)
        mean = tables.of("q5c.mean", layer, tensor, head)
        for group in range(header.tokens // 64):
            scales, planes = section[at : at + 64], section[at + 64 : at + 64 + 8 * head_dim * bits]
            at += 64 + 8 * head_dim * bits
            strings = [int.from_bytes(planes[i : i + 8], "little") for i in range(0, len(planes), 8)]
            for token, scale in enumerate(scales):
                assert scale <= 224
                codes = [sum((strings[c * bits + k] >> token & 1) << k for k in range(bits)) for c in range(head_dim)]
                found = transformed(q5c_levels(codes, bits))
                k = 30 - (scale - 1) // 8
                found = [
                    limit((v * Q5C_EIGHTHS[(scale - 1) % 8] + 2 ** (k - 1)) >> k, 32767) if scale else 0 for v in found
                ]
                found = [limit(y + m, 32767) for y, m in zip(found, mean, strict=True)]
                words += turned(found, header, tensor, group, token, unit, tables)
    return with_sinks(section, at, header, parameter, struct.pack(f"<{len(words)}H", *words))


def turned(z: list[int], header: Header, tensor: int, group: int, token: int, unit: int, tables: Tables) -> list[int]:
    """The words of a token whose values are z units before they were rotated."""
    if tensor or tables.rotary == "none":
        turned = [256 * x for x in z]
    else:
        turned = rotated(z, header.first_position + 64 * group, token, tables)
    return [nearest(header.dtype, r * Fraction(2) ** (unit - 8)) for r in turned]


def rotated(z: list[int], base: int, token: int, tables: Tables) -> list[int]:
    out = [0] * len(z)
    for pair, turns in enumerate(tables.numbers["rotary.turns"]):
        first, second = (pair, pair + len(z) // 2) if tables.rotary == "halves" else (2 * pair, 2 * pair + 1)
        (big_c, big_s), (c, s) = angle(base * turns % 2**64), angle(token * turns % 2**64)
        cosine, sine = (big_c * c - big_s * s + 2**14) >> 15, (big_s * c + big_c * s + 2**14) >> 15
        out[first] = (z[first] * cosine - z[second] * sine + 64) >> 7
        out[second] = (z[second] * cosine + z[first] * sine + 64) >> 7
    return out


# ---- e7c: section 9 --------------------------------------------------------------------------------------------------


def decode_e7c(header: Header, tensor: int, parameter: int, section: bytes, tables: Tables) -> bytes:
    layer, first_head, head_dim = parameter & 0x7FFF, parameter >> 16, header.head_dim
    frequencies = [bytes(tables.numbers["e7c.frequencies"][i : i + 32]) for i in range(0, 32 * 256, 32)]
    out = b""
    at = 0
    for head in range(first_head, first_head + header.kv_heads):
        own = {
            name: tables.of(f"e7c.{name}", layer, tensor, head)
            for name in ("rank", "unit", "shift", "mean", "synthesis")
        }
        coefficients = {name: tables.of(f"e7c.{name}", layer, tensor, head) for name in ("low", "table")}
        (rank,), (unit,), (shift,) = own["rank"], own["unit"], own["shift"]
        for group in range(header.tokens // 64):
            if section[at : at + 2] == b"\xff\xff":
                out += section[at + 2 : at + 2 + 128 * head_dim]
                at += 2 + 128 * head_dim
                continue
            begin = at
            levels, at = e7c_levels(
                section, at, coefficients["low"][:rank], [frequencies[i] for i in coefficients["table"][:rank]]
            )
            assert at - begin < 2 + 128 * head_dim
            for token in range(64):
                z = []
                for c in range(head_dim):
                    total = sum(levels[64 * i + token] * own["synthesis"][i * head_dim + c] for i in range(rank))
                    z.append(limit((total + 2 ** (shift - 1) >> shift) + own["mean"][c], 32767))
                out += struct.pack(f"<{head_dim}H", *turned(z, header, tensor, group, token, unit, tables))
    return with_sinks(section, at, header, parameter, out)


def e7c_levels(section: bytes, at: int, low: list[int], tables: list[bytes]) -> tuple[list[int], int]:
    """Levels of a group, [coefficient][token], and where it ends."""
    code_bytes, escape_count, plain_bytes = struct.unpack_from("<3H", section, at)
    states, at = range_states(section, at + 6)
    symbols = range_symbols(tables, states, section[at : at + code_bytes])
    at += code_bytes
    escapes = list(struct.unpack_from(f"<{escape_count}H", section, at))
    at += 2 * escape_count
    assert symbols.count(31) == escape_count and all(1 << 15 <= state < 1 << 16 for state in states)
    plain = section[at : at + plain_bytes] + last_plain(states)
    planes = BitString(plain[: 8 * sum(low)])
    magnitudes = []
    for i, p in enumerate(low):
        strings = [planes.take(64) for _ in range(p)]
        for token, symbol in enumerate(symbols[64 * i : 64 * i + 64]):
            high = escapes.pop(0) if symbol == 31 else symbol
            magnitudes.append((high << p) + sum((string >> token & 1) << j for j, string in enumerate(strings)))
            assert magnitudes[-1] <= 2047
    signs = BitString(plain[8 * sum(low) :])
    assert len(plain) == max(120, 8 * sum(low) + (sum(map(bool, magnitudes)) + 7) // 8)
    return [-x if x and signs.take(1) else x for x in magnitudes], at + plain_bytes


CALIBRATED = sorted(path.stem for path in (VECTORS / "calibrated").glob("*.frame"))


def test_calibrated_frames_are_there() -> None:
    assert {name.split("-")[0] for name in CALIBRATED} == {"q5c", "e7c"} and len(CALIBRATED) >= 6


@pytest.mark.parametrize("name", CALIBRATED)
def test_calibrated_frame_decodes_by_the_specification(name: str) -> None:
    folder = VECTORS / "calibrated"
    frame, file = (folder / f"{name}.frame").read_bytes(), (folder / f"{name}.safetensors").read_bytes()
    line = next(line.split() for line in (folder / "index.txt").read_text().splitlines() if line.split()[0] == name)
    header = parse(frame)
    assert header.mode == line[1] and header.dtype == line[2]
    assert [header.layers, header.kv_heads, header.head_dim, header.tokens] == [int(field) for field in line[3:7]]
    assert header.calibration == hashlib.sha256(file).digest()[:16] and crc32c(file) == int(line[9], 16)
    assert len(frame) == int(line[11]) and crc32c(frame) == int(line[12], 16)
    tables, out = read_calibration(file), b""
    for number in range(header.sections):
        offset, length, crc, parameter = struct.unpack_from("<4I", frame, 128 + 16 * number)
        section = frame[64 * offset : 64 * offset + length]
        assert crc32c(section) == crc
        out += {"q5c": decode_q5c, "e7c": decode_e7c}[header.mode](header, number % 2, parameter, section, tables)
    assert crc32c(out) == int(line[13], 16)


DECODERS: dict[str, Callable[[Header, int, int, bytes], bytes]] = {
    "raw": decode_raw,
    "int8-delta-rle": decode_int8_delta_rle,
    "q3x": decode_fixed,
    "q4x": decode_fixed,
    "q5x": decode_fixed,
    "lossless": decode_lossless,
}


def index() -> dict[str, list[str]]:
    return {line.split()[0]: line.split() for line in (VECTORS / "index.txt").read_text().splitlines()}


def test_there_are_frames_of_every_mode_in_the_index() -> None:
    stored = {index()[name][1] for name in FRAMES}
    assert stored == {line[1] for line in index().values()}


@pytest.mark.parametrize("name", FRAMES)
def test_frame_decodes_by_the_specification(name: str) -> None:
    frame = (VECTORS / f"{name}.frame").read_bytes()
    line = index()[name]
    header = parse(frame)
    assert [header.mode, header.dtype] == line[1:3]
    assert [header.layers, header.kv_heads, header.head_dim, header.tokens] == [int(field) for field in line[3:7]]
    assert len(frame) == int(line[10]) and crc32c(frame) == int(line[11], 16)
    table = frame[128 : 128 + 16 * header.sections]
    assert crc32c(table) == header.table_crc
    end = 128 + len(table)
    out = b""
    for number in range(header.sections):
        offset, length, crc, parameter = struct.unpack_from("<4I", table, 16 * number)
        start = (end + 63) // 64 * 64
        assert offset * 64 == start and not any(frame[end:start])
        end = start + length
        assert crc32c(frame[start:end]) == crc
        out += DECODERS[header.mode](header, number % 2, parameter, frame[start:end])
    assert not any(frame[end:]) and len(frame) - end < 64
    assert len(out) == header.raw_bytes
    assert crc32c(out) == int(line[12], 16)
