# SPDX-License-Identifier: MIT
"""The card model's copies of enumerations that the generated C header of the registers leaves out."""

import re

import pytest

from tests.unit.contracts import uapi

RDL = (uapi.ROOT / "rtl/regs/speckv.rdl").read_text(encoding="utf-8")
MODEL = (uapi.ROOT / "libspeckv/card/internal.h").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "prefix"), [("speckv_fatal_cause", "SPECKV_FATAL_"), ("speckv_slot_state", "SPECKV_SLOT_STATE_")]
)
def test_the_model_names_the_values_of_the_register_map(name: str, prefix: str) -> None:
    (body,) = re.findall(rf"^enum {name} {{\n(.*?)^}};", RDL, re.MULTILINE | re.DOTALL)
    registers = re.findall(r"^\s+(\w+)\s*=\s*\d'd(\d+)", body, re.MULTILINE)
    assert registers
    (body,) = re.findall(rf"^enum {name} {{\n(.*?)^}};", MODEL, re.MULTILINE | re.DOTALL)
    assert re.findall(rf"^\t{prefix}(\w+),", body, re.MULTILINE) == [value for value, _ in registers]
    assert [int(number) for _, number in registers] == list(range(len(registers)))
