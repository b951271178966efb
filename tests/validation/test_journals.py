"""Journals, their merge, and media: each fault by the rules that it breaks."""

from __future__ import annotations

import hashlib
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blackboxml import validate
from blackboxml.base import schema
from blackboxml.errors import JournalError
from blackboxml.journal import encode, read_record
from blackboxml.journal.scan import Scan
from blackboxml.model import LIMITS, JournalFile, Limits
from tests.validation.runs import (
    change,
    edit_bytes,
    edit_line,
    flipped,
    lines,
    manifest,
    rules,
    write_lines,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

POINT = 4
"""The line of a point in the journals of these tests, from 0."""


def line_with(at: int, text: bytes, new: bytes) -> Callable[[bytes], bytes]:
    """Replace text in one line, whose checksum is made right."""

    def edit(data: bytes) -> bytes:
        found = data.splitlines(keepends=True)
        head = found[at][:-19].replace(text, new)
        from zlib import crc32

        found[at] = head + b',"crc":"%08x"}\n' % crc32(head)
        return b"".join(found)

    return edit


# -- lines


@pytest.mark.parametrize(
    ("rule", "edit"),
    [
        ("BB-JNL-001", line_with(POINT, b'"step"', b'"seq":3,"step"')),
        ("BB-JNL-001", line_with(POINT, b'"train/seen":', b'"train\\u002fseen":1,"train/seen":')),
        ("BB-JNL-001", line_with(POINT, b'"train/seen":', b'"train/seen":NaN,"a":')),
        ("BB-JNL-012", line_with(POINT, b'"train/seen":', b'"train/seen":1e999,"a":')),
        ("BB-JNL-001", line_with(POINT, b'"train/seen":', b'"train/seen":01,"a":')),
        ("BB-JNL-001", line_with(POINT, b'"train/seen":', b'"\xff":1,"train/seen":')),
        ("BB-JNL-001", line_with(POINT, b'{"seq"', b'\xef\xbb\xbf{"seq"')),
        ("BB-LIM-001", line_with(POINT, b'"train/seen":', b'"a":' + b"[" * 5000 + b',"b":')),
        ("BB-JNL-002", line_with(POINT, b'"train/seen":', b'"a' + b" " * 2**20 + b'":1,"b":')),
        ("BB-JNL-003", lambda data: data.replace(b',"crc":', b', "crc":')),
        ("BB-JNL-003", lambda data: data.replace(b'"}\n{"seq":4', b'" }\n{"seq":4')),
        ("BB-JNL-004", lambda data: data.replace(b'"seq":3', b'"seq":7')),
        ("BB-JNL-007", line_with(POINT, b'"step":', b'"step":"x","other":')),
        ("BB-JNL-007", line_with(POINT, b'"metrics":{', b'"ranks":{},"metrics":[],"x":{')),
        ("BB-JNL-007", line_with(POINT, b'"metrics":{', b'"metrics":{},"ranks":{"a":{}},"x":{')),
        ("BB-JNL-007", line_with(POINT, b'"metrics":{', b'"ranks":{"a":{"mean":1}},"x":{')),
        ("BB-JNL-007", line_with(POINT, b'"time":', b'"time":"now","other":')),
        ("BB-JNL-012", line_with(POINT, b'"time":', b'"time":1' + b"0" * 400 + b',"other":')),
        ("BB-JNL-008", line_with(POINT, b'"metrics":', b'"end":{"status":"failed"},"metrics":')),
        ("BB-JNL-012", line_with(POINT, b'"train/seen":', b'"train/seen":null,"b":')),
        ("BB-JNL-012", line_with(POINT, b'"train/seen":', b'"train/seen":"nan","b":')),
        (
            "BB-JNL-012",
            line_with(POINT, b'"train/seen":', b'"train/seen":9223372036854775808,"b":'),
        ),
        ("BB-JNL-013", line_with(POINT, b'"step":', b'"step":1.0,"other":')),
        ("BB-GRP-001", line_with(POINT, b'"train/seen":', b'"":1,"b":')),
        ("BB-GRP-001", line_with(POINT, b'"train/seen":', b'"' + "é".encode() * 513 + b'":1,"b":')),
        ("BB-GRP-002", line_with(POINT, b'"train/seen":', b'"a\\u0085":1,"b":')),
        ("BB-GRP-003", line_with(POINT, b'"train/seen":', b'"train/":1,"b":')),
        ("BB-LIM-001", line_with(POINT, b'"step":', b'"x":' + b"[" * 64 + b"]" * 64 + b',"step":')),
    ],
)
def test_a_damaged_line_costs_that_line(
    ended: Path, rule: str, edit: Callable[[bytes], bytes]
) -> None:
    whole = (ended / "metrics.jsonl").read_bytes()
    if rule == "BB-JNL-003" and b', "crc"' in edit(whole):
        edit = line_with(POINT, b"", b"")
        first, second = whole.split(b'{"seq":3', 1)
        (ended / "metrics.jsonl").write_bytes(
            first + b'{"seq":3' + second.replace(b',"crc":', b', "crc":', 1)
        )
    else:
        edit_bytes(ended, "metrics.jsonl", edit)
    report = validate(ended)
    assert [problem.rule for problem in report.problems] == [rule, "BB-JNL-009"]
    problem = report.problems[0]
    assert (problem.file, problem.line) == ("metrics.jsonl", POINT + 1)
    assert problem.offset == sum(map(len, whole.splitlines(keepends=True)[:POINT]))
    assert not report.ok


EVENT = {"seq": 3, "time": 1.5}


@pytest.mark.parametrize(
    ("rule", "members"),
    [
        ("BB-JNL-008", {}),
        ("BB-JNL-008", {"step": 1}),
        ("BB-JNL-007", {"rewind": 1}),
        ("BB-JNL-013", {"rewind": {"step": 2.0}}),
        ("BB-JNL-007", {"rewind": {"step": "x"}}),
        ("BB-JNL-007", {"gap": {"records": 0, "reason": "full"}}),
        ("BB-JNL-007", {"gap": {"records": 1}}),
        ("BB-JNL-007", {"describe": {"unit": "m"}}),
        ("BB-JNL-007", {"describe": {"metric": "a", "unit": 1}}),
        ("BB-GRP-003", {"describe": {"metric": "/a"}}),
        ("BB-JNL-007", {"later": 1, "ranks": {}}),
        ("BB-JNL-007", {"later": 1, "step": None}),
        ("BB-JNL-008", {"rewind": {"step": 1}, "gap": {"records": 1, "reason": ""}}),
    ],
)
def test_an_event_that_breaks_its_schema_is_damage(
    ended: Path, rule: str, members: dict[str, Any]
) -> None:
    documents = lines(ended)
    documents[POINT] = EVENT | members
    write_lines(ended, documents)
    assert [problem.rule for problem in validate(ended).problems] == [rule, "BB-JNL-009"]


@pytest.mark.parametrize(
    "end",
    [
        {"status": "exploded"},
        {},
        {"status": "completed", "exception": {"type": "E", "message": ""}},
        {"status": "failed", "exception": {"type": "E"}},
        {"status": "failed", "exception": {"type": "", "message": ""}},
        {"status": "failed", "exception": {"type": "E", "message": "", "traceback": 1}},
    ],
)
def test_an_end_that_breaks_its_schema_is_none(ended: Path, end: dict[str, Any]) -> None:
    edit_line(ended, -1, lambda document: document.update(end=end))
    assert rules(validate(ended)) == {"BB-JNL-007", "BB-LIV-001"}


def test_an_unknown_kind_is_noted(ended: Path) -> None:
    documents = lines(ended)
    documents[POINT] = EVENT | {"teleport": {"to": 5}}
    write_lines(ended, documents)
    report = validate(ended)
    assert report.ok
    assert rules(report) == {"BB-JNL-011"}
    (problem,) = report.problems
    assert "teleport" in problem.message
    before = (ended / "metrics.jsonl").read_bytes().splitlines(keepends=True)[:POINT]
    assert (problem.line, problem.offset) == (POINT + 1, sum(map(len, before)))


@pytest.mark.parametrize(
    ("rule", "edit"),
    [
        ("BB-JNL-009", lambda found: found.pop(POINT)),
        ("BB-JNL-009", lambda found: found.insert(POINT, found[POINT])),
        ("BB-JNL-010", lambda found: found.append({"seq": 11, "time": 1.5, "later": {}})),
    ],
)
def test_records_out_of_order_are_reported(
    ended: Path, rule: str, edit: Callable[[list[Any]], object]
) -> None:
    documents = lines(ended)
    edit(documents)
    write_lines(ended, documents)
    assert {each.rule for each in validate(ended).problems if each.severity == "error"} == {rule}


def test_a_tail_is_a_fault_after_the_end_alone(ended: Path) -> None:
    whole = (ended / "metrics.jsonl").read_bytes()
    (ended / "metrics.jsonl").write_bytes(whole + b'{"seq":11')
    problem = validate(ended).problems[0]
    assert (problem.rule, problem.offset) == ("BB-JNL-025", len(whole))
    (ended / "metrics.jsonl").write_bytes(whole[:-5])
    assert rules(validate(ended)) == {"BB-LIV-001"}  # the manifest knows of the end


def test_the_names_of_a_run_are_limited(ended: Path) -> None:
    assert rules(validate(ended, Limits(metric_names=2))) == {"BB-LIM-001"}


# -- headers


@pytest.mark.parametrize(
    ("found", "edit"),
    [
        ({"BB-JNL-004"}, lambda data: flipped(data, 12)),
        ({"BB-JNL-001"}, line_with(0, b'"rank"', b'"rank":0,"rank"')),
        ({"BB-JNL-005"}, line_with(0, b'"attempt":', b'"tries":')),
        ({"BB-LIV-004"}, line_with(0, b'"pid":', b'"pids":')),
        ({"BB-JNL-005"}, line_with(0, b'"time":', b'"time":"now","x":')),
        ({"BB-JNL-005"}, line_with(0, b"blackbox-journal", b"blackbox-media")),
        ({"BB-JNL-005"}, line_with(0, b'"first_seq":', b'"seq":0,"first_seq":')),
        ({"BB-JNL-005", "BB-JNL-013"}, line_with(0, b'"first_seq":0', b'"first_seq":0.0')),
        ({"BB-JNL-013"}, line_with(0, b'"pid":', b'"pid":5.0,"x":')),
        ({"BB-JNL-006"}, line_with(0, b'"rank":0', b'"rank":1')),
        ({"BB-VER-001"}, line_with(0, b'"1.0"', b'"2.0"')),
        ({"BB-VER-006"}, line_with(0, b'"features":[]', b'"features":["zstd"]')),
        ({"BB-VER-003"}, line_with(0, b'"1.0"', b'"1.9"')),
        ({"BB-MRG-001", "BB-JNL-009"}, line_with(0, b'"first_seq":0', b'"first_seq":2')),
        ({"BB-MRG-003", "BB-MAN-013"}, line_with(0, b'"attempt":0', b'"attempt":1')),
        ({"BB-MAN-013"}, line_with(0, b'"host":', b'"host":"other","x":')),
    ],
)
def test_a_fault_of_a_header_is_reported(
    ended: Path, found: set[str], edit: Callable[[bytes], bytes]
) -> None:
    edit_bytes(ended, "metrics.jsonl", edit)
    # A process that is not the manifest's is a finding too; a header that is damaged has none.
    assert rules(validate(ended)) - {"BB-MAN-013"} == found - {"BB-MAN-013"}


def test_a_journal_of_another_run_is_left_out(ended: Path) -> None:
    documents = lines(ended)
    documents[0]["run"]["id"] = "f" * 32
    write_lines(ended, documents, "metrics.1.jsonl")
    problem = validate(ended).problems[0]
    assert (problem.rule, problem.file) == ("BB-MRG-008", "metrics.1.jsonl")


def test_the_other_journals_are_judged_when_one_is_refused(ended: Path) -> None:
    documents = lines(ended)
    documents[0]["format"]["version"] = "2.0"
    write_lines(ended, documents, "metrics.1.jsonl")
    edit_bytes(ended, "metrics.jsonl", lambda data: data.replace(b'"seq":3', b'"seq":7'))
    assert rules(validate(ended)) == {"BB-VER-001", "BB-JNL-004", "BB-JNL-009"}


# -- merge


def split(path: Path, at: int, *, copies: int = 0) -> tuple[list[Any], list[Any]]:
    """Cut the journal in two: the second one continues with copies of the last records."""
    header, *records = lines(path)
    first = [header, *records[:at]]
    rest = deepcopy(records[at - copies :])
    return first, [{**header, "first_seq": rest[0]["seq"]}, *rest]


@pytest.mark.parametrize(
    ("rule", "edit"),
    [
        (None, lambda first, second: None),
        ("BB-MRG-001", lambda first, second: first.pop() and first.pop() and first.pop()),
        ("BB-MRG-003", lambda first, second: second[0].update(attempt=2)),
        ("BB-MRG-004", lambda first, second: second[0].update(process={"host": "h", "pid": 1})),
        ("BB-MRG-005", lambda first, second: second[1].update(time=5.0)),
        ("BB-JNL-010", lambda first, second: first[-1].update(end={"status": "failed"})),
    ],
)
def test_journals_of_one_attempt_are_one_sequence(
    ended: Path, rule: str | None, edit: Callable[[list[Any], list[Any]], object]
) -> None:
    first, second = split(ended, 6, copies=2)
    if rule == "BB-JNL-010":
        first[-1] = {key: first[-1][key] for key in ("seq", "time")}
        second.pop(1)
        second.pop(1)
        second[0]["first_seq"] = second[1]["seq"]
    edit(first, second)
    write_lines(ended, first)
    write_lines(ended, second, "metrics.1.jsonl")
    found = rules(validate(ended))
    others = {
        "BB-MRG-003": {"BB-MRG-001", "BB-LIV-001", "BB-MAN-013"},
        "BB-JNL-010": {"BB-MAN-013"},
    }
    assert found - others.get(str(rule), set()) == ({rule} if rule else set())


def test_a_missing_journal_is_noticed(ended: Path) -> None:
    first, second = split(ended, 6)
    write_lines(ended, first)
    write_lines(ended, second, "metrics.2.jsonl")
    problem = validate(ended).problems[0]
    assert (problem.rule, problem.file) == ("BB-MRG-002", "metrics.1.jsonl")
    (ended / "metrics.1.jsonl").touch()  # a writer was killed before it had written the header
    assert not validate(ended).problems


def test_a_status_without_an_end_record_is_reported(ended: Path) -> None:
    write_lines(ended, lines(ended)[:-1])
    problem = validate(ended).problems[0]
    assert (problem.rule, problem.pointer) == ("BB-LIV-001", "/attempts/0/status")


def test_a_run_that_was_interrupted_by_a_sealer_needs_no_end_record(ended: Path) -> None:
    write_lines(ended, lines(ended)[:-1])

    def interrupt(document: dict[str, Any]) -> None:
        document["status"] = document["attempts"][0]["status"] = "interrupted"

    change(ended, interrupt)
    assert not validate(ended).problems


def test_an_attempt_that_the_manifest_was_not_told_of_is_a_warning(ended: Path) -> None:
    header = {**lines(ended)[0], "attempt": 1}
    write_lines(ended, [header], "metrics.1.jsonl")
    report = validate(ended)
    assert report.ok
    assert rules(report) == {"BB-MAN-013"}


def test_checksums_of_before_a_resume_are_a_warning(ended: Path) -> None:
    (ended / "SHA256SUMS").write_text("stale")
    report = validate(ended)
    assert report.ok
    assert rules(report) == {"BB-SEA-014"}


# -- media


def media(path: Path) -> list[Any]:
    """Return a media journal of one text and one file, and write the file."""
    header = lines(path)[0]
    header["format"]["name"] = "blackbox-media"
    (path / "media").mkdir(exist_ok=True)
    (path / "media" / "a.txt").write_bytes(b"text")
    digest = hashlib.sha256(b"text").hexdigest()
    file = {"name": "b", "kind": "text", "file": "media/a.txt", "bytes": 4, "sha256": digest}
    return [
        header,
        {"seq": 0, "step": 1, "time": 1.5, "media": {"name": "a", "kind": "text", "value": "x"}},
        {"seq": 1, "step": 1, "time": 1.5, "media": file},
        {"seq": 2, "time": 1.5, "rewind": {"step": 1}},
    ]


def value(kind: str, content: object) -> Callable[[list[Any]], None]:
    """Return what gives the medium with a value another one."""
    return lambda each: each[1]["media"].update(kind=kind, value=content)


@pytest.mark.parametrize(
    ("found", "edit"),
    [
        (set(), lambda each: None),
        (set(), lambda each: each.append(b'{"seq":3')),
        ({"BB-MED-003"}, lambda each: each[1]["media"].update(kind="")),
        ({"BB-MED-003"}, lambda each: each[1].pop("step")),
        ({"BB-MED-005"}, lambda each: each[1]["media"].pop("value")),
        ({"BB-MED-005"}, lambda each: each[2]["media"].pop("bytes")),
        ({"BB-MED-005"}, lambda each: each[2]["media"].update(value="x")),
        ({"BB-MED-006"}, lambda each: each[2]["media"].update(file="run.json")),
        ({"BB-LAY-006"}, lambda each: each[2]["media"].update(file="media/../run.json")),
        ({"BB-MED-009"}, lambda each: each[1]["media"].update(value="x" * 65_536)),
        ({"BB-MED-012"}, lambda each: each[1]["media"].update(value=5)),
        ({"BB-MED-012"}, lambda each: each[1]["media"].update(kind="image")),
        ({"BB-MED-012"}, value("histogram", {"edges": [0, 1], "counts": []})),
        ({"BB-MED-012"}, value("histogram", {"edges": [0, 1, 2], "counts": [1]})),
        ({"BB-MED-012"}, value("histogram", {"edges": [1, 0], "counts": [1]})),
        ({"BB-MED-012"}, value("histogram", {"edges": [0, "NaN"], "counts": [1]})),
        ({"BB-MED-012"}, value("table", {"columns": ["a"], "rows": [[1, 2]]})),
        ({"BB-MED-012"}, value("table", {"columns": [1], "rows": []})),
        ({"BB-MED-012"}, value("graph", [])),
        (set(), value("histogram", {"edges": ["-Infinity", 0, 0], "counts": [1, 2.5]})),
        (set(), value("table", {"columns": ["a"], "rows": [[None], [{"b": 1}]]})),
        (set(), value("graph", {"nodes": [], "edges": [], "more": 1})),
        (set(), value("event", [1, None])),
        ({"BB-MED-010"}, lambda each: each[1]["media"].update(kind="hologram")),
        ({"BB-MED-011"}, lambda each: each[2]["media"].update(file="media/none.txt")),
        ({"BB-MED-011"}, lambda each: each[2]["media"].update(bytes=5)),
        ({"BB-MED-011"}, lambda each: each[2]["media"].update(sha256="0" * 64)),
        ({"BB-JNL-001"}, lambda each: each.insert(3, line_with(0, b"{", b"[")(encode({"a": 1})))),
        ({"BB-JNL-002"}, lambda each: each[1]["media"].update(value="x" * 2**20)),
        ({"BB-JNL-003"}, lambda each: each.insert(3, b"{}\n")),
        ({"BB-JNL-004"}, lambda each: each.insert(3, encode({"seq": 3}).replace(b"3", b"4", 1))),
        ({"BB-JNL-005"}, lambda each: each[0].pop("writer")),
        ({"BB-MED-001"}, lambda each: each[0]["format"].update(name="blackbox-journal")),
        ({"BB-JNL-006"}, lambda each: each[0].update(rank=1)),
        ({"BB-JNL-008"}, lambda each: each[3].update(step=each[3].pop("rewind")["step"])),
        ({"BB-JNL-009"}, lambda each: each.pop(1)),
        ({"BB-JNL-011"}, lambda each: each[3].update(later=each[3].pop("rewind"))),
        ({"BB-MRG-008"}, lambda each: each[0]["run"].update(id="f" * 32)),
        ({"BB-VER-001"}, lambda each: each[0]["format"].update(version="2.0")),
        ({"BB-VER-003"}, lambda each: each[0]["format"].update(version="1.2")),
    ],
)
def test_a_fault_of_a_media_journal_is_reported(
    ended: Path, found: set[str], edit: Callable[[list[Any]], object]
) -> None:
    documents = media(ended)
    edit(documents)
    write_lines(ended, documents, "media.jsonl")
    # Where a line is damaged or over long, the one after it is out of sequence.
    damaged = {
        "BB-LAY-006",
        "BB-MED-003",
        "BB-MED-005",
        "BB-MED-006",
        "BB-MED-012",
        "BB-JNL-002",
    } & found
    report = validate(ended)
    assert rules(report) - ({"BB-JNL-009"} if damaged else set()) == found
    assert report.ok == (found <= {"BB-MED-009", "BB-MED-010", "BB-JNL-011", "BB-VER-003"})


def continued(*seqs: int, **changes: Any) -> Callable[[list[Any]], list[Any]]:
    """Return what makes a journal of some records that continues one, from their documents."""

    def edit(each: list[Any]) -> list[Any]:
        header = each[0] | {"first_seq": seqs[0] if seqs else 3} | changes
        more = {"seq": 3, "step": 2, "time": 2.5, "media": {"name": "a", "kind": "text"}}
        more["media"]["value"] = "more"
        return [header, *([*each[1:], more][seq] for seq in seqs)]

    return edit


@pytest.mark.parametrize(
    ("found", "name", "edit"),
    [
        (set(), "media.1.jsonl", continued(3)),
        (set(), "media.1.jsonl", continued(2, 3)),
        (set(), "media.1.jsonl", continued()),
        ({"BB-MRG-001"}, "media.1.jsonl", lambda each: [each[0] | {"first_seq": 5}]),
        ({"BB-MRG-002"}, "media.2.jsonl", continued(3)),
        ({"BB-MRG-004"}, "media.1.jsonl", continued(3, process={"host": "other", "pid": 7})),
        (
            {"BB-MRG-005"},
            "media.1.jsonl",
            lambda each: [each[0] | {"first_seq": 2}, each[3] | {"time": 7.5}],
        ),
    ],
)
def test_media_journals_of_one_attempt_are_one_sequence(
    ended: Path, found: set[str], name: str, edit: Callable[[list[Any]], list[Any]]
) -> None:
    documents = media(ended)
    write_lines(ended, documents, "media.jsonl")
    write_lines(ended, edit(documents), name)
    report = validate(ended)
    assert rules(report) == found, report.problems
    assert {problem.file for problem in report.problems} <= {
        "media.jsonl",
        "media.1.jsonl",
        "media.2.jsonl",
    }


# -- records by hand and by schema

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.sampled_from([0, 1, -1, 2**63, -(2**63), 1.0, 0.5, "NaN", "", "a", "failed", "a/", "é"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["a", "mean", "count", "step", "type"]), inner, max_size=2
        )
    ),
    max_leaves=4,
)


def mapping(*keys: str, inner: st.SearchStrategy[Any] = JSON) -> st.SearchStrategy[Any]:
    return st.dictionaries(st.sampled_from(keys), inner, max_size=3) | JSON


STATISTICS = mapping("mean", "count", "std", "other")
KINDS = {
    "step": JSON,
    "metrics": mapping("a", "a/b", "/a", "\x85", ""),
    "ranks": mapping("a", "a/", inner=STATISTICS),
    "rewind": mapping("step", "other"),
    "gap": mapping("records", "reason"),
    "describe": mapping("metric", "unit", "description"),
    "end": mapping("status", "exception", inner=mapping("type", "message", "traceback")),
    "later": JSON,
}


@given(st.fixed_dictionaries({"time": st.just(1.5)}, optional=KINDS))
@settings(max_examples=400, deadline=None)
def test_the_reader_takes_exactly_the_records_that_the_schema_allows(
    members: dict[str, Any],
) -> None:
    document = {"seq": 0, **members}
    try:
        line = encode(document)
    except Exception:  # noqa: BLE001 - an integer that the encoder does not take
        return
    journal = JournalFile("metrics.jsonl", 0, 0, 0, 0, 0, None, 0, len(line), None)
    problems: list[Any] = []
    scan = Scan(journal, set(), problems)
    from blackboxml.journal import Block

    scan.read(Block(0, line))
    valid = schema.validator("journal-record").is_valid(document | {"crc": "00000000"})
    found = {problem.rule for problem in problems}
    # What a schema cannot say: the token of an integer, and that `step` is no kind.
    beyond = {"BB-JNL-013", "BB-JNL-008"}
    assert not found if valid and not found & beyond else found
    assert valid or found


def test_the_hand_written_checks_read_numbers_as_the_record_does() -> None:
    document = {"seq": 0, "step": 1, "time": 1.5, "metrics": {"a": "NaN"}}
    assert read_record(document, 0, 0, LIMITS).metrics["a"] != 0
    with pytest.raises(JournalError):
        read_record(document | {"metrics": {"a": None}}, 0, 0, LIMITS)


def test_the_manifest_of_these_tests_is_that_of_one_attempt(ended: Path) -> None:
    assert [each["attempt"] for each in manifest(ended)["attempts"]] == [0]


@pytest.mark.parametrize("data", [None, b""], ids=["gone", "empty"])
def test_a_run_that_has_ended_has_a_journal(ended: Path, data: bytes | None) -> None:
    if data is None:
        (ended / "metrics.jsonl").unlink()
    else:
        (ended / "metrics.jsonl").write_bytes(data)
    (problem,) = validate(ended).problems
    assert (problem.rule, problem.pointer) == ("BB-MAN-013", "/attempts/0")
