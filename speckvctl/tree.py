# SPDX-License-Identifier: MIT
"""The command tree: nouns, their verbs, and one line about each noun.

It stands apart from the commands so that `speckvctl --help` imports none of them. DESIGN section 10 lists what the
whole tree will be; a test holds this list, that one and the registered commands together.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Noun:
    summary: str
    verbs: tuple[str, ...] = ()  # empty: the noun is a command itself


NOUNS: dict[str, Noun] = {
    "device": Noun(
        "Find, describe, change, test and close devices.",
        ("list", "show", "reset", "selftest", "set", "inject", "close"),
    ),
    "flash": Noun("Put a signed bitstream into a card, and start it."),
    "pool": Noun(
        "Create pools, look at them, change, check and destroy them.",
        ("create", "list", "show", "resize", "set", "destroy", "check"),
    ),
    "bitstream": Noun(
        "Build, look at, verify and sign bundles of bitstreams.", ("build", "inspect", "verify", "sign", "keygen")
    ),
    "train-prefetcher": Noun("Train a prefetcher on serving traces."),
    "prefetcher": Noun(
        "Judge prefetchers on real traces, load them into cards, look at models.", ("eval", "load", "unload", "show")
    ),
    "codec": Noun(
        "Judge codecs on real K and V, and turn tensors into frames and back.",
        ("eval", "calibrate", "compare", "encode", "decode", "vectors"),
    ),
    "replay": Noun("Drive a pool with a real serving trace and verify every byte."),
    "top": Noun("Watch devices, pools, tenants and prefetchers live."),
    "stats": Noun("Show a pool's counters, hit share, latencies and tenants."),
    "events": Noun("Show, or follow, what happened to devices and pools."),
    "emu": Noun("Run emulated cards.", ("start", "stop", "list", "status")),
    "doctor": Noun("Check that this machine can run pools, and say what to do."),
}


def command_path(arguments: list[str]) -> str:
    """The part of a command line that names the command: "speckvctl pool create"."""
    words = [word for word in arguments if not word.startswith("-")]
    path = ["speckvctl"]
    if words and words[0] in NOUNS:
        path.append(words[0])
        if len(words) > 1 and words[1] in NOUNS[words[0]].verbs:
            path.append(words[1])
    return " ".join(path)
