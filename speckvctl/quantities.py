# SPDX-License-Identifier: MIT
"""Text to numbers and back: sizes, times, permission bits, owners. Errors name the text that was not understood."""

from __future__ import annotations

import re
import time
from decimal import Decimal, InvalidOperation

from speckvctl.errors import UsageError

#: Powers of two for one letter, with or without "i", as lvcreate, truncate and qemu have it; of ten for "kB", "MB", ...
_POWERS = {letter: index for index, letter in enumerate("KMGTPE", 1)}
_BY_LOWER = {"": 1, "b": 1}
for _letter, _power in _POWERS.items():
    _BY_LOWER |= {_letter.lower(): 1 << 10 * _power, f"{_letter}i".lower(): 1 << 10 * _power}
    _BY_LOWER |= {f"{_letter}iB".lower(): 1 << 10 * _power, f"{_letter}B".lower(): 1000**_power}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)")
_UINT64_MAX = (1 << 64) - 1
#: What takes a limit away.
NO_LIMIT = ("none", "unlimited")


def parse_whole(text: str, option: str, least: int, most: int) -> int:
    if re.fullmatch(r"[+-]?[0-9]{1,20}", text.strip()) and least <= int(text) <= most:
        return int(text)
    raise UsageError(f"{option}: '{text[:40]}' is not a whole number from {least} to {most}")


def parse_decimal(text: str, option: str, least: float, most: float, *, or_zero: bool = False) -> float:
    """`or_zero`: 0 is accepted too, although below `least`."""
    if re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text.strip()) and len(text) < 400:
        value = float(text)
        if least <= value <= most or (or_zero and value == 0):
            return value
    zero = "0 or " if or_zero else ""
    raise UsageError(f"{option}: '{text[:40]}' is not {zero}a number from {least:.15g} to {most:.15g}")


def parse_size(text: str, option: str) -> int:
    """Bytes of "4G", "4Gi", "4GiB" (all 4 << 30), "1.5 TiB", "500kB" (500,000) or "65536"."""
    advice = f"{option} 4GiB (K M G T or KiB MiB GiB TiB are powers of 1024, kB MB GB TB of 1000; or plain bytes)"
    match = _SIZE.fullmatch(text.strip())
    factor = _BY_LOWER.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise UsageError(f"{option}: '{text}' is not a size", advice)
    try:
        size = Decimal(match[1]) * factor
    except InvalidOperation:
        raise UsageError(f"{option}: '{text}' is not a size", advice) from None
    if size > _UINT64_MAX:
        raise UsageError(f"{option}: '{text}' is more than this machine can address", advice)
    if factor == 1 and size != size.to_integral_value():
        raise UsageError(f"{option}: '{text}' is not a whole number of bytes", advice)
    return int(size.to_integral_value())  # "1.01 KiB", as sizes are shown, is 1034.24 bytes


def parse_positive_size(text: str, option: str) -> int:
    size = parse_size(text, option)
    if size == 0:
        raise UsageError(f"{option}: '{text}' is 0 bytes; a size above 0 is needed", f"{option} 4GiB")
    return size


def parse_limit(text: str, option: str) -> int:
    """Bytes of a limit, 0 for "none"."""
    if text.strip().lower() in NO_LIMIT:
        return 0
    size = parse_size(text, option)
    if size == 0:
        raise UsageError(f"{option}: '{text}' would allow nothing", f"{option} none, for no limit")
    return size


def format_size(size: int | None) -> str:
    """Three significant figures and a binary unit; exact below 1 KiB."""
    if size is None:
        return "-"
    for letter, power in reversed(_POWERS.items()):
        # Round before choosing the unit: 1023.7 MiB is 1 GiB, never "1024 MiB".
        if size >= (1 << 10 * power) * 1023.5 / 1024:
            value = size / (1 << 10 * power)
            digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
            text = f"{value:.{digits}f}"
            return f"{text.rstrip('0').rstrip('.') if '.' in text else text} {letter}iB"
    return f"{size} B"


def suggested_size(free_bytes: int | None) -> str:
    """A size for a first pool that fits with its tables: 4GiB, or the power of two that does."""
    size = 4 << 30
    while free_bytes is not None and size > 4 << 20 and size > free_bytes * 9 // 10:
        size >>= 1
    return format_size(size).replace(" ", "")


def parse_mode(text: str) -> int:
    if not re.fullmatch(r"0?[0-7]{3}", text):
        raise UsageError(f"--mode: '{text}' is not a set of permission bits", "--mode 0660")
    mode = int(text, 8)
    if mode & 0o111:
        raise UsageError(f"--mode: '{text}' has execute bits, which mean nothing on a pool", "--mode 0660")
    if not mode:
        raise UsageError("--mode: '0000' would lock out the owner too", "--mode 0600")
    return mode


def format_mode(mode: int) -> str:
    return f"{mode & 0o777:04o}"


def parse_owner(text: str) -> tuple[int, int | None]:
    """(uid, gid or None) of "USER", "USER:GROUP" or numbers; USER alone means that user's own group."""
    import grp
    import pwd

    user, colon, group = text.partition(":")
    advice = "--owner USER, --owner USER:GROUP or --owner UID:GID"
    if not user or (colon and not group):
        raise UsageError(f"--owner: '{text}' is not USER or USER:GROUP", advice)
    gid: int | None = None
    try:
        if re.fullmatch("[0-9]{1,10}", user):
            uid = int(user)
        else:
            entry = pwd.getpwnam(user)
            uid, gid = entry.pw_uid, entry.pw_gid
    except KeyError:
        raise UsageError(f"--owner: there is no user '{user}'", advice) from None
    try:
        if group:
            gid = int(group) if re.fullmatch("[0-9]{1,10}", group) else grp.getgrnam(group).gr_gid
    except KeyError:
        raise UsageError(f"--owner: there is no group '{group}'", advice) from None
    if max(uid, gid or 0) >= 0xFFFFFFFF:
        raise UsageError(f"--owner: '{text}' is beyond the largest user or group number", advice)
    return uid, gid


def user_name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


_AGO = re.compile(r"([0-9]+(?:\.[0-9]+)?)(s|m|min|h|d)")
_AGO_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def parse_since(text: str, now_ns: int | None = None) -> int:
    """CLOCK_REALTIME nanoseconds of "15m", "2h", "1d" ago, or of "2026-11-23" / "2026-11-23 14:05" local time."""
    from datetime import datetime

    match = _AGO.fullmatch(text.strip())
    if match:
        now = time.time_ns() if now_ns is None else now_ns
        return max(0, now - int(Decimal(match[1]) * _AGO_SECONDS[match[2]] * 10**9))
    try:
        return int(datetime.fromisoformat(text.strip()).timestamp()) * 10**9
    except (ValueError, OverflowError):
        raise UsageError(
            f"--since: '{text}' is not a time",
            "--since 15m, --since 2h, --since 2026-11-23 or --since '2026-11-23 14:05'",
        ) from None


def format_time(nanoseconds: int | None) -> str:
    """Local time to the second, for display."""
    if not nanoseconds:
        return "-"
    seconds = nanoseconds // 10**9
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def format_duration(nanoseconds: int | None) -> str:
    if nanoseconds is None:
        return "-"
    for unit, factor in (("s", 10**9), ("ms", 10**6), ("us", 10**3)):
        if nanoseconds >= factor:
            value = nanoseconds / factor
            digits = 2 if value < 10 else 1 if value < 100 else 0
            return f"{value:.{digits}f} {unit}"
    return f"{nanoseconds} ns"


def format_share(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}%"


def format_ratio(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}x"


def format_count(count: int | None) -> str:
    return "-" if count is None else f"{count:,}"
