# SPDX-License-Identifier: MIT
"""The JSON schemas of documents, from their dataclasses.

usage: python -m speckvctl.results.schemas     writes speckvctl/schemas/*.json; a test compares

Imported by tests alone.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import types
import typing
from pathlib import Path
from typing import Any

from speckvctl import results
from speckvctl.results.described import Said

_TYPES = {str: "string", int: "integer", bool: "boolean", float: "number"}
_SCHEMA = "Name of this document."
_VERSION = "Version of this document's shape; 0 until the contracts are frozen."


def documents() -> list[type[results.Document]]:
    """Every document, in the order of their modules."""
    for name in results.__all__:
        getattr(results, name)
    return results.Document.__subclasses__()


def schema_of(document: type[results.Document]) -> dict[str, Any]:
    """The JSON schema of a document."""
    name, version = document.schema, document.version
    definitions: dict[str, Any] = {}
    body = _object(document, definitions)
    head = {
        "schema": {"description": _SCHEMA, "const": name},
        "version": {"description": _VERSION, "const": version},
    }
    made = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:speckv:{name}:{version}",
        "$comment": "SPDX-License-Identifier: MIT",
        "title": name,
        "description": " ".join(inspect.cleandoc(document.__doc__ or "").split("\n\n")[0].split()),
        "type": "object",
        "required": [*head, *body["required"]],
        "properties": {**head, **body["properties"]},
    }
    return made | ({"$defs": definitions} if definitions else {})


def text_of(document: type[results.Document]) -> str:
    """The file of a document's schema."""
    return json.dumps(schema_of(document), indent=2, ensure_ascii=False) + "\n"


def _object(kind: type, definitions: dict[str, Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(kind, include_extras=True)
    properties = {}
    for field in dataclasses.fields(kind):
        hint, *extras = typing.get_args(hints[field.name]) if _annotated(hints[field.name]) else (None,)
        if not extras or not isinstance(extras[0], Said):
            raise TypeError(f"{kind.__name__}.{field.name} has no description")
        keywords = {"description": extras[0].description, **extras[0].keywords}
        properties[field.name] = _entry(hint, keywords, definitions)
    return {"type": "object", "required": list(properties), "properties": properties}


def _annotated(hint: Any) -> bool:
    return typing.get_origin(hint) is typing.Annotated


def _entry(hint: Any, keywords: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    nullable = isinstance(hint, types.UnionType)
    if nullable:
        (hint,) = (arm for arm in typing.get_args(hint) if arm is not types.NoneType)
    keywords = dict(keywords)
    items, values = keywords.pop("items", {}), keywords.pop("values", {})
    description = {"description": keywords.pop("description")} if "description" in keywords else {}
    if dataclasses.is_dataclass(hint):
        assert isinstance(hint, type)
        if hint.__name__ not in definitions:
            definitions[hint.__name__] = {}  # its place, before those that it refers to
            definitions[hint.__name__] = _object(hint, definitions)
        reference = {"$ref": f"#/$defs/{hint.__name__}"}
        return {**description, **({"anyOf": [reference, {"type": "null"}]} if nullable else reference), **keywords}
    kind = {list: "array", dict: "object"}.get(typing.get_origin(hint)) or _TYPES[hint]
    entry = {**description, "type": [kind, "null"] if nullable else kind, **keywords}
    if kind == "array":
        entry["items"] = _entry(typing.get_args(hint)[0], items, definitions)
    if kind == "object":
        entry["additionalProperties"] = _entry(typing.get_args(hint)[1], values, definitions)
    return entry


def main() -> None:
    root = Path(__file__).resolve().parents[2]
    if not (root / "pyproject.toml").exists():
        raise SystemExit(f"{root} is not a source tree: run this in one, without PYTHONSAFEPATH")
    for document in documents():
        path = root / "speckvctl" / "schemas" / f"{document.schema.removeprefix('speckvctl.')}.json"
        text = text_of(document)
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
            print(path.relative_to(root))


if __name__ == "__main__":
    main()
