# SPDX-License-Identifier: MIT
"""Optional tools of tests: a missing one is a skip that names it, a failure in CI."""

from __future__ import annotations

import os

import pytest


def need(present: bool, what: str) -> None:
    if present:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is missing")
    pytest.skip(f"{what} is not installed")
