# SPDX-License-Identifier: MIT
"""Ownership of C handles: children are destroyed before their parent, and nothing while an array shows its memory."""

from __future__ import annotations

import errno
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from speckv.errors import error


class Handle:
    """A pointer to a C object with the function that destroys it.

    close() destroys the children first. A handle that is pinned (an array over its memory is alive) is destroyed when
    the last pin goes, and its parents with it: closing early never leaves a pointer that dangles.
    """

    __slots__ = ("__weakref__", "_destroy", "children", "closed", "parent", "pins", "pointer", "what")

    def __init__(self, what: str, pointer: Any, destroy: Callable[[Any], object], parent: Handle | None = None) -> None:
        self.what = what
        self.pointer = pointer
        self.parent = parent
        self.children: set[Handle] = set()
        self.pins = 0
        self.closed = False
        self._destroy = destroy
        if parent is not None:
            parent.children.add(self)

    def get(self) -> Any:
        """The pointer; fails when the handle was closed."""
        if self.closed:
            raise error(errno.EBADF, f"{self.what} is closed")
        return self.pointer

    def close(self) -> None:
        """Destroy now, or as soon as nothing needs it. More than once is harmless."""
        self.closed = True
        for child in tuple(self.children):
            child.close()
        self._settle()

    def forget(self) -> None:
        """The C library has destroyed the object itself."""
        self.closed = True
        self.pointer = None
        if self.parent is not None:
            self.parent.children.discard(self)

    def pin(self) -> None:
        self.pins += 1

    def unpin(self) -> None:
        self.pins -= 1
        self._settle()

    def _settle(self) -> None:
        if not self.closed or self.children or self.pins or self.pointer is None:
            return
        pointer, self.pointer = self.pointer, None
        self._destroy(pointer)
        if self.parent is not None:
            self.parent.children.discard(self)
            self.parent._settle()


class Owner:
    """What every object around a handle has in common."""

    _handle: Handle

    def close(self) -> None:
        """Give it back, and what was made through it; more than once is harmless."""
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
