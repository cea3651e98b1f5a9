# SPDX-License-Identifier: MIT
"""Ownership of C handles: destroyed after their children, and never during a call or while an array uses them."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from threading import get_ident
from types import TracebackType
from typing import Any, Self

from speckv.errors import error

_POLL_SECONDS = 0.0005

#: Forks since the first process, and the thread that survived the last one.
_forks = 0
_survivor = 0


def _count_fork() -> None:
    global _forks, _survivor
    _forks += 1
    _survivor = get_ident()


os.register_at_fork(after_in_child=_count_fork)


class Handle:
    """A pointer to a C object with the function that destroys it.

    Every call on the object goes through call(), which any thread may use. close() ends it: calls that begin later
    raise ClosedError, the children are closed first, and calls in other threads are waited for. An array over its
    memory, or a call further up this thread's stack, cannot be waited for and defers the destruction: the object, and
    its parents with it, is destroyed when the last of these is gone. In a forked child calls raise ForkedError.

    No locks are used, because close() also runs in finalizers and signal handlers: `_users`, `_pins`, `_owned` and
    `children` are changed by single operations of lists and sets, which are atomic between threads.
    """

    __slots__ = (
        "__weakref__",
        "_born",
        "_destroy",
        "_owned",
        "_pins",
        "_users",
        "children",
        "closed",
        "ended",
        "parent",
        "pointer",
        "what",
    )

    def __init__(self, what: str, pointer: Any, destroy: Callable[[Any], object], parent: Handle | None = None) -> None:
        """Created within a call of the parent. ClosedError if that was closed meanwhile."""
        self.what = what
        self.pointer = pointer  # None: no new call may begin
        self.parent = parent
        self.children: set[Handle] = set()
        self.closed = False
        self.ended = False  # destroyed
        self._users: list[int] = []  # the thread of every call in progress
        self._pins: list[None] = []
        self._owned = [pointer]  # the call that pops it destroys it
        self._born = _forks
        self._destroy = destroy
        if parent is not None:
            parent.children.add(self)
            if parent.closed:
                self.close()
                parent.check()

    # -- use

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """function(pointer, *arguments); the object is not destroyed before it returns."""
        users, thread = self._users, get_ident()
        if self._born != _forks:
            self.check()
        try:
            users.append(thread)
            pointer = self.pointer
            if pointer is None:
                self.check()
            return function(pointer, *arguments)
        finally:
            users.remove(thread)
            if self.closed:
                self._settle()

    def spend(self, function: Callable[..., int], *arguments: Any) -> int:
        """call() of a function that destroys the object itself, unless it returns an error. EBUSY while pinned."""
        self.check()
        self._check_pins()
        owned, rcs, thread = None, list[int](), get_ident()
        try:
            self._users.append(thread)
            try:
                owned = self._owned.pop()
            except IndexError:  # spent or closed by another thread
                raise error(errno.EBADF, f"{self.what} is closed") from None
            self.pointer = None  # no other call may begin
            self._wait_for_others()
            self._check_pins()  # one of those calls may have pinned it
            rcs.extend(map(function, (owned,), *zip(arguments)))  # no signal handler runs between return and store
        finally:
            if rcs and rcs[0] >= 0:
                self.closed = True
                self._end()
            elif owned is not None:
                self.pointer = owned
                if self.closed:  # by another thread, which deferred the destruction to this one
                    self.pointer = None
                self._owned.append(owned)
            self._users.remove(thread)
            self._settle()
        return rcs[0]

    def check(self) -> None:
        """Raise if no call may begin."""
        if self._born != _forks:
            raise error(errno.EOWNERDEAD, f"{self.what} was opened before fork(): open it again in the child")
        if self.pointer is None:
            raise error(errno.EBADF, f"{self.what} is closed")

    def _check_pins(self) -> None:
        if self._pins:
            raise error(errno.EBUSY, f"an array over {self.what} is still alive: drop it (del) first")

    def pin(self) -> None:
        self._pins.append(None)

    def unpin(self) -> None:
        self._pins.pop()
        self._settle()

    # -- destruction

    def close(self) -> None:
        """Destroy now, or as soon as nothing uses it. Idempotent."""
        self.closed = True
        self.pointer = None
        for child in tuple(self.children):
            child.close()
        if get_ident() not in self._users:
            self._wait_for_others()
        self._settle()

    def _busy(self) -> bool:
        """Whether a call is in progress. In a forked child, only the forking thread exists."""
        return bool(self._users) if self._born == _forks else _survivor in self._users

    def _wait_for_others(self) -> None:
        """Wait until no other thread is in a call or destroys it. A forked child does not have these threads."""
        me = get_ident()
        while self._born == _forks and any(user != me for user in tuple(self._users)):
            time.sleep(_POLL_SECONDS)

    def _settle(self) -> None:
        if not self.closed or self.children or self._pins or self._busy():
            return
        try:
            pointer = self._owned.pop()
        except IndexError:
            return  # another thread destroys it
        thread = get_ident()
        try:
            self._users.append(thread)  # makes close() of it or its parent wait
            self._destroy(pointer)
        finally:
            self._end()
            self._users.remove(thread)

    def _end(self) -> None:
        self.ended = True
        if self.parent is not None:
            self.parent.children.discard(self)
            self.parent._settle()


class Owner:
    """Base class of objects with a handle."""

    _handle: Handle

    def close(self) -> None:
        """Release it and its children; idempotent.

        Calls in other threads finish first; their next one raises ClosedError.
        """
        self._handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if handle := getattr(self, "_handle", None):
            handle.close()
