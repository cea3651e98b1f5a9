# SPDX-License-Identifier: MIT
"""Dataclasses and enums say what the C headers say."""

from __future__ import annotations

import dataclasses
import errno
import pickle

import pytest
import speckv
from speckv import types
from speckv._speckv import ffi, lib
from speckv.errors import check, error

STRUCTS = {
    speckv.DeviceInfo: "speckv_device_info",
    speckv.PoolConfig: "speckv_pool_config",
    speckv.PoolInfo: "speckv_pool_info",
    speckv.Geometry: "speckv_geometry",
    speckv.TenantInfo: "speckv_tenant_info",
    speckv.ClientInfo: "speckv_client_info",
    speckv.Event: "speckv_event",
    speckv.SelftestStep: "speckv_selftest_step",
    speckv.CheckReport: "speckv_check_report",
    speckv.KeySpec: "speckv_key_spec",
    speckv.codec.Frame: "speckv_frame",
    speckv.codec.Identity: "speckv_frame_identity",
}


@pytest.mark.parametrize("kind", STRUCTS, ids=lambda kind: kind.__name__)
def test_a_dataclass_has_the_fields_of_its_c_struct(kind: type) -> None:
    ours = {field.name for field in dataclasses.fields(kind)} - {"clean", "single_tenant"}
    theirs = {name for name, _ in ffi.typeof(f"struct {STRUCTS[kind]}").fields}
    assert ours == theirs - {"reserved", "flags", "single_tenant", "calibration_bytes"}  # `bytes` know their length


def test_names_of_codecs_and_dtypes_are_those_of_the_library() -> None:
    for enum, name_of in ((speckv.Codec, lib.speckv_codec_name), (speckv.DType, lib.speckv_dtype_name)):
        assert {value: str(member) for value, member in types.members(enum).items()} == {
            value: ffi.string(name_of(value)).decode() for value in range(64) if name_of(value)
        }


@pytest.mark.parametrize("enum", types._C_ENUMS, ids=lambda enum: enum.__name__)
def test_every_member_of_a_c_enum_is_known(enum: type) -> None:
    assert set(types.members(enum).values()) == set(enum)  # type: ignore[call-overload]


def test_a_value_that_is_not_known_is_shown_and_not_hidden() -> None:
    info = ffi.new("struct speckv_pool_info *", {"state": 77, "config": {"geometry": {"dtype": 1}}})
    assert types.from_c(speckv.PoolInfo, info).state == "unknown(77)"


def test_a_configuration_survives_the_way_to_c_and_back() -> None:
    config = speckv.PoolConfig(
        name="a-b.c",
        capacity_bytes=1 << 40,
        max_bytes=1 << 41,
        quota_bytes=3,
        tenant_quota_bytes=4,
        geometry=speckv.Geometry(7, 8, 64, 128, speckv.DType.FP8_E5M2),
        codec=speckv.Codec.LOSSLESS,
        eviction=speckv.Eviction.NONE,
        page_bytes=4096,
        uid=12,
        gid=34,
        mode=0o640,
        single_tenant=True,
    )
    assert types.from_c(speckv.PoolConfig, config.to_c()) == config


@pytest.mark.parametrize(
    "change",
    [
        {"name": "n" * 64},
        {"name": "a\0b"},
        {"capacity_bytes": -1},
        {"capacity_bytes": 1 << 64},
        {"mode": 1 << 32},
        {"codec": "zip"},
        {"eviction": "random"},
        {"geometry": speckv.Geometry(layers=70000)},
    ],
)
def test_what_c_would_cut_off_is_refused(change: dict[str, object]) -> None:
    config = dataclasses.replace(speckv.PoolConfig("kv", 1 << 20), **change)  # type: ignore[arg-type]
    with pytest.raises(speckv.InvalidError):
        config.to_c()


def test_block_bytes_of_a_shape() -> None:
    assert speckv.Geometry().block_bytes == 65536
    assert speckv.Geometry(2, 8, 128, 64, speckv.DType.FP8_E4M3).block_bytes == 2 * 2 * 8 * 64 * 128
    assert speckv.Geometry(tokens=63).block_bytes == 0


def test_quantiles_are_the_librarys() -> None:
    bounds = speckv.histogram_bounds()
    assert list(bounds) == sorted(set(bounds)) and bounds[:4] == (0, 1, 2, 3)
    buckets = [0] * len(bounds)
    assert speckv.histogram_quantile(buckets, 0.5) is None
    buckets[10], buckets[20] = 90, 10
    assert speckv.histogram_quantile(buckets, 0.5) == bounds[10]
    assert speckv.histogram_quantile(buckets, 0.99) == bounds[20]
    with pytest.raises(speckv.InvalidError):
        speckv.histogram_quantile(buckets, 1.5)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOENT, speckv.NotFoundError),
        (errno.ENODEV, speckv.NotFoundError),
        (errno.EACCES, speckv.PermissionDeniedError),
        (errno.EROFS, speckv.PermissionDeniedError),
        (errno.EBUSY, speckv.BusyError),
        (errno.EUSERS, speckv.BusyError),
        (errno.ENOSPC, speckv.PoolFullError),
        (errno.EDQUOT, speckv.PoolFullError),
        (errno.EEXIST, speckv.ExistsError),
        (errno.EALREADY, speckv.NothingToDoError),
        (errno.EPROTONOSUPPORT, speckv.VersionError),
        (errno.EOPNOTSUPP, speckv.UnsupportedError),
        (errno.EBADMSG, speckv.DamagedError),
        (errno.EUCLEAN, speckv.DamagedError),
        (errno.EINVAL, speckv.InvalidError),
        (errno.ERANGE, speckv.InvalidError),
        (errno.EIO, speckv.SpeckvError),
    ],
)
def test_an_errno_becomes_its_exception(number: int, kind: type[speckv.SpeckvError]) -> None:
    with pytest.raises(kind) as caught:
        check(-number, what="trying")
    assert type(caught.value) is kind and isinstance(caught.value, OSError)
    assert caught.value.errno == number
    assert str(caught.value).startswith("trying: ")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_count_is_no_error() -> None:
    assert check(3) == 3
    assert str(error(-errno.ENOENT)) == "No such file or directory"


def test_names_of_cards_are_told_apart_by_their_scheme() -> None:
    assert speckv.card.is_card("emu:card0")
    assert not speckv.card.is_card("host:DRAM")
