# SPDX-License-Identifier: MIT
"""Users beside root: what a pool's group may do, what others may not, and devices of one's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import speckvctl
from speckvctl.replay import sample
from tests.cli.conftest import SPECKVCTL, Cli, Finished
from tests.conftest import EMULATOR

#: uid: one without a name on any machine, and one that has one on most; the group that shares a pool; a stranger.
FIRST, SECOND, TEAM, STRANGER = 4242, 65534, 4300, 4343


def interpreter() -> Path | None:
    """One of this version that other users may run; that of the environment may lie in root's home."""
    version = "{}.{}".format(*sys.version_info)
    for path in (Path(sys.executable), Path(f"/usr/bin/python{version}")):
        places = [path.resolve(), *path.resolve().parents]
        if all(place.exists() and place.stat().st_mode & 0o001 for place in places):
            return path
    return None


INTERPRETER = interpreter()

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become other users"),
    pytest.mark.skipif(EMULATOR is not None, reason="of host memory: a card belongs to who started it"),
]


def as_user(uid: int, runtime: Path, *arguments: str, groups: tuple[int, ...] = ()) -> Finished:
    """The installed command, run by another user from the root folder."""
    environment = {
        "PATH": f"{SPECKVCTL.parent}:{os.environ['PATH']}",
        "HOME": "/",
        "LC_ALL": "C.UTF-8",
        "PYTHONPATH": str(Path(speckvctl.__file__).parent.parent),
        "SPECKV_RUNTIME_DIR": str(runtime),
    }
    done = subprocess.run(
        [str(INTERPRETER), "-P", "-m", "speckvctl", *arguments],
        user=uid,
        group=uid,
        extra_groups=groups,
        cwd="/",
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    return Finished(arguments, done.returncode, done.stdout, done.stderr)


@pytest.fixture
def shared(cli: Cli, runtime_dir: Path) -> Path:
    """A runtime folder of root's, as /dev/shm/speckv is, with a pool of a group and one of root's alone."""
    runtime_dir.chmod(0o755)
    if INTERPRETER is None or as_user(FIRST, runtime_dir, "--version").code:
        pytest.skip(f"other users can reach no interpreter, or not {SPECKVCTL}")
    team = ["--owner", f"0:{TEAM}", "--mode", "0660"]
    cli.ok("pool", "create", "host:DRAM", "team", "--size", "64M", *team)
    cli.ok("pool", "create", "host:DRAM", "mine", "--size", "8M")
    return runtime_dir


def test_members_of_a_pools_group_use_it_together(shared: Path) -> None:
    replay = ["replay", str(sample.TRACE), "host:DRAM", "team", "--limit", "8", "--max-rate", "--json"]
    for uid in (FIRST, SECOND):
        done = as_user(uid, shared, *replay, groups=(TEAM,))
        assert done.code == 0, done.err
        assert done.document["mismatches"] == 0
    assert done.document["blocks_read"] > 0 and done.document["blocks_written"] == 0  # the first one's blocks are there
    shown = as_user(SECOND, shared, "pool", "show", "host:DRAM", "team", "--json", groups=(TEAM,))
    assert shown.document["pool"]["accessible"] is True
    events = as_user(SECOND, shared, "events", "host:DRAM", "team", "--json", groups=(TEAM,))
    assert events.code == 0 and events.document["events"]


def test_counters_of_all_pools_are_reset_or_of_none(shared: Path, cli: Cli) -> None:
    cli.ok("pool", "create", "host:DRAM", "seen", "--size", "8M", "--owner", f"0:{TEAM}", "--mode", "0640")
    replay = ["replay", str(sample.TRACE), "host:DRAM", "team", "--limit", "8", "--max-rate"]
    assert as_user(FIRST, shared, *replay, groups=(TEAM,)).code == 0
    before = cli.document("stats", "host:DRAM", "team")["pools"][0]["counters"]
    assert before["puts"] > 0
    for extra in ([], ["--dry-run"]):
        assert as_user(FIRST, shared, "stats", "host:DRAM", "--reset", *extra, groups=(TEAM,)).code == 5
        assert cli.document("stats", "host:DRAM", "team")["pools"][0]["counters"] == before


def test_others_see_a_pool_and_cannot_use_it(shared: Path) -> None:
    for uid in (STRANGER, SECOND):
        listed = as_user(uid, shared, "pool", "list", "--json")
        assert listed.code == 0, listed.err
        assert {pool["name"]: pool["accessible"] for pool in listed.document["pools"]} == {"team": False, "mine": False}
        assert "no access" in as_user(uid, shared, "pool", "list").out
        for arguments in (
            ["stats", "host:DRAM", "team"],
            ["replay", str(sample.TRACE), "host:DRAM", "team", "--limit", "1", "--max-rate"],
            ["pool", "check", "host:DRAM", "team"],
        ):
            done = as_user(uid, shared, *arguments, "--json")
            assert (done.code, json.loads(done.out)["error"]["code"]) == (5, "not_permitted"), (arguments, done.err)


def test_only_its_owner_changes_a_device(shared: Path, cli: Cli) -> None:
    before = cli.document("pool", "list")["pools"]
    for uid, groups in ((FIRST, (TEAM,)), (STRANGER, ())):
        for arguments in (
            ["pool", "create", "host:DRAM", "new", "--size", "8M"],
            ["pool", "destroy", "host:DRAM", "team", "--yes"],
            ["pool", "resize", "host:DRAM", "mine", "--size", "16M"],
            ["pool", "set", "host:DRAM", "mine", "--mode", "0666"],
            ["device", "close", "host:DRAM", "--yes"],
        ):
            done = as_user(uid, shared, *arguments, groups=groups)
            assert done.code == 5, (arguments, done.err)
    after = cli.document("pool", "list")["pools"]
    assert [pool["uuid"] for pool in after] == [pool["uuid"] for pool in before]
    doctor = as_user(STRANGER, shared, "doctor", "--json")
    (folder,) = (check for check in doctor.document["checks"] if check["name"] == "runtime folder")
    assert folder["status"] in ("ok", "warning") and folder["next"]


@pytest.mark.parametrize("uid", [FIRST, SECOND])
def test_a_user_has_devices_of_their_own(uid: int, shared: Path) -> None:
    own = shared / f"of-{uid}"
    own.mkdir(mode=0o700)
    os.chown(own, uid, uid)
    made = as_user(uid, own, "pool", "create", "host:DRAM", "chat", "--size", "32M", "--json")
    assert made.code == 0, made.err
    assert made.document["pool"]["uid"] == uid
    assert as_user(uid, own, "pool", "create", "host:DRAM", "chat", "--size", "32M").code == 3
    replayed = as_user(uid, own, "replay", str(sample.TRACE), "host:DRAM", "chat", "--limit", "4", "--max-rate")
    assert replayed.code == 0, replayed.err
    given = as_user(uid, own, "pool", "create", "host:DRAM", "gift", "--size", "8M", "--owner", "root")
    assert given.code == 5, given.err
    assert as_user(uid, own, "doctor").code == 0
    assert as_user(uid, own, "device", "close", "host:DRAM", "--yes").code == 0
    assert as_user(uid, own, "pool", "list", "--json").document["pools"] == []


def test_a_card_is_its_starters_alone(shared: Path) -> None:
    own = shared / "cards"
    own.mkdir(mode=0o755)
    os.chown(own, FIRST, FIRST)
    started = as_user(FIRST, own, "emu", "start", "card0", "--memory", "64M")
    assert started.code == 0, started.err
    try:
        assert as_user(FIRST, own, "device", "show", "emu:card0").code == 0
        for arguments in (["device", "reset", "emu:card0"], ["device", "set", "emu:card0", "--prefetch-depth", "2"]):
            done = as_user(SECOND, own, *arguments)
            assert done.code in (4, 5), (arguments, done.err)  # folders of strangers are not even looked into
    finally:
        assert as_user(FIRST, own, "emu", "stop", "card0", "--remove", "--yes").code == 0
