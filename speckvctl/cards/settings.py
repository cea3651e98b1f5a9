# SPDX-License-Identifier: MIT
"""Settings that `device set` changes on a card, and their display form."""

from __future__ import annotations

import errno
from contextlib import suppress
from typing import TYPE_CHECKING

from speckvctl import results
from speckvctl.errors import NothingToDoError, UsageError
from speckvctl.quantities import format_size

if TYPE_CHECKING:
    from speckv import card


#: Display names.
LABELS = {
    "throttle_millicelsius": "throttle",
    "interrupt_coalescing": "interrupts",
    "scrub_seconds": "scrub",
    "prefetch_bytes_per_second": "prefetch rate",
    "prefetch_depth": "prefetch depth",
    "recall_timeout_ms": "recall timeout",
    "poll_microseconds": "poll",
}


def check_throttle(admin: card.Admin, celsius: float) -> None:
    """Refuse a temperature that the card would refuse, with a clearer message."""
    trip = admin.health().trip_millicelsius
    if not 0 <= celsius * 1000 < trip:
        raise UsageError(
            f"--throttle-celsius: {celsius:g} is not between 0 and {trip / 1000:g}, where {admin.name} stops",
            "--throttle-celsius 80",
        )


def change(admin: card.Admin, wanted: dict[str, int], *, save: bool, dry_run: bool) -> results.DeviceSet:
    """Apply the settings that differ. `save` writes all that were named: a current value may not be saved yet."""
    from speckvctl.cards import access

    before = access.settings(admin)
    changed = {name: value for name, value in wanted.items() if before[name] != value}
    if not changed and not save:
        raise NothingToDoError(f"{admin.name}: already as requested", None, errno.EALREADY)
    if not dry_run:
        _set_all(admin, wanted if save else changed, before, save=save)
    return results.DeviceSet(
        device=admin.name,
        dry_run=dry_run,
        saved=save and not dry_run,
        changes=[
            results.Change(setting=LABELS[name], before=as_text(name, before[name]), after=as_text(name, value))
            for name, value in changed.items()
        ],
        settings={**before, **wanted} if dry_run else access.settings(admin),
    )


def _set_all(admin: card.Admin, wanted: dict[str, int], before: dict[str, int], *, save: bool) -> None:
    """Apply all settings or none: a refusal rolls back those already set."""
    import speckv

    done: list[str] = []
    try:
        for name, value in wanted.items():
            done.append(name)
            admin.set(name, value, save=save)
    except speckv.SpeckvError as exc:
        refused = done.pop()
        for name in done:
            with suppress(speckv.SpeckvError):
                admin.set(name, before[name], save=save)
        if isinstance(exc, speckv.InvalidError):
            text = as_text(refused, wanted[refused])
            raise UsageError(f"{admin.name} refuses {LABELS[refused]} {text}; nothing was changed") from exc
        raise


def as_text(name: str, value: int) -> str:
    match name:
        case "throttle_millicelsius":
            return f"{value / 1000:g} C"
        case "prefetch_bytes_per_second":
            return f"{format_size(value)}/s" if value else "no limit"
        case "prefetch_depth":
            return str(value) if value else "adaptive"
        case "scrub_seconds":
            return f"every {value} s" if value else "off"
        case "interrupt_coalescing":
            return f"{value & 0xFFFF} completions or {value >> 16} us" if value else "off"
        case "poll_microseconds":
            return f"{value} us" if value else "no limit"
        case "recall_timeout_ms":
            return f"{value} ms"
        case _:
            return str(value)
