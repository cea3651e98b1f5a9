#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Write the C source of the extension module speckv._speckv from the public headers.

    build_cffi.py --include-dir libspeckv/include [--private HEADER] --output _speckv.c

The declarations are parsed from the headers, so the binding follows a changed header. The parser supports comments,
include guards, `extern "C"`, includes of <speckv/...>, object-like macros with an integer value, enums, structs,
callback types and prototypes. Anything else stops the build with the file and line.

Every callback type gets an `extern "Python"` twin named TYPE_python, so that Python functions can be handed to C.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

MODULE = "speckv._speckv"
ROOT_HEADER = "speckv/speckv.h"

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_INCLUDE = re.compile(r"#\s*include\s*<([^>]+)>$")
_DEFINE = re.compile(r"#\s*define\s+(\w+)(\(?)\s*(.*)$")
_CONDITION = re.compile(r"#\s*(ifndef|ifdef|endif)\b\s*(\w*)$")
_CALLBACK = re.compile(r"typedef\s+([\w\s*]+?)\(\s*\*\s*(\w+)\s*\)\s*(\([^()]*\))\s*$")
_SUFFIX = re.compile(r"\b(0[xX][0-9a-fA-F]+|\d+)[uUlL]+\b")
_ARRAY = re.compile(r"\[([^\]]*)\]")
_ENUM = re.compile(r"enum\s+(\w+)\s*\{([^{}]*)\}$")
_STRUCT = re.compile(r"struct \w+ \{[^{}]*\}$")
_PROTOTYPE = re.compile(r"(const )?(struct|enum|void|int|char|uint\d+_t|int\d+_t|size_t)\b")
_SYSTEM_HEADERS = {"stddef.h", "stdint.h", "stdbool.h"}


class HeaderError(Exception):
    """A header has a construct that the parser does not support."""


class Headers:
    """The public headers, in the order of inclusion."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: set[str] = set()
        self.constants: dict[str, int] = {}
        self.declarations: list[str] = []
        self.callbacks: list[str] = []

    def read(self, name: str) -> None:
        """Read one header and what it includes; each is read once."""
        if name not in self.seen:
            self.seen.add(name)
            self.parse(self.folder / name)

    def parse(self, path: Path) -> None:
        text = _COMMENT.sub(lambda match: " " + "\n" * match.group().count("\n"), path.read_text(encoding="utf-8"))
        text = text.replace("\\\n", " ")
        pending: list[str] = []
        conditions: list[str] = []
        start = 1
        for number, line in enumerate(text.split("\n"), 1):
            stripped = line.strip()
            if conditions and conditions[-1] == "__cplusplus" and not stripped.startswith("#"):
                continue
            if stripped.startswith("#"):
                if "".join(pending).strip():
                    raise HeaderError(f"{path}:{number}: a directive inside a declaration: {stripped}")
                self._directive(f"{path}:{number}", stripped, conditions)
                continue
            if not "".join(pending).strip():
                pending, start = [], number
            pending.append(line + "\n")
            if stripped.endswith(";"):
                joined = "".join(pending)
                if joined.count("{") == joined.count("}"):
                    for declaration in _split(joined):
                        self._declaration(f"{path}:{start}", declaration)
                    pending = []
        if "".join(pending).strip():
            raise HeaderError(f"{path}:{start}: a declaration without an end: {''.join(pending).strip()[:80]}")
        if conditions:
            raise HeaderError(f"{path}: #if without #endif")

    def _directive(self, where: str, line: str, conditions: list[str]) -> None:
        if match := _CONDITION.fullmatch(line):
            word, name = match.groups()
            if word == "endif" and conditions:
                conditions.pop()
                return
            if (word == "ifndef" and name.endswith("_H")) or (word == "ifdef" and name == "__cplusplus"):
                conditions.append(name)
                return
        elif match := _INCLUDE.fullmatch(line):
            if match[1].startswith("speckv/"):
                self.read(match[1])
                return
            if match[1] in _SYSTEM_HEADERS:
                return
        elif match := _DEFINE.fullmatch(line):
            name, parenthesis, value = match.groups()
            if not parenthesis and not value and name.endswith("_H"):
                return
            if not parenthesis and value:
                self._constant(where, name, self._value(where, value))
                return
        raise HeaderError(f"{where}: not understood: {line}")

    def _declaration(self, where: str, text: str) -> None:
        text = " ".join(text.split())
        if not text:
            return
        if re.search(r"\b(inline|__attribute__|_Static_assert|_Alignas|union)\b", text):
            raise HeaderError(f"{where}: not understood: {text[:100]}")
        if match := _ENUM.fullmatch(text):
            self._enum(where, match[1], match[2])
            return
        text = _ARRAY.sub(lambda match: f"[{self._value(where, match[1])}]" if match[1].strip() else "[]", text)
        if match := _CALLBACK.fullmatch(text):
            result, name, parameters = match.groups()
            self.callbacks.append(f'extern "Python" {result.strip()} {name}_python{parameters};')
        elif text.startswith("typedef"):
            raise HeaderError(f"{where}: only typedefs of callbacks are understood: {text[:100]}")
        elif not (_STRUCT if "{" in text else _PROTOTYPE).match(text):
            raise HeaderError(f"{where}: not understood: {text[:100]}")
        self.declarations.append(text + ";")

    def _enum(self, where: str, name: str, body: str) -> None:
        members = []
        following = 0
        for member in filter(None, (part.strip() for part in body.split(","))):
            key, equals, expression = (part.strip() for part in member.partition("="))
            value = self._value(where, expression) if equals else following
            self._constant(where, key, value, declare=False)
            members.append(f"{key} = {value}")
            following = value + 1
        self.declarations.append(f"enum {name} {{ {', '.join(members)} }};")

    def _constant(self, where: str, name: str, value: int, *, declare: bool = True) -> None:
        if not name.isidentifier() or self.constants.setdefault(name, value) != value:
            raise HeaderError(f"{where}: {name} is not a name, or has two values")
        if declare:
            self.declarations.append(f"#define {name} {value}")

    def _value(self, where: str, expression: str) -> int:
        try:
            return _evaluate(ast.parse(_SUFFIX.sub(r"\1", expression), mode="eval").body, self.constants)
        except (SyntaxError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise HeaderError(f"{where}: not a constant integer: {expression}") from error


def _split(text: str) -> Iterator[str]:
    """Declarations of a run of lines: split at the semicolons outside braces."""
    depth = 0
    begin = 0
    for position, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if character == ";" and depth == 0:
            yield text[begin:position]
            begin = position + 1


def _evaluate(node: ast.expr, names: dict[str, int]) -> int:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.Name):
        return names[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_evaluate(node.operand, names)
    if isinstance(node, ast.BinOp):
        left, right = _evaluate(node.left, names), _evaluate(node.right, names)
        match node.op:
            case ast.Add():
                return left + right
            case ast.Sub():
                return left - right
            case ast.Mult():
                return left * right
            case ast.LShift():
                return left << right
            case ast.BitOr():
                return left | right
    raise ValueError("not a constant expression")


def declarations(include_dir: Path, *private: Path) -> str:
    """The cdef of the public headers, and of private ones that the module has beside the library."""
    headers = Headers(include_dir)
    headers.read(ROOT_HEADER)
    for path in private:
        headers.parse(path)
    return "\n".join(headers.declarations + headers.callbacks) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write the C source of speckv._speckv from the public headers.")
    parser.add_argument("--include-dir", type=Path, required=True, help="the folder that holds speckv/speckv.h")
    parser.add_argument("--private", type=Path, action="append", default=[], help="a header of sources linked into it")
    parser.add_argument("--output", type=Path, required=True, help="the C file to write")
    options = parser.parse_args(arguments)
    try:
        cdef = declarations(options.include_dir, *options.private)
    except (HeaderError, OSError) as error:
        print(f"build_cffi.py: {error}", file=sys.stderr)
        return 1
    from cffi import FFI  # imported here, so that the parser can be tested without it

    builder = FFI()
    builder.cdef(cdef)
    own = "".join(f'#include "{path.parent.name}/{path.name}"\n' for path in options.private)
    builder.set_source(MODULE, f"#include <{ROOT_HEADER}>\n{own}")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    builder.emit_c_code(str(options.output))
    return 0


if __name__ == "__main__":
    sys.exit(main())
