# SPDX-License-Identifier: MIT
"""Cards as devices: what is shown, set, reset, tested and broken, and their prefetchers and events."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import pytest
import speckv

from speckvctl.cards import access, settings
from speckvctl.errors import UsageError
from tests.cli.cards import RELEASED, SLOT_A, Card
from tests.cli.conftest import Cli, held, validate, write_model
from tests.cli.test_errors import refused


@pytest.fixture
def context(runtime_dir: Path) -> Iterator[speckv.Context]:
    with speckv.Context() as ctx:
        yield ctx


@pytest.fixture
def card(context: speckv.Context) -> Card:
    return Card(context)


# ---- looking ---------------------------------------------------------------------------------------------------------


def test_a_card_is_shown_as_it_says_itself(card: Card, cli: Cli) -> None:
    shown = cli.document("device", "show", "emu:card0")
    device, facts = shown["device"], shown["card"]
    with card.administer() as admin:
        info = admin.info()
    assert (device["kind"], device["state"], device["uuid"]) == ("card", "ready", info.uuid)
    assert (device["capacity_bytes"], device["free_bytes"]) == (info.memory_bytes, info.memory_free_bytes)
    assert (facts["part"], facts["serial"], facts["running_image"]) == (info.part, "card0", "golden")
    assert facts["key_ids"] == [key.hex() for key in info.key_ids]
    assert (facts["healthy"], facts["temperature_millicelsius"], facts["prefetcher_digest"]) == (True, 45000, None)
    assert [slot["image"] for slot in facts["slots"]] == ["golden", "a", "b"]
    text = cli.ok("device", "show", "emu:card0").out
    assert info.uuid in text and "45 C" in text and info.part in text


def test_the_link_to_a_card_and_the_commands_under_way_are_shown(card: Card, cli: Cli) -> None:
    cli.ok("pool", "create", "emu:card0", "busy", "--size", "16MiB")
    facts = cli.document("device", "show", "emu:card0")["card"]
    assert facts["link"] == {
        "megatransfers_per_second": 2500,
        "lanes": 4,
        "megatransfers_per_second_most": 2500,
        "lanes_most": 4,
    }
    assert facts["outstanding_commands"] == 0
    assert "4x2.5GT/s" in cli.ok("device", "show", "emu:card0").out

    speckv.card.inject(card.context, card.name, "stuck", count=1000)
    with writer("emu:card0", "busy") as client:  # tries again where a command does not complete
        assert any(shown_under_way(cli) == (1, 1) for _ in range(30)), "never shown while it waits"
        assert client.poll() is None
        speckv.card.inject(card.context, card.name, "stuck", count=0)
        speckv.card.inject(card.context, card.name, "unstick")
    assert shown_under_way(cli) == (0, 0)


def shown_under_way(cli: Cli) -> tuple[int, int]:
    shown = cli.document("device", "show", "emu:card0")["card"]["outstanding_commands"]
    (device,) = cli.document("top", "--once", "--device", "emu:card0")["devices"]
    return shown, device["queue_depth"]


def test_of_several_settings_all_are_set_or_none(card: Card) -> None:
    class Picky:
        """An administrator of a card that refuses one setting more than this one."""

        def __init__(self, admin: speckv.card.Admin) -> None:
            self.admin = admin

        def __getattr__(self, name: str) -> Any:
            return getattr(self.admin, name)

        def set(self, name: str, value: int, *, save: bool = False) -> None:
            if name == "scrub_seconds":
                raise speckv.InvalidError(errno.EINVAL, f"{name} cannot be {value}")
            self.admin.set(name, value, save=save)

    with card.administer() as admin:
        before = access.settings(admin)
        wanted = {"prefetch_depth": 7, "poll_microseconds": 9, "scrub_seconds": 5, "recall_timeout_ms": 77}
        with pytest.raises(UsageError, match=r"refuses scrub every 5 s; nothing was changed"):
            settings.change(cast("speckv.card.Admin", Picky(admin)), wanted, save=False, dry_run=False)
        assert access.settings(admin) == before


WRITER = """
import sys, numpy, speckv
with speckv.Context() as c, c.open(sys.argv[1]) as device, device.attach(sys.argv[2]) as pool:
    blocks = numpy.zeros((1, pool.block_bytes), dtype=numpy.uint8)
    while pool.put([bytes(32)], blocks).any():
        pass
"""


@contextmanager
def writer(device: str, pool: str) -> Iterator[subprocess.Popen[str]]:
    """A client that puts one block, until it is put."""
    with subprocess.Popen([sys.executable, "-c", WRITER, device, pool], text=True) as process:
        try:
            yield process
            assert process.wait(60) == 0
        finally:
            process.kill()


def test_devices_that_run_wait_and_are_as_delivered_are_listed(context: speckv.Context, cli: Cli) -> None:
    card = Card(context, factory=True)
    cli.ok("pool", "create", "host:DRAM", "chat", "--size", "8MiB")
    states = {device["name"]: device["state"] for device in cli.document("device", "list")["devices"]}
    assert states == {"host:DRAM": "ready", "emu:card0": "factory"}
    card.kill()
    states = {device["name"]: device["state"] for device in cli.document("device", "list")["devices"]}
    assert states == {"host:DRAM": "ready", "emu:card0": "offline"}
    shown = cli.document("device", "show", "emu:card0")
    assert (shown["device"]["state"], shown["card"]) == ("offline", None)
    assert "emu start card0" in cli.ok("device", "list").out
    refused(cli("device", "show", "emu:none"), 4, "emu start none")
    refused(cli("device", "close", "emu:card0", "--yes"), 8, "emu stop card0")


def test_heat_is_felt_shown_and_told(card: Card, cli: Cli) -> None:
    cli.ok("device", "inject", "emu:card0", "temperature", "--value", "90000")
    facts = cli.document("device", "show", "emu:card0")["card"]
    assert (facts["healthy"], facts["conditions"], facts["temperature_millicelsius"]) == (False, ["throttled"], 90000)
    speckv.card.inject(card.context, card.name, "temperature", value=40000)
    rows = [row for row in cli.document("events", "emu:card0")["events"] if row["pool"] is None]
    assert [row["kind"] for row in rows] == ["booted", "throttled", "cooled"]
    assert [row["severity"] for row in rows] == ["info", "warning", "info"]
    assert [row["sequence"] for row in rows] == [1, 2, 3]
    assert {row["device"] for row in cli.document("events")["events"]} == {"emu:card0"}
    speckv.card.inject(card.context, card.name, "temperature", value=200000)
    shown = cli.document("device", "show", "emu:card0")
    assert shown["device"]["state"] == "failed" and "too hot, 200 C" in shown["device"]["found"]
    assert "fatal" in shown["card"]["conditions"] and shown["card"]["temperature_millicelsius"] == 200000
    refused(cli("device", "selftest", "emu:card0"), 1, "too hot")


def test_a_card_that_stopped_says_why_and_what_helps(card: Card, cli: Cli) -> None:
    cli.ok("pool", "create", "emu:card0", "chat", "--size", "8MiB")
    cli.ok("device", "inject", "emu:card0", "temperature", "--value", "110000")
    listed = cli.document("device", "list")["devices"]
    assert [device["state"] for device in listed if device["name"] == "emu:card0"] == ["failed"]
    why = "too hot, 110 C (it stops at 105 C)"
    assert why in cli.document("events", "emu:card0")["events"][-1]["text"]
    assert why in cli("doctor").out
    refused(cli("pool", "create", "emu:card0", "more", "--size", "8MiB"), 1, "too hot", "device reset emu:card0")
    refused(cli("device", "reset", "emu:card0"), 1, "too hot", "let it cool")
    with card.context.open(card.name) as device, device.attach("chat") as pool:
        block = bytearray(pool.block_bytes)
        assert pool.put([bytes(32)], [block])[0] == -errno.ENODEV  # at once, not after a wait for an answer
        cli.ok("device", "inject", "emu:card0", "temperature", "--value", "40000")
        cli.ok("device", "reset", "emu:card0")
        assert pool.put([bytes(32)], [block])[0] == 0
    cli.ok("device", "inject", "emu:card0", "fatal")
    assert "temperature reached the limit" in cli.document("device", "show", "emu:card0")["device"]["found"]
    cli.ok("device", "reset", "emu:card0")
    assert cli.document("device", "show", "emu:card0")["device"]["state"] == "ready"
    refused(cli("device", "set", "emu:card0", "--throttle-celsius", "1000"), 2, "--throttle-celsius", "105")


def test_a_client_that_asks_until_the_reset_is_served_right_after_it(card: Card, cli: Cli) -> None:
    from speckvctl.cards import flashing

    cli.ok("pool", "create", "emu:card0", "chat", "--size", "8MiB")
    cli.ok("device", "inject", "emu:card0", "temperature", "--value", "110000")
    cli.ok("device", "inject", "emu:card0", "temperature", "--value", "40000")
    with card.context.open(card.name) as device, device.attach("chat") as pool:
        block = bytearray(pool.block_bytes)
        with card.administer() as admin:
            last = admin.events()[-1].sequence
            assert pool.put([bytes(32)], [block])[0] == -errno.ENODEV
            admin.reset("card")
        flashing.wait_for_boot(card.context, card.name, last)
        assert pool.put([bytes(32)], [block])[0] == 0


def test_events_of_a_card_are_followed_through_its_death(card: Card, cli: Cli) -> None:
    follower = cli.start("events", "emu:card0", "--follow", "--json")
    assert follower.stdout is not None
    first = json.loads(follower.stdout.readline())
    validate(first)
    assert [event["kind"] for event in first["events"]] == ["booted"]
    card.kill()
    card.again()
    later = json.loads(follower.stdout.readline())["events"]
    assert [(event["kind"], event["sequence"]) for event in later] == [("booted", 2)]
    follower.send_signal(signal.SIGINT)
    follower.communicate(timeout=60)
    assert follower.returncode == 130


# ---- changing --------------------------------------------------------------------------------------------------------


def test_settings_are_changed_and_only_saved_ones_kept(card: Card, cli: Cli) -> None:
    done = cli.document("device", "set", "emu:card0", "--prefetch-depth", "4", "--prefetch-rate", "2GB")
    assert [(one["setting"], one["before"], one["after"]) for one in done["changes"]] == [
        ("prefetch depth", "adaptive", "4"),
        ("prefetch rate", "no limit", "1.86 GiB/s"),
    ]
    assert done["settings"]["prefetch_depth"] == 4
    refused(cli("device", "set", "emu:card0", "--prefetch-depth", "4"), 3, "as requested")
    for extra in ([], ["--dry-run"]):  # one of two values cannot be: neither is set
        both = ["device", "set", "emu:card0", "--prefetch-depth", "5", "--prefetch-rate", "8EiB", *extra]
        refused(cli(*both), 2, "--prefetch-rate", "8EiB")
    dry = cli.document("device", "set", "emu:card0", "--throttle-celsius", "70", "--dry-run")
    assert dry["settings"]["throttle_millicelsius"] == 70000
    assert cli.document("device", "set", "emu:card0", "--throttle-celsius", "80", "--save")["saved"] is True
    refused(cli("device", "set", "emu:card0", "--throttle-celsius", "200"), 2)
    refused(cli("device", "set", "emu:card0", "--prefetch-depth", "17"), 2)
    refused(cli("device", "set", "host:DRAM", "--prefetch-depth", "4"), 8, "host memory")
    card.kill(signal.SIGKILL)
    card.again()
    with card.administer() as admin:
        assert (admin.setting("throttle_millicelsius"), admin.setting("prefetch_depth")) == (80000, 0)


def test_a_reset_keeps_pools_and_needs_clients_to_end(card: Card, cli: Cli) -> None:
    with card.context.open(card.name) as device:
        device.create_pool(speckv.PoolConfig("chat", 8 << 20))
    with held("chat", card.name, blocks=3) as holder:
        refused(cli("device", "reset", "emu:card0"), 6, f"process {holder.pid} ", "nothing was changed")
        assert cli.document("device", "reset", "emu:card0", "--counters")["functions_lost"] == 0
        with card.administer() as admin:
            assert not any(admin.stats().counters.values())
        forced = cli.document("device", "reset", "emu:card0", "--force")
        assert (forced["what"], forced["running_image"]) == ("card", "golden") and forced["functions_lost"] >= 1
    with card.administer() as admin:
        assert [event.kind for event in admin.events()][-2:] == ["reset", "booted"]
    with card.context.open(card.name) as device:
        assert device.check_pool("chat", deep=True).clean and device.pool("chat").blocks == 3
    refused(cli("device", "reset", "emu:card0", "--engine", "--counters"), 2)
    refused(cli("device", "reset", "host:DRAM"), 8)


def test_faults_are_named_and_only_emulated_cards_have_them(card: Card, cli: Cli) -> None:
    with card.context.open(card.name) as device:
        device.create_pool(speckv.PoolConfig("chat", 8 << 20))
    refused(cli("device", "inject", "emu:card0", "gremlins"), 2, "torn-program")
    refused(cli("device", "inject", "host:DRAM", "slow"), 8)
    refused(cli("device", "inject", "emu:card0", "poison", "--pool", "none"), 4, "none")
    refused(cli("device", "inject", "emu:card0", "fatal", "--value", "77"), 2)
    cli.ok("device", "inject", "emu:card0", "poison", "--pool", "chat", "--value", "65536")
    with card.administer() as admin:
        assert (admin.health().poisoned_pages, admin.health().conditions) == (1, ("memory",))
    speckv.card.inject(card.context, card.name, "poison", pool=1, value=65536, count=0)
    with card.administer() as admin:
        assert admin.health().poisoned_pages == 0
    help_text = cli.ok("device", "inject", "--help").out
    for fault in speckv.card.FAULTS:
        assert fault in help_text


# ---- testing ---------------------------------------------------------------------------------------------------------


def test_a_selftest_finds_a_slot_that_has_rotted(card: Card, cli: Cli) -> None:
    cli.ok("flash", "emu:card0", RELEASED)
    cli.ok("flash", "emu:card0", "--golden")
    steps = cli.document("device", "selftest", "emu:card0")["steps"]
    assert [step["name"] for step in steps] == ["memory", "dma", "codec", "translation", "predictor", "flash"]
    assert all(step["passed"] for step in steps)
    with (card.folder / "flash").open("r+b") as file:
        file.seek(SLOT_A + 5000)
        byte = file.read(1)[0]
        file.seek(SLOT_A + 5000)
        file.write(bytes([byte ^ 0x10]))
    done = cli("device", "selftest", "emu:card0", "--json")
    assert done.code == 7 and done.document["passed"] is False
    assert [step["name"] for step in done.document["steps"] if not step["passed"]] == ["flash"]


# ---- prefetchers -----------------------------------------------------------------------------------------------------


def test_a_prefetcher_is_loaded_told_kept_and_unloaded(card: Card, cli: Cli) -> None:
    write_model(cli.folder)
    digest = sha256((cli.folder / "model.safetensors").read_bytes()).hexdigest()
    refused(cli("prefetcher", "unload", "emu:card0"), 3, "no prefetcher")
    done = cli.document("prefetcher", "load", "emu:card0", "model.safetensors")
    assert (done["digest"], done["replaced_digest"]) == (digest, None)
    refused(cli("prefetcher", "load", "emu:card0", "model.safetensors"), 3, "loaded")
    card.kill()
    card.again()
    assert cli.document("device", "show", "emu:card0")["card"]["prefetcher_digest"] == digest
    assert cli.document("prefetcher", "unload", "emu:card0")["digest"] == digest
    with card.administer() as admin:
        assert admin.info().model_digest is None


def test_what_is_no_prefetcher_or_has_no_place_is_not_loaded(card: Card, cli: Cli) -> None:
    write_model(cli.folder)
    data = (cli.folder / "model.safetensors").read_bytes()
    (cli.folder / "shape.safetensors").write_bytes(data.replace(b'"shape":[22,128]', b'"shape":[128,22]', 1))
    (cli.folder / "cut.safetensors").write_bytes(data[:-9])
    refused(cli("prefetcher", "load", "emu:card0", "shape.safetensors"), 8, "was expected")
    refused(cli("prefetcher", "load", "emu:card0", "cut.safetensors"), 7)
    refused(cli("prefetcher", "load", "emu:card0", "none.safetensors"), 4)
    refused(cli("prefetcher", "load", "host:DRAM", "model.safetensors"), 8)
    with card.administer() as admin:
        with pytest.raises(speckv.DamagedError):
            admin.load_model(b"not safetensors, but long enough to be looked at")
        with pytest.raises(speckv.InvalidError):
            admin.load_model(b"")
        assert admin.info().model_digest is None
        assert [event.kind for event in admin.events()] == ["booted"]
