# SPDX-License-Identifier: MIT
"""Op: the handle of an asynchronous batch."""

from __future__ import annotations

import errno
import time
from typing import Any

from speckv._speckv import lib
from speckv.errors import ClosedError, check
from speckv.handle import Handle, Owner
from speckv.requests import Batch, Statuses

_SLICE_NS = 100_000_000  # waits are sliced so that Ctrl-C is handled
_CLOSING_SECONDS = 0.001


class Op(Owner):
    """Created by Pool.submit_put() and submit_get(). It keeps keys and buffers alive until it is complete."""

    def __init__(self, pointer: Any, parent: Handle, ctx: Any, batch: Batch, count: int, owner: object) -> None:
        self._batch = batch
        self._count = count
        self._owner = owner
        self._ctx = ctx
        self._handle = Handle("the operation", pointer, lib.speckv_op_release, parent)

    @property
    def done(self) -> bool:
        """Whether it is complete; does not wait."""
        try:
            return self._handle.ended or check(int(self._handle.call(lib.speckv_op_poll)), self._ctx) == 1
        except ClosedError:  # another thread is destroying it
            return self._handle.ended

    def wait(self, timeout: float | None = None) -> Statuses:
        """Wait until it is complete, `timeout` seconds at most (WaitTimeoutError). Returns every status."""
        deadline = None if timeout is None else time.monotonic_ns() + int(timeout * 1e9)
        rc = 0
        while not self._handle.ended:  # closing it, or its pool, completes it
            left = _SLICE_NS if deadline is None else max(0, min(_SLICE_NS, deadline - time.monotonic_ns()))
            try:
                rc = int(self._handle.call(lib.speckv_op_wait, left))
            except ClosedError:  # another thread is destroying it
                rc = -errno.ETIMEDOUT
                time.sleep(min(_CLOSING_SECONDS, left / 1e9))
            if rc != -errno.ETIMEDOUT:
                break
            if deadline is not None and time.monotonic_ns() >= deadline:
                check(rc, what="the operation is still going on")
        if rc != -errno.ETIMEDOUT:
            self._handle.close()
            self._owner = None
            check(rc, self._ctx)
        return self._batch.status[: self._count].copy()

    def __repr__(self) -> str:
        return f"<speckv.Op of {self._count} blocks, {'done' if self.done else 'under way'}>"
