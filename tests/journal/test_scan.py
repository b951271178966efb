"""One journal, read record by record: what counts, what does not, and where exactly."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blackboxml.base.files import Directory
from blackboxml.journal import Block
from blackboxml.journal.merge import find_journals
from blackboxml.journal.scan import Scan
from blackboxml.model import Limits, Record
from tests import histories
from tests.histories import TIME, end, event, header, line, point, seal_line, write

if TYPE_CHECKING:
    from pathlib import Path

    from blackboxml.errors import Problem


def scan_of(
    folder: Path, data: bytes, limits: Limits | None = None
) -> tuple[Scan, list[Record], list[Problem]]:
    problems: list[Problem] = []
    with Directory(write(folder / "run", {"metrics.jsonl": data})) as directory:
        journals = find_journals(directory, limits or Limits(), problems)
        scan = Scan(journals[0], set(), problems, limits or Limits())
        records = [record for block in scan.blocks(directory) for record in scan.read(block)]
    return scan, records, problems


def text(members: str, seq: int = 0) -> bytes:
    """Return a line whose members after `seq` and `time` are spelled as given."""
    return seal_line(f'{{"seq":{seq},"time":{TIME},{members}')


GOOD = point(0, {"a": 1})
DAMAGED = {
    "cut": GOOD[:20] + b"\n",
    "blank": b"\n",
    "blanks": b"   \n",
    "nul": b"\0" * 80 + b"\n",
    "flipped": GOOD.replace(b'"a":1', b'"a":2'),
    "upper-case crc": GOOD[:-11] + b"ABCDEF12" + GOOD[-3:],
    "no crc": b'{"seq":0,"step":0,"time":1.0,"metrics":{"a":1}}\n',
    "crc not last": GOOD[:-2] + b',"x":1}\n',
    "space before the brace": GOOD[:-2] + b" }\n",
    "carriage return": GOOD[:-1] + b"\r\n",
    "byte order mark": seal_line(b"\xef\xbb\xbf" + GOOD[:-19]),
    "no UTF-8": seal_line(b'{"seq":0,"step":0,"time":1.0,"metrics":{"\xff":1}'),
    "lone surrogate": text('"step":0,"metrics":{"\\ud800":1}'),
    "array": seal_line(b'["a",{"b":1')[:-1] + b"]\n",
    "two objects": seal_line(b'{"seq":0}{"seq":1'),
    "NaN": text('"step":0,"metrics":{"a":NaN}'),
    "Infinity": text('"step":0,"metrics":{"a":-Infinity}'),
    "null": text('"step":0,"metrics":{"a":null}'),
    "array value": text('"step":0,"metrics":{"a":[1]}'),
    "object value": text('"step":0,"metrics":{"a":{}}'),
    "other string": text('"step":0,"metrics":{"a":"nan"}'),
    "leading zero": text('"step":0,"metrics":{"a":01}'),
    "leading plus": text('"step":0,"metrics":{"a":+1}'),
    "no digit behind the point": text('"step":0,"metrics":{"a":1.}'),
    "beyond int64": text('"step":0,"metrics":{"a":9223372036854775808}'),
    "beyond int64, spaced": text('"step":0,"metrics":{"a": 9223372036854775808 }'),
    "below int64": text('"step":0,"metrics":{"a":-9223372036854775809}'),
    "beyond float64": text('"step":0,"metrics":{"a":1e400}'),
    "key twice": text('"step":0,"metrics":{"a":1,"a":1}'),
    "key twice, once escaped": text('"step":0,"metrics":{"a":1,"\\u0061":1}'),
    "member twice": text('"step":0,"step":0,"metrics":{"a":1}'),
    "crc twice": text('"step":0,"metrics":{"a":1},"crc":"00000000"'),
    "no step": text('"metrics":{"a":1}'),
    "float step": text('"step":0.0,"metrics":{"a":1}'),
    "bool step": text('"step":true,"metrics":{"a":1}'),
    "step beyond int64": text('"step":9223372036854775808,"metrics":{"a":1}'),
    "metrics no object": text('"step":0,"metrics":[]'),
    "name empty": text('"step":0,"metrics":{"":1}'),
    "name with a control character": text('"step":0,"metrics":{"a\\u0007":1}'),
    "name ends in a slash": text('"step":0,"metrics":{"a/":1}'),
    "name too long": text('"step":0,"metrics":{"' + "é" * 513 + '":1}'),
    "ranks alone": text('"step":0,"ranks":{"a":{"mean":1}}'),
    "ranks empty": text('"step":0,"metrics":{},"ranks":{"a":{}}'),
    "ranks null": text('"step":0,"metrics":{},"ranks":{"a":{"mean":null}}'),
    "count below 0": text('"step":0,"metrics":{},"ranks":{"a":{"count":-1}}'),
    "count a float": text('"step":0,"metrics":{},"ranks":{"a":{"count":1.0}}'),
    "two kinds": text('"step":0,"metrics":{"a":1},"rewind":{"step":0}'),
    "two events": text('"rewind":{"step":0},"end":{"status":"completed"}'),
    "no kind": seal_line(f'{{"seq":0,"time":{TIME}'),
    "rewind without step": text('"rewind":{}'),
    "rewind to a float": text('"rewind":{"step":1.0}'),
    "rewind no object": text('"rewind":3'),
    "gap of none": text('"gap":{"records":0,"reason":"x"}'),
    "gap without reason": text('"gap":{"records":1}'),
    "describe nothing": text('"describe":{}'),
    "describe a number": text('"describe":{"metric":"a","unit":1}'),
    "end without status": text('"end":{}'),
    "end running": text('"end":{"status":"running"}'),
    "end completed with an exception": text(
        '"end":{"status":"completed","exception":{"type":"E","message":""}}'
    ),
    "end with a broken exception": text('"end":{"status":"failed","exception":{"type":1}}'),
    "seq missing": seal_line('{"step":0,"time":1.0,"metrics":{"a":1}'),
    "seq below 0": line({"seq": -1, "step": 0, "time": 1.0, "metrics": {"a": 1}}),
    "seq a float": seal_line('{"seq":0.0,"step":0,"time":1.0,"metrics":{"a":1}'),
    "seq true": seal_line('{"seq":true,"step":0,"time":1.0,"metrics":{"a":1}'),
    "time missing": seal_line('{"seq":0,"step":0,"metrics":{"a":1}'),
    "time a text": seal_line('{"seq":0,"step":0,"time":"1","metrics":{"a":1}'),
    "time beyond float64": seal_line('{"seq":0,"step":0,"time":1e400,"metrics":{"a":1}'),
    "deep": text('"org.example.x":' + "[" * 70 + "]" * 70),
    "very deep": text('"org.example.x":' + "[" * 100_000 + "]" * 100_000),
}


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.rule("BB-INT-011", "BB-JNL-023")
def test_a_damaged_line_costs_itself_and_is_reported_at_its_place(
    tmp_path: Path, name: str
) -> None:
    data = header() + DAMAGED[name] + point(0, {"a": 5}) + point(1, {"a": 6})
    scan, records, problems = scan_of(tmp_path, data)
    assert [record.metrics for record in records] == [{"a": 5}, {"a": 6}]
    assert [(each.line, each.offset, each.file) for each in problems] == [
        (2, len(header()), "metrics.jsonl")
    ]
    assert problems[0].rule.startswith("BB-")
    assert scan.records == 2


def test_an_integer_far_beyond_int64_is_damage_behind_white_space_too(tmp_path: Path) -> None:
    line = text('"step":0,"metrics":{"a":\t123456789012345678901 }')
    scan, records, problems = scan_of(tmp_path, header() + line)
    assert (scan.records, records) == (0, [])
    assert [each.rule for each in problems] == ["BB-JNL-012"]


VALID = {
    "whitespace": text(' "step" : 3 , "metrics" : { "a" : 1 } '),
    "escapes": text('"step":0,"metr\\u0069cs":{"\\u00e9":1}'),
    "colons and braces in names": text('"step":0,"metrics":{"a:{}[],:\\"":1}'),
    "long integers in names": text('"step":0,"metrics":{"a:12345678901234567890,":1}'),
    "minus zero": text('"step":-0,"metrics":{"a":-0}'),
    "exponents": text('"step":0,"metrics":{"a":1E5,"b":1e-400,"c":-0.0e0}'),
    "integer time": seal_line('{"seq":0,"step":0,"time":1,"metrics":{}'),
    "negative time": seal_line('{"seq":0,"step":0,"time":-1e300,"metrics":{}'),
    "unknown member": text('"step":0,"metrics":{"a":1},"org.example":null'),
    "unknown kind": text('"org.example.kind":null'),
    "empty ranks": text('"step":0,"metrics":{},"ranks":{}'),
    "unknown members of an event": text('"gap":{"records":1,"reason":"","bytes":3}'),
    "deep": text('"org.example.x":' + "[" * 63 + "]" * 63),
    "longest name": text('"step":0,"metrics":{"' + "é" * 512 + '":1}'),
    "null byte in a text": text(
        '"end":{"status":"failed","exception":{"type":"E","message":"\\u0000"}}'
    ),
}


@pytest.mark.parametrize("name", VALID)
def test_a_valid_line_counts(tmp_path: Path, name: str) -> None:
    scan, _, problems = scan_of(tmp_path, header() + VALID[name])
    assert problems == []
    assert scan.records == 1
    assert histories.expect({"metrics.jsonl": header() + VALID[name]}).damaged == {
        "metrics.jsonl": []
    }


json_texts = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["NaN", "completed", "failed", "a", "a/", ""]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                [
                    "a",
                    "b/c",
                    "step",
                    "status",
                    "records",
                    "reason",
                    "metric",
                    "unit",
                    "exception",
                    "type",
                    "message",
                    "mean",
                    "count",
                    "",
                ]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=5,
)
lines = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys(
        ("step", "metrics", "ranks", "rewind", "gap", "describe", "end", "other"), json_texts
    ),
).flatmap(
    lambda members: st.fixed_dictionaries(
        {"seq": st.just(0) | json_texts, "time": st.just(1.0) | json_texts},
    ).map(lambda frame: frame | members)
)


@settings(deadline=None, max_examples=400)
@given(lines)
def test_a_line_is_a_record_exactly_if_the_schema_says_so(document: dict[str, Any]) -> None:
    head = json.dumps(document, separators=(",", ":"))[:-1]
    data = seal_line(head)
    strict = histories.decode(data[:-1])
    valid = strict is not None and histories.is_record(strict)
    assert (read_line(data) is not None) == valid


def read_line(data: bytes, limits: Limits | None = None) -> Scan | None:
    """Return the scan of one line if it counts."""
    from blackboxml.model import JournalFile

    journal = JournalFile("metrics.jsonl", 0, 0, 0, 0, 0, None, 0, len(data), None)
    scan = Scan(journal, set(), [], limits or Limits())
    list(scan.good(Block(0, data)))
    return scan if not [each for each in scan.problems if each.rule != "BB-JNL-009"] else None


@pytest.mark.parametrize("length", [2**20 - 1, 2**20, 2**20 + 1, 3 * 2**20, 9 * 2**20])
@pytest.mark.rule("BB-LIM-002", "BB-LIM-003")
def test_a_line_may_have_a_mebibyte_and_no_more(tmp_path: Path, length: int) -> None:
    room = length - len(text('"step":0,"metrics":{"a":1},"x":""'))
    data = header() + point(0) + text('"step":0,"metrics":{"a":1},"x":"' + "y" * room + '"', 1)
    assert len(data) == len(header() + point(0)) + length
    _, records, problems = scan_of(tmp_path, data + point(2))
    good = length <= 2**20
    assert [record.seq for record in records] == [0, 1, 2] if good else [0, 2]
    assert [(each.rule, each.line) for each in problems] == (
        [] if good else [("BB-JNL-002", 3), ("BB-JNL-009", 4)]
    )


def test_a_long_line_is_reported_even_if_it_is_the_last(tmp_path: Path) -> None:
    data = header() + point(0) + b"x" * 2**21 + b"\n"
    assert [each.rule for each in scan_of(tmp_path, data)[2]] == ["BB-JNL-002"]


@pytest.mark.rule("BB-LIM-002", "BB-LIM-003")
def test_a_record_may_have_ten_thousand_metrics_and_no_more(tmp_path: Path) -> None:
    names = [f"m{number}" for number in range(10_001)]
    data = header() + point(0, dict.fromkeys(names, 1)) + point(1, dict.fromkeys(names[1:], 1))
    _, records, problems = scan_of(tmp_path, data)
    assert [len(record.metrics) for record in records] == [10_000]
    assert problems[0].line == 2


@pytest.mark.rule("BB-LIM-006")
def test_names_beyond_the_limit_are_left_out_and_the_rest_of_the_record_is_kept(
    tmp_path: Path,
) -> None:
    data = (
        header()
        + point(0, {"a": 1, "b": 2})
        + point(1, {"a": 3, "c": 4}, ranks={"d": {"mean": 5}, "b": {"mean": 6}})
        + point(2, {"e": 7, "b": 8})
    )
    _, records, problems = scan_of(tmp_path, data, Limits(metric_names=3))
    assert [record.metrics for record in records] == [
        {"a": 1, "b": 2},
        {"a": 3, "c": 4},
        {"b": 8},
    ]
    assert [record.ranks for record in records] == [{}, {"b": {"mean": 6}}, {}]
    assert [(each.rule, each.line) for each in problems] == [("BB-LIM-001", 3)]


def test_a_hole_and_a_repetition_are_reported_where_they_show(tmp_path: Path) -> None:
    data = header() + point(0) + point(3) + point(2) + point(3) + point(4) + event(5, x={})
    _, records, problems = scan_of(tmp_path, data)
    assert [record.seq for record in records] == [0, 3, 4]
    assert [(each.rule, each.line) for each in problems] == [
        ("BB-JNL-009", 3),
        ("BB-JNL-009", 4),
        ("BB-JNL-009", 5),
    ]
    assert "1 to 2" in problems[0].message


def test_a_record_after_the_end_is_reported(tmp_path: Path) -> None:
    _, records, problems = scan_of(tmp_path, header() + end(0) + point(1))
    assert [each.rule for each in problems] == ["BB-JNL-010"]
    assert len(records) == 1


def test_events_keep_what_tables_cannot_hold(tmp_path: Path) -> None:
    data = header() + point(0) + point(1, {"a": 1}) + point(2, {"a": 1}, x=[]) + event(3, y=None)
    scan, _, _ = scan_of(tmp_path, data)
    assert [each["seq"] for each in scan.events] == [0, 2, 3]
    assert all("crc" not in each for each in scan.events)
    assert scan.events[1]["x"] == []
