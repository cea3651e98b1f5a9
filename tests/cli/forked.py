# SPDX-License-Identifier: MIT
"""Runs commands as forked children of a preloaded interpreter, which saves the time of imports.

A child has its own arguments, folder, environment, stdin, stdout, stderr and exit code, runs the same
`speckvctl.__main__.run` and ends as an interpreter ends.

As a script: that interpreter. It serves the socket on its stdin until the peer closes it.
"""

from __future__ import annotations

import functools
import gc
import importlib
import io
import json
import os
import pkgutil
import selectors
import signal
import socket
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

_REQUEST_BYTES = 1 << 20


class Server:
    """The server of one pytest process; started by its first command, exits with it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None

    def run(
        self, arguments: list[str], folder: Path, environment: dict[str, str], timeout: float
    ) -> tuple[int, str, str]:
        """Exit code, as subprocess has it, stdout and stderr of a command."""
        (out, out_end), (err, err_end) = os.pipe(), os.pipe()
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # two separate numbers
        request = json.dumps({"arguments": arguments, "folder": str(folder), "environment": environment}).encode()
        assert len(request) < _REQUEST_BYTES
        try:
            socket.send_fds(self._connected(), [request], [out_end, err_end, theirs.fileno()])
        finally:
            theirs.close()
            os.close(out_end)
            os.close(err_end)
        with mine, os.fdopen(out, "rb") as out_stream, os.fdopen(err, "rb") as err_stream:
            pid = int(mine.recv(32))
            try:
                said = _read([out_stream.fileno(), err_stream.fileno()], timeout)
                mine.settimeout(timeout)
                status = int(mine.recv(32))
            except TimeoutError:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                raise
        out_text, err_text = (io.TextIOWrapper(io.BytesIO(part)).read() for part in said)
        return os.waitstatus_to_exitcode(status), out_text, err_text

    def close(self) -> None:
        if self._socket is not None and self._process is not None:
            self._socket.close()
            self._process.communicate()

    def _connected(self) -> socket.socket:
        if self._socket is None:
            self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                for end in (self._socket, theirs):
                    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                        end.setsockopt(socket.SOL_SOCKET, option, _REQUEST_BYTES)
                command = [sys.executable, "-P", __file__]
                # pipes, as usual for commands: neither terminals nor files
                self._process = subprocess.Popen(command, stdin=theirs.fileno(), stdout=subprocess.PIPE, cwd="/")
        return self._socket


def _read(descriptors: list[int], timeout: float) -> list[bytes]:
    """Read all descriptors until EOF."""
    until = time.monotonic() + timeout
    said: dict[int, list[bytes]] = {descriptor: [] for descriptor in descriptors}
    with selectors.DefaultSelector() as selector:
        for descriptor in descriptors:
            selector.register(descriptor, selectors.EVENT_READ)
        while selector.get_map():
            if time.monotonic() > until:
                raise TimeoutError("a command did not end")
            for key, _ in selector.select(1):
                data = os.read(key.fd, 1 << 16)
                if data:
                    said[key.fd].append(data)
                else:
                    selector.unregister(key.fd)
    return [b"".join(said[descriptor]) for descriptor in descriptors]


# ---- the interpreter -------------------------------------------------------------------------------------------------


def preload() -> None:
    """All modules but those that need torch, which few commands load, and slowly; and the tree of the commands."""
    import typer

    import speckvctl

    sys.modules["torch"] = None  # type: ignore[assignment]
    for found in pkgutil.walk_packages(speckvctl.__path__, "speckvctl."):
        if found.name != "speckvctl.__main__":
            with suppress(ImportError):
                importlib.import_module(found.name)
    del sys.modules["torch"]
    typer.main.get_command = functools.cache(typer.main.get_command)
    from speckvctl import app, tree

    for noun in tree.NOUNS:  # builds the commands and loads the parser; no side effects
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            assert app.main([noun, "--no-such-option"]) == 2


def serve(requests: socket.socket) -> list[str] | None:
    """Fork a child for every request. Returns its arguments in a child, None at EOF."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        request, descriptors, _, _ = socket.recv_fds(requests, _REQUEST_BYTES, 3)
        if not request:
            return None
        if os.fork() == 0:
            requests.close()
            return _child(json.loads(request), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _child(request: Any, out: int, err: int, reply: int) -> list[str]:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if child:  # reaps it, and reports its status
        for descriptor in (0, 1, 2, out, err):
            os.close(descriptor)
        os.write(reply, str(child).encode())
        _, status = os.waitpid(child, 0)
        with suppress(OSError):  # the client no longer waits for it
            os.write(reply, str(status).encode())
        os._exit(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, place in ((nothing, 0), (out, 1), (err, 2)):
        os.dup2(descriptor, place)
    for descriptor in (nothing, out, err, reply):
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    arguments: list[str] = request["arguments"]
    return arguments


if __name__ == "__main__":
    preload()
    gc.freeze()
    arguments = serve(socket.socket(fileno=os.dup(0)))
    if arguments is not None:
        from speckvctl.__main__ import run

        sys.argv = [str(Path(sys.executable).parent / "speckvctl"), *arguments]
        sys.exit(run())
