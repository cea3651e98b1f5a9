# SPDX-License-Identifier: MIT
"""stdin, stdout and stderr closed, full or of another encoding, and Ctrl-C: each ends as with cat, in one line."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import SPECKVCTL, Cli, described, environment, validate
from tests.conftest import MEMORY

COMMANDS = {
    "help": "--help",
    "version": "--version",
    "help of a verb": "pool create --help",
    "a list": "pool list",
    "a document": "pool list --json",
    "a failure": "pool show host:DRAM none",
    "a failure as a document": "pool show host:DRAM none --json",
    "a usage error": "pool nope",
    "a stream": "top --json --count 2 --interval 0.05",
    "a screen's text": "top --once",
}


def shell(cli: Cli, command: str, redirections: str, **variables: str) -> subprocess.CompletedProcess[str]:
    words = " ".join(shlex.quote(word) for word in shlex.split(command.replace("host:DRAM", MEMORY)))
    return subprocess.run(
        ["bash", "-c", f"{shlex.quote(str(SPECKVCTL))} {words} {redirections}"],
        cwd=cli.folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=environment(**variables),
        encoding="utf-8",
        check=False,
        timeout=240,
    )


def clean(done: subprocess.CompletedProcess[str]) -> str:
    for words in ("Traceback", "internal error", "[Errno", "Exception ignored", "codec can"):
        assert words not in done.stderr
    return done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_stdout_closed_is_said_before_anything_is_done(chat: Cli, command: str) -> None:
    done = shell(chat, COMMANDS[command], ">&-")
    assert done.returncode == 1
    assert "standard output: Bad file descriptor; nothing was done" in clean(done)
    assert len(done.stderr.splitlines()) == 1


def test_stdout_closed_changes_nothing(chat: Cli) -> None:
    before = described(chat)
    assert shell(chat, "pool create host:DRAM more --size 8MiB", ">&-").returncode == 1
    assert described(chat) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_stdout_full_is_said_once(chat: Cli, command: str) -> None:
    expected = shell(chat, COMMANDS[command], "")
    done = shell(chat, COMMANDS[command], ">/dev/full")
    if not expected.stdout:
        assert (done.returncode, done.stderr) == (expected.returncode, expected.stderr)
    elif expected.returncode == 0:
        assert done.returncode == 1
        assert clean(done).endswith("standard output: No space left on device\n")
        assert len(done.stderr.splitlines()) == 1
    else:  # the failure itself is what counts
        assert (done.returncode, clean(done)) == (expected.returncode, expected.stderr)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_reader_that_goes_away_ends_it_without_a_word(chat: Cli, command: str) -> None:
    expected = shell(chat, COMMANDS[command], "")
    done = shell(chat, COMMANDS[command], '| true; exit "${PIPESTATUS[0]}"')
    assert done.returncode in (141, expected.returncode)  # what little there is may be written before true ends
    assert clean(done) == expected.stderr


@pytest.mark.parametrize("where", ["2>&-", "2>/dev/full"])
@pytest.mark.parametrize("command", COMMANDS)
def test_without_stderr_the_exit_code_and_the_output_are_the_same(chat: Cli, command: str, where: str) -> None:
    if command in ("a stream", "a screen's text"):  # times differ
        assert shell(chat, COMMANDS[command], f"{where} >/dev/null").returncode == 0
        return
    expected = shell(chat, COMMANDS[command], "")
    done = shell(chat, COMMANDS[command], where)
    assert (done.returncode, done.stdout) == (expected.returncode, expected.stdout)


def test_without_stdin_no_question_is_asked(chat: Cli) -> None:
    done = shell(chat, "pool destroy host:DRAM chat", "<&-")
    assert done.returncode == 2 and "--yes" in clean(done)
    done = shell(chat, "replay - --device host:DRAM --pool chat --max-rate", "<&-")
    assert done.returncode != 0
    clean(done)


def test_all_three_closed_is_a_failure_and_opens_nothing_in_their_place(chat: Cli) -> None:
    assert shell(chat, "pool list", "<&- >&- 2>&-").returncode == 1
    assert shell(chat, "pool list", "<&- >/dev/null 2>&-").returncode == 0


@pytest.mark.parametrize("variables", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}])
def test_what_the_terminal_cannot_show_is_written_as_escapes(chat: Cli, variables: dict[str, str]) -> None:
    for command in ("pool show host:DRAM ümlaut", "device show host:/nowhere/ümlaut", "pool list", "top --once"):
        done = shell(chat, command, "", **variables)
        assert done.returncode in (0, 2, 4)
        assert (done.stdout + clean(done)).isascii()


def test_a_name_that_is_not_text_is_refused_in_words(chat: Cli) -> None:
    done = shell(chat, "pool list", "$'host:/tmp/\\xff'")
    assert done.returncode in (2, 4)
    assert "Unicode" not in clean(done) and "surrogate" not in done.stderr


# ---- files that are full ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        "top --json --count 1 --interval 0.05 --record /dev/full",
        "prefetcher eval --baseline lru conversations.jsonl --scores /dev/full",
    ],
)
def test_a_file_that_is_full_is_named(chat: Cli, command: str) -> None:
    done = shell(chat, command, ">/dev/null")
    assert done.returncode == 1
    assert "/dev/full: No space left on" in clean(done)
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("command", "place"),
    [
        ("codec encode kv.safetensors -o none/new.frames", "none/new.frames"),
        ("codec decode kv.frames -o none/new.safetensors", "none/new.safetensors"),
        ("codec compare kv.safetensors --no-peers --svg none/new.svg", "none/new.svg"),
        ("bitstream build regs-only.bit regs-only.json -o none/new.bundle", "none/new.bundle"),
        ("bitstream keygen none/new", "none/new.pem"),
        ("prefetcher eval --baseline lru conversations.jsonl --scores none/log", "none/log"),
        ("top --once --record none/log", "none/log"),
    ],
)
def test_a_folder_that_is_missing_is_said_with_the_file_that_was_asked_for(chat: Cli, command: str, place: str) -> None:
    done = shell(chat, command, "")
    assert done.returncode == 4
    assert place in clean(done) and f".{Path(place).name}." not in done.stderr
    assert not (chat.folder / "none").exists()


# ---- Ctrl-C ----------------------------------------------------------------------------------------------------------


def interrupted(cli: Cli, *arguments: str, ready: Any = None) -> tuple[int, str, str]:
    process = cli.start(*arguments, env=environment(), start_new_session=True)
    try:
        if ready is None:
            time.sleep(3)
        else:
            deadline = time.monotonic() + 120
            while not ready() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait()
    return process.returncode, out, err


def slow_trace(folder: Path) -> str:
    lines = [
        {"timestamp": 600_000 * number, "input_length": 1, "output_length": 1, "hash_ids": [number]}
        for number in range(3)
    ]
    (folder / "slow.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return "slow.jsonl"


def test_a_replay_that_is_interrupted_says_what_was_done_and_ends_with_130(chat: Cli) -> None:
    def begun() -> bool:
        return bool(chat.document("pool", "show", "host:DRAM", "chat")["pool"]["blocks"])

    trace = slow_trace(chat.folder)
    code, out, err = interrupted(
        chat, "replay", trace, "--device", "host:DRAM", "--pool", "chat", "--json", ready=begun
    )
    document = json.loads(out)
    validate(document)
    assert code == 130, err
    assert document["interrupted"] is True and document["errors"] == 0
    assert "Traceback" not in err


@pytest.mark.parametrize("as_json", [[], ["--json"]])
@pytest.mark.parametrize("command", ["events --follow", "top --json --interval 1000 --record ticks"])
def test_a_command_that_is_interrupted_ends_with_130(chat: Cli, command: str, as_json: list[str]) -> None:
    arguments = [*command.split(), *as_json] if "--json" not in command else command.split()
    code, out, err = interrupted(chat, *arguments)
    assert (code, err.splitlines()[-1].endswith(": interrupted")) == (130, True), err
    assert "Traceback" not in err
    if "--json" in arguments:
        documents = [json.loads(line) for line in out.splitlines()]  # one a line, the last one too
        validate(documents[-1])
        assert documents[-1]["error"]["code"] == "interrupted"


def test_a_signal_while_the_program_is_loaded_shows_no_traceback_of_ours(cli: Cli) -> None:
    for delay in (0.02, 0.05, 0.1, 0.2):  # before that it is the interpreter's own start
        process = cli.start("pool", "list", env=environment())
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
        assert process.returncode in (0, 1, 130, -signal.SIGINT)
        assert "speckvctl/" not in err
