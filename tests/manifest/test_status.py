"""What a reader says of a run: proven by the journal and the process table, or not said."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from zlib import crc32

import pytest

from blackboxml.base import process
from blackboxml.base.files import Directory
from blackboxml.base.process import identify
from blackboxml.journal import LINE, encode, ending
from blackboxml.manifest import new, open_history, status
from blackboxml.manifest.status import Watch, determine
from blackboxml.reader import open_run
from blackboxml.seal import seal
from blackboxml.writer import RunWriter

if TYPE_CHECKING:
    from pathlib import Path

DEAD = {"pid": 2**22 - 3, "started": 1}
ELSEWHERE = {"host": "elsewhere", "boot_id": "another", "pid": 1, "started": 1}
END = {"end": {"status": "completed"}}


def write(
    path: Path,
    *records: dict[str, Any],
    name: str = "metrics.jsonl",
    rank: int = 0,
    attempt: int = 0,
    first_seq: int = 0,
    by: dict[str, Any] | None = None,
) -> None:
    head = {
        "format": {"name": "blackbox-journal", "version": "1.0", "features": []},
        "run": {"id": "0" * 32, "name": "r"},
        "rank": rank,
        "attempt": attempt,
        "first_seq": first_seq,
        "time": 1.0,
        "process": identify() | (by or {}),
        "writer": {"name": "test", "version": "1"},
    }
    lines = [encode(head)]
    lines += [
        encode({"seq": seq, "time": 2.0} | record)
        for seq, record in enumerate(records, start=first_seq)
    ]
    (path / name).write_bytes(b"".join(lines))


POINT = {"step": 0, "metrics": {"a": 1.0}}


def verdict(path: Path, watch: Watch | None = None) -> str:
    with Directory(path) as directory:
        manifest, journals = open_history(directory)
        found = determine(directory, manifest, journals, watch)
    assert found.reason
    return found.status


@pytest.mark.parametrize("ending", ["completed", "failed", "interrupted"])
@pytest.mark.parametrize("by", [{}, DEAD, ELSEWHERE])
@pytest.mark.rule("BB-LIV-005")
def test_an_end_record_decides_whatever_the_process_does(
    tmp_path: Path, ending: str, by: dict[str, Any]
) -> None:
    write(tmp_path, POINT, {"end": {"status": ending}}, by=by)
    assert verdict(tmp_path) == ending


def test_without_an_end_the_process_table_decides(tmp_path: Path) -> None:
    write(tmp_path, POINT)
    assert verdict(tmp_path) == "running"
    write(tmp_path, POINT, by=DEAD)
    assert verdict(tmp_path) == "crashed"
    write(tmp_path, by=identify() | {"started": identify()["started"] - 1})
    assert verdict(tmp_path) == "crashed"


def test_a_torn_end_is_no_end(tmp_path: Path) -> None:
    write(tmp_path, POINT, END, by=DEAD)
    journal = tmp_path / "metrics.jsonl"
    os.truncate(journal, journal.stat().st_size - 1)
    assert verdict(tmp_path) == "crashed"


@pytest.mark.rule("BB-LIV-007", "BB-LIV-008")
def test_an_unknown_process_is_stale_after_two_minutes_of_the_reader_s_own_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(status.time, "monotonic", lambda: now)
    write(tmp_path, POINT, by=ELSEWHERE)
    journal = tmp_path / "metrics.jsonl"
    os.utime(journal, (0, 0))  # what the file says of the time counts for nothing
    watch = Watch()
    assert verdict(tmp_path, watch) == "running"
    now += 119.9
    assert verdict(tmp_path, watch) == "running"
    now += 0.2
    assert verdict(tmp_path, watch) == "stale"
    os.utime(journal, (1, 1))  # a heartbeat
    assert verdict(tmp_path, watch) == "running"
    now += 121
    assert verdict(tmp_path, watch) == "stale"
    assert verdict(tmp_path) == "running"  # another reader has only begun to watch


def test_a_later_attempt_counts_and_an_earlier_one_does_not(tmp_path: Path) -> None:
    write(tmp_path, POINT, END)
    write(tmp_path, name="metrics.1.jsonl", attempt=1, by=DEAD)
    assert verdict(tmp_path) == "crashed"
    write(tmp_path, name="metrics.2.jsonl", attempt=2)
    assert verdict(tmp_path) == "running"
    write(tmp_path, END, name="metrics.2.jsonl", attempt=2)
    assert verdict(tmp_path) == "completed"


def test_the_end_counts_in_any_journal_of_the_attempt(tmp_path: Path) -> None:
    """A sync failed after the end, and the writer was killed before it had copied that."""
    write(tmp_path, POINT, POINT, END, by=DEAD)
    write(tmp_path, POINT, name="metrics.1.jsonl", by=DEAD)
    assert verdict(tmp_path) == "completed"


def test_the_least_rank_speaks_for_the_run(tmp_path: Path) -> None:
    write(tmp_path, POINT)
    write(tmp_path, POINT, name="metrics.r1.jsonl", rank=1, attempt=5, by=DEAD)
    assert verdict(tmp_path) == "running"
    (tmp_path / "metrics.jsonl").unlink()
    write(tmp_path, POINT, END, name="metrics.r2.jsonl", rank=2, attempt=7)
    assert verdict(tmp_path) == "crashed"


def test_a_resumed_run_that_is_killed_before_its_manifest_is_replaced_has_crashed(
    tmp_path: Path,
) -> None:
    writer = RunWriter.create(tmp_path, "r")
    writer.log({"a": 1.0})
    writer.finish()
    seal(writer.path)
    assert verdict(writer.path) == "completed"
    (head, *_) = (writer.path / "metrics.jsonl").read_bytes().splitlines()
    from blackboxml.journal import decode

    document = decode(head)
    document.pop("crc")
    document |= {"attempt": 1, "process": document["process"] | DEAD}
    (writer.path / "metrics.1.jsonl").write_bytes(encode(document))
    assert verdict(writer.path) == "crashed"


def test_a_crashed_run_is_interrupted_once_it_is_sealed(tmp_path: Path) -> None:
    write(tmp_path, POINT, by=DEAD)
    assert verdict(tmp_path) == "crashed"
    seal(tmp_path)
    assert verdict(tmp_path) == "interrupted"


def test_a_manifest_alone_is_taken_at_its_word(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, "r")
    (writer.path / "metrics.jsonl").rename(tmp_path / "away")
    assert verdict(writer.path) == "running"
    writer.finish("failed")
    assert verdict(writer.path) == "failed"


@pytest.mark.rule("BB-LIV-008")
def test_a_run_without_a_committed_line_is_not_stale_at_the_first_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(status.time, "monotonic", lambda: now)
    writer = RunWriter.create(tmp_path, "r")
    writer.finish()
    document = json.loads((writer.path / "run.json").read_bytes())
    document |= {"status": "running", "attempts": []}
    for key in ("end", "duration_seconds", "sealed", "groups", "journals", "files"):
        document.pop(key, None)
    (writer.path / "run.json").write_text(json.dumps(document))
    (writer.path / "metrics.jsonl").write_bytes(b"torn")
    reader = open_run(writer.path)
    now += 1000  # it was not watched for so long
    assert reader.status == "running"
    now += 119
    assert reader.status == "running"
    now += 2
    assert reader.status == "stale"


END_LINES = [
    encode({"seq": 1, "time": "x"} | END),
    encode({"seq": 1, "time": True} | END),
    encode({"seq": 1, "time": 2.0, "end": {"status": "crashed"}}),
    encode({"seq": 1, "time": 2.0, "end": {"status": "completed", "exception": {"type": "E"}}}),
    encode({"seq": 1, "time": 2.0, "rewind": {"step": 0}} | END),
    encode({"seq": 0, "time": 2.0} | END),
    encode({"seq": -1, "time": 2.0} | END),
    (encode({"seq": 5, "time": 2.0} | POINT) + encode({"seq": 3, "time": 2.0} | END)),
    encode({"seq": 1, "time": 2.0} | END).replace(b"completed", b"Completed"),
]


@pytest.mark.parametrize("lines", END_LINES)
@pytest.mark.parametrize("behind", [b"", encode({"seq": 9, "time": 2.0} | POINT)])
@pytest.mark.rule("BB-LIV-005")
def test_an_end_that_is_damaged_or_out_of_place_is_no_end(
    tmp_path: Path, lines: bytes, behind: bytes
) -> None:
    write(tmp_path, POINT, by=DEAD)
    journal = tmp_path / "metrics.jsonl"
    journal.write_bytes(journal.read_bytes() + lines + behind)
    assert verdict(tmp_path) == "crashed"
    with open(journal, "ab") as file:
        file.write(encode({"seq": 10, "time": 2.0, "end": {"status": "interrupted"}}))
    assert verdict(tmp_path) == "interrupted"


@pytest.mark.parametrize("spelled", [b'"end"', b'"\\u0065nd"', b'"e\\u006Ed"'])
@pytest.mark.rule("BB-LIV-005")
def test_of_several_ends_the_last_one_counts_whatever_follows(
    tmp_path: Path, spelled: bytes
) -> None:
    write(tmp_path, POINT, by=DEAD)
    journal = tmp_path / "metrics.jsonl"
    ends = [
        b'{"seq":%d,"time":2.0,%b:{"status":"%b"}' % (seq, spelled, ending)
        for seq, ending in ((1, b"failed"), (2, b"interrupted"))
    ]
    rest = b"".join(encode({"seq": seq, "time": 2.0} | POINT) for seq in range(3, 30000))
    lines = b"".join(LINE % (head, crc32(head)) for head in ends)
    journal.write_bytes(journal.read_bytes() + lines + rest)
    assert journal.stat().st_size > 2 * 2**20
    assert verdict(tmp_path) == "interrupted"


@pytest.mark.parametrize("note", [b"", b"garbage\n", b'{ "seq" : 7 }\n'])
def test_a_status_follows_a_journal_that_grows(tmp_path: Path, note: bytes) -> None:
    """What was searched for an end once is not searched again."""
    write(tmp_path, POINT, by=DEAD)
    journal = tmp_path / "metrics.jsonl"
    reader = open_run(tmp_path)
    assert reader.status == "crashed"
    added = [
        (note + encode({"seq": 1, "time": 2.0} | POINT), "crashed"),
        (encode({"seq": 2, "time": 2.0, "end": {"status": "failed"}})[:-1], "crashed"),
        (b"\n", "failed"),
        (encode({"seq": 2, "time": 2.0, "end": {"status": "completed"}}), "failed"),
        (encode({"seq": 3, "time": 2.0} | POINT), "failed"),
        (encode({"seq": 4, "time": 2.0, "end": {"status": "completed"}}), "completed"),
    ]
    for data, wanted in added:
        with open(journal, "ab") as file:
            file.write(data)
        assert reader.status == wanted
        assert verdict(tmp_path) == wanted
    write(tmp_path, {"step": 0, "metrics": {"another": 1.0}}, END, POINT, POINT, by=DEAD)
    write(tmp_path, POINT, {"end": {"status": "interrupted"}}, POINT, by=DEAD)
    assert reader.status == "interrupted"


def test_an_end_that_a_later_journal_has_otherwise_does_not_count(tmp_path: Path) -> None:
    write(tmp_path, POINT, END, by=DEAD)
    write(tmp_path, POINT, POINT, name="metrics.1.jsonl", first_seq=1, by=DEAD)
    assert verdict(tmp_path) == "crashed"


@pytest.mark.rule("BB-LIV-005")
def test_where_the_journals_do_not_tell_the_status_is_that_of_the_manifest(tmp_path: Path) -> None:
    """The journal of the last attempt is torn before its first line ends."""
    write(tmp_path, POINT, by=DEAD)
    (tmp_path / "metrics.1.jsonl").write_bytes(b"torn")
    entry = {"start": "2026-11-21T00:00:00.000000+00:00", "process": {"host": "h", "pid": 1}}
    entry |= {"end": entry["start"]}
    manifest = new("0" * 32, "r", [], 1.0, "1") | {"status": "failed", "end": entry["start"]}
    manifest |= {"duration_seconds": 0, "generation": 1}
    manifest["attempts"] = [
        {"attempt": 0, "status": "interrupted"} | entry,
        {"attempt": 1, "status": "failed"} | entry,
    ]
    (tmp_path / "run.json").write_text(json.dumps(manifest))
    assert verdict(tmp_path) == "failed"
    reader = open_run(tmp_path)
    assert (reader.status, reader.manifest["end"]) == ("failed", entry["end"])


LIVE = """\
import sys
from blackboxml.writer import RunWriter
writer = RunWriter.create(sys.argv[1], "r")
writer.log({"a": 1.0})
print(writer.path, flush=True)
sys.stdin.read()
"""


def test_a_real_writer_runs_until_it_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LIVE, os.fspath(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        path = tmp_path / child.stdout.readline().strip()
        assert verdict(path) == "running"
        child.send_signal(signal.SIGSTOP)
        assert verdict(path) == "running"
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert verdict(path) == "crashed"  # though nobody has waited for it yet
    assert verdict(path) == "crashed"


@pytest.mark.rule("BB-LIV-006")
def test_a_reader_that_cannot_see_processes_claims_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, POINT, by=DEAD)
    monkeypatch.setattr(process, "_pid_namespace", lambda: 7)  # as from inside another container
    assert verdict(tmp_path) == "running"


def test_a_sealed_journal_is_not_searched_until_it_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, POINT, {"end": {"status": "failed"}}, by=DEAD)
    seal(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(ending, "_first", None)  # whoever searches, fails
        reader = open_run(tmp_path)
        assert reader.status == "failed"
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(encode({"seq": 2, "time": 2.0} | END))
    assert reader.status == "completed"
    assert open_run(tmp_path).status == "completed"
