# SPDX-License-Identifier: MIT
"""speckvctl emu: processes that are cards, which start, are found, die and come again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import speckv
from speckv import bundle

from speckvctl.cards import emulation
from tests.cli.cards import Card, stopped
from tests.cli.conftest import Cli, Unchanged, environment
from tests.cli.test_errors import as_nobody, refused


@pytest.fixture
def context(runtime_dir: Path) -> Iterator[speckv.Context]:
    with speckv.Context() as ctx:
        yield ctx


def test_a_card_starts_once_is_found_and_stops(cli: Cli, context: speckv.Context) -> None:
    started = cli.document("emu", "start", "card0", "--memory", "64MiB")["card"]
    assert (started["state"], started["memory_bytes"], started["running_image"]) == ("running", 64 << 20, "golden")
    assert started["pid"] == emulation.holder(Path(started["folder"]))
    assert os.getsid(started["pid"]) == started["pid"] != os.getsid(0)
    refused(cli("emu", "start", "emu:card0"), 3, "running", str(started["pid"]))
    assert cli.document("emu", "list")["cards"] == [started] == [cli.document("emu", "status", "card0")["card"]]
    assert str(started["pid"]) in cli.ok("emu", "list").out
    done = cli.document("emu", "stop", "card0")
    assert (done["stopped"], done["killed"], done["removed"]) == (True, False, False)
    refused(cli("emu", "stop", "card0"), 3, "not running")
    (card,) = cli.document("emu", "list")["cards"]
    assert (card["state"], card["pid"], card["memory_bytes"], card["engine"]) == ("stopped", None, 64 << 20, None)


def test_of_several_starts_at_once_one_makes_the_card(cli: Cli, context: speckv.Context) -> None:
    sizes = [64, 80, 96]
    started = [cli.start("emu", "start", "card0", "--memory", f"{size}MiB") for size in sizes]
    codes = []
    for process in started:
        process.communicate(timeout=120)
        codes.append(process.returncode)
    assert sorted(codes) == [0, 2, 2]  # the others asked for another size
    (card,) = emulation.all_cards(context)
    assert (card.state, card.memory_bytes) == ("running", sizes[codes.index(0)] << 20)
    emulation.stop(context, "card0")
    emulation.start(context, "card0", emulation.StartRequest())


def test_a_card_that_died_while_it_was_made_is_made_whole_by_the_next_start(context: speckv.Context) -> None:
    card = Card(context)
    card.kill()
    (card.folder / "flash").unlink()
    card.again()
    with card.administer() as admin:
        assert len(admin.info().key_ids) == 1


def test_what_a_card_holds_outlives_its_process(context: speckv.Context) -> None:
    card = Card(context)
    with context.open(card.name) as device:
        device.create_pool(speckv.PoolConfig("chat", 8 << 20))
        uuid = device.info().uuid
    card.kill(signal.SIGKILL)
    assert emulation.described(context, "card0").state == "stopped"
    card.again()
    with context.open(card.name) as device:
        assert ([pool.name for pool in device.pools()], device.info().uuid) == (["chat"], uuid)
    card.kill(signal.SIGTERM)
    card.again()
    with card.administer() as admin:
        assert admin.info().pools == 1


def test_who_is_connected_is_told(context: speckv.Context, cli: Cli) -> None:
    card = Card(context)
    with card.administer():
        (one,) = cli.document("emu", "status", "card0")["card"]["functions"]
        assert (one["pid"], one["admin"], one["uid"]) == (os.getpid(), True, os.getuid())
        # of its command line no more than the program: arguments may be secrets
        assert one["command"] == Path("/proc/self/comm").read_text().strip()
    assert cli.document("emu", "status", "card0")["card"]["functions"] == []


def test_a_folder_of_ones_own_is_linked_and_only_emptied_of_what_is_ours(cli: Cli, context: speckv.Context) -> None:
    folder = cli.folder / "state"
    cli.ok("emu", "start", "card0", "--memory", "64MiB", "--dir", "state")
    link = Path(context.runtime_dir, "emu", "card0")
    assert link.is_symlink() and link.resolve() == folder
    (folder / "notes").write_text("mine")
    refused(cli("emu", "stop", "card0", "--remove"), 2, "--yes", str(folder))
    assert emulation.is_running(folder)
    assert cli.document("emu", "stop", "card0", "--remove", "--dry-run")["removed"] is True
    assert emulation.is_running(folder)
    cli.ok("emu", "stop", "card0", "--remove", "--yes")
    assert [path.name for path in folder.iterdir()] == ["notes"] and not os.path.lexists(link)
    refused(cli("emu", "status", "card0"), 4, "emu start card0")


def test_a_card_stays_what_it_was_made(cli: Cli, context: speckv.Context) -> None:
    key = cli.folder / "own.pub"
    key.write_text(bundle.public_to_pem(bundle.public_key(bytes(range(32)))))
    card = Card(context, factory=True)
    card.kill()
    before = card.flash_digest()
    refused(cli("emu", "start", "card0", "--memory", "128MiB"), 2, "--memory", "has 64 MiB")
    refused(cli("emu", "start", "card0", "--power-cycle"), 2, "--power-cycle")
    refused(cli("emu", "start", "card0", "--key", key), 2, "--key")
    refused(cli("emu", "start", "card0", "--dir", "elsewhere"), 2, "lives in")
    assert not emulation.is_running(card.folder) and card.flash_digest() == before
    cli.ok("emu", "start", "card0", "--memory", "64MiB", "--factory")
    with card.administer() as admin:
        assert not admin.info().has_engine


def test_a_card_that_runs_with_another_size_is_not_as_asked(cli: Cli, context: speckv.Context) -> None:
    Card(context)
    refused(cli("emu", "start", "card0", "--memory", "128MiB"), 2, "--memory", "has 64 MiB")
    refused(cli("emu", "start", "card0", "--memory", "64MiB"), 3, "running already")


def test_a_card_larger_than_its_file_system_is_warned_of(cli: Cli, context: speckv.Context) -> None:
    for dry in ((), ("--dry-run",)):
        begun = cli.ok("emu", "start", "card0" if dry else "card1", "--memory", "4TiB", *dry)
        assert "4 TiB" in begun.line and "more than" in begun.err and "the machine has" in begun.err


@pytest.mark.parametrize("memory", ["4KiB", "4MiB", "8191KiB", "16385GiB", "1000TiB"])
def test_the_memory_of_a_card_has_limits(cli: Cli, unchanged: Callable[[], Unchanged], memory: str) -> None:
    check = unchanged()
    for dry in ((), ("--dry-run",)):
        refused(cli("emu", "start", "card0", "--memory", memory, *dry), 2, "--memory", "8 MiB to 16 TiB")
    check()


def test_a_card_of_the_least_memory_holds_a_pool(cli: Cli) -> None:
    cli.ok("emu", "start", "card0", "--memory", str(emulation.MEMORY_BYTES_MIN))
    cli.ok("pool", "create", "emu:card0", "chat", "--size", "64KiB")
    cli.ok("emu", "start", "card1", "--memory", str(emulation.MEMORY_BYTES_MAX))


def test_a_card_takes_as_many_keys_as_its_flash_has_room_for(cli: Cli, context: speckv.Context) -> None:
    words = []
    for number in range(emulation.KEY_SLOTS + 1):
        key = cli.folder / f"{number}.pub"
        key.write_text(bundle.public_to_pem(bundle.public_key(bytes([number]) * 32)))
        words += ["--key", str(key)]
    for dry in ((), ("--dry-run",)):
        done = cli("emu", "start", "card0", "--memory", "64MiB", *words, *dry)
        refused(done, 2, f"--key: {emulation.KEY_SLOTS + 1} keys", f"room for {emulation.KEY_SLOTS}")
    assert not os.path.lexists(Path(context.runtime_dir, "emu", "card0"))
    cli.ok("emu", "start", "card0", "--memory", "64MiB", *words[2:])
    with speckv.card.Admin(context, "emu:card0") as admin:
        assert len(admin.info().key_ids) == emulation.KEY_SLOTS


def test_a_start_that_fails_says_why_and_leaves_nothing(cli: Cli, context: speckv.Context) -> None:
    strange = cli.folder / "strange"
    strange.mkdir()
    (strange / "thesis.tex").write_text("years of work")
    refused(cli("emu", "start", "card0", "--dir", "strange"), 2, "something other than a card")
    for name in ("a/b", "../x", "", ".hidden", "emu:", "x" * 64):
        refused(cli("emu", "start", "--", name), 2, "name")
    refused(cli("emu", "start", "card0", "--key", strange / "thesis.tex"), 2, "thesis.tex")
    refused(cli("emu", "start", "card0", "--memory", "much"), 2, "--memory")
    assert cli.document("emu", "list")["cards"] == []
    assert [path.name for path in strange.iterdir()] == ["thesis.tex"]


def test_a_card_that_hangs_is_seen_and_killed(context: speckv.Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emulation, "STOP_SECONDS", 0.2)
    card = Card(context)
    with stopped(card.pid):
        with pytest.raises(speckv.SpeckvError, match="does not answer"):
            card.administer()
        done = emulation.stop(context, "card0")
    assert (done.stopped, done.killed) == (True, True)
    card.again()
    assert card.running()[0] == "golden"


def test_a_card_whose_folder_is_gone_can_be_forgotten(cli: Cli, context: speckv.Context) -> None:
    Path(context.runtime_dir, "emu").mkdir()
    Path(context.runtime_dir, "emu", "card0").symlink_to(cli.folder / "gone")
    (card,) = cli.document("emu", "list")["cards"]
    assert (card["state"], card["pid"]) == ("lost", None)
    refused(cli("emu", "start", "card0"), 4, "gone")
    refused(cli("device", "show", "emu:card0"), 4, "gone")
    cli.ok("emu", "stop", "card0", "--remove", "--yes")
    assert cli.document("emu", "list")["cards"] == []


def test_paths_longer_than_the_address_of_a_socket_serve_too(cli: Cli, runtime_dir: Path) -> None:
    long = runtime_dir / ("a" * 60) / ("b" * 60)
    long.mkdir(parents=True)
    env = environment(SPECKV_RUNTIME_DIR=str(long))
    assert cli("emu", "start", "card0", "--memory", "64MiB", env=env).code == 0
    try:
        assert cli("pool", "create", "emu:card0", "chat", "--size", "8MiB", env=env).code == 0
    finally:
        assert cli("emu", "stop", "card0", "--remove", "--yes", env=env).code == 0


STOP_AS_NOBODY = """
import os, speckv, speckv.card
with speckv.Context() as context:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    try:
        speckv.card.stop(context, "emu:card0")
    except speckv.PermissionDeniedError as exc:
        print(exc)
"""


def test_what_a_killed_start_left_blocks_no_other(cli: Cli, context: speckv.Context) -> None:
    folder = Path(context.runtime_dir, "emu", "card0")
    (folder / "keys.d").mkdir(parents=True)
    for left in (".card.json", "keys.d/.0011223344556677.pub"):
        (folder / f"{left}.0123456789abcdef").touch()
    for dry in (("--dry-run",), ()):
        cli.ok("emu", "start", "card0", "--memory", "64MiB", *dry)
    cli.ok("emu", "stop", "card0", "--remove", "--yes")
    assert not folder.exists()


def test_a_start_looks_when_others_have_done_what_they_are_doing(
    cli: Cli, context: speckv.Context, runtime_dir: Path
) -> None:
    cards = runtime_dir / "emu"
    cards.mkdir()
    (cards / "card0").symlink_to(cli.folder / "gone")  # as in the midst of a removal
    with emulation._managing(context):
        starting = cli.start("emu", "start", "card0", "--memory", "64MiB")
        while f"-> FLOCK  ADVISORY  WRITE {starting.pid} " not in Path("/proc/locks").read_text():
            assert starting.poll() is None, starting.communicate()
            time.sleep(0.01)
        (cards / "card0").unlink()
    _, err = starting.communicate(timeout=60)
    assert (starting.returncode, err) == (0, "")


@pytest.mark.root
def test_who_else_may_not_stop_it(cli: Cli, context: speckv.Context, runtime_dir: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to be another user")
    runtime_dir.chmod(0o755)
    card = Card(context)
    done = subprocess.run([sys.executable, "-c", STOP_AS_NOBODY], cwd="/", capture_output=True, text=True, check=True)
    assert "no permission" in done.stdout and "control" in done.stdout
    refused(as_nobody(cli, "device", "reset", "emu:card0"), 5, "admin")
    for words in (("stop",), ("stop", "--dry-run"), ("stop", "--remove", "--yes"), ("stop", "--remove", "--dry-run")):
        refused(as_nobody(cli, "emu", words[0], "card0", *words[1:]), 5, "no permission")
    assert emulation.is_running(card.folder)
    emulation.stop(context, "card0")
    for last in ("--yes", "--dry-run"):
        refused(as_nobody(cli, "emu", "stop", "card0", "--remove", last), 5)
        refused(as_nobody(cli, "emu", "start", "card0", *([last] if last == "--dry-run" else [])), 5)
        refused(as_nobody(cli, "emu", "start", "card1", *([last] if last == "--dry-run" else [])), 5)
    assert (card.folder / "memory").exists() and not os.path.lexists(card.folder.parent / "card1")
