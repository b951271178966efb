"""Training logs, by the rows of what users of Blocks rely on."""

from __future__ import annotations

import copy
import math
import pickle
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import uuid
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from blackboxml import open_run, validate
from blackboxml.collection import find_runs
from blackboxml.conversion import convert
from blackboxml.errors import ConfigError, MetricError, RunIsLiveError, RunStateError
from blackboxml.frontends.training_log import SQLiteLog, TrainingLog, open_log
from blackboxml.frontends.training_log.settings import read_settings
from blackboxml.seal.pack import pack

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without settings."""
    for name in ("BLOCKS_CONFIG", "BLOCKS_SQLITEDB"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)  # where git has nothing to say
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture(params=[TrainingLog, SQLiteLog])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TrainingLog]:
    """A log of either backend."""
    made = request.param(tmp_path / "logs", seal=False)
    yield made
    made.close()


def again(log: TrainingLog) -> TrainingLog:
    """The same log, read from its files."""
    return TrainingLog(log.log_dir, log.uuid)


def content(log: TrainingLog) -> dict[int, dict[str, Any]]:
    """All rows that have values."""
    return {time: row.copy() for time, row in log.items()}


# ---- rows and times


def test_bl01_values_are_written_and_read(log: TrainingLog) -> None:
    log[0]["field"] = 45
    assert log[0]["field"] == 45
    assert log[1] == {}
    assert log.current_row["field"] == 45
    log.status["iterations_done"] += 1
    assert log.status["iterations_done"] == 1
    assert log.previous_row["field"] == 45
    with pytest.raises(ValueError, match="non-negative"):
        log[-1]
    assert len(list(log)) == 2  # as in Blocks, a row that was asked for is there …
    assert content(again(log)) == {0: {"field": 45}}  # … but nothing of it is recorded
    assert 7 not in log
    assert log.get(7) is None
    assert log.get(0) == {"field": 45}
    with pytest.raises(KeyError):
        log[1]["none"]
    log[0]["field"] = 46
    log[0]["field"] = 47
    assert again(log)[0] == {"field": 47}


def test_bl01_reading_makes_no_run(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path / "logs")
    assert log[3] == {}
    assert log.path is None
    log.close()
    assert not (tmp_path / "logs").exists()


def test_bl02_rows_are_updated_and_replaced(log: TrainingLog) -> None:
    log[1].update({"a": 1.0, "b": "two", "c": [3]})
    log[1].update(a=1.5)
    log[2] = {"a": 2, "d": None}
    log[1] |= {"e": True}
    row = log[3]
    row["x"] = 1
    assert log[3].setdefault("x", 2) == 1
    assert log[3].setdefault("y", 2) == 2
    assert log[3].pop("y") == 2
    assert log[3].pop("y", "gone") == "gone"
    log[2] = {"a": 3}
    wanted = {1: {"a": 1.5, "b": "two", "c": [3], "e": True}, 2: {"a": 3}, 3: {"x": 1}}
    assert content(log) == content(again(log)) == wanted
    log[3].clear()
    del log[2]
    assert content(log) == content(again(log)) == {1: wanted[1]}
    assert 2 not in log
    with pytest.raises(KeyError):
        del log[2]
    with pytest.raises(ValueError, match="mapping"):
        log[4] = 5  # type: ignore[assignment]


def test_bl02_a_log_is_changed_as_a_dict_is(log: TrainingLog) -> None:
    log.update({1: {"a": 1}, 2: {"b": 2}, 3: {"c": 3}})
    log |= {4: {"d": 4}}
    assert log.setdefault(1, {"x": 0}) == {"a": 1}
    assert log.setdefault(9, {"y": 9}) == {"y": 9}
    assert log.pop(2) == {"b": 2}
    assert log.pop(2, "gone") == "gone"
    with pytest.raises(KeyError):
        log.pop(2)
    assert log.popitem() == (9, {"y": 9})
    wanted = {1: {"a": 1}, 3: {"c": 3}, 4: {"d": 4}}
    assert log == again(log) == wanted
    assert dict(log) == {**log} == log.copy() == wanted
    assert log != {1: {}}
    assert list(log.keys()) == [1, 3, 4]
    assert repr(log).startswith(f"<{type(log).__name__} {log.h_uuid} in")
    log.clear()
    assert log == again(log) == {}
    with pytest.raises(KeyError):
        log.popitem()


@pytest.mark.parametrize("time", [-1, 1.0, "1", None, 2**63, np.float64(1), np.int64(-1)])
def test_bl03_what_is_no_time_is_refused(log: TrainingLog, time: Any) -> None:
    with pytest.raises(ValueError, match="time must be a non-negative integer"):
        log[time]["a"] = 1
    log[1]["a"] = 1
    assert time not in log


@pytest.mark.parametrize("kind", [np.int8, np.int64, np.uint32, bool])
def test_bl03_integers_of_numpy_are_integers(log: TrainingLog, kind: Any) -> None:
    log[kind(1)]["cost"] = 0.5
    assert log[1]["cost"] == log[kind(1)]["cost"] == 0.5
    assert kind(1) in log
    assert list(log) == [1]
    assert again(log)[kind(1)]["cost"] == 0.5


# ---- status


def test_bl04_a_status_has_defaults(log: TrainingLog) -> None:
    defaults = {"iterations_done": 0, "epochs_done": 0, "_epoch_ends": [], "resumed_from": None}
    assert log.status == defaults
    log[0]["a"] = 1
    assert again(log).status == defaults


def test_bl05_a_status_takes_any_key(log: TrainingLog) -> None:
    log.status["best_cost"] = 0.5
    log.status["best_cost"] = 0.25
    log.status["note"] = "x"
    log.status["note"] = 3
    log.status["note"] = ("y", None)
    log.status["gone"] = 1
    del log.status["gone"]
    del log.status["epochs_done"]
    log.status["iterations_done"] = 0
    log.status["iterations_done"] = 5
    with pytest.raises(KeyError):
        del log.status["never"]
    wanted = {
        "iterations_done": 5,
        "_epoch_ends": [],
        "resumed_from": None,
        "best_cost": 0.25,
        "note": ("y", None),
    }
    assert log.status == again(log).status == wanted
    assert content(log) == {}
    with pytest.raises(MetricError, match=r"log\.status"):
        log[0]["status/x"] = 1
    with pytest.raises(MetricError, match=r"str\(\)"):
        log.status[3] = 1  # type: ignore[index]


def test_bl06_rows_are_found_by_the_status(log: TrainingLog) -> None:
    with pytest.raises(ValueError, match="no iteration is done"):
        _ = log.previous_row
    with pytest.raises(IndexError, match="no epoch ended"):
        _ = log.last_epoch_row
    for iteration in range(6):
        log.current_row["cost"] = float(iteration)
        log.status["iterations_done"] = iteration + 1
        if iteration % 3 == 2:
            log.status["_epoch_ends"] += [iteration + 1]
            log.current_row["end"] = True
    assert log.previous_row == {"cost": 5.0}
    assert log.last_epoch_row == {"end": True}
    assert again(log).last_epoch_row == {"end": True}
    assert log.status["_epoch_ends"] == again(log).status["_epoch_ends"] == [3, 6]


# ---- identity


def test_bl07_a_log_is_known_by_its_uuid(log: TrainingLog) -> None:
    assert isinstance(log.uuid, uuid.UUID)
    assert log.uuid.hex == log.h_uuid
    log[3]["a"] = 1
    assert log.path is not None
    assert open_run(log.path).id == log.h_uuid
    with pytest.raises(RunIsLiveError):
        again(log)[4]["a"] = 2
    log.close()
    with pytest.raises(RunStateError, match="was closed"):
        log[4]["a"] = 2
    for given in (log.uuid, log.h_uuid, str(log.uuid)):
        with type(log)(log.log_dir, uuid=given) as more:
            more[4]["a"] = more.get(4, {"a": 1})["a"] + 1
    assert content(again(log)) == {3: {"a": 1}, 4: {"a": 4}}
    assert len(list(find_runs(log.log_dir))) == 1
    assert validate(log.path).ok
    with pytest.raises(ValueError, match="32 hexadecimal"):
        TrainingLog(log.log_dir, "no id")


def test_bl07_a_log_of_an_unknown_uuid_keeps_what_it_is_given(tmp_path: Path) -> None:
    own = uuid.uuid4()
    with TrainingLog(tmp_path, own) as log:
        log[1]["a"] = 1
        assert log[1] == {"a": 1}
    assert content(TrainingLog(tmp_path, own)) == {1: {"a": 1}}


def test_bl08_a_resumed_log_is_a_new_one(log: TrainingLog) -> None:
    log[1]["a"] = 1
    log.status["iterations_done"] = 2
    log.status["_epoch_ends"] = [1, 2]
    log.status["best"] = {"cost": (1, 2.5)}
    del log.status["epochs_done"]
    before, old, status = log.h_uuid, again(log), log.status.copy()
    log.resume()
    assert log.h_uuid != before
    assert log.status == {**status, "resumed_from": before}
    log[2]["a"] = 2
    assert content(again(log)) == {1: {"a": 1}, 2: {"a": 2}}
    assert again(log).status == log.status == {**status, "resumed_from": before}
    unchanged = TrainingLog(log.log_dir, before)
    assert content(unchanged) == content(old) == {1: {"a": 1}}
    assert unchanged.status == status
    assert unchanged.path is not None
    assert open_run(unchanged.path).status == "interrupted"
    assert log.path is not None
    assert open_run(log.path).manifest["lineage"] == {"parent": before}
    fresh = TrainingLog(log.log_dir)
    first = fresh.h_uuid
    fresh.resume()
    assert fresh.status["resumed_from"] == first
    fresh.close()


def test_bl09_the_value_of_the_youngest_log_counts(log: TrainingLog) -> None:
    log[1].update({"a": 1, "b": "old", "c": 0.5, "d": [1, 2]})
    log[2]["a"] = 3
    for generation in range(5):
        log.resume()
        log[1]["a"] = 1 if generation % 2 else 1.5  # equal to what stood there, or not
        log[1]["b"] = f"new {generation}"
    log.resume()
    log[1].update({"a": 1, "b": "newest", "d": [1, 2, 3]})
    log[1]["a"] = 2
    for each in (log, again(log)):
        assert each[1] == {"a": 2, "b": "newest", "c": 0.5, "d": [1, 2, 3]}
        assert sorted(each[1]) == ["a", "b", "c", "d"]
        assert len(each[1]) == 4
    del log[1]["a"]
    del log[1]["b"]
    del log[1]["d"]
    revealed = {"a": 1.5, "b": "new 4", "c": 0.5, "d": [1, 2]}
    assert log[1] == again(log)[1] == revealed
    with pytest.raises(KeyError, match="was resumed from"):
        del log[1]["c"]
    log[1].clear()
    assert log[1] == again(log)[1] == revealed
    log[1]["a"] = 7
    assert log[1]["a"] == again(log)[1]["a"] == 7


def test_bl09_a_log_whose_ancestor_is_gone_shows_what_is_left(
    log: TrainingLog, caplog: pytest.LogCaptureFixture
) -> None:
    import shutil

    log[1]["a"] = 1
    first = log.path
    log.resume()
    log[2]["a"] = 2
    assert first is not None
    shutil.rmtree(first)
    assert content(again(log)) == {2: {"a": 2}}
    assert "is not there" in caplog.text


def test_bl10_branches_of_one_checkpoint_are_separate(log: TrainingLog) -> None:
    log[1]["a"] = 1
    checkpoint = pickle.dumps(log)
    log[2]["a"] = "trunk"
    left, right = pickle.loads(checkpoint), pickle.loads(checkpoint)
    left[2]["a"] = "left"
    right[2]["b"] = "right"
    assert len({log.uuid, left.uuid, right.uuid}) == 3
    wanted = [{"a": "trunk"}, {"a": "left"}, {"b": "right"}]
    for each, row in zip((log, left, right), wanted, strict=True):
        assert content(each) == content(again(each)) == {1: {"a": 1}, 2: row}
    left.close()
    right.close()


def test_bl11_pickling_does_not_change_a_log(log: TrainingLog) -> None:
    checkpoints = []
    for epoch in range(3):
        log[epoch]["cost"] = epoch
        log[epoch]["note"] = f"epoch {epoch}"
        log.status["epochs_done"] = epoch + 1
        log.status["_epoch_ends"] += [epoch]
        identity = log.uuid
        checkpoints.append((pickle.dumps(log), log.status.copy()))
        assert log.uuid == identity
    assert len(list(find_runs(log.log_dir))) == 1
    log[9]["cost"] = 9
    for epoch, (data, status) in enumerate(checkpoints):
        loaded = pickle.loads(data)
        assert type(loaded) is type(log)
        assert loaded.uuid == log.uuid
        assert loaded.status == status
        assert list(loaded) == list(range(epoch + 1))
    assert len(list(find_runs(log.log_dir))) == 1
    loaded[3]["cost"] = 3
    assert loaded.status["resumed_from"] == log.h_uuid
    assert list(again(loaded)) == [0, 1, 2, 3]
    assert again(loaded)[2]["note"] == "epoch 2"
    third = copy.deepcopy(loaded)
    third[3]["cost"] = 4
    assert (third[3]["cost"], loaded[3]["cost"]) == (4, 3)
    assert list(again(third)) == [0, 1, 2, 3]
    third.close()
    loaded.close()


def test_bl11_what_a_checkpoint_holds_is_an_ancestors(log: TrainingLog) -> None:
    log[1].update({"a": 1, "b": 2, "c": "text"})
    log.status["epochs_done"] = 3
    data = pickle.dumps(log)
    for first, then in ((3, "x"), ("x", 3), (None, None), ([1], [1, 2])):
        loaded = pickle.loads(data)
        for value in (first, then):
            loaded[1]["a"] = value
            loaded.status["epochs_done"] = value
        assert again(loaded)[1] == loaded[1] == {"a": then, "b": 2, "c": "text"}
        assert again(loaded).status == loaded.status
        del loaded[1]["a"]
        assert again(loaded)[1]["a"] == loaded[1]["a"] == 1
        loaded.close()
    loaded = pickle.loads(data)
    with pytest.raises(KeyError, match="was resumed from"):
        del loaded[1]["b"]
    loaded.close()
    log.current_row["training_finished"] = True
    trained = log.path
    log.resume()
    assert trained is not None
    assert open_run(trained).status == "completed"


def test_bl11_a_checkpoint_is_small_and_says_where_its_log_is(log: TrainingLog) -> None:
    for step in range(500):
        log[step]["cost"] = step
    data = pickle.dumps(log)
    assert len(data) < 1000
    log.close()
    moved = log.log_dir.rename(log.log_dir.with_name("moved"))
    with pytest.raises(FileNotFoundError, match="is not in"):
        pickle.loads(data)
    assert len(TrainingLog(moved, log.uuid)) == 500
    assert pickle.loads(pickle.dumps(log[3])) == {"cost": 3}


def test_bl12_times_ascend_over_all_ancestors(log: TrainingLog) -> None:
    for time in (5, 1, 9):
        log[time]["a"] = 1
    log.resume()
    for time in (3, 9, 1, 7):
        log[time]["b"] = 1
    for each in (log, again(log)):
        assert list(each) == [1, 3, 5, 7, 9]
        assert len(each) == 5
        assert [time for time, _ in each.items()] == [1, 3, 5, 7, 9]


# ---- values

VALUES = [
    *(None, 0, 1.5, "text", "", True, False, b"", b"\0\xff", math.nan, math.inf, -math.inf),
    *(2**63, -(2**70), 2**62, "ä\n🎉", "x" * 100_000, b"y" * 100_000),
    *((), (1, "a", None), [1, [2, (3,)]], [math.nan, 1.0], {}, {"a": {1: 2}, "b": [None]}),
    *([2**70], {"deleted": 3}, {"append": [1]}, {"value": 1}, PurePosixPath("a/b")),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:20])
def test_bl13_values_come_back_as_they_were(log: TrainingLog, value: Any) -> None:
    for key, other in (("first", None), ("second", 3), ("third", "x")):
        if other is not None:
            log[1][key] = other
        log[1][key] = value
        log[2][key] = value
        if other is not None:
            log[2][key] = other
    log.status["v"] = value
    reopened = again(log)
    for each in (log, reopened):
        for key in ("first", "second", "third"):
            assert repr(each[1][key]) == repr(value)
            assert type(each[1][key]) is type(value)
        assert (each[2]["second"], each[2]["third"]) == (3, "x")
        assert repr(each.status["v"]) == repr(value)
    del log[1]["first"]
    assert "first" not in again(log)[1]


@pytest.mark.parametrize(
    "value",
    [
        *(np.float16(0.5), np.float32(0.1), np.float64(2.5), np.int8(3), np.uint64(2**62)),
        *(np.bool_(True), np.str_("text"), np.bytes_(b"bytes")),
    ],
    ids=repr,
)
def test_bl13_scalars_of_numpy_become_what_they_equal(log: TrainingLog, value: Any) -> None:
    log[1]["a"] = value
    for each in (log, again(log)):
        found = each[1]["a"]
        assert found == value
        assert type(found) in (float, int, bool, str, bytes)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6).reshape(2, 3),
        np.array([0.5, np.nan], np.float32),
        np.array([True, False]),
        np.array([1 + 2j]),
        np.zeros((0, 3)),
    ],
    ids=repr,
)
def test_bl13_arrays_come_back_as_they_were(log: TrainingLog, array: Any) -> None:
    given = array.copy()
    log[1]["a"] = given
    given[...] = 1
    for each in (log, again(log)):
        np.testing.assert_array_equal(each[1]["a"], array)
        assert each[1]["a"].dtype == array.dtype
        each[1]["a"][...] = 0
        np.testing.assert_array_equal(each[1]["a"], array)


@pytest.mark.parametrize(
    "value",
    [
        *(object(), {1, 2}, 1j, print, np.array([object()]), np.array(["text"])),
        *(np.datetime64("2026-01-01"), [np.zeros(2)], "\ud800", [object()], 10**5000),
    ],
    ids=lambda value: type(value).__name__,
)
def test_bl13_what_would_not_come_back_is_refused_by_name(log: TrainingLog, value: Any) -> None:
    with pytest.raises(MetricError, match="odd"):
        log[1].update({"fine": 1, "text": "x", "odd": value})
    assert log[1] == {}
    log[1]["fine"] = 2
    assert content(again(log)) == {1: {"fine": 2}}


def test_bl14_arrays_without_dimensions_are_numbers(log: TrainingLog) -> None:
    log[1]["a"] = np.array(0.5)
    log[1]["b"] = np.array(3)
    assert log[1] == again(log)[1] == {"a": 0.5, "b": 3}
    assert type(log[1]["a"]) is float


def test_bl15_large_values_are_warned_of_once(
    log: TrainingLog, caplog: pytest.LogCaptureFixture
) -> None:
    log[1]["small"] = list(range(100))
    log[1]["text"] = "x" * 10_000
    assert caplog.text == ""
    log[1]["large"] = list(range(5000))
    log[1]["array"] = np.zeros(1000)
    assert caplog.text.count("large values belong into files") == 1


def test_bl16_what_is_read_is_a_copy(log: TrainingLog) -> None:
    log.status["k"] = [1, [2]]
    log[1]["k"] = {"a": [1]}
    log.status["k"].append(3)
    log.status["k"][1].append(3)
    log.status["_epoch_ends"].append(1)
    log[1]["k"]["a"].append(2)
    dict(log[1])["k"]["a"].append(2)
    log[1].get("k")["a"].append(2)
    for value in log[1].values():
        value["a"].append(2)
    assert log.status["k"] == again(log).status["k"] == [1, [2]]
    assert log.status["_epoch_ends"] == []
    assert log[1] == {"k": {"a": [1]}}
    given = [1]
    log.status["k"] = given
    given.append(2)
    assert log.status["k"] == [1]


def test_bl17_a_log_is_a_data_frame(log: TrainingLog) -> None:
    log[1].update({"cost": 0.5, "note": "x"})
    log[3]["cost"] = 0.25
    assert log[2] == {}
    for each in (log, again(log)):
        frame = pd.DataFrame.from_dict(each, orient="index")  # type: ignore[arg-type]
        assert frame.index.tolist() == [1, 3]
        assert set(frame.columns) == {"cost", "note"}
        assert frame.loc[3, "cost"] == 0.25
        assert pd.isna(frame.loc[3, "note"])


def test_a_log_goes_to_a_database_of_blocks_as_it_stands(log: TrainingLog, tmp_path: Path) -> None:
    train(log)
    log[1]["train_cost"] = "text"
    log[1]["train_cost"] = 3
    log[2]["gone"] = 1
    del log[2]["gone"]
    log.close()
    assert log.path is not None
    database = tmp_path / "out.sqlite"
    convert(log.path, database)
    with closing(sqlite3.connect(database)) as connection:
        entries = connection.execute("SELECT time, key, value FROM entries").fetchall()
        status = dict(connection.execute("SELECT key, value FROM status").fetchall())
    found = {(time, key): value for time, key, value in entries}
    assert found[1, "train_cost"] == 3
    assert len(found) == len(entries) == sum(len(row) for row in log.values())
    assert pickle.loads(found[4, "saved_to"]) == ("checkpoint.tar",)
    assert (status["iterations_done"], status["resumed_from"]) == (4, None)
    assert pickle.loads(status["_epoch_ends"]) == [2, 4]
    assert pickle.loads(status["training_started"]) is True


# ---- settings


def test_bl18_the_environment_counts_before_the_file_and_that_before_the_defaults(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_settings() == ("python", "~/blocks_log.sqlite", 4096)
    assert SQLiteLog().log_dir == home / "blocks_log"
    assert type(open_log()) is TrainingLog
    (home / ".blocksrc").write_text("log_backend: sqlite\nmax_blob_size: 10\ndefault_seed: 1\n")
    assert type(open_log()) is SQLiteLog
    assert TrainingLog(tmp_path).max_blob_size == 10
    other = tmp_path / "other.yaml"
    other.write_text(f"sqlite_database: {tmp_path}/from_file.sqlite\n")
    monkeypatch.setenv("BLOCKS_CONFIG", str(other))
    assert read_settings().log_backend == "python"
    assert SQLiteLog().log_dir == tmp_path / "from_file"
    monkeypatch.setenv("BLOCKS_SQLITEDB", str(tmp_path / "from_environment.db"))
    log = SQLiteLog()
    log[1]["a"] = 1
    log.close()
    assert log.log_dir == tmp_path / "from_environment"
    assert content(SQLiteLog(uuid=log.uuid)) == {1: {"a": 1}}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("unknown_key: 1", "unknown key 'unknown_key'"),
        ("log_backend: redis", "python or sqlite"),
        ("max_blob_size: many", "wanted int"),
        ("- a list", "keys and values"),
        ("a: b: c", "no YAML"),
    ],
)
def test_bl18_settings_that_are_none_are_named(home: Path, text: str, wanted: str) -> None:
    (home / ".blocksrc").write_text(text)
    with pytest.raises(ConfigError, match=wanted):
        open_log()
    (home / ".blocksrc").write_text("")
    assert read_settings().log_backend == "python"


def test_a_log_in_memory_goes_with_its_object() -> None:
    log = SQLiteLog(":memory:")
    log[1]["a"] = 1
    folder = log.log_dir
    assert content(again(log)) == {1: {"a": 1}}
    log.close()
    log._folder.cleanup()
    assert not folder.exists()


# ---- the main loop


def train(log: TrainingLog, error: str | None = None) -> None:
    """What Blocks' MainLoop writes."""
    log.status["training_started"] = True
    log.status["epoch_interrupt_received"] = False
    for iteration in range(1, 5):
        log.status["iterations_done"] = iteration
        log.current_row["train_cost"] = 1 / iteration
        if iteration % 2 == 0:
            log.status["epochs_done"] += 1
            log.status["_epoch_ends"] += [iteration]
            log.current_row["saved_to"] = ("checkpoint.tar",)
    if error is None:
        log.current_row["training_finished"] = True
    else:
        log.current_row["got_exception"] = error


def test_bl19_a_finished_training_is_a_completed_run(log: TrainingLog) -> None:
    train(log)
    log.close()
    assert log.path is not None
    run = open_run(log.path)
    assert run.status == "completed"
    assert log[4] == {
        "train_cost": 0.25,
        "saved_to": ("checkpoint.tar",),
        "training_finished": True,
    }
    assert validate(log.path).ok
    pack(log.path)
    found = again(log)
    assert content(found) == content(log)
    assert found.status == log.status
    assert found.status["epoch_interrupt_received"] is False


def test_bl19_an_exception_is_a_failed_run(log: TrainingLog) -> None:
    train(log, 'Traceback (most recent call last):\n  File "x.py"\nValueError: bad batch\n')
    log.close()
    assert log.path is not None
    run = open_run(log.path)
    assert run.status == "failed"
    assert (run.manifest["exception"]["type"], run.manifest["exception"]["message"]) == (
        *("ValueError", "bad batch"),
    )
    assert "x.py" in run.manifest["exception"]["traceback"]


def test_bl19_a_block_that_raises_is_a_failed_run(tmp_path: Path) -> None:
    def run() -> None:
        with log:
            log[1]["a"] = 1
            raise ZeroDivisionError("by zero")

    log = TrainingLog(tmp_path)
    with pytest.raises(ZeroDivisionError):
        run()
    assert log.path is not None
    assert open_run(log.path).manifest["exception"]["type"] == "ZeroDivisionError"


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("log.current_row['training_finished'] = True", "completed"),
        ("log.current_row['got_exception'] = 'KeyError: 3'", "failed"),
        ("pass", "interrupted"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "crashed"),
    ],
)
def test_bl19_a_process_that_ends_leaves_what_the_log_says(
    tmp_path: Path, ending: str, status: str
) -> None:
    code = f"""
        import os, signal, sys
        from blackboxml.frontends.training_log import TrainingLog
        log = TrainingLog(sys.argv[1])
        for step in range(100):
            log[step]["cost"] = step
            log[step]["note"] = str(step)
        {ending}
    """
    child = subprocess.run([sys.executable, "-c", textwrap.dedent(code), tmp_path], check=False)
    assert child.returncode == (-signal.SIGKILL if status == "crashed" else 0)
    (path,) = find_runs(tmp_path)
    run = open_run(path)
    assert run.status == status
    log = TrainingLog(tmp_path, run.id)
    assert len(log) == 100
    assert log[99]["note"] == "99"


def test_bl20_threads_read_and_write(log: TrainingLog) -> None:
    def work(name: str) -> None:
        for step in range(100):
            log[step][name] = step
            log[step][f"{name} text"] = name
            log.status[name] = step
            assert log[step][name] == step
            assert len(list(log)) <= 100

    names = ["a", "b", "c", "d"]
    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in (log, again(log)):
        assert len(each) == 100
        assert each[50] == {key: value for n in names for key, value in ((n, 50), (f"{n} text", n))}
        assert all(each.status[name] == 99 for name in names)


# ---- cost: what grows is counted, not timed


def test_bl24_the_ends_of_epochs_are_not_written_again_and_again(log: TrainingLog) -> None:
    for epoch in range(500):
        log.status["_epoch_ends"] = [*log.status["_epoch_ends"], epoch * 10]
    assert log.path is not None
    size = (log.path / "media.jsonl").stat().st_size
    assert size < 500 * 200
    assert again(log).status["_epoch_ends"] == [epoch * 10 for epoch in range(500)]
    log.status["_epoch_ends"] = [1, 2]
    log.status["_epoch_ends"] = [1, 3, 4]
    log[1]["list"] = [1]
    log[1]["list"] = [1, math.inf, "x"]
    assert again(log).status["_epoch_ends"] == [1, 3, 4]
    assert again(log)[1]["list"] == [1, math.inf, "x"]


def test_bl24_a_value_is_read_without_looking_at_ancestors(
    log: TrainingLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    for generation in range(6):
        log[generation]["a"] = generation
        log.resume()
    log[6]["a"] = 6
    from blackboxml.frontends.training_log import log as module

    reads: list[Path] = []
    genuine = module.open_run
    monkeypatch.setattr(module, "open_run", lambda path: reads.append(path) or genuine(path))
    found = again(log)
    assert len(reads) == 7
    assert [found[time]["a"] for time in found] == list(range(7))
    assert len(reads) == 7
