"""Which records a reader gives out of many journals, and in which order."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings

from blackboxml import open_run
from blackboxml.base.files import Directory
from blackboxml.errors import NotARunError, UnsupportedVersionError
from blackboxml.journal.merge import find_journals
from blackboxml.journal.scan import Scan
from tests import histories
from tests.histories import RUN_ID, end, event, header, line, number, point, write

if TYPE_CHECKING:
    from blackboxml import RunReader
    from blackboxml.errors import Problem
    from tests.histories import Files

SLOW = settings(deadline=None, suppress_health_check=list(HealthCheck))
OTHER_ID = "f" * 32


def places(reader: RunReader) -> list[tuple[int, int, int]]:
    return [(each.attempt, each.rank, each.seq) for each in reader.records("all")]


def rules(reader: RunReader) -> list[str]:
    list(reader.records("all"))
    return [problem.rule for problem in reader.problems if problem.file != "run.json"]


def values(reader: RunReader, name: str = "a") -> list[Any]:
    return [each.metrics[name] for each in reader.records()]


def opened(path: Path, files: Files) -> RunReader:
    return open_run(write(path / "run", files))


def read_all(files: Files) -> tuple[dict[str, Any], list[Any], list[Problem]]:
    """Return the points of both views, the other records, and what was found wrong."""
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder, "run"), files)
        reader = open_run(path)
        points = {
            view: [
                (
                    (each.attempt, each.rank, each.seq),
                    each.step,
                    each.time,
                    {name: number(value) for name, value in each.metrics.items()},
                    {
                        name: {key: number(value) for key, value in said.items()}
                        for name, said in each.ranks.items()
                    },
                )
                for each in reader.records(view)
            ]
            for view in ("effective", "all")
        }
        events = []
        names: set[str] = set()
        with Directory(path) as directory:
            for journal in find_journals(directory):
                scan = Scan(journal, names, [])
                for block in scan.blocks(directory):
                    scan.read(block)
                events += [
                    ((journal.attempt, journal.rank, each["seq"]), each) for each in scan.events
                ]
        return points, events, [each for each in reader.problems if each.file != "run.json"]


def wanted(files: Files) -> dict[str, Any]:
    expected = histories.expect(files)
    return {
        view: [
            (
                place,
                document["step"],
                float(document["time"]),
                {name: number(value) for name, value in document["metrics"].items()},
                {
                    name: {key: number(value) for key, value in said.items()}
                    for name, said in document.get("ranks", {}).items()
                },
            )
            for place, document in expected.points(view)
        ]
        for view in ("effective", "all")
    }


@settings(SLOW, max_examples=60)
@given(histories.histories())
def test_an_undamaged_run_is_read_as_the_specification_says(files: Files) -> None:
    points, events, problems = read_all(files)
    expected = histories.expect(files)
    assert points == wanted(files)
    assert expected.lost == []
    assert problems == []
    kinds = ("rewind", "gap", "describe", "end", "org.example.kind")
    assert [
        (place, document["seq"]) for place, document in events if set(kinds) & set(document)
    ] == [
        (place, document["seq"])
        for place, document in expected.records
        if set(kinds) & set(document)
    ]


@settings(SLOW, max_examples=80)
@given(histories.damaged())
@pytest.mark.rule("BB-JNL-023")
def test_a_damaged_run_gives_every_record_that_is_left_and_reports_the_rest(files: Files) -> None:
    try:
        points, _, problems = read_all(files)
    except NotARunError:
        assert not histories.has_header(files)
        return
    expected = histories.expect(files)
    assert points == wanted(files)
    found = {problem.rule for problem in problems}
    if expected.lost:
        assert {"BB-MRG-001", "BB-JNL-009"} & found
    for name, offsets in expected.damaged.items():
        reported = {problem.offset for problem in problems if problem.file == name}
        assert reported >= set(offsets)
    if not any(expected.damaged.values()):
        assert not {"BB-JNL-001", "BB-JNL-003", "BB-JNL-004", "BB-JNL-007"} & found


@pytest.mark.rule("BB-MRG-006")
def test_records_come_by_attempt_then_rank_then_seq_whatever_their_times(tmp_path: Path) -> None:
    files = {
        "metrics.jsonl": header(time=9e9) + point(0, {"a": 1}, time=9e9) + point(1, {"a": 2}),
        "metrics.1.jsonl": header(attempt=1, time=0.0) + point(0, {"a": 3}, time=0.0),
        "metrics.r2.jsonl": header(2, time=5.0) + point(0, {"a": 4}, time=-7.5),
        "metrics.r10.jsonl": header(10) + point(0, {"a": 5}),
    }
    assert places(opened(tmp_path, files)) == [
        (0, 0, 0),
        (0, 0, 1),
        (0, 2, 0),
        (0, 10, 0),
        (1, 0, 0),
    ]


@pytest.mark.rule("BB-MRG-007")
def test_the_copy_in_the_later_journal_is_taken(tmp_path: Path) -> None:
    files = {
        "metrics.jsonl": header() + point(0, {"a": 0}) + point(1, {"a": 1}),
        "metrics.1.jsonl": header(first_seq=1) + point(1, {"a": 10}) + point(2, {"a": 2}),
    }
    assert values(opened(tmp_path, files)) == [0, 10, 2]


def test_a_continuation_that_died_before_it_had_copied_everything_costs_nothing(
    tmp_path: Path,
) -> None:
    lines = [point(seq, {"a": seq}) for seq in range(9)]
    files = {
        "metrics.jsonl": header() + b"".join(lines[:6]),
        "metrics.1.jsonl": header(first_seq=2) + b"".join(lines[2:4]) + lines[4][:-1],
        "metrics.2.jsonl": header(first_seq=6) + b"".join(lines[6:]),
    }
    reader = opened(tmp_path, files)
    assert values(reader) == list(range(9))
    assert rules(reader) == []


@pytest.mark.rule("BB-MRG-007")
def test_an_earlier_copy_serves_where_the_later_one_is_damaged(tmp_path: Path) -> None:
    lines = [point(seq, {"a": seq}) for seq in range(5)]
    files = {
        "metrics.jsonl": header() + b"".join(lines[:4]),
        "metrics.1.jsonl": header(first_seq=1)
        + lines[1]
        + lines[2].replace(b'"a":2', b'"a":7')
        + b"".join(lines[3:]),
    }
    reader = opened(tmp_path, files)
    assert values(reader) == list(range(5))
    assert "BB-JNL-004" in rules(reader)


def test_an_invalid_record_in_a_continuation_does_not_hide_the_good_one(tmp_path: Path) -> None:
    files = {
        "metrics.jsonl": header() + point(0, {"a": 0}) + point(1, {"a": 1}),
        "metrics.1.jsonl": header(first_seq=1)
        + line({"seq": 1, "step": 1, "time": 1.0, "metrics": {"a": None}})
        + point(2, {"a": 2}),
    }
    assert values(opened(tmp_path, files)) == [0, 1, 2]


@pytest.mark.parametrize(
    ("files", "low", "high"),
    [
        ({"metrics.1.jsonl": header(first_seq=3) + point(3, {"a": 3})}, 0, 2),
        (
            {
                "metrics.jsonl": header() + point(0, {"a": 0}),
                "metrics.1.jsonl": header(first_seq=4) + point(4, {"a": 4}),
            },
            1,
            3,
        ),
        (
            {
                "metrics.jsonl": header() + point(0, {"a": 0}),
                "metrics.1.jsonl": header(first_seq=2**63 - 1),
            },
            1,
            2**63 - 2,
        ),
        ({"metrics.jsonl": header() + point(0, {"a": 0}) + point(3, {"a": 3})}, 1, 2),
    ],
    ids=["first journal gone", "hole between journals", "hostile first_seq", "hole in a journal"],
)
@pytest.mark.rule("BB-MRG-009")
def test_lost_records_are_reported_as_ranges(
    tmp_path: Path, files: Files, low: int, high: int
) -> None:
    reader = opened(tmp_path, files)
    list(reader.records())
    assert [
        problem
        for problem in reader.problems
        if problem.rule in {"BB-MRG-001", "BB-JNL-009"} and f"{low} to {high}" in problem.message
    ]


def test_a_journal_of_another_run_is_left_out_and_reported(tmp_path: Path) -> None:
    files = {
        "metrics.jsonl": header() + point(0, {"a": 1}),
        "metrics.1.jsonl": header(run_id=OTHER_ID) + point(1, {"a": 2}),
    }
    reader = opened(tmp_path, files)
    assert values(reader) == [1]
    assert reader.id == RUN_ID
    assert rules(reader) == ["BB-MRG-008"]


def test_the_run_is_that_of_the_least_rank_with_a_good_header(tmp_path: Path) -> None:
    files = {
        "metrics.jsonl": b"x" + header() + point(0, {"a": 1}),
        "metrics.1.jsonl": header(run_id=OTHER_ID) + point(0, {"a": 2}),
        "metrics.r1.jsonl": header(1) + point(0, {"a": 3}),
    }
    reader = opened(tmp_path, files)
    assert reader.id == OTHER_ID
    assert values(reader) == [2]


BAD = b'{"format":"damaged","crc":"00000000"}\n'


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"metrics.jsonl": BAD + point(0)}, [(0, 0, 0)]),
        ({"metrics.jsonl": BAD + point(5)}, [(0, 0, 5)]),
        (
            {"metrics.jsonl": header() + point(0) + end(1), "metrics.1.jsonl": BAD + point(0)},
            [(0, 0, 0), (1, 0, 0)],
        ),
        (
            {"metrics.jsonl": header() + point(0) + end(1), "metrics.1.jsonl": BAD + point(3)},
            [(0, 0, 0), (1, 0, 3)],
        ),
        (
            {"metrics.jsonl": header() + point(0) + point(1), "metrics.1.jsonl": BAD + point(1)},
            [(0, 0, 0), (0, 0, 1)],
        ),
        (
            {
                "metrics.jsonl": header() + point(0) + point(1),
                "metrics.1.jsonl": BAD + point(0) + point(1) + point(2),
            },
            [(0, 0, 0), (0, 0, 1), (0, 0, 2)],
        ),
        (
            {
                "metrics.jsonl": header() + point(0) + point(1),
                "metrics.1.jsonl": BAD + point(0, {"a": 1}),
            },
            [(0, 0, 0), (0, 0, 1), (1, 0, 0)],
        ),
        (
            {
                "metrics.jsonl": header() + point(0),
                "metrics.1.jsonl": BAD + b"garbage\n" + point(1),
            },
            [(0, 0, 0), (0, 0, 1)],
        ),
        (
            {
                "metrics.jsonl": header() + point(0),
                "metrics.1.jsonl": BAD + b"g" * 9000 + b"\n" + point(1),
            },
            [(0, 0, 0), (0, 0, 1)],
        ),
        (
            {
                "metrics.jsonl": header() + point(0),
                "metrics.1.jsonl": b"h" * 2**20 + b"\n" + point(1),
            },
            [(0, 0, 0), (0, 0, 1)],
        ),
        (
            {
                "metrics.jsonl": header(attempt=4) + point(0),
                "metrics.7.jsonl": BAD + point(0, {"a": 1}),
                "metrics.9.jsonl": BAD + point(1),
            },
            [(4, 0, 0), (5, 0, 0), (5, 0, 1)],
        ),
        (  # its first line is lost, and what follows is not what the attempt before has there
            {
                "metrics.jsonl": header() + point(0, {"a": 1}) + point(1, {"a": 1}),
                "metrics.1.jsonl": BAD + b"garbage\n" + point(1, {"a": 2}) + point(2, {"a": 2}),
            },
            [(0, 0, 0), (0, 0, 1), (1, 0, 1), (1, 0, 2)],
        ),
        (  # the first copy is equal, and the second one is none
            {
                "metrics.jsonl": header() + point(0) + point(1, {"a": 1}) + point(2),
                "metrics.1.jsonl": BAD + point(0) + point(1, {"a": 2}),
            },
            [(0, 0, 0), (0, 0, 1), (0, 0, 2), (1, 0, 0), (1, 0, 1)],
        ),
        (  # a later record is equal, but the first one is not there
            {
                "metrics.jsonl": header() + b"garbage\n" + point(1),
                "metrics.1.jsonl": BAD + point(0) + point(1),
            },
            [(0, 0, 1), (1, 0, 0), (1, 0, 1)],
        ),
        (  # further than the attempt before, with a gap on both sides
            {
                "metrics.jsonl": header() + point(0) + point(1) + point(4),
                "metrics.1.jsonl": BAD + point(1) + point(2) + point(4) + point(7),
            },
            [(0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 0, 4), (0, 0, 7)],
        ),
        (
            {"metrics.jsonl": header(), "metrics.r1.jsonl": BAD + point(2)},
            [(0, 1, 2)],
        ),
    ],
)
@pytest.mark.rule("BB-MRG-010")
def test_a_journal_with_a_damaged_header_gets_its_place(
    tmp_path: Path, files: Files, expected: list[tuple[int, int, int]]
) -> None:
    if all(data.startswith(BAD) for data in files.values()):
        files |= {"metrics.r9.jsonl": header(9)}
    reader = opened(tmp_path, files)
    assert places(reader) == expected
    rules(reader)
    assert [problem for problem in reader.problems if (problem.line, problem.offset) == (1, 0)]


def test_an_empty_journal_and_one_without_a_whole_line_take_no_part(tmp_path: Path) -> None:
    files = {
        "metrics.jsonl": header() + point(0, {"a": 1}),
        "metrics.1.jsonl": b"",
        "metrics.2.jsonl": header(attempt=1)[:-1],
        "metrics.3.jsonl": b"\0" * 4096,
        "metrics.4.jsonl": header(attempt=1) + point(0, {"a": 2}),
    }
    reader = opened(tmp_path, files)
    assert values(reader) == [1, 2]
    assert rules(reader) == []


@pytest.mark.parametrize(
    "tail", [b"{", b"\0" * 5000, point(1)[:-1], b"\xff\xfe", b"\0" * 3 * 2**20], ids=range(5)
)
@pytest.mark.rule("BB-JNL-024")
def test_a_torn_tail_is_no_record_and_no_damage(tmp_path: Path, tail: bytes) -> None:
    reader = opened(tmp_path, {"metrics.jsonl": header() + point(0, {"a": 1}) + tail})
    assert values(reader) == [1]
    assert rules(reader) == []


@pytest.mark.parametrize(
    "name",
    [
        "metrics.r0.jsonl",
        "metrics.0.jsonl",
        "metrics.01.jsonl",
        "metrics.r01.jsonl",
        "metrics.1.r1.jsonl",
        "metrics.r2147483648.jsonl",
        "xmetrics.jsonl",
        "metrics.jsonl.bak",
        ".tmp-metrics.jsonl",
    ],
)
@pytest.mark.rule("BB-LAY-010")
def test_a_file_whose_name_is_not_that_of_a_journal_is_none(tmp_path: Path, name: str) -> None:
    files = {"metrics.jsonl": header() + point(0, {"a": 1}), name: header() + point(0, {"a": 2})}
    assert values(opened(tmp_path, files)) == [1]


def test_a_journal_of_a_later_major_version_is_refused_and_the_others_are_read(
    tmp_path: Path,
) -> None:
    later = {"name": "blackbox-journal", "version": "2.0", "features": []}
    files = {
        "metrics.jsonl": header() + point(0, {"a": 1}),
        "metrics.1.jsonl": header(attempt=1, format=later) + point(0, {"a": 2}),
    }
    reader = opened(tmp_path, files)
    assert values(reader) == [1]
    assert rules(reader) == ["BB-VER-001"]
    assert any("2.0" in problem.message for problem in reader.problems)
    alone = write(tmp_path / "alone", {"metrics.jsonl": header(format=later)})
    with pytest.raises(UnsupportedVersionError, match=r"2\.0"):
        open_run(alone)


def test_a_journal_with_an_unknown_feature_is_refused_and_the_others_are_read(
    tmp_path: Path,
) -> None:
    later = {"name": "blackbox-journal", "version": "1.7", "features": ["org.example.delta"]}
    files = {
        "metrics.jsonl": header() + point(0, {"a": 1}),
        "metrics.r1.jsonl": header(1, format=later) + point(0, {"a": 2}),
    }
    reader = opened(tmp_path, files)
    assert values(reader) == [1]
    assert rules(reader) == ["BB-VER-006"]


@pytest.mark.rule("BB-MRG-011")
def test_a_rewind_supersedes_earlier_records_of_its_own_rank_only(tmp_path: Path) -> None:
    files = {
        "metrics.jsonl": header()
        + point(0, {"a": 0}, 5)
        + event(1, rewind={"step": 5})
        + point(2, {"a": 1}, 5)
        + point(3, {"a": 2}, 4),
        "metrics.r1.jsonl": header(1) + point(0, {"a": 3}, 9),
        "metrics.1.jsonl": header(attempt=1) + event(0, rewind={"step": 5}) + point(1, {"a": 4}, 5),
    }
    reader = opened(tmp_path, files)
    assert values(reader) == [2, 3, 4]
    assert len(places(reader)) == 5


def test_a_rewind_in_a_copy_that_does_not_count_supersedes_nothing(tmp_path: Path) -> None:
    files = {
        "metrics.jsonl": header() + point(0, {"a": 0}, 5) + event(1, rewind={"step": 0}),
        "metrics.1.jsonl": header(first_seq=1) + point(1, {"a": 1}, 6),
    }
    assert values(opened(tmp_path, files)) == [0, 1]


def test_interleaved_copies_are_merged_in_a_time_that_does_not_grow_with_their_square(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 400
    lines = [point(seq, {"a": seq}) for seq in range(count)]
    files = {
        "metrics.jsonl": header() + b"".join(lines[0::2]),
        "metrics.1.jsonl": header() + b"".join(lines[1::2]),
    }
    path = write(tmp_path / "run", files)
    looked = []
    from blackboxml.journal import scan

    genuine = scan.decode
    monkeypatch.setattr(scan, "decode", lambda data: looked.append(1) or genuine(data))
    assert values(open_run(path)) == list(range(count))
    assert len(looked) <= 4 * count
