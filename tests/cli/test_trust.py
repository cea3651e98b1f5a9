# SPDX-License-Identifier: MIT
"""What another user made or can change in the runtime folder is refused with the command that mends it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import speckv
from speckv import bundle

from speckvctl import folders
from speckvctl.cards import audit, emulation
from tests.cli.conftest import Cli
from tests.cli.test_errors import refused

STRANGER = 65534

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="not root: another user's files cannot be made")


@pytest.fixture
def context(runtime_dir: Path) -> Iterator[speckv.Context]:
    with speckv.Context() as ctx:
        yield ctx


def strangers(path: Path) -> Path:
    os.chown(path, STRANGER, STRANGER, follow_symlinks=False)
    return path


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    folder = tmp_path / "victim"
    folder.mkdir()
    (folder / "precious").write_text("precious")
    return folder


VERBS = (
    ("pool", "create", "host:DRAM", "chat", "--size", "4MiB"),
    ("pool", "list", "host:DRAM"),
    ("device", "list"),
    ("device", "close", "host:DRAM", "--yes"),
    ("emu", "start", "card0", "--memory", "64MiB"),
    ("emu", "start", "card0", "--memory", "64MiB", "--dry-run"),
    ("emu", "list"),
)


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_a_runtime_folder_of_another_user_is_refused(cli: Cli, runtime_dir: Path, verb: tuple[str, ...]) -> None:
    strangers(runtime_dir)
    refused(cli(*verb), 5, "belongs to uid 65534", "export SPECKV_RUNTIME_DIR=")
    assert list(runtime_dir.iterdir()) == []


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_a_runtime_folder_that_others_can_write_is_refused(cli: Cli, runtime_dir: Path, verb: tuple[str, ...]) -> None:
    runtime_dir.chmod(0o777)
    refused(cli(*verb), 5, f"chmod go-w {runtime_dir}")
    assert list(runtime_dir.iterdir()) == []


def test_doctor_names_each_folder_that_is_not_trusted(cli: Cli, runtime_dir: Path) -> None:
    for name in ("emu", "cards", "media"):
        (runtime_dir / name).mkdir()
        strangers(runtime_dir / name)
    cli.ok("pool", "create", "host:DRAM", "chat", "--size", "4MiB")
    strangers(runtime_dir / "DRAM")
    checks = cli("doctor", "--json").document["checks"]
    said = [check for check in checks if check["status"] == "failed"]
    for name in ("emu", "cards", "media", "DRAM"):
        found = [check["next"] for check in said if f"{runtime_dir / name} belongs to uid 65534" in check["detail"]]
        assert f"rm -r {runtime_dir / name}" in found, (name, said)
    runtime_dir.chmod(0o775)
    checks = cli("doctor", "--json").document["checks"]
    assert ("failed", f"chmod go-w {runtime_dir}") in [(check["status"], check["next"]) for check in checks]


def test_the_folder_of_cards_leads_nowhere_else(cli: Cli, runtime_dir: Path, victim: Path) -> None:
    start = ("emu", "start", "card0", "--memory", "64MiB")
    (runtime_dir / "emu").symlink_to(victim)
    for words in (start, (*start, "--dry-run")):
        refused(cli(*words), 5, "symbolic link")
    (runtime_dir / "emu").unlink()
    (runtime_dir / "emu").mkdir()
    strangers(runtime_dir / "emu")
    for words in (start, (*start, "--dry-run")):
        refused(cli(*words), 5, "belongs to uid 65534")
    assert [path.name for path in victim.iterdir()] == ["precious"]


def test_a_folder_of_another_user_is_no_card(cli: Cli, runtime_dir: Path, tmp_path: Path) -> None:
    (runtime_dir / "emu").mkdir()
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    strangers(theirs)
    start = ("emu", "start", "card0", "--memory", "64MiB", "--dir", str(theirs))
    for words in (start, (*start, "--dry-run")):
        refused(cli(*words), 5, "belongs to uid 65534")
    assert list(theirs.iterdir()) == [] and not os.path.lexists(runtime_dir / "emu" / "card0")


def test_removing_a_card_follows_no_link(context: speckv.Context, runtime_dir: Path, victim: Path) -> None:
    name = "01234567-89ab-4def-8123-456789abcdef"
    card = runtime_dir / "emu" / "card0"
    card.mkdir(parents=True)
    (card / "uuid").write_text(f"{name}\n")
    (card / "memory").symlink_to(victim / "precious")
    (card / "keys.d").symlink_to(victim)
    (victim / "other.pub").write_text("a key")
    (runtime_dir / "cards").mkdir()
    (runtime_dir / "cards" / f"{name}.pools").symlink_to(victim)
    emulation.remove(context, "card0")
    assert sorted(path.name for path in victim.iterdir()) == ["other.pub", "precious"]


def test_the_keys_of_a_card_are_read_through_no_link(
    cli: Cli, context: speckv.Context, runtime_dir: Path, victim: Path
) -> None:
    card = runtime_dir / "emu" / "card0"
    (card / "keys.d").mkdir(parents=True)
    key = bundle.public_key(bytes(32))
    (victim / "theirs.pub").write_text(bundle.public_to_pem(key))
    (card / "keys.d" / "own.pub").write_text(bundle.public_to_pem(key))
    assert emulation.trusted_keys(context, card) == [key]
    (card / "keys.d" / "other.pub").symlink_to(victim / "theirs.pub")
    with pytest.raises(speckv.PermissionDeniedError, match="symbolic link"):
        emulation.trusted_keys(context, card)
    for words in ((), ("--dry-run",)):
        refused(cli("emu", "start", "card0", "--memory", "64MiB", *words), 5, "other.pub", "symbolic link")
    assert not (card / "memory").exists()


def test_the_record_of_what_was_done_is_not_written_through_a_link(
    context: speckv.Context, runtime_dir: Path, victim: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = runtime_dir / audit.NAME
    file.symlink_to(victim / "precious")
    assert audit.record(context, "flash", "emu:card0", "done") is None
    assert "not recorded" in capsys.readouterr().err and (victim / "precious").read_text() == "precious"
    file.unlink()
    os.mkfifo(file)
    assert audit.record(context, "flash", "emu:card0", "done") is None
    file.unlink()
    file.write_text("")
    strangers(file)
    assert audit.record(context, "flash", "emu:card0", "done") is None and file.read_text() == ""
    file.unlink()
    assert audit.record(context, "flash", "emu:card0", "done") == file and file.read_text().count("\n") == 1


def test_locks_that_others_can_hold_stop_no_card(cli: Cli, runtime_dir: Path) -> None:
    (runtime_dir / "emu" / "card0").mkdir(parents=True)
    held = [os.open(path, os.O_RDONLY) for path in (runtime_dir / "emu", runtime_dir / "emu" / "card0")]
    try:
        for descriptor in held:  # as any user can who may read a folder
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        card = cli.document("emu", "start", "card0", "--memory", "64MiB")["card"]
        assert card["state"] == "running" and emulation.holder(Path(card["folder"])) == card["pid"]
        assert (Path(card["folder"]) / emulation.LOCK).stat().st_mode & 0o777 == 0o600
        assert cli.document("emu", "stop", "card0", "--remove", "--yes")["removed"]
    finally:
        for descriptor in held:
            os.close(descriptor)
    assert not os.path.lexists(runtime_dir / "emu" / "card0")


def test_a_file_in_a_folder_is_whole_or_not_there(context: speckv.Context, runtime_dir: Path, victim: Path) -> None:
    with folders.runtime(context, "emu", make=True) as folder:
        (folder.path / "file").symlink_to(victim / "precious")
        folder.write("file", b"new")  # takes the place of the link
        assert folder.read("file") == b"new" and (victim / "precious").read_text() == "precious"
        assert folder.names() == ["file"] and folder.has("file")
        folder.remove("file")
        folder.remove("file")
        assert not folder.has("file")


def test_a_handle_that_outlived_its_device_says_so(context: speckv.Context) -> None:
    device = context.open("host:DRAM", create=True)
    context.remove("host:DRAM")
    with context.open("host:DRAM", create=True) as other:
        other.create_pool(speckv.PoolConfig(name="chat", capacity_bytes=4 << 20))
        with pytest.raises(speckv.StaleError, match="open the device again"):
            device.create_pool(speckv.PoolConfig(name="chat", capacity_bytes=4 << 20))
        assert [pool.accessible for pool in other.pools()] == [1]
    device.close()
