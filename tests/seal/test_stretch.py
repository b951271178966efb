"""Many points at once: the same lines as one by one, and the same tables as by parsing them."""

from __future__ import annotations

import json
import resource
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blackboxml import open_run, validate
from blackboxml.base.scalar import spell
from blackboxml.errors import MetricError
from blackboxml.journal import encode
from blackboxml.journal.block import encode_points
from blackboxml.journal.metric import Points
from blackboxml.seal import seal
from blackboxml.seal.stretch import Stretches
from blackboxml.writer import RunWriter

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

START = 1_763_734_921.0
INT64 = st.integers(-(2**63), 2**63 - 1)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
NAMES = st.sampled_from(["loss", "train/loss", 'a"b', "100%", "100%b", "ä/ö", "a,b", "{}", "x]y"])
KINDS: dict[str, tuple[Any, Any]] = {
    "float": (np.float64, st.floats()),
    "int": (np.int64, INT64),
    "bool": (np.bool_, st.booleans()),
}


@st.composite
def many_points(draw: st.DrawFn) -> Points:
    """Some layouts, each with a record at least, in any order."""
    kinds = st.lists(st.sampled_from(sorted(KINDS)), min_size=3, max_size=3)
    layouts = draw(st.lists(st.lists(NAMES, min_size=1, max_size=3, unique=True), max_size=4))
    layouts = [tuple(names) for names in layouts or [["loss"]]]
    extra = draw(st.lists(st.integers(0, len(layouts) - 1), max_size=8))
    which = draw(st.permutations([*range(len(layouts)), *extra]))
    values = []
    for layout, names in enumerate(layouts):
        columns = []
        for _, kind in zip(names, draw(kinds), strict=False):
            dtype, strategy = KINDS[kind]
            size = which.count(layout)
            given = draw(st.lists(strategy, min_size=size, max_size=size))
            columns.append(np.array(given, dtype))
        values.append(columns)
    count = len(which)
    steps = draw(st.lists(INT64, min_size=count, max_size=count))
    times = draw(st.lists(FINITE, min_size=count, max_size=count))
    return Points(
        np.array(steps, np.int64), np.array(times), np.array(which, np.intp), layouts, values
    )


def one_by_one(points: Points, first_seq: int) -> bytes:
    """The lines as `log` makes them."""
    lines = []
    for seq, (step, time, metrics) in enumerate(points.records(), first_seq):
        said = {name: spell(value) for name, value in metrics.items()}
        lines.append(encode({"seq": seq, "step": step, "time": time, "metrics": said}))
    return b"".join(lines)


@given(many_points(), st.integers(0, 2**40))
@settings(deadline=None)
def test_lines_made_at_once_are_those_made_one_by_one(points: Points, first_seq: int) -> None:
    assert encode_points(points, first_seq) == one_by_one(points, first_seq)


@given(st.lists(st.floats(), min_size=1, max_size=50))
@settings(deadline=None, max_examples=300)
def test_every_float_is_spelled_as_in_a_single_record(values: list[float]) -> None:
    count = len(values)
    zeros = np.zeros(count, np.intp)
    points = Points(np.arange(count), np.zeros(count), zeros, [("a",)], [[np.array(values)]])
    assert encode_points(points, 0) == one_by_one(points, 0)


def column(count: int, *names: str, first: int = 0) -> Points:
    """Points of one layout."""
    steps = np.arange(first, first + count)
    values = [np.sin(steps + place) for place in range(len(names))]
    which = np.zeros(count, np.intp)
    return Points(steps, START + steps, which, [names], [values])


def mixed(count: int, first: int) -> Points:
    """Points of several layouts, groups and types, with values that are no numbers."""
    which = np.arange(count) % 3
    rows = [int((which == k).sum()) for k in range(3)]
    losses = np.where(np.arange(rows[0]) % 5 == 0, np.nan, np.arange(rows[0]) / 3)
    layouts: list[tuple[str, ...]] = [("train/loss",), ("eval/seen", "lr"), ("eval/best",)]
    values: list[Any] = [
        [losses],
        [np.arange(rows[1]) + 2**60, np.full(rows[1], np.inf)],
        [np.arange(rows[2]) % 2 == 0],
    ]
    return Points(np.arange(first, first + count), START + np.arange(count), which, layouts, values)


def record(folder: Path, kept: Stretches, blocks: Iterable[Points | int | str]) -> Path:
    """Write blocks into a run that is not sealed: points, rewinds, descriptions."""
    writer = RunWriter.create(folder, "r", run_id="0" * 32, start=START, strict=True, sync="none")
    for block in blocks:
        if isinstance(block, int):
            writer.rewind(block)
        elif isinstance(block, str):
            writer.describe(block, unit="m")
            writer.log({block: 1, "new": 0.5}, 7, None, START)
        else:
            stretch = writer.log_points(block)
            assert stretch is not None
            kept.add(stretch, block)
    writer.finish("completed", None, START + 1e6)
    return writer.path


BLOCKS: list[list[Points | int | str]] = [
    [column(40, "train/loss")],
    [column(40, "a", "b/c"), column(40, "b/c", first=40)],
    ["lr", mixed(300, 0), 250, mixed(300, 250), "train/loss"],
    # The same name as float and as int: what column that makes is for the parser to say.
    [
        column(40, "a"),
        Points(
            np.arange(40),
            np.full(40, START),
            np.arange(40) % 2,
            [("a",), ("a",)],
            [[np.full(20, 2**53 + 1)], [np.zeros(20)]],
        ),
    ],
    [mixed(30, 0), column(40, "eval/seen")],  # an integer that a float then widens
]


@pytest.mark.parametrize("blocks", BLOCKS)
def test_what_is_sealed_from_columns_is_what_the_journal_says(
    tmp_path: Path, blocks: list[Points | int | str]
) -> None:
    found = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        with Stretches(folder) as kept:
            path = record(folder, kept, blocks)
            report = seal(path, known=kept if number else None)
        assert not report.problems
        assert validate(path).problems == []
        manifest = json.loads((path / "run.json").read_text())
        journals = [
            {key: value for key, value in entry.items() if key not in {"process", "time"}}
            for entry in manifest["journals"]
        ]
        for entry in journals:  # the times of what was not imported
            for event in entry["events"]:
                event.pop("time", None)
        tables = {each.name: each.read_bytes() for each in sorted(path.glob("*.parquet"))}
        records = [(r.seq, r.step, repr(r.metrics), r.rank) for r in open_run(path).records("all")]
        groups = {
            name: {key: value for key, value in group.items() if key != "dataset"}
            for name, group in manifest["groups"].items()
        }
        found.append((report.rows, journals, tables.keys(), repr(groups), records))
        tables = {name: open_run(path).arrow(name, "all") for name in groups}
        found.append(
            {name: repr(table.drop(["time"]).to_pydict()) for name, table in tables.items()}
        )
    assert found[0] == found[2]
    assert found[1] == found[3]


def test_a_stretch_that_changed_since_is_parsed(tmp_path: Path) -> None:
    with Stretches(tmp_path) as kept:
        path = record(tmp_path, kept, [column(40, "a"), column(40, "a", first=40)])
        journal = path / "metrics.jsonl"
        data = bytearray(journal.read_bytes())
        data[data.index(b'"step":20,') + 8] ^= 1  # a digit of it
        journal.write_bytes(data)
        report = seal(path, known=kept)
    assert [problem.rule for problem in report.problems] == ["BB-JNL-004", "BB-JNL-009"]
    assert report.rows == {"": 79}
    assert open_run(path).arrow("").column("step").to_pylist() == [
        step for step in range(80) if step != 20
    ]


def test_points_that_cannot_be_stored_are_refused_whole(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, "r", start=START, sync="none")
    bad = [column(2, "a", "/b"), column(2, "a"), column(1, *(f"m{k}" for k in range(10_001)))]
    bad[1].times[1] = np.nan
    bad.append(column(1, *(f"{k}{'x' * 1000}" for k in range(1100))))  # a line of more than a MiB
    for points in bad:
        with pytest.raises(MetricError):
            writer.log_points(points)
    writer.finish()
    assert list(open_run(writer.path).records()) == []


@pytest.mark.parametrize("room", [0, 100, 5000])
def test_a_block_that_finds_no_room_goes_on_in_the_next_journal(tmp_path: Path, room: int) -> None:
    writer = RunWriter.create(tmp_path, "r", start=START, sync="none")
    writer.log({"a": 1.0}, 0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (writer.path / "metrics.jsonl").stat().st_size
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, limits[1]))
        assert writer.log_points(column(100, "a", first=1)) is None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    writer.log_points(column(100, "a", first=101))
    writer.finish()
    assert writer.lost == 0
    run = open_run(writer.path)
    assert [record.step for record in run.records()] == list(range(201))
    assert [record.seq for record in run.records()] == list(range(201))
    assert [each.rule for each in validate(writer.path).problems if each.severity == "error"] == []


def test_points_wait_in_memory_while_no_journal_can_be_written(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, "r", start=START, sync="none")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
        for first in (0, 100):
            assert writer.log_points(column(100, "a", first=first)) is None
        assert writer.degraded
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    writer.finish()
    found = [record.step for record in open_run(writer.path).records()]
    assert found == list(range(200))
    assert writer.lost == 0
