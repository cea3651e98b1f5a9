# SPDX-License-Identifier: MIT
"""speckvctl device: list, show, reset, selftest, set, inject, close."""

from __future__ import annotations

import errno
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated

import typer

from speckvctl import library, results
from speckvctl.cards import description
from speckvctl.commands.options import App, Device, DryRun, Json, Yes, decimal, whole
from speckvctl.console import confirm, progress
from speckvctl.errors import UnsupportedError, UsageError
from speckvctl.quantities import parse_size
from speckvctl.render import finish
from speckvctl.render.text import plural

if TYPE_CHECKING:
    import speckv

app = App(no_args_is_help=True)


@app.callback()
def device() -> None:
    """Find, describe, change, test and close devices.

    A device is a host engine (host:DRAM, host:numaN, host:/path/to/file, host:/dev/daxX.Y) or a card (emu:NAME). Its
    first pool makes a host engine: see speckvctl pool create. For emulated cards see speckvctl emu.

    \b
    Examples:
      speckvctl device list
      speckvctl device show host:DRAM
    """


@app.verb("list")
def list_devices(as_json: Json = False) -> None:
    """List the host engines and cards there are, and the hardware that could carry one.

    Hardware is what the kernel shows: memory-only NUMA nodes, devdax nodes, CXL memory and cards. The last column says
    what to type before it can be used.

    \b
    Examples:
      speckvctl device list
      speckvctl device list --json
    """
    with library.context() as ctx:
        engines = [library.device_result(info) for info in ctx.devices() if not library.is_card(info.name)]
        devices = [*engines, *description.devices(ctx)]
    finish(results.DeviceList(devices=devices, hardware=library.hardware()), as_json=as_json)


@app.verb("show")
def show_device(device: Device, as_json: Json = False) -> None:
    """Show one device: what lies there, its room, its pools, and who manages it now.

    A medium that is not ready (foreign, of another version, half made, cut short) is shown too: nothing is changed.
    Of a card: health, temperature, slots and what runs, settings, and who is connected.

    \b
    Examples:
      speckvctl device show host:DRAM
      speckvctl device show emu:card0 --json
    """
    library.check_device_name(device)
    if library.is_card(device):
        with library.context() as ctx:
            shown, card, inside = description.look(ctx, device, refuse=("absent", "denied"))
        finish(results.DeviceShow(device=shown, pools=inside, card=card), as_json=as_json)
        return
    with library.context() as ctx:
        info = ctx.probe(device)
        library.require_ready(info)
        pools: list[results.Pool] = []
        if info.state == "ready":
            with ctx.open(device) as dev:
                info = dev.info()
                pools = [library.pool_result(device, pool) for pool in dev.pools()]
    finish(results.DeviceShow(device=library.device_result(info), pools=pools, card=None), as_json=as_json)


@app.verb("reset")
def reset_device(
    device: Device,
    engine: Annotated[bool, typer.Option("--engine", help="Only its queue pairs and transfers.")] = False,
    counters: Annotated[bool, typer.Option("--counters", help="Only its statistics, and those of its pools.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Take their queues from clients, too.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Start a card again: its image is booted, and every connection has to begin anew. Pools and blocks stay.

    A card that clients use is not reset, and the error names them; --force does it, and their calls fail.

    \b
    Examples:
      speckvctl device reset emu:card0 --dry-run
      speckvctl device reset emu:card0
      speckvctl device reset emu:card0 --counters
    """
    from speckvctl.cards import flashing

    if engine and counters:
        raise UsageError("--engine and --counters exclude each other", f"speckvctl device reset {device} --engine")
    what = "engine" if engine else "counters" if counters else "card"
    with description.administered(device) as admin, library.context() as ctx:
        lost = 0 if counters else len(description.clients(ctx, admin))
        if lost and not force:
            flashing.refuse_clients(ctx, admin)
        info = admin.info()
        if not dry_run:
            events = admin.events()
            admin.reset(what)
            if what == "card":
                info = flashing.wait_for_boot(ctx, device, events[-1].sequence if events else 0)
    document = results.DeviceReset(
        device=device, dry_run=dry_run, what=what, running_image=str(info.running), functions_lost=lost
    )
    finish(document, as_json=as_json)


@app.verb("selftest")
def selftest_device(device: Device, as_json: Json = False) -> None:
    """Test a device: superblock, checksum kernels, codec modes, and its memory. Nothing that is stored is changed.

    A card tests itself: memory, DMA, codec modes, translation, predictor and flash. Exit code 7 when a step fails.

    \b
    Examples:
      speckvctl device selftest host:DRAM
      speckvctl device selftest emu:card0
    """
    opened: AbstractContextManager[speckv.Device | speckv.card.Admin] = (
        description.administered(device) if library.is_card(device) else library.device(device)
    )
    with opened as dev, progress("self-test", "steps") as tell:
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


@app.verb("set")
def set_device(
    device: Device,
    prefetch_depth: Annotated[
        int | None,
        whole("--prefetch-depth", metavar="N", least=0, most=16, help="Steps ahead, 1 to 16; 0: adapts by itself."),
    ] = None,
    prefetch_rate: Annotated[
        str | None,
        typer.Option("--prefetch-rate", metavar="SIZE", help="Most bytes a second fetched ahead; 0: no limit."),
    ] = None,
    poll: Annotated[
        int | None,
        whole(
            "--poll-microseconds",
            metavar="N",
            least=0,
            most=1_000_000,
            help="How long doorbells are polled before it sleeps; 0: for ever.",
        ),
    ] = None,
    throttle: Annotated[
        float | None,
        decimal("--throttle-celsius", metavar="T", least=0, most=104.999, help="Slow down from this temperature on."),
    ] = None,
    scrub: Annotated[
        int | None,
        whole("--scrub-seconds", metavar="N", least=0, most=2**32 - 1, help="Scrub memory once in so long; 0: never."),
    ] = None,
    recall: Annotated[
        int | None,
        whole(
            "--recall-timeout-ms", metavar="N", least=1, most=600_000, help="Fence a client that is silent for so long."
        ),
    ] = None,
    save: Annotated[bool, typer.Option("--save", help="Keep it when the card is started again.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Change a card's settings. Exit code 3 when nothing would change.

    \b
    Examples:
      speckvctl device set emu:card0 --prefetch-depth 4 --prefetch-rate 2GB --dry-run
      speckvctl device set emu:card0 --throttle-celsius 80 --save
    """
    from speckvctl.cards import settings

    wanted = {
        "prefetch_depth": prefetch_depth,
        "prefetch_bytes_per_second": None if prefetch_rate is None else parse_size(prefetch_rate, "--prefetch-rate"),
        "poll_microseconds": poll,
        "throttle_millicelsius": None if throttle is None else round(throttle * 1000),
        "scrub_seconds": scrub,
        "recall_timeout_ms": recall,
    }
    named = {name: value for name, value in wanted.items() if value is not None}
    if not named:
        raise UsageError("nothing was named to set", f"speckvctl device set {device} --prefetch-depth 4")
    with description.administered(device) as admin:
        document = settings.change(admin, named, save=save, dry_run=dry_run)
    finish(document, as_json=as_json)


@app.verb("inject")
def inject_fault(
    device: Device,
    fault: Annotated[str, typer.Argument(metavar="FAULT", help="Which one; the list is above.")],
    pool: Annotated[str | None, typer.Option("--pool", metavar="POOL", help="The pool that it is about.")] = None,
    value: Annotated[int, whole("--value", metavar="N", least=0, most=2**64 - 1, help="As the fault says.")] = 0,
    count: Annotated[int, whole("--count", metavar="N", least=0, most=2**32 - 1, help="How many times.")] = 1,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Make an emulated card fail, to see what the others do then. No other device can.

    \b
    lost-interrupt       the next COUNT interrupts do not arrive
    duplicate-interrupt  the next COUNT interrupts arrive twice
    poison               the page at address VALUE of POOL is bad; COUNT 0: heals
    corrected-error      COUNT corrected memory errors are counted
    torn-program         the next flash write stops after VALUE bytes
    torn-erase           the next flash erase stops after VALUE bytes
    slow                 COUNT commands (of POOL) take VALUE nanoseconds longer
    stuck, unstick       COUNT commands never complete; those that hang go on
    lost-completion      the next COUNT commands are done and not answered
    bad-boot             the next COUNT first boots do not report healthy
    fatal                the card stops, with cause VALUE of FATAL_CAUSE
    temperature          the card is VALUE millidegrees Celsius warm
    power-cut            power is lost after VALUE more bytes of flash

    \b
    Examples:
      speckvctl device inject emu:card0 temperature --value 90000 --dry-run
      speckvctl device inject emu:card0 torn-program --value 100
    """
    import speckv

    library.check_device_name(device)
    if not library.is_card(device):
        raise UnsupportedError(f"{device}: only emulated cards fail when they are asked to", "speckvctl emu list")
    if fault not in speckv.card.FAULTS:
        raise UsageError(f"there is no fault '{fault}'", f"one of {', '.join(speckv.card.FAULTS)}")
    with description.administered(device) as admin, library.context() as ctx:
        number = admin.pool_number(pool) if pool is not None else 0
        if not dry_run:
            speckv.card.inject(ctx, device, fault, pool=number, value=value, count=count)
    document = results.DeviceInject(device=device, dry_run=dry_run, fault=fault, pool=pool, value=value, count=count)
    finish(document, as_json=as_json)


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
    if library.is_card(device):
        stop = f"speckvctl emu stop {device.removeprefix('emu:')} --remove"
        raise UnsupportedError(f"{device} is a card: only host engines are closed", stop)
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
