# SPDX-License-Identifier: MIT
"""Emulated cards as processes: find, start, stop. The holder of the lock in a card's folder is the card's process.

RUNTIME/emu/NAME is the folder, or a link to it: memory, flash and uuid are the card's own; `card.json` has its creation
parameters, `keys.d` its keys, `log` the output of its process.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import uuid
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from speckvctl import describe, folders
from speckvctl.bundles import files
from speckvctl.cards.testkey import TEST_PUBLIC_KEY
from speckvctl.errors import (
    AbsentError,
    BusyError,
    CliError,
    NothingToDoError,
    UnsupportedError,
    UsageError,
)
from speckvctl.quantities import format_size
from speckvctl.results.cards import EmulatedCard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import speckv

PROGRAM = "speckv-emu"
MEMORY_BYTES = 1 << 30
#: A smaller card has no room for a pool beside its tables; the emulator takes no larger one.
MEMORY_BYTES_MIN, MEMORY_BYTES_MAX = 8 << 20, 16 << 40
#: Keys that the flash of a card has room for.
KEY_SLOTS = 4
START_SECONDS = 30
STOP_SECONDS = 5
#: The files of a card's folder; no other file in it is ever removed.
KEPT = ("memory", "flash", "flash.new", "uuid", "uuid.new", "card.json", "log", "flash.lock", "lock")
SOCKETS = ("admin", "io", "control")
LOCK = "lock"
#: Lock in the folder of all cards, held while a card is created or removed.
MANAGING = ".lock"


@dataclass(frozen=True, kw_only=True)
class Making:
    """Creation parameters of a card; immutable."""

    memory_bytes: int
    factory: bool
    power_cycle: bool


@dataclass(frozen=True, kw_only=True)
class StartRequest:
    """Parameters of a start; None: as the card was created, or the default."""

    folder: Path | None = None
    memory_bytes: int | None = None
    factory: bool | None = None
    power_cycle: bool | None = None
    keys: tuple[bytes, ...] = ()


def name_of(text: str) -> str:
    """The name of a card, given as NAME or as emu:NAME."""
    name = text.removeprefix("emu:")
    good = name and name[0] not in ".-" and len(name) < 64
    if not good or not all(c.isascii() and (c.isalnum() or c in "._-") for c in name):
        raise UsageError(
            f"'{text}' is not a card's name: letters, digits, '.', '_' and '-', at most 63, '.' and '-' not first"
        )
    return name


def place(ctx: speckv.Context, name: str) -> Path:
    return Path(ctx.runtime_dir, "emu", name)


# ---- lock holder -----------------------------------------------------------------------------------------------------


def is_running(folder: Path) -> bool:
    """Whether the card's process holds its lock; the state of its sockets does not matter.

    Only the owner can open the lock file, and so hold the lock. A lock of another user on the folder is ignored.
    """
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except PermissionError:
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return False
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def holder(folder: Path) -> int | None:
    """The holder of a card's lock, from the kernel's list of locks."""
    try:
        status = (folder / LOCK).lstat()
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    wanted = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for line in lines:
        words = line.split()
        if len(words) > 5 and words[1:2] == ["FLOCK"] and words[5] == wanted:
            pid = int(words[4])
            return pid if pid > 0 else None
    return None


# ---- look-up ---------------------------------------------------------------------------------------------------------


def find(ctx: speckv.Context, name: str) -> EmulatedCard:
    """A card by its name, running or not."""
    folder = place(ctx, name)
    if not os.path.lexists(folder):
        raise AbsentError(f"no emulated card {name}", f"speckvctl emu start {name}", errno.ENOENT)
    return described(ctx, name)


def all_cards(ctx: speckv.Context) -> list[EmulatedCard]:
    from speckv import card

    return [described(ctx, device.removeprefix("emu:")) for device in card.emulated(ctx)]


def described(ctx: speckv.Context, name: str) -> EmulatedCard:
    import speckv

    link = place(ctx, name)
    folder = Path(os.path.realpath(link))
    making, status, pid = _read_making(folder), None, None
    state, detail = "stopped", f"speckvctl emu start {name}"
    if not folder.is_dir():
        state, detail = "lost", f"its folder is gone; speckvctl emu stop {name} --remove removes its name"
    elif is_running(folder):
        pid = holder(folder)
        try:
            status = speckv.card.status(ctx, f"emu:{name}")
            state, detail, pid = "running", "", status.pid
        except speckv.PermissionDeniedError as exc:
            state, detail = "running", str(exc)
        except speckv.SpeckvError as exc:
            state, detail = "hung", str(exc)
    return EmulatedCard(
        name=name,
        device=f"emu:{name}",
        state=state,
        detail=detail,
        folder=str(folder),
        log=str(folder / "log"),
        pid=pid,
        memory_bytes=status.memory_bytes if status else making.memory_bytes if making else None,
        factory=making.factory if making else None,
        engine=status.engine if status else None,
        running_image=str(status.running) if status else None,
        started_ns=status.started_ns if status else None,
        functions=describe.card_functions(status) if status else [],
    )


def _read_making(folder: Path) -> Making | None:
    try:
        known = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        return Making(**known)
    except (OSError, ValueError, TypeError):
        return None


# ---- starting --------------------------------------------------------------------------------------------------------


def program() -> Path:
    """speckv-emu, installed beside speckvctl."""
    folders = [Path(sys.executable).parent, Path(sysconfig.get_path("scripts")), Path(sys.argv[0]).resolve().parent]
    for folder in folders:
        if os.access(folder / PROGRAM, os.X_OK):
            return folder / PROGRAM
    found = shutil.which(PROGRAM)
    if found is None:
        raise UnsupportedError(f"{PROGRAM} is not installed beside speckvctl", "pip install . in the source tree")
    return Path(found)


def plan(ctx: speckv.Context, name: str, request: StartRequest) -> tuple[Path, Making, bool]:
    """Folder and parameters of a start, and whether the card is new; refuses all that a start would, if foreseeable."""
    _check_managing(ctx)
    link = place(ctx, name)
    folder = Path(os.path.realpath(link))
    if os.path.lexists(link) and not folder.is_dir():
        raise AbsentError(
            f"the folder of emu:{name}, {folder}, is gone", f"speckvctl emu stop {name} --remove", errno.ENOENT
        )
    if request.folder is not None:
        wanted = Path(os.path.realpath(request.folder))
        if os.path.lexists(link) and wanted != folder:
            raise UsageError(f"emu:{name} lives in {folder}, not in {wanted}; nothing was changed", "another NAME")
        folder = wanted
    if (
        folder.parent.is_dir() or request.folder is not None
    ):  # otherwise the start creates the folder of all cards first
        _check_folder(ctx, folder)
    if is_running(folder):
        pid = holder(folder)
        _agree(name, folder, request, False)
        raise NothingToDoError(
            f"emu:{name} is running already" + (f", as process {pid}" if pid else ""),
            f"speckvctl emu status {name}",
            errno.EALREADY,
        )
    fresh = not (folder / "memory").exists()
    if fresh and folder.is_dir() and not all(map(_is_own, os.listdir(folder))):
        raise UsageError(
            f"{folder} holds something other than a card; nothing was changed", "an empty folder with --dir"
        )
    return folder, _agree(name, folder, request, fresh), fresh


def _is_own(name: str) -> bool:
    """Whether a name belongs to a card's folder, or is a leftover of a killed start."""
    return name in (*KEPT, *SOCKETS, "keys.d") or folders.draft_of(name) in KEPT


def _check_managing(ctx: speckv.Context, *, make: bool = True) -> None:
    """Refuse what _managing() would refuse; create nothing."""
    runtime = Path(ctx.runtime_dir)
    if make and not folders.check_opens(ctx, runtime):
        return
    if make and not folders.check_opens(ctx, runtime / "emu", link=False):
        return
    with folders.runtime(ctx, "emu") as cards:
        if cards.has(MANAGING):
            os.close(cards.open(MANAGING, os.O_RDWR))
        else:
            folders.check_writable(cards.path, f"cannot make {cards.path / MANAGING}")


def _check_folder(ctx: speckv.Context, path: Path) -> None:
    """Refuse a card's folder that a start could not write to."""
    if not folders.check_opens(ctx, path):
        return
    folders.check_writable(path, f"cannot write in {path}")
    with folders.opened(ctx, path) as folder:
        if folder.has("log"):
            os.close(folder.open("log", os.O_RDWR | os.O_APPEND))
    trusted_keys(ctx, path)


def _agree(name: str, folder: Path, request: StartRequest, fresh: bool) -> Making:
    """Compare the request with an existing card, whose parameters are immutable."""
    made = None if fresh else _read_making(folder)
    if made is None and not fresh:  # not started by speckvctl: take the size from its files
        made = Making(memory_bytes=(folder / "memory").stat().st_size, factory=bool(request.factory), power_cycle=False)
    if made is None:
        memory = request.memory_bytes or MEMORY_BYTES
        if not MEMORY_BYTES_MIN <= memory <= MEMORY_BYTES_MAX:
            least, most = format_size(MEMORY_BYTES_MIN), format_size(MEMORY_BYTES_MAX)
            raise UsageError(f"--memory: {format_size(memory)}: a card has {least} to {most}", "--memory 1GiB")
        if len(request.keys) > KEY_SLOTS:
            raise UsageError(f"--key: {len(request.keys)} keys, and a card has room for {KEY_SLOTS}", "fewer --key")
        return Making(
            memory_bytes=memory,
            factory=bool(request.factory),
            power_cycle=bool(request.power_cycle),
        )
    for field, option in (("memory_bytes", "--memory"), ("factory", "--factory"), ("power_cycle", "--power-cycle")):
        wanted = getattr(request, field)
        if wanted is not None and wanted != getattr(made, field):
            has = getattr(made, field)
            is_so = f"has {format_size(has)} of memory" if field == "memory_bytes" else f"was made {_with(option, has)}"
            raise UsageError(
                f"{option}: emu:{name} {is_so}, and cannot be changed; nothing was done",
                f"speckvctl emu stop {name} --remove, and start it again",
            )
    if request.keys:
        raise UsageError(
            f"--key: the keys of emu:{name} were written when it was made; nothing was changed",
            f"speckvctl emu stop {name} --remove, and start it again",
        )
    return made


def _with(option: str, has: bool) -> str:
    return f"with {option}" if has else f"without {option}"


def too_large(name: str, folder: Path, making: Making) -> str | None:
    """Warning if a card's memory exceeds its file system: it starts, and pools that do not fit are refused."""
    room = os.statvfs(next(place for place in (folder, *folder.parents) if place.is_dir()))
    free, machine = room.f_bavail * room.f_frsize, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError):  # blocks already allocated are not needed again
        free += (folder / "memory").stat().st_blocks * 512
    if making.memory_bytes <= free:
        return None
    return (
        f"emu:{name} has {format_size(making.memory_bytes)} of memory, more than {folder} has free "
        f"({format_size(free)}; the machine has {format_size(machine)}): pools that do not fit are refused"
    )


def start(
    ctx: speckv.Context, name: str, request: StartRequest, *, warn: Callable[[str], None] | None = None
) -> EmulatedCard:
    """Start a card in the background; return when it is ready. `warn` is called if it is too large."""
    executable = program()
    if not os.path.lexists(place(ctx, name).parent / MANAGING):
        plan(ctx, name, request)  # a refusal creates no folder
    with _managing(ctx, make=True) as cards:
        path, making, fresh = plan(ctx, name, request)
        existed = path.exists()
        with (
            folders.opened(ctx, path, make=True) as folder,
            _undone_unless_started(cards, name, folder, fresh, existed),
        ):
            if not cards.has(name):
                cards.link(name, path)
            if fresh:
                _write_keys(folder, request.keys or (TEST_PUBLIC_KEY,))
                folder.write("card.json", f"{json.dumps(asdict(making))}\n".encode())
            _launch(executable, name, folder, making)
            if warn and (large := too_large(name, path, making)):
                warn(large)
    return described(ctx, name)


@contextmanager
def _managing(ctx: speckv.Context, *, make: bool = False) -> Iterator[folders.Folder]:
    """Lock the folder of all cards: create and remove are serialised. Other users cannot open the lock."""
    with folders.runtime(ctx, "emu", make=make) as cards:
        descriptor = cards.open(MANAGING, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield cards
        finally:
            os.close(descriptor)


@contextmanager
def _undone_unless_started(
    cards: folders.Folder, name: str, folder: folders.Folder, fresh: bool, existed: bool
) -> Iterator[None]:
    try:
        yield
    except BaseException:
        if fresh and not is_running(folder.path):
            _empty(folder)
            if not existed:
                with suppress(OSError):
                    folder.path.rmdir()
            _unlink_link(cards, name)
        raise


def _unlink_link(cards: folders.Folder, name: str) -> None:
    """Remove the link to a card's folder; a folder that is not a link stays."""
    if (cards.path / name).is_symlink():
        cards.remove(name)


def _write_keys(folder: folders.Folder, keys: tuple[bytes, ...]) -> None:
    from speckv import bundle

    with folder.enter("keys.d", make=True) as place:
        for key in keys:
            place.write(f"{bundle.key_id(key).hex()[:16]}.pub", bundle.public_to_pem(key).encode())


def _launch(executable: Path, name: str, folder: folders.Folder, making: Making) -> None:
    command = [str(executable), "--dir", str(folder.path), "--name", name, "--memory", str(making.memory_bytes)]
    command += ["--factory"] if making.factory else []
    command += ["--power-cycle"] if making.power_cycle else []
    for key in trusted_keys(folder.context, folder.path):  # provisioned when the flash is created, only then
        command += ["--key", key.hex()]
    descriptor = folder.open("log", os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    with os.fdopen(descriptor, "r+", encoding="utf-8", errors="replace") as log:
        said = log.seek(0, os.SEEK_END)
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, cwd="/", start_new_session=True
        )
        if _became_ready(process):
            process.returncode = 0  # it outlives this process: not reaped here
            return
        ended = process.poll()
        if ended is None:
            process.kill()
        process.wait()
        log.seek(said)
        why = log.read().strip().splitlines()
    raise CliError(
        why[-1].removeprefix(f"{PROGRAM}: ") if why else f"emu:{name} did not become ready (exit status {ended})",
        f"speckvctl emu status {name}",
    )


def _became_ready(process: subprocess.Popen[bytes]) -> bool:
    assert process.stdout is not None
    with process.stdout as stdout:
        if not select.select([stdout], [], [], START_SECONDS)[0]:
            return False
        return os.read(stdout.fileno(), 64) == b"ready\n"


# ---- stopping --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stopped:
    stopped: bool
    killed: bool


def check_stop(ctx: speckv.Context, card: EmulatedCard, *, remove: bool) -> None:
    """Refuse what stop() and remove() would refuse to this user, and change nothing."""
    import speckv

    folder = Path(card.folder)
    if card.state == "running":
        try:
            speckv.card.status(ctx, card.device)
        except speckv.PermissionDeniedError:
            raise
        except speckv.SpeckvError:
            pass  # hung or exited since
    if remove:
        _check_managing(ctx, make=False)
        if folder.is_dir():
            with folders.opened(ctx, folder):
                folders.check_writable(folder, f"cannot remove what is in {folder}")


def stop(ctx: speckv.Context, name: str) -> Stopped:
    """Ask a card to end; end it if it does not."""
    import speckv

    folder = Path(os.path.realpath(place(ctx, name)))
    if not is_running(folder):
        return Stopped(False, False)
    pid = holder(folder)
    try:
        speckv.card.stop(ctx, f"emu:{name}")
    except speckv.PermissionDeniedError:
        raise
    except speckv.SpeckvError:
        pass  # hung, or exiting
    if _ends(folder):
        return Stopped(True, False)
    if pid is None:
        raise CliError(
            f"emu:{name} does not stop, and the kernel does not report its process",
            f"fuser -v {folder}/lock, and end that process",
        )
    for number in (signal.SIGTERM, signal.SIGKILL):
        _signal(pid, number)
        if _ends(folder):
            return Stopped(True, number == signal.SIGKILL)
    raise CliError(f"emu:{name}: process {pid} does not end", f"kill -9 {pid}")


def _signal(pid: int, number: int) -> None:
    """Signal this process, not one that reused its pid."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if Path(f"/proc/{pid}/comm").read_text(encoding="ascii").strip() == PROGRAM:
            signal.pidfd_send_signal(descriptor, number)
    except (ProcessLookupError, FileNotFoundError):
        pass
    finally:
        os.close(descriptor)


def _ends(folder: Path) -> bool:
    until = time.monotonic() + STOP_SECONDS
    pause = 0.002
    while is_running(folder):
        if time.monotonic() > until:
            return False
        time.sleep(pause)
        pause = min(2 * pause, 0.1)
    return True


def remove(ctx: speckv.Context, name: str) -> None:
    """Remove a stopped card: memory, flash, keys."""
    with _managing(ctx) as cards:
        path = Path(os.path.realpath(place(ctx, name)))
        if is_running(path):
            raise BusyError(f"emu:{name} was started again; nothing was removed", f"speckvctl emu stop {name} --remove")
        if path.is_dir():
            with folders.opened(ctx, path) as folder:
                _forget_pools(ctx, folder)
                _empty(folder)
            with suppress(OSError):  # foreign files stay, and so does the folder
                path.rmdir()
        _unlink_link(cards, name)


def _forget_pools(ctx: speckv.Context, folder: folders.Folder) -> None:
    """Remove this machine's tables of the card's pools, by the card's uuid."""
    import speckv

    try:
        known = str(uuid.UUID(folder.read("uuid").decode("ascii").strip()))
        with folders.runtime(ctx, "cards") as tables:
            tables.remove(known)
            tables.remove_folder(f"{known}.pools", whole=True)
    except (speckv.SpeckvError, OSError, ValueError):
        return


def _empty(folder: folders.Folder) -> None:
    import speckv

    drafts = [name for name in folder.names() if folders.draft_of(name) in KEPT]
    for name in (*KEPT, *SOCKETS, *drafts):
        folder.remove(name)
    with suppress(speckv.SpeckvError), folder.enter("keys.d") as keys:
        for name in keys.names():
            if name.endswith(".pub") or folders.draft_of(name).endswith(".pub"):
                keys.remove(name)
    folder.remove_folder("keys.d")


def trusted_keys(ctx: speckv.Context, folder: Path) -> list[bytes]:
    """Keys that a card was created with."""
    import speckv

    try:
        with folders.opened(ctx, folder / "keys.d", link=False) as keys:
            names = [name for name in keys.names() if name.endswith(".pub")]
            return [files.public_key_of(keys.path / name, keys.read(name)) for name in names]
    except speckv.NotFoundError:
        return []
