# SPDX-License-Identifier: MIT
"""speckvctl device: list, show, reset, selftest, set, inject, close."""

from __future__ import annotations

import errno
import math
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated

import typer

from speckvctl import completion, describe, library, results
from speckvctl.cards import access
from speckvctl.commands.options import App, Card, Device, DryRun, HostDevice, Json, Yes, decimal, whole
from speckvctl.console import confirm, progress
from speckvctl.errors import UnsupportedError, UsageError
from speckvctl.quantities import NO_LIMIT, parse_size
from speckvctl.render import finish
from speckvctl.render.text import plural

if TYPE_CHECKING:
    import speckv

app = App(no_args_is_help=True)

#: Causes of the register FATAL_CAUSE.
FATAL_CAUSES = {1: "memory", 2: "DMA", 3: "temperature", 4: "internal", 5: "admin queue", 6: "admin doorbell"}


@app.callback()
def device() -> None:
    """Find, describe, change, test and close devices.

    A device is memory of this host (host:DRAM, host:numaN, host:/path/to/file, host:/dev/daxX.Y) or a card (emu:NAME).
    The first "pool create" creates a host device; "emu start" an emulated card.

    \b
    Examples:
      speckvctl device list
      speckvctl device show host:DRAM
    """


@app.verb("list")
def list_devices(as_json: Json = False) -> None:
    """List devices, and the hardware that could carry one.

    ALLOCATED is what pools and their tables take of a device, whether blocks fill it or not; FREE is what a new pool
    can get now, which for DRAM is also limited by the machine's free memory. Hardware is what the kernel shows:
    memory-only NUMA nodes, devdax nodes, CXL memory and cards; a line below names the command that makes it usable.

    \b
    Examples:
      speckvctl device list
      speckvctl device list --json
    """
    with library.context() as ctx:
        engines = [describe.device(info) for info in ctx.devices() if not library.is_card(info.name)]
        devices = [*engines, *access.devices(ctx)]
        next_step = None if devices else library.first_pool(ctx)
    finish(results.DeviceList(devices=devices, hardware=library.hardware(), next=next_step), as_json=as_json)


@app.verb("show")
def show_device(device: Device, as_json: Json = False) -> None:
    """Show one device: what it holds, its space, its pools, and the process that is changing it, if any.

    A device that is not ready (unrecognized, of another version, incomplete, truncated) is shown too. Nothing changes.
    Of a card: health, temperature, slots and what runs, settings, and the clients that are connected.

    \b
    Examples:
      speckvctl device show host:DRAM
      speckvctl device show emu:card0 --json
    """
    library.check_device_name(device)
    if library.is_card(device):
        with library.context() as ctx:
            shown, card, inside = access.look(ctx, device, refuse=("absent", "denied"))
        finish(results.DeviceShow(device=shown, pools=inside, card=card), as_json=as_json)
        return
    with library.context() as ctx:
        info = ctx.probe(device)
        library.require_ready(info)
        pools: list[results.Pool] = []
        if info.state == "ready":
            with ctx.open(device) as dev:
                info = dev.info()
                pools = [describe.pool(device, pool) for pool in dev.pools()]
    finish(results.DeviceShow(device=describe.device(info), pools=pools, card=None), as_json=as_json)


@app.verb("reset")
def reset_device(
    device: Card,
    engine: Annotated[bool, typer.Option("--engine", help="Reset only its queue pairs and transfers.")] = False,
    counters: Annotated[
        bool, typer.Option("--counters", help="Reset only its statistics, and those of its pools.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Disconnect clients that use it.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Restart a card: its image is booted, and every client has to reconnect. Pools and blocks stay.

    A card that clients use is not reset, and the error names them; with --force it is, and their calls fail.

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
    with access.administered(device) as admin, library.context() as ctx:
        lost = 0 if counters else len(access.clients(ctx, admin))
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
    """Test a device: superblock, checksum kernels, codecs, and its memory. Nothing that is stored is changed.

    A card tests itself: memory, DMA, codecs, translation, predictor and flash. Exit code 7 when a step fails.

    \b
    Examples:
      speckvctl device selftest host:DRAM
      speckvctl device selftest emu:card0
    """
    opened: AbstractContextManager[speckv.Device | speckv.card.Admin] = (
        access.administered(device) if library.is_card(device) else library.device(device)
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
    device: Card,
    prefetch_depth: Annotated[
        int | None,
        whole("--prefetch-depth", metavar="N", least=0, most=16, help="Steps ahead, 1 to 16; 0: adaptive."),
    ] = None,
    prefetch_rate: Annotated[
        str | None,
        typer.Option("--prefetch-rate", metavar="SIZE", help="Most bytes per second prefetched; none: no limit."),
    ] = None,
    poll: Annotated[
        int | None,
        whole(
            "--poll-microseconds",
            metavar="N",
            least=0,
            most=1_000_000,
            help="How long doorbells are polled before it sleeps; 0: it never sleeps.",
        ),
    ] = None,
    throttle: Annotated[
        float | None,
        decimal("--throttle-celsius", metavar="T", least=0, most=1000, help="Slow down from this temperature on."),
    ] = None,
    scrub: Annotated[
        int | None,
        whole("--scrub-seconds", metavar="N", least=0, most=2**32 - 1, help="Interval between memory scrubs; 0: none."),
    ] = None,
    recall: Annotated[
        int | None,
        whole(
            "--recall-timeout-ms",
            metavar="N",
            least=1,
            most=600_000,
            help="Fence a client that takes longer to answer.",
        ),
    ] = None,
    save: Annotated[bool, typer.Option("--save", help="Persist across restarts.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Change a card's settings. Exit code 3 when nothing would change.

    \b
    Examples:
      speckvctl device set emu:card0 --prefetch-depth 4 --prefetch-rate 2GB \\
          --dry-run
      speckvctl device set emu:card0 --throttle-celsius 80 --save
    """
    from speckvctl.cards import settings

    wanted = {
        "prefetch_depth": prefetch_depth,
        "prefetch_bytes_per_second": None if prefetch_rate is None else _rate(prefetch_rate),
        "poll_microseconds": poll,
        "throttle_millicelsius": None if throttle is None or not math.isfinite(throttle) else round(throttle * 1000),
        "scrub_seconds": scrub,
        "recall_timeout_ms": recall,
    }
    named = {name: value for name, value in wanted.items() if value is not None}
    if not named and throttle is None:
        raise UsageError("no setting was named", f"speckvctl device set {device} --prefetch-depth 4")
    with access.administered(device) as admin:
        if throttle is not None:
            settings.check_throttle(admin, throttle)
        document = settings.change(admin, named, save=save, dry_run=dry_run)
    finish(document, as_json=as_json)


def _rate(text: str) -> int:
    rate = 0 if text.strip().lower() in NO_LIMIT else parse_size(text, "--prefetch-rate")
    if rate >= 2**63:
        raise UsageError(f"--prefetch-rate: '{text}' is more than a card takes", "--prefetch-rate none")
    return rate


@app.verb("inject")
def inject_fault(
    device: Card,
    fault: Annotated[
        str, typer.Argument(metavar="FAULT", help="A fault from the list above.", autocompletion=completion.faults)
    ],
    pool: Annotated[
        str | None,
        typer.Option("--pool", metavar="POOL", help="The pool it affects.", autocompletion=completion.pools),
    ] = None,
    value: Annotated[
        int | None,
        whole("--value", metavar="N", least=-(2**31), most=2**64 - 1, help="Meaning and default: see the fault."),
    ] = None,
    count: Annotated[int, whole("--count", metavar="N", least=0, most=2**32 - 1, help="How often.")] = 1,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Inject a fault into an emulated card, to see how its clients handle it. No other device can.

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
    fatal                the card stops with cause VALUE: 1 memory, 2 DMA,
                         3 temperature (default), 4 internal, 5 admin queue,
                         6 admin doorbell
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
        raise UnsupportedError(f"{device}: only emulated cards take injected faults", "speckvctl emu list")
    if fault not in speckv.card.FAULTS:
        raise UsageError(f"there is no fault '{fault}'", f"one of {', '.join(speckv.card.FAULTS)}")
    value = _fault_value(fault, value)
    with access.administered(device) as admin, library.context() as ctx:
        number = admin.pool_number(pool) if pool is not None else 0
        if not dry_run:
            speckv.card.inject(ctx, device, fault, pool=number, value=value, count=count)
    document = results.DeviceInject(device=device, dry_run=dry_run, fault=fault, pool=pool, value=value, count=count)
    finish(document, as_json=as_json)


def _fault_value(fault: str, value: int | None) -> int:
    """Validate the value given for a fault, or return its default."""
    if fault == "temperature" and value is None:
        raise UsageError("--value: the temperature in millidegrees Celsius is needed", "--value 90000")
    if fault == "fatal" and value is not None and value not in FATAL_CAUSES:
        causes = ", ".join(f"{number} {cause}" for number, cause in FATAL_CAUSES.items())
        raise UsageError(f"--value: {value} is not a cause of a fatal error; there are {causes}", "--value 3")
    least = -(2**31) if fault == "temperature" else 0
    most = 2**31 - 1 if fault == "temperature" else 2**64 - 1
    if value is not None and not least <= value <= most:
        raise UsageError(f"--value: {value} is not between {least} and {most}")
    return (3 if fault == "fatal" else 0) if value is None else value


@app.verb("close")
def close_device(device: HostDevice, yes: Yes = False, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Remove a host device with every pool on it, and return its memory.

    What its pools hold is zeroed and lost, so --yes is needed when there are any. While any of its pools is in use
    nothing is changed; the error names the users.

    \b
    Examples:
      speckvctl device close host:DRAM --dry-run
      speckvctl device close host:DRAM --yes
    """
    library.check_device_name(device)
    if library.is_card(device):
        stop = f"speckvctl emu stop {device.removeprefix('emu:')} --remove"
        raise UnsupportedError(f"{device} is a card: only host devices are closed", stop)
    with library.context() as ctx:
        library.require_ready(ctx.probe(device))
        with ctx.open(device) as dev:
            info, pools = dev.info(), dev.pools()
        names = [pool.config.name for pool in pools]
        blocks = sum(pool.blocks for pool in pools)
        if pools and not dry_run:
            held = f"{plural(len(names), 'pool')} ({', '.join(names)}) with {plural(blocks, 'block')}"
            loss = f"closing {device} destroys {held}"
            confirm(loss, yes=yes, as_json=as_json, command=f"speckvctl device close {device} --yes")
        with progress(f"closing {device}") as tell:
            tell(0, 0)
            ctx.remove(device, pools=bool(pools), dry_run=dry_run)
    finish(
        results.DeviceClose(
            device=device, dry_run=dry_run, pools_destroyed=names, blocks_lost=blocks, bytes_freed=info.allocated_bytes
        ),
        as_json=as_json,
    )
