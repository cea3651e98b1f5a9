# SPDX-License-Identifier: MIT
"""speckvctl bitstream: refusals by name, nothing written over that should not be, keys that are kept secret."""

from __future__ import annotations

import json
import os
import random
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from speckvctl.app import main
from speckvctl.bundles import trust

Run = Callable[..., tuple[int, dict[str, object]]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """A command line in a folder of its own: exit code and JSON."""
    monkeypatch.chdir(tmp_path)

    def go(*arguments: object) -> tuple[int, dict[str, object]]:
        code = main(["bitstream", *map(str, arguments), "--json"])
        document = json.loads(capsys.readouterr().out)
        assert isinstance(document, dict)
        return code, document

    return go


@pytest.fixture
def world(run: Run, repository: Path, tmp_path: Path) -> Path:
    """The released bundle, its report and bitstream, and two key pairs: the test key and another."""
    released = (repository / "bitstreams/regs-only-ecp5-85f.bundle").read_bytes()
    (tmp_path / "good.bundle").write_bytes(released)
    (tmp_path / "a.bit").write_bytes(released[4096:])
    (tmp_path / "a.json").write_bytes((repository / "bitstreams/regs-only-ecp5-85f.json").read_bytes())
    for name in ("test.pem", "test.pub"):
        (tmp_path / name).write_bytes((repository / "bitstreams/keys" / name).read_bytes())
    assert run("keygen", "other")[0] == 0
    return tmp_path


def error(document: dict[str, object]) -> dict[str, object]:
    assert document["schema"] == "speckvctl.error"
    detail = document["error"]
    assert isinstance(detail, dict)
    return detail


def test_the_recipe_of_the_release_gives_the_release(run: Run, world: Path) -> None:
    assert run("build", "a.bit", "a.json", "-o", "new.bundle", "--key", "test.pem")[0] == 0
    assert (world / "new.bundle").read_bytes() == (world / "good.bundle").read_bytes()


def test_every_refusal_has_exit_code_7_and_its_own_errno(run: Run, world: Path) -> None:
    good = (world / "good.bundle").read_bytes()
    trusted = ("--trust", "test.pub")
    assert run("verify", "good.bundle", *trusted)[0] == 0
    (world / "truncated").write_bytes(good[:-1])
    (world / "tampered").write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    (world / "text").write_bytes(b"hello")
    (world / "newer").write_bytes(good[:8] + b"\1" + good[9:])
    assert run("build", "a.bit", "a.json", "-o", "unsigned")[0] == 0
    assert run("sign", "unsigned", "--key", "other.pem", "-o", "foreign")[0] == 0
    for arguments, name in (
        (("truncated", *trusted), "EBADMSG"),
        (("text", *trusted), "EBADMSG"),
        (("tampered", *trusted), "EILSEQ"),
        (("newer", *trusted), "EPROTONOSUPPORT"),
        (("unsigned", *trusted), "ENOKEY"),
        (("foreign", *trusted), "EKEYREJECTED"),
        (("good.bundle", *trusted, "--part", "LFE5U-45F-6BG381C"), "EXDEV"),
        (("good.bundle", *trusted, "--security-version", 1), "ESTALE"),
    ):
        code, document = run("verify", *arguments)
        assert (code, error(document)["errno"]) == (7, name), arguments
        assert str(arguments[0]) in str(error(document)["message"])


def test_1000_random_mutations_of_the_release_are_refused(run: Run, world: Path) -> None:
    good, choose = (world / "good.bundle").read_bytes(), random.Random(3)
    bad, seen = bytearray(good), set()
    for _ in range(1000):
        places = [choose.randrange(choose.choice((64, 900, 4096, len(good)))) for _ in range(choose.randint(1, 3))]
        for at in places:
            bad[at] ^= choose.randint(1, 255)
        if bad == good:  # the same place twice, and back
            continue
        (world / "bad.bundle").write_bytes(bad)
        code, document = run("verify", "bad.bundle", "--trust", "test.pub")
        assert code == 7, places
        seen.add(error(document)["errno"])
        for at in places:
            bad[at] = good[at]
    assert seen == {"EBADMSG", "EPROTONOSUPPORT", "EKEYREJECTED", "EILSEQ"}


def test_the_signer_is_named_by_the_file_of_the_key_that_is_trusted(run: Run, world: Path) -> None:
    code, document = run("verify", "good.bundle", "--trust", ".")
    assert (code, document["key"]) == (0, "test.pub")
    assert run("verify", "good.bundle", "--trust", "other.pub", "--trust", "test.pub")[1]["key"] == "test.pub"


def test_without_a_trusted_key_nothing_is_verified(
    run: Run, world: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(trust, "FOLDER", tmp_path / "keys.d")
    assert run("verify", "good.bundle")[0] == 4
    (tmp_path / "keys.d").mkdir()
    assert run("verify", "good.bundle")[0] == 4
    assert run("verify", "good.bundle", "--trust", "none.pub")[0] == 4


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: only root's files can be trusted")
@pytest.mark.parametrize("writable", ["folder", "key"])
def test_a_trusted_key_that_others_can_write_is_not_trusted(
    writable: str, run: Run, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = world / "keys.d"
    folder.mkdir(mode=0o755)
    key = folder / "test.pub"
    key.write_bytes((world / "test.pub").read_bytes())
    key.chmod(0o644)
    monkeypatch.setattr(trust, "FOLDER", folder)
    assert run("verify", "good.bundle")[0] == 0
    (folder if writable == "folder" else key).chmod(0o777)
    code, document = run("verify", "good.bundle")
    assert (code, error(document)["errno"]) == (5, "EPERM")


def test_a_secret_key_is_for_its_owner_only_and_keys_are_never_written_over(run: Run, world: Path) -> None:
    assert stat.S_IMODE((world / "other.pem").stat().st_mode) == 0o600
    before = (world / "other.pem").read_bytes(), (world / "other.pub").read_bytes()
    assert run("keygen", "other")[0] == 1
    (world / "other.pem").rename(world / "kept.pem")
    assert run("keygen", "other")[0] == 1
    assert not (world / "other.pem").exists()
    assert ((world / "kept.pem").read_bytes(), (world / "other.pub").read_bytes()) == before


def test_signing_twice_with_one_key_is_nothing_to_do(run: Run, world: Path) -> None:
    assert run("sign", "good.bundle", "--key", "test.pem")[0] == 3
    code, document = run("sign", "good.bundle", "--key", "other.pem")
    assert (code, document["changed"]) == (0, True)
    assert document["replaced_key_id"] != document["key_id"]
    assert run("verify", "good.bundle", "--trust", "other.pub")[0] == 0
    assert run("verify", "good.bundle", "--trust", "test.pub")[0] == 7


def test_a_damaged_bundle_is_not_signed(run: Run, world: Path) -> None:
    bad = bytearray((world / "good.bundle").read_bytes())
    bad[5000] ^= 1
    (world / "bad").write_bytes(bad)
    assert run("sign", "bad", "--key", "other.pem")[0] == 7
    assert (world / "bad").read_bytes() == bad


def test_only_a_bundle_is_written_over_by_a_bundle(run: Run, world: Path) -> None:
    build = ("build", "a.bit", "a.json", "-o")
    for target in ("a.json", "test.pem", "."):
        assert run(*build, target)[0] == 2
    assert run(*build, "good.bundle")[0] == 0
    assert run("inspect", "good.bundle")[1]["key_id"] is None


def test_a_report_must_be_of_the_bitstream(run: Run, world: Path) -> None:
    (world / "b.bit").write_bytes(b"another")
    build = ("-o", "new.bundle")
    assert run("build", "b.bit", "a.json", *build)[0] == 7
    report = json.loads((world / "a.json").read_bytes())
    for change, code in (
        ({"version": 1}, 8),
        ({"report": "other"}, 2),
        ({"part": 5}, 2),
        ({"clock_hz": True}, 2),
        ({"clock_hz": -1}, 2),
        ({"build_id": "xyz"}, 2),
        ({"build_id": "00"}, 2),
        ({"name": ""}, 2),
        ({"name": "\ud800"}, 2),
        ({"clock_hz": 1 << 64}, 2),
        ({"rtl_major": 1 << 40}, 2),
        ({"fmax_hz": float("nan")}, 2),
    ):
        (world / "c.json").write_text(json.dumps({**report, **change}))
        assert run("build", "a.bit", "c.json", *build)[0] == code, change
    twice = json.dumps(report).replace("{", '{"version": 0, ', 1).encode()
    for text in (b"", b"[]", b"{", b"\xff", twice, b"[" * 60_000, b" " * 70_000):
        (world / "c.json").write_bytes(text)
        assert run("build", "a.bit", "c.json", *build)[0] == 2, text
    assert not (world / "new.bundle").exists()


def test_files_that_hold_no_key_are_refused_by_name(run: Run, world: Path) -> None:
    for arguments in (
        ("sign", "good.bundle", "--key", "test.pub"),
        ("sign", "good.bundle", "--key", "a.bit"),
        ("verify", "good.bundle", "--trust", "test.pem"),
    ):
        code, document = run(*arguments)
        assert code in (1, 2)
        assert arguments[-1] in str(error(document)["message"])


def test_a_dry_run_writes_nothing(run: Run, world: Path) -> None:
    before = {path.name: path.read_bytes() for path in world.iterdir()}
    assert run("build", "a.bit", "a.json", "-o", "x", "--dry-run")[0] == 0
    assert run("sign", "good.bundle", "--key", "other.pem", "--dry-run")[0] == 0
    assert run("keygen", "y", "--dry-run")[0] == 0
    assert {path.name: path.read_bytes() for path in world.iterdir()} == before
