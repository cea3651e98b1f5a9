# SPDX-License-Identifier: MIT
"""A device's table that was removed while files of its pools remain: they are named, kept, and taken over again."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import speckv

from tests.cli.conftest import Cli
from tests.conftest import EMULATOR

pytestmark = pytest.mark.skipif(EMULATOR is not None, reason="of host memory: a card has its own list of pools")


@pytest.fixture(params=["memory", "file"])
def device(request: pytest.FixtureRequest, runtime_dir: Path, tmp_path: Path) -> tuple[str, Path]:
    return ("host:DRAM", runtime_dir / "DRAM") if request.param == "memory" else (f"host:{tmp_path}/m", tmp_path / "m")


def filled(cli: Cli, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Two pools; one holds blocks, one has settings of its own."""
    cli.ok("pool", "create", name, "blocks", "--size", "4M")
    cli.ok("pool", "create", name, "shared", "--size", "6M", "--mode", "0660", "--max-size", "8M", "--codec", "q4x")
    keys = np.random.default_rng(1).integers(0, 256, (8, 32), np.uint8)
    with speckv.Context() as ctx, ctx.open(name) as dev, dev.attach("blocks") as pool:
        blocks = np.random.default_rng(2).integers(0, 120, (8, pool.block_bytes), np.uint8)
        assert not pool.put(keys, blocks).any()
    return keys, blocks


def holds(name: str, keys: np.ndarray, blocks: np.ndarray) -> bool:
    with speckv.Context() as ctx, ctx.open(name) as dev, dev.attach("blocks") as pool:
        out = np.zeros_like(blocks)
        return not pool.get(keys, out).any() and bool((out == blocks).all())


def described(cli: Cli, name: str) -> dict[str, object]:
    pools = cli.document("pool", "list", name)["pools"]
    return {pool["name"]: {key: value for key, value in pool.items() if key != "clients"} for pool in pools}


def test_creating_another_pool_takes_the_left_ones_over_as_they_were(cli: Cli, device: tuple[str, Path]) -> None:
    name, table = device
    keys, blocks = filled(cli, name)
    before = described(cli, name)
    table.unlink()
    done = cli.ok("pool", "create", name, "another", "--size", "2M")
    assert "taken over" in done.err and "blocks, shared" in done.err
    after = described(cli, name)
    assert {key: after[key] for key in before} == before
    assert holds(name, keys, blocks)
    cli.ok("pool", "destroy", name, "shared", "--yes")
    assert sorted(described(cli, name)) == ["another", "blocks"]
    # those made after the table was lost have generations of their own
    cli.ok("device", "close", name, "--yes")
    assert not table.exists() and not Path(f"{table}.pools").exists()


def test_clients_of_a_pool_that_is_taken_over_go_on_and_keep_it(cli: Cli, device: tuple[str, Path]) -> None:
    name, table = device
    keys, blocks = filled(cli, name)
    with speckv.Context() as ctx, ctx.open(name) as dev, dev.attach("blocks") as pool:
        table.unlink()
        cli.ok("pool", "create", name, "another", "--size", "2M")
        assert not pool.put(keys[:1] + 1, blocks[:1]).any()
        assert cli("pool", "destroy", name, "blocks", "--yes").code == 6
        with speckv.Context() as other, other.open(name) as again, again.attach("blocks") as same:
            assert same.lookup(keys[:1] + 1).all()
    assert holds(name, keys, blocks)


def test_the_lost_table_is_named_with_the_command_that_repairs_it(cli: Cli, device: tuple[str, Path]) -> None:
    name, table = device
    keys, blocks = filled(cli, name)
    table.unlink()
    files = sorted(os.listdir(f"{table}.pools"))
    command = f"speckvctl pool check {name} blocks --repair"
    checks = cli("doctor", "--json").document["checks"]
    (found,) = [check for check in checks if "table is gone" in check["detail"]]
    assert (found["status"], found["next"]) == ("failed", command)
    assert "blocks, shared" in found["detail"]
    for arguments in (["pool", "list", name], ["pool", "check", name, "blocks"], ["pool", "show", name, "blocks"]):
        refused = cli(*arguments)
        assert refused.code == 4 and "blocks, shared" in refused.err and command in refused.err
    same = ["pool", "create", name, "blocks", "--size", "8M"]
    for arguments in ([*same, "--dry-run"], same, [*same, "--yes"]):
        refused = cli(*arguments)
        assert refused.code == 1 and command in refused.err
    assert not table.exists() and sorted(os.listdir(f"{table}.pools")) == files
    cli.line(command)
    assert holds(name, keys, blocks)
    assert sorted(described(cli, name)) == ["blocks", "shared"]
    assert all("table is gone" not in check["detail"] for check in cli("doctor", "--json").document["checks"])


def test_what_interrupted_creations_left_is_named_and_goes_with_the_next(cli: Cli, device: tuple[str, Path]) -> None:
    name, table = device
    cli.ok("pool", "create", name, "chat", "--size", "4M")
    left = [Path(f"{table}.pools/.{'0a' * 16}.{what}") for what in ("lock", "new")]
    for file in left:
        file.touch(mode=0o600)
    named = ", ".join(file.name for file in left)
    (found,) = (check for check in cli("doctor", "--json").document["checks"] if named in check["detail"])
    assert cli.line(found["next"]).code == 0
    assert not any(file.exists() for file in left)
    checks = cli("doctor", "--json").document["checks"]
    assert not any("of interrupted creations" in check["detail"] for check in checks)


def test_a_file_that_is_no_whole_pool_is_kept_and_named(cli: Cli, device: tuple[str, Path]) -> None:
    name, table = device
    filled(cli, name)
    cut, damaged = Path(f"{table}.pools/blocks"), Path(f"{table}.pools/shared")
    os.truncate(cut, 65536)
    with damaged.open("r+b") as file:
        file.seek(64)
        file.write(b"\xff" * 8)
    kept = cut.read_bytes(), damaged.stat().st_ino
    table.unlink()
    refused = cli("pool", "check", name, "blocks", "--repair")
    assert refused.code == 7 and f"mv {cut} /var/tmp/" in refused.err
    assert not table.exists()
    done = cli.ok("pool", "create", name, "another", "--size", "2M")
    assert "not pools of" in done.err and "blocks, shared" in done.err
    refused = cli("pool", "create", name, "blocks", "--size", "2M", "--yes")
    assert refused.code == 1 and str(cut) in refused.err
    details = [check["detail"] for check in cli("doctor", "--json").document["checks"] if check["status"] == "failed"]
    assert any(f"{cut} is not a pool" in text for text in details) and any(
        f"{damaged} is not" in text for text in details
    )
    assert (cut.read_bytes(), damaged.stat().st_ino) == kept
    assert sorted(described(cli, name)) == ["another"]
