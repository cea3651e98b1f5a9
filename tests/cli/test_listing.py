# SPDX-License-Identifier: MIT
"""Lists of several engines, some of which cannot be used."""

from __future__ import annotations

import os
from pathlib import Path

from tests.cli.conftest import Cli


def test_an_engine_that_cannot_be_opened_hides_no_other(chat: Cli) -> None:
    path = Path(chat.folder, "medium")
    chat.ok("pool", "create", f"host:{path}", "lost", "--size", "8MiB")
    os.truncate(path, 8192)
    devices = {device["name"]: device for device in chat.document("device", "list")["devices"]}
    assert devices["host:DRAM"]["state"] == "ready"
    assert devices[f"host:{path}"]["state"] == "truncated"
    assert f"host:{path} is truncated: {devices[f'host:{path}']['found']}" in chat.ok("device", "list").out.splitlines()
    listed = chat("pool", "list")
    assert listed.code == 0
    assert "chat" in listed.out and "lost" not in listed.out
    assert listed.line.startswith(f"speckvctl: warning: left out host:{path}: ")


def test_engines_in_memory_and_in_a_file_are_listed_together(chat: Cli) -> None:
    device = f"host:{chat.folder}/medium"
    chat.ok("pool", "create", device, "kept", "--size", "8MiB", "--block-bytes", "128KiB", "--eviction", "none")
    pools = {pool["name"]: pool for pool in chat.document("pool", "list")["pools"]}
    assert {name: pool["device"] for name, pool in pools.items()} == {"chat": "host:DRAM", "kept": device}
    assert (pools["kept"]["block_bytes"], pools["kept"]["eviction"]) == (131072, "none")
    assert chat.document("device", "show", device)["device"]["durability"] == "power"
    closed = chat.document("device", "close", device, "--yes")
    assert closed["pools_destroyed"] == ["kept"]
    assert not Path(chat.folder, "medium").exists()
