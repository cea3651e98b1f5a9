# SPDX-License-Identifier: MIT
"""The document of a replay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from speckvctl.exitcodes import ExitCode
from speckvctl.results.document import Document


@dataclass(frozen=True, kw_only=True)
class Replay(Document):
    schema: ClassVar[str] = "speckvctl.replay"
    device: str
    pool: str
    trace: str
    format: str
    dry_run: bool
    interrupted: bool
    codec: str
    clients: int
    block_bytes: int
    requests: int
    requests_total: int
    blocks_read: int
    blocks_written: int
    blocks_refused: int
    blocks_vanished: int
    hit_share: float | None
    bytes_raw: int
    bytes_stored: int
    ratio: float | None
    get_p50_ns: int | None
    get_p99_ns: int | None
    put_p50_ns: int | None
    put_p99_ns: int | None
    get_bytes_per_second: int | None
    put_bytes_per_second: int | None
    verified_blocks: int
    mismatches: int
    errors: int
    elapsed_ns: int | None
    problems: list[str]

    @property
    def exit_code(self) -> ExitCode:
        if self.mismatches:
            return ExitCode.VERIFICATION_FAILED
        if self.interrupted:
            return ExitCode.INTERRUPTED
        return ExitCode.FAILED if self.errors else ExitCode.DONE
