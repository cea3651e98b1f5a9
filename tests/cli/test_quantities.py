# SPDX-License-Identifier: MIT
"""Sizes, times, owners and modes as people write them."""

from __future__ import annotations

import os
import pwd

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speckvctl import pools
from speckvctl.errors import UsageError
from speckvctl.quantities import (
    format_duration,
    format_size,
    parse_limit,
    parse_mode,
    parse_owner,
    parse_since,
    parse_size,
)
from speckvctl.top import figures

LETTERS = "KMGTPE"
FACTORS = {"": 1, "B": 1}
for power, letter in enumerate(LETTERS, 1):
    FACTORS |= {f"{letter}{suffix}": 1024**power for suffix in ("", "i", "iB")}
    FACTORS |= {f"{'k' if letter == 'K' else letter}B": 1000**power}


@given(st.integers(0, 15), st.sampled_from(sorted(FACTORS)), st.sampled_from(["", " "]))
def test_a_size_is_its_number_times_its_unit(number: int, unit: str, space: str) -> None:
    assert parse_size(f"{number}{space}{unit}", "--size") == number * FACTORS[unit]
    assert parse_size(f"{number}{unit.lower()}", "--size") == number * FACTORS[unit]


@given(st.integers(0, 2**64 - 1))
def test_a_shown_size_is_within_half_of_a_percent_and_never_1024_of_a_unit(size: int) -> None:
    text = format_size(size)
    value = float(text.split()[0])
    assert value < 1024
    assert abs(value * FACTORS[text.split()[1]] - size) <= size / 200


@given(st.integers(0, 2**63))
def test_what_is_shown_can_be_typed_back(size: int) -> None:
    for shown in (format_size(size), figures.size(size)):
        assert abs(parse_size(shown, "--size") - size) <= max(size / 15, 1)


def test_a_limit_can_be_taken_away_and_is_never_nothing() -> None:
    assert [parse_limit(text, "--quota") for text in ("none", "NONE", "unlimited", "1M")] == [0, 0, 0, 1 << 20]
    with pytest.raises(UsageError, match="would allow nothing") as refusal:
        parse_limit("0", "--quota")
    assert "--quota none" in str(refusal.value.next_step)


@given(st.text(max_size=12))
def test_text_that_is_no_size_is_refused_and_never_breaks(text: str) -> None:
    try:
        assert 0 <= parse_size(text, "--size") < 2**64
    except UsageError as refusal:
        assert text in refusal.message


@pytest.mark.parametrize("text", ["16EiB", "18446744073709551616", "20E", "20000000TiB"])
def test_a_size_that_64_bits_do_not_hold_is_refused(text: str) -> None:
    assert parse_size("18446744073709551615", "--size") == 2**64 - 1
    with pytest.raises(UsageError):
        parse_size(text, "--size")


def test_fractions_are_of_units_and_not_of_bytes() -> None:
    assert parse_size("1.5GiB", "--size") == 3 * 2**29
    assert parse_size("0.1kB", "--size") == 100
    assert parse_size("1.01 KiB", "--size") == 1034
    with pytest.raises(UsageError):
        parse_size("0.5", "--size")


def test_since_counts_back_from_now_or_names_a_local_time() -> None:
    now = 10**18
    assert parse_since("15m", now) == now - 900 * 10**9
    assert parse_since("1.5h", now) == now - 5400 * 10**9
    assert parse_since("2d", now) == now - 172800 * 10**9
    assert parse_since("2026-11-23 14:05") - parse_since("2026-11-23 14:00") == 300 * 10**9
    for text in ("", "soon", "15", "-5m", "2026-13-01"):
        with pytest.raises(UsageError):
            parse_since(text)


def test_an_owner_is_a_name_or_numbers_and_a_user_alone_brings_the_own_group() -> None:
    me = pwd.getpwuid(os.geteuid())
    assert parse_owner(me.pw_name) == (me.pw_uid, me.pw_gid)
    assert parse_owner("1234") == (1234, None)
    assert parse_owner("1234:56") == (1234, 56)
    for text in ("", ":56", "1234:", "4294967295:0", "9" * 5000, "0:" + "9" * 5000, "\u0663"):
        with pytest.raises(UsageError):
            parse_owner(text)


@given(st.integers(0, 0o777))
def test_a_mode_is_octal_without_execute_bits(mode: int) -> None:
    if mode & 0o111 or not mode:
        with pytest.raises(UsageError):
            parse_mode(f"{mode:04o}")
    else:
        assert parse_mode(f"{mode:04o}") == parse_mode(f"{mode:03o}") == mode


@given(st.integers(1, 4096))
def test_a_block_size_in_16_kib_steps_has_a_shape_of_that_size(grains: int) -> None:
    shape = pools.choose_shape(
        block_bytes=grains * 16384, layers=None, kv_heads=None, head_dim=None, tokens=None, dtype=None
    )
    assert shape.layers * 2 * shape.kv_heads * shape.head_dim * shape.tokens * 2 == grains * 16384


def test_durations_keep_three_figures() -> None:
    assert [format_duration(value) for value in (None, 999, 1500, 25_400, 1_230_000, 2 * 10**9)] == [
        "-",
        "999 ns",
        "1.50 us",
        "25.4 us",
        "1.23 ms",
        "2.00 s",
    ]
