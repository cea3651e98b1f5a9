# SPDX-License-Identifier: MIT
"""The command tree: the verbs that exist, their examples, their JSON, their exit codes."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from speckvctl import tree
from speckvctl.app import app, main
from speckvctl.exitcodes import MEANING, ExitCode
from speckvctl.results import schemas
from speckvctl.tree import NOUNS
from tests.cli.conftest import SPECKVCTL, Cli, described, held, validate, write_calibration, write_kv
from tests.conftest import MEMORY

#: The tree that is planned, whole. A noun without verbs is a command itself.
DESIGNED: dict[str, set[str]] = {
    "device": {"list", "show", "reset", "selftest", "set", "drain", "sanitize", "inject", "close"},
    "flash": set(),
    "bitstream": {"build", "inspect", "verify", "sign", "keygen"},
    "pool": {"create", "list", "show", "resize", "set", "destroy", "check", "migrate", "save", "restore", "diff"},
    "train-prefetcher": set(),
    "prefetcher": {"eval", "load", "unload", "show"},
    "codec": {"eval", "calibrate", "compare", "extract", "encode", "decode", "vectors"},
    "replay": set(),
    **{
        noun: set()
        for noun in ("top", "stats", "events", "audit", "explain", "exporter", "report", "doctor", "bug-report")
    },
    "emu": {"start", "stop", "list", "status"},
}
#: Verbs that the house's plan does not have: to evaluate a codec on a model takes the model's K and V.
ADDED = {"extract"}
BUILT: dict[str, set[str]] = {
    "bitstream": {"build", "inspect", "verify", "sign", "keygen"},
    "device": {"list", "show", "reset", "selftest", "set", "inject", "close"},
    "flash": set(),
    "pool": {"create", "list", "show", "resize", "set", "destroy", "check"},
    "train-prefetcher": set(),
    "prefetcher": {"eval", "load", "unload", "show"},
    "codec": {"eval", "calibrate", "compare", "extract", "encode", "decode", "vectors"},
    "replay": set(),
    "top": set(),
    "stats": set(),
    "events": set(),
    "emu": {"start", "stop", "list", "status"},
    "doctor": set(),
}


def root() -> Any:
    return typer.main.get_command(app)


def registered() -> dict[str, Any]:
    """Every command by its path: "", "pool", "pool create", ..."""
    found = {"": root()}
    for noun in root().list_commands(None):
        command = root().get_command(None, noun)
        found[noun] = command
        for verb, sub in getattr(command, "commands", {}).items():
            found[f"{noun} {verb}"] = sub
    return found


COMMANDS = registered()
VERBS = [path for path, command in COMMANDS.items() if not getattr(command, "commands", None) and path]


def test_the_tree_is_what_is_built_of_the_design() -> None:
    there = {noun: set(getattr(root().get_command(None, noun), "commands", {})) for noun in root().list_commands(None)}
    assert there == BUILT
    assert there == {noun: set(entry.verbs) for noun, entry in NOUNS.items()}
    for noun, verbs in BUILT.items():
        assert verbs <= DESIGNED[noun]


def test_the_design_here_is_that_of_the_house_plan(shared_dir: Path) -> None:
    plan = (shared_dir / "DESIGN.md").read_text(encoding="utf-8")
    block = plan[plan.index("## 10. Command line") :].split("```")[1]
    words = set(re.findall(r"[a-z][a-z-]+", re.sub(r"\(.*?\)|drives a pool.*", "", block)))
    ours = set(DESIGNED) | {verb for verbs in DESIGNED.values() for verb in verbs}
    assert ours - words == ADDED


# ---- help and its examples -------------------------------------------------------------------------------------------


def examples(path: str) -> list[str]:
    text = COMMANDS[path].help or ""
    _, _, after = text.partition("Examples:\n")
    return [line.strip() for line in joined(after).splitlines() if line.strip()]


def joined(text: str) -> str:
    """Each command of an example in one line."""
    return re.sub(r" \\\n +", " ", text)


#: What must be there before the examples of a command are typed, in their order. Default: the world of `chat`.
NOTHING = ("", "pool", "pool create")
#: Those that need a card, emu:card0.
WITH_CARD = {
    *("device", "device list", "device show", "device reset", "device selftest", "device set", "device inject"),
    *("flash", "prefetcher load", "prefetcher unload", "emu stop", "emu list", "emu status"),
}


NO_TORCH = "torch is not installed: pip install 'speckv[codec]'"


def need_torch(path: str) -> None:
    if path in ("train-prefetcher", "codec calibrate", "codec extract"):
        pytest.importorskip("torch", reason=NO_TORCH)


def world(path: str, request: pytest.FixtureRequest) -> Cli:
    """Where the calls of a command make sense."""
    cli: Cli = request.getfixturevalue("card" if path in WITH_CARD else "chat")
    if path == "prefetcher unload":
        cli.ok("prefetcher", "load", "emu:card0", "model.safetensors")
    return cli


@pytest.mark.parametrize("path", COMMANDS)
def test_every_example_works_as_it_stands_in_the_help(path: str, cli: Cli, request: pytest.FixtureRequest) -> None:
    lines = examples(path)
    assert lines, f"the help of speckvctl {path} has no example"
    if any(line.split()[1:3] in (["codec", "calibrate"], ["codec", "extract"]) or "--model" in line for line in lines):
        pytest.importorskip("torch", reason=NO_TORCH)
    if path not in NOTHING:
        world(path, request)
    else:
        write_calibration(cli.folder)
    for line in lines:
        own = line.split()[1 : 1 + len(path.split())]
        assert path == "" or own == path.split() or path in NOUNS, f"{line}: an example of another command"
        done = cli.line(line)
        assert done.code == 0, f"{line}: exit code {done.code}: {done.err}"
        assert done.out, f"{line}: printed nothing"
        if "--json" in line:
            validate(done.document)


@pytest.mark.parametrize("path", COMMANDS)
def test_help_shows_the_examples_and_every_option_says_what_it_does(
    path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*path.split(), "--help"]) == 0
    help_text = joined(capsys.readouterr().out)
    for line in examples(path):
        assert line in help_text
    for parameter in COMMANDS[path].params:
        assert parameter.help, f"speckvctl {path}: {parameter.name} has no help"


@pytest.mark.parametrize("path", COMMANDS)
def test_help_fits_a_terminal_of_80_columns(
    path: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*path.split(), "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines and not [line for line in lines if len(line) > 80]


@pytest.mark.parametrize("path", VERBS)
def test_every_verb_takes_json_and_what_writes_takes_dry_run(path: str) -> None:
    options = {option for parameter in COMMANDS[path].params for option in parameter.opts}
    assert "--json" in options
    reads = {
        "device list",
        "device show",
        "device selftest",
        "pool list",
        "pool show",
        "pool check",
        "events",
        "doctor",
        "top",
        "prefetcher eval",
        "prefetcher show",
        "bitstream inspect",
        "bitstream verify",
        "emu list",
        "emu status",
        "codec eval",
        "codec compare",
    }
    assert ("--dry-run" in options) == (path not in reads)
    assert ("--yes" in options) == (path in {"device close", "pool destroy", "pool create", "emu stop", "flash"})


# ---- other words for the same ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["help"], ["--help"]),
        (["help", "pool", "create"], ["pool", "create", "--help"]),
        (["pool", "help", "create"], ["pool", "create", "--help"]),
        (["-V"], ["--version"]),
        (["version"], ["--version"]),
        (["pool", "ls"], ["pool", "list"]),
        (["--json", "pool", "list"], ["pool", "list", "--json"]),
        (["-j", "pool", "list", "host:DRAM"], ["pool", "list", "host:DRAM", "--json"]),
        (["device", "ls", "-j"], ["device", "list", "--json"]),
        (["-j", "--completion", "bash"], ["--completion", "bash"]),
        (["bitstream", "show", "unsigned.bundle"], ["bitstream", "inspect", "unsigned.bundle"]),
        (["pool", "list", "--device", "host:DRAM"], ["pool", "list", "host:DRAM"]),
        (["pool", "show", "--pool", "chat", "host:DRAM"], ["pool", "show", "host:DRAM", "chat"]),
        (["pool", "show", "--device=host:DRAM", "chat"], ["pool", "show", "host:DRAM", "chat"]),
        (["stats", "--pool=chat", "--device", "host:DRAM"], ["stats", "host:DRAM", "chat"]),
        (["events", "host:DRAM", "--pool", "chat"], ["events", "host:DRAM", "chat"]),
        (["pool", "rm", "host:DRAM", "chat", "--dry-run"], ["pool", "destroy", "host:DRAM", "chat", "--dry-run"]),
        (
            ["replay", "--pool", "chat", "--limit", "1", "trace.jsonl", "--device", "host:DRAM", "--dry-run"],
            ["replay", "trace.jsonl", "host:DRAM", "chat", "--limit", "1", "--dry-run"],
        ),
    ],
    ids=" ".join,
)
def test_two_ways_to_type_a_command_do_the_same(typed: list[str], meant: list[str], chat: Cli) -> None:
    first, second = chat.ok(*typed), chat.ok(*meant)
    assert _still(first.out) == _still(second.out)


def _still(text: str) -> str:
    """Without what changes from one moment to the next."""
    return re.sub(r'"free_bytes": [0-9]+|[0-9.]+ [KMGT]iB$', "", text, flags=re.MULTILINE)


def test_the_events_of_a_pool_are_found_on_every_device(chat: Cli) -> None:
    chat.ok("pool", "create", "host:DRAM", "other", "--size", "8M")
    for pool in ("chat", "other"):
        with held(pool):
            pass
    assert {event["pool"] for event in chat.document("events", "--pool", "chat")["events"]} == {"chat"}


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["pol"], "speckvctl pool --help"),
        (["topp"], "speckvctl top --help"),
        (["evnts"], "speckvctl events --help"),
        (["devices"], "speckvctl device --help"),
        (["create"], "speckvctl pool create --help"),
        (["pool", "lst"], "speckvctl pool list --help"),
    ],
)
def test_a_mistyped_command_is_suggested(typed: list[str], meant: str, cli: Cli) -> None:
    error = cli.failure(*typed)
    assert (error["exit_code"], error["next"]) == (2, meant)
    assert "Did you mean" in error["message"]


def test_a_failure_is_a_document_however_json_was_asked_for(cli: Cli) -> None:
    for words in (["--json"], ["-j"], ["-yj"], ["-jy"]):
        done = cli("pool", "destroy", "host:DRAM", "none", *words)
        assert (done.code, done.document["error"]["exit_code"]) == (4, 4), words
    assert cli("pool", "destroy", "host:DRAM", "none", "--", "-j").out == ""
    encode = ("codec", "encode", "none", "--codec", "raw")
    for words in (["-jo", "out"], ["-joout"], ["-o", "out", "-j"]):
        assert cli(*encode, *words).document["error"]["exit_code"] == 4, words
    assert cli(*encode, "-oj").out == ""


def test_the_short_options_are_those_by_which_words_are_read() -> None:
    flags, valued = {"h"}, set[str]()
    for command in COMMANDS.values():
        for parameter in command.params:
            letters = {option[1] for option in parameter.opts if re.fullmatch("-[A-Za-z]", option)}
            (flags if getattr(parameter, "is_flag", False) else valued).update(letters)
    assert (flags, valued) == (set(tree._FLAGS), set(tree._VALUED))


def test_a_noun_alone_shows_its_help_with_json_too(cli: Cli) -> None:
    assert cli("--json", "pool") == dataclasses.replace(cli("pool"), arguments=("--json", "pool"))


def test_what_is_given_twice_is_refused(chat: Cli) -> None:
    error = chat.failure("pool", "show", "host:DRAM", "chat", "--device", "host:DRAM")
    assert error["exit_code"] == 2 and "--device" in error["message"]


def test_usage_lines_are_those_of_manuals(cli: Cli) -> None:
    for path, usage in {
        "train-prefetcher": "[OPTIONS] TRACE...",
        "prefetcher eval": "[OPTIONS] [MODEL] TRACE",
        "events": "[OPTIONS] [DEVICE] [POOL]",
        "replay": "[OPTIONS] TRACE DEVICE POOL",
        "flash": "[OPTIONS] DEVICE [BUNDLE]",
    }.items():
        assert cli.ok(*path.split(), "--help").out.startswith(f"Usage: speckvctl {path} {usage}\n")


# ---- completion ------------------------------------------------------------------------------------------------------


def completed(cli: Cli, line: str) -> list[str]:
    """What bash offers at the end of a line, with the script that is installed."""
    script = """
eval "$("$1" --completion bash)"
COMP_WORDBREAKS=$' \\t\\n"\\'><=;|&(:'
COMP_LINE=$2 COMP_POINT=${#2}
_speckvctl "$1"
printf "%s\\n" "${COMPREPLY[@]}"
"""
    command = ["bash", "-c", script, "bash", str(SPECKVCTL), line]
    done = subprocess.run(command, cwd=cli.folder, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


def test_values_are_completed(card: Cli) -> None:
    device = MEMORY.partition(":")[2]
    assert device in completed(card, f"speckvctl pool show {MEMORY.partition(':')[0]}:")
    assert completed(card, "speckvctl pool show host:D")[0] == "DRAM"
    assert completed(card, f"speckvctl pool show {MEMORY} ") == ["chat"]
    assert completed(card, f"speckvctl pool show {MEMORY} none") == []
    assert completed(card, "speckvctl events --pool c") == ["chat"]
    assert "q4x" in completed(card, f"speckvctl pool create {MEMORY} x --codec ")
    assert completed(card, "speckvctl device inject emu:card0 fat") == ["fatal"]
    assert "card0" in completed(card, "speckvctl emu stop ")
    assert completed(card, "speckvctl po") == ["pool"]
    assert "destroy" in completed(card, "speckvctl pool ")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_there_is_a_completion_for_each_shell(shell: str, cli: Cli) -> None:
    script = cli.ok("--completion", shell).out
    assert "speckvctl" in script
    if (program := shutil.which(shell)) is not None:
        subprocess.run([program, "-n"], input=script, text=True, check=True)
    assert cli.failure("--completion", "csh")["exit_code"] == 2


# ---- JSON ------------------------------------------------------------------------------------------------------------

#: verb -> (what succeeds in the world of `chat`, what fails there)
CALLS: dict[str, tuple[list[str], list[str]]] = {
    "device list": (["device", "list"], ["device", "list", "host:DRAM"]),
    "device show": (["device", "show", "host:DRAM"], ["device", "show", "host:numa977"]),
    "device selftest": (["device", "selftest", "host:DRAM"], ["device", "selftest", "emu:none"]),
    "device close": (["device", "close", "host:DRAM", "--yes"], ["device", "close", "host:DRAM"]),
    "device reset": (["device", "reset", "emu:card0"], ["device", "reset", "host:numa977"]),
    "device set": (["device", "set", "emu:card0", "--prefetch-depth", "4"], ["device", "set", "emu:card0"]),
    "device inject": (
        ["device", "inject", "emu:card0", "temperature", "--value", "50000"],
        ["device", "inject", "emu:card0", "gremlins"],
    ),
    "flash": (["flash", "emu:card0", "regs-only.bundle"], ["flash", "emu:card0", "unsigned.bundle"]),
    "emu start": (["emu", "start", "card1", "--memory", "64MiB"], ["emu", "start", "a/b"]),
    "emu stop": (["emu", "stop", "card0"], ["emu", "stop", "none"]),
    "emu list": (["emu", "list"], ["emu", "list", "card0"]),
    "emu status": (["emu", "status", "card0"], ["emu", "status", "none"]),
    "pool create": (
        ["pool", "create", "host:DRAM", "new", "--size", "8MiB"],
        ["pool", "create", "host:DRAM", "chat", "--size", "8MiB"],
    ),
    "pool list": (["pool", "list"], ["pool", "list", "DRAM"]),
    "pool show": (["pool", "show", "host:DRAM", "chat"], ["pool", "show", "host:DRAM", "none"]),
    "pool resize": (
        ["pool", "resize", "host:DRAM", "chat", "--size", "32MiB"],
        ["pool", "resize", "host:DRAM", "chat", "--size", "64MiB"],
    ),
    "pool set": (["pool", "set", "host:DRAM", "chat", "--mode", "0660"], ["pool", "set", "host:DRAM", "chat"]),
    "pool destroy": (["pool", "destroy", "host:DRAM", "chat", "--yes"], ["pool", "destroy", "host:DRAM", "chat"]),
    "pool check": (["pool", "check", "host:DRAM", "chat", "--deep"], ["pool", "check", "host:DRAM", "none"]),
    "train-prefetcher": (
        ["train-prefetcher", "conversations.jsonl", "-o", "new.safetensors", "--minutes", "0.05"],
        ["train-prefetcher", "conversations.jsonl", "-o", "trace.jsonl"],
    ),
    "prefetcher eval": (
        ["prefetcher", "eval", "model.safetensors", "conversations.jsonl"],
        ["prefetcher", "eval", "model.safetensors", "none.jsonl"],
    ),
    "prefetcher load": (
        ["prefetcher", "load", "emu:card0", "model.safetensors"],
        ["prefetcher", "load", "emu:card0", "conversations.jsonl"],
    ),
    "prefetcher unload": (["prefetcher", "unload", "emu:card0"], ["prefetcher", "unload", "emu:none"]),
    "prefetcher show": (
        ["prefetcher", "show", "model.safetensors"],
        ["prefetcher", "show", "conversations.jsonl"],
    ),
    "replay": (
        ["replay", "trace.jsonl", "--device", "host:DRAM", "--pool", "chat", "--kv", "kv.safetensors", "--max-rate"],
        ["replay", "none.jsonl", "--device", "host:DRAM", "--pool", "chat", "--kv", "kv.safetensors"],
    ),
    "top": (["top", "--once"], ["top", "--once", "--device", "host:numa977"]),
    "stats": (["stats", "host:DRAM", "chat"], ["stats", "host:DRAM", "none"]),
    "events": (["events"], ["events", "--since", "yesterday"]),
    "bitstream build": (
        ["bitstream", "build", "regs-only.bit", "regs-only.json", "-o", "new.bundle", "--key", "test.pem"],
        ["bitstream", "build", "regs-only.bit", "regs-only.json", "-o", "trace.jsonl"],
    ),
    "bitstream inspect": (["bitstream", "inspect", "unsigned.bundle"], ["bitstream", "inspect", "regs-only.bit"]),
    "bitstream verify": (
        ["bitstream", "verify", "regs-only.bundle", "--trust", "test.pub"],
        ["bitstream", "verify", "unsigned.bundle", "--trust", "test.pub"],
    ),
    "bitstream sign": (
        ["bitstream", "sign", "unsigned.bundle", "--key", "test.pem"],
        ["bitstream", "sign", "unsigned.bundle", "--key", "test.pub"],
    ),
    "bitstream keygen": (["bitstream", "keygen", "release"], ["bitstream", "keygen", "test"]),
    "codec eval": (["codec", "eval", "kv.safetensors"], ["codec", "eval", "trace.jsonl"]),
    "codec calibrate": (
        ["codec", "calibrate", "--model", "model", "--tokens", "tokens.npy", "-o", "new.safetensors"],
        ["codec", "calibrate", "--model", "model", "--tokens", "tokens.npy", "-o", "trace.jsonl"],
    ),
    "codec extract": (
        ["codec", "extract", "--model", "model", "--tokens", "tokens.npy", "-o", "new.safetensors"],
        ["codec", "extract", "--model", "model", "--tokens", "tokens.npy", "-o", "trace.jsonl"],
    ),
    "codec compare": (
        ["codec", "compare", "kv.safetensors", "--no-peers"],
        ["codec", "compare", "kv.safetensors", "--codec", "none"],
    ),
    "codec encode": (
        ["codec", "encode", "kv.safetensors", "-o", "new.frames"],
        ["codec", "encode", "kv.safetensors", "-o", "trace.jsonl"],
    ),
    "codec decode": (
        ["codec", "decode", "kv.frames", "-o", "new.safetensors"],
        ["codec", "decode", "kv.safetensors", "-o", "new.safetensors"],
    ),
    "codec vectors": (["codec", "vectors", "vectors", "--write"], ["codec", "vectors", "none"]),
    "doctor": (["doctor"], ["doctor", "--fix"]),
}


def test_every_verb_has_its_calls() -> None:
    assert set(CALLS) == set(VERBS)


@pytest.mark.parametrize("verb", CALLS)
def test_json_of_success_is_one_valid_document_and_nothing_else(verb: str, request: pytest.FixtureRequest) -> None:
    chat = world(verb, request)
    need_torch(verb)
    write_kv(chat.folder / "kv.safetensors")
    document = Cli(chat.folder, forks=False).document(*CALLS[verb][0])  # by a process that loads what it needs
    assert document["schema"] == f"speckvctl.{verb.replace(' ', '-')}"


@pytest.mark.parametrize(
    "verb", [verb for verb in CALLS if "--dry-run" in {o for p in COMMANDS[verb].params for o in p.opts}]
)
def test_json_of_a_dry_run_is_valid_and_nothing_is_changed(
    verb: str, request: pytest.FixtureRequest, unchanged: Callable[[], Callable[[], None]]
) -> None:
    if verb in ("codec calibrate", "codec extract"):  # they look at the model, and for its GPU
        need_torch(verb)
    chat = world(verb, request)
    write_kv(chat.folder / "kv.safetensors")
    visits = verb == "pool resize"  # looks from inside, as a client whose coming and going the pool's log tells
    check, before = unchanged(), described(chat) if visits else None
    document = chat.document(*CALLS[verb][0], "--dry-run")
    assert document["dry_run"] is True
    if visits:
        assert described(chat) == before
    else:
        check()


@pytest.mark.parametrize("verb", CALLS)
def test_json_of_failure_is_valid(verb: str, request: pytest.FixtureRequest) -> None:
    chat = world(verb, request)
    write_kv(chat.folder / "kv.safetensors")
    error = chat.failure(*CALLS[verb][1])
    assert error["code"] == ExitCode(error["exit_code"]).label


def test_json_of_nothing_at_all_is_valid(cli: Cli) -> None:
    assert cli.document("device", "list")["devices"] == []
    assert cli.document("pool", "list")["pools"] == []
    assert cli.document("events")["events"] == []
    assert cli.document("emu", "list")["cards"] == []
    assert cli.document("doctor")["failed"] == 0


def test_json_of_an_engine_without_pools_is_valid(cli: Cli) -> None:
    cli.ok("pool", "create", "host:DRAM", "gone", "--size", "8MiB")
    cli.ok("pool", "destroy", "host:DRAM", "gone", "--yes")
    assert cli.document("device", "show", "host:DRAM")["pools"] == []
    assert cli.document("stats", "host:DRAM")["pools"] == []
    assert cli.document("pool", "list", "host:DRAM")["pools"] == []
    assert cli.document("events", "host:DRAM", "--since", "0s")["events"] == []
    assert all(step["passed"] for step in cli.document("device", "selftest", "host:DRAM")["steps"])
    if MEMORY == "host:DRAM":  # a card is stopped, not closed
        assert cli.document("device", "close", "host:DRAM")["pools_destroyed"] == []
        assert cli.document("device", "list")["devices"] == []


def test_json_of_a_pool_that_holds_nothing_is_valid(chat: Cli) -> None:
    pool = chat.document("pool", "show", "host:DRAM", "chat")
    assert (pool["tenants"], pool["clients"], pool["pool"]["ratio"]) == ([], [], None)
    stats = chat.document("stats", "host:DRAM", "chat")["pools"][0]
    assert (stats["hit_share"], stats["ratio"], stats["latency"]["get"]["p50_ns"]) == (None, None, None)
    assert chat.document("pool", "check", "host:DRAM", "chat")["clean"] is True
    assert chat.document("pool", "destroy", "host:DRAM", "chat", "--yes")["blocks_lost"] == 0


def test_json_of_a_replay_that_does_nothing_is_valid(chat: Cli) -> None:
    write_kv(chat.folder / "kv.safetensors")
    replay = [
        "replay",
        "trace.jsonl",
        "--device",
        "host:DRAM",
        "--pool",
        "chat",
        "--kv",
        "kv.safetensors",
        "--max-rate",
    ]
    chat.ok(*replay)
    again = chat.document(*replay)
    assert (again["blocks_written"], again["put_p50_ns"], again["ratio"]) == (0, None, None)
    assert (again["hit_share"], again["mismatches"]) == (1.0, 0)
    assert again["verified_blocks"] == again["blocks_read"] > 0


def test_tables_and_json_show_the_same_pool_in_use(chat: Cli) -> None:
    with held("chat", blocks=5) as holder:
        shown = chat.document("pool", "show", "host:DRAM", "chat")
        stats = chat.document("stats", "host:DRAM", "chat")["pools"][0]
        text = chat.ok("pool", "show", "host:DRAM", "chat").out
    (client,) = shown["clients"]
    assert (client["pid"], client["tenant"], client["alive"]) == (holder.pid, "holder", True)
    (tenant,) = shown["tenants"]
    assert (tenant["puts"], tenant["gets"], tenant["hits"], tenant["hit_share"]) == (5, 5, 5, 1.0)
    assert shown["pool"]["raw_bytes"] == 5 * 65536
    assert stats["counters"]["puts"] == stats["counters"]["hits"] == stats["latency"]["get"]["count"] == 5
    assert str(holder.pid) in text and "holder" in text


# ---- schemas ---------------------------------------------------------------------------------------------------------

DOCUMENTS = schemas.documents()


def test_there_is_a_schema_for_every_document_and_no_other() -> None:
    import speckvctl

    folder = Path(speckvctl.__file__).parent / "schemas"
    assert {f"speckvctl.{path.stem}" for path in folder.glob("*.json")} == {document.schema for document in DOCUMENTS}
    assert {f"speckvctl.{verb.replace(' ', '-')}" for verb in VERBS} | {"speckvctl.error"} == {
        document.schema for document in DOCUMENTS
    }


# ---- exit codes ------------------------------------------------------------------------------------------------------


def test_exit_codes_are_those_of_the_design() -> None:
    assert {code.label: int(code) for code in ExitCode} == {
        "done": 0,
        "failed": 1,
        "usage": 2,
        "nothing_to_do": 3,
        "not_found": 4,
        "not_permitted": 5,
        "busy": 6,
        "verification_failed": 7,
        "unsupported": 8,
        "interrupted": 130,
    }
    assert set(MEANING) == set(ExitCode)


def test_help_documents_every_exit_code(cli: Cli) -> None:
    text = cli.ok("--help").out
    for code, meaning in MEANING.items():
        assert f"  {int(code)}  {meaning}\n" in text


def test_each_exit_code_but_permission_is_reached_by_a_command(chat: Cli) -> None:
    # Permission needs another user: test_errors.py.
    broken = chat.folder / "broken.jsonl"
    broken.write_text('{"timestamp": 0}\n', encoding="utf-8")
    with held("chat"):
        seen = {
            chat("pool", "list").code,
            chat("pool", "create", "host:DRAM", "big", "--size", "900GiB").code,
            chat("pool", "create", "host:DRAM", "a/b", "--size", "8MiB").code,
            chat("pool", "resize", "host:DRAM", "chat", "--size", "64MiB").code,
            chat("pool", "show", "host:DRAM", "none").code,
            chat("pool", "destroy", "host:DRAM", "chat", "--yes").code,
            chat("replay", "broken.jsonl", "--device", "host:DRAM", "--pool", "chat").code,
            chat("device", "show", "/dev/speckv0").code,
        }
    # An interruption needs SIGINT from a terminal: test_streams.py.
    assert seen == set(map(int, ExitCode)) - {int(ExitCode.NOT_PERMITTED), int(ExitCode.INTERRUPTED)}
