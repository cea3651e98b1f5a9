# SPDX-License-Identifier: MIT
"""Transfers, prefetch, C API, allocator and parameters, by programs built on the installed library."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

BEHAVIOURS = {
    "c_api": [
        "open_and_close_twice_in_one_process",
        "allocate_one_mebibyte_and_free_it",
        "access_gives_usable_memory_with_the_right_bytes",
        "prefetch_stages_a_block_that_a_get_then_uses",
        "parameters_are_set_and_read_back",
    ],
    "allocator": [
        "one_allocation_is_given_and_taken_back",
        "ten_of_growing_size_are_distinct_and_freed_in_any_order",
        "access_at_several_offsets_of_one_allocation",
        "prefetch_from_an_allocation",
    ],
    "dma": ["a_batch_of_mixed_transfers_completes_with_the_right_data"],
    "prefetch": [
        "a_request_with_a_history_of_16_and_depth_4_stages_what_follows",
        "ten_requests_of_different_ids_are_each_seen_in_the_statistics",
    ],
    "parameters": [
        "every_prefetch_depth_is_accepted_and_read_back",
        "every_compression_scheme_is_accepted_and_read_back",
        "an_unknown_key_is_refused_with_the_known_ones_named",
    ],
}
SOURCES = Path(__file__).parent / "c"

Compile = Callable[[Path], Path]


@pytest.mark.parametrize(("group", "name"), [(group, name) for group, names in BEHAVIOURS.items() for name in names])
def test_behaviour(compile_c: Compile, runtime_dir: Path, group: str, name: str) -> None:
    program = compile_c(SOURCES / f"{group}.c")
    done = subprocess.run([program, name], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert not list(runtime_dir.glob("*DRAM*")), "the device was removed, so nothing of it may be left"


@pytest.mark.parametrize("group", BEHAVIOURS)
def test_every_behaviour_of_a_program_is_run_here(compile_c: Compile, group: str) -> None:
    listed = subprocess.run([compile_c(SOURCES / f"{group}.c"), "--list"], capture_output=True, text=True, check=True)
    assert listed.stdout.split() == BEHAVIOURS[group]


def test_the_quickstart_example_compiles_and_shows_what_it_says(
    compile_c: Compile, repository: Path, runtime_dir: Path
) -> None:
    program = compile_c(repository / "libspeckv" / "examples" / "quickstart.c")
    done = subprocess.run([program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].endswith(f"media in {runtime_dir}")
    assert lines[1] == "pool quickstart: 16777216 bytes, blocks of 65536"
    assert lines[2:9] == [
        "put:    3 of 3 blocks stored",
        "lookup: 1 1 1 0",
        "prefix: 3 blocks of the chain are there",
        "get:    3 of 4 blocks found",
        "        block 0 begins with 'a'",
        "        block 1 begins with 'b'",
        "        block 2 begins with 'c'",
    ]
    assert lines[9] == "        block 3: a miss"
    assert lines[10].startswith("error:  -22: ") and "16" in lines[10]
