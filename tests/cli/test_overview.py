"""What is said of a run without reading all of it, against what a whole reading says."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from blackboxml import Run, RunWriter, open_run
from blackboxml.cli.overview import describe, follow, in_order, last_points
from blackboxml.seal import seal
from blackboxml.seal.pack import pack

if TYPE_CHECKING:
    from pathlib import Path


def ranked(log_dir: Path, steps: int) -> Path:
    writers = [RunWriter.create(log_dir, "ranked")]
    writers += [RunWriter.join(writers[0].path, rank, 0) for rank in (1, 2)]
    for step in range(steps):
        for writer in writers:
            writer.log({"loss": float(step)}, step)
    for writer in reversed(writers):
        writer.finish("completed", None)
    return writers[0].path


def resumed(log_dir: Path) -> Path:
    with Run("r", log_dir=log_dir, environment=[], seal=False) as run:
        run.describe("loss", unit="nat")
        for step in range(10):
            run.log({"loss": float(step)})
    with Run("r", log_dir=log_dir, environment=[], seal=False, resume=run.path) as run:
        run.rewind(5)
        run.log({"loss": 50.0})
        run.log({})
        run.log({"loss": 60.0})
    return run.path


@pytest.mark.parametrize("form", ["journal", "sealed", "packed"])
def test_the_points_of_all_attempts_are_counted_in_every_form(form: str, tmp_path: Path) -> None:
    path = resumed(tmp_path)
    if form != "journal":
        seal(path)
    if form == "packed":
        pack(path)
    assert describe(path).steps == 13 == len(list(open_run(path).records("all")))


@pytest.mark.parametrize("form", ["journal", "sealed", "packed"])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 8, 100])
def test_the_last_points_are_those_of_a_whole_reading(
    count: int, form: str, tmp_path: Path
) -> None:
    path = resumed(tmp_path)
    if form != "journal":
        seal(path)
    if form == "packed":
        pack(path)
    reader = open_run(path)
    expected = list(reader.records("all"))[-count:]
    assert in_order(last_points(reader, count))[-count:] == expected


def test_the_last_points_are_those_of_all_ranks_in_the_order_of_time(tmp_path: Path) -> None:
    reader = open_run(ranked(tmp_path, steps=1000))
    points = in_order(last_points(reader, 6))[-6:]
    assert [(point.step, point.rank) for point in points] == [
        (step, rank) for step in (998, 999) for rank in range(3)
    ]
    assert describe(reader.path).steps == 3000


def test_a_damaged_line_is_passed_over(tmp_path: Path) -> None:
    path = resumed(tmp_path)
    journal = path / "metrics.1.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:-2], lines[-2].replace(b"60", b"61"), lines[-1], b'{"s']))
    assert [point.metrics for point in in_order(last_points(open_run(path), 2))][-2:] == [
        {"loss": 50.0},
        {},
    ]


def test_following_a_run_that_has_ended_gives_its_last_points_once(tmp_path: Path) -> None:
    reader = open_run(resumed(tmp_path))
    everything = list(reader.records("all"))
    assert list(follow(reader, 4, poll=0.01)) == everything[-4:]
    assert list(follow(reader, 1000, poll=0.01)) == everything
    assert list(follow(reader, 0, poll=0.01)) == []


def test_a_point_logged_between_two_looks_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Run("r", log_dir=tmp_path, environment=[]) as run:
        run.log({"loss": 0.0})
        reader = open_run(run.path)
        points = follow(reader, 5, poll=0.01)
        assert next(points).step == 0
        run.log({"loss": 1.0})
        run.describe("loss", unit="nat")
        run.log({"loss": 2.0})
    assert [point.step for point in points] == [1, 2]


def test_a_run_that_vanishes_is_unreadable(tmp_path: Path) -> None:
    path = resumed(tmp_path)
    shutil.rmtree(path)
    found = describe(path)
    assert (found.status, found.name) == ("unreadable", None)
    assert str(path) in found.error
