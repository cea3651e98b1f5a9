# SPDX-License-Identifier: MIT
"""The command tree: nouns, their verbs, and one line about each noun.

Separate from the commands, so that `speckvctl --help` imports none of them. A test compares this list with the planned
tree and the registered commands.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches


@dataclass(frozen=True)
class Noun:
    summary: str
    verbs: tuple[str, ...] = ()  # empty: the noun is a command itself
    aliases: Mapping[str, str] = field(default_factory=dict)  # aliases of its verbs


NOUNS: dict[str, Noun] = {
    "device": Noun(
        "Find, describe, change, test and close devices.",
        ("list", "show", "reset", "selftest", "set", "inject", "close"),
        {"ls": "list"},
    ),
    "flash": Noun("Put a signed bitstream into a card, and start it."),
    "pool": Noun(
        "Create, show, change, check and destroy pools.",
        ("create", "list", "show", "resize", "set", "destroy", "check"),
        {"ls": "list", "rm": "destroy", "delete": "destroy"},
    ),
    "bitstream": Noun(
        "Build, show, verify and sign bundles of bitstreams.",
        ("build", "inspect", "verify", "sign", "keygen"),
        {"show": "inspect"},
    ),
    "train-prefetcher": Noun("Train a prefetcher on serving traces."),
    "prefetcher": Noun(
        "Evaluate prefetchers on real traces, load them into cards, show models.", ("eval", "load", "unload", "show")
    ),
    "codec": Noun(
        "Evaluate codecs on real K and V, and turn tensors into frames and back.",
        ("eval", "compare", "extract", "calibrate", "encode", "decode", "vectors"),
    ),
    "replay": Noun("Drive a pool with a real serving trace and verify every byte."),
    "top": Noun("Watch devices, pools, tenants and prefetchers live."),
    "stats": Noun("Show a pool's counters, hit share, latencies and tenants."),
    "events": Noun("Show, or follow, what happened to devices and pools."),
    "emu": Noun("Run emulated cards.", ("start", "stop", "list", "status"), {"ls": "list", "show": "status"}),
    "doctor": Noun("Check that this machine can run pools, and say what to do."),
}


#: Environment variables, for help and manual pages.
ENVIRONMENT = {
    "SPECKV_RUNTIME_DIR": (
        "Directory that holds host:DRAM, host:numaN and emulated cards. Default: /dev/shm/speckv for root, "
        "and for users if root has created it; else /dev/shm/speckv-UID."
    ),
    "SPECKV_ISA": "Forces the kernels of checksums and codecs, for tests. Default: the best that the processor has.",
    "NO_COLOR": "No colour, on a terminal too.",
    "COLUMNS": "Width of help and of wrapped messages, in place of the terminal's.",
    "SPECKVCTL_DEBUG": "Shows where in the program an error came from.",
}


def command_path(arguments: Sequence[str]) -> str:
    """The part of a command line that names the command: "speckvctl pool create"."""
    words = [word for word in arguments if not word.startswith("-")]
    path = ["speckvctl"]
    if words and words[0] in NOUNS:
        noun = NOUNS[words[0]]
        path.append(words[0])
        if len(words) > 1 and (verb := noun.aliases.get(words[1], words[1])) in noun.verbs:
            path.append(verb)
    return " ".join(path)


#: Short options without a value, which can be combined before one with a value: -yj, -jo FILE.
_FLAGS, _VALUED = "fhjyV", "o"


def given(arguments: Sequence[str], long: str, short: str = "") -> bool:
    """Whether a flag is on a command line that may be invalid and so cannot be parsed."""
    words = arguments[: arguments.index("--")] if "--" in arguments else arguments
    pattern = re.compile(f"-[{_FLAGS}]*{short}[{_FLAGS}]*([{_VALUED}].*)?", re.DOTALL)
    return long in words or any(bool(short) and pattern.fullmatch(word) for word in words)


def streams_documents(path: str, arguments: Sequence[str]) -> bool:
    """Whether a command prints a stream of documents, one per line."""
    if path == "speckvctl top":
        return not given(arguments, "--once")
    return path == "speckvctl events" and given(arguments, "--follow", "f")


def normalized(arguments: Sequence[str]) -> list[str]:
    """Rewrite common variants of a command line to the form that the commands accept.

    "help pool create" and "pool help create" are "pool create --help"; "version" is "--version"; --json before the noun
    is an option of the verb.
    """
    words = list(arguments)
    as_json: list[str] = []
    while words and words[0] in ("--json", "-j"):
        as_json = [words.pop(0)]
    if words[:1] == ["help"]:
        return [*words[1:], "--help"]
    if words[1:2] == ["help"] and words[0] in NOUNS and NOUNS[words[0]].verbs:
        return [words[0], *words[2:], "--help"]
    if words == ["version"]:
        return ["--version"]
    if as_json and words[:1] and words[0].startswith("-"):
        return [*words, *as_json]
    if as_json and words:
        if len(words) == 1 and words[0] in NOUNS and NOUNS[words[0]].verbs:
            return words  # the help of a noun
        at = 2 if words[0] in NOUNS and NOUNS[words[0]].verbs else 1
        return [*words[:at], *as_json, *words[at:]]
    return words


def suggestions(word: str) -> list[str]:
    """Commands similar to an unknown word, without "speckvctl"."""
    with_verb = [f"{noun} {word}" for noun, entry in NOUNS.items() if word in entry.verbs or word in entry.aliases]
    return with_verb or get_close_matches(word, [*NOUNS, "help", "version"], 2)


def verb_suggestions(noun: str, word: str) -> list[str]:
    entry = NOUNS[noun]
    near = get_close_matches(word, [*entry.verbs, *entry.aliases], 2)
    return list(dict.fromkeys(f"{noun} {entry.aliases.get(verb, verb)}" for verb in near))
