# SPDX-License-Identifier: MIT
"""Golden frames are made anew, by inputs of our own making, and every difference is found."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from speckvctl.codecs import vectors
from speckvctl.codecs.vectors import VectorsError


@pytest.fixture
def folder(repository: Path, tmp_path: Path) -> Path:
    """The vectors of small blocks: every mode, dtype and style."""
    found = (repository / "tests" / "vectors" / "index.txt").read_text("ascii").splitlines(keepends=True)
    kept = [line for line in found if "-h64-" in line]
    assert len(kept) > 30
    (tmp_path / "index.txt").write_text("".join(kept), "ascii")
    for path in (repository / "tests" / "vectors").glob("*-h64-*.frame"):
        shutil.copy(path, tmp_path)
    return tmp_path


def check(folder: Path) -> vectors.Found:
    return vectors.check(folder, lambda _, __: None)


def test_this_build_makes_the_golden_frames(folder: Path) -> None:
    found = check(folder)
    assert found.differences == []
    assert found.isas[0] == "portable"
    assert sum(count for count, _ in found.modes.values()) > 30
    assert all(stored for _, stored in found.modes.values())


def test_a_difference_in_a_line_or_a_stored_frame_is_found(folder: Path) -> None:
    index = folder / "index.txt"
    lines = index.read_text("ascii").splitlines(keepends=True)
    lines[-1] = lines[-1].rstrip("\n")[:-1] + ("0" if lines[-1][-2] != "0" else "1") + "\n"
    index.write_text("".join(lines), "ascii")
    frame = next(folder.glob("q4x-*.frame"))
    data = bytearray(frame.read_bytes())
    data[200] ^= 1
    frame.write_bytes(data)
    found = check(folder)
    assert len(found.differences) == 2 * len(found.isas)
    assert any(text.startswith(f"{frame.name}: not the frame") for text in found.differences)


def test_writing_mends_it_and_a_dry_run_does_not(folder: Path) -> None:
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    frame = next(folder.glob("q4x-*.frame"))
    frame.write_bytes(b"none")
    vectors.update(folder, True, lambda _, __: None)
    assert frame.read_bytes() == b"none"
    vectors.update(folder, False, lambda _, __: None)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole


def test_frames_with_a_calibration_are_read_and_never_written(repository: Path, tmp_path: Path) -> None:
    folder = tmp_path / "calibrated"
    shutil.copytree(repository / "tests" / "vectors" / "calibrated", folder)
    found = check(folder)
    assert found.differences == []
    assert found.modes == {"q5c": (3, 3), "e7c": (3, 3)}
    frame = next(folder.glob("q5c-*.frame"))
    data = bytearray(frame.read_bytes())
    data[-100] ^= 1
    frame.write_bytes(data)
    assert check(folder).differences[0].startswith(f"{frame.stem}: portable kernels read ")
    with pytest.raises(VectorsError, match=r"calibrated\.c"):
        vectors.update(folder, False, lambda _, __: None)


@pytest.mark.parametrize(
    "line",
    [
        "x",
        "../evil raw bf16 1 1 64 64 mixed 1 0 0 0 0",
        "a none bf16 1 1 64 64 mixed 1 0",
        "a raw bf16 1 1 64 63 mixed 1 0",
        "a raw bf16 32767 65535 256 65472 mixed 1 0",
        "a raw bf16 1 1 64 64 unknown 1 0",
        "a raw bf16 1 1 64 64 mixed -1 0",
        "",
    ],
)
def test_an_index_that_is_none_is_refused(line: str, tmp_path: Path) -> None:
    (tmp_path / "index.txt").write_text(f"{line}\n", "ascii")
    with pytest.raises(VectorsError):
        check(tmp_path)
