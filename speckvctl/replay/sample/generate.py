# SPDX-License-Identifier: MIT
"""Generates the sample data in this folder; see README.md.

python -m speckvctl.replay.sample.generate [FOLDER]
"""

from __future__ import annotations

import json
import math
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

SEED = 20261123
HEADS, TOKENS, CHANNELS = 2, 448, 128
ROPE_BASE = 10000.0
BLOCK_TOKENS = 512

Floats = npt.NDArray[np.float64]


def trace_lines(seed: int = SEED) -> list[str]:
    """Multi-turn sessions of three assistants, each with a system prompt that its sessions share."""
    rng = random.Random(seed)
    next_id = 0

    def fresh(count: int) -> list[int]:
        nonlocal next_id
        next_id += count
        return list(range(next_id - count, next_id))

    systems = [fresh(blocks) for blocks in (2, 5, 9)]
    requests: list[tuple[float, int, int, list[int]]] = []
    for session in range(40):
        time = session * rng.uniform(300.0, 700.0)
        chain = list(systems[rng.choices((0, 1, 2), (5, 3, 2))[0]])
        tokens = len(chain) * BLOCK_TOKENS
        for _ in range(rng.choice((1, 2, 3, 4, 6, 9))):
            tokens += rng.randint(40, 2600)  # the user's turn, including documents
            while len(chain) < tokens // BLOCK_TOKENS:
                chain += fresh(1)
            output = rng.randint(20, 700)
            partial = fresh(1) if tokens % BLOCK_TOKENS else []  # a partial last block is never reused
            requests.append((time, tokens, output, chain + partial))
            tokens += output
            time += output * 20.0 + rng.lognormvariate(math.log(9000.0), 0.9)
    requests.sort(key=lambda request: request[0])
    return [
        json.dumps({"timestamp": round(time), "input_length": tokens, "output_length": output, "hash_ids": ids})
        for time, tokens, output, ids in requests
    ]


def kv_tensors(seed: int = SEED) -> dict[str, npt.NDArray[np.uint16]]:
    """K (after rotary embedding) and V as bf16 bit patterns, [head][token][channel].

    Channels follow slow walks over the tokens with noise on top. As in real K, a few channels of a head have a mean and
    a spread several times the others', before the rotation; V is even and small.
    """
    rng = np.random.Generator(np.random.PCG64(seed))

    def walk(keep: float) -> Floats:
        steps = rng.standard_normal((TOKENS, CHANNELS))
        state = steps[0]
        rows = [state]
        for step in steps[1:]:
            state = keep * state + math.sqrt(1.0 - keep * keep) * step
            rows.append(state)
        return np.stack(rows)

    keys, values = [], []
    for _ in range(HEADS):
        spread = np.exp(0.35 * rng.standard_normal(CHANNELS))
        mean = 0.6 * rng.standard_normal(CHANNELS)
        outliers = rng.choice(CHANNELS, 6, replace=False)
        spread[outliers] *= 2.5
        mean[outliers] += rng.choice((-1.0, 1.0), 6) * rng.uniform(5.0, 11.0, 6)
        keys.append(_rotate(mean + spread * walk(0.6)))
        values.append(0.7 * np.exp(0.15 * rng.standard_normal(CHANNELS)) * walk(0.15))
    return {"synthetic.layer0.k": _bf16(np.stack(keys)), "synthetic.layer0.v": _bf16(np.stack(values))}


def _rotate(rows: Floats) -> Floats:
    """Rotary position embedding, channel i with channel i + half, as Llama models do it."""
    half = CHANNELS // 2
    angles = np.arange(TOKENS)[:, None] * ROPE_BASE ** (-np.arange(half) / half)[None, :]
    first, second = rows[:, :half], rows[:, half:]
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate((first * cos - second * sin, second * cos + first * sin), axis=1)


def _bf16(values: Floats) -> npt.NDArray[np.uint16]:
    """Round to nearest even."""
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> np.uint64(16) & np.uint64(1))) >> np.uint64(16)).astype(np.uint16)


def safetensors_bytes(tensors: dict[str, npt.NDArray[np.uint16]]) -> bytes:
    header: dict[str, Any] = {
        "__metadata__": {
            "layout": f"[kv_head={HEADS}][token={TOKENS}][channel={CHANNELS}]; k is post-RoPE",
            "origin": f"synthetic: speckvctl/replay/sample/generate.py, seed {SEED}; not from any model",
            "rope_theta": str(int(ROPE_BASE)),
        }
    }
    data = b""
    for name, tensor in tensors.items():
        part = tensor.astype("<u2").tobytes()
        header[name] = {
            "dtype": "BF16",
            "shape": list(tensor.shape),
            "data_offsets": [len(data), len(data) + len(part)],
        }
        data += part
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    return len(encoded).to_bytes(8, "little") + encoded + data


def main(arguments: list[str]) -> int:
    folder = Path(arguments[0]) if arguments else Path(__file__).parent
    (folder / "trace_sample.jsonl").write_text("\n".join(trace_lines()) + "\n", encoding="ascii")
    (folder / "kv_sample.safetensors").write_bytes(safetensors_bytes(kv_tensors()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
