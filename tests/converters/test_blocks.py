"""Blocks' training log: lineages, every kind of value, pickles that are never run, and back."""

from __future__ import annotations

import io
import json
import math
import os
import pickle
import shutil
import sqlite3
import tarfile
import tempfile
from collections import OrderedDict
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blackboxml import open_run
from blackboxml.conversion import convert
from blackboxml.converters import blocks
from blackboxml.converters.blocks.pickles import UnsafePickleError, load, simplify
from blackboxml.converters.blocks.value import Values, freeze
from blackboxml.errors import ConversionError, FormatError
from blackboxml.foreign.interchange import Ledger, Medium, Point
from blackboxml.foreign.values import from_npy
from blackboxml.frontends.training_log import TrainingLog
from blackboxml.writer import RunWriter

DATA = Path(__file__).parent / "data" / "blocks"
SAMPLE = DATA / "blocks_log.sqlite"
EXPECTED = json.loads((DATA / "expected.json").read_text())["blocks_log.sqlite"]
LEAF = "3a97e51faec74fbaaf8da3acb1c855fe"


# Blocks needs Theano and an old Python. This is `blocks.log.sqlite` as far as it stores and reads,
# with its own queries.

ANCESTORS = """
WITH parents (parent, child) AS (
    SELECT uuid, value FROM status WHERE key = 'resumed_from' AND uuid = ?
    UNION ALL
    SELECT uuid, value FROM status INNER JOIN parents ON status.uuid = parents.child
    WHERE key = 'resumed_from'
),
ancestors AS (SELECT parent FROM parents)
"""


class SQLiteLog:
    def __init__(self, database: Path, uuid: UUID | None = None) -> None:
        self.connection = sqlite3.connect(database, isolation_level=None)
        self.connection.execute(
            "CREATE TABLE IF NOT EXISTS entries (uuid TEXT NOT NULL, time INT NOT NULL, "
            '"key" TEXT NOT NULL, value, PRIMARY KEY(uuid, time, "key"))'
        )
        self.connection.execute(
            'CREATE TABLE IF NOT EXISTS status (uuid TEXT NOT NULL, "key" text NOT NULL, value, '
            'PRIMARY KEY(uuid, "key"))'
        )
        self.uuid = (uuid or uuid4()).hex
        if uuid is None:
            for key, value in {
                "iterations_done": 0,
                "epochs_done": 0,
                "_epoch_ends": [],
                "resumed_from": None,
            }.items():
                self.set_status(key, value)

    @staticmethod
    def adapt(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return float(value) if value.ndim == 0 else pickle.dumps(value)
        plain = value is None or isinstance(value, (int, float, str, bytes))
        return value if plain and not isinstance(value, np.generic) else pickle.dumps(value)

    def set_status(self, key: str, value: Any) -> None:
        self.connection.execute(
            "INSERT OR REPLACE INTO status VALUES (?, ?, ?)", (self.uuid, key, self.adapt(value))
        )

    def put(self, time: int, key: str, value: Any) -> None:
        self.connection.execute(
            "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)",
            (self.uuid, time, key, self.adapt(value)),
        )

    def resume(self) -> None:
        rows = self.connection.execute(
            "SELECT key, value FROM status WHERE uuid = ?", (self.uuid,)
        ).fetchall()
        old, self.uuid = self.uuid, uuid4().hex
        for key, value in rows:
            self.connection.execute(
                "INSERT OR REPLACE INTO status VALUES (?, ?, ?)", (self.uuid, key, value)
            )
        self.set_status("resumed_from", old)

    def __iter__(self) -> Any:
        query = ANCESTORS + (
            "SELECT DISTINCT time FROM entries WHERE uuid IN ancestors ORDER BY time ASC"
        )
        return (row[0] for row in self.connection.execute(query, (self.uuid,)).fetchall())

    def row(self, time: int) -> dict[str, Any]:
        query = ANCESTORS + "SELECT key FROM entries WHERE uuid IN ancestors AND time = ?"
        keys = [row[0] for row in self.connection.execute(query, (self.uuid, time)).fetchall()]
        value = ANCESTORS + (
            "SELECT value FROM entries JOIN ancestors ON entries.uuid = ancestors.parent "
            "WHERE uuid IN ancestors AND time = ? AND key = ?"
        )
        return {
            key: self.unpickle(
                key, self.connection.execute(value, (self.uuid, time, key)).fetchone()[0]
            )
            for key in keys
        }

    @staticmethod
    def unpickle(key: str, value: Any) -> Any:
        return pickle.loads(value) if isinstance(value, bytes) and key != "resumed_from" else value

    def status(self) -> dict[str, Any]:
        rows = self.connection.execute(
            "SELECT key, value FROM status WHERE uuid = ?", (self.uuid,)
        ).fetchall()
        return {key: self.unpickle(key, value) for key, value in rows}


def read_all(path: Path) -> list[tuple[Any, list[Any], Ledger]]:
    found = []
    for run in blocks.read(path):
        ledger = Ledger()
        found.append((run, list(run.items(ledger)), ledger))
    return found


def rows_of(items: list[Any]) -> dict[int, dict[str, Any]]:
    """What was logged, by time and key, as items say it."""
    rows: dict[int, dict[str, Any]] = {}
    for item in items:
        row = rows.setdefault(item.step, {})
        if isinstance(item, Point):
            row.update(item.metrics)
        elif item.kind == "array":
            row[item.name] = from_npy(item.data)
        elif item.kind == "event":
            row[item.name] = item.value["value"]
        else:
            row[item.name] = item.value if item.data is None else item.data
    return rows


def same(left: Any, right: Any) -> bool:
    if isinstance(left, np.ndarray) or isinstance(right, np.ndarray):
        return np.array_equal(left, right, equal_nan=True) and left.dtype == right.dtype
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if type(left) is float and math.isnan(left):
        return type(right) is float and math.isnan(right)
    return type(left) is type(right) and left == right


# The samples.


def test_the_sample_is_one_run_with_what_is_expected() -> None:
    assert blocks.recognise(SAMPLE)
    [(run, items, ledger)] = read_all(SAMPLE)
    expected = EXPECTED["leaves"][run.extra["uuid"]]
    rows = rows_of(items)
    assert (run.key, run.lineage["root"]) == (LEAF, expected["root"])
    assert run.lineage["count"] == len(run.lineage["ancestors"]) == expected["ancestors"]
    assert run.lineage["parent"] == expected["status"]["resumed_from"]
    status = dict(expected["status"], _epoch_ends=[4])
    assert run.extra["status"] == status
    assert (len(rows), min(rows), max(rows)) == (
        expected["n_times"],
        expected["first_time"],
        expected["last_time"],
    )
    assert sorted({key for row in rows.values() for key in row}) == expected["keys"]
    assert rows[4]["cost"] == 999.0  # that of the younger log
    assert ledger.total("lost", "scalar") == 2  # the older value, and the row of no log
    assert run.extra["orphans"] == {"79867104c1d5409e8057a25bc77a5dd1": 1}


def test_each_value_of_the_sample_is_of_its_type() -> None:
    [(_, items, _)] = read_all(SAMPLE)
    row = rows_of(items)[4]
    large = row.pop("large")
    assert large == list(range(len(large)))
    assert same(
        row,
        {
            "cost": 999.0,
            "acc": 0.4,
            "np32": 0.5,
            "np0d": 2.5,
            "arr": np.array([0.0, 1.0, 2.0]),
            "text": "héllo",
            "flag": 1,
            "none": None,
            "int": 7,
            "npint": 9,
            "nan": None,
            "inf": math.inf,
            "tuple": {"$tuple": ["a", "b"]},
            "dict": {"k": [1, 2]},
            "bytes": b"raw",
        },
    )


def test_a_pickled_log_is_read() -> None:
    path = DATA / "training_log_dict.pkl"
    assert blocks.recognise(path)
    [(run, items, _)] = read_all(path)
    assert rows_of(items) == {0: {"cost": 1.0, "lr": 0.1}, 3: {"cost": 0.5}}
    assert run.lineage["parent"] == "102f0b13d6764c8c9aa6eea60cc81bf2"
    assert run.extra["uuid"] == f"{197739866868510029185366891477525879102:032x}"


def test_a_checkpoint_has_its_log_as_a_member(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.tar"
    data = (DATA / "training_log_dict.pkl").read_bytes()
    with tarfile.open(path, "w") as tar:
        for name, content in {"_pkl": b"cos\nsystem\n.", "../log": b"x", "log": data}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    assert blocks.recognise(path)
    [(run, items, _)] = read_all(path)
    assert run.name == "checkpoint-94c350"
    assert rows_of(items)[3] == {"cost": 0.5}
    assert [each.name for each in tmp_path.iterdir()] == ["checkpoint.tar"]


def test_samples_convert_once(tmp_path: Path) -> None:
    report = convert(DATA, tmp_path / "out", verify=True)
    assert report.ok, [run.differences for run in report.runs]
    assert [run.source_format for run in report.runs] == ["blocks", "blocks"]
    again = convert(DATA, tmp_path / "out")
    assert [run.outcome for run in again.runs] == ["unchanged", "unchanged"]
    with closing(sqlite3.connect(":memory:")):
        copy = tmp_path / "copy.sqlite"
        shutil.copy(SAMPLE, copy)
    before = next(blocks.read(copy)).fingerprint
    with closing(sqlite3.connect(copy)) as connection:
        connection.execute("VACUUM")
    assert next(blocks.read(copy)).fingerprint == before
    with closing(sqlite3.connect(copy)) as connection:
        connection.execute("UPDATE entries SET value = 2.0 WHERE time = 0 AND key = 'cost'")
        connection.commit()
    assert next(blocks.read(copy)).fingerprint != before


# Lineages.


def test_two_branches_of_one_checkpoint_are_two_runs_of_one_lineage(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    log = SQLiteLog(path)
    branches = []
    for time in range(10):
        log.put(time, "cost", float(time))
    root = log.uuid
    for branch in range(2):
        child = SQLiteLog(path, UUID(root))
        child.resume()
        for epoch in range(3):  # a checkpoint each time
            child.put(10 + epoch, "cost", 100.0 * branch + epoch)
            child.resume()
        branches.append(child)
    runs = {run.key: rows_of(items) for run, items, _ in read_all(path)}
    assert runs.keys() == {child.uuid for child in branches}
    for child in branches:
        assert list(runs[child.uuid]) == list(child)
        for time in child:
            assert runs[child.uuid][time] == child.row(time)
    lineages = [run.lineage for run, _, _ in read_all(path)]
    assert [each["root"] for each in lineages] == [root, root]


def test_a_crash_and_an_end_are_statuses(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    crashed, ended, resumed = (SQLiteLog(path) for _ in range(3))
    text = 'Traceback (most recent call last):\n  File "x", line 1\nValueError: no: way\n'
    for log in (crashed, resumed):
        log.put(8, "got_exception", text)
    ended.put(9, "training_finished", True)
    resumed.resume()
    resumed.put(9, "cost", 1.0)
    found = {run.key: run for run, _, _ in read_all(path)}
    assert found[crashed.uuid].status == "failed"
    assert found[crashed.uuid].exception == {
        "type": "ValueError",
        "message": "no: way",
        "traceback": text,
    }
    assert found[ended.uuid].status == "completed"
    assert found[resumed.uuid].status is None
    report = convert(path, tmp_path / "out")
    assert report.ok
    statuses = sorted(open_run(run.target).status for run in report.runs)
    assert statuses == ["completed", "failed", "interrupted"]


def test_a_lineage_that_bites_its_tail_ends(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    first, second = SQLiteLog(path), SQLiteLog(path)
    first.set_status("resumed_from", second.uuid)
    second.set_status("resumed_from", first.uuid)
    first.put(0, "a", 1.0)
    second.put(0, "b", 2.0)
    [(_, items, _)] = read_all(path)
    assert rows_of(items) == {0: {"a": 1.0, "b": 2.0}}


def test_a_log_without_a_status_is_a_run_if_there_is_no_other(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    log = SQLiteLog(path, UUID(int=5))
    log.put(0, "x", 1)
    [(run, items, _)] = read_all(path)
    assert (run.key, rows_of(items)) == (UUID(int=5).hex, {0: {"x": 1}})


def test_hundreds_of_ancestors_are_followed(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    log = SQLiteLog(path)
    log.connection.execute("PRAGMA synchronous=OFF")
    for time in range(300):
        log.put(time, "cost", float(time))
        log.resume()
    [(run, items, _)] = read_all(path)
    assert run.lineage["count"] == 300
    assert rows_of(items) == {time: {"cost": float(time)} for time in range(300)}


# Hostile and odd values.


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.place}",)


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_in_a_pickle_is_run(protocol: int, tmp_path: Path) -> None:
    mark, path = tmp_path / "HACKED", tmp_path / "log.sqlite"
    bomb = pickle.dumps({"a": Bomb(mark)}, protocol)
    log = SQLiteLog(path)
    log.put(0, "bomb", bomb)
    log.put(1, "cost", 0.5)
    log.set_status("bad", bomb)
    raw = (DATA / "training_log_dict.pkl").read_bytes()
    evil = raw.replace(b"cuuid\nUUID\n", b"cos\nsystem\n").replace(
        b"cnumpy.core.multiarray\nscalar", b"cnumpy.core.multiarray\neval"
    )
    (tmp_path / "log.pkl").write_bytes(evil)
    for source in (path, tmp_path / "log.pkl"):
        for run, items, ledger in read_all(source):
            assert run.name
            if source == path:
                assert rows_of(items) == {0: {"bomb": bomb}, 1: {"cost": 0.5}}
                assert ledger.total("unreadable", "artifact") == 1
    report = convert(tmp_path, tmp_path / "out")
    assert len(report.runs) == 2
    assert not mark.exists()
    media = [each for run in report.runs for each in open_run(run.target).media()]
    assert [each.kind for each in media if each.name == "bomb"] == ["artifact"]


BOMBS = {
    "a list of lists of lists": b"]" + b"".join(b"(" + b"2" * 9 + b"l" for _ in range(60)) + b".",
    "shared lists": b"".join(
        [
            b"\x80\x02]q\x00(K\x01K\x01e",
            *(b"]q%c(%se" % (at, (b"h%c" % (at - 1)) * 50) for at in range(1, 40)),
            b".",
        ]
    ),
    "a key nested deep": b"}" + b"N" + b"\x85" * 200_000 + b"Ns.",
    "a set nested deep": b"\x80\x04\x8f(N" + b"\x85" * 200_000 + b"\x90.",
    "a value nested deep": b"N" + b"\x85" * 200_000 + b".",
    "a memo far away": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "a length of gigabytes": b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fx.",
    "an array of terabytes": pickle.dumps(np.zeros(3), 2).replace(
        b"K\x03\x85", b"\x8a\x06\xff\xff\xff\xff\xff\x7f\x85"
    ),
    "a list in itself": b"]q\x00h\x00a.",
    "no value": b".",
    "a state of nothing": b"NNb.",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_pickle_bomb_does_not_go_off(name: str) -> None:
    values = Values(Ledger())
    value = values.decode(BOMBS[name])
    assert value is None or isinstance(value, bytes)


@given(st.binary(max_size=60))
@settings(max_examples=300)
def test_any_bytes_are_a_value_or_refused(data: bytes) -> None:
    for pickled in (data, b"\x80\x04" + data + b"."):
        with suppress(UnsafePickleError):
            simplify(load(pickled))


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inside: (
        st.lists(inside, max_size=3)
        | st.tuples(inside, inside)
        | st.dictionaries(st.text(max_size=3) | st.integers(0, 9), inside, max_size=3)
    ),
    max_leaves=8,
)


@given(PLAIN, st.integers(0, 5))
def test_what_needs_no_class_is_unpickled_as_python_does(value: Any, protocol: int) -> None:
    assert repr(simplify(load(pickle.dumps(value, protocol)))) == repr(value)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "value",
    [
        np.float32(1.5),
        np.float64("nan"),
        np.int64(-7),
        np.bool_(True),
        np.uint8(255),
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.array([1, 2], ">f4"),
        np.zeros((0, 2)),
        OrderedDict(a=1),
        {1, 2},
        frozenset(["a"]),
        1 + 2j,
        bytearray(b"xy"),
    ],
    ids=repr,
)
def test_numbers_arrays_and_containers_are_understood(value: Any, protocol: int) -> None:
    found = simplify(load(pickle.dumps(value, protocol)))
    if isinstance(value, np.ndarray):
        assert same(found, value)
    elif isinstance(value, np.generic):
        assert found.dtype == value.dtype
        assert found.tobytes() == value.tobytes()
    else:
        assert found == value


def test_a_pickle_of_python_2_is_understood() -> None:
    # numpy.float32(0.5) and {'k': [1, 'x']} by cPickle of Python 2.7, protocol 0 and 2
    scalar = (
        b"cnumpy.core.multiarray\nscalar\np1\n(cnumpy\ndtype\np2\n(S'f4'\nI0\nI1\ntRp3\n"
        b"(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbS'\\x00\\x00\\x00?'\ntRp4\n."
    )
    assert simplify(load(scalar)) == np.float32(0.5)
    assert simplify(load(b"\x80\x02}q\x01U\x01kq\x02]q\x03(K\x01U\x01xes.")) == {"k": [1, "x"]}


def test_numbers_that_are_pickled_alike_are_found_at_once() -> None:
    values = Values(Ledger())
    for number in (0.5, -1.25, math.inf, 3.0):
        for kind in (np.float32, np.float64, np.int64):
            if not (kind is np.int64 and math.isinf(number)):
                value = values.decode(pickle.dumps(kind(number)))
                assert (value, type(value)) == (kind(number), kind)
    assert len(values._templates) == 3


def test_views_triggers_and_huge_values_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    log = SQLiteLog(path)
    for time in range(3):
        log.put(time, "cost", float(time))
    log.connection.execute("UPDATE entries SET value = zeroblob(100000000) WHERE time = 1")
    log.connection.execute("CREATE TRIGGER t AFTER INSERT ON entries BEGIN SELECT 1; END")
    [(_, items, ledger)] = read_all(path)
    assert rows_of(items) == {0: {"cost": 0.0}, 2: {"cost": 2.0}}
    assert ledger.total("unreadable", "scalar") == 1
    log.connection.execute("ALTER TABLE entries RENAME TO others")
    log.connection.execute("CREATE VIEW entries AS SELECT * FROM others")
    assert not blocks.recognise(path)


def test_times_and_keys_of_odd_types_are_read_or_told(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    log = SQLiteLog(path)
    for time, key in ((np.int64(4).tobytes(), "a"), (5.0, "b"), ("six", "c"), (-1, "d"), (7, "/e")):
        log.connection.execute("INSERT INTO entries VALUES (?, ?, ?, 1.5)", (log.uuid, time, key))
    [(_, items, ledger)] = read_all(path)
    assert rows_of(items) == {-1: {"d": 1.5}, 5: {"b": 1.5}, 7: {"e": 1.5}, 4: {"a": 1.5}}
    assert ledger.total("unreadable", "step") == 1
    assert ledger.total("changed", "field") == 1


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_damaged_log_gives_what_is_left_or_its_own_error(data: Any) -> None:
    source = data.draw(st.sampled_from(["blocks_log.sqlite", "training_log_dict.pkl"]))
    content = bytearray((DATA / source).read_bytes())
    for _ in range(data.draw(st.integers(1, 20))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / source
        path.write_bytes(content)
        blocks.recognise(path)
        try:
            for _, items, _ in read_all(path):
                assert all(isinstance(item, (Point, Medium)) for item in items)
        except FormatError:
            pass


def test_what_is_no_log_is_refused(tmp_path: Path) -> None:
    for name, content in {"a": b"", "b": b"\x80\x04N.", "c.tar": b"x" * 1024}.items():
        (tmp_path / name).write_bytes(content)
        assert not blocks.recognise(tmp_path / name)
        with pytest.raises(FormatError):
            list(blocks.read(tmp_path / name))
    assert not blocks.recognise(tmp_path)


# Writing.


def test_blocks_reads_what_is_written(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path / "runs", "full", tags=["t"], start=1795270921.25)
    writer.log({"cost": 0.5, "n": 2**62, "ok": True}, 0, {"cost": {"mean": 1.5}})
    writer.log({"cost": math.nan, "up": math.inf}, 7)
    writer.log({"cost": 9.0}, 7)
    writer.log({"cost": 1.0}, -1)
    writer.log_media("note", "text", 7, value="héllo")
    writer.log_media("t", "event", 7, value={"value": {"$tuple": ["a", None]}})
    writer.log_media("raw", "artifact", 7, data=b"bytes")
    writer.log_media("h", "histogram", 7, value={"edges": [0.0, "Infinity"], "counts": [3]})
    array = io.BytesIO()
    np.save(array, np.arange(3.0))
    writer.log_media("arr", "array", 8, data=array.getvalue())
    writer.log_media("pic", "image", 8, data=b"png", media_type="image/png")
    writer.finish("completed")
    [report] = convert(writer.path, tmp_path / "log.sqlite", verify=True).runs
    assert report.target_format == "blocks"
    assert report.ok, report.differences
    log = SQLiteLog(tmp_path / "log.sqlite", UUID(open_run(writer.path).id))
    assert list(log) == [0, 7, 8]
    assert same(log.row(0), {"cost": 0.5, "n": 2**62, "ok": True, "cost/mean": 1.5})
    row = log.row(7)
    assert same(
        row,
        {
            "cost": 9.0,
            "up": math.inf,
            "note": "héllo",
            "t": ("a", None),
            "raw": b"bytes",
            "h": {"edges": [0.0, math.inf], "counts": [3]},
        },
    )
    assert same(log.row(8), {"arr": np.arange(3.0)})
    status = log.status()
    assert (status["iterations_done"], status["resumed_from"]) == (8, None)
    assert (status["epochs_done"], status["_epoch_ends"]) == (0, [])
    lost = {(remark.effect, remark.kind) for remark in report.remarks}
    assert {
        ("lost", "time"),
        ("lost", "scalar"),
        ("lost", "image"),
        ("changed", "histogram"),
    } <= lost


def test_the_sample_goes_back_as_it_was(tmp_path: Path) -> None:
    imported = convert(SAMPLE, tmp_path / "runs").runs[0].target
    [report] = convert(imported, tmp_path / "back.sqlite", verify=True).runs
    assert report.ok, report.differences
    found = SQLiteLog(tmp_path / "back.sqlite", UUID(open_run(imported).id))
    wanted = SQLiteLog(SAMPLE, UUID(LEAF))
    assert list(found) == list(wanted)
    for time in wanted:
        wanted_row = {}
        for key in found.row(time):
            query = (
                "SELECT value FROM entries WHERE time = ? AND key = ? AND uuid != "
                "'79867104c1d5409e8057a25bc77a5dd1' ORDER BY rowid DESC"
            )
            (value,) = wanted.connection.execute(query, (time, key)).fetchone()
            wanted_row[key] = value if value == b"raw" else wanted.unpickle(key, value)
        plain = {
            key: value.item() if isinstance(value, np.generic) else value
            for key, value in wanted_row.items()
        }
        assert same(found.row(time), plain)
    assert found.status()["_epoch_ends"] == [4]
    assert found.status()["iterations_done"] == 7


def test_several_runs_share_a_log_and_come_again_once(tmp_path: Path) -> None:
    for number in range(2):
        writer = RunWriter.create(tmp_path / "runs", f"r{number}", tags=["x"])
        writer.log({"cost": float(number)}, 3)
        writer.finish("failed", {"type": "ValueError", "message": "no"})
    for _ in range(2):
        assert convert(tmp_path / "runs", tmp_path / "log.sqlite", verify=True).ok
    with closing(sqlite3.connect(tmp_path / "log.sqlite")) as connection:
        assert connection.execute("SELECT count(*) FROM entries").fetchone() == (2,)
        assert connection.execute("SELECT count(*) FROM status").fetchone() == (10,)
    back = [open_run(run.target) for run in convert(tmp_path / "log.sqlite", tmp_path / "b").runs]
    assert {run.name: run.tags for run in back} == {"r0": ["x"], "r1": ["x"]}
    assert {run.status for run in back} == {"failed"}


def test_another_database_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "x.sqlite").write_bytes(b"something else")
    writer = RunWriter.create(tmp_path, "x")
    writer.finish("completed")
    with pytest.raises(ConversionError, match="not a database"):
        blocks.write(open_run(writer.path), tmp_path / "x.sqlite", Ledger(), {})
    assert (tmp_path / "x.sqlite").read_bytes() == b"something else"


@given(PLAIN)
def test_a_frozen_value_is_what_blocks_reads(value: Any) -> None:
    stored = freeze(value)
    with closing(sqlite3.connect(":memory:")) as connection:
        (found,) = connection.execute("SELECT ?", (stored,)).fetchone()
    assert repr(SQLiteLog.unpickle("x", found)) == repr(value)


def test_arrays_are_pickled_for_any_numpy() -> None:
    data = freeze(np.arange(3.0))
    assert b"numpy._core" not in data
    assert same(pickle.loads(data), np.arange(3.0))


METRICS = st.dictionaries(
    st.sampled_from(["cost", "train/cost", "é"]),
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(),
    min_size=1,
)


@settings(max_examples=20, deadline=None)
@given(st.lists(METRICS, max_size=8))
def test_any_history_comes_back(points: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        writer = RunWriter.create(folder, "any", sync="none")
        for step, metrics in enumerate(points):
            writer.log(metrics, step)
        writer.finish("completed")
        [report] = convert(writer.path, Path(folder) / "x.sqlite", verify=True).runs
        assert report.ok, report.differences
        assert report.went_out["scalar"] == sum(map(len, points))


def test_a_pickle_that_names_by_what_is_no_text_is_refused() -> None:
    doubling = b"\x80\x02" + b"c" + b"a\nb\n" + b"\x8c\x01x" + b"2\x93" * 40 + b"."
    with pytest.raises(UnsafePickleError, match="no text"):
        load(doubling)


def test_a_training_log_that_is_exported_is_verified(tmp_path: Path) -> None:
    with TrainingLog(tmp_path / "runs") as log:
        for time in range(6):
            log[time]["cost"] = 1 / (time + 1)
            log[time]["note"] = f"time {time}"
            log.status["iterations_done"] = time
        log[2]["cost"] = 3
        del log[4]["note"]
        log.status["note"] = "a text"
        log.status["_epoch_ends"] = [2, 5]
        log.status["gone"] = 1.5
        del log.status["gone"]
    report = convert(tmp_path / "runs", tmp_path / "out.db", target_format="blocks", verify=True)
    (run,) = report.runs
    assert (report.ok, run.verified, run.differences) == (True, True, [])
