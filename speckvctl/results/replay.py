# SPDX-License-Identifier: MIT
"""The document of a replay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from speckvctl.exitcodes import ExitCode
from speckvctl.results.described import Said
from speckvctl.results.document import Document


@dataclass(frozen=True, kw_only=True)
class Replay(Document):
    """What `speckvctl replay --json` prints."""

    schema: ClassVar[str] = "speckvctl.replay"
    device: Annotated[str, Said("Name of the device, as typed.")]
    pool: Annotated[str, Said("Name of the pool.")]
    trace: Annotated[str, Said("Trace file.")]
    format: Annotated[str, Said("Format of the trace.")]
    dry_run: Annotated[bool, Said("True: nothing was changed.")]
    interrupted: Annotated[bool, Said("True: ended by Ctrl-C before the end of the trace.")]
    codec: Annotated[str, Said("How blocks are stored.")]
    clients: Annotated[int, Said("Clients.", minimum=0)]
    block_bytes: Annotated[int, Said("Raw bytes of one block.", minimum=0)]
    requests: Annotated[int, Said("Requests replayed.", minimum=0)]
    requests_total: Annotated[int, Said("Requests that the trace and the limits hold.", minimum=0)]
    blocks_read: Annotated[int, Said("Blocks read.", minimum=0)]
    blocks_written: Annotated[
        int, Said("Blocks put and stored; those that another client had stored in the meantime among them.", minimum=0)
    ]
    blocks_refused: Annotated[int, Said("Blocks for which there was no room.", minimum=0)]
    blocks_vanished: Annotated[int, Said("Blocks that were found, and evicted before they were read.", minimum=0)]
    hit_share: Annotated[
        float | None,
        Said(
            "Blocks served over blocks wanted (gets, and look-ups that found nothing); null when none was wanted.",
            minimum=0,
            maximum=1,
        ),
    ]
    bytes_raw: Annotated[int, Said("Raw bytes written.", minimum=0)]
    bytes_stored: Annotated[int, Said("Bytes they took.", minimum=0)]
    ratio: Annotated[float | None, Said("Raw bytes over stored bytes; null when nothing is stored.")]
    get_p50_ns: Annotated[int | None, Said("Median time of a get, per block.", minimum=0)]
    get_p99_ns: Annotated[int | None, Said("99th percentile of a get.", minimum=0)]
    put_p50_ns: Annotated[int | None, Said("Median time of a put, per block.", minimum=0)]
    put_p99_ns: Annotated[int | None, Said("99th percentile of a put.", minimum=0)]
    get_bytes_per_second: Annotated[
        int | None, Said("Raw bytes read a second while in calls, clients added up.", minimum=0)
    ]
    put_bytes_per_second: Annotated[
        int | None, Said("Raw bytes written a second while in calls, clients added up.", minimum=0)
    ]
    verified_blocks: Annotated[int, Said("Blocks whose bytes were compared.", minimum=0)]
    mismatches: Annotated[int, Said("Blocks whose bytes were wrong.", minimum=0)]
    errors: Annotated[int, Said("Operations that failed.", minimum=0)]
    elapsed_ns: Annotated[int | None, Said("Time it took.", minimum=0)]
    problems: Annotated[list[str], Said("The first mismatches and errors, a line each.")]

    @property
    def exit_code(self) -> ExitCode:
        if self.mismatches:
            return ExitCode.VERIFICATION_FAILED
        if self.interrupted:
            return ExitCode.INTERRUPTED
        return ExitCode.FAILED if self.errors else ExitCode.DONE
