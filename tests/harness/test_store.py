"""Runs on disk: nothing lost, nothing invented, everything foreign refused in one line."""

from __future__ import annotations

import errno
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy
import pytest

from levelfield.harness.errors import BadInput, LevelfieldError, RunFailed
from levelfield.harness.records import store
from levelfield.harness.records.kinds import KINDS, STATUSES, SliceRecord
from levelfield.harness.records.store import (
    TornRecord,
    create,
    finished,
    open_run,
    paused,
    read_records,
    repair,
    statuses,
)
from tests.support.synthetic import empty_run, write_run

ROOT = Path(__file__).parents[2]
HOSTILE = [
    "two\nlines\r\nand \x85 \u2028 more",
    "\"quotes\" and 'quotes' and \\ and ,;\t",
    "<script>alert('&amp;')</script>",
    "zażółć 模型 🙂 \u202eright to left\u202c",
    "nan",
    "\x00\x1b[31m",
    "\ud83d",
    "=1+1",
]


def line_of(error: pytest.ExceptionInfo[LevelfieldError]) -> str:
    """The message, which must be one line."""
    text = str(error.value)
    assert "\n" not in text
    return text


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def status(run: store.Run, cell: str = "c0001", reason: str | None = None) -> None:
    run.append(KINDS["status"](cell=cell, status="ok", reason=reason))


# -- what is written is read ------------------------------------------------------------------


def test_a_run_as_created(tmp_path: Path) -> None:
    with empty_run(tmp_path / "deep" / "results", name="one") as run:
        assert run.path == tmp_path / "deep" / "results" / "one"
        content = json.loads((run.path / "run.json").read_text())
        assert content["schema"] == store.SCHEMA
        assert content["kind"] == "levelfield-run"
        assert content["name"] == "one"
        assert content == run.description
        assert (run.path / "logs").is_dir()
        assert open_run(run.path).description == content
        assert read_records(run) == []
        assert finished(run) == set()
        assert not list(run.path.glob(".*"))


def test_names_are_unique(tmp_path: Path) -> None:
    names = [empty_run(tmp_path, name="same").path.name for _ in range(3)]
    assert names == ["same", "same-2", "same-3"]
    assert open_run(tmp_path / "same-3").description["name"] == "same-3"


def test_created_is_filled_in_and_kept(tmp_path: Path) -> None:
    assert create(tmp_path, "a", {"cells": []}).description["created"].endswith("+00:00")
    assert create(tmp_path, "b", {"cells": [], "created": "x"}).description["created"] == "x"


def test_records_are_read_as_written(tmp_path: Path) -> None:
    run = empty_run(tmp_path)
    before = time.time()
    run.append(KINDS["memory"](cell="c0001", process=1, phase="import", peak_bytes=None))
    run.append(KINDS["status"](cell="c0001", status="wrong", reason="off", at=5.0))
    memory, wrong = read_records(open_run(run.path))
    assert before <= memory.pop("at") <= time.time()
    expected = {"record": "memory", "cell": "c0001", "process": 1}
    assert memory == {**expected, "phase": "import"}  # what is not known is left out
    expected = {"record": "status", "at": 5.0, "cell": "c0001", "status": "wrong"}
    assert wrong == {**expected, "reason": "off"}
    assert finished(run) == {"c0001"}
    assert run.records_path.read_bytes().count(b"\n") == 2


def test_hostile_strings(tmp_path: Path) -> None:
    with empty_run(tmp_path) as run:
        for text in HOSTILE:
            status(run, reason=text)
    read = [record["reason"] for record in read_records(run)]
    assert read == [text.replace("\ud83d", "\\ud83d") for text in HOSTILE]
    assert run.records_path.read_bytes().count(b"\n") == len(HOSTILE)


def test_floats_that_are_not_finite_are_texts(tmp_path: Path) -> None:
    values = [math.nan, math.inf, -math.inf, numpy.float32("nan"), numpy.float64("inf")]
    with empty_run(tmp_path) as run:
        checks = [{"name": "loss", "error": v, "tolerance": 1, "passed": False} for v in values]
        run.append(KINDS["gate"](cell="c0001", process=numpy.int64(1), passed=False, checks=checks))
    (record,) = read_records(run)
    errors = [check["error"] for check in record["checks"]]
    assert errors == ["nan", "inf", "-inf", "nan", "inf"]
    assert record["process"] == 1


def test_arrays_become_lists(tmp_path: Path) -> None:
    with empty_run(tmp_path) as run:
        run.append(
            SliceRecord(
                cell="c0001",
                process=1,
                block=1,
                round=0,
                statistic="latency",
                steps=2,
                seconds=3.0,
                cpu_seconds=3.0,
                step_seconds=numpy.array([1.0, 2.0]),
            )
        )
    assert read_records(run)[0]["step_seconds"] == [1.0, 2.0]


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("status", {"cell": "c0001"}),
        ("status", {"cell": "c0001", "status": "ok", "color": "red"}),
        ("status", {"cell": "c0001", "status": "fine"}),
        ("memory", {"cell": "c0001", "process": 1, "phase": "import", "peak_bytes": {1, 2}}),
    ],
)
def test_mistakes_of_ours_are_not_written(tmp_path: Path, kind: str, fields: dict) -> None:
    with empty_run(tmp_path) as run:
        with pytest.raises(TypeError):
            run.append(KINDS[kind](**fields))
        assert read_records(run) == []


# -- what is refused --------------------------------------------------------------------------


def refusal(path: Path) -> str:
    with pytest.raises(BadInput) as error:
        open_run(path)
    assert str(path) in str(error.value)
    return line_of(error)


def test_foreign_folders(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    assert "not a run folder" in refusal(tmp_path / "empty")
    (tmp_path / "file").write_text("x")
    assert "not a run folder" in refusal(tmp_path / "file")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ('{"kind": NaN}', "not valid JSON"),
        ("[]", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("\xff", "not valid JSON"),
        ('{"kind": "other", "schema": 1}', '"kind": "levelfield-run"'),
        ('{"kind": "levelfield-run"}', '"schema"'),
        ('{"kind": "levelfield-run", "schema": true}', '"schema"'),
        ('{"kind": "levelfield-run", "schema": 2}', "cells"),
        ('{"kind": "levelfield-run", "schema": 2, "cells": [1]}', "cells"),
        (
            '{"kind": "levelfield-run", "schema": 2, "cells": [{"id": "c1"}]}',
            "cells[0] has no 'comparison'",
        ),
    ],
)
def test_foreign_contents(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "run.json").write_bytes(text.encode("latin-1"))
    assert words in refusal(tmp_path)


def test_a_schema_that_is_no_longer_read(tmp_path: Path) -> None:
    path = empty_run(tmp_path).path / "run.json"
    path.write_text(path.read_text().replace(f'"schema": {store.SCHEMA}', '"schema": 1'))
    message = refusal(path.parent)
    assert "has schema 1" in message
    assert message.endswith("run its suite again")


def test_a_newer_schema(tmp_path: Path) -> None:
    path = empty_run(tmp_path).path / "run.json"
    path.write_text(path.read_text().replace(f'"schema": {store.SCHEMA}', '"schema": 7'))
    message = refusal(path.parent)
    assert "schema 7" in message
    assert f"up to {store.SCHEMA}" in message
    assert "upgrade levelfield" in message


def test_cell_ids_differ(tmp_path: Path) -> None:
    cells = empty_run(tmp_path).description["cells"]
    for ids, words in (
        (["a", "a"], r"cells\[1\] has the id of cells\[0\]"),
        (["a", 3], r"cells\[1\].id is 3, not a text"),
        (["a", ["b"]], r"cells\[1\].id is \['b'\], not a text"),
    ):
        changed = [{**cell, "id": id} for cell, id in zip(cells, ids, strict=False)]
        with pytest.raises(BadInput, match=words):
            create(tmp_path, "bad", {"cells": changed})


def test_arms_of_a_comparison_differ(tmp_path: Path) -> None:
    cells = empty_run(tmp_path).description["cells"]
    changed = [{**cell, "arm": "torch:eager"} for cell in cells]
    with pytest.raises(BadInput, match=r"cells\[1\] has the comparison and arm of cells\[0\]"):
        create(tmp_path, "bad", {"cells": changed})


def test_cells_of_a_comparison_have_one_task_that_no_other_comparison_has(tmp_path: Path) -> None:
    cells = empty_run(tmp_path).description["cells"]
    for change, words in (
        ({"batch": 64}, r"cells\[1\].batch is 64, but 32 in cells\[0\] of the same comparison"),
        ({"comparison": "k2"}, r"cells\[1\].comparison is not that of cells\[0\], which has the"),
    ):
        with pytest.raises(BadInput, match=words):
            create(tmp_path, "bad", {"cells": [cells[0], {**cells[1], **change}]})


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "-x", "a\nb", "a\0b"])
def test_names_that_cannot_be(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput) as error:
        create(tmp_path, name, {"cells": []})
    line_of(error)
    assert list(tmp_path.iterdir()) == []


def test_results_where_nothing_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    places = [tmp_path / "file", tmp_path / "file" / "below", Path("/proc/x"), Path("/sys/x")]
    for results in places:
        with pytest.raises(BadInput, match="--results DIR") as error:
            create(results, "name", {"cells": []})
        assert str(results) in line_of(error)
    with pytest.raises(BadInput, match="--results DIR"):
        create(tmp_path, "n" * 300, {"cells": []})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_results_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(BadInput, match="--results DIR"):
        create(tmp_path, "name", {"cells": []})


def test_a_bad_line_in_the_middle(tmp_path: Path) -> None:
    whole = b'{"record":"status","at":1,"cell":"c0001","status":"ok"}\n'
    run = empty_run(tmp_path)
    run.close()
    for bad, words in {
        b"{]\n": "unexpected character",
        b"\n": "zero-length",
        b"\xff\n": "UTF-8",
        whole.replace(b"1", b"NaN", 1): "unexpected character",
        whole.replace(b"\n", b"{}\n"): "unexpected content",
        b"[1]\n": "not one JSON object",
        whole.replace(b"status", b"guess", 1): "unknown kind of record 'guess'",
        whole.replace(b'"status"', b"[]", 1): r"unknown kind of record \[\]",
        whole.replace(b'"cell"', b'"sell"'): r"status record without \['cell'\]",
        whole.replace(b"ok", b"fine"): "status record whose status is 'fine', not one of ok, wrong",
        whole.replace(b'"ok"', b'["ok"]'): r"status record whose status is \['ok'\], not one of ok",
    }.items():
        run.records_path.write_bytes(whole + bad + whole)
        with pytest.raises(BadInput, match=rf"records.jsonl, line 2: .*{words}") as error:
            read_records(run)
        line_of(error)


def test_an_unknown_kind_is_an_error_even_last(tmp_path: Path) -> None:
    run = empty_run(tmp_path)
    run.records_path.write_text('{"record":"guess","at":1}\n')
    with pytest.raises(BadInput, match="unknown kind of record 'guess'"):
        read_records(run)


# -- what is torn -----------------------------------------------------------------------------


def test_torn_at_every_byte(tmp_path: Path) -> None:
    with empty_run(tmp_path) as run:
        for reason in ("first", "second", "żółć, last"):
            status(run, reason=reason)
    data = run.records_path.read_bytes()
    whole = data.rfind(b"\n", 0, -1) + 1
    for cut in range(whole + 1, len(data)):
        run.records_path.write_bytes(data[:cut])
        with pytest.warns(TornRecord, match=f"torn last record of {cut - whole} bytes"):
            assert [record["reason"] for record in read_records(run)] == ["first", "second"]
        with open_run(run.path) as again, pytest.warns(TornRecord):
            repair(again)
        assert run.records_path.read_bytes() == data[:whole]
    assert len(read_records(run)) == 2


@pytest.mark.parametrize("tail", [b"\x00" * 100, b"\x00" * 100 + b"\n", b'{"record":"st\n', b"\n"])
def test_an_unparsable_last_line_is_torn(tmp_path: Path, tail: bytes) -> None:
    with empty_run(tmp_path) as run:
        status(run)
    whole = run.records_path.read_bytes()
    run.records_path.write_bytes(whole + tail)
    with pytest.warns(TornRecord):
        assert len(read_records(run)) == 1
    with open_run(run.path) as again, pytest.warns(TornRecord):
        status(again, reason="appending repairs, too")
    assert len(read_records(run)) == 2


def test_only_a_torn_record(tmp_path: Path) -> None:
    run = empty_run(tmp_path)
    run.close()
    run.records_path.write_bytes(b'{"rec')
    with pytest.warns(TornRecord):
        assert read_records(run) == []
    with pytest.warns(TornRecord):
        repair(run)
    assert run.records_path.read_bytes() == b""


@pytest.mark.parametrize("change", ["append", "cut", "replace", "copy", "delete"])
def test_records_that_another_program_changed_are_not_written_on(
    tmp_path: Path, change: str
) -> None:
    with empty_run(tmp_path) as run:
        status(run)
        status(run)
        data = run.records_path.read_bytes()
        if change in ("replace", "copy", "delete"):
            run.records_path.unlink()
        if change != "delete":
            more = {"append": data + data, "cut": data[:-9], "replace": data + b" ", "copy": data}[
                change
            ]
            run.records_path.write_bytes(more)
        words = {
            "delete": "is no longer there: was the run moved or deleted",
        }.get(change, rf"not as this run wrote it \({len(data)} bytes\): another program changed")
        with pytest.raises(RunFailed, match=words):
            status(run)


def test_no_records_yet(tmp_path: Path) -> None:
    run = empty_run(tmp_path)
    run.records_path.unlink()
    assert read_records(open_run(run.path)) == []


WRITER = """
import sys
from levelfield.harness.records.kinds import KINDS
from levelfield.harness.records.store import open_run
run = open_run(sys.argv[1])
for number in range(10**9):
    run.append(KINDS["status"](cell="c0001", status="failed", reason=f"{number} " + "x" * 3000))
    print(number, flush=True)
"""


def test_killed_at_random_moments(tmp_path: Path) -> None:
    generator = random.Random(0)
    run = empty_run(tmp_path)
    run.close()
    total = 0
    for _ in range(10):
        with python(WRITER, run.path) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(generator.uniform(0, 0.05))
            writer.send_signal(signal.SIGKILL)
            acknowledged = 1 + len(writer.stdout.read().splitlines())
        data = run.records_path.read_bytes()
        with open_run(run.path) as again:
            if not data.endswith(b"\n"):
                with pytest.warns(TornRecord):
                    repair(again)
            repair(again)
            records = read_records(again)
        assert total + acknowledged <= len(records) <= total + acknowledged + 1
        numbers = [int(record["reason"].split()[0]) for record in records[total:]]
        assert numbers == list(range(len(numbers)))
        total = len(records)


def test_a_file_takes_the_place_of_no_link_and_no_pipe(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    link, target = tmp_path / "link", tmp_path / "below" / "target"
    link.symlink_to(target)
    for data in (b"first", b"second"):
        store.write_atomically(link, data)
        assert link.is_symlink()
        assert target.read_bytes() == data
    reading, writing = os.pipe()
    store.write_atomically(Path(f"/dev/fd/{writing}"), b"through")
    assert os.read(reading, 100) == b"through"
    os.close(reading)
    os.close(writing)


# -- full disks -------------------------------------------------------------------------------


def test_a_full_disk(tmp_path: Path) -> None:
    with empty_run(tmp_path, name="it is full") as run:
        status(run)
    run.records_path.unlink()
    run.records_path.symlink_to("/dev/full")
    with open_run(run.path) as again, pytest.raises(RunFailed, match="the disk is full") as error:
        status(again)
    message = line_of(error)
    assert "0 records are kept" in message
    assert message.endswith(f"levelfield run --resume '{run.path}'")


LIMITED = """
import resource, sys
from levelfield.harness.errors import RunFailed
from levelfield.harness.records.kinds import KINDS
from levelfield.harness.records.store import open_run
run = open_run(sys.argv[1])
def status():
    run.append(KINDS["status"](cell="c0001", status="ok", reason="x" * 300))
status()
line = run.records_path.stat().st_size
limit = 20 * line + line // 2  # in the middle of a line: their times differ by a few digits
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    while True:
        status()
except RunFailed as error:
    print(error)
"""


def test_a_file_that_takes_half_a_line(tmp_path: Path) -> None:
    run = empty_run(tmp_path)
    run.close()
    with python(LIMITED, run.path) as writer:
        assert writer.stdout is not None
        message = writer.stdout.read()
    records = read_records(run)  # no warning: the half line was taken back
    assert len(records) == 20
    assert run.records_path.read_bytes().endswith(b"}\n")
    assert "the disk is full; 20 records are kept" in message


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_fails_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    with empty_run(tmp_path) as run:
        status(run)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", fail)
            words = "Input/output error" if number == errno.EIO else "the disk is full"
            with pytest.raises(RunFailed, match=f"{words}; 1 records are kept"):
                status(run)
        assert len(read_records(run)) == 1
        status(run)
    assert len(read_records(run)) == 2


def test_a_full_disk_at_creation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(RunFailed, match="the disk is full"):
        empty_run(tmp_path)
    assert not (tmp_path / "empty" / "run.json").exists()


def test_a_run_that_may_only_be_read(tmp_path: Path) -> None:
    run = empty_run(tmp_path)
    run.close()
    (run.path / "lock").unlink()
    (run.path / "lock").mkdir()
    with pytest.raises(BadInput, match="make the folder writable") as error:
        repair(open_run(run.path))
    line_of(error)


# -- one writer -------------------------------------------------------------------------------


def test_two_writers(tmp_path: Path) -> None:
    run = empty_run(tmp_path)
    run.close()
    with python(WRITER, run.path) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        for attempt in (repair, status):
            with pytest.raises(BadInput, match=f"is being written by process {writer.pid}:"):
                attempt(open_run(run.path))
        assert read_records(open_run(run.path))
        writer.kill()
    with open_run(run.path) as again:
        status(again)


def test_the_creator_is_the_writer(tmp_path: Path) -> None:
    run = empty_run(tmp_path)
    with pytest.raises(BadInput, match=f"process {os.getpid()}:"):
        repair(open_run(run.path))
    run.close()
    with open_run(run.path) as again:
        repair(again)


def test_a_worker_does_not_inherit_the_lock(tmp_path: Path) -> None:
    run = empty_run(tmp_path)
    with python("print(1, flush=True); import time; time.sleep(60)") as worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        run.close()
        with open_run(run.path) as again:
            repair(again)
        worker.kill()


def test_the_synthetic_run_has_every_kind_and_status(tmp_path: Path) -> None:
    run = open_run(write_run(tmp_path, blocks=1, rounds=2))
    records = read_records(run)
    # All but those of a run whose measuring process was killed, or whose budget ended.
    assert {record["record"] for record in records} == set(KINDS) - {"death", "pause"}
    ends = [record["status"] for record in records if record["record"] == "status"]
    assert set(ends) == set(STATUSES)
    assert len(finished(run)) == len(run.description["cells"]) - 1


def test_a_pause_opens_the_cells_that_are_ok(tmp_path: Path) -> None:
    with empty_run(tmp_path, cells=3) as run:
        for cell, status in (("c0001", "ok"), ("c0002", "wrong")):
            run.append(KINDS["status"](cell=cell, status=status))
        assert finished(run) == {"c0001", "c0002"} and not paused(run)
        run.append(KINDS["pause"](budget_seconds=60.0))
        assert finished(run) == {"c0002"} and paused(run)
        assert statuses(run) == {"c0001": "ok", "c0002": "wrong"}
        run.append(KINDS["status"](cell="c0001", status="ok"))
        assert finished(run) == {"c0001", "c0002"} and not paused(run)
