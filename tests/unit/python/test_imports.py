# SPDX-License-Identifier: MIT
"""What administers needs no numpy, and does not pay for it; what moves blocks imports it by itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import speckv

ADMINISTER = """
import sys, speckv
with speckv.Context(sys.argv[1]) as context, context.open("host:DRAM", create=True) as device:
    device.create_pool(speckv.PoolConfig("kv", 8 << 20))
    assert device.pool("kv").blocks == 0
    device.stats("kv").quantile("get", 0.5), device.tenants("kv"), device.clients("kv"), device.events("kv")
    assert device.check_pool("kv").clean and not context.probe("host:DRAM").found == ""
    assert "numpy" not in sys.modules, "numpy was imported"
    with device.attach("kv") as pool:
        assert "numpy" in sys.modules and isinstance(pool, speckv.Pool)
"""


def test_administration_does_without_numpy(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", ADMINISTER, str(tmp_path)], check=True)


def test_creating_a_pool_from_the_command_line_does_without_numpy(runtime_dir: Path) -> None:
    code = "import sys; from speckvctl.app import main; sys.exit(main(sys.argv[1:]) or ('numpy' in sys.modules and 99))"
    words = ["pool", "create", "host:DRAM", "kv", "--size", "8M"]
    assert subprocess.run([sys.executable, "-c", code, *words], check=False).returncode == 0


def test_every_public_name_is_there_and_is_listed() -> None:
    listed = dir(speckv)
    for name in speckv.__all__:
        assert getattr(speckv, name) is not None
        assert name in listed
    with pytest.raises(AttributeError, match="nonsense"):
        getattr(speckv, "non" + "sense")


@pytest.mark.parametrize("name", ["Buffers", "Keys", "Memory", "Op", "Params", "Pool", "Statuses", "codec", "bundle"])
def test_a_name_can_be_the_first_that_is_imported(name: str) -> None:
    subprocess.run([sys.executable, "-c", f"from speckv import {name}; assert {name}"], check=True)
