# SPDX-License-Identifier: MIT
"""Bundles through Python: against another reader of FORMAT.md, and the bundle that this tree releases."""

from __future__ import annotations

import base64
import dataclasses
import errno
import importlib.util
import json
import random
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from speckv import bundle

from tests.unit.bundles import oracle

SECRET, FOREIGN = bytes(range(32)), bytes(range(32, 64))
PUBLIC = bundle.public_key(SECRET)
PART = "LFE5U-85F-6BG381C"
EXAMPLE = bundle.Manifest(
    name="speckv",
    configuration="regs-only",
    part=PART,
    tools="none",
    build_id=bytes.fromhex("0011223344556677"),
    clock_hz=25_000_000,
    fmax_hz=88_975_883,
    map_major=0,
    map_minor=1,
    rtl_major=2,
    rtl_minor=3,
    rtl_patch=4,
    security_version=5,
)


def signed(bitstream: bytes = b"bits", manifest: bundle.Manifest = EXAMPLE, secret: bytes = SECRET) -> bytes:
    made = bundle.build(manifest, bitstream)
    bundle.sign(made, secret)
    return bytes(made)


def judge(data: bytes, **policy: Any) -> int:
    """errno of the library's refusal, 0 for none; the other reader says the same."""
    try:
        manifest = bundle.verify(data, [PUBLIC], **policy)
    except bundle.RefusedError as exc:
        ours = exc.errno or -1
    else:
        ours = 0
    try:
        theirs = oracle.verify(data, [PUBLIC], **policy)
    except oracle.Refused as exc:
        assert ours == exc.errno, f"the library says {errno.errorcode.get(ours)}, the other reader {exc}"
    else:
        assert ours == 0, f"the library says {errno.errorcode.get(ours)}, the other reader nothing"
        for name, value in dataclasses.asdict(manifest).items():
            assert theirs[name] == (value.hex() if isinstance(value, bytes) else value)
    return ours


_text = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters='"\\'), min_size=1, max_size=31
)
_hertz = st.integers(0, 10**12)
_byte, _half = st.integers(0, 255), st.integers(0, 65535)
_manifests = st.builds(
    bundle.Manifest,
    name=_text,
    configuration=_text,
    part=_text,
    tools=_text,
    build_id=st.binary(min_size=8, max_size=8),
    clock_hz=_hertz,
    fmax_hz=_hertz,
    map_major=_half,
    map_minor=_half,
    rtl_major=_half,
    rtl_minor=_byte,
    rtl_patch=_byte,
    security_version=st.integers(0, 2**32 - 1),
)


@settings(max_examples=60)
@given(manifest=_manifests, bitstream=st.binary(min_size=1, max_size=5000))
def test_what_goes_in_comes_out_for_both_readers(manifest: bundle.Manifest, bitstream: bytes) -> None:
    data = signed(bitstream, manifest)
    assert judge(data) == 0
    back = bundle.verify(data, [PUBLIC])
    assert dataclasses.replace(back, bitstream_bytes=0, bitstream_sha256=bytes(32)) == manifest
    assert back.bitstream_bytes == len(bitstream) and data[4096:] == bitstream
    assert bundle.inspect(data) == bundle.Bundle(back, bundle.key_id(PUBLIC))


def test_the_same_input_gives_the_same_bytes_whatever_was_signed_before() -> None:
    twice = bytearray(signed(secret=FOREIGN))
    bundle.sign(twice, SECRET)
    assert signed() == signed() == twice


def test_the_payload_is_canonical_json_and_the_envelope_is_dsse() -> None:
    data = signed()
    envelope = json.loads(data[64 : 64 + int.from_bytes(data[12:16], "little")])
    assert list(envelope) == ["payload", "payloadType", "signatures"]
    payload = base64.b64decode(envelope["payload"])
    assert payload == json.dumps(json.loads(payload), sort_keys=True, separators=(",", ":")).encode()
    assert [list(one) for one in envelope["signatures"]] == [["keyid", "sig"]]


def test_each_refusal_has_its_own_errno_for_both_readers() -> None:
    good = signed()
    other = signed(manifest=dataclasses.replace(EXAMPLE, rtl_patch=9))
    end = 64 + int.from_bytes(good[12:16], "little")
    tail = 88 + len('"}]}')
    assert judge(good) == 0
    assert judge(b"") == judge(good[:4095]) == judge(good[:-1]) == judge(good + b"\0") == errno.EBADMSG
    assert judge(good[:8] + b"\1" + good[9:]) == errno.EPROTONOSUPPORT
    assert judge(bytes(bundle.build(EXAMPLE, b"bits"))) == errno.ENOKEY
    assert judge(signed(secret=FOREIGN)) == errno.EKEYREJECTED
    assert judge(other[: end - tail] + good[end - tail :]) == errno.EBADMSG
    assert judge(good, part="LFE5U-45F-6BG381C") == errno.EXDEV
    assert judge(good, part=PART) == 0
    assert judge(good, security_version=6) == errno.ESTALE
    assert judge(good, security_version=5) == 0
    assert judge(good[:-1] + b"!") == errno.EILSEQ


def test_1000_random_mutations_are_refused_alike_by_both_readers() -> None:
    good, choose, seen = signed(bytes(600)), random.Random(1), set()
    for _ in range(1000):
        bad = bytearray(good)
        for _ in range(choose.randint(1, 4)):
            at = choose.randrange(choose.choice((64, 900, len(good))))
            bad[at] = choose.choice((bad[at] ^ 1 << choose.randrange(8), choose.randrange(256)))
        if bad != good:
            seen.add(judge(bytes(bad)))
    assert 0 not in seen
    assert seen >= {errno.EBADMSG, errno.EPROTONOSUPPORT, errno.EKEYREJECTED, errno.EILSEQ}


def test_other_encodings_of_a_signed_envelope_are_refused() -> None:
    """Each of these is a DSSE envelope that some verifier would take."""
    good = signed()
    text = good[64 : 64 + int.from_bytes(good[12:16], "little")]
    payload = json.loads(text)["payload"]
    stem = payload.rstrip("=")
    assert stem != payload, "the example must leave bits unused"
    unused = stem[:-1] + chr(ord(stem[-1]) + 1) + payload[len(stem) :]
    assert base64.b64decode(unused) == base64.b64decode(payload)
    variants = [
        text + b"\n",
        b" " + text,
        text.replace(b":", b": ", 1),
        text.replace(b'"sig"', b'"x":1,"sig"'),
        text.replace(b"]}", b"," + text[text.index(b"[") + 1 :]),
        text.replace(payload.encode(), unused.encode()),
        json.dumps(dict(reversed(json.loads(text).items())), separators=(",", ":")).encode(),
    ]
    for variant in variants:
        assert json.loads(variant), variant
        front = good[:12] + len(variant).to_bytes(4, "little") + good[16:64] + variant
        assert judge(front.ljust(4096, b"\0") + good[4096:]) == errno.EBADMSG, variant


def test_values_that_a_manifest_cannot_say_are_refused_before_anything_is_built() -> None:
    for change in (
        {"name": ""}, {"name": "x" * 32}, {"part": 'a"b'}, {"tools": "ü"}, {"tools": "x" * 128}, {"clock_hz": -1},
        {"clock_hz": 10**12 + 1}, {"rtl_minor": 256}, {"security_version": 2**32}, {"build_id": b"short"},
    ):  # fmt: skip
        with pytest.raises(ValueError):
            bundle.build(dataclasses.replace(EXAMPLE, **change), b"bits")
    with pytest.raises(ValueError):
        bundle.build(EXAMPLE, b"")


def test_keys_are_standard_pem_and_their_signatures_are_standard_ed25519() -> None:
    # RFC 8032, section 7.1, test 1: the public half of a known secret.
    secret = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    public = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    assert bundle.public_key(secret) == public
    assert base64.b64decode(bundle.secret_to_pem(secret).split("-----")[2])[-32:] == secret
    assert base64.b64decode(bundle.public_to_pem(public).split("-----")[2])[-32:] == public
    assert bundle.secret_from_pem(b"a note\n" + bundle.secret_to_pem(secret).encode()) == secret
    assert len({bundle.generate_key() for _ in range(20)}) == 20
    assert oracle.ed25519_verify(  # and the other reader is right about the same test's signature
        public,
        b"",
        bytes.fromhex(
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
            "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
        ),
    )


def test_a_signature_with_a_larger_s_is_refused() -> None:
    """Adding the group order to S gives another signature of the same message: it must not be taken."""
    good = signed()
    text = good[64 : 64 + int.from_bytes(good[12:16], "little")]
    envelope = json.loads(text)
    signature = base64.b64decode(envelope["signatures"][0]["sig"])
    larger = int.from_bytes(signature[32:], "little") + oracle.ORDER
    envelope["signatures"][0]["sig"] = base64.b64encode(signature[:32] + larger.to_bytes(32, "little")).decode()
    forged = json.dumps(envelope, separators=(",", ":")).encode()
    assert judge(good[:64] + forged.ljust(4032, b"\0") + good[4096:]) == errno.EBADMSG


# ---- what is released ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recipe(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_bitstream", repository / "rtl/boards/ulx3s/build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_released_bundle_verifies_and_is_of_the_sources_as_they_are(repository: Path, recipe: ModuleType) -> None:
    folder = repository / "bitstreams"
    data = (folder / "regs-only-ecp5-85f.bundle").read_bytes()
    public = bundle.public_from_pem((folder / "keys/test.pub").read_bytes())
    manifest = bundle.verify(data, [public], part=PART)
    assert oracle.verify(data, [public], part=PART)["build_id"] == manifest.build_id.hex()
    assert manifest.build_id == recipe.build_id(), "rebuild it: bitstreams/README.md"
    assert (manifest.map_major, manifest.map_minor) == recipe.map_version()
    assert (manifest.rtl_major, manifest.rtl_minor, manifest.rtl_patch) == recipe.RTL_REVISION
    assert manifest.fmax_hz >= manifest.clock_hz == 25_000_000
    assert b"LFE5U-85F" in data[4096:4200]  # what the tools wrote in front of the bitstream
    assert len(data) < 1_000_000


def test_the_released_report_is_that_of_the_released_bundle(repository: Path) -> None:
    folder = repository / "bitstreams"
    report = json.loads((folder / "regs-only-ecp5-85f.json").read_text(encoding="utf-8"))
    manifest = bundle.inspect((folder / "regs-only-ecp5-85f.bundle").read_bytes()).manifest
    for name, value in dataclasses.asdict(manifest).items():
        if name not in ("security_version", "bitstream_bytes"):
            assert report[name] == (value.hex() if isinstance(value, bytes) else value), name
    assert 0 < report["resources"]["luts"]["used"] < report["resources"]["luts"]["available"]


def test_the_test_key_is_a_pair_and_is_not_installed(repository: Path) -> None:
    keys = repository / "bitstreams/keys"
    secret = bundle.secret_from_pem((keys / "test.pem").read_bytes())
    assert bundle.public_key(secret) == bundle.public_from_pem((keys / "test.pub").read_bytes())
    for build in [
        *repository.glob("meson.build"),
        *repository.glob("libspeckv/**/meson.build"),
        repository / ".ci/install",
    ]:
        assert "bitstreams" not in build.read_text(encoding="utf-8"), build
    assert not list(Path(bundle.__file__).parents[1].glob("**/test.pem"))


def test_the_test_key_signs_the_released_bundle_again_to_the_same_bytes(repository: Path) -> None:
    folder = repository / "bitstreams"
    released = (folder / "regs-only-ecp5-85f.bundle").read_bytes()
    again = bundle.build(bundle.inspect(released).manifest, released[4096:])
    bundle.sign(again, bundle.secret_from_pem((folder / "keys/test.pem").read_bytes()))
    assert again == released
