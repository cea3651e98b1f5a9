# SPDX-License-Identifier: MIT
"""Replay from end to end on host memory: what it counts and verifies, and how it ends when something goes wrong."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import speckv

from speckvctl.replay import ReplayConfig, ReplayProgress, ReplayResult, TraceError, execute, plan, run
from speckvctl.replay.client import Client, Work, _serve_chunk
from speckvctl.replay.payload import Contents
from speckvctl.replay.sample import KV, TRACE
from tests.conftest import MEMORY, stored

CHAIN = [[0, 1, 2], [0, 1, 3, 4], [0, 1, 2], [9]]


def config(trace: Path, **settings: Any) -> ReplayConfig:
    return dataclasses.replace(ReplayConfig(trace, MEMORY, "kv"), **settings)


def content_of(trace: Path, block: int, **settings: Any) -> bytes:
    """The raw bytes that replay puts for a block."""
    setup = plan(config(trace, **settings)).setup
    out = np.empty(setup.geometry.block_bytes, np.uint8)
    Contents(setup.contents, setup.geometry, setup.codec, setup.scope).fill(b"\0%d" % block, out)
    return out.tobytes()


def test_a_replay_reads_what_is_there_and_puts_the_rest(device: speckv.Device, write_trace: Any) -> None:
    trace = write_trace(*CHAIN)
    result = run(config(trace))
    assert (result.requests, result.requests_total) == (4, 4)
    assert (result.blocks_read, result.blocks_written) == (5, 6)
    assert result.hit_share == 5 / 11
    stats = device.stats("kv")
    assert (stats.counters["hits"], stats.counters["wanted"]) == (5, 11)  # the same share, of the pool
    assert sum(stats.histogram("lookup")) == 4
    assert (result.verified_blocks, result.mismatches, result.errors) == (5, 0, 0)
    assert result.verified and not result.interrupted
    assert (result.bytes_raw, result.bytes_stored) == (6 * 65536, device.pool("kv").stored_bytes)
    assert result.ratio == result.bytes_raw / result.bytes_stored
    assert 0 < (result.get_p50_ns or 0) <= (result.get_p99_ns or 0)
    assert 0 < (result.put_p50_ns or 0) <= (result.put_p99_ns or 0)
    again = run(config(trace))
    assert (again.blocks_read, again.blocks_written, again.hit_share, again.ratio) == (11, 0, 1.0, None)
    assert (again.put_p50_ns, again.put_bytes_per_second) == (None, None)


def test_blocks_are_linked_to_the_block_before_them(device: speckv.Device, write_trace: Any) -> None:
    made = plan(config(write_trace(*CHAIN)))
    execute(made)
    with device.attach("kv") as pool:
        key = Client(made.setup, pool)._key
        assert set(pool.children(key(b"\0001"))) == {key(b"\0002"), key(b"\0003")}
        assert pool.children(key(b"\0003")) == [key(b"\0004")]
        assert pool.children(key(b"\0009")) == []


def test_the_same_ids_of_another_trace_kv_codec_or_seed_are_other_blocks(
    device: speckv.Device, write_trace: Any
) -> None:
    first = write_trace([1, 2])
    assert run(config(first)).blocks_written == 2
    assert run(config(first, seed=1)).blocks_written == 2
    assert run(config(write_trace([1, 2], [1], name="other"))).blocks_written == 2
    assert run(config(first)).blocks_written == 0


def test_two_clients_are_two_tenants_and_share_the_work(device: speckv.Device) -> None:
    result = run(config(TRACE, clients=2))
    assert result.errors == result.mismatches == 0
    assert result.verified_blocks == result.blocks_read > 1000
    tenants = {tenant.name: tenant for tenant in device.tenants("kv")}
    assert set(tenants) == {"replay-1", "replay-2"}
    assert all(tenant.puts > 50 and tenant.hits > 50 for tenant in tenants.values())
    assert device.clients("kv") == []
    assert device.check_pool("kv", deep=True).clean


@pytest.mark.parametrize("codec", [codec for codec in speckv.codec.modes() if codec != "raw"])
def test_another_codec_is_verified_against_its_reference_decode(device: speckv.Device, codec: speckv.Codec) -> None:
    device.create_pool(speckv.PoolConfig("coded", 64 << 20, codec=codec))
    result = run(config(TRACE, pool="coded", limit=40))
    assert result.blocks_read > 100 and result.verified_blocks == result.blocks_read
    assert result.mismatches == result.errors == 0
    assert result.codec == codec and (result.ratio or 0) > 1.0


def test_a_pool_too_small_evicts_and_that_is_no_error(device: speckv.Device) -> None:
    device.create_pool(speckv.PoolConfig("small", 8 << 20))
    result = run(config(TRACE, pool="small", clients=2))
    assert device.stats("small").counters["evictions"] > 100
    assert result.errors == result.mismatches == 0
    assert result.verified_blocks == result.blocks_read > 0


def test_a_full_pool_without_eviction_refuses_and_that_is_no_error(device: speckv.Device) -> None:
    device.create_pool(speckv.PoolConfig("full", 8 << 20, eviction=speckv.Eviction.NONE))
    result = run(config(TRACE, pool="full"))
    assert result.blocks_refused > 0
    assert result.blocks_written < 8 << 20 >> 16
    assert result.errors == result.mismatches == 0


def test_a_byte_changed_in_the_pools_file_is_a_mismatch(device: speckv.Device, write_trace: Any) -> None:
    trace = write_trace([5, 6])
    run(config(trace))
    path, offset = stored("kv", content_of(trace, 6))
    with path.open("r+b") as stream:
        stream.seek(offset + 100)
        byte = stream.read(1)[0]
        stream.seek(offset + 100)
        stream.write(bytes([byte ^ 1]))
    result = run(config(trace))
    assert (result.blocks_read, result.mismatches, result.errors) == (1, 1, 0)
    assert [str(mismatch) for mismatch in result.described] == ["block 6: its checksum does not verify"]
    assert device.stats("kv").counters["bad"] >= 1


def test_other_bytes_under_a_blocks_key_are_a_mismatch_with_its_offset(device: speckv.Device, write_trace: Any) -> None:
    trace = write_trace([5, 6])
    made = plan(config(trace))
    wrong = np.frombuffer(content_of(trace, 6), np.uint8).copy()
    wrong[777] ^= 0x80
    with device.attach("kv") as pool:
        key = Client(made.setup, pool)._key
        right = np.frombuffer(content_of(trace, 5), np.uint8)
        assert pool.put([key(b"\0005"), key(b"\0006")], [right, wrong]).tolist() == [0, 0]
    result = execute(made)
    assert (result.verified_blocks, result.mismatches) == (2, 1)
    assert [(mismatch.block, mismatch.offset) for mismatch in result.described] == [("6", 777)]


def test_speckvctl_ends_with_exit_code_7_on_a_mismatch(device: speckv.Device, write_trace: Any) -> None:
    trace = write_trace([5, 6])
    run(config(trace))
    path, offset = stored("kv", content_of(trace, 5))
    with path.open("r+b") as stream:
        stream.seek(offset + 5)
        stream.write(b"\xaa\x55\xaa\x55")
    command = [sys.executable, "-m", "speckvctl", "replay", str(trace), "--device", MEMORY, "--pool", "kv"]
    done = subprocess.run([*command, "--max-rate", "--json"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 7, done.stderr
    assert json.loads(done.stdout)["mismatches"] == 1


def test_a_broken_trace_a_wrong_kv_file_or_an_absent_pool_change_nothing(
    device: speckv.Device, write_trace: Any, tmp_path: Path
) -> None:
    good = write_trace([1, 2])
    broken = write_trace([1, 2], "{broken", name="broken")
    device.create_pool(speckv.PoolConfig("fp16", 16 << 20, geometry=speckv.Geometry(dtype=speckv.DType.FP16)))
    with pytest.raises(TraceError, match="line 2"):
        run(config(broken))
    with pytest.raises(Exception, match=r"fp16, head size 128.*bf16, head size 128"):
        run(config(good, pool="fp16"))
    with pytest.raises(speckv.NotFoundError):
        run(config(good, pool="absent"))
    with pytest.raises(FileNotFoundError):
        run(config(good, contents=tmp_path / "absent"))
    with pytest.raises(speckv.InvalidError, match="65536 bytes, not 4096"):
        run(config(good, block_bytes=4096))
    with pytest.raises(TraceError, match="its format is mooncake"):
        run(config(good, trace_format="fleet"))
    for change in ({"clients": 0}, {"clients": 10_000}, {"speed": 0.0}, {"max_rate": -1.0}, {"limit": 0}):
        with pytest.raises(speckv.InvalidError):
            run(config(good, **change))
    assert device.pool("kv").blocks == device.pool("fp16").blocks == 0
    assert device.tenants("kv") == []


def test_progress_is_told_and_ends_complete(device: speckv.Device) -> None:
    heard: list[ReplayProgress] = []
    result = run(config(TRACE, clients=2), heard.append)
    assert [now.requests for now in heard] == sorted(now.requests for now in heard)
    assert heard[-1].requests == heard[-1].requests_total == result.requests
    assert heard[-1].blocks_written == result.blocks_written


def test_a_client_waits_until_a_request_is_due_and_hears_its_parent_meanwhile() -> None:
    """The parent's word comes during the hour's wait for the third request."""
    served: list[tuple[int, ...]] = []
    waits: list[float] = []

    class Parent:
        def poll(self, timeout: float) -> bool:
            waits.append(timeout)
            return timeout > 60

    class Server:
        def serve(self, work: Work) -> None:
            served.append(work.ids)

    hour = time.monotonic_ns() + 3600 * 10**9
    chunk = [Work("", (1,), 0), Work("", (2,), 5), Work("", (3,), hour), Work("", (4,), 0)]
    _serve_chunk(Server(), chunk, Parent())  # type: ignore[arg-type]
    assert served == [(1,), (2,)]
    assert waits[:2] == [0, 0] and 3500 < waits[2] <= 3600


def interrupt_when(condition: Any) -> Any:
    """A progress function that presses Ctrl-C once."""
    pressed = threading.Event()

    def on_progress(now: ReplayProgress) -> None:
        if condition(now) and not pressed.is_set():
            pressed.set()
            os.kill(os.getpid(), signal.SIGINT)

    return on_progress


def test_ctrl_c_ends_with_a_summary_of_what_was_done(device: speckv.Device) -> None:
    result = run(config(TRACE, clients=2, max_rate=50.0), interrupt_when(lambda now: now.requests >= 2))
    assert result.interrupted
    assert 2 <= result.requests < result.requests_total
    assert result.errors == result.mismatches == 0
    assert multiprocessing.active_children() == []
    assert device.clients("kv") == []


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.2])
def test_ctrl_c_while_the_clients_begin_is_no_error_either(device: speckv.Device, delay: float) -> None:
    program = f"""
import multiprocessing, os, signal, threading, time
from speckvctl.replay import ReplayConfig, run
def press():
    while not multiprocessing.active_children():
        pass
    time.sleep({delay})
    os.killpg(0, signal.SIGINT)
if __name__ == "__main__":
    threading.Thread(target=press).start()
    result = run(ReplayConfig({str(TRACE)!r}, {MEMORY!r}, "kv", clients=2, max_rate=1.0))
    print(result.interrupted, result.errors, result.problems)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        start_new_session=True,
    )
    assert (done.stdout, done.stderr) == ("True 0 ()\n", "")


def test_a_client_that_is_killed_is_an_error_and_never_a_hang(device: speckv.Device) -> None:
    killed = threading.Event()

    def kill_one(now: ReplayProgress) -> None:
        if now.requests >= 2 and not killed.is_set():
            killed.set()
            victim = multiprocessing.active_children()[0]
            assert victim.pid is not None
            os.kill(victim.pid, signal.SIGKILL)

    result: ReplayResult = run(config(TRACE, clients=2, max_rate=50.0), kill_one)
    assert result.errors == 1
    assert "was killed by signal 9" in result.problems[0]
    assert result.requests < result.requests_total
    assert multiprocessing.active_children() == []
    assert device.check_pool("kv", deep=True, repair=True).clean


def test_a_client_that_cannot_begin_says_why(device: speckv.Device, write_trace: Any) -> None:
    made = plan(config(write_trace([1])))
    device.destroy_pool("kv")
    device.create_pool(speckv.PoolConfig("kv", 16 << 20))
    other = dataclasses.replace(made, setup=dataclasses.replace(made.setup, tenant="no/such name"))
    with pytest.raises(speckv.InvalidError, match="no/such name"):
        execute(other)
    assert multiprocessing.active_children() == []


def test_clients_end_when_their_parent_is_killed(device: speckv.Device) -> None:
    program = f"""
import os, signal
from speckvctl.replay import ReplayConfig, run
def progress(now):
    if now.requests:
        os.kill(os.getpid(), signal.SIGKILL)
if __name__ == "__main__":
    run(ReplayConfig({str(TRACE)!r}, {MEMORY!r}, "kv", clients=2, max_rate=50.0, contents={str(KV)!r}), progress)
"""
    done = subprocess.run([sys.executable, "-c", program], timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL
    while device.clients("kv"):  # the suite's time limit ends a wait in vain
        device.check_pool("kv", repair=True)
    assert device.check_pool("kv", deep=True).clean


@pytest.mark.shared
def test_a_real_trace_with_real_kv_comes_back_right(device: speckv.Device, shared_dir: Path) -> None:
    trace = shared_dir / "data" / "traces" / "conversation_trace.dev.jsonl.gz"
    kv = shared_dir / "model" / "kv_dev.safetensors"
    device.create_pool(speckv.PoolConfig("fp16", 32 << 20, geometry=speckv.Geometry(dtype=speckv.DType.FP16)))
    for pool in ("kv", "fp16"):
        result = run(config(trace, contents=kv, pool=pool, clients=2, limit=60))
        assert result.blocks_read > 10 and result.verified_blocks == result.blocks_read
        assert result.mismatches == result.errors == 0
