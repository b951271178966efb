"""`scan_metrics`: the points of a group of all runs, as the runs themselves give them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from blackboxml.collection import find_runs, points, scan_metrics
from blackboxml.reader import open_run
from tests.histories import header, point, write

INDEX = ["run", "path", "step", "time", "rank", "attempt"]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the runs that were opened."""
    names: list[str] = []

    def watched(path: str) -> Any:
        names.append(Path(path).name)
        return open_run(path)

    monkeypatch.setattr(points, "open_run", watched)
    return names


def short(root: Path) -> pl.DataFrame:
    """Return the points of all runs below a folder, put together by hand."""
    frames = []
    for path in find_runs(root):
        try:
            run = open_run(path)
        except Exception:  # noqa: BLE001 - those are left out
            continue
        if "" in run.groups:
            own = [pl.lit(run.id).alias("run"), pl.lit(str(path)).alias("path")]
            frames.append(run.polars("").with_columns(*own).drop("seq"))
    frame = pl.concat(frames, how="diagonal_relaxed")
    return frame.select(*INDEX, *sorted(set(frame.columns) - set(INDEX)))


@pytest.mark.parametrize("large", [False, True])
def test_the_points_are_those_of_the_runs(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, large: bool
) -> None:
    if large:  # read piece by piece
        monkeypatch.setattr(points, "_LARGE_CELLS", 0)
    scan = scan_metrics(root, "")
    for engine in ("in-memory", "streaming"):
        caplog.clear()
        found = scan.collect(engine=engine)  # type: ignore[call-overload]
        assert_frame_equal(found, short(root))
        (said,) = caplog.messages
        assert "2 run(s) cannot be read" in said
        assert str(root / "damaged") in said
        assert str(root / "foreign") in said
    for rows in range(found.height + 1):
        assert_frame_equal(scan.head(rows).collect(), found.head(rows))
    whole = short(root)
    for columns in (["run"], ["path", "run"], ["b"], ["rank"]):
        assert_frame_equal(scan.select(columns).collect(), whole.select(columns))
    assert scan.select(pl.len()).collect().item() == whole.height
    train = scan_metrics(root, "train", ["loss", "high"]).select("high", "loss").collect()
    assert train.columns == ["high", "loss"]
    assert train["loss"].count() == 18
    assert train["high"].to_list().count(float("inf")) == 3


def test_a_query_opens_only_the_runs_and_columns_that_it_needs(
    root: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = scan_metrics(root, "")
    wanted = str(root / "rewound")
    kept = scan.filter((pl.col("step") >= 1) & (pl.col("path") == wanted) & (pl.col("a") >= 0))
    assert kept.select("a").collect()["a"].to_list() == [1]
    assert opened == ["rewound"]
    opened.clear()
    assert scan_metrics(root, "", runs=["1" * 32]).collect()["a"].to_list() == [0, 1, 2, 3]
    assert opened == ["crashed"]
    opened.clear()
    assert scan.head(3).collect().height == 3
    assert opened == ["crashed"]
    either = (pl.col("path") == wanted) | (pl.col("step") == 9)
    assert scan.filter(either).collect()["step"].to_list() == [9, 0, 1]
    asked: list[list[str]] = []
    genuine = type(open_run(wanted)).arrow

    def watched(self: Any, group: str | None = None, columns: Any = None) -> Any:
        asked.append(columns)
        return genuine(self, group, columns=columns)

    monkeypatch.setattr(type(open_run(wanted)), "arrow", watched)
    sealed = next(str(path) for path in find_runs(root) if path.name.startswith("sealed"))
    scan_metrics(root, "train").filter(pl.col("path") == sealed).select("seen").collect()
    assert asked == [["step", "seen"]]


def test_types_join_as_within_one_run(tmp_path: Path) -> None:
    for place, values in enumerate([[True, False], [2**53 + 1, 5], [0.5]]):
        lines = [point(seq, {"a": value}) for seq, value in enumerate(values)]
        write(tmp_path / str(place), {"metrics.jsonl": b"".join([header(), *lines])})
    found = scan_metrics(tmp_path, columns=["a"]).collect()
    assert found["a"].to_list() == [1.0, 0.0, 2.0**53, 5.0, 0.5]
    some = scan_metrics(tmp_path, columns=["a"]).filter(pl.col("path").str.ends_with("1"))
    assert some.collect().schema["a"] == pl.Float64


def test_names_that_look_alike_lose_nothing(tmp_path: Path) -> None:
    metrics = {f"t/{name}": place for place, name in enumerate(["run", "path_", "step", "x/y"])}
    write(tmp_path / "a", {"metrics.jsonl": header() + point(0, metrics)})
    (found,) = scan_metrics(tmp_path, "t").collect().to_dicts()
    assert [found[name] for name in ("run_", "path__", "step_", "x/y")] == [0, 1, 2, 3]
    assert (found["path"], found["step"]) == (str(tmp_path / "a"), 0)


def test_what_no_run_has_is_refused_by_name(root: Path) -> None:
    with pytest.raises(KeyError, match=r"has the groups \['', 'train'\]; say which one"):
        scan_metrics(root)
    with pytest.raises(KeyError, match=r"no group 'eval'; it has \['', 'train'\]"):
        scan_metrics(root, "eval")
    with pytest.raises(
        KeyError, match=r"has 'los' in 'train'; there are \['high', 'loss', 'seen'\]"
    ):
        scan_metrics(root, "train", ["los"])


def test_without_runs_there_are_no_points(tmp_path: Path) -> None:
    for given in ({}, {"group": "train", "columns": ["loss"]}):
        found = scan_metrics(tmp_path, **given).collect()  # type: ignore[arg-type]
        assert found.is_empty()
        assert found.columns == [*INDEX, *given.get("columns", [])]
    assert found.schema["loss"] == pl.Float64


def test_a_run_that_changed_since_the_look_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "b", "c"):
        write(tmp_path / name, {"metrics.jsonl": header() + point(0, {"x": 1})})
    scan = scan_metrics(tmp_path)
    with (tmp_path / "a" / "metrics.jsonl").open("ab") as journal:
        journal.write(point(1, {"x": 0.5}))
    with (tmp_path / "b" / "metrics.jsonl").open("ab") as journal:
        journal.write(point(1, {"x": 2}))
    (tmp_path / "c" / "metrics.jsonl").unlink()
    with caplog.at_level(logging.WARNING):
        assert scan.collect()["x"].to_list() == [1, 2]
    assert "'x' has become double in the meantime: scan again" in caplog.text
    assert str(tmp_path / "c") in caplog.text
    assert scan_metrics(tmp_path).collect()["x"].to_list() == [1.0, 0.5, 1.0, 2.0]
