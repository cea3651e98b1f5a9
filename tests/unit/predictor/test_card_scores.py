# SPDX-License-Identifier: MIT
"""What tests/card holds the card to is what the reference says today."""

from __future__ import annotations

from pathlib import Path

from tests.unit.predictor import card_scores


def test_the_scores_that_the_card_must_give_are_those_of_the_reference(repository: Path) -> None:
    written = (repository / "tests" / "card" / "scores.txt").read_text(encoding="utf-8")
    assert written.splitlines() == list(card_scores.lines())
