# SPDX-License-Identifier: MIT
"""Fixtures of every suite: tests are isolated from the machine's own runtime folder."""

from __future__ import annotations

import mmap
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import hypothesis
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent

# No deadlines: tests do not measure time. Derandomised: CI fails on the same examples as a local run.
hypothesis.settings.register_profile("speckv", deadline=None, derandomize=os.environ.get("CI") == "true")
hypothesis.settings.load_profile("speckv")


# Under nohup, or as a background job of a script, SIGINT is ignored, and child processes would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


# Where SPECKV_TEST_EMULATOR names speckv-emu, tests that run on host:DRAM run on an emulated card of their own instead.
EMULATOR = os.environ.get("SPECKV_TEST_EMULATOR")
MEMORY = "emu:card" if EMULATOR else "host:DRAM"

_ENGINE = "of host engines only: a card is there without them, and is stopped, not closed"
#: Tests that do not run on a card in place of memory, and why.
NOT_ON_CARD = {
    "test_a_device_that_is_not_there_or_not_a_device[host:DRAM": "the card in its place is there",
    "stands_in_the_help[device close]": _ENGINE,
    "json_of_success_is_one_valid_document_and_nothing_else[device close]": _ENGINE,
    "json_of_a_dry_run_is_valid_and_nothing_is_changed[device close]": _ENGINE,
    "test_json_of_nothing_at_all": _ENGINE,
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items if EMULATOR else []:
        for name, reason in NOT_ON_CARD.items():
            if name in item.nodeid:
                item.add_marker(pytest.mark.skip(reason=reason))
                break


@contextmanager
def emulated_card(runtime: Path, name: str = "card", memory: str = "640M") -> Iterator[subprocess.Popen[str]]:
    """A card that runs as emu:NAME in a runtime folder."""
    assert EMULATOR is not None
    folder = runtime / "emu" / name
    folder.parent.mkdir(mode=0o755, exist_ok=True)
    with subprocess.Popen(
        [EMULATOR, "--dir", str(folder), "--memory", memory], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


@pytest.fixture(autouse=True)
def runtime_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A private SPECKV_RUNTIME_DIR, on tmpfs where there is one; gone after the test."""
    shm = Path("/dev/shm")
    parent = shm if os.access(shm, os.W_OK) else None
    path = Path(tempfile.mkdtemp(prefix="speckv-test-", dir=parent))
    monkeypatch.setenv("SPECKV_RUNTIME_DIR", str(path))
    monkeypatch.delenv("SPECKV_ISA", raising=False)
    with emulated_card(path) if EMULATOR else nullcontext():
        yield path
    end_cards(path)
    shutil.rmtree(path, ignore_errors=True)


def stored(pool: str, content: bytes) -> tuple[Path, int]:
    """The file and offset of these bytes of a pool: the pool's own file, or the card's memory."""
    runtime = Path(os.environ["SPECKV_RUNTIME_DIR"])
    path = runtime / "emu" / "card" / "memory" if EMULATOR else runtime / "DRAM.pools" / pool
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ) as memory:
        offset = memory.find(content)
    assert offset >= 0
    return path, offset


def end_cards(runtime_dir: Path) -> None:
    """Kill the emulated cards that a test left running: the holders of the locks in cards' folders."""
    folders = [os.stat(folder) for folder in runtime_dir.glob("emu/*") if folder.is_dir()]
    if not folders:
        return
    held = {f"{os.major(s.st_dev):02x}:{os.minor(s.st_dev):02x}:{s.st_ino}" for s in folders}
    for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
        words = line.split()
        if words[1] == "FLOCK" and words[5] in held:
            os.kill(int(words[4]), signal.SIGKILL)


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the source tree."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of optional real data; the test is skipped by name without it."""
    path = Path(os.environ.get("SPECKV_SHARED", REPOSITORY.parent / "shared"))
    if not path.is_dir():
        pytest.skip("no real data: neither SPECKV_SHARED nor ../shared is a folder")
    return path
