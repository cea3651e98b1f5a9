# SPDX-License-Identifier: MIT
"""Handles among threads, forks and finalizers: never freed under a user, and of no use in a child."""

from __future__ import annotations

import ctypes
import errno
import gc
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import numpy as np
import pytest
import speckv
from speckv.handle import Handle

KEYS = [bytes([n]) * 32 for n in range(64)]
BLOCK = 64 << 10


@contextmanager
def working(*works: Callable[[], object]) -> Iterator[list[BaseException]]:
    """Threads that call each of `works` until it raises; what they raised."""
    raised: list[BaseException] = []
    begun, ending = threading.Semaphore(0), threading.Event()

    def loop(work: Callable[[], object]) -> None:
        try:
            work()
            begun.release()
            while not ending.is_set():
                work()
        except BaseException as exc:  # not only what is expected: a surprise must be seen
            begun.release()
            raised.append(exc)

    threads = [threading.Thread(target=loop, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for _ in threads:
        begun.acquire()
    try:
        yield raised
    except BaseException:
        ending.set()  # or they would work on
        raise
    finally:
        for thread in threads:
            thread.join(120)
        assert not any(thread.is_alive() for thread in threads)


def works_on(pool: speckv.Pool) -> list[Callable[[], object]]:
    blocks = np.ones((len(KEYS), BLOCK), np.uint8)
    pool.put(KEYS, blocks)

    def fill_and_seal() -> None:
        memory = pool.alloc(BLOCK)
        memory.prefetch(0, BLOCK)
        key = os.urandom(32)
        memory.seal(key)
        pool.drop(key)

    return [
        lambda: pool.get(KEYS, np.empty_like(blocks)),
        lambda: pool.get(KEYS[0], np.empty(BLOCK, np.uint8)),
        lambda: pool.put(KEYS, blocks),
        lambda: pool.lookup(KEYS),
        lambda: pool.submit_get(KEYS, np.empty_like(blocks)).wait(),
        lambda: pool.params["verify"],
        fill_and_seal,
    ]


def test_closing_a_pool_ends_the_calls_of_other_threads(device: speckv.Device) -> None:
    device.create_pool(speckv.PoolConfig("kv", 16 << 20))
    for _ in range(10):
        pool = device.attach("kv")
        works = works_on(pool)
        with working(*works) as raised:
            pool.close()
            assert pool._handle.ended  # not only later: the next line may destroy it
            assert device.clients("kv") == []
        assert [type(exc) for exc in raised] == [speckv.ClosedError] * len(works)
    device.destroy_pool("kv")


def test_an_exception_may_leave_the_block_while_threads_work() -> None:
    raised: list[BaseException] = []
    with pytest.raises(ZeroDivisionError):  # noqa: SIM117
        with speckv.Context() as context, context.open("host:DRAM", create=True) as device:
            device.create_pool(speckv.PoolConfig("kv", 16 << 20))
            with device.attach("kv") as pool:
                others = [lambda: device.pool("kv"), lambda: device.info(), lambda: context.devices()]
                with working(*works_on(pool), *others) as raised:
                    context.close()  # as leaving the block does, while they still work
                    raise ZeroDivisionError
    assert {type(exc) for exc in raised} == {speckv.ClosedError}


def test_what_is_made_while_its_parent_closes_is_closed_too(device: speckv.Device) -> None:
    device.create_pool(speckv.PoolConfig("kv", 16 << 20))
    with working(*[lambda: device.attach("kv", tenant="t").close()] * 3) as raised:
        time.sleep(0.05)
        device.close()
    assert {type(exc) for exc in raised} == {speckv.ClosedError}
    assert device._handle.ended and not device._handle.children


def test_a_call_may_close_what_it_is_called_on(device: speckv.Device) -> None:
    device.create_pool(speckv.PoolConfig("kv", 16 << 20))
    with speckv.Context() as context:
        inner = context.open(device.info().name)
        told: list[bool] = []

        def progress(done: int, total: int) -> None:
            inner.close()
            told.append(inner._handle.ended)

        inner.check_pool("kv", progress=progress)
        assert told and not any(told)  # not under the call
        assert inner._handle.ended
        with pytest.raises(speckv.ClosedError, match=f"device {device.info().name} is closed"):
            inner.info()


def test_waiting_for_an_operation_whose_pool_another_thread_closes(device: speckv.Device) -> None:
    device.create_pool(speckv.PoolConfig("kv", 16 << 20))
    blocks = np.ones((len(KEYS), BLOCK), np.uint8)
    for _ in range(20):
        pool = device.attach("kv")
        pool.put(KEYS, blocks)
        ops = [pool.submit_get(KEYS, np.empty_like(blocks)) for _ in range(8)]
        with ThreadPoolExecutor(len(ops)) as executor:
            results = [executor.submit(op.wait) for op in ops]
            pool.close()
            assert [result.result().tolist() for result in results] == [[0] * len(KEYS)] * len(ops)
        assert all(op.done for op in ops)


def test_one_seal_of_many_threads_succeeds(device: speckv.Device) -> None:
    device.create_pool(speckv.PoolConfig("kv", 16 << 20))
    with device.attach("kv") as pool:
        for n in range(20):
            memory = pool.alloc(BLOCK)
            outcome: list[str] = []

            def seal(memory: speckv.Memory = memory, key: bytes = KEYS[n], outcome: list[str] = outcome) -> None:
                try:
                    memory.seal(key)
                    outcome.append("sealed")
                except speckv.ClosedError:
                    outcome.append("closed")

            threads = [threading.Thread(target=seal) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert sorted(outcome) == ["closed"] * 3 + ["sealed"]
        assert pool.lookup(KEYS[:20]).all()


def test_a_handle_that_is_pinned_by_a_call_under_way_is_not_spent() -> None:
    handle = Handle("the allocation", 1, lambda _: None)
    inside, go_on = threading.Event(), threading.Event()

    def pin(_: object) -> None:
        inside.set()
        go_on.wait()
        handle.pin()

    caller = threading.Thread(target=handle.call, args=(pin,))
    caller.start()
    inside.wait()
    spent: list[object] = []
    spender = threading.Thread(target=outcome, args=(lambda: handle.spend(lambda _: 0), spent))
    spender.start()
    while handle.pointer is not None:  # it waits for the call now
        time.sleep(0.001)
    go_on.set()
    caller.join()
    spender.join()
    assert [type(end) for end in spent] == [speckv.BusyError]
    handle.unpin()
    assert handle.spend(lambda _: 0) == 0


def test_a_signal_at_the_end_of_a_call_does_not_bring_a_spent_handle_back() -> None:
    destroyed: list[object] = []
    handle = Handle("the allocation", signal.SIGINT, destroyed.append)
    with pytest.raises(KeyboardInterrupt):
        handle.spend(ctypes.CDLL(None)["raise"])  # of the pointer: it returns 0, and the exception is raised then
    with pytest.raises(speckv.ClosedError):
        handle.check()
    handle.close()
    assert handle.ended and not destroyed


def test_what_is_pinned_is_destroyed_with_its_last_pin() -> None:
    destroyed: list[object] = []
    parent = Handle("parent", 1, destroyed.append)
    child = Handle("child", 2, destroyed.append, parent)
    child.pin()
    child.pin()
    parent.close()
    assert child.closed and not destroyed
    child.unpin()
    assert not destroyed
    child.unpin()
    assert destroyed == [2, 1]


def test_a_handle_of_a_parent_that_was_closed_meanwhile_is_destroyed_before_it() -> None:
    destroyed: list[object] = []
    parent = Handle("parent", 1, destroyed.append)

    def make(_: object) -> Handle:
        parent.close()
        return Handle("child", 2, destroyed.append, parent)

    with pytest.raises(speckv.ClosedError, match="parent is closed"):
        parent.call(make)
    assert destroyed == [2, 1] and not parent.children


def outcome(body: Callable[[], object], ends: list[object]) -> None:
    try:
        ends.append(body())
    except speckv.SpeckvError as exc:
        ends.append(exc)


def test_a_seal_that_fails_leaves_the_allocation(device: speckv.Device) -> None:
    device.create_pool(speckv.PoolConfig("kv", 16 << 20))
    with device.attach("kv") as pool:
        memory = pool.alloc(100)
        for _ in range(2):
            with pytest.raises(speckv.InvalidError, match="not one block"):
                memory.seal(KEYS[0])
        assert len(memory.array) == 100


def test_a_handle_is_destroyed_once_by_the_last_user() -> None:
    for _ in range(200):
        destroyed: list[object] = []
        parent = Handle("parent", 1, destroyed.append)
        child = Handle("child", 2, destroyed.append, parent)
        gate = threading.Barrier(4)

        def use(child: Handle = child, gate: threading.Barrier = gate, destroyed: list[object] = destroyed) -> None:
            gate.wait()
            with suppress(speckv.ClosedError):
                child.call(lambda _: destroyed.append("freed under a call") if destroyed else None)

        def end(handle: Handle, gate: threading.Barrier = gate) -> None:
            gate.wait()
            handle.close()

        threads = [threading.Thread(target=use), threading.Thread(target=use)]
        threads += [threading.Thread(target=end, args=(handle,)) for handle in (parent, child)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert destroyed == [2, 1]


# ---- fork


def in_child(body: Callable[[], object]) -> int:
    """Exit code of a forked child that runs `body` and ends as processes do, finalizers and all; -N: signal N."""

    def run() -> None:
        threading.Thread(target=lambda: None).start()
        body()
        gc.collect()

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join(60)
    if process.is_alive():
        process.kill()
        process.join()
        return -99
    assert process.exitcode is not None
    return process.exitcode


def test_a_child_of_a_busy_process_ends_what_it_inherits(device: speckv.Device) -> None:
    device.create_pool(speckv.PoolConfig("kv", 16 << 20))
    pool = device.attach("kv")
    works = works_on(pool)
    for round_ in range(6):
        if round_ % 3 == 0:
            pool.close()
            pool = device.attach("kv")
            works = works_on(pool)
        with working(*works) as raised:
            memory = pool.alloc(BLOCK)
            array = memory.array
            array[:] = 7
            op = pool.submit_get(KEYS, np.empty((len(KEYS), BLOCK), np.uint8))

            def body(
                op: speckv.Op = op, memory: speckv.Memory = memory, pool: speckv.Pool = pool, shown: object = array
            ) -> None:
                assert isinstance(shown, np.ndarray)
                assert shown.max() in (0, 7)  # of memory: zeros; of a card: the copy of the moment
                shown[:] = 1
                for call in (
                    op.wait,
                    lambda: op.done,
                    lambda: memory.array,
                    lambda: memory.seal(KEYS[0]),
                    lambda: pool.lookup(KEYS),
                    lambda: pool.params["verify"],
                    lambda: device.pool("kv"),
                ):
                    with pytest.raises(speckv.ForkedError, match="fork"):
                        call()
                for owner in (op, memory, pool, device):
                    owner.close()
                with pytest.raises(speckv.SpeckvError) as closed:
                    pool.lookup(KEYS)
                assert closed.value.errno == errno.EOWNERDEAD

            assert in_child(body) == 0
            assert op.wait().tolist() == [0] * len(KEYS)
            assert (array == 7).all()
            del array, memory, op
            pool.close()
        assert {type(exc) for exc in raised} == {speckv.ClosedError}
        pool = device.attach("kv")
        works = works_on(pool)
    pool.close()


def test_a_child_that_forgets_everything_hangs_and_faults_nowhere(device: speckv.Device) -> None:
    device.create_pool(speckv.PoolConfig("kv", 16 << 20))
    with device.attach("kv") as pool:
        with working(*works_on(pool)) as raised:
            held = [pool.alloc(BLOCK).array for _ in range(4)]
            ops = [pool.submit_get(KEYS[0], np.empty(BLOCK, np.uint8)) for _ in range(4)]
            for _ in range(8):

                def forget() -> None:
                    held.clear()
                    ops.clear()

                assert in_child(forget) == 0
            for op in ops:
                assert op.wait().tolist() == [0]
            held.clear()
            pool.close()
        assert {type(exc) for exc in raised} == {speckv.ClosedError}


def test_a_child_ends_what_only_other_threads_of_its_parent_use() -> None:
    destroyed: list[object] = []
    handle = Handle("the pool", 1, destroyed.append)
    inside, go_on = threading.Event(), threading.Event()

    def stay(_: object) -> None:
        inside.set()
        go_on.wait()

    caller = threading.Thread(target=handle.call, args=(stay,))
    caller.start()
    inside.wait()

    def body() -> None:
        handle.close()
        assert handle.ended and destroyed == [1]

    try:
        assert in_child(body) == 0
        assert not handle.closed and not destroyed
    finally:
        go_on.set()
        caller.join()
    handle.close()
    assert destroyed == [1]


def test_a_fork_within_a_call_leaves_the_call_whole(device: speckv.Device) -> None:
    device.create_pool(speckv.PoolConfig("kv", 16 << 20))
    children: list[int] = []

    def progress(done: int, total: int) -> None:
        if children:
            return
        pid = os.fork()
        if pid == 0:
            try:
                device.close()
                assert not device._handle.ended  # the frames above still use it
                os._exit(0)
            finally:
                os._exit(1)
        children.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    assert device.check_pool("kv", progress=progress).clean
    assert children == [0]


def test_a_child_opens_its_own_handles(device: speckv.Device) -> None:
    device.create_pool(speckv.PoolConfig("kv", 16 << 20))
    with device.attach("kv") as pool:
        pool.put(KEYS[0], np.full(BLOCK, 3, np.uint8))

        def body() -> None:
            back = np.empty(BLOCK, np.uint8)
            with speckv.Context() as context, context.open(device.name) as again, again.attach("kv") as mine:
                assert mine.get(KEYS[0], back).tolist() == [0]
            assert (back == 3).all()

        assert in_child(body) == 0
        assert pool.lookup(KEYS[0]).all()
