# SPDX-License-Identifier: MIT
"""speckvctl replay."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from speckvctl import completion, library, results
from speckvctl.commands.options import App, Device, DryRun, Json, PoolName, decimal, whole
from speckvctl.console import note_sorted, progress
from speckvctl.errors import UsageError
from speckvctl.quantities import parse_positive_size
from speckvctl.render import finish

if TYPE_CHECKING:
    from speckvctl.replay import Plan, ReplayResult

app = App()


@app.verb("replay")
def replay(
    trace: Annotated[
        str, typer.Argument(metavar="TRACE", help="Trace, or - for stdin; gzip and xz are read as they are.")
    ],
    device: Device,
    pool: PoolName,
    trace_format: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="NAME",
            help="Format of the trace; auto looks at its first line.",
            autocompletion=completion.words("auto", "mooncake", "fleet", "weka-sessions"),
        ),
    ] = "auto",
    kv: Annotated[
        str | None,
        typer.Option(
            "--kv", metavar="FILE", help="Safetensors file of real KV for block contents. Default: the sample."
        ),
    ] = None,
    block_bytes: Annotated[
        str | None,
        typer.Option("--block-bytes", metavar="SIZE", help="Refuse a pool whose raw block size is another."),
    ] = None,
    clients: Annotated[int, whole("--clients", metavar="N", least=1, most=256, help="Client processes.")] = 1,
    speed: Annotated[
        float | None,
        decimal("--speed", metavar="X", least=1e-6, most=1e9, help="X times as fast as the trace. Default: 1."),
    ] = None,
    max_rate: Annotated[
        bool, typer.Option("--max-rate", help="As fast as the clients can, whatever the trace's times say.")
    ] = False,
    rate: Annotated[
        float | None,
        decimal("--rate", metavar="N", least=1e-6, most=1e9, help="At most N requests a second, all clients together."),
    ] = None,
    limit: Annotated[
        int | None, whole("--limit", metavar="N", least=1, most=1 << 53, help="Only the first N requests.")
    ] = None,
    until_ms: Annotated[
        float | None,
        decimal("--until-ms", metavar="MS", least=0, most=1e12, help="Only requests up to this time after the first."),
    ] = None,
    tenant: Annotated[
        str | None, typer.Option("--tenant", metavar="NAME", help="Client n is the tenant NAME-n. Default: replay.")
    ] = None,
    seed: Annotated[int, whole("--seed", metavar="N", least=0, most=2**63 - 1, help="Seed for keys and contents.")] = 0,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Drive a pool with a real serving trace, and verify every byte that is read back.

    Each id of the trace is one block. A request looks its blocks up, gets those that are there, and puts the others.
    Contents are a function of the id, so that every block read is compared with what was stored; lossy modes are
    compared with the reference decode. Exit code 7 when a byte was wrong. The hit share is that of "stats": blocks
    served over blocks that the requests wanted.

    The trace and the KV file are checked whole before the first block is put; a broken line is named by its number.

    \b
    Examples:
      speckvctl replay trace.jsonl host:DRAM chat --max-rate
      speckvctl replay trace.jsonl host:DRAM chat --clients 2 --speed 100 --json
      speckvctl replay trace.jsonl host:DRAM chat --limit 10 --dry-run
    """
    from speckvctl import replay as player

    library.check_device_name(device)
    if max_rate and (speed is not None or rate is not None):
        other = "--speed" if speed is not None else "--rate"
        raise UsageError(f"--max-rate and {other} both say how fast", "give one or the other")
    config = player.ReplayConfig(
        trace=trace,
        device=device,
        pool=pool,
        contents=kv,
        clients=clients,
        speed=None if max_rate or (rate is not None and speed is None) else 1.0 if speed is None else speed,
        max_rate=rate,
        limit=limit,
        until_ms=until_ms,
        trace_format=None if trace_format == "auto" else trace_format,
        block_bytes=parse_positive_size(block_bytes, "--block-bytes") if block_bytes else None,
        tenant=tenant,
        seed=seed,
    )
    with progress("replay", "requests") as tell:
        tell(0, 0)
        plan = player.plan(config)
        note_sorted(trace, plan.moved)
        if not dry_run:
            result = player.execute(plan, lambda now: tell(now.requests, now.requests_total))
    finish(_planned(plan) if dry_run else _replayed(plan, result), as_json=as_json)


def _planned(plan: Plan) -> results.Replay:
    return results.Replay(
        device=plan.config.device,
        pool=plan.config.pool,
        trace=str(plan.config.trace),
        format=plan.trace.format,
        dry_run=True,
        interrupted=False,
        codec=plan.setup.codec,
        clients=plan.config.clients,
        block_bytes=plan.setup.geometry.block_bytes,
        requests=0,
        requests_total=plan.requests,
        blocks_read=0,
        blocks_written=0,
        blocks_refused=0,
        blocks_vanished=0,
        hit_share=None,
        bytes_raw=0,
        bytes_stored=0,
        ratio=None,
        get_p50_ns=None,
        get_p99_ns=None,
        put_p50_ns=None,
        put_p99_ns=None,
        get_bytes_per_second=None,
        put_bytes_per_second=None,
        verified_blocks=0,
        mismatches=0,
        errors=0,
        elapsed_ns=None,
        problems=[],
    )


def _replayed(plan: Plan, result: ReplayResult) -> results.Replay:
    return replace(
        _planned(plan),
        dry_run=False,
        interrupted=result.interrupted,
        requests=result.requests,
        blocks_read=result.blocks_read,
        blocks_written=result.blocks_written,
        blocks_refused=result.blocks_refused,
        blocks_vanished=result.blocks_vanished,
        hit_share=result.hit_share,
        bytes_raw=result.bytes_raw,
        bytes_stored=result.bytes_stored,
        ratio=result.ratio,
        get_p50_ns=result.get_p50_ns,
        get_p99_ns=result.get_p99_ns,
        put_p50_ns=result.put_p50_ns,
        put_p99_ns=result.put_p99_ns,
        get_bytes_per_second=_whole(result.get_bytes_per_second),
        put_bytes_per_second=_whole(result.put_bytes_per_second),
        verified_blocks=result.verified_blocks,
        mismatches=result.mismatches,
        errors=result.errors,
        elapsed_ns=round(result.seconds * 1e9),
        problems=[*map(str, result.described), *result.problems],
    )


def _whole(number: float | None) -> int | None:
    return None if number is None else round(number)
