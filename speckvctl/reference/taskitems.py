# SPDX-License-Identifier: MIT
"""Texts of the tasks that a model is given, made from a seed and no other data. Imported by reference/tasks.py.

Every answer follows from its text alone, and its line ends with a line break that no blank follows, so that a
tokenizer cuts it as it cuts the lines before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random


def _words(*lines: str) -> tuple[str, ...]:
    return tuple(" ".join(lines).split())


ADJECTIVES = _words(
    "amber brisk calm dusty eager faint gentle hollow ivory jolly keen lively mellow narrow olive plain",
    "quiet rusty silver tidy upper vivid windy young",
)
NOUNS = _words(
    "anchor badger cellar donkey engine falcon garden hammer island jacket kettle ladder meadow needle",
    "orchard pigeon quarry ribbon saddle tunnel urchin valley walnut yard",
)
PEOPLE = _words(
    "baker captain doctor farmer gardener hunter judge miller nurse painter porter printer sailor",
    "shepherd tailor weaver",
)
DEEDS = _words("asked followed greeted helped painted praised saw thanked visited watched")
PLACES = _words("bank bridge church harbour market mill river school station tower wall wood")
WAYS = _words("at behind beside near opposite past")
CALLS = _words(
    "blend check clamp count drain fetch fold join mark merge move pack poll scale seal shift sort split",
    "trim wrap",
)
NAMES = _words(
    "angle batch depth extra floor gain height index limit margin offset phase rate span stride total",
    "width",
)

SHOWN = 3  # lines of a code task that show the form of the last one


@dataclass(frozen=True)
class Line:
    """A text whose last line is to be completed."""

    filler: str  # may be cut from its beginning
    needed: str
    answer: str


@dataclass(frozen=True)
class Haystack:
    """Sentences among which the needles are put at even distances, and a question about each needle."""

    filler: tuple[str, ...]
    needles: tuple[str, ...]
    questions: tuple[tuple[str, str], ...]  # what follows the text, and its answer


def _rng(seed: int, task: str, index: int) -> Random:
    return Random(f"{seed} {task} {index}")


# ---- arithmetic ------------------------------------------------------------------------------------------------------


def arithmetic(seed: int, index: int, *, digits: int = 4, lines: int = 80) -> Line:
    """Sums and differences of numbers of up to `digits` digits, and products of shorter ones; the last is asked for."""
    rng = _rng(seed, "arithmetic", index)
    solved = ["{} = {}\n".format(*_sum(rng, digits)) for _ in range(lines)]
    question, result = _sum(rng, digits)
    return Line("".join(solved[:-4]), "".join(solved[-4:]) + f"{question} =", f" {result}\n")


def _sum(rng: Random, digits: int) -> tuple[str, int]:
    sign = rng.choice("+-*")
    most = digits if sign != "*" else max(1, digits // 2)
    a, b = (rng.randrange(10 ** (length - 1), 10**length) for length in (rng.randint(1, most), rng.randint(1, most)))
    if sign == "-":
        a, b = max(a, b), min(a, b)
    return f"{a} {sign} {b}", {"+": a + b, "-": a - b, "*": a * b}[sign]


# ---- needles ---------------------------------------------------------------------------------------------------------


def haystack(seed: int, index: int, *, needles: int, sentences: int = 512, digits: int = 5) -> Haystack:
    """Needles whose names share their words with other needles, each with a number of its own."""
    rng = _rng(seed, "needle", index)
    names = [(a, b) for a in ADJECTIVES for b in NOUNS]
    chosen = rng.sample(names, needles)
    values = rng.sample(range(10 ** (digits - 1), 10**digits), needles)
    facts = [f"The code of the {a} {b} is" for a, b in chosen]
    return Haystack(
        tuple(_sentence(rng) for _ in range(sentences)),
        tuple(f"{fact} {value}.\n" for fact, value in zip(facts, values, strict=True)),
        tuple((fact, f" {value}.\n") for fact, value in zip(facts, values, strict=True)),
    )


def _sentence(rng: Random) -> str:
    who, whom = rng.sample(PEOPLE, 2)
    return f"The {who} {rng.choice(DEEDS)} the {whom} {rng.choice(WAYS)} the {rng.choice(PLACES)}.\n"


# ---- code ------------------------------------------------------------------------------------------------------------


def code(seed: int, index: int, *, functions: int = 6, entries: int = 14) -> Line:
    """Python whose last line follows from what is defined above it, of four kinds in turn."""
    rng = _rng(seed, "code", index)
    names = _function_names(rng)
    filler = "".join(_function(rng, name)[0] for name in (next(names) for _ in range(24)))
    kind = (_call, _value, _entry, _inverse)[index % 4]
    needed, answer = kind(rng, [next(names) for _ in range(functions)], entries)
    return Line(filler, needed, answer + "\n")


def _function_names(rng: Random) -> Iterator[str]:
    found = [f"{call}_{noun}" for call in CALLS for noun in NOUNS]
    rng.shuffle(found)
    yield from found


def _function(rng: Random, name: str) -> tuple[str, list[str]]:
    """Its text, and its parameters."""
    taken = rng.sample(NAMES, rng.randint(2, 4))
    body = " + ".join(f"{rng.randrange(2, 10)} * {parameter}" for parameter in taken)
    return f"def {name}({', '.join(taken)}):\n    return {body}\n\n\n", taken


def _call(rng: Random, names: list[str], _entries: int) -> tuple[str, str]:
    """A function is called with its own parameters, in their order."""
    made = {name: _function(rng, name) for name in names}
    text = "".join(text for text, _ in made.values())
    asked = rng.sample(names, SHOWN + 1)
    calls = [f"({', '.join(made[name][1])}))" for name in asked]
    shown = "".join(f"print({name}{call}\n" for name, call in zip(asked[:-1], calls[:-1], strict=True))
    return f"{text}{shown}print({asked[-1]}", calls[-1]


def _value(rng: Random, names: list[str], _entries: int) -> tuple[str, str]:
    """What a function of one step returns."""
    steps = {name: (rng.choice("+-"), rng.randrange(2, 40)) for name in names}
    text = "".join(
        f"def {name}({(x := rng.choice(NAMES))}):\n    return {x} {sign} {step}\n\n\n"
        for name, (sign, step) in steps.items()
    )
    lines, result = [], 0
    for name in rng.sample(names, SHOWN + 1):
        sign, step = steps[name]
        given = rng.randrange(40, 400)
        result = given + step if sign == "+" else given - step
        lines.append((f"assert {name}({given}) ==", f" {result}"))
    shown = "".join(f"{begin}{end}\n" for begin, end in lines[:-1])
    return f"{text}{shown}{lines[-1][0]}", lines[-1][1]


def _table(rng: Random, entries: int) -> tuple[str, dict[str, int]]:
    keys = [f"{a}_{b}" for a, b in rng.sample([(a, b) for a in ADJECTIVES for b in NOUNS], entries)]
    table = dict(zip(keys, rng.sample(range(100, 1000), entries), strict=True))
    return "PORTS = {\n" + "".join(f'    "{key}": {port},\n' for key, port in table.items()) + "}\n", table


def _entry(rng: Random, _names: list[str], entries: int) -> tuple[str, str]:
    """An entry of a table, by its key."""
    text, table = _table(rng, entries)
    asked = rng.sample(list(table), SHOWN + 1)
    shown = "".join(f'assert PORTS["{key}"] == {table[key]}\n' for key in asked[:-1])
    return f'{text}{shown}assert PORTS["{asked[-1]}"] ==', f" {table[asked[-1]]}"


def _inverse(rng: Random, _names: list[str], entries: int) -> tuple[str, str]:
    """The key of a table's entry, by its value."""
    text, table = _table(rng, entries)
    asked = rng.sample(list(table), SHOWN + 1)
    text += "OWNERS = {port: owner for owner, port in PORTS.items()}\n"
    shown = "".join(f'assert OWNERS[{table[key]}] == "{key}"\n' for key in asked[:-1])
    return f"{text}{shown}assert OWNERS[{table[asked[-1]]}] ==", f' "{asked[-1]}"'
