# SPDX-License-Identifier: MIT
"""The audit log of cards: append-only, one line of JSON per action."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speckvctl import folders
from speckvctl.console import note
from speckvctl.quantities import user_name

if TYPE_CHECKING:
    import speckv

NAME = "audit.jsonl"


def path(runtime_dir: str) -> Path:
    return Path(runtime_dir, NAME)


def record(ctx: speckv.Context, action: str, device: str, result: str, **facts: Any) -> Path | None:
    """Append user, action, card and result. Returns None after a warning if the log cannot be written."""
    line = {
        "time_ns": time.time_ns(),
        "uid": os.getuid(),
        "user": user_name(os.getuid()),
        "pid": os.getpid(),
        "command": " ".join(["speckvctl", *sys.argv[1:]]),
        "action": action,
        "device": device,
        "result": result,
        **facts,
    }
    file = path(ctx.runtime_dir)
    try:
        with folders.runtime(ctx) as folder:
            descriptor = folder.open(NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, (json.dumps(line) + "\n").encode())  # one write: no interleaving
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as exc:
        note(f"warning: not recorded in {file}: {exc.strerror}")
        return None
    return file
