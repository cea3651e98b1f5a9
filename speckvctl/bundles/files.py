# SPDX-License-Identifier: MIT
"""Files of bundles and keys: read whole and bounded, written whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from speckvctl.errors import CliError, DamagedError, UsageError

KEY_BYTES_MAX = 1 << 16


@contextmanager
def refusals(path: Path) -> Iterator[None]:
    """The library's refusal of what is in a file, with the file's name and what to type next."""
    from speckv import bundle

    try:
        yield
    except bundle.RefusedError as exc:
        advice = {
            errno.ENOKEY: f"speckvctl bitstream sign {path} --key KEY.pem",
            errno.EKEYREJECTED: f"speckvctl bitstream inspect {path}, and name the signer's key with --trust KEY.pub",
            errno.EILSEQ: "fetch it again",
            errno.EBADMSG: "fetch it again",
        }
        raise DamagedError(f"{path}: {exc}", advice.get(exc.errno or 0), exc.errno) from exc


def read_bundle(path: Path) -> bytes:
    from speckv import bundle

    return _read(path, bundle.BYTES_MAX)


def read_bitstream(path: Path) -> bytes:
    from speckv import bundle

    return _read(path, bundle.BYTES_MAX)


def read_text(path: Path) -> bytes:
    return _read(path, KEY_BYTES_MAX)


def read_secret_key(path: Path) -> bytes:
    from speckv import bundle

    pem = read_text(path)
    with refusals_of_keys(path):
        return bundle.secret_from_pem(pem)


def read_public_key(path: Path) -> bytes:
    from speckv import bundle

    pem = read_text(path)
    with refusals_of_keys(path):
        return bundle.public_from_pem(pem)


@contextmanager
def refusals_of_keys(path: Path) -> Iterator[None]:
    from speckv import bundle

    try:
        yield
    except bundle.RefusedError as exc:
        raise UsageError(f"{path}: {exc}", "speckvctl bitstream keygen NAME", exc.errno) from exc


def _read(path: Path, most: int) -> bytes:
    with path.open("rb") as stream:
        data = stream.read(most + 1)
    if len(data) > most:
        raise CliError(f"{path}: more than {most} bytes", number=errno.EFBIG)
    return data


def check_new(path: Path) -> None:
    """Keys are never written over."""
    if os.path.lexists(path):
        raise CliError(f"{path} is there already; nothing was changed", "name another", errno.EEXIST)


def check_replaceable(path: Path) -> None:
    """A bundle may be written over, anything else may not."""
    if not os.path.lexists(path):
        return
    if not path.is_file():
        raise UsageError(f"{path} is no file; nothing was changed", "name another with --output")
    with path.open("rb") as stream:
        if stream.read(8) != b"SPKVBNDL":
            raise UsageError(
                f"{path} is something else than a bundle; nothing was changed", "name another with --output"
            )


def write(path: Path, data: bytes | bytearray, *, mode: int | None = None, new: bool = False) -> None:
    """Write a file so that it is seen whole, or not at all. `new`: fail when something is there."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchmod(stream.fileno(), _mode(path) if mode is None else mode)
            os.fsync(stream.fileno())
        if new:
            os.link(name, path)
        else:
            os.replace(name, path)
            return
    except FileExistsError:
        check_new(path)
        raise
    finally:
        if os.path.lexists(name):
            os.unlink(name)


def _mode(path: Path) -> int:
    """That of the file that is replaced, or what the process's mask leaves."""
    if path.exists():
        return path.stat().st_mode & 0o7777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
