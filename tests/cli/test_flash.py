# SPDX-License-Identifier: MIT
"""speckvctl flash, against cards that are processes: what runs afterwards, and everything that must not be flashed."""

from __future__ import annotations

import json
import os
import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import speckv
from speckv import bundle

from speckvctl.cards.testkey import TEST_PUBLIC_KEY
from tests.cli.cards import RELEASED, SLOT_A, SLOT_B, TEST_SECRET, Card, make_bundle
from tests.cli.conftest import Cli, held
from tests.cli.test_errors import as_nobody, refused


@pytest.fixture
def context(runtime_dir: Path) -> Iterator[speckv.Context]:
    with speckv.Context() as ctx:
        yield ctx


@pytest.fixture
def factory(context: speckv.Context) -> Card:
    """A card as delivered."""
    return Card(context, factory=True)


@pytest.fixture
def card(context: speckv.Context) -> Card:
    """A card with an engine in its golden image."""
    return Card(context)


def audit(context: speckv.Context) -> list[dict[str, Any]]:
    path = Path(context.runtime_dir, "audit.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_the_test_key_is_that_of_the_tree(repository: Path) -> None:
    pem = (repository / "bitstreams" / "keys" / "test.pub").read_bytes()
    assert bundle.public_from_pem(pem) == TEST_PUBLIC_KEY == bundle.public_key(TEST_SECRET)


# ---- what works ------------------------------------------------------------------------------------------------------


def test_a_factory_card_becomes_ours_and_holds_the_bundle_byte_for_byte(factory: Card, cli: Cli) -> None:
    done = cli.document("flash", "emu:card0", RELEASED)
    assert (done["image"], done["activation"], done["verified"]) == ("a", "needs_rescan", True)
    assert (done["before_image"], done["running_image"], done["running_revision"]) == ("golden", "a", "0.1.0")
    data = RELEASED.read_bytes()
    assert factory.in_slot(SLOT_A, len(data)) == data
    assert factory.running() == ("a", "0.1.0")
    with factory.administer() as admin:
        assert admin.info().has_engine
    begun, ended = audit(factory.context)
    assert (begun["result"], ended["result"], ended["activation"]) == ("begun", "done", "needs_rescan")
    assert ended["bundle"]["sha256"] == done["bundle_sha256"] and ended["pid"] == begun["pid"] != os.getpid()
    assert done["audit"] == str(Path(factory.context.runtime_dir, "audit.jsonl"))


def test_slots_take_turns_and_the_same_again_is_nothing_to_do(card: Card, cli: Cli) -> None:
    first = make_bundle(cli.folder / "first.bundle", revision=(1, 0, 0))
    second = make_bundle(cli.folder / "second.bundle", revision=(2, 0, 0))
    assert cli.document("flash", "emu:card0", first)["image"] == "a"
    done = cli.document("flash", "emu:card0", second)
    assert (done["image"], done["activation"], done["running_revision"]) == ("b", "done", "2.0.0")
    assert card.in_slot(SLOT_B, second.stat().st_size) == second.read_bytes()
    before = card.flash_digest()
    refused(cli("flash", "emu:card0", second), 3, "slot B", "nothing to do")
    refused(cli("flash", "emu:card0", first, "--slot", "b"), 6, "slot B", "--slot a")
    assert card.flash_digest() == before
    # what the other slot holds is not sent again
    again = cli.document("flash", "emu:card0", first)
    assert (again["image"], again["resumed_bytes"], again["running_image"]) == ("a", first.stat().st_size, "a")


def test_a_dry_run_says_it_and_writes_nothing(factory: Card, cli: Cli) -> None:
    before = factory.flash_digest()
    done = cli.document("flash", "emu:card0", RELEASED, "--dry-run")
    assert (done["image"], done["activation"], done["verified"], done["audit"]) == ("a", None, False, None)
    assert cli.document("flash", "emu:card0", RELEASED, "--dry-run", "--slot", "B")["image"] == "b"
    assert factory.flash_digest() == before and audit(factory.context) == []


def test_rollback_and_golden_go_back(card: Card, cli: Cli) -> None:
    refused(cli("flash", "emu:card0", "--golden"), 3, "golden")
    refused(cli("flash", "emu:card0", "--rollback"), 3, "no previous image")
    refused(cli("flash", "emu:card0", "--rollback", "--dry-run"), 3, "no previous image")
    cli.ok("flash", "emu:card0", make_bundle(cli.folder / "first.bundle", revision=(1, 0, 0)))
    cli.ok("flash", "emu:card0", make_bundle(cli.folder / "second.bundle", revision=(2, 0, 0)))
    before = card.flash_digest()
    would = cli.document("flash", "emu:card0", "--rollback", "--dry-run")
    assert (would["image"], would["running_image"], would["verified"]) == ("a", "b", False)
    assert card.flash_digest() == before and card.running() == ("b", "2.0.0")
    back = cli.document("flash", "emu:card0", "--rollback")
    assert (back["action"], back["running_image"], back["running_revision"]) == ("rollback", "a", "1.0.0")
    golden = cli.document("flash", "emu:card0", "--golden")
    assert (golden["before_image"], golden["running_image"]) == ("a", "golden")
    done = [line["action"] for line in audit(card.context) if line["result"] == "done"]
    assert done == ["flash", "flash", "rollback", "golden"]


def test_no_way_leads_below_the_security_version(factory: Card, cli: Cli) -> None:
    first = make_bundle(cli.folder / "sv1.bundle", security_version=1, revision=(1, 0, 0))
    newer = make_bundle(cli.folder / "sv9.bundle", security_version=9, revision=(9, 0, 0))
    cli.ok("flash", "emu:card0", first)
    cli.ok("flash", "emu:card0", newer)
    before = factory.flash_digest()
    for arguments in ([first], ["--rollback"], [first, "--dry-run"], ["--rollback", "--dry-run"]):
        refused(cli("flash", "emu:card0", *arguments), 7, "security version", "9")
    with factory.administer() as admin:  # nor past this tool
        admin.lock_firmware()
        admin.download_firmware("a", first.read_bytes())
        for call in (
            lambda: admin.commit_firmware("a", first.read_bytes()),
            lambda: admin.activate_firmware("a", first.read_bytes()),
            lambda: admin.activate_firmware("previous"),
        ):
            with pytest.raises(speckv.PermissionDeniedError, match="security version"):
                call()
    assert factory.flash_digest() == before and factory.running() == ("b", "9.0.0")
    golden = cli.document("flash", "emu:card0", "--golden")
    assert (golden["running_image"], golden["verified"]) == ("golden", True)
    refused(cli("flash", "emu:card0", first), 7, "security version")
    factory.kill()
    factory.again()
    assert factory.running()[0] == "golden"
    with factory.administer() as admin:
        assert admin.info().security_version == 9
    cli.ok("flash", "emu:card0", newer)


def test_golden_below_the_security_version_has_no_engine(card: Card, cli: Cli) -> None:
    cli.ok("flash", "emu:card0", make_bundle(cli.folder / "sv1.bundle", security_version=1, revision=(1, 0, 0)))
    cli.ok("flash", "emu:card0", "--golden")
    refused(cli("pool", "create", "emu:card0", "chat", "--size", "8MiB"), 8, "flash")
    with card.administer() as admin:
        assert not admin.info().has_engine
    card.kill()
    card.again()
    with card.administer() as admin:
        assert not admin.info().has_engine


def test_going_back_says_which_pools_go_out_of_service(card: Card, cli: Cli) -> None:
    cli.ok("flash", "emu:card0", make_bundle(cli.folder / "sv1.bundle", security_version=1, revision=(1, 0, 0)))
    cli.ok("pool", "create", "emu:card0", "chat", "--size", "8MiB")
    before = card.flash_digest()
    for way in ("--golden", "--rollback"):
        line = refused(cli("flash", "emu:card0", way), 2, "chat", "out of service", "nothing was changed")
        assert f"speckvctl flash emu:card0 {way} --yes" in line
        would = cli.document("flash", "emu:card0", way, "--dry-run")
        assert (would["image"], would["pools_out_of_service"]) == ("golden", ["chat"])
    assert card.flash_digest() == before and card.running() == ("a", "1.0.0")
    done = cli.document("flash", "emu:card0", "--golden", "--yes")
    assert (done["running_image"], done["pools_out_of_service"]) == ("golden", ["chat"])
    cli.ok("flash", "emu:card0", make_bundle(cli.folder / "next.bundle", security_version=1, revision=(1, 1, 0)))
    with card.context.open(card.name) as device:
        assert device.check_pool("chat").clean


def test_a_card_that_was_found_again_is_not_left_as_a_task(factory: Card, cli: Cli) -> None:
    text = cli.ok("flash", "emu:card0", RELEASED).out
    assert "done; the card was found again" in text and "needs_rescan" not in text


def test_a_card_that_needs_a_power_cycle_runs_the_old_image_until_then(context: speckv.Context, cli: Cli) -> None:
    card = Card(context, power_cycle=True)
    done = cli.document("flash", "emu:card0", RELEASED)
    assert (done["activation"], done["verified"], done["running_image"]) == ("needs_power_cycle", False, "golden")
    card.kill()
    card.again()
    assert card.running() == ("a", "0.1.0")


def test_a_flash_write_that_is_cut_short_is_done_again(card: Card, cli: Cli) -> None:
    speckv.card.inject(card.context, card.name, "torn-program", value=100)
    assert cli.document("flash", "emu:card0", RELEASED)["verified"] is True
    data = RELEASED.read_bytes()
    assert card.in_slot(SLOT_A, len(data)) == data


# ---- what breaks in the middle ---------------------------------------------------------------------------------------


def test_a_card_that_loses_power_goes_on_where_it_was(card: Card, cli: Cli) -> None:
    speckv.card.inject(card.context, card.name, "power-cut", value=400_000)  # counts erased bytes too
    refused(cli("flash", "emu:card0", RELEASED), 1, "went away")
    card.wait_for_end()
    refused(cli("flash", "emu:card0", RELEASED), 4, "not running")
    card.again()
    assert card.running()[0] == "golden"
    done = cli.document("flash", "emu:card0", RELEASED)
    assert done["verified"] is True and 0 < done["resumed_bytes"] < done["bundle_bytes"]
    data = RELEASED.read_bytes()
    assert card.in_slot(SLOT_A, len(data)) == data
    assert [line["result"] for line in audit(card.context)] == ["begun", "failed", "begun", "done"]


def test_power_lost_at_any_byte_leaves_a_card_that_says_what_it_is(card: Card, cli: Cli) -> None:
    chosen = random.Random(7)
    cuts = 0
    for turn in range(1, 25):
        data = make_bundle(cli.folder / "new.bundle", revision=(turn, 0, 0), size=70_000).read_bytes()
        before = card.running()
        target = "b" if before[0] == "a" else "a"
        speckv.card.inject(card.context, card.name, "power-cut", value=chosen.randrange(240_000))
        try:
            with card.administer() as admin:
                admin.lock_firmware()
                admin.download_firmware(target, data)
                admin.commit_firmware(target, data)
                admin.activate_firmware(target, data)
        except speckv.SpeckvError:
            card.wait_for_end()
            cuts += 1
        else:
            card.kill()
        card.again()
        assert card.running() in (before, (target, f"{turn}.0.0"))
    assert cuts >= 12


def test_an_image_that_does_not_start_well_is_not_what_runs(card: Card, cli: Cli) -> None:
    speckv.card.inject(card.context, card.name, "bad-boot", count=1)
    refused(cli("flash", "emu:card0", RELEASED), 7, "golden", "fell back")
    assert card.running()[0] == "golden"
    last = audit(card.context)[-1]
    assert last["result"] == "failed" and "fell back" in last["reason"]
    with card.administer() as admin:
        assert next(slot for slot in admin.slots() if slot.image == "a").state == "rejected"


# ---- what must not be flashed ----------------------------------------------------------------------------------------


def spoiled(path: Path, good: bytes, at: int) -> Path:
    data = bytearray(good)
    data[at] ^= 1
    path.write_bytes(data)
    return path


def test_bundles_that_are_refused_change_nothing(card: Card, cli: Cli) -> None:
    folder = cli.folder
    with card.administer() as admin:  # a card that has seen security version 5
        newer = make_bundle(folder / "newer.bundle", security_version=5, revision=(5, 0, 0)).read_bytes()
        admin.lock_firmware()
        admin.download_firmware("a", newer)
        admin.commit_firmware("a", newer)
        admin.activate_firmware("a", newer)
    assert card.running() == ("a", "5.0.0")
    foreign = bundle.generate_key()
    (folder / "foreign.pub").write_text(bundle.public_to_pem(bundle.public_key(foreign)))
    good = make_bundle(folder / "good.bundle", security_version=5).read_bytes()
    (folder / "cut.bundle").write_bytes(good[:-1])
    (folder / "text").write_text("not a bundle")
    by_foreign = make_bundle(folder / "foreign.bundle", secret=foreign, security_version=5)
    before = card.flash_digest()
    rows: list[tuple[list[str | Path], int, str]] = [
        ([make_bundle(folder / "part.bundle", part="another", security_version=5)], 7, "for another part"),
        ([folder / "cut.bundle"], 7, "cut short"),
        ([spoiled(folder / "manifest.bundle", good, 200)], 7, ""),
        ([spoiled(folder / "bits.bundle", good, 4096 + 777)], 7, "bitstream"),
        ([make_bundle(folder / "unsigned.bundle", secret=None, security_version=5)], 7, "not signed"),
        ([by_foreign], 7, "not trusted"),
        ([by_foreign, "--trust", folder / "foreign.pub"], 7, "does not trust"),
        ([make_bundle(folder / "older.bundle", security_version=4)], 7, "security version"),
        ([folder / "text"], 7, "not a bundle"),
        ([folder / "none.bundle"], 4, "none.bundle"),
        ([folder], 1, str(folder)),
    ]
    for arguments, code, words in rows:
        refused(cli("flash", "emu:card0", *arguments), code, words)
    assert card.flash_digest() == before and card.running() == ("a", "5.0.0")
    assert audit(card.context) == []


def test_the_card_itself_refuses_what_this_machine_would_let_through(card: Card, cli: Cli) -> None:
    foreign = make_bundle(cli.folder / "foreign.bundle", secret=bundle.generate_key()).read_bytes()
    part = make_bundle(cli.folder / "part.bundle", part="another").read_bytes()
    with card.administer() as admin:
        with pytest.raises(speckv.PermissionDeniedError, match="lock"):
            admin.download_firmware("a", foreign)
        with pytest.raises(speckv.PermissionDeniedError, match="lock"):
            admin.activate_firmware("golden")
        admin.lock_firmware()
        admin.download_firmware("a", foreign)
        with pytest.raises(speckv.PermissionDeniedError, match="does not trust"):
            admin.commit_firmware("a", foreign)
        admin.download_firmware("b", part)
        with pytest.raises(speckv.InvalidError, match="another card"):
            admin.commit_firmware("b", part)
        with pytest.raises(speckv.BusyError):
            admin.activate_firmware("a", foreign)
        assert {slot.image: slot.state for slot in admin.slots()} == {
            "golden": "good",
            "a": "rejected",
            "b": "rejected",
        }
        assert admin.info().running == "golden"
        assert [error.text for error in admin.errors()][:1] == ["signed by a key that the card does not trust"]


def test_a_second_writer_is_told_who_the_first_is(card: Card, cli: Cli) -> None:
    before = card.flash_digest()
    with card.administer() as admin:
        admin.lock_firmware()
        for more in ([], ["--dry-run"]):
            refused(cli("flash", "emu:card0", RELEASED, *more), 6, f"process {os.getpid()} ")
    assert card.flash_digest() == before
    cli.ok("flash", "emu:card0", RELEASED)


def test_a_card_in_use_is_not_taken_from_its_clients(card: Card, cli: Cli) -> None:
    with card.context.open(card.name) as device:
        device.create_pool(speckv.PoolConfig("chat", 8 << 20))
    before = card.flash_digest()
    with held("chat", card.name, blocks=3) as holder:
        refused(cli("flash", "emu:card0", RELEASED), 6, f"process {holder.pid} ", "nothing was changed")
        refused(cli("flash", "emu:card0", RELEASED, "--dry-run"), 6, f"process {holder.pid} ")
        assert card.flash_digest() == before
    cli.ok("flash", "emu:card0", RELEASED)
    with card.context.open(card.name) as device:
        assert device.check_pool("chat", deep=True).clean and device.pool("chat").blocks == 3


@pytest.mark.root
def test_no_other_user_flashes_a_card(card: Card, cli: Cli, runtime_dir: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to be another user")
    runtime_dir.chmod(0o755)
    before = card.flash_digest()
    refused(as_nobody(cli, "flash", "emu:card0", str(RELEASED)), 5, "admin")
    assert card.flash_digest() == before


def test_what_is_no_card_is_not_flashed(context: speckv.Context, cli: Cli) -> None:
    folder = Path(context.runtime_dir, "emu", "door")
    folder.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "admin"))
        listening.listen()

        def answer() -> None:
            peer, _ = listening.accept()
            with peer:
                peer.sendall(b"220 mail.example ESMTP, and some more to make a header\r\n")
                peer.recv(4096)

        thread = threading.Thread(target=answer)
        thread.start()
        refused(cli("flash", "emu:door", RELEASED), 8, "not a card")
        thread.join()
    refused(cli("flash", "emu:none", RELEASED), 4, "emu start none")
    refused(cli("flash", "host:DRAM", RELEASED), 8, "host memory")
    refused(cli("flash", "/dev/speckv0", RELEASED), 8)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["a.bundle", "--rollback"],
        ["--golden", "--rollback"],
        ["--slot", "a", "--golden"],
        ["a.bundle", "--slot", "c"],
    ],
    ids=" ".join,
)
def test_what_cannot_be_meant_is_usage(arguments: list[str], cli: Cli) -> None:
    line = refused(cli("flash", "emu:card0", *arguments), 2)
    if len(arguments) == 2 and "--rollback" in arguments:
        assert "give only one of" in line
