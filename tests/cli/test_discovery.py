# SPDX-License-Identifier: MIT
"""Hardware as `device list`, `doctor` and `events --follow` show it, on recorded machines."""

from __future__ import annotations

import ctypes.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import SPECKVCTL, Cli, environment, validate

TREES = Path(__file__).resolve().parents[1] / "unit" / "discovery"
CARD = "/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0"


@pytest.fixture(autouse=True)
def umockdev() -> None:
    if shutil.which("umockdev-run") and ctypes.util.find_library("umockdev"):
        return
    if os.environ.get("CI") == "true":
        pytest.fail("umockdev is missing: apt install umockdev")
    pytest.skip("umockdev is not installed: apt install umockdev")


def on_machine(cli: Cli, tree: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    recorded = (TREES / f"{tree}.umockdev").read_text(encoding="utf-8").splitlines(keepends=True)
    plain = cli.folder / "tree.umockdev"
    plain.write_text("".join(line for line in recorded if not line.startswith("#")).lstrip(), encoding="utf-8")
    return subprocess.run(
        ["umockdev-run", "--device", str(plain), "--", str(SPECKVCTL), *arguments],
        cwd=cli.folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def hardware(cli: Cli, tree: str) -> list[dict[str, Any]]:
    done = on_machine(cli, tree, "device", "list", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    validate(document)
    items: list[dict[str, Any]] = document["hardware"]
    return items


def test_cards_are_listed_with_what_keeps_one_from_being_used(cli: Cli) -> None:
    cards = {item["name"]: item for item in hardware(cli, "two-cards")}
    ready = cards["/dev/speckv0"]
    assert (ready["kind"], ready["driver"], ready["note"]) == ("card", "speckv", None)
    assert {item["kind"] for item in cards.values()} == {"card", "factory-card"}
    assert all(item["note"] for item in cards.values() if item["kind"] == "factory-card")


def test_memory_is_listed_under_the_name_that_pool_create_takes(cli: Cli) -> None:
    found = hardware(cli, "cxl-expanders") + hardware(cli, "memory-nodes")
    usable = [item for item in found if item["note"] is None]
    assert usable
    for item in usable:
        assert item["name"].startswith(("host:/dev/dax", "host:numa"))
        assert item["capacity_bytes"] > 0


def test_the_table_names_every_piece_and_what_to_type_next(cli: Cli) -> None:
    items = hardware(cli, "cxl-expanders")
    text = on_machine(cli, "cxl-expanders", "device", "list").stdout
    for item in items:
        assert any(line.startswith(item["name"]) for line in text.splitlines())
        assert item["note"] is None or item["note"] in text


def test_a_machine_without_any_says_so(cli: Cli) -> None:
    assert hardware(cli, "nothing") == []
    assert "No hardware found" in on_machine(cli, "nothing", "device", "list").stdout


def test_doctor_warns_of_hardware_that_cannot_be_used_yet(cli: Cli) -> None:
    done = on_machine(cli, "two-cards", "doctor", "--json")
    checks = [check for check in json.loads(done.stdout)["checks"] if check["name"] == "discovery"]
    assert [check["status"] for check in checks] == ["warning"]
    assert checks[0]["next"]


HOT_PLUG = """
import json, subprocess, sys
sys.path.insert(0, sys.argv[1])
from machine import Testbed
bed = Testbed()
with subprocess.Popen([sys.argv[2], "events", "--follow", "--json"], stdout=subprocess.PIPE, text=True) as follower:
    def heard():
        return json.loads(follower.stdout.readline())
    documents = [heard()]  # of the logs: from now on it listens
    bed.load(sys.argv[1] + "/two-cards.umockdev", [sys.argv[3], sys.argv[3] + "/speckv/speckv0"])
    documents.append(heard())
    bed.remove(sys.argv[3] + "/speckv/speckv0")
    bed.remove(sys.argv[3])
    while documents[-1]["events"][-1]["kind"] != "hotplug_remove":
        documents.append(heard())
    follower.terminate()
json.dump(documents, sys.stdout)
"""


def test_follow_tells_of_a_card_that_comes_and_goes(cli: Cli) -> None:
    cli.ok("pool", "create", "host:DRAM", "chat", "--size", "8MiB")
    done = subprocess.run(
        ["umockdev-wrapper", sys.executable, "-c", HOT_PLUG, str(TREES), str(SPECKVCTL), CARD],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    documents = json.loads(done.stdout)
    for document in documents:
        validate(document)
    events = [event for document in documents for event in document["events"]]
    plugged = [event for event in events if event["kind"].startswith("hotplug_")]
    assert plugged[0]["kind"] == "hotplug_add"
    assert (plugged[-1]["kind"], plugged[-1]["severity"]) == ("hotplug_remove", "warning")
    assert all(event["sequence"] is None and event["text"] for event in plugged)
    assert any(event["device"] == "/dev/speckv0" for event in plugged)
