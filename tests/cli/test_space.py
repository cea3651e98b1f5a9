# SPDX-License-Identifier: MIT
"""Where there is no room (memory, inodes, a limit on files, a read-only medium): refused in words, nothing left."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import SPECKVCTL
from tests.conftest import EMULATOR

pytestmark = pytest.mark.skipif(EMULATOR is not None, reason="of host memory: a card has its own")

#: In a mount namespace of its own: mounts a tmpfs, runs the commands; what each said, and the files there then.
DRIVER = """
import json, os, subprocess, sys
place, options, speckvctl, steps = json.loads(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", options + ",mode=755", "none", place], check=True)
os.environ["SPECKV_RUNTIME_DIR"] = place + "/run"
told = []
for step in steps:
    if step[0] == "remount":
        subprocess.run(["mount", "-o", "remount," + step[1], place], check=True)
        continue
    done = subprocess.run([speckvctl, *step], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240)
    files = sorted(os.path.relpath(os.path.join(at, name), place) for at, _, names in os.walk(place) for name in names)
    told.append([done.returncode, done.stdout, done.stderr, files])
print(json.dumps(told))
"""

needs_mounts = pytest.mark.skipif(
    os.geteuid() != 0
    or subprocess.run(
        ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], check=False, capture_output=True
    ).returncode
    != 0,
    reason="needs root, to mount file systems",
)


class Said:
    def __init__(self, code: int, out: str, err: str, files: list[str]) -> None:
        self.code, self.out, self.err, self.files = code, out, err, files


def on_tmpfs(place: Path, options: str, *steps: list[str]) -> list[Said]:
    argument = json.dumps([str(place), options, str(SPECKVCTL), steps])
    done = subprocess.run(
        ["unshare", "-m", sys.executable, "-P", "-c", DRIVER, argument],
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return [Said(*told) for told in json.loads(done.stdout)]


CREATE = ["pool", "create", "host:DRAM"]
SMALL = [*CREATE, "first", "--size", "4M", "--max-size", "64M"]


@needs_mounts
@pytest.mark.root
def test_a_pool_larger_than_its_file_system_is_refused_with_path_and_both_numbers(tmp_path: Path) -> None:
    large = [*CREATE, "large", "--size", "64M"]
    for said in on_tmpfs(tmp_path, "size=20M", [*large, "--dry-run"], large):
        assert said.code == 1
        assert f"({tmp_path}/run/DRAM.pools) has 20 MiB free (20971520 bytes)" in said.err
        assert "needs 64.9 MiB" in said.err
        assert said.files == []
    made, grown, other = on_tmpfs(
        tmp_path, "size=20M", SMALL, ["pool", "resize", "host:DRAM", "first", "--size", "32M"], large
    )
    assert made.code == 0
    for said in (grown, other):
        assert said.code == 1
        assert f"{tmp_path}/run/DRAM.pools" in said.err
        assert " MiB free (" in said.err
        assert said.files == made.files
    assert "needs 28 MiB more" in grown.err


@needs_mounts
@pytest.mark.root
def test_a_file_system_without_inodes_is_named_as_such_and_keeps_nothing(tmp_path: Path) -> None:
    enough = 0
    for inodes in range(1, 16):
        dry, said = on_tmpfs(tmp_path, f"size=100M,nr_inodes={inodes}", [*SMALL, "--dry-run"], SMALL)
        assert dry.code == said.code, inodes
        if said.code == 0:
            enough = inodes
            break
        assert (said.code, said.files) == (1, [])
        assert "inodes" in said.err and f"{tmp_path}/run/DRAM" in said.err, said.err
        assert f"{inodes - 1} left" in said.err, said.err
    assert enough
    # room for the first, and not for a second
    first, second, listed = on_tmpfs(
        tmp_path,
        f"size=100M,nr_inodes={enough}",
        SMALL,
        [*CREATE, "second", "--size", "4M"],
        ["pool", "list", "host:DRAM", "--json"],
    )
    assert (first.code, second.code) == (0, 1)
    assert "inodes" in second.err
    assert second.files == first.files
    assert [pool["name"] for pool in json.loads(listed.out)["pools"]] == ["first"]


@needs_mounts
@pytest.mark.root
def test_a_read_only_file_system_is_named_as_such(tmp_path: Path) -> None:
    set_quota = ["pool", "set", "host:DRAM", "first", "--quota", "2M"]
    changes = [
        [*CREATE, "second", "--size", "4M"],
        ["pool", "resize", "host:DRAM", "first", "--size", "8M"],
        ["pool", "resize", "host:DRAM", "first", "--size", "8M", "--dry-run"],
        set_quota,
        [*set_quota, "--dry-run"],
        ["pool", "destroy", "host:DRAM", "first", "--yes"],
    ]
    made, *refused, listed = on_tmpfs(
        tmp_path, "size=100M", SMALL, ["remount", "ro"], *changes, ["pool", "list", "host:DRAM", "--json"]
    )
    assert made.code == listed.code == 0
    assert json.loads(listed.out)["pools"][0]["state"] == "active"
    refused += on_tmpfs(tmp_path, "size=100M,ro", SMALL, [*SMALL, "--dry-run"])
    refused += on_tmpfs(tmp_path, "size=100M,ro", ["pool", "create", f"host:{tmp_path}/file", "p", "--size", "4M"])
    for said in refused:
        assert said.code == 5, said.err
        assert "read-only file system" in said.err and str(tmp_path) in said.err, said.err
        assert "belongs to uid" not in said.err


#: A program of the C library, whose SIGXFSZ ends it as it does any program in C: the interpreter ignores it.
LIMITED = """
import json, resource, signal, sys, speckv
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
limit, sizes = json.loads(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    with speckv.Context() as ctx, ctx.open("host:DRAM", create=True) as dev:
        dev.create_pool(speckv.PoolConfig(name="pool", capacity_bytes=sizes[0], max_bytes=sizes[1]))
        dev.resize_pool("pool", sizes[2])
    print(json.dumps([0, ""]))
except speckv.SpeckvError as error:
    print(json.dumps([error.errno, str(error)]))
"""


def limited(limit: int, *sizes: int) -> Any:
    argument = json.dumps([limit, sizes])
    done = subprocess.run(
        [sys.executable, "-P", "-c", LIMITED, argument], check=False, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, signal.Signals(-done.returncode) if done.returncode < 0 else done.stderr
    return json.loads(done.stdout)


def test_a_limit_on_files_is_an_error_with_both_numbers_and_no_signal(runtime_dir: Path) -> None:
    import errno

    mib = 1 << 20
    number, text = limited(10 << 10, 4 * mib, 4 * mib, 8 * mib)
    assert number in (errno.EFBIG, -errno.EFBIG)
    assert (
        f"{runtime_dir}/DRAM needs a file of 100 KiB" in text
        and "this process is 10 KiB" in text
        and "ulimit -f" in text
    )
    assert not list(runtime_dir.rglob("*"))
    number, text = limited(8 * mib, 4 * mib, 64 * mib, 8 * mib)
    assert number in (errno.EFBIG, -errno.EFBIG)
    assert f"{runtime_dir}/DRAM.pools/pool needs a file of 6" in text and "this process is 8 MiB" in text
    assert [path.name for path in (runtime_dir / "DRAM.pools").iterdir()] == [".lock"]
    # what is within the limit is made and grown
    assert limited(80 * mib, 4 * mib, 64 * mib, 32 * mib) == [0, ""]


def test_a_command_under_a_limit_on_files_leaves_nothing(runtime_dir: Path) -> None:
    for limit, text in ((10 << 10, "this process is 10 KiB"), (2 << 20, "or give a smaller --max-size")):
        for extra in ([], ["--dry-run"]):
            done = subprocess.run(
                [str(SPECKVCTL), *SMALL, *extra],
                check=False,
                capture_output=True,
                text=True,
                timeout=240,
                preexec_fn=partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit)),
            )
            assert done.returncode == 1
            assert text in done.stderr, done.stderr
            assert not list(runtime_dir.rglob("*"))
