# SPDX-License-Identifier: MIT
"""Help costs nothing and fits a terminal."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

from tests.cli.conftest import SPECKVCTL, Cli, environment
from tests.conftest import MEMORY

OURS = {
    "speckvctl",
    "speckvctl.app",
    "speckvctl.errors",
    "speckvctl.exitcodes",
    "speckvctl.render",
    "speckvctl.render.text",
    "speckvctl.streams",
    "speckvctl.tree",
}
OTHERS = {"typer", "annotated_doc", "shellingham", "typing_extensions"}
#: Costly ones of the standard library that help has no use for.
HEAVY = {"asyncio", "ctypes", "http", "json", "logging", "multiprocessing", "socket", "sqlite3", "ssl", "unittest"}

LIST_IMPORTS = """
import json, sys
before = set(sys.modules)
from speckvctl.app import main
assert main(["--help"]) == 0
print(json.dumps(sorted(set(sys.modules) - before)), file=sys.stderr)
"""


def test_help_imports_this_list_and_nothing_else() -> None:
    done = subprocess.run([sys.executable, "-c", LIST_IMPORTS], capture_output=True, text=True, check=True)
    imported = set(json.loads(done.stderr))
    outside = {name for name in imported if name.split(".")[0] not in sys.stdlib_module_names}
    assert {name for name in outside if name.split(".")[0] == "speckvctl"} == OURS
    assert {name.split(".")[0] for name in outside} - {"speckvctl"} <= OTHERS
    assert not imported & HEAVY


def test_help_of_a_noun_imports_no_other_noun() -> None:
    script = LIST_IMPORTS.replace('["--help"]', '["pool", "--help"]')
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    imported = set(json.loads(done.stderr))
    commands = {name for name in imported if name.startswith("speckvctl.commands.")}
    assert commands == {"speckvctl.commands.options", "speckvctl.commands.pool"}
    assert not imported & {"speckv", "numpy", "torch", "pyudev", "rich", "speckvctl.replay", "speckvctl.discovery"}


def test_version_is_that_of_the_package(cli: Cli) -> None:
    from importlib.metadata import version

    assert cli.ok("--version").out == f"speckvctl {version('speckv')}\n"


def test_without_a_verb_help_goes_to_stderr_and_the_exit_code_is_usage(cli: Cli) -> None:
    for arguments in ([], ["pool"], ["device"]):
        done = cli(*arguments)
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith("Usage: speckvctl")


def test_output_is_the_same_on_a_terminal_and_in_a_pipe_but_for_colour(chat: Cli) -> None:
    for arguments in (
        ["pool", "list"],
        ["pool", "show", "host:DRAM", "chat"],
        ["stats", "host:DRAM"],
    ):
        plain = chat.ok(*arguments).out
        assert "\x1b" not in plain
        assert on_terminal(chat, arguments, TERM="xterm", NO_COLOR="1") == plain
        coloured = on_terminal(chat, arguments, TERM="xterm")
        for code in ("1", "31", "32", "33", "0"):
            coloured = coloured.replace(f"\x1b[{code}m", "")
        assert coloured == plain


def on_terminal(cli: Cli, arguments: list[str], **variables: str) -> str:
    ours, theirs = pty.openpty()
    env = {
        key: value for key, value in environment(**variables).items() if key != "NO_COLOR" or "NO_COLOR" in variables
    }
    command = [str(SPECKVCTL), *(word.replace("host:DRAM", MEMORY) for word in arguments)]
    with subprocess.Popen(command, cwd=cli.folder, stdin=theirs, stdout=theirs, stderr=theirs, env=env):
        os.close(theirs)
        chunks = []
        while True:
            try:
                chunk = os.read(ours, 65536)
            except OSError:  # EIO: the other end is closed
                break
            if not chunk:
                break
            chunks.append(chunk)
    os.close(ours)
    return b"".join(chunks).decode().replace("\r\n", "\n").replace(MEMORY, "host:DRAM")


def test_tables_and_help_fit_eighty_columns(chat: Cli) -> None:
    for arguments in (
        ["--help"],
        ["pool", "--help"],
        ["pool", "list"],
        ["pool", "check", "host:DRAM", "chat"],
        ["device", "list"],
        ["stats", "host:DRAM"],
    ):
        wide = [line for line in chat.ok(*arguments).out.splitlines() if len(line) > 80]
        assert not wide, f"speckvctl {' '.join(arguments)}: {wide}"


def test_a_reader_that_goes_away_ends_the_command_quietly(cli: Cli, tmp_path: Path) -> None:
    script = f"set -o pipefail; {SPECKVCTL} device list --json | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 141)  # 0: it was done before the reader had gone
    assert done.stderr == ""


def test_a_full_disk_under_stdout_is_a_failure(cli: Cli, tmp_path: Path) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(
            [SPECKVCTL, "device", "list"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
