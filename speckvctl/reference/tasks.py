# SPDX-License-Identifier: MIT
"""Tasks with one right answer, by a model that reads decoded K and V. Needs torch. For reference/evaluation.py.

The K and V of whole blocks of 64 tokens come back decoded, as when a serving engine restores a stored prompt. In
*arithmetic* and *code* that is the whole prompt but its last token; in *needle* the whole text that the questions are
about. The rest of the prompt and the answer are computed on it. An item is right if every token of its answer, the
end of its line included, is the likeliest one after those before it: what greedy decoding would write.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from speckvctl.reference import taskitems
from speckvctl.reference.decoder import KV, Decoder, Shape, Store, Whole, restored
from speckvctl.reference.documents import BLOCK

ARITHMETIC_TOKENS, CODE_TOKENS = 256, 512  # stored of a prompt, unless what it needs is longer
NEEDLES = 20  # in a context, unless they would fill more than half of it
MOST_CONTEXT, LEAST_CONTEXT = 32768, 256  # tokens of a context of needles: where none is asked for, and ever
BATCH_TOKENS = 1 << 13  # of K and V run at once, or one prompt

Ids = list[int]
Tokenizer = Callable[[str], Ids]
Progress = Callable[[int, int], None]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


class Task(StrEnum):
    ARITHMETIC = "arithmetic"
    NEEDLE = "needle"
    CODE = "code"


class TaskError(Exception):
    """Tasks that cannot be made with this model's tokenizer, or with so short a context."""

    def __init__(self, reason: str, number: int = errno.EOPNOTSUPP) -> None:
        super().__init__(reason)
        self.errno = number


@dataclass(frozen=True)
class Item:
    prompt: Ids  # what follows the stored tokens, at least one
    answer: Ids


@dataclass(frozen=True)
class Context:
    stored: Ids  # whole blocks
    items: list[Item]


@dataclass(frozen=True)
class Score:
    """Which items [item] are right on the raw cache and on the decoded one, and the context that each is of."""

    reference: Bools
    decoded: Bools
    contexts: Ints

    @property
    def reference_percent(self) -> float:
        return 100 * float(self.reference.mean())

    @property
    def percent(self) -> float:
        return 100 * float(self.decoded.mean())

    @property
    def reference_standard_error(self) -> float | None:
        """Of reference_percent, in points, over contexts; None for one context."""
        return self._standard_error(self.reference.astype(np.float64))

    @property
    def difference(self) -> float:
        """Points by which the decoded cache is better."""
        return self.percent - self.reference_percent

    @property
    def difference_standard_error(self) -> float | None:
        """Paired: 0 where both caches have the same items right. In points, over contexts; None for one context."""
        return self._standard_error(self.decoded.astype(np.float64) - self.reference)

    @property
    def lost(self) -> int:
        return int((self.reference & ~self.decoded).sum())

    @property
    def gained(self) -> int:
        return int((self.decoded & ~self.reference).sum())

    def _standard_error(self, values: npt.NDArray[np.float64]) -> float | None:
        """Of their mean; items of one context are not independent of each other."""
        sums = np.bincount(self.contexts, values - values.mean())
        if len(sums) < 2:
            return None
        return 100 * math.sqrt(float(np.square(sums).sum()) * len(sums) / (len(sums) - 1)) / len(values)


# ---- texts as tokens -------------------------------------------------------------------------------------------------


def make(tokenize: Tokenizer, shape: Shape, *, items: int, context: int, seed: int) -> dict[Task, list[Context]]:
    """`items` items of each task; `context` tokens, question and answer included, for those of needles.

    Raises TaskError: the model's context is too short, or its tokenizer does not write these texts.
    """
    cutter = _Cutter(tokenize, shape)
    found = {
        Task.ARITHMETIC: [cutter.line(taskitems.arithmetic(seed, i), ARITHMETIC_TOKENS) for i in range(items)],
        Task.NEEDLE: list(_needles(cutter, items, context, seed)),
        Task.CODE: [cutter.line(taskitems.code(seed, i), CODE_TOKENS) for i in range(items)],
    }
    for task, contexts in found.items():
        longest = max(len(c.stored) + len(i.prompt) + len(i.answer) for c in contexts for i in c.items)
        if longest > shape.context:
            raise TaskError(f"{task} items take {longest} tokens, and the model takes {shape.context}", errno.EINVAL)
    return found


@dataclass(frozen=True)
class _Cutter:
    """A tokenizer, and the tokens that it puts before every text."""

    tokenize: Tokenizer
    shape: Shape

    def __post_init__(self) -> None:
        digits = {tuple(self.ids(f"{digit}\n")) for digit in range(10)}
        if len(digits) < 10 or not all(digits):
            raise TaskError(
                "the model's tokenizer does not tell digits apart: tasks need one of text", errno.EOPNOTSUPP
            )
        most = max(map(max, digits))
        if most >= self.shape.vocabulary:
            raise TaskError(
                f"the tokenizer has token {most}, and the model {self.shape.vocabulary}: not its own", errno.EOPNOTSUPP
            )

    @cached_property
    def front(self) -> Ids:
        return _common(self.tokenize("a"), self.tokenize("1"))

    @cached_property
    def _behind(self) -> int:
        """How many tokens it puts behind every text."""
        return len(_common(self.tokenize("a")[::-1], self.tokenize("1")[::-1]))

    def ids(self, text: str) -> Ids:
        """Without the tokens around the text."""
        found = self.tokenize(text)
        return found[len(self.front) : len(found) - self._behind]

    def parted(self, prompt: str, answer: str) -> tuple[Ids, Ids]:
        """Both, as the tokenizer cuts them in one; a token of both is of the answer."""
        whole = self.ids(prompt + answer)
        begin = len(_common(self.ids(prompt), whole))
        return whole[:begin], whole[begin:]

    def line(self, line: taskitems.Line, tokens: int) -> Context:
        """The end of a text, so much that all but its last token are whole blocks, `tokens` where that is enough."""
        prompt, answer = self.parted(line.filler + line.needed, line.answer)
        front = self.front
        needed = len(front) + len(self.ids(line.needed))
        stored = min(max(tokens, -(-needed // BLOCK) * BLOCK), (len(front) + len(prompt) - 1) // BLOCK * BLOCK)
        if stored < needed - 1:
            raise TaskError("the model's tokenizer cuts the texts of tasks into too few tokens")
        return Context(front + prompt[len(prompt) - 1 - stored + len(front) : -1], [Item(prompt[-1:], answer)])


def _common(a: Ids, b: Ids) -> Ids:
    """What both begin with."""
    same = [x == y for x, y in zip(a, b, strict=False)]
    return a[: same.index(False)] if False in same else a[: len(same)]


def _needles(cutter: _Cutter, items: int, context: int, seed: int) -> Iterator[Context]:
    count = NEEDLES
    while count > 1 and 2 * _size(cutter, taskitems.haystack(seed, 0, needles=count).needles) > context:
        count -= 1
    for index in range(-(-items // count)):
        text = taskitems.haystack(seed, index, needles=count)
        questions = [Item(*cutter.parted(*question)) for question in text.questions]
        asked = max(len(item.prompt) + len(item.answer) for item in questions)
        stored = _hidden(cutter, text, (context - asked) // BLOCK * BLOCK)
        yield Context(stored, questions[: items - index * count])


def _size(cutter: _Cutter, texts: Sequence[str]) -> int:
    return sum(len(cutter.ids(text)) for text in texts)


def _hidden(cutter: _Cutter, text: taskitems.Haystack, tokens: int) -> Ids:
    """`tokens` tokens: the needles at even distances among the sentences, of which the first may be cut."""
    room = tokens - len(cutter.front) - _size(cutter, text.needles)
    if room < 0:
        raise TaskError(f"{tokens} tokens do not hold {len(text.needles)} needles", errno.EINVAL)
    sentences = [cutter.ids(sentence) for sentence in text.filler]
    lines: list[Ids] = []
    while room > 0:
        lines.append(sentences[len(lines) % len(sentences)][-room:])
        room -= len(lines[-1])
    lines.reverse()  # the cut one first
    count = len(text.needles)
    places = [min(len(lines), 1 + place * len(lines) // count) for place in range(count)]
    for place, needle in reversed([*zip(places, text.needles, strict=True)]):
        lines.insert(place, cutter.ids(needle))
    return cutter.front + [token for line in lines for token in line]


# ---- running ---------------------------------------------------------------------------------------------------------


def run(
    model: Decoder, tasks: Mapping[Task, Sequence[Context]], stores: Mapping[str, Store | Whole], progress: Progress
) -> dict[str, dict[Task, Score]]:
    """Each store's score in each task. A store is called as by reference.loss, with the stored tokens of a context."""
    ways: dict[str | None, Store | Whole] = {None: lambda _layer, k, v: (k, v)}
    ways.update(stores)
    total = len(ways) * sum(len(context.items) for contexts in tasks.values() for context in contexts)
    done = 0
    found: dict[str, dict[Task, Score]] = {name: {} for name in stores}
    for task, contexts in tasks.items():
        marks: dict[str | None, list[bool]] = {name: [] for name in ways}
        of: list[int] = []
        for first, chunk in _chunks(contexts):
            with torch.inference_mode():
                kept = model.prefix(torch.tensor([context.stored for context in chunk], device=model.device))
                rows = [(row, item) for row, context in enumerate(chunk) for item in context.items]
                of += [first + row for row, _ in rows]
                for name, store in ways.items():
                    progress(done, total)
                    marks[name] += _marks(model, restored(store, kept), rows)
                    done += len(rows)
        for name in stores:
            found[name][task] = Score(np.array(marks[None]), np.array(marks[name]), np.array(of))
    progress(total, total)
    return found


def _chunks(contexts: Sequence[Context]) -> Iterator[tuple[int, Sequence[Context]]]:
    """Successive contexts of equal length, with the number of the first."""
    first = 0
    while first < len(contexts):
        length = len(contexts[first].stored)
        last = first + 1
        while (
            last < len(contexts)
            and len(contexts[last].stored) == length
            and (last + 1 - first) * length <= BATCH_TOKENS
        ):
            last += 1
        yield first, contexts[first:last]
        first = last


def _marks(model: Decoder, kept: Sequence[KV], rows: Sequence[tuple[int, Item]]) -> list[bool]:
    """Whether each item, of a context by its row in `kept`, is right."""
    step = max(1, BATCH_TOKENS // kept[0][0].shape[2])
    found = []
    for begin in range(0, len(rows), step):
        part = rows[begin : begin + step]
        places = torch.tensor([row for row, _ in part], device=model.device)
        whole = [item.prompt + item.answer[:-1] for _, item in part]
        longest = max(map(len, whole))
        ids = torch.tensor([ids + [0] * (longest - len(ids)) for ids in whole], device=model.device)
        hidden = model.behind([(k[places], v[places]) for k, v in kept], ids)
        for (_, item), states in zip(part, hidden, strict=True):
            first = len(item.prompt) - 1
            guessed: Any = model.logits(states[first : first + len(item.answer)]).argmax(-1)
            found.append(guessed.tolist() == item.answer)
    return found
