# SPDX-License-Identifier: MIT
"""Pools through the binding: blocks, chains, operations, threads, handles that are closed, callbacks that raise."""

from __future__ import annotations

import dataclasses
import errno
import gc
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import speckv
from speckv._speckv import lib
from speckv.handle import Handle

from tests.conftest import MEMORY

BLOCK = 65536
RNG = np.random.default_rng(7)


def make(count: int) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], np.ndarray[Any, np.dtype[np.uint8]]]:
    return RNG.integers(0, 256, (count, 32), np.uint8), RNG.integers(0, 256, (count, BLOCK), np.uint8)


def test_what_is_put_comes_back_and_what_is_not_is_a_miss(pool: speckv.Pool) -> None:
    keys, blocks = make(8)
    assert pool.put(keys[:6], blocks[:6]).tolist() == [0] * 6
    back = np.full_like(blocks, 1)
    assert pool.get(keys, back).tolist() == [0] * 6 + [-errno.ENOENT] * 2
    assert (back[:6] == blocks[:6]).all()
    assert pool.lookup(keys).tolist() == [True] * 6 + [False] * 2
    assert pool.lookup(keys).dtype == np.bool_
    assert pool.lookup_prefix(keys) == 6
    assert pool.touch(keys) == 6
    assert pool.drop(keys[2:3]) == 1
    assert pool.lookup_prefix(keys) == 2


def test_a_put_of_a_key_that_is_there_changes_nothing(pool: speckv.Pool) -> None:
    keys, blocks = make(1)
    key = bytes(keys[0])
    assert pool.put(key, blocks[0]).tolist() == [0]
    assert pool.put(key, np.zeros(BLOCK, np.uint8)).tolist() == [0]
    back = np.empty(BLOCK, np.uint8)
    pool.get(key, back)
    assert (back == blocks[0]).all()


def test_no_keys_are_no_error(pool: speckv.Pool) -> None:
    none = np.empty((0, 32), np.uint8)
    assert pool.put(none, np.empty((0, BLOCK), np.uint8)).tolist() == []
    assert pool.get([], []).tolist() == []
    assert pool.lookup([]).tolist() == []
    assert pool.lookup_prefix(none) == pool.touch([]) == pool.drop([]) == pool.prefetch([]) == 0


def test_parents_make_a_tree_the_most_recent_child_first(pool: speckv.Pool) -> None:
    keys, blocks = make(3)
    root, first, second = map(bytes, keys)
    assert pool.put([root, first], blocks[:2], parents=[None, root], positions=[0, 64]).tolist() == [0, 0]
    assert pool.put(second, blocks[2], parents=[root], positions=64).tolist() == [0]
    assert pool.children(root) == [second, first]
    assert pool.children(root, limit=1) == [second]
    assert pool.children(first) == []


def test_parents_and_positions_that_do_not_fit_are_refused(pool: speckv.Pool) -> None:
    keys, blocks = make(2)
    for change in (
        {"parents": [None]},
        {"parents": [b"short", None]},
        {"positions": [1]},
        {"positions": -1},
        {"positions": 0.5},
    ):
        with pytest.raises(speckv.InvalidError):
            pool.put(keys, blocks, **change)
    assert not pool.lookup(keys).any()


def test_a_range_of_layers_can_be_read_alone(device: speckv.Device) -> None:
    shape = speckv.Geometry(layers=4)
    device.create_pool(speckv.PoolConfig("deep", 16 << 20, geometry=shape))
    with device.attach("deep") as pool:
        keys = RNG.integers(0, 256, (3, 32), np.uint8)
        blocks = RNG.integers(0, 256, (3, 4, shape.block_bytes // 4), np.uint8)
        assert pool.put(keys, blocks).tolist() == [0] * 3
        part = np.zeros((3, 2, shape.block_bytes // 4), np.uint8)
        assert pool.get(keys, part, layers=(1, 2)).tolist() == [0] * 3
        assert (part == blocks[:, 1:3]).all()
        assert (pool.get(keys, part, layers=(3, 2)) < 0).all()
        assert (pool.get(keys, part[:, :1], layers=(0, 2)) < 0).all(), "too small a buffer for two layers"
        with pytest.raises(speckv.InvalidError):
            pool.get(keys, part, layers=(0, 0))
        # The next whole get must not remember the layers.
        assert pool.get(bytes(keys[0]), whole := np.zeros(shape.block_bytes, np.uint8)).tolist() == [0]
        assert (whole == blocks[0].ravel()).all()


def test_operations_complete_and_keep_their_buffers_alive(pool: speckv.Pool) -> None:
    keys, blocks = make(16)
    put = pool.submit_put(keys, blocks.copy())
    gc.collect()
    assert put.wait().tolist() == [0] * 16
    assert put.done and put.wait(0).tolist() == [0] * 16
    back = np.zeros_like(blocks)
    operations = [pool.submit_get(keys[index : index + 4], back[index : index + 4]) for index in range(0, 16, 4)]
    assert [operation.wait(60).tolist() for operation in operations] == [[0] * 4] * 4
    assert (back == blocks).all()


def test_closing_a_pool_completes_its_operations(pool: speckv.Pool) -> None:
    keys, blocks = make(16)
    operation = pool.submit_put(keys, blocks)
    pool.close()
    assert operation.done
    assert operation.wait().tolist() == [0] * 16


def test_threads_share_a_pool(pool: speckv.Pool) -> None:
    keys, blocks = make(32)
    pool.put(keys, blocks)
    wrong: list[int] = []

    def read(seed: int) -> None:
        rng = np.random.default_rng(seed)
        back = np.empty((4, BLOCK), np.uint8)
        for _ in range(100):
            pick = rng.integers(0, 32, 4)
            statuses = pool.get(keys[pick], back)
            if statuses.any() or not (back == blocks[pick]).all():
                wrong.append(seed)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_statistics_tenants_clients_and_events_tell_what_happened(device: speckv.Device, pool: speckv.Pool) -> None:
    keys, blocks = make(2)
    pool.put(keys, blocks)
    pool.get(np.concatenate((keys, keys ^ 1)), np.empty((4, BLOCK), np.uint8))
    stats = device.stats("kv")
    assert {name: stats.counters[name] for name in ("puts", "gets", "hits", "misses")} == {
        "puts": 2,
        "gets": 4,
        "hits": 2,
        "misses": 2,
    }
    assert sum(stats.histogram("put")) == 2 and (stats.quantile("put", 0.5) or 0) > 0
    assert stats.quantile("stage", 0.5) is None
    with pytest.raises(speckv.InvalidError, match="put"):
        stats.histogram("nothing")
    assert [(tenant.name, tenant.puts, tenant.hits) for tenant in device.tenants("kv")] == [("test", 2, 2)]
    assert [client.alive for client in device.clients("kv")] == [True]
    kinds = [event.kind for event in device.events()]
    assert "pool-created" in kinds
    last = device.events()[-1].sequence
    assert device.events(after=last) == []
    device.reset_stats("kv")
    assert device.stats("kv").counters["puts"] == 0


def test_a_plan_fills_in_the_defaults_and_refuses_what_cannot_be(device: speckv.Device) -> None:
    with speckv.Context() as context:
        planned = context.plan_pool(device.name, speckv.PoolConfig("new", 5 << 20))
        assert (planned.name, planned.capacity_bytes, planned.mode) == ("new", 6 << 20, 0o600)
        assert planned.page_bytes and planned.geometry.block_bytes
        with pytest.raises(speckv.InvalidError, match="a/b"):
            context.plan_pool(device.name, speckv.PoolConfig("a/b", 1 << 20))
    assert device.pools() == []


def test_errors_carry_the_librarys_text_and_the_right_type(device: speckv.Device, pool: speckv.Pool) -> None:
    with pytest.raises(speckv.NotFoundError, match="'absent'"):
        device.pool("absent")
    with pytest.raises(speckv.ExistsError):
        device.create_pool(speckv.PoolConfig("kv", 1 << 20))
    with pytest.raises(speckv.InvalidError, match="a/b"):
        device.create_pool(speckv.PoolConfig("a/b", 1 << 20))
    with pytest.raises(speckv.PoolFullError):
        device.create_pool(speckv.PoolConfig("huge", 1 << 43))
    with pytest.raises(speckv.BusyError, match=r"pid \d+"):
        device.destroy_pool("kv")
    with pytest.raises(speckv.NothingToDoError):
        device.set_pool("kv", quota_bytes=device.pool("kv").config.quota_bytes)
    with pytest.raises(speckv.InvalidError, match="NUL"):
        device.pool("k\0v")
    with pytest.raises(speckv.PoolFullError):
        pool.alloc(32 << 20)


def test_settings_can_be_changed_one_by_one(device: speckv.Device, pool: speckv.Pool) -> None:
    before = device.pool("kv").config
    after = device.set_pool("kv", quota_bytes=8 << 20, eviction="none", mode=0o640).config
    assert (after.quota_bytes, after.eviction, after.mode) == (8 << 20, speckv.Eviction.NONE, 0o640)
    assert (after.uid, after.gid, after.geometry) == (before.uid, before.gid, before.geometry)
    device.resize_pool("kv", 32 << 20, dry_run=True)
    assert device.pool("kv").capacity_bytes == 16 << 20
    assert device.resize_pool("kv", 32 << 20).capacity_bytes == device.pool("kv").capacity_bytes == 32 << 20


def test_what_a_callback_raises_comes_out_and_stops_the_call(device: speckv.Device) -> None:
    seen: list[speckv.SelftestStep] = []

    def fail(step: speckv.SelftestStep) -> None:
        seen.append(step)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        device.selftest(fail)
    assert len(seen) == 1
    steps = device.selftest(seen.append)
    assert len(steps) == len(seen) - 1 > 1 and all(step.passed for step in steps)


def test_a_progress_callback_hears_of_a_long_call_and_can_stop_it(device: speckv.Device, pool: speckv.Pool) -> None:
    keys, blocks = make(64)
    pool.put(keys, blocks)
    heard: list[tuple[int, int]] = []

    def listen(done: int, total: int) -> bool:
        heard.append((done, total))
        return False

    report = device.check_pool("kv", deep=True, progress=listen)
    assert report.clean and report.blocks_verified == 64
    assert heard and all(done <= total for done, total in heard)

    def give_up(done: int, total: int) -> bool:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        device.check_pool("kv", deep=True, progress=give_up)


def test_memory_is_filled_in_place_and_sealed_as_a_block(pool: speckv.Pool) -> None:
    memory = pool.alloc(BLOCK)
    view = memory.array
    view[:] = 5
    with pytest.raises(speckv.BusyError, match="alive"):
        memory.seal(b"s" * 32)
    del view
    memory.seal(b"s" * 32, position=64)
    back = np.zeros(BLOCK, np.uint8)
    assert pool.get(b"s" * 32, back).tolist() == [0]
    assert (back == 5).all()
    with pytest.raises(speckv.SpeckvError, match="closed"):
        memory.array  # noqa: B018


def test_an_array_over_memory_keeps_it_valid_whatever_is_closed(device: speckv.Device, pool: speckv.Pool) -> None:
    memory = pool.alloc(1 << 20)
    view = memory.array[1000:2000]
    memory.free()
    pool.close()
    view[:] = 9  # would be a fault, had the pool been unmapped
    assert (view == 9).all()
    assert device.check_pool("kv").pages_allocated > 0
    del view
    gc.collect()
    assert device.check_pool("kv").pages_allocated == 0
    assert device.clients("kv") == []


def test_a_closed_handle_says_so(device: speckv.Device, pool: speckv.Pool) -> None:
    pool.close()
    pool.close()
    block = np.empty(BLOCK, np.uint8)
    for call in (lambda: pool.get(b"a" * 32, block), lambda: pool.lookup([]), lambda: pool.alloc(1)):
        with pytest.raises(speckv.SpeckvError, match="pool kv is closed"):
            call()
    assert "closed" in repr(pool)
    device.close()
    with pytest.raises(speckv.SpeckvError, match=f"device {MEMORY} is closed"):
        device.info()


def test_children_are_destroyed_before_their_parent_in_any_order_of_closing() -> None:
    order: list[str] = []
    parent = Handle("parent", object(), lambda _: order.append("parent"))
    child = Handle("child", object(), lambda _: order.append("child"), parent)
    leaf = Handle("leaf", object(), lambda _: order.append("leaf"), child)
    leaf.pin()
    parent.close()
    assert order == []
    leaf.unpin()
    assert order == ["leaf", "child", "parent"]
    for handle in (leaf, child, parent):
        handle.close()
    assert order == ["leaf", "child", "parent"]


def test_what_is_forgotten_is_closed(device: speckv.Device, pool: speckv.Pool) -> None:
    other = device.attach("kv")
    assert len(device.clients("kv")) == 2
    del other
    gc.collect()
    assert len(device.clients("kv")) == 1


def test_a_handle_does_not_survive_fork(run_python: Callable[[str], str], runtime_dir: Path) -> None:
    program = """
import errno, os, numpy, speckv
context = speckv.Context(); device = context.open("host:DRAM", create=True)
device.create_pool(speckv.PoolConfig("kv", 16 << 20)); pool = device.attach("kv")
pool.put(b"a" * 32, numpy.ones(65536, numpy.uint8))
child = os.fork()
if child == 0:
    try:
        pool.get(b"a" * 32, numpy.empty(65536, numpy.uint8))
    except speckv.SpeckvError as error:
        os._exit(0 if error.errno == errno.EOWNERDEAD else 1)
    os._exit(2)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), pool.lookup(b"a" * 32))
"""
    assert run_python(program) == "0 [ True]\n"


@pytest.mark.skipif(MEMORY != "host:DRAM", reason="about media of the runtime folder")
def test_a_runtime_folder_can_be_named_and_the_environment_stays(tmp_path: Path, runtime_dir: Path) -> None:
    with speckv.Context(tmp_path) as elsewhere, speckv.Context() as here:
        assert elsewhere.runtime_dir == str(tmp_path)
        assert here.runtime_dir == str(runtime_dir)
        elsewhere.open("host:DRAM", create=True).close()
        assert [info.name for info in elsewhere.devices()] == ["host:DRAM"]
        assert here.devices() == []
        assert here.probe("host:DRAM").state == speckv.MediumState.ABSENT
        elsewhere.remove("host:DRAM")
        assert elsewhere.devices() == []
    with pytest.raises(speckv.InvalidError, match="relative/path"):
        speckv.Context("relative/path")


def test_a_read_only_attachment_reads_and_cannot_put(device: speckv.Device, pool: speckv.Pool) -> None:
    keys, blocks = make(1)
    pool.put(keys, blocks)
    with device.attach("kv", read_only=True) as reader:
        back = np.empty_like(blocks)
        assert reader.get(keys, back).tolist() == [0]
        assert (back == blocks).all()
        with pytest.raises(speckv.PermissionDeniedError):
            reader.put(keys, blocks)


def test_parameters_behave_as_a_mapping(pool: speckv.Pool) -> None:
    assert set(pool.params) == {"prefetch_depth", "codec", "verify", "threads"} and len(pool.params) == 4
    pool.params.update(prefetch_depth="8", verify="on")
    assert dict(pool.params) == {"prefetch_depth": "8", "codec": "raw", "verify": "on", "threads": "1"}
    assert "no_such" not in pool.params and pool.params.get("no_such") is None
    with pytest.raises(TypeError):
        del pool.params["codec"]


def test_keys_depend_on_everything_that_makes_kv_different() -> None:
    spec = speckv.KeySpec(bytes(32), speckv.Geometry())
    changes: list[dict[str, Any]] = [
        {},
        {"model_digest": b"\1" + bytes(31)},
        {"geometry": speckv.Geometry(layers=2)},
        {"rope": "x"},
        {"scales": "x"},
        {"parallel_rank": 1, "parallel_size": 2},
        {"group": 1},
        {"tenant_secret": "x"},
        {"cache_salt": "x"},
    ]
    keys = {speckv.derive_key(dataclasses.replace(spec, **change), bytes(32)) for change in changes}
    assert len(keys) == len(changes) and {len(key) for key in keys} == {32}
    assert speckv.derive_key(spec, bytes(32)) == speckv.derive_key(spec, bytearray(32))
    assert speckv.derive_key(spec, bytes(32)) != speckv.derive_key(spec, bytes(31))
    with pytest.raises(speckv.PermissionDeniedError, match="8 bytes"):
        speckv.derive_key(spec, bytes(8))
    single = dataclasses.replace(spec, single_tenant=True)
    assert len(speckv.derive_key(single, bytes(8))) == 32
    with pytest.raises(speckv.InvalidError, match="32 bytes"):
        speckv.derive_key(speckv.KeySpec(b"", speckv.Geometry()), bytes(32))


def test_the_secret_of_a_tenant_is_not_shown() -> None:
    assert "hush" not in repr(speckv.KeySpec(bytes(32), speckv.Geometry(), tenant_secret="hush"))


def test_the_version_is_the_librarys() -> None:
    assert speckv.version().count(".") == 2
    assert lib.SPECKV_API_VERSION == 0
