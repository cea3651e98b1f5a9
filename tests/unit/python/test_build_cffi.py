# SPDX-License-Identifier: MIT
"""The cdef comes from the public headers, whole, and what is not understood stops the build."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def build_cffi(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_cffi", repository / "libspeckv" / "python" / "build_cffi.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def headers(folder: Path, body: str) -> Path:
    (folder / "speckv").mkdir(exist_ok=True)
    (folder / "speckv" / "speckv.h").write_text(f"#ifndef A_H\n#define A_H\n{body}\n#endif\n")
    return folder


def test_every_exported_function_is_declared(build_cffi: ModuleType, repository: Path) -> None:
    exported = set(re.findall(r"\b(speckv_\w+);", (repository / "libspeckv" / "libspeckv.map").read_text()))
    declared = set(re.findall(r"\b(speckv_\w+)\(", build_cffi.declarations(repository / "libspeckv" / "include")))
    assert len(exported) > 50
    assert exported <= declared


def test_every_callback_type_gets_a_python_twin(build_cffi: ModuleType, repository: Path) -> None:
    cdef = build_cffi.declarations(repository / "libspeckv" / "include")
    types = re.findall(r"typedef int \(\*(\w+)\)", cdef)
    assert types
    assert re.findall(r'extern "Python" int (\w+)_python\(', cdef) == types


def test_constants_are_worked_out(build_cffi: ModuleType, tmp_path: Path) -> None:
    body = """
    #define A 0x10u /* a comment */
    enum e { E0, E1 = 1u << 3, E2, E3 = A | 1 }; // another
    struct s { char text[A * 4 - 1]; int many[E2]; };
    """
    cdef = build_cffi.declarations(headers(tmp_path, body))
    assert "enum e { E0 = 0, E1 = 8, E2 = 9, E3 = 17 };" in cdef
    assert "struct s { char text[63]; int many[9]; };" in cdef


def test_cpp_only_parts_are_left_out_and_includes_followed_once(build_cffi: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "speckv").mkdir()
    (tmp_path / "speckv" / "b.h").write_text("int speckv_b(void);\n")
    body = (
        '#include <stdint.h>\n#include <speckv/b.h>\n#include <speckv/b.h>\n#ifdef __cplusplus\nextern "C" {\n#endif\n'
    )
    assert build_cffi.declarations(headers(tmp_path, body)) == "int speckv_b(void);\n"


@pytest.mark.parametrize(
    "body",
    [
        "#define MAX(a, b) ((a) > (b) ? (a) : (b))",
        '#define TEXT "text"',
        "#define HALF 1 / 0",
        "#if SPECKV_API_VERSION > 3",
        "#pragma pack(1)",
        "#include <math.h>",
        "static inline int speckv_fast(void) { return 0; }",
        "union u { int a; };",
        "struct s { struct { int a; } inner; };",
        "typedef int number;",
        "int speckv_open(void) __attribute__((nonnull));",
        "int speckv_cut(void)",
        "unknown_t speckv_a(void);",
        "struct s { int a[UNKNOWN]; };",
        "enum e { A = sizeof(int) };",
    ],
)
def test_what_is_not_understood_stops_the_build_with_file_and_line(
    build_cffi: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], body: str
) -> None:
    output = tmp_path / "out.c"
    folder = headers(tmp_path, f"int speckv_fine(void);\n{body}")
    assert build_cffi.main(["--include-dir", str(folder), "--output", str(output)]) == 1
    assert re.search(r"speckv\.h:\d+: ", capsys.readouterr().err)
    assert not output.exists()
