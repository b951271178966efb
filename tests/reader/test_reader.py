"""The same answers for one history, whatever became of its run."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import math
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings

from blackboxml import Run, RunWriter, open_run
from blackboxml.errors import (
    FormatError,
    LimitError,
    ManifestError,
    NotARunError,
    UnsupportedVersionError,
)
from blackboxml.model import Limits
from blackboxml.reader import decoded
from blackboxml.seal import seal
from blackboxml.seal.pack import pack
from blackboxml.validation import validate
from tests import histories
from tests.histories import bits, end, event, header, number, point, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import xarray as xr

    from blackboxml import RunReader
    from blackboxml.model import Record
    from tests.histories import Files

SLOW = settings(deadline=None, suppress_health_check=list(HealthCheck))
VIEWS = ("effective", "all")


# -- what a reader says, in a form that can be compared


def record_answer(record: Record) -> Any:
    return (
        (record.attempt, record.rank, record.seq, record.step, bits(record.time)),
        {name: number(value) for name, value in record.metrics.items()},
        {
            name: {key: number(value) for key, value in said.items()}
            for name, said in record.ranks.items()
        },
    )


def table_answer(reader: RunReader, group: str, view: Any) -> Any:
    return columns_of(reader.arrow(group, view))


def columns_of(table: pa.Table) -> Any:
    return [
        (field.name, str(field.type), field.metadata, list(map(bits, table.column(at).to_pylist())))
        for at, field in enumerate(table.schema)
    ]


def xarray_answer(dataset: xr.Dataset) -> Any:
    return (
        {
            name: (
                str(each.dtype),
                each.dims,
                dict(each.attrs),
                list(map(bits, each.values.tolist())),
            )
            for name, each in dataset.variables.items()
        },
        sorted(dataset.coords),
        dict(dataset.attrs),
    )


def answers(path: Path) -> dict[str, Any]:
    """Return all that a reader says of a history."""
    reader = open_run(path)
    found: dict[str, Any] = {"groups": reader.groups, "metrics": reader.metrics}
    for view in VIEWS:
        found[f"records {view}"] = [record_answer(each) for each in reader.records(view)]
        found[f"summary {view}"] = {
            name: [bits(value) for value in vars_of(said)]
            for name, said in reader.summary(view).items()
        }
        for group in reader.groups:
            found[f"arrow {group} {view}"] = table_answer(reader, group, view)
            found[f"xarray {group} {view}"] = xarray_answer(reader.xarray(group, view))
            for lazy in (False, True):
                frame = reader.polars(group, view, lazy=lazy)
                found[f"polars {group} {view} {lazy}"] = polars_answer(
                    frame.collect() if lazy else frame
                )
            found[f"pandas {group} {view}"] = pandas_answer(reader.pandas(group, view))
    assert [problem for problem in reader.problems if problem.rule != "BB-MAN-014"] == []
    return found


def vars_of(said: Any) -> list[Any]:
    return [getattr(said, name) for name in type(said).__slots__]


def polars_answer(frame: pl.DataFrame) -> Any:
    return [
        (name, str(frame[name].dtype), list(map(bits, frame[name].to_list())))
        for name in frame.columns
    ]


def pandas_answer(frame: pd.DataFrame) -> Any:
    return [
        (
            name,
            str(frame[name].dtype),
            [None if value is pd.NA else bits(value) for value in values],
        )
        for name, values in ((name, frame[name].tolist()) for name in frame.columns)
    ]


def expected_answers(files: Files) -> dict[str, Any]:
    """Return what the specification says of records, groups and tables."""
    expected = histories.expect(files)
    found: dict[str, Any] = {"groups": list(expected.groups())}
    found["metrics"] = [name for names in expected.groups().values() for name in names]
    for view in VIEWS:
        found[f"records {view}"] = [
            (
                (*place, document["step"], bits(float(document["time"]))),
                {name: number(value) for name, value in document["metrics"].items()},
                {
                    name: {key: number(value) for key, value in said.items()}
                    for name, said in document.get("ranks", {}).items()
                },
            )
            for place, document in expected.points(view)
        ]
        for group in expected.groups():
            rows = expected.rows(group, view)
            columns = expected.columns(group)
            index = ["step", "time", "attempt", "rank", "seq"]
            kinds = ["int64", "double", "int32", "int32", "int64"]
            found[f"arrow {group} {view}"] = [
                (name, kind, [bits(row[at]) for row in rows])
                for at, (name, kind) in enumerate(
                    [*zip(index, kinds, strict=True), *((c.name, c.kind) for c in columns)]
                )
            ]
            found[f"summary {view} {group}"] = _summaries(columns, rows)
    return found


def _summaries(columns: list[histories.Column], rows: list[list[Any]]) -> dict[str, Any]:
    found = {}
    for at, column in enumerate(columns, start=5):
        pairs = [(row[0], row[at]) for row in rows if row[at] is not None]
        if column.statistic is not None or not pairs:
            continue
        values = [value for _, value in pairs]
        finite = [value for value in values if math.isfinite(value)]
        last_step = max(step for step, _ in pairs)
        found[column.metric] = [
            *(bits(pick(finite)) if finite else bits(None) for pick in (min, max)),
            bits([value for step, value in pairs if step == last_step][-1]),
            len(values),
            min(step for step, _ in pairs),
            last_step,
            len(values) - len(finite),
        ]
    return found


def assert_as_specified(path: Path, files: Files) -> None:
    reader = open_run(path)
    found = answers(path)
    for name, wanted in expected_answers(files).items():
        if name.startswith("arrow"):
            assert [(each[0], each[1], each[3]) for each in found[name]] == wanted
        elif name.startswith("summary"):
            view = name.split(" ")[1]
            group = name.removeprefix(f"summary {view} ")
            said = {
                metric: [
                    *(zero(bits(getattr(each, key))) for key in ("min", "max")),
                    bits(each.last),
                    *(each.n, each.first_step, each.last_step, each.nonfinite),
                ]
                for metric, each in reader.summary(view).items()
                if histories.group_of(metric) == group
            }
            assert said == {
                metric: [zero(value) for value in values[:2]] + values[2:]
                for metric, values in wanted.items()
            }
        else:
            assert found[name] == wanted


def zero(value: Any) -> Any:
    """Return the least and the greatest of 0.0 and -0.0 as one."""
    return bits(0.0) if value == bits(-0.0) else value


@contextlib.contextmanager
def written(files: Files) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield write(Path(folder, "run"), files)


# -- every state of a run


def assert_same_in_every_state(files: Files) -> None:
    with written(files) as path:
        before = answers(path)
        assert_as_specified(path, files)
        seal(path)
        assert open_run(path).sealed
        assert answers(path) == before
        _check_sums(path)
        for dataset in path.glob("*.h5"):
            dataset.unlink()
        assert answers(path) == before
        tables = {table: table.read_bytes() for table in path.glob("*.parquet")}
        for table in tables:
            table.unlink()
        assert answers(path) == before
        for table, data in tables.items():
            table.write_bytes(data)
        seal(path)
        pack(path)
        assert open_run(path).packed
        assert not [*path.glob("*.jsonl"), *path.glob("*.h5")]
        packed = answers(path)
        assert packed == before
        _check_sums(path)
        shutil.copytree(path, path.with_name("unpacked"))
        seal(path.with_name("unpacked"))
        again = answers(path.with_name("unpacked"))
        assert not open_run(path.with_name("unpacked")).packed
        assert again == before
        _check_sums(path.with_name("unpacked"))


def _check_sums(path: Path) -> None:
    subprocess.run(["sha256sum", "--quiet", "--strict", "-c", "SHA256SUMS"], cwd=path, check=True)
    listed = {line[66:] for line in (path / "SHA256SUMS").read_text("ascii").splitlines()}
    there = {str(each.relative_to(path)) for each in path.rglob("*") if each.is_file()}
    assert listed == there - {"SHA256SUMS"}


@settings(SLOW, max_examples=12)
@given(histories.histories())
@example({"metrics.jsonl": header()})
@example({"metrics.jsonl": header() + event(0, gap={"records": 1, "reason": ""}) + end(1)})
@example({"metrics.jsonl": header() + point(0, {}) + point(1, {}, ranks={})})
@example({"metrics.jsonl": header() + point(0, {"a/b": 1}) + event(1, rewind={"step": 0})})
@example({"metrics.jsonl": header() + point(0, {"a": 1}) + point(1, {"b": True}) + point(2, {})})
@example({"metrics.jsonl": header() + point(0, {}, ranks={"only/ranks": {"mean": 1}})})
@example({"metrics.jsonl": header() + point(0, {"n": 2**53 + 1}) + point(1, {"n": 0.5})})
def test_every_state_of_a_run_gives_the_same_answers(files: Files) -> None:
    assert_same_in_every_state(files)


def rich() -> Files:
    """Return a history with something of everything."""
    first = [
        event(0, describe={"metric": "train/loss", "unit": "nat", "description": "cross entropy"}),
        *(
            point(
                seq,
                {
                    "train/loss": math.nan if seq == 5 else seq / 7,
                    "train/step": seq,
                    "train/ok": seq % 2 == 0,
                    "lr": 1e-3,
                    **({"val/acc": seq, "val/loss": -0.0} if seq % 3 == 0 else {}),
                },
                ranks={"train/loss": {"mean": seq / 3, "min": -math.inf, "count": 4}},
            )
            for seq in range(1, 9)
        ),
        event(9, rewind={"step": 6}),
        point(10, {"train/loss": 0.5, "train/loss/mean": 7, "val/acc": 0.5}, 6),
    ]
    second = [point(0, {"train/loss": 1}, 7), event(1, describe={"metric": "lr", "unit": "1/s"})]
    return {
        "metrics.jsonl": header() + b"".join(first[:8]) + first[8][:20],
        "metrics.1.jsonl": header(first_seq=6) + b"".join(first[6:]) + end(11, "interrupted"),
        "metrics.2.jsonl": header(attempt=1) + b"".join(second) + end(2),
        "metrics.r1.jsonl": header(1) + point(0, {"train/loss": 3, "gpu/1/util": 0.5}, 2) + b"\0\0",
        "metrics.r1.1.jsonl": header(1, 1) + point(0, {"gpu/1/util": 7}, 2),
    }


def test_a_run_with_something_of_everything_gives_the_same_answers_in_every_state() -> None:
    assert_same_in_every_state(rich())


def test_groups_of_every_odd_name_give_the_same_answers_in_every_state(tmp_path: Path) -> None:
    groups = ["Val", "val", "metrics", "con", "😀", "g" * 64, "g" * 65, "config", "a.b", "-a"]
    groups += ["..", "x-0123abcd", "", "é", "e\u0301"]
    groups += ["*", "\\", "nul.txt", "h" * 1000]
    lines = [point(seq, {f"{group}/m" if group else "m": seq}) for seq, group in enumerate(groups)]
    files = {"metrics.jsonl": header() + b"".join(lines) + end(len(lines))}
    assert_same_in_every_state(files)
    path = write(tmp_path / "run", files)
    seal(path)
    names = [each.name.lower() for each in path.iterdir()]
    assert len(set(names)) == len(names)
    assert len(list(path.glob("*.parquet"))) == len(list(path.glob("*.h5"))) == len(groups)


def test_metrics_that_collide_as_columns_or_variables_give_the_same_answers() -> None:
    names = ["step", "step_", "time", "draw", "seq", "rank", "attempt", "step/mean", "a", "a/mean"]
    names += ["a/ranks/mean", "a.mean", "a.ranks.mean", ".a", " a", "a ", "%61", "a%2Fmean", "."]
    names += ["e\u0301", "é", "a" * 900]
    metrics = {f"g/{name}": number for number, name in enumerate(names)}
    ranks = {name: dict.fromkeys(histories.STATISTICS, 1) for name in metrics}
    lines = [point(0, metrics, ranks=ranks), point(1, dict(reversed(metrics.items())))]
    assert_same_in_every_state({"metrics.jsonl": header() + b"".join(lines)})


def test_a_live_run_gives_the_same_answers_as_a_crashed_one(tmp_path: Path) -> None:
    crashed = write(tmp_path / "crashed", rich())
    files = {}
    for name, data in rich().items():
        lines = data.split(b"\n")
        document = json.loads(lines[0])
        document.pop("crc")
        document["process"] = histories.live_process()
        files[name] = histories.line(document) + b"\n".join(lines[1:])
    files["metrics.2.jsonl"] = files["metrics.2.jsonl"].removesuffix(end(2))
    live = write(tmp_path / "live", files)
    assert open_run(live).status == "running"
    assert answers(live) == answers(crashed)


def test_what_a_writer_wrote_is_what_is_read_in_every_state(tmp_path: Path) -> None:
    with RunWriter_of(tmp_path) as (writer, other):
        wanted = []
        for step in range(20):
            metrics = {"train/loss": step / 7, "train/n": step, "val/x": math.inf}
            writer.log(metrics)
            wanted.append((0, step, metrics))
        writer.rewind(15)
        del wanted[15:]
        other.log({"gpu/util": True}, 3)
        wanted.append((1, 3, {"gpu/util": True}))
        writer.log({"train/loss": 0.25})
        wanted.insert(15, (0, 15, {"train/loss": 0.25}))
        live = answers(writer.path)
    assert [(r.rank, r.step, r.metrics) for r in open_run(writer.path).records()] == wanted
    assert answers(writer.path) == live
    seal(writer.path)
    assert answers(writer.path) == live
    pack(writer.path)
    assert answers(writer.path) == live
    seal(writer.path)
    assert answers(writer.path) == live


@contextlib.contextmanager
def RunWriter_of(folder: Path) -> Iterator[tuple[RunWriter, RunWriter]]:  # noqa: N802
    writer = RunWriter.create(folder, "both")
    other = RunWriter.join(writer.path, 1, 0)
    yield writer, other
    other.finish()
    writer.finish()


# -- the interfaces


def test_a_packed_run_keeps_the_type_of_an_integer_that_its_column_rounds(tmp_path: Path) -> None:
    path = write(
        tmp_path / "run",
        {"metrics.jsonl": header() + point(0, {"n": 2**53 + 1}) + point(1, {"n": 0.5})},
    )
    pack(path)
    assert [each.metrics["n"] for each in open_run(path).records()] == [2**53 + 1, 0.5]
    assert open_run(path).arrow()["n"].to_pylist() == [2.0**53, 0.5]


def test_columns_choose_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "run", rich())
    for _ in range(2):
        reader = open_run(path)
        assert reader.arrow("train", columns=["ok", "step"]).column_names == ["ok", "step"]
        assert reader.arrow("train", columns=[]).column_names == []
        whole = reader.arrow("train")
        for name in whole.column_names:
            column = reader.arrow("train", columns=[name]).column(name)
            assert list(map(bits, column.to_pylist())) == list(map(bits, whole[name].to_pylist()))
        with pytest.raises(KeyError, match=r"no column 'nope'.*'loss'"):
            reader.arrow("train", columns=["loss", "nope"])
        with pytest.raises(KeyError, match="no column 'los'"):
            reader.arrow("train", columns=["los"])
        seal(path)


def test_a_column_whose_name_begins_like_another_is_another(tmp_path: Path) -> None:
    data = header() + point(0, {"g/a": 1, "g/a.b": 2, "g/a/b": 3, "g/a.b.c": 4})
    path = write(tmp_path / "run", {"metrics.jsonl": data})
    seal(path)
    reader = open_run(path)
    for name, value in [("a", 1), ("a.b", 2), ("a/b", 3), ("a.b.c", 4)]:
        assert reader.arrow("g", columns=[name]).to_pydict() == {name: [value]}
    with pytest.raises(KeyError, match="no column 'b'"):
        reader.arrow("g", columns=["b"])


def test_a_group_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "run", rich())
    for _ in range(2):
        reader = open_run(path)
        for read in (reader.arrow, reader.polars, reader.pandas, reader.xarray):
            with pytest.raises(KeyError, match=r"no group 'nope'.*'train'"):
                read("nope")
            with pytest.raises(KeyError, match="say which one"):
                read()
        seal(path)


def test_the_one_group_need_not_be_named(tmp_path: Path) -> None:
    path = write(tmp_path / "run", {"metrics.jsonl": header() + point(0, {"x/a": 1})})
    assert open_run(path).arrow().column("a").to_pylist() == [1]


def test_an_empty_run_has_no_group(tmp_path: Path) -> None:
    path = write(tmp_path / "run", {"metrics.jsonl": header()})
    for act in (seal, pack, seal):
        reader = open_run(path)
        assert reader.groups == reader.metrics == list(reader.records()) == []
        assert reader.summary() == {}
        with pytest.raises(KeyError):
            reader.arrow()
        act(path)
    assert open_run(path).groups == []


@pytest.mark.parametrize("view", ["", "Effective", None, 1])
def test_a_view_that_is_none_is_refused_at_the_call(tmp_path: Path, view: Any) -> None:
    reader = open_run(write(tmp_path / "run", rich()))
    for read in (reader.records, reader.summary):
        with pytest.raises(ValueError, match="view"):
            read(view)
    for read_group in (reader.arrow, reader.polars, reader.pandas, reader.xarray):
        with pytest.raises(ValueError, match="view"):
            read_group("train", view)
    with pytest.raises(ValueError, match="view"):
        reader.polars("train", view, lazy=True)


def test_a_lazy_frame_reads_the_table_where_it_may_and_the_view_where_it_must(
    tmp_path: Path,
) -> None:
    path = write(tmp_path / "run", rich())
    seal(path)
    reader = open_run(path)
    for view in VIEWS:
        for group in reader.groups:
            lazy = reader.polars(group, view, lazy=True)
            assert isinstance(lazy, pl.LazyFrame)
            assert lazy.select("step").collect()["step"].to_list() == (
                reader.arrow(group, view)["step"].to_pylist()
            )
    assert reader.arrow("train").num_rows < reader.arrow("train", "all").num_rows


def test_pandas_rounds_no_integer_of_a_column_with_gaps(tmp_path: Path) -> None:
    data = header() + point(0, {"n": 2**63 - 1, "b": True}) + point(1, {"n": -(2**63)})
    frame = open_run(
        write(tmp_path / "run", {"metrics.jsonl": data + point(2, {"b": False})})
    ).pandas()
    assert frame["n"].tolist() == [2**63 - 1, -(2**63), pd.NA]
    assert str(frame["n"].dtype) == "Int64"
    assert str(frame["b"].dtype) == "boolean"


def test_summaries_have_the_mean_and_the_deviation_of_finite_values(tmp_path: Path) -> None:
    values = [1.0, math.nan, 4.0, math.inf, -2.0]
    lines = [point(seq, {"a": value}, 9 - seq) for seq, value in enumerate(values)]
    path = write(tmp_path / "run", {"metrics.jsonl": header() + b"".join(lines)})
    said = open_run(path).summary()["a"]
    assert (said.min, said.max, said.mean) == (-2.0, 4.0, 1.0)
    assert said.std == pytest.approx(np.std([1.0, 4.0, -2.0]))
    assert (said.last, said.n, said.nonfinite) == (1.0, 5, 2)
    assert (said.first_step, said.last_step) == (5, 9)


def test_summaries_of_huge_values_warn_nobody(tmp_path: Path) -> None:
    data = header() + point(0, {"a": 1.7e308, "n": 2**63 - 1}) + point(1, {"a": 1.7e308, "n": 3})
    said = open_run(write(tmp_path / "run", {"metrics.jsonl": data})).summary()
    assert said["a"].max == 1.7e308
    assert said["n"].max == 2**63 - 1


# -- damage to what is sealed


def test_a_damaged_table_is_read_from_the_journal_and_reported(tmp_path: Path) -> None:
    path = write(tmp_path / "run", rich())
    before = answers(path)
    seal(path)
    table = path / "train.parquet"
    data = bytearray(table.read_bytes())
    for place in (4, len(data) // 2, len(data) - 20):
        damaged = bytearray(data)
        damaged[place] ^= 0x40
        table.write_bytes(damaged)
        reader = open_run(path)
        found = [table_answer(reader, "train", view) for view in VIEWS]
        assert found == [before[f"arrow train {view}"] for view in VIEWS]
        if reader.problems:
            assert [problem.file for problem in reader.problems] == ["train.parquet"]
    table.write_bytes(data[:-1])
    reader = open_run(path)
    assert not reader.sealed
    assert table_answer(reader, "train", "all") == before["arrow train all"]


@pytest.mark.rule("BB-INT-011", "BB-TAB-012")
def test_every_flipped_byte_of_a_table_is_found_or_does_no_harm(tmp_path: Path) -> None:
    files = {
        "metrics.jsonl": header() + point(0, {"a": 1.5, "n": 3}) + point(1, {"a": 2.5, "b": True})
    }
    path = write(tmp_path / "run", files)
    seal(path)
    before = table_answer(open_run(path), "", "all")
    table = path / "metrics.parquet"
    data = table.read_bytes()
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    for place in range(footer):
        table.write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        assert table_answer(open_run(path), "", "all") == before


@pytest.mark.rule("BB-TAB-002")
def test_a_table_that_the_manifest_does_not_list_is_ignored(tmp_path: Path) -> None:
    path = write(tmp_path / "run", rich())
    seal(path)
    shutil.copy(path / "train.parquet", path / "other.parquet")
    assert "other" not in open_run(path).groups
    manifest = json.loads((path / "run.json").read_bytes())
    for key in ("sealed", "groups", "journals", "files"):
        del manifest[key]
    (path / "run.json").write_text(json.dumps(manifest), "utf-8")
    (path / "train.parquet").write_bytes(b"nonsense")
    assert answers(path) == answers(write(tmp_path / "other", rich()))
    assert not open_run(path).sealed


@pytest.mark.rule("BB-SEA-007")
def test_tables_do_not_stand_for_journals_that_grew(tmp_path: Path) -> None:
    files = {"metrics.jsonl": header() + point(0, {"a": 1})}
    path = write(tmp_path / "run", files)
    seal(path)
    with (path / "metrics.jsonl").open("ab") as journal:
        journal.write(point(1, {"a": 2}))
    assert open_run(path).arrow()["a"].to_pylist() == [1, 2]
    path = write(tmp_path / "other", files)
    seal(path)
    (path / "metrics.1.jsonl").write_bytes(header(attempt=1) + point(0, {"a": 3}))
    reader = open_run(path)
    assert reader.arrow()["a"].to_pylist() == [1, 3]
    assert [each.metrics["a"] for each in reader.records()] == [1, 3]


def test_a_sealed_run_whose_journals_are_gone_is_read_from_its_tables(tmp_path: Path) -> None:
    path = write(tmp_path / "run", rich())
    before = answers(path)
    seal(path)
    for journal in path.glob("*.jsonl"):
        journal.unlink()
    reader = open_run(path)
    assert table_answer(reader, "train", "effective") == before["arrow train effective"]
    assert reader.summary() == open_run(path).summary()
    assert [record_answer(each) for each in reader.records()] == before["records effective"]


# -- damage to the manifest


def test_a_manifest_cut_at_any_byte_costs_only_what_journals_do_not_hold(tmp_path: Path) -> None:
    files = {"metrics.jsonl": header() + point(0, {"a": 1.5}) + end(1)}
    path = write(tmp_path / "run", files)
    seal(path)
    data = (path / "run.json").read_bytes()
    for length in range(len(data) - 2):
        (path / "run.json").write_bytes(data[:length])
        reader = open_run(path)
        assert (reader.id, reader.name) == (histories.RUN_ID, histories.RUN_NAME)
        if length % 50 == 0:
            assert reader.status == "completed"
            assert [record.metrics for record in reader.records()] == [{"a": 1.5}]
        assert [problem.rule for problem in reader.problems] == ["BB-MAN-001"]


@pytest.mark.parametrize(
    "data",
    [
        None,
        b"",
        b"\x00" * 500,
        b"{}",
        b"[]",
        b"null",
        b'"x"',
        b"\xff",
        b'{"format":{}}',
        b"{" * 10**5,
        b'{"a":1,"a":1}',
        b"\xef\xbb\xbf{}",
        b'{"format":{"name":"other-tool"},"id":1}',
    ],
)
def test_a_run_without_a_usable_manifest_opens_from_its_journals(
    tmp_path: Path, data: bytes | None
) -> None:
    path = write(tmp_path / "run", rich())
    before = answers_without_manifest(path)
    seal(path)
    if data is None:
        (path / "run.json").unlink()
    else:
        (path / "run.json").write_bytes(data)
    assert answers_without_manifest(path) == before
    reader = open_run(path)
    assert [each["status"] for each in reader.manifest["attempts"]] == ["interrupted", "completed"]
    assert reader.start.timestamp() == histories.TIME - 1
    assert reader.end is not None
    assert reader.end.timestamp() == histories.TIME + 2


def answers_without_manifest(path: Path) -> list[Any]:
    reader = open_run(path)
    return [
        *([record_answer(each) for each in reader.records(view)] for view in VIEWS),
        *(table_answer(reader, group, "effective") for group in reader.groups),
        (reader.id, reader.name, reader.status, reader.metrics),
    ]


@pytest.mark.rule("BB-MAN-015")
def test_the_usable_members_of_a_damaged_manifest_are_used(tmp_path: Path) -> None:
    path = write(tmp_path / "run", rich())
    seal(path)
    manifest = json.loads((path / "run.json").read_bytes())
    manifest |= {"tags": ["kept"], "environment": {"gpu": "x"}, "start": 3, "attempts": None}
    (path / "run.json").write_text(json.dumps(manifest), "utf-8")
    reader = open_run(path)
    assert reader.tags == ["kept"]
    assert reader.manifest["environment"] == {"gpu": "x"}
    assert reader.start.timestamp() == histories.TIME - 1
    assert reader.sealed
    assert [problem.rule for problem in reader.problems] == ["BB-MAN-001"]


def test_a_rebuilt_run_ends_as_its_last_attempt_did(tmp_path: Path) -> None:
    files = {
        "metrics.jsonl": header() + point(0, {"a": 1}) + end(1, "failed", exception=FAILURE),
        "metrics.1.jsonl": header(attempt=1) + point(0, {"a": 2}),
    }
    reader = open_run(write(tmp_path / "run", files))
    assert reader.manifest["status"] == "running"
    assert "exception" not in reader.manifest
    assert "exception" in reader.manifest["attempts"][0]
    assert reader.end is None
    assert reader.status == "crashed"


FAILURE = {"type": "ValueError", "message": "bad batch"}


def test_times_beyond_the_calendar_do_not_hide_a_run(tmp_path: Path) -> None:
    for number_, time in enumerate((1e300, -1e300, 1e15, -1e12)):
        data = header(time=time) + point(0, {"a": 1}, time=time)
        path = write(tmp_path / str(number_), {"metrics.jsonl": data})
        assert open_run(path).start.tzinfo is not None
        seal(path)
        assert open_run(path).arrow()["time"].to_pylist() == [time]


def test_a_manifest_of_another_run_counts_as_absent(tmp_path: Path) -> None:
    path = write(tmp_path / "run", rich())
    seal(path)
    other = write(
        tmp_path / "other", {"metrics.jsonl": header(run_id="f" * 32) + point(0, {"z": 1})}
    )
    shutil.copy(path / "run.json", other / "run.json")
    reader = open_run(other)
    assert reader.id == "f" * 32
    assert reader.metrics == ["z"]
    assert [problem.rule for problem in reader.problems] == ["BB-MAN-013"]


@pytest.mark.rule("BB-VER-005")
def test_a_manifest_of_a_later_major_version_refuses_the_run(tmp_path: Path) -> None:
    path = write(tmp_path / "run", rich())
    seal(path)
    manifest = json.loads((path / "run.json").read_bytes())
    manifest["format"]["version"] = "2.0"
    (path / "run.json").write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(UnsupportedVersionError, match=r"2\.0"):
        open_run(path)
    manifest["format"] = {"name": "blackbox-run", "version": "1.9", "features": ["later"]}
    (path / "run.json").write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(UnsupportedVersionError, match="later"):
        open_run(path)
    manifest["format"]["features"] = []
    (path / "run.json").write_text(json.dumps(manifest | {"org.example": 1}), "utf-8")
    assert open_run(path).sealed


@pytest.mark.rule("BB-LAY-004")
def test_what_is_no_run_is_called_so(tmp_path: Path) -> None:
    with pytest.raises(NotARunError):
        open_run(tmp_path / "nothing")
    with pytest.raises(NotARunError):
        open_run(write(tmp_path / "empty", {}))
    with pytest.raises(NotARunError):
        open_run(write(tmp_path / "foreign", {"run.json": b'{"format": "other"}'}))
    with pytest.raises(ManifestError):
        open_run(write(tmp_path / "damaged", {"run.json": b"{"}))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotARunError):
        open_run(tmp_path / "file")


@pytest.mark.rule("BB-LAY-003")
def test_a_run_opens_by_the_path_of_its_manifest_and_after_it_was_moved(tmp_path: Path) -> None:
    path = write(tmp_path / "run", rich())
    seal(path)
    reader = open_run(path / "run.json")
    path.rename(tmp_path / "moved")
    assert reader.groups
    assert open_run(tmp_path / "moved").arrow("train").num_rows


def test_a_table_larger_than_the_limit_is_refused_and_read_lazily(tmp_path: Path) -> None:
    path = write(tmp_path / "run", rich())
    for _ in range(2):
        reader = open_run(path, Limits(table_bytes=100))
        with pytest.raises(LimitError, match="table_bytes"):
            reader.arrow("train", "all")
        assert list(reader.records())
        seal(path)
    assert open_run(path, Limits(table_bytes=100)).polars("gpu", "all", lazy=True).collect().height


# -- following


WRITER = """
import sys
from blackboxml import RunWriter
writer = path = None
for line in sys.stdin:
    verb, _, rest = line.strip().partition(" ")
    if verb == "create":
        writer = RunWriter.create(rest, "live")
        path = writer.path
    elif verb == "log":
        writer.log({"train/loss": float(rest)})
    elif verb == "continue":
        recorder = writer._recorder
        with recorder._lock:
            recorder._reopen()
    elif verb == "finish":
        writer.finish()
    elif verb == "resume":
        writer = RunWriter.resume(path)
    print(path, flush=True)
"""


class Live:
    """A process that writes a run, step by step."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", WRITER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def do(self, *words: object) -> Path:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        return Path(self._process.stdout.readline().strip())

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()


def test_following_gives_each_point_once_and_in_order_until_the_run_ends(tmp_path: Path) -> None:
    with Live() as live:
        path = live.do("create", tmp_path)
        for value in range(3):
            live.do("log", value)
        follower = open_run(path).follow(from_start=True, poll=0.001)
        found = [next(follower).metrics["train/loss"] for _ in range(3)]
        live.do("continue")
        for value in range(3, 6):
            live.do("log", value)
            found.append(next(follower).metrics["train/loss"])
        assert len(list(path.glob("metrics*.jsonl"))) == 2
        live.do("log", 6)
        live.do("finish")
        found += [each.metrics["train/loss"] for each in follower]
    assert found == list(range(7))


def test_following_a_resumed_run_gives_all_of_it(tmp_path: Path) -> None:
    with Live() as live:
        path = live.do("create", tmp_path)
        live.do("log", 0)
        live.do("finish")
        live.do("resume")
        live.do("log", 1)
        follower = open_run(path).follow(from_start=True, poll=0.001)
        found = [next(follower), next(follower)]
        live.do("log", 2)
        found.append(next(follower))
        live.do("finish")
        found += follower
    assert [(each.attempt, each.seq, each.step) for each in found] == [
        (0, 0, 0),
        (1, 0, 1),
        (1, 1, 2),
    ]


def test_following_from_now_leaves_out_what_is_there(tmp_path: Path) -> None:
    with Live() as live:
        path = live.do("create", tmp_path)
        live.do("log", 0)
        reader = open_run(path)
        follower = reader.follow(poll=0.001, timeout=0)
        assert list(follower) == []
        ready = threading.Event()
        found: list[float] = []

        def follow() -> None:
            for record in reader.follow(poll=0.001):
                found.append(record.metrics["train/loss"])
                ready.set()

        thread = threading.Thread(target=follow)
        thread.start()
        value = 1
        while not ready.wait(0.01):
            live.do("log", value)
            value += 1
        live.do("log", value)
        live.do("finish")
        thread.join()
    assert found == list(range(int(found[0]), value + 1))
    assert found[0] >= 1


def test_following_ends_when_the_writer_is_killed(tmp_path: Path) -> None:
    live = Live()
    path = live.do("create", tmp_path)
    live.do("log", 0)
    follower = open_run(path).follow(from_start=True, poll=0.001)
    assert next(follower).seq == 0
    live.kill()
    assert list(follower) == []
    assert open_run(path).status == "crashed"


def test_following_an_ended_run_from_its_start_gives_it_in_every_state(tmp_path: Path) -> None:
    path = write(tmp_path / "run", rich())
    wanted = [record_answer(each) for each in open_run(path).records("all")]
    for act in (seal, pack, seal):
        found = [record_answer(each) for each in open_run(path).follow(from_start=True)]
        assert sorted(found, key=repr) == sorted(wanted, key=repr)
        assert list(open_run(path).follow()) == []
        act(path)


@pytest.mark.rule("BB-VER-004")
def test_reading_changes_nothing_in_the_directory(tmp_path: Path) -> None:
    path = write(tmp_path / "run", rich())
    for act in (seal, pack, seal):
        before = {
            each.name: (each.read_bytes(), each.stat().st_mtime_ns) for each in path.iterdir()
        }
        names = os.stat(path).st_mtime_ns
        answers(path)
        assert os.stat(path).st_mtime_ns == names
        assert before == {
            each.name: (each.read_bytes(), each.stat().st_mtime_ns) for each in path.iterdir()
        }
        act(path)


def test_readers_in_many_processes_agree(tmp_path: Path) -> None:
    path = write(tmp_path / "run", rich())
    seal(path)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(_rows, [path] * 4) == [open_run(path).arrow("train").num_rows] * 4


def _rows(path: Path) -> int:
    return int(open_run(path).arrow("train").num_rows)


@pytest.mark.rule("BB-SEA-008")
def test_a_record_lost_from_a_sealed_journal_is_taken_from_its_table(tmp_path: Path) -> None:
    path = write(tmp_path / "run", rich())
    before = [[record_answer(each) for each in open_run(path).records(view)] for view in VIEWS]
    seal(path)
    journal = path / "metrics.1.jsonl"
    data = journal.read_bytes()
    journal.write_bytes(data.replace(b'"train/ok"', b'"train/OK"', 1))
    for name in ("metrics.1.jsonl", "metrics.r1.jsonl"):
        reader = open_run(path)
        assert [[record_answer(each) for each in reader.records(view)] for view in VIEWS] == before
        (path / name).unlink()


def test_a_sealed_journal_that_lost_its_end_is_healed_from_the_tables(tmp_path: Path) -> None:
    lines = [point(seq, {"train/loss": seq / 4}) for seq in range(8)]
    path = write(tmp_path / "run", {"metrics.jsonl": header() + b"".join(lines) + end(8)})
    seal(path)
    whole = open_run(path)
    wanted = (list(whole.records("all")), whole.arrow("train"), whole.summary())
    journal = path / "metrics.jsonl"
    journal.write_bytes(journal.read_bytes()[: -len(lines[7] + end(8))])
    reader = open_run(path)
    assert (list(reader.records("all")), reader.arrow("train"), reader.summary()) == wanted
    assert [problem.rule for problem in reader.problems] == ["BB-INT-009"]


def test_pieces_of_a_group_are_its_table(tmp_path: Path) -> None:
    path = write(tmp_path / "run", rich())

    def check() -> None:
        reader = open_run(path)
        for group, view in itertools.product(reader.groups, VIEWS):
            pieces = pa.concat_tables(reader.pieces(group, view))
            assert columns_of(pieces) == table_answer(reader, group, view)

    check()
    seal(path)
    check()
    table = path / "train.parquet"
    data = bytearray(table.read_bytes())
    data[4:40] = bytes(36)
    table.write_bytes(data)
    check()
    reader = open_run(path)
    list(reader.pieces("train"))
    assert reader.problems


def test_descriptions_are_those_of_the_run(tmp_path: Path) -> None:
    said = event(0, describe={"metric": "train/loss", "unit": "nat"})
    lines = said + point(1, {"train/loss": 1.0, "lr": 0.5}) + end(2)
    path = write(tmp_path / "run", {"metrics.jsonl": header() + lines})
    assert open_run(path).descriptions == {"train/loss": {"unit": "nat"}}
    seal(path)
    assert open_run(path).descriptions == {"train/loss": {"unit": "nat"}}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"train/loss", b"train/lass"),
        (b"blackbox.metric", b"blackbox.metrik"),
        (b"blackbox.statistic", b"blackbox.statistik"),
        (b"mean", b"moan"),
    ],
)
def test_a_damaged_label_renames_no_metric(
    tmp_path: Path, old: bytes, new: bytes, *, packed: bool
) -> None:
    ranks = {"train/loss": {"mean": 0.5, "count": 2}}
    lines = point(0, {"train/loss": 1.0, "train/x": 2}, ranks=ranks) + end(1)
    path = write(tmp_path / "run", {"metrics.jsonl": header() + lines})
    (pack if packed else seal)(path)
    wanted = open_run(path)
    tables = [wanted.arrow("train"), wanted.arrow("train", columns=["loss/count"])]
    summary, records = wanted.summary(), list(wanted.records())
    relabel(path / "train.parquet", old, new)
    reader = open_run(path)
    again = [reader.arrow("train"), reader.arrow("train", columns=["loss/count"])]
    for table, other in zip(tables, again, strict=True):
        assert [field.metadata for field in table.schema] == [
            field.metadata for field in other.schema
        ]
        assert table.equals(other)
    assert (reader.summary(), list(reader.records())) == (summary, records)
    assert {problem.rule for problem in reader.problems} == {"BB-TAB-009"}
    reader = open_run(path)
    (piece,) = reader.pieces("train")
    assert [field.metadata for field in piece.schema] == [
        field.metadata for field in tables[0].schema
    ]
    assert {problem.rule for problem in reader.problems} == {"BB-TAB-009"}


def relabel(path: Path, old: bytes, new: bytes) -> None:
    """Change the labels of the columns of a table by a byte, and nothing else."""
    data = path.read_bytes()
    (schema,) = re.findall(rb"[A-Za-z0-9+/]{500,}=*", data)
    changed = base64.b64decode(schema).replace(old, new)
    assert changed != base64.b64decode(schema)
    path.write_bytes(data.replace(schema, base64.b64encode(changed)))


@pytest.mark.parametrize("how", [None, seal, pack])
def test_a_metric_that_has_only_statistics_of_a_later_version_is_there(
    tmp_path: Path, how: Callable[[Path], object] | None
) -> None:
    lines = point(0, {"train/loss": 1.0}) + point(1, {}, ranks={"train/new": {"p99": 2.0}})
    both = point(2, {"train/loss": 2.0}, ranks={"train/new": {"p99": 2.0, "mean": 1.0}})
    for name, records in (("without", lines + end(2)), ("with", lines + both + end(3))):
        path = write(tmp_path / name, {"metrics.jsonl": header() + records})
        if how is not None:
            how(path)
        reader = open_run(path)
        assert reader.metrics == ["train/loss", "train/new"]
        table = reader.arrow("train")
        assert table["seq"].to_pylist()[:2] == [0, 1]
        assert str(table.schema.field("new").type) == "double"
        assert table["new"].null_count == len(table)
        assert ("new/mean" in table.column_names) == (name == "with")
        assert {problem.rule for problem in reader.problems} <= {"BB-MAN-014"}
        assert [record.seq for record in reader.records()] == table["seq"].to_pylist()
        if how is not None:
            assert validate(path).verdict == "valid"
            seal(path)
            assert b'{"p99":2.0}' in (path / "metrics.jsonl").read_bytes()


# -- more than is kept in memory


def test_what_is_too_large_to_be_kept_is_read_again_piece_by_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "run", rich())
    wanted = answers(path)
    monkeypatch.setattr(decoded, "KEPT_BYTES", 0)
    assert answers(path) == wanted
    monkeypatch.setattr(decoded, "_PIECE_BYTES", 0)
    reader = open_run(path)
    assert reader._decode().parts is None
    for group in reader.groups:
        for view in VIEWS:
            pieces = pl.concat(map(pl.DataFrame, reader.pieces(group, view)))
            assert pieces.equals(reader.polars(group, view))


def test_a_journal_that_changes_between_two_readings_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "run", rich())
    monkeypatch.setattr(decoded, "KEPT_BYTES", 0)
    reader = open_run(path)
    groups = reader.groups
    journal = max(path.glob("metrics*.jsonl"), key=lambda file: file.stat().st_size)
    data = journal.read_bytes()
    pieces = reader._decode().pieces(reader._identity(), groups[0])
    journal.write_bytes(data[: len(data) // 2])
    with pytest.raises(FormatError, match="has changed while it was read; open the run again"):
        list(pieces)


def test_a_live_run_that_grows_between_two_readings_is_read_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoded, "KEPT_BYTES", 0)
    with Run("live", log_dir=tmp_path, environment=()) as run:
        run.log({"loss": 1.0})
        reader = open_run(run.path)
        pieces = reader._decode().pieces(reader._identity(), "")
        run.log({"loss": 2.0, "more": 3.0})
        assert [each["loss"].to_pylist() for each in pieces] == [[1.0]]
        assert reader.summary()["loss"].n == 2


def test_a_run_that_is_packed_as_it_is_followed_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from blackboxml.reader import following

    with Run("r", log_dir=tmp_path) as run:
        run.log({"a": 1.0})
    reader = open_run(run.path)
    genuine = following.Follower._journals

    def late(self: Any) -> Any:
        found = genuine(self)
        pack(run.path)
        return found

    monkeypatch.setattr(following.Follower, "_journals", late)
    assert list(reader.follow(timeout=0)) == []
    assert len(list(open_run(run.path).records())) == 1
