# SPDX-License-Identifier: MIT
"""Trusted signing keys: the public keys in /etc/speckv/keys.d, or those given instead."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path

from speckvctl.bundles import files
from speckvctl.errors import AbsentError, DeniedError

FOLDER = Path("/etc/speckv/keys.d")


@dataclass(frozen=True)
class TrustedKey:
    path: Path
    public: bytes
    key_id: bytes


def trusted(named: list[Path] | None) -> list[TrustedKey]:
    """The keys in the named files and folders, or else in /etc/speckv/keys.d."""
    paths: list[Path] = []
    for place in named or [FOLDER]:
        if place.is_dir():
            paths += sorted(place.glob("*.pub"))
        elif named:
            paths.append(place)
    if not paths:
        where = " or ".join(map(str, named or [FOLDER]))
        raise AbsentError(f"no key is trusted: no *.pub in {where}", "name one with --trust KEY.pub", errno.ENOENT)
    if not named:
        for path in (FOLDER, *paths):
            _check_guarded(path)
    return [_read(path) for path in paths]


def _read(path: Path) -> TrustedKey:
    from speckv import bundle

    public = files.read_public_key(path)
    return TrustedKey(path, public, bundle.key_id(public))


def _check_guarded(path: Path) -> None:
    """A user who can write a trusted key can make this machine accept any bundle."""
    status = path.stat()
    if status.st_uid != 0 or status.st_mode & 0o022:
        raise DeniedError(
            f"{path} can be written by users other than root, so no key in {FOLDER} is trusted",
            f"chown root {path} && chmod go-w {path}",
            errno.EPERM,
        )
