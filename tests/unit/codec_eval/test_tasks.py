# SPDX-License-Identifier: MIT
"""Tasks: the same seed gives the same items, every answer is in its text, and scores are of pairs of answers."""

from __future__ import annotations

import ast
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'speckv[codec]'")

pytest.importorskip("transformers", reason="it is not installed: pip install 'speckv[codec]'")

from speckvctl.reference import loading, taskitems, tasks  # noqa: E402
from speckvctl.reference.decoder import Shape  # noqa: E402
from speckvctl.reference.tasks import Context, Item, Score, Task, TaskError  # noqa: E402
from tests.unit.codec_eval import tiny  # noqa: E402

CHARACTERS = 128


def by_character(text: str) -> list[int]:
    return [1, *(ord(character) for character in text)]  # a first token, as of many tokenizers


def by_word(text: str) -> list[int]:
    """Digits alone, other runs of letters and marks with the blank before them."""
    return [sum(map(ord, word)) % 997 + 1 for word in re.findall(r"\n| ?[A-Za-z_]+|\d| ?[^\w\s]+\n?| ", text)]


def shape(vocabulary: int = 1000, context: int = 1 << 20) -> Shape:
    return Shape(layers=2, heads=4, kv_heads=2, head_dim=64, vocabulary=vocabulary, context=context)


def text_of(context: Context, item: Item) -> str:
    return "".join(map(chr, context.stored[1:] + item.prompt))


def test_a_seed_makes_the_same_items_and_the_first_ones_do_not_depend_on_their_number() -> None:
    made = tasks.make(by_word, shape(), items=12, context=900, seed=3)
    assert made == tasks.make(by_word, shape(), items=12, context=900, seed=3)
    assert made != tasks.make(by_word, shape(), items=12, context=900, seed=4)
    fewer = tasks.make(by_word, shape(), items=5, context=900, seed=3)
    for task in Task:
        every, first = ([item for context in found[task] for item in context.items] for found in (made, fewer))
        assert len(every) == 12 and every[:5] == first


def test_stored_tokens_are_whole_blocks_of_the_same_number_and_end_where_the_prompt_goes_on() -> None:
    made = tasks.make(by_word, shape(), items=8, context=900, seed=0)
    sizes = {task: {len(context.stored) for context in contexts} for task, contexts in made.items()}
    assert sizes == {Task.ARITHMETIC: {256}, Task.CODE: {512}, Task.NEEDLE: {832}}
    for context in made[Task.ARITHMETIC] + made[Task.CODE]:
        (item,) = context.items
        assert len(item.prompt) == 1
    long = tasks.make(by_character, shape(), items=8, context=4000, seed=0)
    lengths = []
    for index, context in enumerate(long[Task.CODE]):
        lengths.append(len(context.stored))
        assert len(context.stored) % 64 == 0 and context.stored[0] == 1
        assert text_of(context, context.items[0]).endswith(taskitems.code(0, index).needed)
    assert min(lengths) == 512 < max(lengths)  # all that is needed is kept, however many tokens it takes


@pytest.mark.parametrize("index", range(40))
def test_the_answer_follows_from_the_code(index: int) -> None:
    line = taskitems.code(7, index)
    if index % 4 == 0:  # a call with the parameters of its function
        name = line.needed.rsplit("print(", 1)[1]
        (defined,) = re.findall(rf"^def {name}(\(.*\)):$", line.filler + line.needed, re.M)
        assert line.answer == f"{defined})\n"
        return
    space: dict[str, Any] = {}
    exec(compile(ast.parse(line.needed + line.answer), "task", "exec"), space)
    expression = line.needed.rsplit("assert ", 1)[1].removesuffix(" ==")
    wanted = eval(expression, space)
    assert line.answer == (f' "{wanted}"\n' if isinstance(wanted, str) else f" {wanted}\n")


@pytest.mark.parametrize("index", range(40))
def test_the_result_is_that_of_the_arithmetic(index: int) -> None:
    line = taskitems.arithmetic(7, index, digits=3)
    for shown in (line.filler + line.needed + line.answer).splitlines():
        question, result = shown.split(" = ")
        assert eval(question) == int(result) >= 0
        assert max(map(len, re.findall(r"\d+", question))) <= 3


@pytest.mark.parametrize("size", [300, 1000, 6000])
def test_every_needle_that_is_asked_for_is_in_the_text_once(size: int) -> None:
    contexts = tasks.make(by_character, shape(), items=30, context=size, seed=5)[Task.NEEDLE]
    assert sum(len(context.items) for context in contexts) == 30
    depths = []
    for context in contexts:
        assert len(context.stored) % 64 == 0
        text = "".join(map(chr, context.stored[1:]))
        for item in context.items:
            question, answer = ("".join(map(chr, part)) for part in (item.prompt, item.answer))
            assert text.count(question) == 1 and text.count(question + answer) == 1
            depths.append(text.index(question) / len(text))
            assert size - 64 <= len(context.stored) + len(item.prompt) + len(item.answer) <= size
    if size == 6000:
        assert min(depths) < 0.1 and max(depths) > 0.85


def test_what_cannot_be_made_is_refused_with_the_reason() -> None:
    for tokenize, of, reason in (
        (lambda _: [3], shape(), "does not tell digits apart"),
        (lambda text: [7] * len(text), shape(), "does not tell digits apart"),
        (by_character, shape(vocabulary=40), "not its own"),
        (by_character, shape(context=300), "items take .* tokens, and the model takes 300"),
    ):
        with pytest.raises(TaskError, match=reason):
            tasks.make(tokenize, of, items=2, context=300, seed=0)


def test_the_error_of_a_difference_is_of_pairs_and_of_contexts() -> None:
    right, wrong = True, False
    alone = Score(np.array([right, right, wrong, wrong]), np.array([right, wrong, right, wrong]), np.arange(4))
    assert (alone.percent, alone.reference_percent, alone.difference) == (50, 50, 0)
    assert (alone.lost, alone.gained) == (1, 1)
    assert alone.difference_standard_error == pytest.approx(100 * math.sqrt(2 / 3 / 4))
    assert alone.reference_standard_error == pytest.approx(100 * np.std([1, 1, 0, 0], ddof=1) / 2)
    same = Score(alone.reference, alone.reference, np.arange(4))
    assert same.difference_standard_error == 0
    # Items that change together are one observation.
    paired = Score(np.repeat(alone.reference, 9), np.repeat(alone.decoded, 9), np.repeat(np.arange(4), 9))
    assert paired.difference_standard_error == pytest.approx(alone.difference_standard_error)
    one = Score(alone.reference, alone.decoded, np.zeros(4, int))
    assert one.difference_standard_error is None


def guesses(model: Any, stored: list[int], prompt: list[int], count: int, change: Any = None) -> list[int]:
    """What greedy decoding writes on a cache whose stored tokens were changed, run token by token."""
    engine = tiny.Engine(model)
    for token in stored:
        engine.predict(token)
    if change is not None:
        engine.replace(0, len(stored), change)
    found = engine.predict(prompt[0])
    for token in prompt[1:]:
        found = engine.predict(token)
    made: list[int] = []
    for _ in range(count):
        made.append(int(found.argmax()))
        found = engine.predict(made[-1])
    return made


def coarse(_layer: int, k: Any, v: Any) -> tuple[Any, Any]:
    return (k * 2).round() / 2, (v * 2).round() / 2


def test_an_item_is_right_where_greedy_decoding_on_the_store_writes_its_answer(tmp_path: Path) -> None:
    weights = tiny.write(tmp_path / "model")
    model = loading.load(tmp_path / "model")
    rng = np.random.default_rng(5)
    contexts, decoded = [], []
    for row in range(6):
        stored = tiny.documents(1, 128, seed=row)[0].tolist()
        prompts = [rng.integers(1, tiny.VOCABULARY, 1 + length).tolist() for length in range(2)]
        answers = [guesses(weights, stored, prompt, 3 + n) for n, prompt in enumerate(prompts)]
        contexts.append(Context(stored, [Item(*pair) for pair in zip(prompts, answers, strict=True)]))
        decoded += [guesses(weights, stored, p, len(a), coarse) == a for p, a in zip(prompts, answers, strict=True)]
    stores = {"same": lambda _, k, v: (k, v), "coarse": coarse, "none": lambda _, k, v: (0 * k, 0 * v)}
    told: list[tuple[int, int]] = []
    found = tasks.run(model, {Task.NEEDLE: contexts}, stores, lambda *done: told.append(done))
    same, rough, none = (found[name][Task.NEEDLE] for name in ("same", "coarse", "none"))
    assert same.percent == same.reference_percent == 100 and same.difference_standard_error == 0
    assert rough.decoded.tolist() == decoded and 0 < rough.percent < 100
    assert none.percent < rough.percent and none.difference < -50
    assert rough.contexts.tolist() == [row for row in range(6) for _ in range(2)]
    assert told[0] == (0, 48) and told[-1] == (48, 48)
