"""`blackbox query`: SQL over runs, and nothing but them."""

from __future__ import annotations

import io
import json
import sys
from typing import TYPE_CHECKING

import polars as pl
import pytest

from blackboxml import Run
from blackboxml.cli import main
from blackboxml.collection.sql import Database
from blackboxml.errors import MissingDependencyError, QueryError
from tests.histories import header, point, write

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two sealed runs, and a damaged one."""
    folder = tmp_path / "runs"
    for number in range(2):
        with Run(f"r{number}", [f"t|{number}"], folder, config={"lr": 10.0**-number}) as run:
            for step in range(3):
                run.log({"train/loss": (step + 1) / (number + 1), "lr": 0.5})
            run.log({"train/loss": float("nan")})
    write(folder / "x", {"run.json": b"{"})
    return folder


def ask(root: Path, sql: str, *options: str) -> int:
    return main(["query", str(root), sql, *options])


def test_runs_and_groups_of_metrics_are_tables(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sql = (
        'SELECT runs.name, max(train.step) AS steps, "config.lr" FROM runs JOIN train '
        "ON train.run = runs.id WHERE NOT isnan(loss) GROUP BY ALL ORDER BY 1"
    )
    assert ask(root, sql) == 0
    out, err = capsys.readouterr()
    assert [line.split() for line in out.splitlines()] == [
        ["name", "steps", "config.lr"],
        ["r0", "2", "1"],
        ["r1", "2", "0.1"],
    ]
    assert "1 run(s) cannot be read and are left out" in err
    assert ask(root, "SELECT count(*) AS n FROM metrics", "--format", "csv") == 0
    assert capsys.readouterr().out == "n\n6\n"


FORMS = {
    "csv": 'name,tags,loss,start\nr0,"[""t|0""]",NaN,2026-01-01T00:00:00+00:00\n',
    "jsonl": (
        '{"name": "r0", "tags": ["t|0"], "loss": "NaN", "start": "2026-01-01T00:00:00+00:00"}\n'
    ),
    "markdown": (
        "| name | tags | loss | start |\n| --- | --- | --: | --- |\n"
        '| r0 | ["t\\|0"] | NaN | 2026-01-01T00:00:00+00:00 |\n'
    ),
}
SQL = (
    "SELECT name, tags, \"last.train/loss\" AS loss, TIMESTAMPTZ '2026-01-01 00:00Z' AS start "
    "FROM runs ORDER BY name LIMIT 1"
)


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_printed_and_written(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    assert ask(root, SQL, "--format", form) == 0
    assert capsys.readouterr().out == FORMS[form]
    suffix = {"markdown": "md"}.get(form, form)
    assert ask(root, SQL, "-o", str(tmp_path / f"out.{suffix}")) == 0
    assert (tmp_path / f"out.{suffix}").read_text("utf-8") == FORMS[form]
    assert capsys.readouterr().out == ""


def test_json_parquet_and_tables_are_written(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(root, SQL, "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row == json.loads(FORMS["jsonl"])
    assert ask(root, SQL, "-o", str(tmp_path / "out.json")) == 0
    assert json.loads((tmp_path / "out.json").read_bytes()) == [row]
    assert ask(root, "SELECT * FROM train", "-o", str(tmp_path / "out.parquet")) == 0
    assert pl.read_parquet(tmp_path / "out.parquet").height == 8
    assert ask(root, SQL, "-o", str(tmp_path / "out.txt")) == 0
    assert (tmp_path / "out.txt").read_text("utf-8").startswith("name  tags")
    assert ask(root, SQL, "--format", "parquet") == 2
    assert "name a file with --output" in capsys.readouterr().err


def test_a_query_may_come_from_standard_input_and_have_no_result(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sql = "CREATE TABLE t AS SELECT name FROM runs; SELECT count(*) AS n FROM t"
    monkeypatch.setattr(sys, "stdin", io.StringIO(sql))
    assert ask(root, "-", "--format", "csv") == 0
    assert capsys.readouterr().out == "n\n3\n"
    assert ask(root, "CREATE TABLE t AS SELECT name FROM runs", "--json") == 0
    assert ask(root, "SHOW TABLES", "--format", "csv") == 0
    assert capsys.readouterr().out.splitlines()[-3:] == ["metrics", "runs", "train"]
    assert ask(root, "DESCRIBE train", "--format", "csv") == 0
    assert "loss,DOUBLE" in capsys.readouterr().out


def test_what_cannot_be_answered_says_why_and_what_there_is(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for sql, why in {
        "SELECT nope FROM runs": 'Referenced column "nope" not found',
        "SELECT * FROM nope": "Table with name nope does not exist",
        "SELEC 1": "syntax error",
    }.items():
        assert ask(root, sql) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert why in err
        assert "blackbox: table runs: id (String), name (String)" in err
        assert "config.lr (Float64)" in err
        assert "blackbox: table metrics: run (String)" in err
        assert "loss (Float64)" in err


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('{file}')",
        "SELECT * FROM read_text('{file}')",
        "SELECT * FROM '{file}'",
        "SELECT * FROM glob('{file}*')",
        "COPY (SELECT 1) TO '{file}.new'",
        "EXPORT DATABASE '{file}.new'",
        "ATTACH '{file}.new' AS other",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET lock_configuration = false",
        "SELECT * FROM secret",
    ],
)
def test_a_query_sees_runs_and_nothing_else(root: Path, tmp_path: Path, sql: str) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    with pytest.raises(QueryError):
        Database(root).query(sql.format(file=secret))
    assert list(tmp_path.glob("secret.csv?*")) == []


def test_names_that_differ_in_capitals_alone_are_told_apart(tmp_path: Path) -> None:
    metrics = {"Train/Loss": 1, "train/loss": 2, "train/LOSS": 3, "runs/a": 4, "Metrics/b": 5}
    lines = header() + point(0, metrics | {"c": 6})
    write(tmp_path / "a", {"metrics.jsonl": lines})
    database = Database(tmp_path)
    assert list(database.tables()) == ["runs", "metrics", "Metrics_", "Train", "runs_", "train_2"]
    assert database.query("SELECT LOSS, LOSS_2 FROM train_2").row(0) == (3, 2)
    assert database.query("SELECT loss FROM train").row(0) == (1,)
    assert database.query("SELECT a, b, c FROM runs_, metrics_, metrics").row(0) == (4, 5, 6)
    assert database.query('SELECT "last.train/loss_2" FROM runs').height == 1


def test_a_query_reads_only_what_it_asks_for(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from blackboxml.collection.points import PointTable
    from blackboxml.collection.runs import RunTable

    asked = []
    for table in (PointTable, RunTable):
        method = "_pieces" if table is PointTable else "frame"
        genuine = getattr(table, method)

        def watched(self: object, *given: object, genuine: object = genuine) -> object:
            asked.append(sorted(next(each for each in given[::-1] if isinstance(each, list))))
            return genuine(self, *given)  # type: ignore[operator]

        monkeypatch.setattr(table, method, watched)
    database = Database(root)
    asked.clear()
    database.query("SELECT name FROM runs WHERE status = 'completed'")
    assert asked == [["name", "status"]]
    asked.clear()
    database.query("SELECT max(loss) FROM train WHERE step > 1")
    assert asked[-1] == ["loss", "step"]


def test_without_duckdb_it_says_what_to_install(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'blackboxml\[duckdb\]'"):
        Database(root).query("SELECT 1")


def test_no_runs_are_an_empty_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["query", "--log-dir", str(tmp_path), "SELECT name FROM runs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
