# SPDX-License-Identifier: MIT
"""Folders opened by descriptor. The library checks owner and mode, and refuses untrusted ones (speckv/folder.h)."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import speckv

_SMALL_BYTES = 1 << 16  # of a key, or a card's uuid


@dataclass(frozen=True)
class Folder:
    """A folder that only root and this user can change. Names in it resolve from its descriptor, without links."""

    context: speckv.Context
    path: Path
    descriptor: int

    def open(self, name: str, flags: int, mode: int = 0o600) -> int:
        """Open a regular file in it that is owned by root or this user and not writable by others."""
        return self.context.open_file(self.descriptor, self.path / name, flags, mode)

    def read(self, name: str) -> bytes:
        """Read a small file."""
        with os.fdopen(self.open(name, os.O_RDONLY), "rb") as stream:
            data = stream.read(_SMALL_BYTES + 1)
        if len(data) > _SMALL_BYTES:
            raise OSError(errno.EFBIG, f"more than {_SMALL_BYTES:,} bytes", str(self.path / name))
        return data

    def write(self, name: str, data: bytes, mode: int = 0o644) -> None:
        """Write a file atomically."""
        draft = f".{name}.{secrets.token_hex(8)}"
        try:
            with os.fdopen(self.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fchmod(stream.fileno(), mode)
                os.fsync(stream.fileno())
            os.replace(draft, name, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)
            os.fsync(self.descriptor)
        finally:
            with suppress(OSError):  # renamed already
                os.unlink(draft, dir_fd=self.descriptor)

    def has(self, name: str) -> bool:
        try:
            os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def names(self) -> list[str]:
        return sorted(os.listdir(self.descriptor))

    def remove(self, name: str) -> None:
        """Remove a file or a link, if present."""
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.descriptor)

    def remove_folder(self, name: str, *, whole: bool = False) -> None:
        """Remove a folder in it, with its contents or only if empty; ignore what cannot be removed."""
        with suppress(OSError):
            if whole:
                shutil.rmtree(name, dir_fd=self.descriptor)
            else:
                os.rmdir(name, dir_fd=self.descriptor)

    def link(self, name: str, target: Path) -> None:
        os.symlink(target, name, dir_fd=self.descriptor)

    @contextmanager
    def enter(self, name: str, *, make: bool = False) -> Iterator[Folder]:
        with opened(self.context, self.path / name, make=make, link=False) as folder:
            yield folder


def draft_of(name: str) -> str:
    """The target name of a temporary file of Folder.write(); empty if the name is not of one."""
    found = re.fullmatch(r"\.(.+)\.[0-9a-f]{16}", name)
    return found[1] if found else ""


@contextmanager
def opened(ctx: speckv.Context, path: Path, *, make: bool = False, link: bool = True) -> Iterator[Folder]:
    """Open a folder; `make` creates a missing one. Raises speckv.SpeckvError if it is not trusted."""
    descriptor = ctx.open_folder(path, make=make, link=link)
    try:
        yield Folder(ctx, path, descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def runtime(ctx: speckv.Context, name: str | None = None, *, make: bool = False) -> Iterator[Folder]:
    """The runtime folder, or a folder in it."""
    with opened(ctx, Path(ctx.runtime_dir), make=make) as folder:
        if name is None:
            yield folder
        else:
            with folder.enter(name, make=make) as inner:
                yield inner


def check_opens(ctx: speckv.Context, path: Path, *, link: bool = True) -> bool:
    """Refuse what `opened(make=True)` would refuse; create nothing. False: it would be created."""
    import speckv

    try:
        os.close(ctx.open_folder(path, link=link))
    except speckv.NotFoundError:
        if not path.parent.is_dir():
            raise
        check_writable(path.parent, f"cannot make the folder {path}")
        return False
    return True


def check_writable(folder: Path, failure: str) -> None:
    """Refuse a folder in which this process cannot create files."""
    if not os.access(folder, os.W_OK | os.X_OK):
        number = errno.EROFS if os.statvfs(folder).f_flag & os.ST_RDONLY else errno.EACCES
        raise OSError(number, f"{failure}: {os.strerror(number)}")


def trouble(ctx: speckv.Context, path: Path, *, link: bool = True) -> tuple[str, str | None] | None:
    """Why a folder is not trusted, and the command that fixes it. None: trusted or absent."""
    import speckv

    try:
        os.close(ctx.open_folder(path, group=True, link=link))
    except speckv.SpeckvError as exc:
        return None if exc.errno == errno.ENOENT else (str(exc), command_in(str(exc)))
    return None


def command_in(text: str) -> str | None:
    """The quoted command in an error text of the library."""
    found = re.search(r"'((?:export|rm|chmod|sudo|speckvctl|mv|find) [^']*)'", text)
    return found.group(1) if found else None
