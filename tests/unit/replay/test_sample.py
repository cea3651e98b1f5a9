# SPDX-License-Identifier: MIT
"""The shipped sample is what its generator makes, is small, and is a trace and KV like any other."""

from __future__ import annotations

import numpy as np

from speckvctl.replay import sample
from speckvctl.replay.sample import generate
from speckvctl.replay.traces import Trace


def test_the_trace_is_what_the_generator_makes() -> None:
    assert sample.TRACE.read_text().splitlines() == generate.trace_lines()
    assert generate.trace_lines(seed=1) != generate.trace_lines(seed=2)


def test_the_kv_is_what_the_generator_makes_up_to_rounding() -> None:
    made = generate.safetensors_bytes(generate.kv_tensors())
    shipped = sample.KV.read_bytes()
    header = 8 + int.from_bytes(shipped[:8], "little")
    assert made[:header] == shipped[:header]
    ours, theirs = (np.frombuffer(data[header:], "<i2").astype(int) for data in (made, shipped))
    # exp and cos may differ in the last bit between machines: at most one bf16 step, and hardly anywhere
    assert abs(ours - theirs).max() <= 1 and (ours != theirs).mean() < 0.001


def test_k_has_outlier_channels_and_v_has_none() -> None:
    for name, tensor in generate.kv_tensors().items():
        values = (tensor.astype(np.uint32) << 16).view(np.float32)
        rms = np.sqrt((values**2).mean(axis=1))
        spread = rms.max(axis=1) / np.median(rms, axis=1)
        assert (spread > 4).all() if name.endswith(".k") else (spread < 2).all()


def test_the_sample_is_small_and_has_reuse() -> None:
    assert sample.TRACE.stat().st_size + sample.KV.stat().st_size < 600_000
    requests = list(Trace(sample.TRACE))
    asked = [block for request in requests for block in request.ids]
    assert len(requests) > 100 and len(set(asked)) < len(asked) / 2
    assert [request.time_ms for request in requests] == sorted(request.time_ms for request in requests)
    parents: dict[int, int | None] = {}
    for request in requests:  # an equal id means an equal whole prefix
        for parent, block in zip((None, *request.ids), request.ids, strict=False):
            assert parents.setdefault(block, parent) == parent
