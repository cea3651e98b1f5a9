# SPDX-License-Identifier: MIT
"""A file is written whole or not at all, under a draft that is no other process's; errors name the file."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from speckvctl import files
from speckvctl.errors import CliError


def names(folder: Path) -> list[str]:
    return sorted(child.name for child in folder.iterdir())


def test_a_failure_on_the_way_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    path.write_bytes(b"before")
    with pytest.raises(RuntimeError), files.replacing(path) as stream:
        stream.write(b"half")
        raise RuntimeError
    with pytest.raises(KeyboardInterrupt), files.replacing(path) as stream:
        raise KeyboardInterrupt
    assert names(tmp_path) == ["kept"]
    assert path.read_bytes() == b"before"


def test_a_draft_that_was_left_does_not_block_a_write(tmp_path: Path) -> None:
    path = tmp_path / "out"
    left = [tmp_path / f".out.{number}" for number in (1, os.getpid())]
    for draft in left:
        draft.write_bytes(b"another's")
    files.write(path, b"whole")
    assert path.read_bytes() == b"whole"
    assert all(draft.read_bytes() == b"another's" for draft in left)
    assert len(names(tmp_path)) == 3


def test_two_writers_at_once_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with files.replacing(path) as first, files.replacing(path) as second:
        first.write(b"1" * 100)
        second.write(b"2" * 100)
    assert path.read_bytes() == b"1" * 100
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("name", ["n", "x" * 255, "ü" * 127])
def test_any_name_that_a_file_may_have(tmp_path: Path, name: str) -> None:
    files.write(tmp_path / name, b"data")
    assert names(tmp_path) == [name]


def test_modes_are_those_of_any_new_file_or_of_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "out"
    mask = os.umask(0o027)
    try:
        files.write(path, b"1")
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o604)
        files.write(path, b"2")
        assert stat.S_IMODE(path.stat().st_mode) == 0o604
        path.chmod(0o4755)
        files.write(path, b"3")
        assert stat.S_IMODE(path.stat().st_mode) == 0o755  # nothing that was written here runs as its owner
        files.write(tmp_path / "secret", b"3", mode=0o600)
        assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    finally:
        os.umask(mask)


def test_what_must_be_new_is_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "key"
    files.write(path, b"first", new=True)
    with pytest.raises(CliError, match="is there already") as caught:
        files.write(path, b"second", new=True)
    assert caught.value.errno == errno.EEXIST
    assert path.read_bytes() == b"first"
    assert names(tmp_path) == ["key"]
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    with pytest.raises(CliError, match="is there already"):
        files.write(tmp_path / "link", b"x", new=True)


def failing(path: Path) -> OSError:
    with pytest.raises(OSError) as caught:
        files.write(path, b"data" * 100_000)
    return caught.value


def no_folder(tmp_path: Path) -> tuple[Path, int]:
    return tmp_path / "none" / "out", errno.ENOENT


def no_folder_but_a_file(tmp_path: Path) -> tuple[Path, int]:
    (tmp_path / "file").write_bytes(b"")
    return tmp_path / "file" / "out", errno.ENOTDIR


def a_folder(tmp_path: Path) -> tuple[Path, int]:
    (tmp_path / "out").mkdir()
    return tmp_path / "out", errno.EISDIR


def a_name_too_long(tmp_path: Path) -> tuple[Path, int]:
    return tmp_path / ("x" * 256), errno.ENAMETOOLONG


def a_full_device(tmp_path: Path) -> tuple[Path, int]:
    (tmp_path / "full").symlink_to("/dev/full")
    return tmp_path / "full", errno.ENOSPC


def a_loop(tmp_path: Path) -> tuple[Path, int]:
    (tmp_path / "none").mkdir()
    (tmp_path / "none").rmdir()
    (tmp_path / "loop").symlink_to("loop")
    return tmp_path / "loop" / "out", errno.ELOOP


@pytest.mark.parametrize("place", [no_folder, no_folder_but_a_file, a_folder, a_name_too_long, a_full_device, a_loop])
def test_an_error_names_the_file_and_not_the_draft(tmp_path: Path, place: Callable[[Path], tuple[Path, int]]) -> None:
    path, number = place(tmp_path)
    before = names(tmp_path)
    error = failing(path)
    assert (error.errno, error.filename) == (number, str(path))
    assert names(tmp_path) == before


def test_a_limit_of_the_size_of_files_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys; from pathlib import Path; from speckvctl.app import _fail\n"
        "from speckvctl import files\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try: files.write(Path('out'), bytes(100_000))\n"
        "except OSError as exc: sys.exit(_fail(exc, []))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "speckvctl: out: File too large\n")
    assert names(tmp_path) == []


def test_errors_of_other_files_keep_their_name(tmp_path: Path) -> None:
    other = tmp_path / "other"
    with pytest.raises(FileNotFoundError) as caught, files.replacing(tmp_path / "out") as stream:
        stream.write(other.read_bytes())
    assert caught.value.filename == str(other)


def test_a_pipe_is_written_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with subprocess.Popen(["cat", path], stdout=subprocess.PIPE) as reader:
        files.write(path, b"through")
        assert reader.communicate()[0] == b"through"
    assert stat.S_ISFIFO(path.lstat().st_mode)


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("target")
    files.write(tmp_path / "link", b"data")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "target").read_bytes() == b"data"


@pytest.mark.root
def test_a_link_of_another_user_in_a_folder_for_all_is_not_followed(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to be another user")
    tmp_path.chmod(0o1777)
    victim = tmp_path / "victim"
    victim.write_bytes(b"kept")
    (tmp_path / "out").symlink_to(victim)
    os.lchown(tmp_path / "out", 65534, 65534)
    assert failing(tmp_path / "out").errno == errno.EACCES
    assert victim.read_bytes() == b"kept"


def test_reading_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(11))
    assert files.read(path, 11) == bytes(11)
    with pytest.raises(CliError, match="more than 10 bytes"):
        files.read(path, 10)
    with pytest.raises(CliError, match="more than 10 bytes"):
        files.read(Path("/dev/zero"), 10)
