"""Replies and answer files of workers are foreign data: what does not fit costs its cell."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import random
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from levelfield.harness.errors import WorkerFailure
from levelfield.harness.proof import replies
from levelfield.harness.proof.replies import (
    DeviceMemory,
    LoadReply,
    MemoryReply,
    Nonsense,
    Reply,
    Slice,
    SlotReply,
    StartReply,
    described,
    parsed,
    read_arrays,
)

HARNESS = Path(replies.__file__).parents[1]
REPLIES = {kind.do: kind for kind in Reply.__subclasses__()}
REQUESTS: dict[str, dict[str, Any]] = {
    "slot": {"kinds": ["latency", "throughput"], "steps": 2},
    "learn": {"epochs": 2},
}
SLICE = {"seconds": 0.5, "cpu_seconds": 0.5, "switches": 0, "major_faults": 0}
OPERATOR = {"name": "mm", "within": "", "category": "product", "calls": 5, "seconds": 0.5}
GOOD: dict[str, dict[str, Any]] = {
    "prepare": {"interpreter_up": 1.5, "python": "3.11.4"},
    "start": {"import_seconds": 0.5, "device_seconds": 0, "describe": {"version": "1"}},
    "load": {"build_seconds": 0.1},
    "compile": {"compile_seconds": None},
    "first_steps": {"first_step_seconds": 0.1, "second_step_seconds": 0.1},
    "answer": {"arrays": 3},
    "warm_up": {
        "warm_up_steps": 10,
        "warm_up_seconds": 0.5,
        "capped": False,
        "step_seconds": 0.1,
    },
    "calibrate": {"fence_seconds": 0.0, "slice_steps": 7, "read_seconds": 0.1},
    "check_fence": {"fenced": 0.1, "after": 0.1, "later": 0.1},
    "check_handles": {"earlier": 0.1, "last": 0.1, "fenced": 0.1},
    "kept": {},
    "closing": {
        "first_seconds": [0.1, 0.1],
        "again_seconds": [],
        "first_token_seconds": [],
        "again_token_seconds": [0.1],
        "fresh_seconds": 0.1,
        "waited_share": 0.5,
        "cpu_share": 0.5,
    },
    "slot": {
        "slices": {"throughput": SLICE, "latency": {**SLICE, "step_seconds": [0.2, 0.3]}},
        "compiled": 0,
        "worker_seconds": 1.5,
        "window_seconds": 0.5,
    },
    "steps": {},
    "profile": {
        "plain_seconds": 0.5,
        "profiled_seconds": 1.0,
        "counts": {"graph breaks": 1},
        "new_counts": {},
        "profiler": "a profiler",
        "trace": "trace.json.gz",
        "operators": [OPERATOR, {**OPERATOR, "category": "dispatch"}],
    },
    "learn": {"train_losses": [0.5, float("nan")]},
    "memory": {"peak_bytes": 1 << 40, "device": {"used_peak_bytes": 5}},
}
# Every one of these was once a traceback of the run, or was taken for a good reply.
NONSENSE = {
    "nothing": b"\n",
    "no JSON": b"hello\n",
    "no text": b"\xff\xfe{}\n",
    "null": b"null\n",
    "a list": b"[1,2]\n",
    "an empty object": b"{}\n",
    "ok alone": b'{"ok": true}\n',
    "ok that is no truth value": b'{"ok": 1, "build_seconds": 1}\n',
    "nested too deep": b'{"ok": true, "build_seconds": ' + b"[" * 100_000 + b"\n",
    "a number too long": b'{"ok": true, "build_seconds": ' + b"9" * 100_000 + b"}\n",
    "an unknown status": b'{"ok": false, "status": "tired", "reason": ""}\n',
    "a status that is a list": b'{"ok": false, "status": [], "reason": ""}\n',
    "a failure with the status ok": b'{"ok": false, "status": "ok", "reason": ""}\n',
    "a failure that calls itself wrong": b'{"ok": false, "status": "wrong", "reason": ""}\n',
    "a failure without a reason": b'{"ok": false, "status": "failed"}\n',
    "a reason that is a number": b'{"ok": false, "status": "failed", "reason": 5}\n',
    "a field too many": b'{"ok": true, "build_seconds": 1, "note": ""}\n',
    "a text for a number": b'{"ok": true, "build_seconds": "1"}\n',
    "a truth value for a number": b'{"ok": true, "build_seconds": true}\n',
    "null for a number": b'{"ok": true, "build_seconds": null}\n',
    "NaN seconds": b'{"ok": true, "build_seconds": NaN}\n',
    "infinite seconds": b'{"ok": true, "build_seconds": Infinity}\n',
    "negative seconds": b'{"ok": true, "build_seconds": -1e-9}\n',
    "absurd seconds": b'{"ok": true, "build_seconds": 1e300}\n',
}
WRONG_FIELDS = [
    ("first_steps", "first_step_seconds", 0),
    ("warm_up", "warm_up_steps", 1.5),
    ("warm_up", "capped", 0),
    ("warm_up", "step_seconds", 0.0),
    ("calibrate", "slice_steps", 0),
    ("calibrate", "slice_steps", 10**30),
    ("check_fence", "fenced", 0),
    ("check_handles", "fenced", 0),
    ("closing", "first_seconds", [0.1, -0.1]),
    ("closing", "again_seconds", 0.1),
    ("slot", "window_seconds", 0),
    ("memory", "peak_bytes", 1.5),
    ("memory", "device", {"used_peak_bytes": "5"}),
    ("memory", "device", {"free": 5}),
    ("memory", "device", 5),
    ("start", "describe", ["version"]),
    ("start", "describe", None),
    ("prepare", "python", 3.11),
    ("learn", "train_losses", [1.0]),
    ("learn", "train_losses", [1.0, "2"]),
    ("profile", "plain_seconds", 0),
    ("profile", "profiled_seconds", 0),
    ("profile", "profiled_seconds", 0.9),  # less than its operators take
    ("profile", "profiled_seconds", None),
    ("profile", "profiler", None),
    ("profile", "trace", "../trace.json"),
    ("profile", "trace", "/etc/passwd"),
    ("profile", "trace", ".."),
    ("profile", "trace", "trace.json\n"),
    ("profile", "counts", {"graph breaks": -1}),
    ("profile", "counts", {"graph breaks": True}),
    ("profile", "new_counts", {str(number): 0 for number in range(100)}),
    ("profile", "operators", [OPERATOR] * 1000),
    ("profile", "operators", [{**OPERATOR, "seconds": -0.1}]),
    ("profile", "operators", [{**OPERATOR, "seconds": float("nan")}]),
    ("profile", "operators", [{**OPERATOR, "category": "kernel"}]),
    ("profile", "operators", [{**OPERATOR, "name": None}]),
    ("profile", "operators", [{**OPERATOR, "note": ""}]),
    ("profile", "operators", OPERATOR),
    ("slot", "compiled", -1),
    ("slot", "slices", {}),
    ("slot", "slices", {"throughput": SLICE}),
    ("slot", "slices", {**GOOD["slot"]["slices"], "other": SLICE}),
    ("slot", "slices", {"throughput": SLICE, "latency": {**SLICE, "step_seconds": [0.2]}}),
    ("slot", "slices", {"throughput": SLICE, "latency": {**SLICE, "note": ""}}),
    ("slot", "slices", {"throughput": SLICE, "latency": SLICE}),
    ("slot", "slices", {"throughput": SLICE, "latency": {**SLICE, "step_seconds": [0.2, 0]}}),
    ("slot", "slices", {"throughput": None, "latency": SLICE}),
    ("slot", "slices", {"throughput": {**SLICE, "seconds": 0}, "latency": SLICE}),
]


def parse(do: str, line: bytes) -> Reply:
    return parsed(REPLIES[do], {"do": do, **REQUESTS.get(do, {})}, line)


def line(fields: dict[str, Any]) -> bytes:
    return (json.dumps({**fields, "ok": True}) + "\n").encode()


def test_every_request_of_a_worker_has_its_kind_of_reply() -> None:
    tree = ast.parse((HARNESS / "worker" / "worker.py").read_text())
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert {name.removeprefix("do_") for name in names if name.startswith("do_")} == set(REPLIES)


@pytest.mark.parametrize("do", REPLIES)
def test_a_good_reply_comes_through_as_it_is(do: str) -> None:
    reply = parse(do, line(GOOD[do]))
    assert type(reply) is REPLIES[do]
    assert set(vars(reply)) == set(GOOD[do])
    plain = {name: value for name, value in GOOD[do].items() if not isinstance(value, dict | list)}
    assert {name: vars(reply)[name] for name in plain} == plain


def test_lists_and_objects_of_a_reply_become_tuples_and_dataclasses() -> None:
    slot = parse("slot", line(GOOD["slot"]))
    assert isinstance(slot, SlotReply)
    assert slot.slices == {
        "throughput": Slice(0.5, 0.5, switches=0, major_faults=0),
        "latency": Slice(0.5, 0.5, step_seconds=(0.2, 0.3), switches=0, major_faults=0),
    }
    assert parse("memory", line(GOOD["memory"])) == MemoryReply(1 << 40, DeviceMemory(5))
    nothing = {"peak_bytes": None, "device": None}
    assert parse("memory", line(nothing)) == MemoryReply(None, None)
    closing = parse("closing", line(GOOD["closing"]))
    assert vars(closing)["first_seconds"] == (0.1, 0.1)


def test_the_description_of_an_adapter_is_cleaned_where_the_reply_is_made() -> None:
    describe = {"version": "1\x1b[2J", "cores": [0]}
    start = parse("start", line({**GOOD["start"], "describe": describe}))
    assert isinstance(start, StartReply)
    assert start.describe == {"version": "1 [2J", "cores": "[0]"}


@pytest.mark.parametrize("do", REPLIES)
def test_a_field_too_many_and_one_too_few_are_refused(do: str) -> None:
    with pytest.raises(Nonsense, match=f"the reply to '{do}' has the field \"extra\""):
        parse(do, line({**GOOD[do], "extra": 1}))
    for name in GOOD[do]:
        reply = {key: value for key, value in GOOD[do].items() if key != name}
        with pytest.raises(Nonsense, match=f"has no field '{name}'"):
            parse(do, line(reply))


@pytest.mark.parametrize("nonsense", NONSENSE)
def test_nonsense_is_a_failure_of_one_line_that_says_what_was_expected(nonsense: str) -> None:
    with pytest.raises(Nonsense) as caught:
        parse("load", NONSENSE[nonsense])
    assert caught.value.status == "failed"
    assert caught.value.reason.startswith("the reply to 'load' ")
    assert "expected" in caught.value.reason
    assert caught.value.reason.isprintable()
    assert len(caught.value.reason) < 300


@pytest.mark.parametrize(("do", "field", "value"), WRONG_FIELDS)
def test_a_value_of_another_kind_is_refused(do: str, field: str, value: Any) -> None:
    with pytest.raises(Nonsense, match=f"the reply to '{do}' "):
        parse(do, line({**GOOD[do], field: value}))


@pytest.mark.parametrize(
    ("do", "text"),
    [
        ("load", '"build_seconds": %s'),
        ("start", '"import_seconds": 1, "device_seconds": 1, "describe": {"a": %s}'),
    ],
)
def test_a_value_nested_as_deeply_as_json_can_be_read_is_no_traceback(do: str, text: str) -> None:
    for depth in range(100, sys.getrecursionlimit() + 100):
        body = text % ("[" * depth + "]" * depth)
        with contextlib.suppress(WorkerFailure):
            parse(do, f'{{"ok": true, {body}}}'.encode())


def test_no_line_whatever_raises_anything_but_a_failure() -> None:
    stream = random.Random(13)
    lines = [line(GOOD[do]) for do in GOOD]
    refused = 0
    for _ in range(3000):
        text = bytearray(stream.choice(lines))
        for _ in range(stream.randrange(1, 4)):
            at = stream.randrange(len(text))
            text[at : at + stream.randrange(3)] = bytes(stream.choices(range(256), k=2))
        try:
            parse(stream.choice(list(REPLIES)), bytes(text))
        except WorkerFailure:
            refused += 1
    assert refused > 2000


def test_an_honest_failure_keeps_its_status_and_its_reason_in_one_clean_line() -> None:
    text = {"ok": False, "status": "unsupported", "reason": "no\x1b[31m \u202e" + "x" * 10_000}
    with pytest.raises(WorkerFailure) as caught:
        parsed(LoadReply, {"do": "load"}, json.dumps(text).encode())
    assert not isinstance(caught.value, Nonsense)
    assert caught.value.status == "unsupported"
    assert caught.value.reason.startswith("no [31m xxx")
    assert caught.value.reason.isprintable()
    assert len(caught.value.reason) == replies.REASON_CHARACTERS


def test_what_an_adapter_says_of_itself_is_flat_clean_and_bounded() -> None:
    honest = {"version": "2.1", "threads": None, "fused": True, "cores": 2, "share": 0.5}
    assert described(honest) == honest
    loud = {
        "version": "1\x1b[2J\ud800\u202e2",
        "list": [1, {"a": 2}],
        "long": "x" * 5_000_000,
        "huge": 10**40,
        "name\n": 1,
        **{f"entry {number}": number for number in range(100)},
    }
    kept = described(loud)
    assert kept["version"] == "1 [2J 2"
    assert kept["list"] == '[1, {"a": 2}]'
    assert len(kept["long"]) == replies.DESCRIBE_CHARACTERS
    assert kept["long"].endswith("... (cut, 5000000 characters)")
    assert kept["huge"] == str(10**40)
    assert kept["name"] == 1
    assert kept["cut"] == "41 more entries were left out"
    assert len(kept) == replies.DESCRIBE_ENTRIES + 1
    json.dumps(kept).encode()


@pytest.mark.parametrize("number", [10**400, -(10**400), 10**5000], ids=["1", "2", "3"])
def test_an_integer_beyond_all_floats_is_no_amount_and_a_text_where_it_describes(
    number: int,
) -> None:
    for kind in (replies.REAL, replies.AMOUNT, replies.POSITIVE, replies.WHOLE):
        assert not kind.fits(number)
    (text,) = described({"memory": number}).values()
    assert isinstance(text, str)
    assert len(text) <= replies.DESCRIBE_CHARACTERS


# -- answer files ------------------------------------------------------------------------------


def saved(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def zipped(content: bytes, name: str = "output.npy", *, method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr(name, content)
    return file.getvalue()


def header(text: str, data: bytes = b"") -> bytes:
    """A .npy file with a header of one's own."""
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + data


class Sly:
    """What unpickling would run."""

    def __reduce__(self) -> tuple[Callable[..., int], tuple[str]]:
        return os.system, ("touch /tmp/levelfield-was-here",)


RECORD = np.dtype([("a", "f4"), ("b", "i4")])
SHAPE = "{'descr': '<f4', 'fortran_order': False, 'shape': %s}\n"
BAD_FILES = {
    "nothing": b"",
    "no archive": b"hello" * 100,
    "a bare array": saved()[:0] + header(SHAPE % "(1,)", b"1234"),
    "objects": saved(output=np.array([Sly(), None], object)),
    "text": saved(output=np.array(["a", "b"])),
    "bytes": saved(output=np.array([b"a"])),
    "complex": saved(output=np.ones(3, complex)),
    "dates": saved(output=np.array(["2020-01-01"], "datetime64[D]")),
    "durations": saved(output=np.array([3], "timedelta64[s]")),
    "structures": saved(output=np.zeros(3, RECORD)),
    "truth values": saved(output=np.ones(3, bool)),
    "raw memory": saved(output=np.zeros(3, "V8")),
    "no array inside": zipped(b"hello", "output.txt"),
    "a truncated array": zipped(header(SHAPE % "(9,)", b"1234")),
    "an array of absurd size": zipped(header(SHAPE % "(1 << 62,)")),
    "a huge shape": zipped(header(SHAPE % f"({1 << 62},)")),
    "a negative shape": zipped(header(SHAPE % "(-4,)", b"1234")),
    "a header that is no Python": zipped(header("{'descr': \n")),
    "a header that nests": zipped(header("(" * 9000)),
    "a header of code": zipped(header("__import__('os').getcwd()\n")),
    "an unknown type": zipped(header("{'descr': 'zz', 'fortran_order': False, 'shape': ()}\n")),
    "a name that steers": zipped(header(SHAPE % "(1,)", b"1234"), "a\x1b[2J.npy"),
    "a name without end": zipped(header(SHAPE % "(1,)", b"1234"), "a" * 1000 + ".npy"),
    "more than the limit": saved(output=np.zeros(1 << 18, np.float32)),
    "a bomb": zipped(header(SHAPE % f"({1 << 20},)", bytes(4 << 20)), method=zipfile.ZIP_DEFLATED),
}
LIMIT_BYTES = 1 << 19


@pytest.mark.parametrize("what", BAD_FILES)
def test_a_file_of_anything_but_numbers_is_a_failure(what: str, tmp_path: Path) -> None:
    path = tmp_path / "answer.npz"
    path.write_bytes(BAD_FILES[what])
    with pytest.raises(WorkerFailure, match=r"its answers cannot be read: .*; expected") as caught:
        read_arrays(path, limit_bytes=LIMIT_BYTES)
    assert caught.value.status == "failed"
    assert caught.value.reason.isprintable()
    assert len(caught.value.reason) <= replies.REASON_CHARACTERS


def test_a_path_that_is_no_plain_file_is_a_failure(tmp_path: Path) -> None:
    good = tmp_path / "good.npz"
    good.write_bytes(saved(output=np.ones(2, np.float32)))
    (tmp_path / "link").symlink_to(good)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("link", "pipe", "folder", "missing"):
        with pytest.raises(WorkerFailure, match="its answers cannot be read"):
            read_arrays(tmp_path / name, limit_bytes=LIMIT_BYTES)
    assert list(read_arrays(good, limit_bytes=LIMIT_BYTES)) == ["output"]


def test_a_damaged_file_gives_numbers_or_a_failure(tmp_path: Path) -> None:
    stream = random.Random(14)
    good = saved(output=np.ones((4, 3), np.float32), tokens=np.arange(5, dtype=np.int32))
    packed = zipped(header(SHAPE % "(2,)", b"12345678"), method=zipfile.ZIP_LZMA)
    path, refused = tmp_path / "answer.npz", 0
    for _ in range(500):
        content = bytearray(stream.choice([good, packed]))
        for _ in range(stream.randrange(1, 6)):
            content[stream.randrange(len(content))] = stream.randrange(256)
        path.write_bytes(content[: stream.choice([len(content), stream.randrange(len(content))])])
        try:
            arrays = read_arrays(path, limit_bytes=LIMIT_BYTES)
        except WorkerFailure:
            refused += 1
            continue
        assert all(value.dtype.kind in "fiu" for value in arrays.values())
    assert refused > 200
