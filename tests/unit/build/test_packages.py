# SPDX-License-Identifier: MIT
"""What pip installs is what the source tree holds: no module left out, nothing that was lying about."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import speckv


@pytest.mark.parametrize(("package", "source"), [("speckv", "libspeckv/python/speckv"), ("speckvctl", "speckvctl")])
def test_installed_package_holds_the_source_files(package: str, source: str, repository: Path) -> None:
    folder = repository / source
    wanted = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    files = importlib.metadata.files("speckv") or []
    found = {str(p.relative_to(package)) for p in files if p.parts[0] == package and "__pycache__" not in p.parts}
    extension = "_speckv" + sysconfig.get_config_var("EXT_SUFFIX")
    assert found - {extension} == wanted
    assert (extension in found) == (package == "speckv")


def test_extension_uses_the_library_of_its_own_wheel() -> None:
    script = "import speckv._speckv; print(*(l.split()[-1] for l in open('/proc/self/maps') if 'libspeckv' in l))"
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    site = Path(speckv.__file__).resolve().parent.parent
    assert {Path(p).resolve().parent for p in output.split()} == {site / ".speckv.mesonpy.libs"}


def test_versions_of_library_and_package_agree() -> None:
    assert speckv.version() == importlib.metadata.version("speckv")


def test_byte_code_of_every_folder_is_left_out(repository: Path) -> None:
    listed = re.search(r"foreach folder : \[(.*?)\]", (repository / "meson.build").read_text("utf-8"))
    root = repository / "speckvctl"
    folders = {str(path.parent.relative_to(root)) for path in root.rglob("*.py")}
    assert listed
    assert {name or "." for name in re.findall(r"'([^']*)'", listed[1])} == folders
    binding = repository / "libspeckv" / "python" / "speckv"
    left_out = re.search(
        r"exclude_directories: \[(.*?)\]", (repository / "libspeckv" / "meson.build").read_text("utf-8")
    )
    assert left_out
    folders = {str(path.parent.relative_to(binding)) for path in binding.rglob("*.py")}
    assert {str(Path(name).parent) for name in re.findall(r"'([^']*)'", left_out[1])} == folders
