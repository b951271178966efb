"""Runs as plain dicts, those of blackboxml 0.5 included: load, list, delete."""

from __future__ import annotations

import json
import logging
import os
from typing import TYPE_CHECKING, Any

import pytest

from blackboxml import Run, delete_runs, list_runs, load_run
from blackboxml.seal.pack import pack

if TYPE_CHECKING:
    from pathlib import Path

OLD: dict[str, Any] = {
    "name": "mnist baseline",
    "tags": ["cnn"],
    "environment": {
        "git_commit": "1a2b3c4",
        "git_dirty": False,
        "python": "3.10.4",
        "torch": None,
        "tensorflow": None,
        "hostname": "node7",
    },
    "start": "2024-03-01T10:00:00.123456+00:00",
    "end": "2024-03-01T10:00:45.123456+00:00",
    "duration_seconds": 45.0,
    "steps": [{"loss": 0.5, "epoch": 0}, {"loss": 0.25, "epoch": 1}],
}
KERAS = {
    "name": "keras",
    "tags": [],
    "environment": {"python": "3.10.4", "tensorflow": "2.15.0"},
    "model": {"name": "sequential", "params": 7, "optimizer": "Adam", "learning_rate": 0.001},
    "start": "2024-03-01T11:00:00.123456",
    "end": "2024-03-01T11:00:05.123456",
    "duration_seconds": 5.0,
    "steps": [{"loss": 0.5, "val_loss": float("nan"), "epoch": 0}],
}


def write_old(log_dir: Path, document: Any = OLD, name: str = "mnist_baseline") -> Path:
    place = log_dir / f"{name}_20240301_100000"
    place.mkdir(parents=True)
    (place / "run.json").write_text(json.dumps(document, indent=2))
    return place


def record(log_dir: Path, name: str = "r", count: int = 2, **options: Any) -> Path:
    with Run(name, ["t"], log_dir, **({"environment": ()} | options)) as run:
        for step in range(count):
            run.log({"loss": 1 / (step + 1), "epoch": step})
    return run.path


KEYS = ["name", "tags", "environment", "start", "end", "duration_seconds", "steps"]


def test_a_run_is_a_dict_of_the_shape_of_0_5(tmp_path: Path) -> None:
    path = record(tmp_path, count=3, environment=None)
    found = load_run(path)
    assert list(found) == KEYS
    assert (found["name"], found["tags"]) == ("r", ["t"])
    assert found["steps"] == [{"loss": 1 / (step + 1), "epoch": step} for step in range(3)]
    assert found["duration_seconds"] >= 0
    assert found["start"].endswith("+00:00")
    assert found["environment"]["python"]
    assert load_run(path / "run.json") == found
    assert load_run(str(path)) == found
    json.dumps(found)
    pack(path)
    assert load_run(path) == found


def test_a_live_run_has_no_end_yet(tmp_path: Path) -> None:
    with Run("r", log_dir=tmp_path, environment=(), seal=False) as run:
        run.log({"loss": 1.0})
        found = load_run(run.path)
        assert (found["end"], found["duration_seconds"]) == (None, None)
        assert found["steps"] == [{"loss": 1.0}]


@pytest.mark.parametrize("document", [OLD, KERAS])
def test_a_run_of_0_5_is_given_as_it_is(tmp_path: Path, document: dict[str, Any]) -> None:
    place = write_old(tmp_path, document)
    before = (place / "run.json").read_bytes()
    assert repr(load_run(place)) == repr(document)
    assert repr(load_run(place / "run.json")) == repr(document)
    assert (place / "run.json").read_bytes() == before
    assert os.listdir(place) == ["run.json"]


@pytest.mark.parametrize("name", ["missing", "empty", "file.txt", "empty/run.json"])
def test_where_there_is_no_run_the_file_is_not_found(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("{}")
    with pytest.raises(FileNotFoundError):
        load_run(tmp_path / name)


@pytest.mark.parametrize("content", ["", "{", '{"name": "x", "steps": [', "\0\0\0", "[" * 100_000])
def test_a_corrupt_run_is_a_json_error(tmp_path: Path, content: str) -> None:
    place = write_old(tmp_path)
    (place / "run.json").write_text(content)
    with pytest.raises(json.JSONDecodeError) as caught:
        load_run(place)
    assert isinstance(caught.value, ValueError)
    assert "run.json" in str(caught.value)


def test_a_corrupt_manifest_beside_a_journal_is_no_error(tmp_path: Path) -> None:
    path = record(tmp_path)
    (path / "run.json").write_bytes(b"")
    assert len(load_run(path)["steps"]) == 2


@pytest.mark.rule("BB-LAY-004")
def test_other_json_of_that_name_is_no_run(tmp_path: Path) -> None:
    for number, document in enumerate(
        ([], 5, None, {}, {"name": "x"}, OLD | {"steps": 5}, OLD | {"name": None}, {"a": 1})
    ):
        place = write_old(tmp_path, document, str(number))
        with pytest.raises((FileNotFoundError, ValueError)):
            load_run(place)
        assert list_runs(place) == []


def test_runs_are_listed_newest_first(tmp_path: Path) -> None:
    write_old(tmp_path, OLD | {"name": "b", "start": "2024-03-01T10:00:00.5+00:00"}, "b")
    write_old(tmp_path, OLD | {"name": "c", "start": "2024-03-01T12:30:00+02:00"}, "c")
    write_old(tmp_path, OLD | {"name": "d", "start": "2024-03-01T09:00:00-05:00"}, "d")
    write_old(tmp_path, OLD | {"name": "a", "start": "2023-03-01T10:00:00+00:00"}, "a")
    record(tmp_path / "deeper" / "still", "now", seal=False)
    assert [run["name"] for run in list_runs(tmp_path)] == ["now", "d", "c", "b", "a"]
    assert all(list(run) == KEYS for run in list_runs(tmp_path))


def test_a_missing_folder_has_no_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert list_runs(tmp_path / "missing") == []
    assert delete_runs(tmp_path / "missing") == 0
    assert list_runs() == []
    assert delete_runs() == 0
    record(tmp_path / "blackboxml_logs", seal=False)
    assert len(list_runs()) == 1
    assert delete_runs() == 1


def test_what_cannot_be_read_is_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = record(tmp_path, seal=False)
    write_old(tmp_path)
    wrong = [
        (write_old(tmp_path, name="cut") / "run.json").write_text('{"name": "x", "ste'),
        write_old(tmp_path, OLD | {"start": "yesterday"}, "when"),
        write_old(tmp_path, {"format": {"name": "blackbox-run", "version": "9.0"}}, "newer"),
        write_old(tmp_path, {"format": {"name": "blackbox-run", "version": "1.0"}}, "partial"),
        write_old(tmp_path, [1, 2], "list"),
        write_old(tmp_path, OLD | {"tags": None, "name": None}, "nameless"),
    ]
    names = [run["name"] for run in list_runs(tmp_path)]
    assert names == ["r", "mnist baseline"]
    assert {entry.levelno for entry in caplog.records} == {logging.WARNING}
    assert len(caplog.records) == len(wrong)
    assert good.exists()


def test_only_runs_are_deleted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gone = [record(tmp_path), record(tmp_path, seal=False), write_old(tmp_path)]
    gone.append(write_old(tmp_path, KERAS, "keras"))
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    linked = record(outside)
    (tmp_path / "link").symlink_to(linked)
    (tmp_path / "notes.txt").write_text("kept")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "run.json").write_text('{"other": "tool"}')
    (tmp_path / "data" / "weights").write_text("kept")
    cut = write_old(tmp_path, name="cut")
    (cut / "run.json").write_text("{")
    with Run("live", log_dir=tmp_path, environment=(), seal=False) as live:
        live.log({"loss": 1.0})
        assert delete_runs(tmp_path) == 4
        live.log({"loss": 1.0})
    assert not any(path.exists() for path in gone)
    assert linked.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["link", "notes.txt", "data", cut.name, live.path.name]
    )
    assert (tmp_path / "data" / "weights").exists()
    assert len(caplog.records) == 3
    assert "being written" in caplog.text
    assert delete_runs(tmp_path) == 1  # the live one has ended
