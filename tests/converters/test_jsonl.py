"""JSON Lines: nested or flat, strict or not, damaged or whole."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blackboxml import Run, open_run, validate
from blackboxml.conversion import convert
from blackboxml.converters import jsonl as converter
from blackboxml.writer import RunWriter

if TYPE_CHECKING:
    from pathlib import Path


def test_rows_of_any_shape(tmp_path: Path) -> None:
    lines = [
        b'\xef\xbb\xbf{"_step": 1, "_timestamp": 5.5, "train": {"loss": NaN, "a": {"b": true}}}',
        b'{"_step": 2, "train": {"loss": "-Infinity"}, "note": "hi", "none": null, "l": [1, [2]]}',
        b'{"_step": 2, "train/loss": 1, "train": {"loss": 2}}',
        b'{"_step": 3, "train',
        b"[1, 2]",
        b"\xff\xfe",
        b"[" * 10**5,
        b"",
        b'{"loss": 3}',
        b'{"_step": 2.5, "loss": 3}',
        b'{"_step": 4.0, "_timestamp": "1970-01-01T00:00:07+00:00", "big": 99999999999999999999}',
        b'{"_step": 5, "big": 1e999, "n": -9223372036854775808}',
    ]
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(lines))
    (report,) = convert(path, tmp_path / "runs", verify=True).runs
    assert (report.source_format, report.ok) == ("jsonl", True), report.to_dict()
    run = open_run(report.target)
    assert validate(run.path).problems == []
    first, *records = run.records()
    assert (first.step, first.time, first.metrics["train/a/b"]) == (1, 5.5, True)
    assert math.isnan(first.metrics["train/loss"])
    assert [(each.step, each.time, each.metrics) for each in records] == [
        (2, 5.5, {"train/loss": -math.inf}),
        (2, 5.5, {"train/loss": 1, "train/loss_2": 2}),
        (5, 7.0, {"big": math.inf, "n": -(2**63)}),
    ]
    assert [(each.name, each.step, each.kind) for each in run.media()] == [
        ("note", 2, "text"),
        ("l", 2, "event"),
        ("big", 4, "event"),
    ]
    assert report.total("unreadable", "step") == 6
    places = {remark.what: remark.where for remark in report.remarks}
    offset = sum(len(line) + 1 for line in lines[:3])
    assert places["a line is no JSON object"] == f"{path}:4, offset {offset}"


def test_a_name_that_comes_again_loses_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"step": 0, "a": 1, "a": 2}')
    (report,) = convert(tmp_path / "a.jsonl", tmp_path / "runs", verify=True).runs
    assert [each.metrics for each in open_run(report.target).records()] == [{"a": 1, "a_2": 2}]


def test_a_long_table(tmp_path: Path) -> None:
    rows = [{"name": name, "step": step, "value": step} for step in range(2) for name in "ab"]
    (tmp_path / "a.ndjson").write_text("\n".join(map(json.dumps, rows)))
    (report,) = convert(tmp_path / "a.ndjson", tmp_path / "runs", verify=True).runs
    assert report.ok
    records = list(open_run(report.target).records())
    assert [each.metrics for each in records] == [{"a": 0, "b": 0}, {"a": 1, "b": 1}]


@pytest.mark.parametrize(
    "text",
    ["", "x\n", "[1]\n", '{"a": 1}\n', '{"step": 1, "crc": "0"}', '{"format": {}, "step": 1}'],
)
def test_what_has_no_steps_or_is_a_journal_is_left_alone(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.jsonl").write_text(text)
    assert not converter.recognise(tmp_path / "a.jsonl")


def test_the_journals_of_a_run_are_no_tables(tmp_path: Path) -> None:
    with Run("demo", log_dir=tmp_path) as run:
        run.log({"a": 1})
        found = [converter.recognise(path) for path in run.path.glob("*.jsonl")]
        assert found == [False] * len(found) != []


def test_a_run_goes_out_and_comes_back(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path / "runs", "demo", tags=["a"])
    other = RunWriter.join(writer.path, 1, 0)
    writer.describe("a/x", unit="m", description="length")
    writer.log({"a/x": math.nan, "step": -0.0, "=n": 2**63 - 1}, 3, {"a/x": {"mean": 0.1}})
    writer.log({"a/x": math.inf, "on": False}, 4)
    other.log({"a/x": 5e-324}, 3)
    other.log_media("note", "text", 3, value="hello")
    other.finish()
    writer.finish()
    for target in ("out", "out", "one.jsonl"):
        (each,) = convert(writer.path, tmp_path / target, target_format="jsonl", verify=True).runs
        assert each.ok, each.to_dict()
        assert each.total("lost") == each.total("lost", "text") == 1
    head, *lines = (tmp_path / "one.jsonl").read_text().splitlines()
    assert json.loads(head)["blackbox"]["run"]["name"] == "demo"
    rows = [json.loads(line) for line in lines]
    assert {row["rank"] for row in rows} == {0, 1}
    assert rows[0] | {"time": 0} == {"step": 3, "time": 0, "rank": 0, "a/x": "NaN", "a/x/mean": 0.1}
    assert [path.suffix for path in (tmp_path / "out").iterdir()] == [".jsonl"]
    (inward,) = convert(tmp_path / "out", tmp_path / "back", verify=True).runs
    run, again = open_run(writer.path), open_run(inward.target)
    assert (again.name, again.tags, again.status) == (run.name, run.tags, run.status)
    assert (again.start, again.end, again.descriptions) == (run.start, run.end, run.descriptions)
    assert [each.ranks for each in again.records()].count({"a/x": {"mean": 0.1}}) == 1


VALUES = st.one_of(st.floats(), st.integers(-(2**63), 2**63 - 1), st.booleans())
NAMES = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=8).filter(
    lambda name: not name.startswith("/") and not name.endswith("/")
)
POINTS = st.tuples(st.integers(-5, 5), st.dictionaries(NAMES, VALUES, min_size=1, max_size=3))


@settings(max_examples=10, deadline=None)
@given(st.lists(POINTS, max_size=6))
def test_any_run_comes_back(
    tmp_path_factory: pytest.TempPathFactory, points: list[tuple[int, dict[str, Any]]]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    with Run("any", log_dir=folder / "runs") as run:
        for step, metrics in points:
            run.log(metrics, step=step)
    (each,) = convert(run.path, folder / "out.jsonl", verify=True).runs
    assert each.ok, each.to_dict()
    assert not each.lossy
