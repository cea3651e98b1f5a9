# SPDX-License-Identifier: MIT
"""Bad input: each gets one clear line and its own exit code, and nothing is changed or lost."""

from __future__ import annotations

import json
import os
import select
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, Finished, Unchanged, described, environment, held, validate, write_kv
from tests.conftest import MEMORY, stored

Remember = Callable[[], Unchanged]

VERSION_OFFSET, STATE_OFFSET = 8, 12  # of the superblock: LAYOUT.md
MAKING = 1


def refused(done: Finished, code: int, *words: str) -> str:
    """One line on stderr, nothing on stdout, the exit code, and every word in the line."""
    assert done.code == code, f"exit code {done.code}: {done.err}"
    assert done.out == ""
    for word in words:
        assert word in done.line, f"'{word}' is not in: {done.line}"
    assert "Traceback" not in done.err and "internal error" not in done.err
    return done.line


# ---- the rows of the issue -------------------------------------------------------------------------------------------


def test_a_pool_larger_than_what_is_free_says_how_much_is(chat: Cli) -> None:
    before = described(chat)
    refused(chat("pool", "create", "host:DRAM", "big", "--size", "900GiB"), 1, "big", "free")
    refused(chat("pool", "create", "host:DRAM", "big", "--size", "900GiB", "--dry-run"), 1, "big", "free")
    assert described(chat) == before


def test_a_first_pool_that_is_refused_leaves_no_engine_behind(cli: Cli) -> None:
    before = described(cli)
    refused(cli("pool", "create", "host:DRAM", "big", "--size", "900GiB"), 1, "free")
    assert described(cli) == before


@pytest.mark.parametrize("name", ["a/b", "../chat", ".hidden", "-dash", "", "x" * 64, "sp ace", "new\nline", "ümlaut"])
def test_a_name_that_cannot_be_a_pools(name: str, chat: Cli, unchanged: Remember) -> None:
    check = unchanged()
    refused(chat("pool", "create", "host:DRAM", "--size", "8MiB", "--", name), 2)
    check()


def test_a_dry_run_refuses_such_a_name_too(chat: Cli) -> None:
    refused(chat("pool", "create", "host:DRAM", "a/b", "--size", "8MiB", "--dry-run"), 2, "a/b")


def test_destroying_a_pool_in_use_names_its_users(chat: Cli) -> None:
    with held("chat", blocks=3) as holder:
        refused(chat("pool", "destroy", "host:DRAM", "chat", "--yes"), 6, str(holder.pid), "python")
        error = chat.failure("pool", "destroy", "host:DRAM", "chat", "--yes")
        assert (error["code"], error["errno"]) == ("busy", "EBUSY")
        if MEMORY == "host:DRAM":  # a card is stopped, not closed
            refused(chat("device", "close", "host:DRAM", "--yes"), 6, str(holder.pid))
    assert chat.document("pool", "show", "host:DRAM", "chat")["pool"]["blocks"] == 3
    assert chat.document("pool", "check", "host:DRAM", "chat", "--deep")["clean"] is True


@pytest.fixture
def medium(cli: Cli) -> Path:
    """A host engine in a file."""
    path = cli.folder / "medium"
    cli.ok("pool", "create", f"host:{path}", "kept", "--size", "8MiB")
    return path


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as stream:
        stream.seek(offset)
        stream.write(data)


def flip(path: Path, offset: int) -> None:
    """Change a byte, whatever it was."""
    with path.open("rb") as stream:
        stream.seek(offset)
        (value,) = stream.read(1)
    overwrite(path, offset, bytes([value ^ 0x55]))


def verbs_on(device: str, pool: str) -> list[list[str]]:
    return [
        ["pool", "create", device, "another", "--size", "8MiB"],
        ["pool", "list", device],
        ["pool", "show", device, pool],
        ["pool", "resize", device, pool, "--size", "16MiB"],
        ["pool", "set", device, pool, "--quota", "4MiB"],
        ["pool", "destroy", device, pool, "--yes"],
        ["pool", "check", device, pool],
        ["stats", device],
        ["events", device],
        ["device", "selftest", device],
        ["device", "close", device, "--yes"],
    ]


def test_a_medium_of_another_version(cli: Cli, medium: Path, unchanged: Remember) -> None:
    overwrite(medium, VERSION_OFFSET, struct.pack("<I", 77))
    check = unchanged()
    for arguments in verbs_on(f"host:{medium}", "kept"):
        refused(cli(*arguments), 8, "77")
    shown = cli.document("device", "show", f"host:{medium}")["device"]
    assert (shown["state"], shown["layout_version"]) == ("other_version", 77)
    check()


def test_a_half_initialised_medium(cli: Cli, medium: Path, unchanged: Remember) -> None:
    overwrite(medium, STATE_OFFSET, struct.pack("<I", MAKING))
    check = unchanged()
    for arguments in verbs_on(f"host:{medium}", "kept")[::3]:
        refused(cli(*arguments), 7, str(medium))
    assert cli.document("device", "show", f"host:{medium}")["device"]["state"] == "incomplete"
    check()


def test_a_damaged_superblock(cli: Cli, medium: Path, unchanged: Remember) -> None:
    flip(medium, 20)
    check = unchanged()
    for arguments in verbs_on(f"host:{medium}", "kept")[::3]:
        refused(cli(*arguments), 7, str(medium))
    check()


def test_a_truncated_medium(cli: Cli, medium: Path, unchanged: Remember) -> None:
    os.truncate(medium, 8192)
    check = unchanged()
    for arguments in verbs_on(f"host:{medium}", "kept")[::3]:
        refused(cli(*arguments), 7, str(medium))
    assert cli.document("device", "show", f"host:{medium}")["device"]["state"] == "truncated"
    check()


def test_a_truncated_pool_file(cli: Cli, medium: Path, unchanged: Remember) -> None:
    pool = Path(f"{medium}.pools/kept")
    os.truncate(pool, 8192)
    check = unchanged()
    refused(cli("pool", "check", f"host:{medium}", "kept"), 7, "kept")
    refused(cli("stats", f"host:{medium}", "kept"), 7, "kept")
    cli("pool", "list", f"host:{medium}")
    check()


def test_a_foreign_medium_is_shown_and_refused_without_yes(cli: Cli, unchanged: Remember) -> None:
    path = cli.folder / "letter"
    path.write_text("Dear administrator,\n" * 400_000, encoding="ascii")
    device = f"host:{path}"
    check = unchanged()
    refused(cli("pool", "create", device, "chat", "--size", "1MiB"), 2, "text", "--yes", "nothing was changed")
    refused(cli("pool", "list", device), 1, str(path))
    planned = cli.document("pool", "create", device, "chat", "--size", "1MiB", "--dry-run")
    assert "text" in planned["replaced"]
    assert cli.document("device", "show", device)["device"]["state"] == "unrecognized"
    check()
    asked = cli("--json", "pool", "create", "--size", "1MiB", "--", device, "chat").document["error"]
    created = cli.line(asked["next"]).document
    validate(created)
    assert "text" in created["replaced"]
    assert created["device_created"] is True
    assert cli.document("device", "show", device)["device"]["state"] == "ready"


AS_NOBODY = """
import contextlib, encodings.ascii, io, os, sys
import numpy, speckv, speckv.bundle, speckv.card, speckv.codec, speckvctl.console, speckvctl.eventlog, speckvctl.pools
import speckvctl.render.json, speckvctl.render.table
import speckvctl.results.cards, speckvctl.results.devices, speckvctl.results.pools, speckvctl.results.statistics
import speckvctl.render.cards, speckvctl.render.devices, speckvctl.render.pools, speckvctl.render.statistics
from speckvctl.app import main
with contextlib.redirect_stderr(open(os.devnull, "w")):
    assert main([word for word in sys.argv[1:] if word != "--json"] + ["--no-such-option"]) == 2
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
sys.exit(main())
"""


def as_nobody(cli: Cli, *arguments: str) -> Finished:
    """The command as nobody, who may not be able to read our modules: a call that is refused first imports them."""
    words = [word.replace("host:DRAM", MEMORY) for word in arguments]
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, *words], cwd="/", capture_output=True, text=True, check=False
    )
    out, err = (text.replace(MEMORY, "host:DRAM") for text in (done.stdout, done.stderr))
    return Finished(arguments, done.returncode, out, err)


@pytest.mark.root
def test_no_permission(chat: Cli, runtime_dir: Path, unchanged: Remember) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to be another user")
    runtime_dir.chmod(0o755)
    check = unchanged()
    refused(as_nobody(chat, "pool", "create", "host:DRAM", "mine", "--size", "8MiB"), 5)
    refused(as_nobody(chat, "pool", "resize", "host:DRAM", "chat", "--size", "16MiB"), 5)
    refused(as_nobody(chat, "pool", "set", "host:DRAM", "chat", "--mode", "0666"), 5)
    refused(as_nobody(chat, "pool", "destroy", "host:DRAM", "chat", "--yes"), 5)
    refused(as_nobody(chat, "pool", "check", "host:DRAM", "chat"), 5)
    refused(as_nobody(chat, "stats", "host:DRAM", "chat"), 5)
    closes = MEMORY == "host:DRAM"  # a card is stopped, not closed
    refused(as_nobody(chat, "device", "close", "host:DRAM", "--yes"), 5 if closes else 8)
    seen = as_nobody(chat, "pool", "list", "host:DRAM", "--json")
    if MEMORY == "host:DRAM":
        assert seen.code == 0, seen.err
        (pool,) = seen.document["pools"]
        assert (pool["accessible"], pool["blocks"], pool["used_bytes"]) == (False, None, None)
    else:  # other users may not even see what a card's folder holds
        assert seen.code == 5, seen.err
    check()
    runtime_dir.chmod(0o700)
    refused(as_nobody(chat, "pool", "list", "host:DRAM"), 5)
    refused(as_nobody(chat, "device", "show", "host:DRAM"), 5)


REQUEST = '{"timestamp": 0, "input_length": 512, "output_length": 1, "hash_ids": [1, 2]}\n'


@pytest.mark.parametrize(
    "broken",
    [
        "not JSON\n",
        "[1, 2]\n",
        '{"timestamp": 5}\n',
        '{"timestamp": -1, "input_length": 1, "output_length": 1, "hash_ids": [1]}\n',
        '{"timestamp": 9, "input_length": 1, "output_length": 1, "hash_ids": ["one"]}\n',
    ],
)
def test_a_trace_with_a_broken_line_is_named_by_its_number(broken: str, chat: Cli, unchanged: Remember) -> None:
    kv = write_kv(chat.folder / "kv.safetensors")
    trace = chat.folder / "broken.jsonl"
    trace.write_text(2 * REQUEST + broken + REQUEST, encoding="utf-8")
    check = unchanged()
    replay = ["replay", "broken.jsonl", "--device", "host:DRAM", "--pool", "chat", "--kv", str(kv), "--max-rate"]
    refused(chat(*replay), 7, "broken.jsonl", "line 3")
    check()


@pytest.mark.parametrize(("dtype", "head_dim"), [("F16", 128), ("F32", 128), ("BF16", 64)])
def test_a_kv_file_of_another_dtype_or_head_size(dtype: str, head_dim: int, chat: Cli, unchanged: Remember) -> None:
    kv = write_kv(chat.folder / "kv.safetensors", dtype, head_dim)
    check = unchanged()
    done = chat("replay", "trace.jsonl", "--device", "host:DRAM", "--pool", "chat", "--kv", kv, "--max-rate")
    refused(done, 2, "kv.safetensors", "bf16")
    check()


MANAGER = f"""
import sys, speckv
def hold(done, total):
    print("holding", flush=True)
    sys.stdin.readline()
with speckv.Context() as context, context.open("{MEMORY}") as device:
    device.destroy_pool(sys.argv[1], progress=hold)
"""


@contextmanager
def managing(pool: str) -> Iterator[subprocess.Popen[str]]:
    """Another manager, in the middle of destroying a pool."""
    command = [sys.executable, "-c", MANAGER, pool]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == "holding\n"
        try:
            yield process
        finally:
            process.stdin.close()
            process.stdout.read()


def test_two_managers_at_once(chat: Cli) -> None:
    chat.ok("pool", "create", "host:DRAM", "going", "--size", "8MiB")
    with managing("going") as other:
        refused(chat("pool", "create", "host:DRAM", "new", "--size", "8MiB"), 6, str(other.pid), "python")
        refused(chat("pool", "resize", "host:DRAM", "chat", "--size", "32MiB"), 6, str(other.pid))
        assert chat.document("device", "show", "host:DRAM")["device"]["manager_pid"] == other.pid
    pools = chat.document("pool", "list")["pools"]
    assert [(pool["name"], pool["capacity_bytes"]) for pool in pools] == [("chat", 64 << 20)]


# ---- other mistakes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["", "4 GiBs", "-1GiB", "1e9", "0x10", "GiB", "1.5B", "0", "99999999999TiB"])
def test_a_size_that_is_none_is_quoted(size: str, cli: Cli) -> None:
    refused(cli("pool", "create", "host:DRAM", "chat", f"--size={size}"), 2, "--size", f"'{size}'")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--codec", "zip"),
        ("--eviction", "fifo"),
        ("--mode", "9999"),
        ("--mode", "0770"),
        ("--mode", "0000"),
        ("--owner", "root:"),
        ("--page-bytes", "1000"),
        ("--tokens", "65"),
        ("--layers", "0"),
        ("--kv-heads", "65536"),
        ("--dtype", "fp32"),
        ("--block-bytes", "1000"),
        ("--quota", "much"),
    ],
)
def test_an_option_that_cannot_be_right_makes_nothing(option: str, value: str, cli: Cli, unchanged: Remember) -> None:
    check = unchanged()
    refused(cli("pool", "create", "host:DRAM", "chat", "--size", "8MiB", option, value), 2)
    check()


def test_two_ways_to_say_the_shape_are_refused(cli: Cli) -> None:
    done = cli("pool", "create", "host:DRAM", "chat", "--size", "8MiB", "--block-bytes", "64KiB", "--layers", "2")
    refused(done, 2, "--block-bytes", "--layers")


def test_an_unknown_owner_is_a_wrong_value(cli: Cli) -> None:
    for owner in ("nobody-of-that-name", "root:nobody-of-that-name"):
        done = cli("pool", "create", "host:DRAM", "chat", "--size", "8MiB", "--owner", owner)
        refused(done, 2, "--owner", "nobody-of-that-name")


@pytest.mark.parametrize("codec", ["q5c", "e7c"])
def test_a_codec_that_needs_a_calibration_makes_nothing_without(codec: str, cli: Cli) -> None:
    before = described(cli)
    for dry_run in ([], ["--dry-run"]):
        refused(cli("pool", "create", "host:DRAM", "chat", "--size", "8MiB", "--codec", codec, *dry_run), 2, codec)
    assert described(cli) == before


@pytest.mark.parametrize(
    ("device", "code"),
    [
        ("DRAM", 2),
        ("host:", 2),
        ("host:dram", 2),
        ("host:relative/path", 2),
        ("host:/", 2),
        ("host:/tmp/", 2),
        ("host:/tmp", 8),
        ("host:/dev/null", 8),
        ("host:/dev/dax97.0", 4),
        ("host:numa977", 4),
        ("host:DRAM", 4),
        ("host:/nowhere/medium", 4),
        ("emu:card0", 4),
        ("/dev/speckv0", 8),
    ],
)
def test_a_device_that_is_not_there_or_not_a_device(device: str, code: int, cli: Cli) -> None:
    refused(cli("pool", "list", device), code)


def test_a_medium_whose_folder_is_missing(cli: Cli) -> None:
    refused(cli("pool", "create", f"host:{cli.folder}/none/medium", "chat", "--size", "8MiB"), 4)


def test_a_pool_that_is_not_there_is_not_found_and_says_where_to_look(chat: Cli) -> None:
    for arguments in verbs_on("host:DRAM", "none")[2:7]:
        refused(chat(*arguments), 4, "none")
    refused(chat("events", "host:DRAM", "--pool", "none"), 4, "none")
    assert chat.failure("pool", "show", "host:DRAM", "none")["next"] == "speckvctl pool list"


def test_a_pool_that_exists_already(chat: Cli, unchanged: Remember) -> None:
    check = unchanged()
    for dry_run in ([], ["--dry-run"]):
        refused(chat("pool", "create", "host:DRAM", "chat", "--size", "8MiB", *dry_run), 1, "chat", "64 MiB, not 8 MiB")
        refused(
            chat("pool", "create", "host:DRAM", "chat", "--size", "64M", "--mode", "0660", *dry_run), 1, "mode 0600"
        )
        refused(
            chat("pool", "create", "host:DRAM", "chat", "--size", "64M", "--codec", "q4x", *dry_run), 1, "codec raw"
        )
    check()


def test_the_same_pool_again_is_nothing_to_do(chat: Cli, unchanged: Remember) -> None:
    check = unchanged()
    for dry_run in ([], ["--dry-run"]):
        refused(chat("pool", "create", "host:DRAM", "chat", "--size", "64MiB", *dry_run), 3, "exists already")
    check()


def test_limits_are_set_and_taken_away_again(chat: Cli) -> None:
    free = [
        chat.document("pool", "show", "host:DRAM", "chat")["pool"][key] for key in ("quota_bytes", "tenant_quota_bytes")
    ]
    set_pool = ["pool", "set", "host:DRAM", "chat"]
    changed = chat.document(*set_pool, "--quota", "8M", "--tenant-quota", "4Mi")["pool"]
    assert (changed["quota_bytes"], changed["tenant_quota_bytes"]) == (8 << 20, 4 << 20)
    planned = chat.document(*set_pool, "--quota", "none", "--tenant-quota", "none", "--dry-run")
    for document in (planned, chat.document(*set_pool, "--quota", "none", "--tenant-quota", "none")):
        assert [change["after"] for change in document["changes"]] == ["none", "none"]
        assert [document["pool"][key] for key in ("quota_bytes", "tenant_quota_bytes")] == free
    refused(chat(*set_pool, "--quota", "none", "--tenant-quota", "none"), 3)
    refused(chat(*set_pool, "--quota", "0"), 2, "--quota", "none")
    refused(chat(*set_pool, "--tenant-quota", "100"), 2, "below one block")


def test_a_size_that_is_rounded_up_says_so(cli: Cli) -> None:
    assert (
        "2 MiB (rounded up from 1 B)"
        in cli.ok("pool", "create", "host:DRAM", "chat", "--size", "1", "--block-bytes", "16KiB").out
    )
    assert cli.document("pool", "list")["pools"][0]["capacity_bytes"] == 2 << 20


def test_what_is_suggested_for_a_first_pool_fits(chat: Cli) -> None:
    chat.ok("pool", "destroy", "host:DRAM", "chat", "--yes")
    step = chat.document("stats", "host:DRAM")["next"]
    assert step == chat.document("pool", "list", "host:DRAM")["next"]
    chat.ok(*step.replace("NAME", "first").split()[1:], "--dry-run")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["pool", "create", "host:DRAM", "new", "--size", "8M", "--layers", "x"],
            ["--layers", "'x' is not a whole number"],
        ),
        (
            ["device", "set", "emu:none", "--prefetch-depth", "99"],
            ["--prefetch-depth", "'99' is not a whole number from 0 to 16"],
        ),
        (
            ["train-prefetcher", "x", "-o", "y", "--minutes", "0"],
            ["--minutes", "'0' is not a number from 0.01 to 10000"],
        ),
        (["pool", "set", "host:DRAM", "chat", "--codec", "raw"], ["no option --codec here", "create"]),
    ],
)
def test_a_value_out_of_range_is_told_in_our_words(arguments: list[str], words: list[str], chat: Cli) -> None:
    done = chat(*arguments)
    refused(done, 2, *words)
    assert "Input should" not in done.line and "?;" not in done.line


def test_destructive_verbs_without_yes_and_without_a_terminal_change_nothing(chat: Cli, unchanged: Remember) -> None:
    check = unchanged()
    refused(chat("pool", "destroy", "host:DRAM", "chat"), 2, "--yes", "nothing was changed")
    if MEMORY == "host:DRAM":  # a card is stopped, not closed
        refused(chat("device", "close", "host:DRAM"), 2, "--yes", "chat", "nothing was changed")
    error = chat.failure("pool", "destroy", "host:DRAM", "chat")
    assert error["next"] == "speckvctl pool destroy host:DRAM chat --yes"
    check()


@pytest.mark.parametrize(("answer", "code"), [("yes", 0), ("Y", 0), ("no", 2), ("", 2)])
def test_on_a_terminal_the_answer_decides(answer: str, code: int, chat: Cli) -> None:
    import pty

    from tests.cli.conftest import SPECKVCTL

    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [SPECKVCTL, "pool", "destroy", MEMORY, "chat"],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=environment(TERM="dumb"),
        text=True,
    ) as process:
        asked = ""
        while "[y/N]" not in asked and select.select([ours], [], [], 60)[0]:
            asked += os.read(ours, 65536).decode()
        os.write(ours, f"{answer}\n".encode())  # only now: the terminal echoes what is typed at once
        out, _ = process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert process.returncode == code
    assert "loses 0 blocks" in asked and asked.startswith("Destroying") and asked.endswith("[y/N] ")
    assert bool(out) == (code == 0)
    assert len(chat.document("pool", "list")["pools"]) == (code != 0)


def test_what_already_is_as_asked_is_nothing_to_do(chat: Cli, unchanged: Remember) -> None:
    check = unchanged()
    refused(chat("pool", "set", "host:DRAM", "chat", "--eviction", "lru"), 3)
    refused(chat("pool", "set", "host:DRAM", "chat", "--eviction", "lru", "--dry-run"), 3)
    check()
    refused(chat("pool", "resize", "host:DRAM", "chat", "--size", "64MiB"), 3)


def test_sizes_that_look_the_same_are_not(cli: Cli) -> None:
    """32 MiB and one page more are both shown as 32 MiB."""
    create = ["pool", "create", "host:DRAM", "chat", "--size", "64MiB"]
    cli.ok(*create, "--quota", "32MiB")
    refused(cli(*create, "--quota", "33555456"), 1, "quota 33554432 B, not 33555456 B")
    refused(cli(*create, "--quota", "33554433"), 3)  # quotas are of whole pages
    for dry_run in (["--dry-run"], []):
        changed = cli.document("pool", "set", "host:DRAM", "chat", "--quota", "33555457", *dry_run)
        assert changed["changes"] == [{"setting": "quota", "before": "33554432 B", "after": "33555456 B"}]
    refused(cli("pool", "set", "host:DRAM", "chat", "--quota", "33555457"), 3)


def test_a_check_that_finds_something_says_what_and_repairs_it_when_asked(chat: Cli) -> None:
    with held("chat", blocks=4):
        pass
    path, where = stored("chat", bytes(range(256)) * 4)
    flip(path, where)
    found = chat("pool", "check", "host:DRAM", "chat", "--deep", "--json")
    assert (found.code, found.document["clean"], found.document["blocks_bad"]) == (7, False, 1)
    text = chat("pool", "check", "host:DRAM", "chat", "--deep")
    assert text.code == 7 and "--repair" in text.out
    repaired = chat.document("pool", "check", "host:DRAM", "chat", "--deep", "--repair")
    assert repaired["clean"] is True and repaired["repaired"] >= 1
    assert chat.document("pool", "check", "host:DRAM", "chat", "--deep")["blocks"] == 3


def test_a_replay_that_reads_wrong_bytes_ends_with_seven(chat: Cli) -> None:
    kv = write_kv(chat.folder / "kv.safetensors")
    data = kv.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    values = bytes((7 * index + index // 251) % 0x3C for index in range(len(data) - header))
    kv.write_bytes(data[:header] + values)
    replay = ["replay", "trace.jsonl", "--device", "host:DRAM", "--pool", "chat", "--kv", str(kv), "--max-rate"]
    chat.ok(*replay)
    # They repeat: any run of them lies in the payload of some block.
    run = values[:64]
    overwrite(*stored("chat", run), bytes([run[0] ^ 1]))
    done = chat(*replay, "--json")
    assert done.code == 7, done.err
    assert done.document["mismatches"] >= 1


def test_an_option_of_no_command_is_usage_and_names_the_help(cli: Cli) -> None:
    refused(cli("pool", "list", "--sise"), 2, "--sise", "speckvctl pool list --help")
    refused(cli("pool", "lsit"), 2, "lsit", "speckvctl pool list --help")
    refused(cli("pool", "juggle"), 2, "juggle", "speckvctl pool --help")
    refused(cli("nothing"), 2, "nothing", "speckvctl --help")
    assert cli.failure("pool", "list", "--sise")["code"] == "usage"


def test_a_runtime_folder_that_is_not_absolute_is_usage(cli: Cli) -> None:
    done = cli("device", "list", env=environment(SPECKV_RUNTIME_DIR="relative"))
    refused(done, 2, "relative")


def test_names_from_outside_reach_the_terminal_as_one_clean_line(cli: Cli) -> None:
    done = cli("device", "show", "host:/tmp/\x1b[31mred\nline")
    assert done.code != 0
    assert "\x1b" not in done.line


def test_doctor_fails_on_a_runtime_folder_that_cannot_be(cli: Cli) -> None:
    (cli.folder / "file").write_text("", encoding="utf-8")
    done = cli("doctor", "--json", env=environment(SPECKV_RUNTIME_DIR=str(cli.folder / "file")))
    assert done.code == 1
    document = json.loads(done.out)
    (folder,) = (check for check in document["checks"] if check["name"] == "runtime folder")
    assert folder["status"] == "failed" and folder["next"]


def test_doctor_names_a_stale_medium_and_what_to_type(cli: Cli, medium: Path) -> None:
    overwrite(medium, STATE_OFFSET, struct.pack("<I", MAKING))
    document = cli.document("doctor")
    (media,) = (check for check in document["checks"] if check["name"] == "media")
    assert media["status"] == "warning"
    assert media["next"] == f"speckvctl device show host:{medium}"
