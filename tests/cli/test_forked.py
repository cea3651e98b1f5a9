# SPDX-License-Identifier: MIT
"""The fork server reports a command's exit status and signal as a process would."""

from __future__ import annotations

import os
import socket
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.cli import forked


def test_a_command_that_ended_before_it_was_looked_at_is_told_as_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def send_and_stall(*arguments: Any) -> int:
        sent = send(*arguments)
        time.sleep(2)  # as on a busy machine
        return sent

    send = socket.send_fds
    with closing(forked.Server()) as server:
        expected = server.run(["pool", "nope"], tmp_path, dict(os.environ), 60)
        monkeypatch.setattr(socket, "send_fds", send_and_stall)
        assert server.run(["pool", "nope"], tmp_path, dict(os.environ), 60) == expected
    assert expected[0] == 2 and "nope" in expected[2]
