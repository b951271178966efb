"""CSV files: linear, whole after a kill, and never less than was there."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blackboxml import Run, open_run, validate
from blackboxml.backends.csv import CSVBackend
from blackboxml.backends.csv import rows as module
from blackboxml.conversion import convert
from blackboxml.tracker import setup_tracker


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def header(folder: Path) -> list[str]:
    with (folder / "metrics.csv").open(newline="") as file:
        return next(csv.reader(file))


def log_all(folder: Path, *points: dict, **options) -> None:
    backend = CSVBackend(folder, **options)
    for point in points:
        backend.log(point)
    backend.finish()


def test_tr10_setup_makes_the_folder_and_logs_the_configuration(tmp_path, monkeypatch):
    tracker = setup_tracker("p", "csv", {"lr": 0.1}, tmp_path / "a/b", 0, unknown=1)
    tracker.log({"loss": 0.5}, step=42)
    tracker.finish()
    assert rows(tmp_path / "a/b") == [{"loss": "0.5", "step": "42"}]
    assert json.loads((tmp_path / "a/b/config.json").read_text()) == {"lr": 0.1}
    monkeypatch.chdir(tmp_path)
    tracker = setup_tracker(backends="csv", rank=0)
    tracker.log({"loss": 0.5})
    assert rows(tmp_path) == [{"loss": "0.5"}]
    tracker.finish()


def test_tr11_header_is_the_union_in_first_seen_order(tmp_path):
    backend = CSVBackend(tmp_path)
    backend.log({"b": 1, "a": 2})
    backend.log({"c": 3, "a": 4})
    assert header(tmp_path) == ["b", "a", "c"]
    backend.log({"d": "x,\ny", "b": None})
    assert (tmp_path / "metrics.csv").read_bytes() == (
        b'b,a,c,d\r\n1,2,,\r\n,4,3,\r\n,,,"x,\ny"\r\n'
    )
    backend.log({"e": 5})
    assert rows(tmp_path)[2] == {"b": "", "a": "", "c": "", "d": "x,\ny", "e": ""}
    assert [len(row) for row in rows(tmp_path)] == [5] * 4
    backend.finish()


def test_tr12_step_is_the_last_cell_unless_it_is_given(tmp_path):
    backend = CSVBackend(tmp_path)
    backend.log({"loss": 0.5}, step=42)
    backend.log({"step": 7, "loss": 0.25}, step=43)
    backend.log({"loss": 0.125})
    backend.finish()
    assert header(tmp_path) == ["loss", "step"]
    assert [row["step"] for row in rows(tmp_path)] == ["42", "7", ""]


def test_tr13_a_row_waits_until_it_is_committed(tmp_path):
    backend = CSVBackend(tmp_path)
    backend.log({"a": 1}, commit=False)
    assert not (tmp_path / "metrics.csv").exists()
    backend.log({"b": 2})
    assert rows(tmp_path) == [{"a": "1", "b": ""}, {"a": "", "b": "2"}]
    backend.log({"a": 3}, commit=False)
    assert len(rows(tmp_path)) == 2
    backend.finish()
    assert len(rows(tmp_path)) == 3


def test_tr14_the_configuration_is_merged(tmp_path):
    backend = CSVBackend(tmp_path, config={"lr": 0.1, "path": Path("x")})
    backend.log_config({"lr": 0.2, "worst": math.inf, 3: [math.nan]})
    backend.finish()
    text = (tmp_path / "config.json").read_text()
    wanted = {"lr": 0.2, "path": "x", "worst": "Infinity", "3": ["NaN"]}
    assert json.loads(text, parse_constant=pytest.fail) == wanted
    assert text == json.dumps(wanted, indent=2) + "\n"
    CSVBackend(tmp_path, config={"seed": 1}).finish()
    assert json.loads((tmp_path / "config.json").read_text()) == wanted | {"seed": 1}


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_tr14_a_damaged_configuration_is_put_aside(tmp_path, content, caplog):
    (tmp_path / "config.json").write_bytes(content)
    CSVBackend(tmp_path, config={"lr": 0.1}).finish()
    assert json.loads((tmp_path / "config.json").read_text()) == {"lr": 0.1}
    assert (tmp_path / "config.json.damaged-1").read_bytes() == content
    assert "config.json is damaged; it is now config.json.damaged-1" in caplog.text


def test_tr14_the_configuration_of_a_run_is_its_own(tmp_path):
    with Run("run", log_dir=tmp_path, config={"lr": 0.1}) as run:
        tracker = setup_tracker(None, "csv,tensorboard", {"lr": 0.5}, run.path, 0)
        tracker.log({"loss": 0.5})
        tracker.finish()
        run.log({"loss": 0.5})
    assert open_run(run.path).config == {"lr": 0.1}
    assert validate(run.path).ok


def test_tr15_a_table_is_a_file(tmp_path):
    backend = CSVBackend(tmp_path)
    backend.log_table("predictions", ["x", "y"], [[1, "a,b"], [2, None]])
    backend.log_table("eval/predictions", ["x"], [[1]])
    backend.log_table("../../out", ["x"], [[1]])
    backend.log_table("predictions", ["z"], [])
    backend.log({"loss": 0.5})
    backend.log_table("metrics", ["x"], [[1]])
    backend.finish()
    assert rows(tmp_path) == [{"loss": "0.5"}]
    assert (tmp_path / "predictions.csv").read_bytes() == b"z\r\n"
    assert (tmp_path / "eval/predictions.csv").read_bytes() == b"x\r\n1\r\n"
    files = {path.relative_to(tmp_path) for path in tmp_path.rglob("*.csv")}
    assert files == {
        Path("metrics.csv"),
        Path("metrics_table.csv"),
        Path("predictions.csv"),
        Path("eval/predictions.csv"),
        Path("__/__/out.csv"),
    }
    assert not (tmp_path.parent / "out.csv").exists()


def test_tr16_another_rank_touches_no_file(tmp_path):
    tracker = setup_tracker("p", "csv", {"lr": 0.1}, tmp_path / "out", 1)
    tracker.log({"loss": 0.5})
    tracker.log_table("t", ["a"], [[1]])
    tracker.finish()
    assert not list(tmp_path.iterdir())


def test_tr17_the_bytes_written_grow_with_the_rows_alone(tmp_path):
    """No time is measured: what was quadratic was the file written anew at every row."""
    backend = CSVBackend(tmp_path)
    values = {f"metric_{number}": number / 7 for number in range(10)}
    for step in range(8000):
        backend.log(values, step=step)
    assert backend._rows._spent < 500  # the file was begun, and never written anew
    assert len(rows(tmp_path)) == 8000
    backend.finish()


def test_tr17_keys_without_end_are_not_written_anew_at_every_row(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_SLACK", 4096)
    backend = CSVBackend(tmp_path)
    count = 600
    for number in range(count):
        backend.log({f"key_{number}": number})
    backend.finish()
    # Written anew at every row it would be a hundred times as much.
    assert backend._rows._spent < 3 * (tmp_path / "metrics.csv").stat().st_size
    found = rows(tmp_path)
    assert header(tmp_path) == [f"key_{number}" for number in range(count)]
    assert [next(v for v in row.values() if v) for row in found] == [str(n) for n in range(count)]
    assert not (tmp_path / "metrics.csv.pending").exists()


def test_tr18_rows_of_an_earlier_process_are_kept(tmp_path):
    log_all(tmp_path, {"a": 1}, {"a": 2, "b": 'say "x"\r\ny'})
    log_all(tmp_path, {"c": 3, "a": 3})
    assert header(tmp_path) == ["a", "b", "c"]
    assert [row["a"] for row in rows(tmp_path)] == ["1", "2", "3"]
    assert rows(tmp_path)[1]["b"] == 'say "x"\r\ny'


def test_tr18_a_file_of_another_writer_is_gone_on_with(tmp_path):
    (tmp_path / "metrics.csv").write_text("loss,step\n0.5,1\n")
    log_all(tmp_path, {"loss": 0.25, "lr": 0.1})
    assert rows(tmp_path) == [
        {"loss": "0.5", "step": "1", "lr": ""},
        {"loss": "0.25", "step": "", "lr": "0.1"},
    ]


@pytest.mark.parametrize("tail", [b"0.1", b"0.1,2", b'"half', b"\x00\x00\x00"])
def test_tr18_a_row_cut_by_a_crash_is_put_aside(tmp_path, tail, caplog):
    log_all(tmp_path, {"loss": 0.5, "step": 1})
    with (tmp_path / "metrics.csv").open("ab") as file:
        file.write(tail)
    log_all(tmp_path, {"loss": 0.25, "step": 2})
    assert [row["loss"] for row in rows(tmp_path)] == ["0.5", "0.25"]
    assert (tmp_path / "metrics.csv.torn").read_bytes() == tail + b"\n"
    assert "ends in half a row" in caplog.text


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe\x00bad\n1,2\n",
        b"a,a\n1,2\n",
        b"a,b",
        b'a,b\n1,"2\n' + b"3,4\n" * 20_000,
        b'a,"b\n' + b"3,4\n" * 20_000,
    ],
    ids=["binary", "a name twice", "no row", "an open quote", "an open quote at the top"],
)
def test_tr18_a_file_that_is_no_table_is_put_aside_whole(tmp_path, content, caplog):
    (tmp_path / "metrics.csv").write_bytes(content)
    log_all(tmp_path, {"loss": 0.5})
    assert rows(tmp_path) == [{"loss": "0.5"}]
    assert (tmp_path / "metrics.csv.damaged-1").read_bytes() == content
    assert "metrics.csv is damaged" in caplog.text


def test_tr18_an_empty_file_is_begun(tmp_path):
    (tmp_path / "metrics.csv").touch()
    log_all(tmp_path, {"loss": 0.5})
    assert rows(tmp_path) == [{"loss": "0.5"}]


WRITER = """
import sys
from blackboxml.backends.csv import CSVBackend, rows
rows._SLACK = int(sys.argv[2])
backend = CSVBackend(sys.argv[1])
for step in range(1_000_000):
    backend.log({"a": step, f"key_{step // 7 % 50}": step})
    print(step, flush=True)
"""


@pytest.mark.parametrize("slack", [0, 2**26])
@pytest.mark.parametrize("after", [1, 8, 40, 150])
def test_tr19_no_committed_row_is_lost_to_a_kill(tmp_path, after, slack):
    """With no slack new keys wait beside the file; the kill then falls while they do."""
    command = [sys.executable, "-c", WRITER, str(tmp_path), str(slack)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for _ in range(after):
            process.stdout.readline()
        time.sleep(0.003 * (after % 3))
        process.send_signal(signal.SIGKILL)
        acknowledged = after + len(process.stdout.readlines())
    log_all(tmp_path, {"last": 1})
    found = rows(tmp_path)
    assert [int(row["a"]) for row in found[:-1]] == list(range(len(found) - 1))
    assert acknowledged <= len(found) - 1 <= acknowledged + 1
    for step, row in enumerate(found[:-1]):
        assert row[f"key_{step // 7 % 50}"] == str(step)


def test_tr19_rows_that_wait_are_put_in_once_even_if_the_kill_fell_in_between(tmp_path):
    """The file was replaced, and the process killed before the rows that wait were removed."""
    log_all(tmp_path, {"a": 1})
    pending = tmp_path / "metrics.csv.pending"
    size = (tmp_path / "metrics.csv").stat().st_size
    lines = f'{{"after": {size}}}\n{{"b": "2"}}\n{{"b": "3"}}\n{{"b": "to'
    pending.write_text(lines)
    log_all(tmp_path)
    once = rows(tmp_path)
    assert once == [{"a": "1", "b": ""}, {"a": "", "b": "2"}, {"a": "", "b": "3"}]
    pending.write_text(lines)
    log_all(tmp_path)
    assert rows(tmp_path) == once
    assert not pending.exists()


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        ('{"after": 10000}\n{"b": "2"}\n', 1),  # of a file that is longer than this one
        ('{"after": SIZE}\n{"b": "2"}\nnot a row\n{"b": "3"}\n', 3),
        ('{"after": SIZE}\n[1]\n', 1),
        ("what\n", 1),
    ],
)
def test_tr19_rows_that_wait_for_another_file_are_put_aside(tmp_path, lines, kept, caplog):
    log_all(tmp_path, {"a": 1})
    size = (tmp_path / "metrics.csv").stat().st_size
    (tmp_path / "metrics.csv.pending").write_text(lines.replace("SIZE", str(size)))
    log_all(tmp_path)
    assert len(rows(tmp_path)) == kept
    aside = tmp_path / "metrics.csv.pending.damaged-1"
    assert aside.read_text() == lines.replace("SIZE", str(size))
    assert "is damaged" in caplog.text


def test_tr19_rows_that_wait_outlive_the_file_they_wait_for(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_SLACK", 0)
    backend = CSVBackend(tmp_path)
    for number in range(40):
        backend.log({f"key_{number}": number})
    waiting = (tmp_path / "metrics.csv.pending").read_text()
    (tmp_path / "metrics.csv").unlink()
    backend.log({"a": 1})
    backend.finish()
    assert rows(tmp_path) == [{"a": "1"}]
    assert (tmp_path / "metrics.csv.pending.damaged-1").read_text() == waiting


def test_tr23_what_is_written_comes_back_as_a_run(tmp_path):
    backend = CSVBackend(tmp_path / "out", config={"lr": 0.1})
    for step in range(20):
        backend.log({"train/loss": 1 / (step + 1), "n": step}, step=step)
    backend.log({"eval/accuracy": 0.5}, step=20)
    backend.log_table("predictions", ["x", "y"], [[1, 2]])
    backend.finish()
    report = convert(tmp_path / "out", tmp_path / "runs", verify=True)
    assert report.ok, report.to_json()
    run = open_run(report.runs[0].target)
    assert run.config == {"lr": 0.1}
    assert run.polars("train")["loss"].to_list() == [1 / (step + 1) for step in range(20)]
    assert run.polars("train")["step"].to_list() == list(range(20))
    assert run.summary()["eval/accuracy"].last == 0.5


def test_a_file_that_was_removed_is_begun_anew(tmp_path):
    backend = CSVBackend(tmp_path)
    backend.log({"a": 1, "b": 2})
    (tmp_path / "metrics.csv").unlink()
    backend.log({"b": 3})
    (tmp_path / "other.csv").write_text("x\n9\n")
    (tmp_path / "other.csv").replace(tmp_path / "metrics.csv")
    backend.log({"b": 4})
    backend.finish()
    assert rows(tmp_path) == [{"x": "9", "b": ""}, {"x": "", "b": "4"}]


def test_a_folder_that_was_removed_is_said_and_stops_nothing(tmp_path, caplog):
    tracker = setup_tracker(backends="csv", outdir=tmp_path / "out", rank=0)
    tracker.log({"a": 1})
    shutil.rmtree(tmp_path / "out")
    for step in range(5):
        tracker.log({"a": step})
    tracker.finish()
    said = [record.getMessage() for record in caplog.records]
    assert "csv.log() failed: FileNotFoundError" in said[0]
    assert "csv.finish() failed: OSError" in said[1]
    assert "5 rows could not be written" in said[1]


def test_a_new_column_needs_no_second_file_at_the_end(tmp_path):
    log_all(tmp_path, {"a": 1}, {"b": 1})
    assert sorted(os.listdir(tmp_path)) == ["metrics.csv"]


def test_surrogates_and_values_of_any_kind_are_written(tmp_path):
    log_all(tmp_path, {"text": "\udcff", "list": [1, 2], "nan": math.nan, "big": 2**70})
    row = rows(tmp_path)[0]
    assert row == {"text": "\\udcff", "list": "[1, 2]", "nan": "nan", "big": str(2**70)}


KEYS = st.sampled_from(["a", "b", "c/d", "e f", 'q"uote', "new\nline", "step"])
VALUES = st.one_of(
    st.integers(), st.floats(), st.text(st.characters(codec="utf-8", exclude_characters="\0"))
)


@settings(deadline=None)
@given(
    st.lists(st.dictionaries(KEYS, VALUES, min_size=1), max_size=30),
    st.sampled_from([0, 200, 2**26]),
    st.sets(st.integers(0, 30)),
)
def test_any_rows_come_back_as_they_were(points, slack, reopened):
    before = module._SLACK
    module._SLACK = slack
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            backend = CSVBackend(folder)
            for number, point in enumerate(points):
                backend.log(point)
                if number in reopened:
                    backend.finish()
                    backend = CSVBackend(folder)
            backend.finish()
            if not points:
                assert not list(folder.iterdir())
                return
            keys = list(dict.fromkeys(key for point in points for key in point))
            assert header(folder) == keys
            wanted = [{key: str(point.get(key, "")) for key in keys} for point in points]
            assert rows(folder) == wanted
    finally:
        module._SLACK = before
