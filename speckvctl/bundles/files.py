# SPDX-License-Identifier: MIT
"""Files of bundles and keys."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from speckvctl.errors import DamagedError, UsageError
from speckvctl.files import read

KEY_BYTES_MAX = 1 << 16


@contextmanager
def refusals(path: Path) -> Iterator[None]:
    """Add the file's name and the next command to the library's refusal of its contents."""
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

    return read(path, bundle.BYTES_MAX)


def read_bitstream(path: Path) -> bytes:
    from speckv import bundle

    return read(path, bundle.BYTES_MAX)


def read_text(path: Path) -> bytes:
    return read(path, KEY_BYTES_MAX)


def read_secret_key(path: Path) -> bytes:
    from speckv import bundle

    pem = read_text(path)
    with refusals_of_keys(path):
        return bundle.secret_from_pem(pem)


def read_public_key(path: Path) -> bytes:
    return public_key_of(path, read_text(path))


def public_key_of(path: Path, pem: bytes) -> bytes:
    """Parse a public key file."""
    from speckv import bundle

    with refusals_of_keys(path):
        return bundle.public_from_pem(pem)


@contextmanager
def refusals_of_keys(path: Path) -> Iterator[None]:
    from speckv import bundle

    try:
        yield
    except bundle.RefusedError as exc:
        raise UsageError(f"{path}: {exc}", "speckvctl bitstream keygen NAME", exc.errno) from exc


def check_replaceable(path: Path) -> None:
    """Only a bundle may be overwritten."""
    if not os.path.lexists(path):
        return
    if not path.is_file():
        raise UsageError(f"{path} is not a regular file; nothing was changed", "name another with --output")
    with path.open("rb") as stream:
        if stream.read(8) != b"SPKVBNDL":
            raise UsageError(f"{path} is not a bundle; nothing was changed", "name another with --output")
