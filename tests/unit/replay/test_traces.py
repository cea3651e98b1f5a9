# SPDX-License-Identifier: MIT
"""Every format is read as it is; a broken line is named with its number, whatever is broken about it."""

from __future__ import annotations

import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from speckvctl.replay import traces
from speckvctl.replay.traces import Request, Survey, Trace, TraceError

GOOD = '{"timestamp": 5, "input_length": 1, "output_length": 2, "hash_ids": [0, 7]}'
PACK: dict[str, Callable[[bytes], bytes]] = {"plain": bytes, "gzip": gzip.compress, "xz": lzma.compress}

MOONCAKE = st.fixed_dictionaries(
    {
        "timestamp": st.integers(0, 10**9) | st.floats(0, 1e9),
        "input_length": st.integers(0, 10**6),
        "output_length": st.integers(0, 10**6),
        "hash_ids": st.lists(st.integers(0, 2**64 - 1), max_size=20),
    },
    optional={"other": st.text(max_size=5)},
)


@given(requests=st.lists(MOONCAKE, min_size=1, max_size=8), pack=st.sampled_from(list(PACK)))
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, requests: list[dict[str, Any]], pack: str
) -> None:
    path = tmp_path_factory.mktemp("trace") / "any.name"
    path.write_bytes(PACK[pack]("\n\n".join(map(json.dumps, requests)).encode()))
    trace = Trace(path)
    assert trace.format == "mooncake"
    assert list(trace) == [
        Request(
            line=2 * number + 1,
            time_ms=float(request["timestamp"]),
            session=None,
            session_clock=False,
            scope="",
            ids=tuple(request["hash_ids"]),
            input_tokens=request["input_length"],
            output_tokens=request["output_length"],
        )
        for number, request in enumerate(requests)
    ]
    assert trace.survey() == Survey(len(requests), sum(len(request["hash_ids"]) for request in requests))


def test_a_fleet_line_names_its_session(write_trace: Any) -> None:
    trace = Trace(write_trace([1], [2], session_id="s1"))
    assert trace.format == "fleet"
    assert [request.session for request in trace] == ["s1", "s1"]


def test_a_weka_line_is_a_session_with_a_clock_and_ids_of_its_own(write_trace: Any) -> None:
    session = {
        "id": "s",
        "block_size": 64,
        "hash_id_scope": "local",
        "requests": [
            {"t": 0.0, "hash_ids": [1]},
            {"t": 2.0, "type": "subagent", "requests": [{"t": 0.5, "hash_ids": [9]}, {"t": 3.0, "hash_ids": [9, 10]}]},
            {"t": 4.0, "hash_ids": [1, 2]},
        ],
    }
    other = {**session, "id": "g", "hash_id_scope": "global", "requests": [{"t": 1, "hash_ids": [1]}]}
    trace = Trace(write_trace(json.dumps(session), json.dumps(other)))
    assert trace.format == "weka-sessions"
    assert [(r.line, r.time_ms, r.session, r.scope, r.ids) for r in trace] == [
        (1, 0.0, "s", "s", (1,)),
        (1, 2500.0, "s", "s", (9,)),
        (1, 4000.0, "s", "s", (1, 2)),
        (1, 5000.0, "s", "s", (9, 10)),
        (2, 1000.0, "g", "", (1,)),
    ]
    assert all(request.session_clock for request in trace)


BROKEN = {
    "cut short": '{"timestamp": 5, "input_le',
    "not an object": "[1, 2]",
    "nothing in it": "{}",
    "no ids": '{"timestamp": 5, "input_length": 1, "output_length": 2}',
    "ids are text": GOOD.replace("[0, 7]", '"0 7"'),
    "an id is text": GOOD.replace("7", '"7"'),
    "an id is a fraction": GOOD.replace("7", "7.5"),
    "an id is a truth value": GOOD.replace("7", "true"),
    "an id is negative": GOOD.replace("7", "-7"),
    "an id is too large": GOOD.replace("7", str(1 << 64)),
    "time is negative": GOOD.replace("5", "-5"),
    "time is text": GOOD.replace("5", '"5"'),
    "time is endless": GOOD.replace("5", "1e400"),
    "time is not a number": GOOD.replace("5", "NaN"),
    "a length is missing": GOOD.replace("input_length", "length"),
    "a length is a fraction": GOOD.replace("2,", "2.5,"),
    "a session without a name": GOOD.replace("}", ', "session_id": ""}'),
    "an endless number": GOOD.replace("7", "7" * 5000),
    "deep nesting": "[" * 100_000,
    "a NUL": GOOD + "\0",
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_line_is_named_by_its_number(write_trace: Any, broken: str) -> None:
    path = write_trace(GOOD, "", GOOD, BROKEN[broken], GOOD)
    with pytest.raises(TraceError) as caught:
        Trace(path).survey()
    assert caught.value.line == 4
    assert str(caught.value).startswith(f"{path}: line 4: ")
    assert len(str(caught.value).splitlines()) == 1 and len(caught.value.reason) < 300


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"hash_id_scope": "none"}, "hash_id_scope"),
        ({"block_size": "64"}, "block_size"),
        ({"requests": {}}, "requests"),
        ({"requests": [3]}, r"requests\[0\]"),
        ({"requests": [{"t": 1}]}, r"requests\[0\]: hash_ids"),
        (
            {"requests": [{"t": 1, "requests": [{"t": 2, "hash_ids": ["x"]}]}]},
            r"requests\[0\]: requests\[0\]: hash_ids",
        ),
    ],
)
def test_a_broken_session_is_named_down_to_the_request(write_trace: Any, change: dict[str, Any], text: str) -> None:
    session = {"id": "s", "block_size": 64, "hash_id_scope": "local", "requests": [], **change}
    with pytest.raises(TraceError, match=f"line 1: {text}"):
        Trace(write_trace(json.dumps(session))).survey()


def test_a_line_that_never_ends_is_cut_off(write_trace: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_trace(GOOD, "x" * 4096)
    monkeypatch.setattr(traces, "MAX_LINE_BYTES", 1024)
    with pytest.raises(TraceError, match="line 2: longer than"):
        Trace(path).survey()


def test_a_line_of_another_format_is_refused(write_trace: Any) -> None:
    with pytest.raises(TraceError, match="line 2: session_id is missing"):
        Trace(write_trace(GOOD.replace("}", ', "session_id": "a"}'), GOOD)).survey()


@pytest.mark.parametrize("pack", ["gzip", "xz"])
def test_compressed_data_cut_short_or_damaged_is_a_broken_line(tmp_path: Path, pack: str) -> None:
    packed = PACK[pack]("\n".join([GOOD] * 500).encode())
    path = tmp_path / "trace"
    for broken in (packed[:-20], packed[: len(packed) // 2] + bytes(8) + packed[len(packed) // 2 + 8 :]):
        path.write_bytes(broken)
        with pytest.raises(TraceError):
            Trace(path).survey()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "empty"),
        (b"\n \n", "empty"),
        (b"hello\n", "line 1: not JSON"),
        (b'{"a": 1}\n', "not a trace format that is known"),
        (b"\xff\xfe{}\n", "not UTF-8"),
        (b"\x28\xb5\x2f\xfd....", "zstd"),
    ],
)
def test_what_is_no_trace_is_refused_at_once(tmp_path: Path, data: bytes, text: str) -> None:
    path = tmp_path / "trace"
    path.write_bytes(data)
    with pytest.raises(TraceError, match=text):
        Trace(path)


def test_a_trace_without_a_request_in_reach_is_refused(write_trace: Any) -> None:
    with pytest.raises(TraceError, match="no request"):
        Trace(write_trace(GOOD), until_ms=4).survey()


@given(data=st.binary(max_size=200) | st.text(max_size=200).map(str.encode), pack=st.sampled_from(list(PACK)))
def test_no_file_makes_another_error_than_a_trace_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, pack: str
) -> None:
    path = tmp_path_factory.mktemp("trace") / "trace"
    path.write_bytes(PACK[pack](GOOD.encode() + b"\n" + data))
    try:
        assert Trace(path).survey().requests >= 1
    except TraceError as error:
        assert error.line is not None


NAMES = st.sampled_from(["id", "t", "timestamp", "hash_ids", "requests", "hash_id_scope", "block_size"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
JSON = st.recursive(SCALARS, lambda part: st.lists(part, max_size=3) | st.dictionaries(NAMES, part), max_leaves=12)


@given(line=JSON)
def test_no_json_makes_another_error_than_a_trace_error(tmp_path_factory: pytest.TempPathFactory, line: object) -> None:
    path = tmp_path_factory.mktemp("trace") / "trace"
    session = '{"id": "s", "block_size": 64, "hash_id_scope": "local", "requests": []}'
    for first in (GOOD, session):
        path.write_text(f"{first}\n{json.dumps(line)}\n")
        try:
            Trace(path).survey()
        except TraceError as error:
            assert str(error).startswith(str(path))


def test_limits_stop_the_reading(write_trace: Any) -> None:
    path = write_trace([1], [2], [3], "broken")
    assert Trace(path).survey(limit=3) == Survey(3, 3)
    assert [request.ids for request in Trace(write_trace([1], [2], [3]), until_ms=10)] == [(1,), (2,)]


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "trace_format", "requests"),
    [
        ("conversation_trace.dev.jsonl.gz", "mooncake", 9408),
        ("synthetic_trace.jsonl.gz", "mooncake", 3993),
        ("weka_fleet512.dev.jsonl.xz", "fleet", 25487),
    ],
)
def test_the_real_traces_are_read_whole(shared_dir: Path, name: str, trace_format: str, requests: int) -> None:
    trace = Trace(shared_dir / "data" / "traces" / name)
    assert trace.format == trace_format
    assert trace.survey().requests == requests


@pytest.mark.shared
def test_the_real_sessions_are_read_with_their_sub_agents(shared_dir: Path) -> None:
    trace = Trace(shared_dir / "data" / "traces" / "weka_sessions.dev.jsonl.xz")
    assert trace.format == "weka-sessions"
    times: dict[str | None, float] = {}
    for number, request in enumerate(trace):
        assert request.time_ms >= times.get(request.session, 0.0)
        times[request.session] = request.time_ms
        if number == 5000:
            break
    assert len(times) > 10
