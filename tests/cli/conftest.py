# SPDX-License-Identifier: MIT
"""Runs the installed `speckvctl` as a process, in folders of its own.

A command that needs only arguments is a fork of an interpreter that has preloaded the installed package (forked.py).
This would hide a missing import, so every verb also runs once as a new process (test_tree.py), as do commands with an
environment or streams of their own, under signals, and in the tests of installing. SPECKV_TEST_PROCESSES=1 makes every
command a new process.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import shlex
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import speckv

from speckvctl.codecs import frames, modes, tensors
from speckvctl.prefetcher import model
from tests.cli import forked
from tests.conftest import MEMORY
from tests.unit.codec_eval import tiny

SPECKVCTL = Path(sys.executable).parent / "speckvctl"
SECONDS = 240.0  # a command that takes longer hangs


@dataclass(frozen=True)
class Finished:
    arguments: tuple[str, ...]
    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The text on stderr, which must be one line."""
        lines = self.err.splitlines()
        assert len(lines) == 1, f"{self.arguments}: not one line on stderr: {self.err!r}"
        return lines[0]

    @property
    def document(self) -> dict[str, Any]:
        document = json.loads(self.out)
        assert isinstance(document, dict)
        return document


def worded(*arguments: str | Path) -> list[str]:
    """The words of a command, with the device under test."""
    return [str(word).replace("host:DRAM", MEMORY) for word in arguments]


FORKS = forked.Server() if not os.environ.get("SPECKV_TEST_PROCESSES") else None


class Cli:
    """The command, run in a folder of its own."""

    def __init__(self, folder: Path, *, forks: bool = True) -> None:
        self.folder = folder
        self.forks = FORKS if forks else None

    def start(self, *arguments: str | Path, **settings: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(SPECKVCTL), *worded(*arguments)],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **settings,
        )

    def __call__(self, *arguments: str | Path, **settings: Any) -> Finished:
        if self.forks and not settings:
            code, out, err = self.forks.run(worded(*arguments), self.folder, dict(os.environ), SECONDS)
        else:
            with self.start(*arguments, **settings) as process:
                out, err = process.communicate(timeout=SECONDS)
            code = process.returncode
        # map texts about the card back to the device name in the test
        out, err = (text.replace(MEMORY, "host:DRAM") for text in (out, err))
        return Finished(tuple(map(str, arguments)), code, out, err)

    def line(self, command: str) -> Finished:
        """Run a command line copied from help."""
        words = shlex.split(command)
        assert words[0] == "speckvctl"
        return self(*words[1:])

    def ok(self, *arguments: str | Path) -> Finished:
        done = self(*arguments)
        assert done.code == 0, f"{done.arguments}: exit code {done.code}: {done.err}"
        return done

    def document(self, *arguments: str | Path) -> dict[str, Any]:
        """The JSON document of a successful command, validated against its schema."""
        done = self.ok(*arguments, "--json")
        assert done.err == ""
        assert done.out.endswith("}\n")
        validate(done.document)
        return done.document

    def failure(self, *arguments: str | Path) -> dict[str, Any]:
        """The JSON error of a failing command, validated against its schema and the text without --json."""
        done = self(*arguments, "--json")
        document = done.document
        validate(document)
        assert document["schema"] == "speckvctl.error", document
        error: dict[str, Any] = document["error"]
        assert error["exit_code"] == done.code != 0
        assert error["message"] in done.line
        return error


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


# ---- schemas ---------------------------------------------------------------------------------------------------------


def schema_of(name: str) -> dict[str, Any]:
    import speckvctl

    path = Path(speckvctl.__file__).parent / "schemas" / f"{name.removeprefix('speckvctl.')}.json"
    loaded = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def closed(schema: Any) -> Any:
    """Forbid additional properties: published schemas allow new keys, tests require all to be listed."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: closed(value) for key, value in schema.items()}
    if "properties" in strict and "additionalProperties" not in strict:
        strict["additionalProperties"] = False
    return strict


def validate(document: dict[str, Any]) -> None:
    schema = schema_of(document["schema"])
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(closed(schema)).validate(document)


# ---- environments ----------------------------------------------------------------------------------------------------


@pytest.fixture
def chat(cli: Cli) -> Cli:
    """A host device with a pool of 64 MiB, and a folder of input files: traces, a model, bundles, a key."""
    with speckv.Context() as context, context.open(MEMORY, create=True) as device:
        device.create_pool(speckv.PoolConfig("chat", 64 << 20))
    write_trace(cli.folder / "trace.jsonl")
    write_bundles(cli.folder)
    write_model(cli.folder)
    write_frames(cli.folder)
    write_calibration(cli.folder)
    return cli


@pytest.fixture
def card(chat: Cli) -> Cli:
    """`chat`, and emu:card0: an emulated card that trusts the signer of the bundles there."""
    chat.ok("emu", "start", "card0", "--memory", "64MiB", "--key", "test.pub")
    return chat


@pytest.fixture
def world(cli: Cli) -> Cli:
    """Three pools: one with prefetches and misses by two tenants, one that a tenant has only filled, one empty."""
    with speckv.Context() as context, context.open("host:DRAM", create=True) as device:
        device.create_pool(speckv.PoolConfig("replayed", 16 << 20))
        device.create_pool(
            speckv.PoolConfig("chat", 64 << 20, codec=speckv.Codec.Q4X, geometry=speckv.Geometry(layers=2))
        )
        device.create_pool(speckv.PoolConfig("empty", 8 << 20))
        for number, tenant in enumerate(("serve-a", "serve-b")):
            with device.attach("chat", tenant=tenant, staging_bytes=8 << 20) as pool:
                keys = [bytes([number, index]) * 16 for index in range(20 + 10 * number)]
                blocks = np.random.default_rng(number).integers(0, 60, (len(keys), pool.block_bytes), np.uint8)
                assert not pool.put(keys, blocks).any()
                while device.stats("chat").counters["prefetched"] < 3 * (number + 1):
                    pool.prefetch(keys[:6])  # a hint: one that meets another is dropped
                    time.sleep(0.02)
                pool.get([*keys[:12], b"absent" + bytes(26)], np.empty((13, pool.block_bytes), np.uint8))
        with device.attach("replayed", tenant="real") as pool:
            keys = [number.to_bytes(32, "big") for number in range(40)]
            assert not pool.put(keys, np.ones((len(keys), pool.block_bytes), np.uint8)).any()
            assert not pool.get(keys, np.empty((len(keys), pool.block_bytes), np.uint8)).any()
    return cli


def write_model(folder: Path) -> None:
    """Write the sample trace and an untrained model."""
    from speckvctl.replay import sample
    from tests.unit.prefetcher.blank import blank_model

    shutil.copy(sample.TRACE, folder / "conversations.jsonl")
    model.save(blank_model(), folder / "model.safetensors")


def write_bundles(folder: Path, bitstream: bytes = b"no bitstream, but bytes") -> None:
    """Write the output of a bitstream build, signed and unsigned bundles of it, and the key pair."""
    report: dict[str, Any] = {
        "report": "speckv.bitstream",
        "version": 0,
        "name": "speckv",
        "configuration": "regs-only",
        "part": "LFE5U-85F-6BG381C",
        "tools": "none",
        "clock_hz": 25_000_000,
        "fmax_hz": 80_000_000,
        "build_id": "0011223344556677",
        "map_major": 0,
        "map_minor": 0,
        "rtl_major": 1,
        "rtl_minor": 2,
        "rtl_patch": 3,
        "bitstream_sha256": hashlib.sha256(bitstream).hexdigest(),
    }
    (folder / "regs-only.bit").write_bytes(bitstream)
    (folder / "regs-only.json").write_text(json.dumps(report), encoding="utf-8")
    secret = bytes(range(32))
    (folder / "test.pem").write_text(speckv.bundle.secret_to_pem(secret))
    (folder / "test.pub").write_text(speckv.bundle.public_to_pem(speckv.bundle.public_key(secret)))
    manifest = speckv.bundle.Manifest(
        **{name: value for name, value in report.items() if name in speckv.bundle.Manifest.__slots__}
        | {"build_id": bytes(8), "bitstream_sha256": bytes(32), "security_version": 4}
    )
    made = speckv.bundle.build(manifest, bitstream)
    (folder / "unsigned.bundle").write_bytes(made)
    speckv.bundle.sign(made, secret)
    (folder / "regs-only.bundle").write_bytes(made)


def write_trace(path: Path, requests: int = 12) -> None:
    """Write a trace of sessions: each request repeats its predecessor's blocks and adds two."""
    with path.open("w", encoding="utf-8") as stream:
        for number in range(requests):
            session, turn = number % 3, number // 3
            ids = [session * 100 + block for block in range(2 * turn + 2)]
            request = {"timestamp": 10 * number, "input_length": 512 * len(ids), "output_length": 8, "hash_ids": ids}
            stream.write(json.dumps(request) + "\n")


def write_kv(path: Path, dtype: str = "BF16", head_dim: int = 128) -> Path:
    """A safetensors file with a K and a V tensor [2 heads][256 tokens][head_dim] of numbers like those of a cache."""
    size = {"BF16": 2, "F16": 2, "F32": 4, "F8_E4M3": 1}[dtype]
    count = 2 * 256 * head_dim * size
    tensors = {
        name: {"dtype": dtype, "shape": [2, 256, head_dim], "data_offsets": [index * count, (index + 1) * count]}
        for index, name in enumerate(("layers.0.k", "layers.0.v"))
    }
    header = json.dumps(tensors).encode()
    values = bytearray(random.Random(7).randbytes(2 * count))
    for index in range(size - 1, len(values), size):  # signs, and exponents just below that of 1
        values[index] = values[index] & 0x80 | 0x3C | values[index] & 3
    path.write_bytes(struct.pack("<Q", len(header)) + header + values)
    return path


def write_frames(folder: Path) -> None:
    """Write K and V, the same as frames, and some golden frames."""
    write_kv(folder / "kv.safetensors")
    pairs, _ = tensors.read_pairs(folder / "kv.safetensors", 64)
    frames.write(folder / "kv.frames", pairs, 64, (modes.mode("q4x").encode(pair, 64) for pair in pairs))
    golden = Path(__file__).resolve().parent.parent / "vectors"
    lines = (golden / "index.txt").read_text("ascii").splitlines(keepends=True)
    kept = [line for line in lines if "-h64-mixed" in line and line.startswith(("raw", "q4x"))]
    tiny.write(folder / "model", num_hidden_layers=1, max_position_embeddings=2048)
    tiny.write_tokenizer(folder / "model")
    np.save(folder / "tokens.npy", tiny.documents(1, 130))
    (folder / "vectors").mkdir()
    (folder / "vectors" / "index.txt").write_text("".join(kept), "ascii")
    for line in kept:
        shutil.copy(golden / f"{line.split()[0]}.frame", folder / "vectors")


def write_calibration(folder: Path) -> None:
    """Write a calibration of a model with two layers of one KV head of 64 channels."""
    golden = Path(__file__).resolve().parent.parent / "vectors" / "calibrated"
    shutil.copy(golden / "q5c-bf16-h64-halves-smooth-5.safetensors", folder / "calibration.safetensors")


HOLDER = """
import sys, numpy, speckv
device_name, pool_name, count = sys.argv[1:]
with speckv.Context() as c, c.open(device_name) as device, device.attach(pool_name, tenant="holder") as pool:
    keys = [bytes([i]) * 32 for i in range(int(count))]
    blocks = numpy.arange(len(keys) * pool.block_bytes, dtype=numpy.uint8).reshape(len(keys), pool.block_bytes)
    assert not len(keys) or not pool.put(keys, blocks).any()
    assert not len(keys) or not pool.get(keys, blocks).any()
    print("ready", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def held(pool: str, device: str = MEMORY, blocks: int = 0) -> Iterator[subprocess.Popen[str]]:
    """Another process that is attached to a pool, as the tenant "holder", after it put and got some blocks."""
    command = [sys.executable, "-c", HOLDER, device, pool, str(blocks)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdin is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            if process.poll() is None:
                process.stdin.close()
                process.wait(30)


def snapshot(folder: Path) -> dict[str, str]:
    """A digest of every file under a folder: equal snapshots mean that no file changed."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): file_digest(path) for path in files}


def digest(data: bytes) -> str:
    """Digest of a medium, without the last manager lock holder (bytes 80 to 152 of the superblock)."""
    if data.startswith(b"SPECKVM\0"):
        data = data[:80] + data[152:]
    return hashlib.sha256(data).hexdigest()


PIECE = 64 << 10


def file_digest(path: Path) -> str:
    """The same of a file, without its holes, which a card's memory mostly is; zeros and holes are the same."""
    found = hashlib.sha256()
    with path.open("rb") as stream:
        length, at = os.fstat(stream.fileno()).st_size, 0
        while at < length:
            try:
                at = os.lseek(stream.fileno(), at, os.SEEK_DATA) // PIECE * PIECE
            except OSError as exc:
                if exc.errno != errno.ENXIO:
                    raise
                break  # a hole to the end
            data = os.pread(stream.fileno(), PIECE, at)
            if data.strip(b"\0"):
                found.update(f"{at} {digest(data)}\n".encode())
            at += PIECE
    return f"{length} {found.hexdigest()}"


def described(cli: Cli) -> list[Any]:
    """The visible state of devices and pools, without free memory and tenants, which vary."""
    devices, pools = cli.document("device", "list")["devices"], cli.document("pool", "list")["pools"]
    for device in devices:
        del device["free_bytes"]
    for pool in pools:
        del pool["tenants"]
    return [devices, pools]


Unchanged = Callable[[], None]


@pytest.fixture
def unchanged(runtime_dir: Path, tmp_path: Path) -> Callable[[], Unchanged]:
    """Save the state; the returned function asserts that it is unchanged."""

    def remember() -> Unchanged:
        before = snapshot(runtime_dir), snapshot(tmp_path)

        def check() -> None:
            assert (snapshot(runtime_dir), snapshot(tmp_path)) == before

        return check

    return remember


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, **changes}
