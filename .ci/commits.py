#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Check the form of commit messages.

.ci/commits.py         every commit of this branch since this file was added
.ci/commits.py FILE    as a commit-msg hook: the message in FILE, of what is staged
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

SUBJECT = re.compile(r"[a-z][a-z0-9_./-]*: \S.*")
MOST = 72
#: A change of these alone needs no body.
TESTS = ("tests/",)
#: Subjects that git writes for commits that a rebase folds into others, and merges.
BY_GIT = re.compile(r"(Merge|fixup!|squash!|amend!) .*")
SCISSORS = re.compile(r"(?m)^# -+ >8 -+$.*", re.DOTALL)  # `git commit -v` puts the diff below it


def git(*words: str) -> str:
    # In a container, another user may own the tree.
    command = ["git", "-c", "safe.directory=*", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent).stdout


def faults(message: str, files: list[str]) -> list[str]:
    subject, _, body = message.strip().partition("\n")
    found = []
    if len(subject) > MOST:
        found.append(f"the subject has {len(subject)} characters, and may have {MOST}")
    if not SUBJECT.fullmatch(subject):
        found.append("the subject is not `subsystem: imperative`")
    if not body.strip() and any(not file.startswith(TESTS) for file in files):
        found.append("a change of more than tests says why in its body")
    return found


def main(arguments: list[str]) -> int:
    if arguments:
        lines = SCISSORS.sub("", Path(arguments[0]).read_text("utf-8")).splitlines()
        message = "\n".join(line for line in lines if not line.startswith("#"))
        if BY_GIT.match(message.lstrip()):
            return 0
        # Nothing staged: the message alone is amended.
        staged = git("diff", "--cached", "--name-only") or git("show", "--format=", "--name-only", "HEAD")
        messages = {"this commit": (message, staged.splitlines())}
    else:
        added = git("log", "--diff-filter=A", "--format=%H", "--", Path(__file__).name).split()
        since = [f"{added[-1]}..HEAD"] if added else ["-0"]
        hashes = git("log", "--no-merges", "--format=%h", *since).split()
        messages = {
            h: (git("log", "-1", "--format=%B", h), git("show", "--format=", "--name-only", h).splitlines())
            for h in hashes
        }
    bad = 0
    for name, (message, files) in messages.items():
        for fault in faults(message, files):
            print(f"{name}: {message.splitlines()[0] if message.strip() else '(no message)'}: {fault}", file=sys.stderr)
            bad += 1
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
