# SPDX-License-Identifier: MIT
"""A tree that one can find things in: layers, one backend table, sizes, forms, and nothing slower for it."""

from __future__ import annotations

import re

from tests.accept.frame import Figure, NotMeasuredError, Outcome, Point, at_least, exactly
from tests.accept.suites.foundation import PYTEST, meson_failures, pytest_failures, roots_failed
from tests.accept.suites.trust import slowest, tests

#: The last commit before the sources were put in layers: what speed is compared with.
BASELINE = "c4df8c5"
LINT = ".venv/bin/python .ci/test.py lint"


def failed(outcome: Outcome) -> Figure:
    """Failures in the last line of `.ci/test.py`; a tool that is missing is no pass."""
    found = outcome.find(r"^(\d+) passed, (\d+) failed, (\d+) skipped$")
    missing = re.findall(r"^skipped: .*(\S+ is not installed)$", outcome.output, re.M)
    if missing or not int(found[1]):
        raise NotMeasuredError("; ".join(missing) or "nothing ran")
    return Figure(int(found[2]), "failed", found[0])


def build(text: str, selection: str) -> Point:
    return Point(text, f"{PYTEST} tests/unit/build/{selection}", pytest_failures, exactly(0))


POINTS = [
    build("no call and no include goes to a higher layer, and no files call each other in a circle", "test_layers.py"),
    build(
        "no backend is named outside of backend/, no scheme of cards outside of transport/",
        "test_layers.py::test_no_backend_is_named_outside_its_folder "
        "tests/unit/build/test_layers.py::test_schemes_of_cards_are_known_to_the_transport_alone",
    ),
    build(
        "no administrator's verb imports comparison/ or reference/",
        "test_layers.py::test_models_and_peers_are_loaded_by_the_codec_commands_alone",
    ),
    Point(
        "get, put, look-ups, evictions, commands and start-up: new over old, the slowest of them",
        f".venv/bin/python tests/bench/against.py {BASELINE}",
        slowest,
        at_least(0.98),
        slow=True,
    ),
    Point(
        "no system call and no allocation in steady state",
        tests("client steady state makes no system call and no allocation"),
        meson_failures,
        exactly(0),
    ),
    Point(
        "an engine in one process carries the client's rings as a card does",
        tests("transport queue pairs over an engine in one process"),
        meson_failures,
        exactly(0),
    ),
    build("no C file over 500 lines, no function over 80 without a reason", "test_sizes.py"),
    Point("clang-format, clang-tidy, ruff, mypy strict, form of commits", LINT, failed, exactly(0), minutes=30),
    build("documents name what exists, and what a newcomer looks for lies where its folder says", "test_documents.py"),
    build("schemas are those of the dataclasses", "test_schemas.py"),
    Point(
        "make test: host, card, AddressSanitizer, ThreadSanitizer",
        "make test",
        failed,
        exactly(0),
        slow=True,
        minutes=120,
    ),
    Point("make test-bare: fresh roots", "make test-bare", roots_failed, exactly(0), slow=True, minutes=180),
]
