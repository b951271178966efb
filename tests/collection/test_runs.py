"""`scan_runs`: a row a run, and a column for all that it was configured with and logged last."""

from __future__ import annotations

import math
import os
import random
import shutil
import subprocess
import sys
import textwrap
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from blackboxml import Run, open_run
from blackboxml.collection import find_runs, scan_runs
from blackboxml.collection.cache import FILE
from blackboxml.collection.runs import FACTS
from blackboxml.errors import BlackboxError
from tests.histories import TIME, header, point, write

HALF = 2**53 + 1
"""An integer that no float64 is."""


def configure(root: Path, *configs: dict[str, Any]) -> pl.DataFrame:
    """Return the table of runs with these configurations."""
    for place, config in enumerate(configs):
        with Run(f"r{place:03}", log_dir=root, config=config, environment=[], seal=False):
            pass
    return scan_runs(root).collect()


def test_a_row_says_what_opening_the_run_says(root: Path) -> None:
    table = scan_runs(root).collect()
    assert table.columns[: len(FACTS)] == list(FACTS)
    assert table["path"].to_list() == list(map(str, find_runs(root)))
    for row in table.iter_rows(named=True):
        try:
            run = open_run(row["path"])
        except BlackboxError:
            assert (row["id"], row["status"]) == (None, "unreadable")
            assert row["problem"]
            continue
        assert (row["id"], row["name"], row["status"]) == (run.id, run.name or None, run.status)
        assert (row["start"], row["end"], row["tags"]) == (run.start, run.end, run.tags)
        assert row["duration_seconds"] == run.duration_seconds
        assert row["problem"] is None
        last = {name: said.last for name, said in run.summary().items()}
        found = {
            name.removeprefix("last."): value
            for name, value in row.items()
            if name.startswith("last.") and value is not None
        }
        assert found == pytest.approx(last, nan_ok=True)
        assert row["config.lr"] == run.config.get("lr")
        path = run.config.get("path")
        assert row["config.path"] == (None if path is None else str(path))


@pytest.mark.parametrize(
    ("values", "kind", "wanted"),
    [
        ([1, 2], pl.Int64, [1, 2]),
        ([HALF, -(2**63), 2**63 - 1], pl.Int64, [HALF, -(2**63), 2**63 - 1]),
        ([1, 0.5], pl.Float64, [1.0, 0.5]),
        ([HALF, 0.5], pl.String, [str(HALF), "0.5"]),
        ([2**63 - 1, 0.5], pl.String, [str(2**63 - 1), "0.5"]),
        ([True, False], pl.Boolean, [True, False]),
        ([True, 1], pl.String, ["true", "1"]),
        (["adam", None], pl.String, ["adam", None]),
        (["adam", 1, math.nan], pl.String, ['"adam"', "1", '"NaN"']),
        ([math.inf, 1], pl.Float64, [math.inf, 1.0]),
        ([[1, 2], (3,)], pl.String, ["[1,2]", "[3]"]),
        ([{}, "{}"], pl.String, ["{}", '"{}"']),
        ([2**70, 5], pl.String, [str(2**70), "5"]),
        ([Path("a/b"), datetime(2026, 1, 2, tzinfo=UTC)], pl.String, None),
        ([None, None], pl.String, [None, None]),
        ([{1: 2}, None], pl.String, ['{"$dict":[[1,2]]}', None]),
    ],
)
def test_the_type_of_a_column_holds_all_its_values(
    tmp_path: Path, values: list[Any], kind: Any, wanted: list[Any] | None
) -> None:
    table = configure(tmp_path, *({"x": value} for value in values))
    assert table.schema["config.x"] == kind
    expected = ["a/b", "2026-01-02T00:00:00+00:00"] if wanted is None else wanted
    assert table["config.x"].to_list() == expected


def test_names_that_look_alike_lose_nothing(tmp_path: Path) -> None:
    table = configure(
        tmp_path,
        {"a": {"b": 1}, "a.b": 2, "a%2Eb": 3},
        {"a": "resnet", "name": "mine", "": {"": 4}},
        {"last": {"loss": 5}},
    )
    assert table.select(pl.col("^config.*$")).to_dicts() == [
        {"config..": None, "config.a": None, "config.a%252Eb": 3, "config.a%2Eb": 2}
        | {"config.a.b": 1, "config.last.loss": None, "config.name": None},
        {"config..": 4, "config.a": "resnet", "config.a%252Eb": None, "config.a%2Eb": None}
        | {"config.a.b": None, "config.last.loss": None, "config.name": "mine"},
        {"config..": None, "config.a": None, "config.a%252Eb": None, "config.a%2Eb": None}
        | {"config.a.b": None, "config.last.loss": 5, "config.name": None},
    ]


def test_last_values_of_several_types_join_as_those_of_one_run(tmp_path: Path) -> None:
    for place, value in enumerate([True, HALF, 0.5, math.nan]):
        metrics = {"a": value, f"b{place // 2}": value}
        lines = header(run_id=str(place) * 32) + point(0, metrics)
        write(tmp_path / f"r{place}", {"metrics.jsonl": lines})
    table = scan_runs(tmp_path).collect()
    found = table["last.a"].to_list()
    assert found[:3] == [1.0, float(HALF), 0.5]
    assert math.isnan(found[3])
    assert table["last.b0"].to_list() == [1, HALF, None, None]
    assert table.schema["last.b0"] == pl.Int64
    assert table["last.b1"].is_nan().to_list() == [None, None, False, True]


def test_a_query_makes_only_the_columns_it_needs(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from blackboxml.collection.runs import RunTable

    made: list[str] = []
    for method in ("_fact", "_column"):
        genuine = getattr(RunTable, method)

        def watched(self: Any, name: str, genuine: Any = genuine) -> pl.Series:
            made.append(name)
            return genuine(self, name)

        monkeypatch.setattr(RunTable, method, watched)
    query = scan_runs(root).filter(pl.col("last.train/seen") > 3).select("name")
    assert sorted(query.collect()["name"]) == ["loose", "packed", "sealed"]
    assert sorted(made) == ["last.train/seen", "name"]
    assert scan_runs(root).head(2).collect().height == 2
    assert scan_runs(root).filter(pl.col("name") == "packed").head(2).collect().height == 1
    assert scan_runs(root).select(pl.len()).collect().item() == len(list(find_runs(root)))


def test_thousands_of_metrics_that_no_two_runs_share(tmp_path: Path) -> None:
    runs, each = 20, 500
    for run in range(runs):
        metrics = {f"m{run * each + place}": run for place in range(each)}
        lines = header(run_id=f"{run:032x}") + point(0, metrics)
        write(tmp_path / f"r{run:02}", {"metrics.jsonl": lines})
    for refresh in (True, False):
        table = scan_runs(tmp_path, refresh=refresh).collect()
        assert table.shape == (runs, len(FACTS) + runs * each)
        assert table[f"last.m{each}"].to_list() == [None, 1, *[None] * (runs - 2)]
        last = table.select(pl.col("^last.*$"))
        assert last.select(pl.all().count()).row(0) == (1,) * (runs * each)


def test_without_a_look_it_says_what_the_last_look_found(tmp_path: Path) -> None:
    write(tmp_path / "a", {"metrics.jsonl": header() + point(0, {"x": 1})})
    assert scan_runs(tmp_path, refresh=False).collect()["last.x"].to_list() == [1]  # the first look
    with (tmp_path / "a" / "metrics.jsonl").open("ab") as journal:
        journal.write(point(1, {"x": 2}))
    assert scan_runs(tmp_path, refresh=False).collect()["last.x"].to_list() == [1]
    assert scan_runs(tmp_path).collect()["last.x"].to_list() == [2]
    assert scan_runs(tmp_path, refresh=False).collect()["last.x"].to_list() == [2]


def test_no_runs_make_an_empty_table(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "none"):
        table = scan_runs(place).collect()
        assert table.schema == FACTS
        assert table.is_empty()
    assert not (tmp_path / "none").exists()


def test_a_catalogue_that_grew_bit_by_bit_is_as_one_made_at_once(tmp_path: Path) -> None:
    chance = random.Random(0)
    root, alike = tmp_path / "runs", tmp_path / "alike"
    root.mkdir()
    for turn in range(25):
        place = root / chance.choice(["", "deep", "a-b", "a"]) / f"run{chance.randrange(12)}"
        if place.exists() and chance.random() < 0.4:
            shutil.rmtree(place)
        else:
            shutil.rmtree(place, ignore_errors=True)
            config = {chance.choice("pqr"): chance.choice([1, 0.5, "t", "u", None])}
            tree = {"format": {"name": "blackbox-config", "version": "1.0"}, "config": config}
            metrics = {chance.choice(["a", "b", "t/c"]): chance.choice([turn, turn / 2, True])}
            lines = header(run_id=f"{turn:032x}") + point(0, metrics)
            write(place, {"metrics.jsonl": lines, "config.json": orjson.dumps(tree)})
        found = scan_runs(root).collect()
        shutil.rmtree(alike, ignore_errors=True)
        shutil.copytree(root, alike, ignore=shutil.ignore_patterns(FILE))
        wanted = scan_runs(alike).collect()
        assert_frame_equal(found.drop("path"), wanted.drop("path"))
        assert_frame_equal(found, scan_runs(root, refresh=False).collect())


def test_a_configuration_that_somebody_edits_in_place_is_read_again(root: Path) -> None:
    scan_runs(root)
    (path,) = (path for path in find_runs(root) if path.name.startswith("sealed"))
    config = path / "config.json"
    folder = path.stat().st_mtime_ns
    config.write_bytes(config.read_bytes().replace(b"0.1", b"0.2"))
    assert path.stat().st_mtime_ns == folder
    table = scan_runs(root).collect().filter(pl.col("name") == "sealed")
    assert table["config.lr"].to_list() == [0.2]


def test_one_run_with_nonsense_does_not_hide_the_others(root: Path) -> None:
    (path,) = (path for path in find_runs(root) if path.name.startswith("sealed"))
    manifest = orjson.loads((path / "run.json").read_bytes())
    manifest["groups"]["train"]["metrics"]["train/seen"]["last"] = 2**64 - 1
    (path / "run.json").write_bytes(orjson.dumps(manifest))
    config = orjson.loads((path / "config.json").read_bytes())
    config["config"] = {"big": 2**64 - 1, "odd": {"$float": "x"}, "odder": {"$repr": 1}}
    (path / "config.json").write_bytes(orjson.dumps(config))
    table = scan_runs(root).collect()
    assert table.height == len(list(find_runs(root)))
    (row,) = table.filter(pl.col("name") == "sealed").to_dicts()
    assert row["last.train/seen"] == 4  # as the table of the run has it
    assert row["config.big"] == str(2**64 - 1)
    assert row["config.odder"] == '{"$repr":1}'


def test_directories_whose_names_are_no_text(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    try:
        write(tmp_path / name, {"metrics.jsonl": header() + point(0, {"x": 1})})
        write(tmp_path / f"{name}2", {"run.json": b"{"})
    except OSError:
        return  # a file system that has no such names
    for refresh in (True, False):
        table = scan_runs(tmp_path, refresh=refresh).collect()
        assert table["path"].to_list() == [f"{tmp_path}/caf\\udce9", f"{tmp_path}/caf\\udce92"]
        assert table["last.x"].to_list() == [1, None]


def test_a_catalogue_works_in_a_forked_process(tmp_path: Path) -> None:
    """The libraries behind a table have threads, which a fork leaves behind."""
    write(tmp_path / "a", {"metrics.jsonl": header(time=TIME) + point(0, {"x": 1})})
    code = """
        import os, sys
        from blackboxml.collection import scan_runs
        from blackboxml.collection.catalogue import Catalogue
        assert scan_runs(sys.argv[1]).collect(engine="streaming").height == 1
        if (child := os.fork()) == 0:
            runs = Catalogue(sys.argv[1]).runs()
            os._exit(0 if runs[0].metrics["x"].last == 1 else 1)
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    command = [sys.executable, "-c", textwrap.dedent(code), tmp_path]
    assert subprocess.run(command, check=False, timeout=60).returncode == 0
