"""simplegrad's Tracker: its databases in, and databases out that its own queries read."""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from blackboxml import open_run
from blackboxml.conversion import convert
from blackboxml.converters import simplegrad
from blackboxml.errors import ConversionError, FormatError
from blackboxml.foreign.interchange import Ledger, Medium, Point
from blackboxml.writer import RunWriter

DATA = Path(__file__).parent / "data" / "simplegrad"
EXPECTED = json.loads((DATA / "expected.json").read_text())


def items_of(path: Path, key: str = "1") -> tuple[Any, list[Any], Ledger]:
    ledger = Ledger()
    [run] = [run for run in simplegrad.read(path) if run.key == key]
    return run, list(run.items(ledger)), ledger


# What follows are the tables and queries of ExperimentDBManager (exp_db_manager.py of simplegrad),
# which is not on PyPI: first how it makes a database and records, then how SimpleBoard reads.


def make(path: Path) -> sqlite3.Connection:
    """A database with the tables of the sample, which simplegrad itself made."""
    connection = sqlite3.connect(path)
    with closing(sqlite3.connect(DATA / "mnist.db")) as sample:
        for (sql,) in sample.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"):
            if "sqlite_sequence" not in sql:
                connection.execute(sql)
    connection.commit()
    return connection


def start(connection: sqlite3.Connection, name: str, config: str = "{}") -> int:
    cursor = connection.execute(
        "INSERT INTO runs (name, created_at, status, config) VALUES (?, ?, ?, ?)",
        (name, 1795233631.5, "running", config),
    )
    return int(cursor.lastrowid or 0)


def record(connection: sqlite3.Connection, run: int, name: str, step: Any, value: Any) -> None:
    connection.execute("INSERT OR IGNORE INTO metrics (name) VALUES (?)", (name,))
    query = "SELECT id FROM metrics WHERE name = ?"
    metric = connection.execute(query, (name,)).fetchone()[0]
    connection.execute(
        "INSERT INTO records (run_id, metric_id, step, value, wall_time) VALUES (?, ?, ?, ?, ?)",
        (run, metric, step, value, 1795233632.25),
    )


def board(path: Path) -> dict[str, dict[str, Any]]:
    """What SimpleBoard shows of each run, by name."""
    shown = {}
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        ask = connection.execute
        for run in ask("SELECT * FROM runs ORDER BY created_at DESC").fetchall():
            names = ask(
                "SELECT DISTINCT m.name FROM records r JOIN metrics m ON r.metric_id = m.id "
                "WHERE r.run_id = ?",
                (run["id"],),
            ).fetchall()
            records = {
                row["name"]: [
                    tuple(each)
                    for each in ask(
                        "SELECT r.step, r.value, r.wall_time FROM records r "
                        "JOIN metrics m ON r.metric_id = m.id "
                        "WHERE r.run_id = ? AND m.name = ? ORDER BY r.step",
                        (run["id"], row["name"]),
                    )
                ]
                for row in names
            }
            texts = ask(
                "SELECT name, step, content, wall_time FROM texts WHERE run_id = ? ORDER BY step",
                (run["id"],),
            )
            histograms = ask(
                "SELECT name, step, bucket_edges, bucket_counts, wall_time FROM histograms "
                "WHERE run_id = ? ORDER BY step",
                (run["id"],),
            )
            images = ask(
                "SELECT name, step, width, height, channels, image_data, wall_time FROM images "
                "WHERE run_id = ? ORDER BY step",
                (run["id"],),
            )
            graphs = ask("SELECT graph_json FROM graphs WHERE run_id = ?", (run["id"],))
            shown[run["name"]] = {
                "status": run["status"],
                "created_at": run["created_at"],
                "config": json.loads(run["config"]),
                "records": records,
                "texts": [tuple(row) for row in texts],
                "histograms": [
                    (row[0], row[1], json.loads(row[2]), json.loads(row[3]), row[4])
                    for row in histograms
                ],
                "images": [tuple(row) for row in images],
                "graphs": [json.loads(row[0]) for row in graphs],
            }
    return shown


@pytest.mark.parametrize("name", EXPECTED)
def test_each_sample_holds_what_is_expected(name: str) -> None:
    path = DATA / name
    assert simplegrad.recognise(path)
    found = {}
    for run in simplegrad.read(path):
        ledger = Ledger()
        items = list(run.items(ledger))
        assert not ledger.total("unreadable", "scalar")
        metrics: dict[str, Any] = {}
        for item in items:
            if isinstance(item, Point):
                for metric, value in item.metrics.items():
                    metrics.setdefault(metric, []).append((item.step, value))
        kinds = [item.kind for item in items if isinstance(item, Medium)]
        found[run.key] = {
            "name": run.name,
            "status": run.status or run.extra["status"],
            "config": run.config,
            "metrics": {
                metric: {
                    "n": len(rows),
                    "value_types": ["real"],
                    "step_types": "integer",
                    "first": str(rows[0][1]),
                    "last_inserted": str(rows[-1][1]),
                    "steps_in_insert_order": [str(step) for step, _ in rows],
                }
                for metric, rows in metrics.items()
            },
            "graphs": kinds.count("graph"),
            "histograms": kinds.count("histogram"),
            "images": kinds.count("image"),
            "texts": kinds.count("text"),
        }
    assert found == EXPECTED[name]["runs"]
    first = next(simplegrad.read(path))
    names = first.extra.get("orphan_metric_names", [])
    assert names == EXPECTED[name]["orphan_metric_names"]


def test_values_and_times_are_those_of_the_rows() -> None:
    _, items, ledger = items_of(DATA / "mnist.db")
    with closing(sqlite3.connect(DATA / "mnist.db")) as connection:
        rows = connection.execute(
            "SELECT m.name, r.step, r.value, r.wall_time FROM records r "
            "JOIN metrics m ON m.id = r.metric_id WHERE run_id = 1 ORDER BY r.id"
        ).fetchall()
        images = connection.execute(
            "SELECT name, step, width, height, channels, image_data, wall_time FROM images"
        ).fetchall()
        histograms = connection.execute(
            "SELECT name, step, bucket_edges, bucket_counts, wall_time FROM histograms"
        ).fetchall()
    points = [item for item in items if isinstance(item, Point)]
    assert [
        (name, point.step, value, point.time)
        for point in points
        for name, value in point.metrics.items()
    ] == rows
    media = [item for item in items if isinstance(item, Medium)]
    found = []
    for medium in media:
        if medium.kind == "image":
            image = Image.open(io.BytesIO(medium.data or b""))
            data, count = image.tobytes(), len(image.getbands())
            found.append((medium.name, medium.step, *image.size, count, data, medium.time))
    assert found == images
    assert [
        (each.name, each.step, each.value["edges"], each.value["counts"], each.time)
        for each in media
        if each.kind == "histogram"
    ] == [(*row[:2], json.loads(row[2]), json.loads(row[3]), row[4]) for row in histograms]
    times = [item.time for item in items]
    assert times == sorted(times)
    assert ledger.total("made", "step") == 1  # that of the computation graph


def test_a_poisoned_run_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "poison.db"
    with closing(make(path)) as connection:
        run = start(connection, "poison")
        rows = [
            ("f32", 0, np.float32(0.25), 0.25),
            ("f16", 0, np.float16(1.5), 1.5),
            ("i64", 1, np.int64(7), 7),
            ("i64", 2, np.int64(-(2**61)), -(2**61)),
            ("i32", 1, np.int32(-5), -5),
            ("flag", 1, np.bool_(True), True),
            ("array", 1, np.array(0.5), 0.5),
            ("text", 2, "hello", "hello"),
            ("number", 2, "0.5", 0.5),
            ("int", np.int64(9), 3, 3.0),
            ("half", 1.5, 4.0, 4.0),
            ("big", 1, b"\x00" * 7, b"\x00" * 7),
            ("inf", 1, math.inf, math.inf),
        ]
        for name, step, value, _ in rows:
            record(connection, run, name, step, value)
        connection.commit()
        stored = connection.execute("SELECT hex(value) FROM records WHERE id = 1").fetchone()
        assert stored == ("0000803E",)
    found, items, ledger = items_of(path)
    assert (found.status, found.extra["status"]) == (None, "running")
    values = {}
    for item in items:
        if isinstance(item, Point):
            values |= {(name, item.step): value for name, value in item.metrics.items()}
        else:
            values[item.name, item.step] = item.value if item.data is None else item.data
    steps = {"int": 9, "half": 1}
    assert values == {(name, steps.get(name, int(step))): right for name, step, _, right in rows}
    assert ledger.total("changed", "step") == 2  # the bytes of 9, the half of 1.5
    assert ledger.total("changed", "scalar") == 7
    report = convert(path, tmp_path / "out", verify=True)
    assert report.ok, report.runs[0].differences


def test_what_is_no_image_graph_or_histogram_is_kept_and_told(tmp_path: Path) -> None:
    path = tmp_path / "odd.db"
    with closing(make(path)) as connection:
        run = start(connection, "odd", "{not json")
        insert = connection.execute
        insert("INSERT INTO images VALUES (1, ?, 'i', 0, 5, 5, 3, x'00', 1.0)", (run,))
        insert("INSERT INTO images VALUES (2, ?, 'five', 0, 1, 1, 5, x'0102030405', 1.0)", (run,))
        insert("INSERT INTO images VALUES (3, ?, 'text', 0, 1, 1, 1, 'x', 1.0)", (run,))
        insert("INSERT INTO histograms VALUES (1, ?, 'h', 0, '[1]', 'oops', 2.0)", (run,))
        insert("INSERT INTO histograms VALUES (2, ?, 'n', 0, '[0, NaN]', '[1]', 2.5)", (run,))
        insert("INSERT INTO graphs VALUES (1, ?, '[]', 3.0)", (run,))
        insert("INSERT INTO texts VALUES (1, ?, '/t/', 'x', x'ff', 'soon')", (run,))
        insert("INSERT INTO texts VALUES (2, ?, 'late', 0, 'x', 9e999)", (run,))
        record(connection, run, "loss", 0, 0.5)
        insert("UPDATE records SET wall_time = 9e999")
        surrogate = json.dumps({"nodes": [{"id": "\ud800"}], "edges": [math.nan, 2.5]})
        insert("INSERT INTO graphs VALUES (2, 99, ?, 3.0)", (surrogate,))
        insert("UPDATE graphs SET run_id = run_id + 100")
        insert("UPDATE graphs SET run_id = ? WHERE id = 2", (run,))
        connection.commit()
    found, items, ledger = items_of(path)
    by = {item.name: item for item in items if isinstance(item, Medium)}
    assert by.keys() == {"i", "five", "text", "h", "n", "graph", "t", "late"}
    assert by["graph"].value == {"nodes": [{"id": "\\ud800"}], "edges": ["NaN", 2.5]}
    assert [item for item in items if isinstance(item, Point)] == [Point(0, None, {"loss": 0.5})]
    assert by["five"].kind == "array"
    assert by["n"].value == {"edges": [0, "NaN"], "counts": [1]}
    assert (by["i"].data, by["text"].value) == (b"\0", "x")
    assert found.extra["config"] == "{not json"
    for kind in ("image", "histogram", "config", "step", "time"):
        assert ledger.total("unreadable", kind)  # type: ignore[arg-type]
    assert ledger.total("changed", "field") == 1
    assert convert(path, tmp_path / "out").ok


def test_an_empty_experiment_has_no_runs(tmp_path: Path) -> None:
    with closing(make(tmp_path / "empty.db")) as connection:
        connection.commit()
    assert simplegrad.recognise(tmp_path / "empty.db")
    assert list(simplegrad.read(tmp_path / "empty.db")) == []


def test_rows_of_a_run_that_is_gone_are_told(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    shutil.copy(DATA / "mnist.db", path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM runs WHERE id = 3")
        connection.commit()
    report = convert(path, tmp_path / "out")
    assert report.runs[0].total("lost", "scalar") == 4
    assert report.ok


# A database that another process writes, or did not close.


WRITER = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA journal_mode=" + sys.argv[2])
connection.execute("PRAGMA cache_spill=ON")
connection.execute("PRAGMA cache_size=1")
insert = "INSERT INTO records VALUES (NULL, 1, 1, ?, ?, 1.0)"
for number in range(200):
    connection.execute(insert, (number, float(number)))
connection.execute("BEGIN IMMEDIATE")
for number in range(5000):
    connection.execute(insert, (number, -1.0))
print("ready", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("mode", ["wal", "delete"])
@pytest.mark.parametrize("killed", [False, True])
def test_a_live_or_killed_database_is_read_without_touching_it(
    mode: str, killed: bool, tmp_path: Path
) -> None:
    path = tmp_path / "live.db"
    with closing(make(path)) as connection:
        start(connection, "live")
        record(connection, 1, "loss", 0, 0.5)
        connection.commit()
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        if killed:
            writer.kill()
            writer.wait()
        before = {
            each.name: (each.stat().st_mtime_ns, each.stat().st_size) for each in tmp_path.iterdir()
        }
        assert len(before) > 1  # a write-ahead log, or a journal to roll back
        _, items, ledger = items_of(path)
        values = [value for item in items for value in item.metrics.values()]
        assert values == [0.5, *map(float, range(200))]
        assert not ledger.counts
        after = {
            each.name: (each.stat().st_mtime_ns, each.stat().st_size) for each in tmp_path.iterdir()
        }
        assert after == before
    finally:
        writer.kill()
        writer.communicate()


def test_copies_are_gone_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    runs = list(simplegrad.read(DATA / "mnist.db"))
    assert len(list(tmp_path.iterdir())) == 1
    del runs
    assert list(tmp_path.iterdir()) == []


# Hostile files.


def test_a_journal_that_names_another_file_is_not_followed(tmp_path: Path) -> None:
    path, victim = tmp_path / "x.db", tmp_path / "victim"
    shutil.copy(DATA / "mnist.db", path)
    victim.write_text("precious")
    name = str(victim).encode()
    journal = bytes.fromhex("d9d505f920a163d7") + b"\0" * 500 + b"\0" * 4 + name
    journal += len(name).to_bytes(4, "big") + sum(name).to_bytes(4, "big")
    Path(f"{path}-journal").write_bytes(journal + bytes.fromhex("d9d505f920a163d7"))
    assert len(list(simplegrad.read(path))) == 5
    assert victim.read_text() == "precious"


@pytest.mark.parametrize(
    "sql",
    [
        """CREATE VIEW records AS SELECT 1 AS id, 1 AS run_id, 1 AS metric_id, 0 AS step,
        hex(zeroblob(100000000)) AS value, 0.0 AS wall_time""",
        """CREATE TABLE records (id INTEGER PRIMARY KEY, run_id INT, metric_id INT, step INT,
        value GENERATED ALWAYS AS (printf('%.*c', 1000000000, 'x')), wall_time REAL)""",
    ],
)
def test_views_and_computed_columns_are_not_run(sql: str, tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    shutil.copy(DATA / "mnist.db", path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE records")
        connection.execute(sql)
        connection.commit()
    assert not simplegrad.recognise(path)


def test_a_huge_value_is_left_out_and_the_others_are_there(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with closing(make(path)) as connection:
        run = start(connection, "x")
        for step in range(3):
            record(connection, run, "loss", step, float(step))
        connection.execute("UPDATE records SET value = zeroblob(200000000) WHERE step = 1")
        connection.commit()
    _, items, ledger = items_of(path)
    assert [item.metrics for item in items] == [{"loss": 0.0}, {"loss": 2.0}]
    [remark] = [each for each in ledger.counts if each.effect == "unreadable"]
    assert "rows 2 to 2" in remark.where


def test_rows_around_damaged_pages_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with closing(make(path)) as connection:
        run = start(connection, "x")
        for step in range(5000):
            record(connection, run, "loss", step, step / 7)
        connection.commit()
        (root,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'records'"
        ).fetchone()
    data = bytearray(path.read_bytes())
    pages = [at for at in range(0, len(data), 4096) if data[at] == 13 and at // 4096 != root - 1]
    for at in pages[len(pages) // 2 : len(pages) // 2 + 2]:
        data[at : at + 100] = b"\xff" * 100
    path.write_bytes(data)
    _, items, ledger = items_of(path)
    steps = [item.step for item in items]
    assert 4000 < len(steps) < 5000
    assert steps == sorted(set(steps))
    assert {steps[0], steps[-1]} == {0, 4999}
    assert ledger.total("unreadable", "scalar") >= 1


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_damage_makes_it_fail_otherwise_than_by_its_own_error(data: Any) -> None:
    content = bytearray((DATA / "mnist.db").read_bytes())
    for _ in range(data.draw(st.integers(1, 30))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.db"
        path.write_bytes(content[:cut] if data.draw(st.booleans()) else content)
        simplegrad.recognise(path)
        try:
            for run in simplegrad.read(path):
                for item in run.items(Ledger()):
                    assert isinstance(item, (Point, Medium))
        except FormatError:
            pass


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"SQLite format 3\0" + b"\xff" * 4000])
def test_what_is_no_database_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.write_bytes(content)
    assert not simplegrad.recognise(path)
    with pytest.raises(FormatError):
        list(simplegrad.read(path))


def test_a_directory_and_a_fifo_are_no_database(tmp_path: Path) -> None:
    assert not simplegrad.recognise(tmp_path)
    os.mkfifo(tmp_path / "pipe.db")
    assert not simplegrad.recognise(tmp_path / "pipe.db")


# Writing.


def full(folder: Path, name: str = "full") -> RunWriter:
    """A run of everything that a database has a place for, and more."""
    writer = RunWriter.create(folder, name, tags=["a", "é"], start=1795270921.25)
    config = {"lr": 0.1, "betas": {"$tuple": [0.9, 0.5]}, "deep": {"path": {"$path": "a/b"}}}
    document = {
        "format": {"name": "blackbox-config", "version": "1.0", "features": []},
        "config": config,
    }
    writer.write_config(json.dumps(document).encode())
    writer.log({"train/loss": 0.5, "n": 3, "ok": True}, 7, None, 1795270922.125)
    writer.log({"train/loss": math.nan, "big": 2**53 + 1}, 7, None, 1795270923.5)
    writer.log({"train/loss": -math.inf}, -5, {"train/loss": {"mean": 1.5}}, 1795270924.0)
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "PNG")
    writer.log_media("image", "image", 1, data=png.getvalue(), media_type="image/png", time=5.5)
    writer.log_media("note", "text", 2, value="héllo\nline2", time=1795270925.5)
    writer.log_media(
        "w", "histogram", 3, value={"edges": [0.0, "Infinity"], "counts": [3]}, time=6.0
    )
    for number in range(2):
        graph = {"nodes": [{"id": str(number)}], "edges": []}
        writer.log_media("graph", "graph", 0, value=graph, time=7.0)
    writer.log_media("table", "table", 0, value={"columns": ["a"], "rows": [[1]]}, time=7.0)
    writer.finish("interrupted", None, 1795270999.0)
    return writer


def test_simpleboard_reads_what_is_written(tmp_path: Path) -> None:
    writer = full(tmp_path / "runs")
    report = convert(writer.path, tmp_path / "experiments" / "x.db", verify=True)
    assert report.runs[0].target_format == "simplegrad"
    assert report.ok, report.runs[0].differences
    shown = board(tmp_path / "experiments" / "x.db")["full"]
    assert shown["status"] == "failed"
    assert shown["created_at"] == 1795270921.25
    assert shown["config"] == {"lr": 0.1, "betas": [0.9, 0.5], "deep": {"path": "a/b"}}
    assert shown["records"] == {
        "train/loss": [(-5, -math.inf, 1795270924.0), (7, 0.5, 1795270922.125)],
        "train/loss/mean": [(-5, 1.5, 1795270924.0)],
        "n": [(7, 3.0, 1795270922.125)],
        "ok": [(7, 1.0, 1795270922.125)],
        "big": [(7, float(2**53), 1795270923.5)],
    }
    assert shown["texts"] == [("note", 2, "héllo\nline2", 1795270925.5)]
    assert shown["histograms"] == [("w", 3, [0.0, math.inf], [3], 6.0)]
    assert shown["images"] == [("image", 1, 4, 2, 3, bytes(range(24)), 5.5)]
    assert shown["graphs"] == [{"nodes": [{"id": "1"}], "edges": []}]
    lost = {
        remark.kind: count
        for remark, count in report.runs[0].remarks.items()
        if remark.effect == "lost"
    }
    assert lost == {"scalar": 1, "graph": 1, "table": 1}
    assert max(report.runs[0].greatest.values()) == 1.0


def test_the_tables_are_those_of_simplegrad(tmp_path: Path) -> None:
    convert(full(tmp_path).path, tmp_path / "x.db")

    def schema(path: Path) -> dict[str, Any]:
        with closing(sqlite3.connect(path)) as connection:
            names = connection.execute(
                "SELECT name, type, sql FROM sqlite_master WHERE sql IS NOT NULL"
            ).fetchall()
            return {
                name: (
                    " ".join(sql.split()).replace("( ", "(").replace(" )", ")"),
                    connection.execute(f"PRAGMA table_info({name})").fetchall(),
                    connection.execute(f"PRAGMA foreign_key_list({name})").fetchall(),
                )
                for name, _, sql in names
            }

    made = schema(tmp_path / "x.db")
    assert list(made.pop("blackboxml_runs")[1])
    assert made == schema(DATA / "mnist.db")


def test_several_runs_share_a_database_and_come_again_once(tmp_path: Path) -> None:
    runs = [full(tmp_path / "runs", name) for name in ("a", "b")]
    for _ in range(2):
        convert(tmp_path / "runs", tmp_path / "x.db")
    shown = board(tmp_path / "x.db")
    assert set(shown) == {"a", "b"}
    assert all(len(each["records"]["train/loss"]) == 2 for each in shown.values())
    back = {run.extra["blackbox_id"]: run.name for run in simplegrad.read(tmp_path / "x.db")}
    assert back == {open_run(run.path).id: open_run(run.path).name for run in runs}
    with closing(sqlite3.connect(tmp_path / "x.db")) as connection:
        connection.execute("DELETE FROM runs WHERE name = 'a'")  # as SimpleBoard does
        connection.commit()
    convert(runs[0].path, tmp_path / "x.db")
    assert set(board(tmp_path / "x.db")) == {"a", "b"}


def test_a_run_beside_those_of_simplegrad_leaves_them_alone(tmp_path: Path) -> None:
    path = tmp_path / "mnist.db"
    shutil.copy(DATA / "mnist.db", path)
    before = board(path)
    convert(full(tmp_path / "runs").path, path)
    after = board(path)
    assert after.pop("full")
    assert after == before


def test_several_processes_export_into_one_database(tmp_path: Path) -> None:
    for number in range(6):
        full(tmp_path / "runs", f"run {number}")
    report = convert(tmp_path / "runs", tmp_path / "x.db", jobs=3, verify=True)
    assert report.ok, [(run.error, run.differences) for run in report.runs]
    assert set(board(tmp_path / "x.db")) == {f"run {number}" for number in range(6)}


def test_another_database_is_not_written_to(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "x.db")) as connection:
        connection.execute("CREATE TABLE mine (a)")
        connection.commit()
    before = (tmp_path / "x.db").read_bytes()
    run = open_run(full(tmp_path / "runs").path)
    with pytest.raises(ConversionError, match="another database"):
        simplegrad.write(run, tmp_path / "x.db", Ledger(), {})
    assert (tmp_path / "x.db").read_bytes() == before


def test_what_simplegrad_has_no_column_for_comes_back(tmp_path: Path) -> None:
    writer = full(tmp_path / "runs")
    convert(writer.path, tmp_path / "x.db")
    back = convert(tmp_path / "x.db", tmp_path / "back").runs[0]
    run, again = open_run(writer.path), open_run(back.target)
    for name in ("name", "tags", "status", "start", "end", "config"):
        assert getattr(again, name) == getattr(run, name)


def test_samples_go_back_row_by_row(tmp_path: Path) -> None:
    convert(DATA / "mnist.db", tmp_path / "runs")
    report = convert(tmp_path / "runs", tmp_path / "back.db", verify=True)
    assert report.ok, [run.differences for run in report.runs]
    found, wanted = board(tmp_path / "back.db"), board(DATA / "mnist.db")
    wanted["left_running"]["status"] = "failed"  # nobody runs it any more
    assert found == wanted


METRICS = st.dictionaries(
    st.sampled_from(["loss", "train/loss", "é", "a b"]),
    st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False),
    min_size=1,
)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), METRICS), max_size=8))
def test_any_history_comes_back(points: list[tuple[int, dict[str, Any]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        writer = RunWriter.create(folder, "any", sync="none")
        for at, (step, metrics) in enumerate(points):
            writer.log(metrics, step, None, 1795270922.0 + at)
        writer.finish("completed")
        [report] = convert(writer.path, Path(folder) / "x.db", verify=True).runs
        assert report.ok, report.differences


def test_many_rows_are_read_in_linear_time(tmp_path: Path) -> None:
    path = tmp_path / "big.db"
    with closing(make(path)) as connection:
        run = start(connection, "big")
        record(connection, run, "loss", 0, 0.0)
        connection.executemany(
            "INSERT INTO records VALUES (NULL, 1, 1, ?, ?, ?)",
            ((step, step / 3, step / 7) for step in range(200_000)),
        )
        connection.commit()
    begin = time.perf_counter()
    [found] = simplegrad.read(path)
    count = sum(1 for _ in found.items(Ledger()))
    assert count == 200_001
    assert time.perf_counter() - begin < 60  # a guard against quadratic time, not a benchmark


def test_a_fingerprint_changes_with_its_run_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    shutil.copy(DATA / "mnist.db", path)
    before = {run.key: run.fingerprint for run in simplegrad.read(path)}

    def changed(sql: str) -> set[str]:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(sql)
        after = {run.key: run.fingerprint for run in simplegrad.read(path)}
        found = {key for key, value in after.items() if before.get(key) != value}
        before.update(after)
        return found

    assert changed("VACUUM") == set()
    assert changed("INSERT INTO metrics (name) VALUES ('another')") == set()
    assert changed("UPDATE records SET value = 0.125 WHERE id = 41") == {"2"}
    assert changed("INSERT INTO texts VALUES (NULL, 3, 't', 0, 'x', 1.0)") == {"3"}
    assert changed("UPDATE metrics SET name = 'other' WHERE name = 'm'") == {"5"}
    assert changed("UPDATE runs SET status = 'failed' WHERE id = 4") == {"4"}
