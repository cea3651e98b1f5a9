# SPDX-License-Identifier: MIT
"""speckvctl device: list, show, selftest, close."""

from __future__ import annotations

import errno

from speckvctl import library, results
from speckvctl.commands.options import App, Device, DryRun, Json, Yes
from speckvctl.console import confirm, progress
from speckvctl.render import finish
from speckvctl.render.text import plural

app = App(no_args_is_help=True)


@app.callback()
def device() -> None:
    """Find, describe, test and close devices.

    A device is a host engine (host:DRAM, host:numaN, host:/path/to/file, host:/dev/daxX.Y). Its first pool makes it:
    see speckvctl pool create.

    \b
    Examples:
      speckvctl device list
      speckvctl device show host:DRAM
    """


@app.verb("list")
def list_devices(as_json: Json = False) -> None:
    """List the host engines there are, and the hardware that could carry one.

    Hardware is what the kernel shows: memory-only NUMA nodes, devdax nodes, CXL memory and cards. The last column says
    what to type before it can be used.

    \b
    Examples:
      speckvctl device list
      speckvctl device list --json
    """
    with library.context() as ctx:
        devices = [library.device_result(info) for info in ctx.devices()]
    finish(results.DeviceList(devices=devices, hardware=library.hardware()), as_json=as_json)


@app.verb("show")
def show_device(device: Device, as_json: Json = False) -> None:
    """Show one device: what lies there, its room, its pools, and who manages it now.

    A medium that is not ready (foreign, of another version, half made, cut short) is shown too: nothing is changed.

    \b
    Examples:
      speckvctl device show host:DRAM
      speckvctl device show host:DRAM --json
    """
    library.check_device_name(device)
    with library.context() as ctx:
        info = ctx.probe(device)
        library.require_ready(info)
        pools: list[results.Pool] = []
        if info.state == "ready":
            with ctx.open(device) as dev:
                info = dev.info()
                pools = [library.pool_result(device, pool) for pool in dev.pools()]
    finish(results.DeviceShow(device=library.device_result(info), pools=pools), as_json=as_json)


@app.verb("selftest")
def selftest_device(device: Device, as_json: Json = False) -> None:
    """Test a device: superblock, checksum kernels, codec modes, and its memory. Nothing that is stored is changed.

    Exit code 7 when a step fails.

    \b
    Examples:
      speckvctl device selftest host:DRAM
    """
    with library.device(device) as dev, progress("self-test", "steps") as tell:
        done = 0

        def on_step(_: object) -> None:
            nonlocal done
            done += 1
            tell(done, 0)

        tell(0, 0)
        steps = [
            results.Step(
                name=step.name,
                passed=step.result == 0,
                errno=errno.errorcode.get(-step.result) if step.result else None,
                elapsed_ns=step.elapsed_ns,
                detail=step.detail,
            )
            for step in dev.selftest(on_step)
        ]
    passed = all(step.passed for step in steps)
    finish(results.DeviceSelftest(device=device, passed=passed, steps=steps), as_json=as_json)


@app.verb("close")
def close_device(device: Device, yes: Yes = False, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Close a host engine for good, with every pool on it, and give its memory back.

    What its pools hold is zeroed and lost, so --yes is needed when there are any. Pools in use keep the device open:
    the error names their users.

    \b
    Examples:
      speckvctl device close host:DRAM --dry-run
      speckvctl device close host:DRAM --yes
    """
    library.check_device_name(device)
    with library.context() as ctx:
        library.require_ready(ctx.probe(device))
        with ctx.open(device) as dev:
            info, pools = dev.info(), dev.pools()
        names = [pool.config.name for pool in pools]
        blocks = sum(pool.blocks for pool in pools)
        if pools and not dry_run:
            held = f"{plural(len(names), 'pool')} ({', '.join(names)}) with {plural(blocks, 'block')}"
            loss = f"closing {device} destroys {held}"
            confirm(loss, yes=yes, as_json=as_json, command=f"speckvctl device close {device}")
        if not dry_run:
            with progress(f"closing {device}") as tell:
                tell(0, 0)
                ctx.remove(device, pools=bool(pools))
    finish(
        results.DeviceClose(
            device=device, dry_run=dry_run, pools_destroyed=names, blocks_lost=blocks, bytes_freed=info.used_bytes
        ),
        as_json=as_json,
    )
