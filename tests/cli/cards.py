# SPDX-License-Identifier: MIT
"""Cards for tests of the command line, in the test's own runtime folder."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

import speckv
from speckv import bundle
from speckv.card import Admin

from speckvctl.cards import emulation

REPOSITORY = Path(__file__).resolve().parents[2]
RELEASED = REPOSITORY / "bitstreams" / "regs-only-ecp5-85f.bundle"
TEST_SECRET = bundle.secret_from_pem((REPOSITORY / "bitstreams" / "keys" / "test.pem").read_bytes())
PART = "LFE5U-85F-6BG381C"

#: Offsets of the bundles in the file `flash` (libspeckv/card/MEMORY.md), for slots of 8 MiB.
SLOT_A = 4 * 4096 + 4096
SLOT_B = SLOT_A + (8 << 20) + 4096


class Card:
    """emu:card0."""

    name = "emu:card0"

    def __init__(self, context: speckv.Context, **request: object) -> None:
        self.context = context
        self.request = emulation.StartRequest(**{"memory_bytes": 64 << 20, **request})  # type: ignore[arg-type]
        self.start()

    def start(self) -> None:
        emulation.start(self.context, "card0", self.request)

    def again(self) -> None:
        """Start it again after a kill or a stop."""
        emulation.start(self.context, "card0", emulation.StartRequest())

    @property
    def folder(self) -> Path:
        return Path(self.context.runtime_dir, "emu", "card0").resolve()

    @property
    def pid(self) -> int:
        pid = emulation.holder(self.folder)
        assert pid is not None
        return pid

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)
        self.wait_for_end()

    def wait_for_end(self) -> None:
        assert emulation._ends(self.folder)

    def administer(self) -> Admin:
        return Admin(self.context, self.name)

    def running(self) -> tuple[str, str]:
        with self.administer() as admin:
            info = admin.info()
            return str(info.running), info.rtl_revision

    def flash_digest(self) -> str:
        return sha256((self.folder / "flash").read_bytes()).hexdigest()

    def in_slot(self, at: int, size: int) -> bytes:
        with (self.folder / "flash").open("rb") as file:
            file.seek(at)
            return file.read(size)


def make_bundle(
    path: Path,
    *,
    secret: bytes | None = TEST_SECRET,
    part: str = PART,
    security_version: int = 0,
    revision: tuple[int, int, int] = (1, 2, 3),
    size: int = 200_000,
) -> Path:
    """A bundle of a synthetic bitstream, several download pieces long."""
    bitstream = b"".join(sha256(f"{revision} {n}".encode()).digest() for n in range(size // 32 + 1))[:size]
    major, minor, patch = revision
    manifest = bundle.Manifest(
        name="speckv",
        configuration="test",
        part=part,
        tools="none",
        build_id=sha256(str(revision).encode()).digest()[:8],
        clock_hz=1,
        fmax_hz=2,
        map_major=0,
        map_minor=0,
        rtl_major=major,
        rtl_minor=minor,
        rtl_patch=patch,
        security_version=security_version,
    )
    made = bundle.build(manifest, bitstream)
    if secret is not None:
        bundle.sign(made, secret)
    path.write_bytes(made)
    return path


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Suspend a process (SIGSTOP) for a while."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
