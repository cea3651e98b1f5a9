# SPDX-License-Identifier: MIT
"""The schemas in the tree are those of the dataclasses, and say something of every field."""

from __future__ import annotations

import dataclasses
import importlib
import subprocess
import sys
from pathlib import Path
from typing import Annotated, ClassVar

import pytest
import speckv
from speckv import card

from speckvctl import results
from speckvctl.render.dispatch import lines_of
from speckvctl.results import schemas, words
from speckvctl.results.described import Said

DOCUMENTS = schemas.documents()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.schema)
def test_a_schema_is_that_of_its_dataclass(document: type[results.Document], repository: Path) -> None:
    path = repository / "speckvctl" / "schemas" / f"{document.schema.removeprefix('speckvctl.')}.json"
    assert path.read_text("utf-8") == schemas.text_of(document), "run python -m speckvctl.results.schemas"


def test_words_are_those_of_the_library() -> None:
    assert {*words.DTYPES} == {*map(str, speckv.DType)}
    assert {*words.CODECS} == {*map(str, speckv.Codec)}
    assert {*words.PLACEMENTS} == {*map(str, speckv.Placement)}
    assert {*words.EVICTIONS} == {*map(str, speckv.Eviction)}
    assert {*words.DEVICE_STATES} == {*map(str, speckv.MediumState)} | {"factory", "failed"}  # of a card alone
    shown = schemas.schema_of(results.DeviceShow)["$defs"]
    assert {*shown["CardSlot"]["properties"]["state"]["enum"]} == {*map(str, card.ImageState)}
    assert {*shown["Device"]["properties"]["durability"]["enum"]} == {*map(str, speckv.Durability), None}
    flashed = schemas.schema_of(results.Flash)["properties"]
    assert {*flashed["activation"]["enum"]} == {*map(str, card.Activation), None}
    assert {*schemas.schema_of(results.DeviceReset)["properties"]["what"]["enum"]} == {*map(str, card.Restart)}


def test_a_field_without_a_description_is_refused() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Bare:
        """Nothing."""

        schema: ClassVar[str] = "speckvctl.bare"
        version: ClassVar[int] = 0
        size: int

    with pytest.raises(TypeError, match=r"Bare\.size has no description"):
        schemas.schema_of(Bare)  # type: ignore[arg-type]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    name: Annotated[str, Said("Name.", pattern="^a")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
    """All kinds.

    And more.
    """

    schema: ClassVar[str] = "speckvctl.outer"
    version: ClassVar[int] = 3
    inner: Annotated[Inner | None, Said("One.")]
    many: Annotated[list[Inner], Said("Many.")]
    sizes: Annotated[dict[str, int], Said("By name.", values={"minimum": 0})]
    rows: Annotated[list[list[float]] | None, Said("Rows.", items={"items": {"maximum": 1}})] = None


def test_keywords_go_where_they_belong_each_time() -> None:
    for _ in range(2):
        made = schemas.schema_of(Outer)  # type: ignore[arg-type]
        assert made["$id"] == "urn:speckv:speckvctl.outer:3"
        assert made["description"] == "All kinds."
        assert made["required"] == ["schema", "version", "inner", "many", "sizes", "rows"]
        properties = made["properties"]
        assert properties["inner"] == {"description": "One.", "anyOf": [{"$ref": "#/$defs/Inner"}, {"type": "null"}]}
        assert properties["many"]["items"] == {"$ref": "#/$defs/Inner"}
        assert properties["sizes"]["additionalProperties"] == {"type": "integer", "minimum": 0}
        assert properties["rows"]["type"] == ["array", "null"]
        assert properties["rows"]["items"] == {"type": "array", "items": {"type": "number", "maximum": 1}}
        assert made["$defs"]["Inner"]["properties"]["name"]["pattern"] == "^a"


def test_each_document_has_a_renderer() -> None:
    from speckvctl.render import table

    for document in DOCUMENTS:
        if document not in (results.ErrorDocument, results.Top):  # stderr, and a screen of its own
            for name in table.RENDERERS[document.__module__.rpartition(".")[2]]:
                importlib.import_module(f"speckvctl.render.{name}")
            assert lines_of.dispatch(document) is not lines_of.dispatch(object), document.schema


def test_documents_are_loaded_from_where_they_are() -> None:
    for name in results.__all__:
        assert getattr(results, name).__module__ == f"speckvctl.results.{results._MODULES[name]}"
    assert set(results._MODULES) == set(results.__all__)
    with pytest.raises(AttributeError, match="NoSuchDocument"):
        getattr(results, "NoSuchDocument")  # noqa: B009


def test_a_command_loads_the_documents_that_it_prints() -> None:
    program = "import sys; from speckvctl import results; results.PoolList; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {name for name in done.stdout.split() if name.startswith("speckvctl.results.")}
    assert "speckvctl.results.pools" in loaded
    assert not loaded & {f"speckvctl.results.{name}" for name in ("bitstream", "codecs", "prefetcher", "statistics")}
