# SPDX-License-Identifier: MIT
"""The promises of the emulated card, flashing, the live view and the first prefetcher."""

from __future__ import annotations

from tests.accept.frame import Point, at_least, below, exactly
from tests.accept.suites.foundation import (
    BENCH,
    C_BUILD,
    PYTEST,
    bench,
    counted,
    meson,
    meson_failures,
    pytest_failures,
    said,
)

COMMANDS = f"{C_BUILD} && build/c/tests/unit/emulator/bench_emulator build/c/libspeckv/emulator/speckv-emu"
HOSTILE = f"{C_BUILD} && build/c/tests/unit/emulator/hostile_peers build/c/libspeckv/emulator/speckv-emu 5"
CUTS = f"{C_BUILD} && build/c/tests/card/test_card_flash_cuts 1000"
KILLS = meson("client on a card, 1,000 kills at random instants")
DEATHS = meson("client a card is killed, restarted, forgotten, stuck and poisoned")
FLASH = f"{PYTEST} tests/cli/test_flash.py"
TOP = f"{PYTEST} tests/cli/test_top.py tests/cli/test_top_keys.py tests/cli/test_top_ends.py"
ON_CARD = "env SPECKV_TEST_EMULATOR=.venv/bin/speckv-emu"
SHOTS = "make readme-shots && git status --porcelain man/pictures"

POINTS = [
    # power and death
    Point(
        "power cuts in flashing: from the factory", CUTS, counted(r"(\d+) cuts from the factory", "cuts"), at_least(500)
    ),
    Point("power cuts in flashing: of an update", CUTS, counted(r"(\d+) cuts of an update", "cuts"), at_least(500)),
    Point(
        "power lost at any byte, over a process: it boots and says what it is",
        f"{FLASH} -k power",
        pytest_failures,
        exactly(0),
        minutes=20,
    ),
    Point(
        "speckv-emu killed at any moment: no hang, no wrong byte, pools, flash and blocks as they were",
        DEATHS,
        meson_failures,
        exactly(0),
    ),
    Point(
        "clients killed at random instants",
        KILLS,
        counted(r"([\d,]+) kills: nothing", "kills"),
        at_least(1000),
        True,
        minutes=30,
    ),
    Point("... nothing lost, wrong, risen or leaked", KILLS, said("kills: nothing lost"), exactly(1), True, minutes=30),
    Point(
        "a restart finds what the card held",
        f"{PYTEST} tests/cli/test_emu.py -k outlives",
        pytest_failures,
        exactly(0),
    ),
    # speed
    Point(
        "system calls of 2 million commands at depth 64, client and card each on its core",
        COMMANDS,
        counted(r"k/s, ([\d,]+) system calls for 2000000 commands", "calls"),
        exactly(0),
    ),
    Point(
        "... beside them, while the scheduler had given one of the cores to somebody else",
        COMMANDS,
        counted(r"beside them ([\d,]+) for", "calls"),
        None,
    ),
    Point("no-op commands", COMMANDS, counted(r"depth 64: ([\d,]+) k/s", "k/s"), at_least(300)),
    Point("round trip, polled, median", COMMANDS, counted(r"round trip: ([\d.]+) us", "us"), below(15)),
    Point("64 KiB reads, of the host engine's", BENCH, bench("card_get_vs_host_get", "x"), at_least(0.5)),
    # the live view
    Point("top: every key, resize and figure at 80x24 and 200x50", TOP, pytest_failures, exactly(0), minutes=30),
    Point("top: the pictures of the README are made", SHOTS, said(r"^\S.*\.svg", "pictures"), at_least(1), minutes=20),
    # isolation
    Point(
        "two clients: neither reaches the other's queues, buffers or pools",
        meson("card isolation"),
        meson_failures,
        exactly(0),
    ),
    Point("... over sockets, with peers that try", meson("emulator hostile"), meson_failures, exactly(0)),
    Point(
        "a client's put and get beside 64 hostile peers: p99, of its own alone",
        HOSTILE,
        counted(r"p99 ratio ([\d.]+)", "x"),
        below(10),
    ),
    Point("... what of it failed", HOSTILE, counted(r"failed (\d+)", "operations"), exactly(0)),
    Point("another user's pool is out of reach, with a stolen index too", DEATHS, meson_failures, exactly(0)),
    Point(
        "the I/O socket cannot administer",
        f"{PYTEST} tests/cli/test_flash.py::test_no_other_user_flashes_a_card",
        pytest_failures,
        exactly(0),
    ),
    # bundles
    Point(
        "flashed by speckvctl: the slot holds the bundle byte for byte",
        f"{FLASH} -k byte_for_byte",
        pytest_failures,
        exactly(0),
    ),
    Point(
        "bitstream verify accepts it and refuses each of 1,000 mutations",
        f"{PYTEST} tests/unit/bundles/test_commands.py -k '1000 or verif'",
        pytest_failures,
        exactly(0),
    ),
    Point(
        "bundles that must not be flashed: one line each, nothing changed",
        FLASH,
        pytest_failures,
        exactly(0),
        minutes=20,
    ),
    # parity, and everything the foundation tests, over a card
    Point(
        "parity over the emulated card: DMA, prefetch, parameters, C API, allocator, Python",
        f"{ON_CARD} {PYTEST} tests/parity",
        pytest_failures,
        exactly(0),
    ),
    Point(
        "pool, block, replay and CLI tests of the foundation over the card",
        ".venv/bin/python .ci/test.py on-card",
        counted(r"^\d+ passed, (\d+) failed", "failed"),
        exactly(0),
        True,
        minutes=60,
    ),
    Point(
        "make demo: starts, flashes, trains, loads, replays, shows, stops",
        "make demo",
        said("^Stopped emu:demo"),
        exactly(1),
    ),
]
