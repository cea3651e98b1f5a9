# SPDX-License-Identifier: MIT
"""Frames through the binding."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
import speckv
from speckv import codec

SHAPE = speckv.Geometry(layers=3)


def block(seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.uint16]]:
    values = np.random.default_rng(seed).standard_normal((3, 2, 2, 64, 128)).astype(np.float32)
    return (values.view(np.uint32) >> 16).astype(np.uint16)


@pytest.mark.parametrize("mode", codec.modes())
def test_every_mode_frames_and_gives_back_a_block(mode: speckv.Codec) -> None:
    raw = block()
    identity = codec.Identity(key=b"k" * 32, generation=3, pool_address=64, first_position=128)
    frame = codec.encode_frame(SHAPE, mode, raw, identity=identity)
    assert codec.frame_min_bytes(SHAPE, mode) <= len(frame) <= codec.frame_max_bytes(SHAPE, mode)
    assert frame.ctypes.data % 64 == 0
    header = codec.parse_frame(frame)
    assert (header.geometry, header.codec, header.identity) == (SHAPE, mode, identity)
    assert (header.raw_bytes, header.frame_bytes, header.sections) == (raw.nbytes, len(frame), 6)
    codec.verify_frame(frame)
    decoded = codec.decode_frame(frame)
    middle = codec.decode_frame(frame, layers=(1, 1))
    assert (middle == decoded.reshape(3, -1)[1]).all()
    out = np.zeros(raw.nbytes, np.uint8)
    assert codec.decode_frame(frame, out=out) is out and (out == decoded).all()
    if mode in ("raw", "lossless"):
        assert (decoded == raw.reshape(-1).view(np.uint8)).all()


def test_a_damaged_frame_is_found() -> None:
    frame = codec.encode_frame(SHAPE, "raw", block())
    for position in (0, 40, 130, 5000):
        damaged = frame.copy()
        damaged[position] ^= 1
        with pytest.raises(speckv.DamagedError):
            codec.verify_frame(damaged)
        with pytest.raises(speckv.DamagedError):
            codec.decode_frame(damaged)
    with pytest.raises(speckv.DamagedError):
        codec.parse_frame(frame[:64])


def test_a_checksum_can_be_made_in_parts() -> None:
    assert codec.crc32c(b"123456789") == 0xE3069283  # RFC 3720
    assert codec.crc32c(b"6789", codec.crc32c(b"12345")) == 0xE3069283


def test_the_instruction_set_can_be_forced() -> None:
    best = codec.isa()
    try:
        codec.force_isa("portable")
        assert codec.isa() == "portable"
        with pytest.raises(speckv.InvalidError, match="mmx"):
            codec.force_isa("mmx")
    finally:
        codec.force_isa("auto")
    assert codec.isa() == best


def test_a_block_of_another_size_is_refused() -> None:
    with pytest.raises(speckv.InvalidError):
        codec.encode_frame(SHAPE, "raw", bytes(100))
    with pytest.raises(speckv.InvalidError):
        codec.encode_frame(speckv.Geometry(tokens=63), "raw", bytes(100))


CALIBRATED = Path(__file__).resolve().parents[2] / "vectors" / "calibrated"


@pytest.mark.parametrize("mode", ["q5c", "e7c"])
def test_a_calibrated_frame_is_read_with_its_calibration_only(mode: str) -> None:
    names = sorted(path.stem for path in CALIBRATED.glob(f"{mode}-*.frame"))
    assert len(names) >= 2
    own, other = (codec.Calibration.load(CALIBRATED / f"{name}.safetensors") for name in names[:2])
    frame = np.fromfile(CALIBRATED / f"{names[0]}.frame", np.uint8)
    parsed = codec.parse_frame(frame)
    assert parsed.codec == mode and parsed.calibration == own.digest
    assert own.codecs == (mode,) and own.head_dim == parsed.geometry.head_dim
    raw = codec.decode_frame(frame, calibration=own)
    told = {line.split()[0]: line.split()[-1] for line in (CALIBRATED / "index.txt").read_text().splitlines()}
    assert codec.crc32c(raw) == int(told[names[0]], 16)
    with pytest.raises(speckv.DamagedError):
        codec.decode_frame(frame, calibration=other)
    with pytest.raises(speckv.InvalidError):
        codec.decode_frame(frame)


@pytest.mark.parametrize("mode", ["q5c", "e7c"])
def test_a_calibrated_mode_wants_a_calibration_and_layers_that_it_has(mode: str) -> None:
    own = codec.Calibration.load(next(CALIBRATED.glob(f"{mode}-*-h64-*.safetensors")))
    shape = speckv.Geometry(1, 1, 64, 64)
    raw = np.zeros(shape.block_bytes, np.uint8)
    frame = codec.encode_frame(shape, mode, raw, calibration=own, first_layer=1)
    assert len(codec.decode_frame(frame, calibration=own)) == shape.block_bytes
    for layer, head in ((own.layers, 0), (0, own.kv_heads), (-1, 0)):
        with pytest.raises(speckv.SpeckvError) as refused:
            codec.encode_frame(shape, mode, raw, calibration=own, first_layer=layer, first_head=head)
        assert refused.value.errno == errno.ERANGE
    with pytest.raises(speckv.InvalidError):
        codec.encode_frame(shape, mode, raw)
    with pytest.raises(speckv.DamagedError):
        codec.Calibration(b"no calibration, whatever it says")


def test_a_pool_codes_with_the_calibration_that_it_was_made_with(device: speckv.Device) -> None:
    path = next(CALIBRATED.glob("q5c-*-h64-halves-*.safetensors"))
    own, file = codec.Calibration.load(path), path.read_bytes()
    shape = speckv.Geometry(1, 1, 64, 64)
    info = device.create_pool(
        speckv.PoolConfig("kv", 8 << 20, geometry=shape, codec=speckv.Codec.Q5C, first_layer=1, calibration=file)
    )
    assert info.calibration == own.digest and info.config.calibration is None and info.config.first_layer == 1
    assert device.calibration("kv") == file == own.file
    rng = np.random.default_rng(3)
    raw = (rng.integers(0x3C00, 0x3F80, (4, shape.block_bytes // 2)).astype(np.uint16)).view(np.uint8)
    keys, positions = [bytes([n]) * 32 for n in range(4)], [0, 64, 6400, 1 << 40]
    with device.attach("kv") as pool:
        assert not pool.put(keys, raw, positions=positions).any()
        back = np.empty_like(raw)
        assert not pool.get(keys, back).any()
    for block, got, position in zip(raw, back, positions, strict=True):
        place = codec.Identity(first_position=position)
        frame = codec.encode_frame(shape, "q5c", block, identity=place, calibration=own, first_layer=1)
        assert np.array_equal(codec.decode_frame(frame, calibration=own), got)
    assert speckv.Codec.Q5C in codec.calibrated_modes() and not set(codec.calibrated_modes()) & set(codec.modes())


def test_a_pool_without_a_calibration_has_none_to_give(device: speckv.Device) -> None:
    assert device.create_pool(speckv.PoolConfig("kv", 8 << 20)).calibration is None
    with pytest.raises(speckv.NotFoundError, match="has no calibration"):
        device.calibration("kv")
    for wrong in (None, b"", b"no calibration"):
        with pytest.raises(speckv.SpeckvError) as refused:
            device.create_pool(speckv.PoolConfig("q5c", 8 << 20, codec=speckv.Codec.Q5C, calibration=wrong))
        assert refused.value.errno in (errno.EINVAL, errno.EBADMSG)
