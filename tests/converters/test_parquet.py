"""Parquet: tables of others in, whole runs out and back."""

from __future__ import annotations

import datetime as dt
import decimal
import math
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from blackboxml import Run, open_run, validate
from blackboxml.conversion import convert
from blackboxml.converters import parquet as converter
from blackboxml.writer import RunWriter

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_table_of_any_types(tmp_path: Path) -> None:
    when = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    table = pa.table(
        {
            "Step": pa.array([1, 2, None], pa.uint8()),
            "timestamp": pa.array([when, None, when], pa.timestamp("us", "UTC")),
            "half": pa.array([np.float16(0.1), np.float16("nan"), None], pa.float16()),
            "single": pa.array([0.1, None, 1], pa.float32()),
            "ok": [True, False, None],
            "huge": pa.array([2**64 - 1, 5, None], pa.uint64()),
            "label": pa.array(["a", None, "b"]).dictionary_encode(),
            "vector": [[1.0, 2.5], None, []],
            "nested": [{"a": [{"b": 1}]}, None, None],
            "exact": pa.array([decimal.Decimal("0.1"), None, None]),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    (report,) = convert(tmp_path / "a.parquet", tmp_path / "runs", verify=True).runs
    assert (report.source_format, report.ok) == ("parquet", True), report.to_dict()
    assert report.total("unreadable", "step") == 1
    run = open_run(report.target)
    assert validate(run.path).problems == []
    first, second = run.records()
    assert first.time == when.timestamp()
    assert first.metrics == {
        "half": float(np.float16(0.1)),
        "single": float(np.float32(0.1)),
        "ok": True,
    }
    assert math.isnan(second.metrics.pop("half"))
    assert second.metrics == {"ok": False, "huge": 5}
    media = {each.name: each for each in run.media()}
    assert {name: each.kind for name, each in media.items()} == {
        "huge": "event",
        "label": "text",
        "vector": "array",
        "nested": "event",
        "exact": "text",
    }


def test_the_tables_of_a_run_and_tables_without_steps_are_left_alone(tmp_path: Path) -> None:
    with Run("demo", log_dir=tmp_path) as run:
        run.log({"a/b": 1})
    found = list(run.path.glob("*.parquet"))
    assert [converter.recognise(path) for path in found] == [False]
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    assert not converter.recognise(tmp_path / "a.parquet")


def test_damage_costs_no_more_than_it_hit(tmp_path: Path) -> None:
    values = np.random.default_rng(1).random(4000)
    table = pa.table({"step": range(4000), "x": values})
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, row_group_size=1000, compression="zstd", use_dictionary=False)
    data = bytearray(path.read_bytes())
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(1)
    start = chunk.data_page_offset
    data[start : start + chunk.total_compressed_size] = random.Random(1).randbytes(
        chunk.total_compressed_size
    )
    path.write_bytes(data)
    (report,) = convert(path, tmp_path / "runs").runs
    assert report.ok
    assert report.total("unreadable", "step") == 1000
    (table,) = open_run(report.target).pieces()
    assert table["x"].to_pylist() == [*values[:1000], *values[2000:]]


def test_a_run_goes_out_and_comes_back(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path / "runs", "demo", tags=["a"])
    other = RunWriter.join(writer.path, 1, 0)
    writer.describe("a/x", unit="m", description="length")
    writer.log({"a/x": math.nan, "step": -0.0, "n": 2**63 - 1}, 3, {"a/x": {"mean": 0.1}})
    writer.log({"a/x": math.inf, "on": False}, 4)
    other.log({"a/x": 5e-324}, 3)
    other.log_media("note", "text", 3, value="hello")
    other.finish()
    writer.finish()
    for target in ("out", "out", "one.parquet", "one.parquet"):
        (each,) = convert(writer.path, tmp_path / target, target_format="parquet", verify=True).runs
        assert each.ok, each.to_dict()
        assert each.total("lost") == each.total("lost", "text") == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == [writer.path.name]
    table = pq.read_table(tmp_path / "out" / writer.path.name / "a.parquet")
    assert table.column_names == ["step", "time", "rank", "a/x", "a/x/mean"]
    assert table.schema.field("a/x").metadata == {b"unit": b"m", b"description": b"length"}
    (inward,) = convert(tmp_path / "out", tmp_path / "back", verify=True).runs
    run, again = open_run(writer.path), open_run(inward.target)
    assert (again.name, again.tags, again.status) == (run.name, run.tags, run.status)
    assert (again.start, again.end, again.descriptions) == (run.start, run.end, run.descriptions)


def test_files_of_two_runs_in_one_folder_stay_apart(tmp_path: Path) -> None:
    for name in ("x", "y"):
        with Run(name, log_dir=tmp_path / "runs") as run:
            run.log({"a/b": 1, "c": 2})
        for copy in "12":
            assert convert(run.path, tmp_path / "out" / f"{name}{copy}.parquet").ok
    reports = convert(tmp_path / "out", tmp_path / "back").runs
    assert [(each.went_out["scalar"], each.source_format) for each in reports] == [
        (2, "parquet")
    ] * 4


VALUES = st.one_of(st.floats(), st.integers(-(2**63), 2**63 - 1), st.booleans())
NAMES = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=8).filter(
    lambda name: not name.startswith("/") and not name.endswith("/")
)
POINTS = st.tuples(st.integers(-5, 5), st.dictionaries(NAMES, VALUES, min_size=1, max_size=3))


@settings(max_examples=8, deadline=None)
@given(st.lists(POINTS, max_size=6), st.sampled_from(["out", "out.parquet"]))
def test_any_run_comes_back(
    tmp_path_factory: pytest.TempPathFactory, points: list[tuple[int, dict[str, Any]]], target: str
) -> None:
    folder = tmp_path_factory.mktemp("any")
    with Run("any", log_dir=folder / "runs") as run:
        for step, metrics in points:
            run.log(metrics, step=step)
    (each,) = convert(run.path, folder / target, target_format="parquet", verify=True).runs
    assert each.ok, each.to_dict()
    assert not each.lossy
