# SPDX-License-Identifier: MIT
"""Every format is read as it is; a broken line is named with its number, whatever is broken about it."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
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
    times = [float(request["timestamp"]) for request in requests]
    expected = [
        Request(
            line=2 * number + 1,
            time_ms=times[number] - times[0],
            session=None,
            session_clock=False,
            scope="",
            ids=tuple(request["hash_ids"]),
            input_tokens=request["input_length"],
            output_tokens=request["output_length"],
        )
        for number, request in enumerate(requests)
    ]
    expected.sort(key=lambda request: request.time_ms)  # stable
    read = list(trace)
    assert [replace(request, time_ms=0.0) for request in read] == [
        replace(request, time_ms=0.0) for request in expected
    ]
    assert [request.time_ms for request in read] == pytest.approx([r.time_ms - expected[0].time_ms for r in expected])
    moved = sum(time < max(times[:number]) for number, time in enumerate(times) if number)
    assert trace.survey() == Survey(len(requests), sum(len(request["hash_ids"]) for request in requests), moved)


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
    "a form feed": "\f",
    "a byte order mark in the middle": "\ufeff" + GOOD,
    "a key twice": GOOD.replace("}", ', "timestamp": 6}'),
    "a key twice inside": GOOD.replace("}", ', "more": {"a": 1, "b": [{"c": 1, "c": 1}]}}'),
    "half a surrogate pair": GOOD.replace("}", r', "session_id": "\ud800"}'),
    "deep objects": '{"a":' * 100_000,
    "time a century on": GOOD.replace("5", str(3 * 10**12)),
    "two objects": GOOD + GOOD,
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_line_is_named_by_its_number(write_trace: Any, broken: str) -> None:
    path = write_trace(GOOD, "", GOOD, BROKEN[broken], GOOD)
    with pytest.raises(TraceError) as caught:
        Trace(path).survey()
    assert caught.value.line == 4
    assert str(caught.value).startswith(f"{path}: line 4: ")
    assert len(str(caught.value).splitlines()) == 1 and len(caught.value.reason) < 300
    for words in ("Expecting", "utf-8", "Extra data", "recursion", "Exceeds the limit", "delimiter", "codec"):
        assert words not in caught.value.reason


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
        (b"\xff\xfe{}\n", "iconv -f UTF-16"),
        (b"\xfe{}\n", "not UTF-8"),
        (b"BZh91AY&SY", "bzip2"),
        (b"PK\x03\x04...", "zip"),
        (b'[{"timestamp": 1},\n', "jq -c '.\\[\\]'"),
        (b'{\n"timestamp": 1\n}\n', "jq -c"),
        (b"\x28\xb5\x2f\xfd....", "zstd"),
    ],
)
def test_what_is_no_trace_is_refused_at_once(tmp_path: Path, data: bytes, text: str) -> None:
    path = tmp_path / "trace"
    path.write_bytes(data)
    with pytest.raises(TraceError, match=text):
        Trace(path)


def test_a_trace_without_a_request_in_reach_is_refused(write_trace: Any) -> None:
    with pytest.raises(TraceError, match="no request up to -1 ms"):
        Trace(write_trace(GOOD), until_ms=-1).survey()
    empty = {"id": "s", "block_size": 64, "hash_id_scope": "local", "requests": []}
    with pytest.raises(TraceError, match=r"no request$"):
        Trace(write_trace(json.dumps(empty))).survey()


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


def request(time: float, *ids: int) -> str:
    return json.dumps({"timestamp": time, "input_length": 1, "output_length": 1, "hash_ids": ids})


def times_of(trace: Trace) -> list[tuple[float, tuple[int, ...]]]:
    return [(request.time_ms, request.ids) for request in trace]


@given(
    times=st.lists(st.integers(0, 10**9), min_size=1, max_size=8),
    begin=st.sampled_from([0, 1, 3_600_000, 1_733_054_400_000]),
)
def test_where_the_clock_began_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, times: list[int], begin: int
) -> None:
    path = tmp_path_factory.mktemp("trace") / "trace"
    path.write_text("\n".join(request(time + begin, index) for index, time in enumerate(times)))
    trace = Trace(path, until_ms=500_000_000)
    order = sorted(range(len(times)), key=times.__getitem__)
    first = min(times)
    expected = [(times[index] - first, (index,)) for index in order if times[index] - first <= 500_000_000]
    assert times_of(trace) == expected
    assert trace.survey().requests == len(expected)


def test_lines_out_of_order_are_sorted_and_counted(write_trace: Any) -> None:
    path = write_trace(request(30, 1), request(20, 2), request(20, 3), request(40, 4), request(10, 5))
    trace = Trace(path)
    assert trace.survey() == Survey(5, 5, moved=3)
    assert times_of(trace) == [(0, (5,)), (10, (2,)), (10, (3,)), (20, (1,)), (30, (4,))]
    assert Trace(path, until_ms=10).survey() == Survey(3, 3, moved=3)
    assert Trace(path).survey(limit=2) == Survey(2, 2, moved=3)


def test_a_span_that_no_clock_can_count_is_refused(write_trace: Any) -> None:
    for times in ((0, 2e12), (2e12, 0)):
        with pytest.raises(TraceError, match="it is in milliseconds"):
            Trace(write_trace(*(request(time, 1) for time in times))).survey()
    session = {"id": "s", "block_size": 64, "hash_id_scope": "local", "requests": [{"t": 2e9, "hash_ids": [1]}]}
    with pytest.raises(TraceError, match="is not a time"):
        Trace(write_trace(json.dumps(session))).survey()


@pytest.mark.parametrize("pack", PACK)
def test_a_byte_order_mark_and_line_ends_of_windows_are_read(tmp_path: Path, pack: str) -> None:
    path = tmp_path / "trace"
    path.write_bytes(PACK[pack](b"\xef\xbb\xbf" + f"{GOOD}\r\n\r\n{GOOD}\r\n".encode()))
    assert Trace(path).survey() == Survey(2, 4)
    assert [request.line for request in Trace(path)] == [1, 3]


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\n", "Azure"),
        ("Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n5,ChatGPT,1,2,3,x\n", "BurstGPT"),
        ('"Timestamp","Model","Request tokens","Response tokens","Total tokens","Log Type"\r\n', "BurstGPT"),
        ("time,tokens\n1,2\n", "CSV"),
    ],
)
def test_a_trace_in_csv_is_refused_with_what_is_accepted(tmp_path: Path, head: str, words: str) -> None:
    path = tmp_path / "trace.csv"
    for mark in ("", "\ufeff"):
        path.write_text(mark + head, encoding="utf-8")
        with pytest.raises(TraceError, match=words) as caught:
            Trace(path)
        assert "mooncake" in caught.value.reason and "hash_ids" in caught.value.reason


@pytest.mark.parametrize("pack", PACK)
def test_a_pipe_is_read_as_a_file_is(tmp_path: Path, pack: str) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    data = PACK[pack]("\n".join(GOOD for _ in range(5000)).encode())
    feeder = threading.Thread(target=path.write_bytes, args=(data,))
    feeder.start()
    trace = Trace(path)
    feeder.join()
    assert trace.survey() == Survey(5000, 10000)
    assert len(list(trace)) == len(list(trace)) == 5000
    (tmp_path / "file").write_bytes(data)
    assert trace.digest() == Trace(tmp_path / "file").digest()


def test_a_pipe_that_does_not_end_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "MAX_PIPE_BYTES", 4 << 20)
    with subprocess.Popen(["cat", "/dev/zero"], stdout=subprocess.PIPE) as endless:
        assert endless.stdout is not None
        with pytest.raises(TraceError, match="put it in a file"):
            Trace(f"/dev/fd/{endless.stdout.fileno()}")


def test_a_minus_is_the_standard_input(tmp_path: Path) -> None:
    code = "from speckvctl.replay.traces import Trace; print(Trace('-').survey().requests)"
    for stdin in (GOOD.encode(), gzip.compress(GOOD.encode())):
        done = subprocess.run([sys.executable, "-c", code], input=stdin, capture_output=True, check=True)
        assert done.stdout == b"1\n"


@pytest.mark.parametrize("path", ["/dev/null", "/dev/zero"])
def test_what_is_neither_a_file_nor_a_pipe_is_refused(path: str) -> None:
    with pytest.raises(TraceError, match="neither a file nor a pipe"):
        Trace(path)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError) as caught:
        Trace(tmp_path)
    assert caught.value.filename == str(tmp_path)


def test_a_file_that_is_replaced_while_it_is_read_stays_what_was_checked(write_trace: Any) -> None:
    path = write_trace([1], [2], [3])
    trace = Trace(path)
    assert trace.survey() == Survey(3, 3)
    write_trace("broken", name="other").replace(path)
    assert [request.ids for request in trace] == [(1,), (2,), (3,)]


def test_xz_of_several_streams_with_padding_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    line = f"{GOOD}\n".encode()
    path.write_bytes(lzma.compress(line) + bytes(8) + lzma.compress(b"") + lzma.compress(2 * line) + bytes(4))
    assert Trace(path).survey() == Survey(3, 6)
    path.write_bytes(lzma.compress(line) + b"rubbish")
    with pytest.raises(TraceError, match="damaged or cut short"):
        Trace(path).survey()


@pytest.mark.parametrize("filler", [b" ", b"\n", b"[", b"0"])
@pytest.mark.parametrize("pack", ["gzip", "xz"])
def test_a_bomb_is_refused_in_bounded_memory(tmp_path: Path, pack: str, filler: bytes) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(PACK[pack](f"{GOOD}\n".encode() + filler * (128 << 20)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TraceError, match="line"):
        Trace(path).survey()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 1 << 20, "kibibytes"


def test_xz_that_needs_gibibytes_to_unpack_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "trace"
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 16 << 20}]
    path.write_bytes(lzma.compress(GOOD.encode(), filters=filters))
    assert Trace(path).survey().requests == 1
    monkeypatch.setattr(traces, "MAX_XZ_MEMORY", 8 << 20)
    with pytest.raises(TraceError, match="needs more than 8 MiB"):
        Trace(path)


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
