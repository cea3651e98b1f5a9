# SPDX-License-Identifier: MIT
"""Files that commands read and write: bounded reads, atomic writes."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from speckvctl.errors import AbsentError, CliError, DeniedError, UsageError, from_library

_PREFIX_BYTES = 200  # of a temporary file's name; a name has at most 255


def read(path: Path, most: int) -> bytes:
    """Read a whole file; refuse more than `most` bytes."""
    with path.open("rb") as stream:
        data = stream.read(most + 1)
    if len(data) > most:
        raise CliError(f"{path}: more than {most:,} bytes", number=errno.EFBIG)
    return data


def check_place(path: Path, option: str = "--output") -> None:
    """Check early that a file can be written there."""
    folder = path.parent
    if not folder.is_dir():
        raise AbsentError(f"{option}: {path}: {folder} is not a folder", f"mkdir -p {folder}", errno.ENOENT)
    if path.is_dir():
        raise UsageError(f"{option}: {path} is a folder", f"{option} with the name of a file", errno.EISDIR)
    if not os.access(path if _is_stream(path) else folder, os.W_OK):
        raise DeniedError(f"{option}: no permission to write {path}", f"{option} in another folder", errno.EACCES)


@contextmanager
def replacing(path: Path, *, mode: int | None = None, new: bool = False) -> Iterator[IO[bytes]]:
    """A stream that replaces the file atomically once complete and durable; a failure leaves the old file.

    Until then the bytes are in a temporary file beside it, with a name unique to this process. `mode`: permission
    bits; default: those of the replaced file, or those the umask allows. `new`: fail if the file exists.
    Errors of the file system name the file, never the temporary one. Pipes and terminals are written as they are.
    """
    if not new and _is_stream(path):
        with _naming(path, others=True), path.open("wb") as stream:
            yield stream
        return
    with _naming(path):
        place = path if new else _followed(path)
        prefix = os.fsdecode(os.fsencode(f".{place.name}")[:_PREFIX_BYTES]) + "."
        descriptor, draft = tempfile.mkstemp(prefix=prefix, dir=place.parent)
    try:
        with _naming(path, others=True), os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fchmod(stream.fileno(), _mode(place) if mode is None else mode)
            os.fsync(stream.fileno())
        with _naming(path):
            if new:
                _link_new(draft, place)
            else:
                os.replace(draft, place)
            _sync_folder(place.parent)
    finally:
        with suppress(OSError):  # renamed already
            os.unlink(draft)


def write(path: Path, data: bytes | bytearray, *, mode: int | None = None, new: bool = False) -> None:
    """Write a file atomically."""
    with replacing(path, mode=mode, new=new) as stream:
        stream.write(data)


def check_new(path: Path) -> None:
    """Refuse to overwrite a file."""
    if os.path.lexists(path):
        raise CliError(f"{path} is there already; nothing was changed", "name another", errno.EEXIST)


@contextmanager
def _naming(path: Path, *, others: bool = False) -> Iterator[None]:
    """Set this path in errors of the file system. `others`: leave errors that name a file of their own."""
    try:
        yield
    except OSError as exc:
        if from_library(exc) or (others and exc.filename is not None):
            raise
        number = exc.errno or errno.EIO
        reasons = {
            errno.ENOENT: f"No such folder: {path.parent}",
            errno.ENOTDIR: f"{path.parent} is not a folder",
            errno.ENOSPC: f"No space left on its file system: df -h {path.parent}",
        }
        raise OSError(number, reasons.get(number, os.strerror(number)), str(path)) from exc


def _is_stream(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def _followed(path: Path) -> Path:
    """Resolve a link; refuse one that another user made in a folder writable by all."""
    if not path.is_symlink():
        return path
    link, folder = path.lstat(), path.parent.stat()
    if folder.st_mode & stat.S_ISVTX and folder.st_mode & 0o022 and link.st_uid not in (os.geteuid(), folder.st_uid):
        raise OSError(errno.EACCES, "", str(path))
    return Path(os.path.realpath(path))


def _link_new(draft: str, place: Path) -> None:
    try:
        os.link(draft, place)
    except FileExistsError:
        check_new(place)
        raise


def _mode(path: Path) -> int:
    """The mode of the replaced file, or what the umask allows."""
    if path.exists():
        return path.stat().st_mode & 0o777  # never set-user-ID: the new file belongs to this user
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _sync_folder(folder: Path) -> None:
    """fsync a folder, to make a new name durable."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:  # a folder can be writable but not readable
        return
    try:
        os.fsync(descriptor)
    except OSError as exc:
        if exc.errno != errno.EINVAL:  # file systems without it
            raise
    finally:
        os.close(descriptor)
