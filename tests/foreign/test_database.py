"""SQLite files of other programs: copied while they hold still, guarded, read around damage."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from blackboxml.errors import ConversionError, FormatError
from blackboxml.foreign import database

if TYPE_CHECKING:
    from pathlib import Path

WANTED = {"t": {"a", "b"}}


def make(path: Path, rows: int = 10) -> Path:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (a, b)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", ((at, at / 2) for at in range(rows)))
        connection.commit()
    return path


def rows_of(source: database.Source) -> list[Any]:
    with source.connection() as connection:
        return connection.execute("SELECT a, b FROM t").fetchall()


def test_a_copy_shows_one_moment_and_follows_no_writer(tmp_path: Path) -> None:
    path = make(tmp_path / "x.db")
    source = database.Source(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM t")
        connection.commit()
    assert rows_of(source) == [(at, at / 2) for at in range(10)]


def test_a_database_that_never_holds_still_is_backed_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_copy", lambda *_: False)
    assert len(rows_of(database.Source(make(tmp_path / "x.db")))) == 10


def test_a_copy_of_a_database_that_is_always_written_is_whole(tmp_path: Path) -> None:
    path = make(tmp_path / "x.db", 0)
    stop, begun = threading.Event(), threading.Event()
    failed: list[Exception] = []

    def write() -> None:
        with closing(sqlite3.connect(path, isolation_level=None, timeout=60)) as connection:
            number = 0
            while not stop.is_set():
                try:
                    connection.execute("BEGIN")
                    for _ in range(100):
                        connection.execute("INSERT INTO t VALUES (?, zeroblob(100))", (number,))
                    connection.execute("COMMIT")
                except sqlite3.Error as error:
                    failed.append(error)
                    return
                number += 1
                begun.set()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        assert begun.wait(60)
        for _ in range(5):
            with database.Source(path).connection() as connection:
                query = "SELECT count(*), count(DISTINCT a) FROM t"
                count, transactions = connection.execute(query).fetchone()
                assert count == 100 * transactions > 0
                assert connection.execute("SELECT max(a) FROM t").fetchone() == (transactions - 1,)
    finally:
        stop.set()
        thread.join()
    assert not failed


@pytest.mark.parametrize(
    "sql",
    [
        "ATTACH '{other}' AS other",
        "INSERT INTO t VALUES (1, 2)",
        "DELETE FROM t",
        "SELECT load_extension('x')",
        "SELECT randomblob(10)",
        "SELECT writefile('x', 'y')",
        "PRAGMA writable_schema=ON",
        "CREATE TEMP TABLE mine (a)",
        "SELECT * FROM v",
        "VACUUM INTO '{other}'",
    ],
)
def test_a_guarded_connection_does_nothing_but_read(sql: str, tmp_path: Path) -> None:
    path = make(tmp_path / "x.db")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE VIEW v AS SELECT max(a) FROM t")
    with database.Source(path).connection() as connection, pytest.raises(sqlite3.Error):
        connection.execute(sql.format(other=tmp_path / "other")).fetchall()
    assert not (tmp_path / "other").exists()


def test_plain_tables_are_told_from_all_else(tmp_path: Path) -> None:
    path = make(tmp_path / "x.db")
    assert database.has_tables(path, WANTED)
    assert not database.has_tables(path, {"t": {"c"}})
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE g (a, b AS (a + 1), c GENERATED ALWAYS AS (b) STORED)")
        connection.execute("CREATE VIEW v AS SELECT a, b FROM t")
    with database.Source(path).connection() as connection:
        assert database.tables(connection) == {"t": {"a", "b"}, "g": {"a"}}


def test_a_schema_in_the_write_ahead_log_alone_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE t (a, b)")
        connection.commit()
        assert database.has_tables(path, WANTED)


def test_gaps_are_told_and_gone_around(tmp_path: Path) -> None:
    path = make(tmp_path / "x.db", 100)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE t SET b = zeroblob(70000000) WHERE rowid IN (7, 8, 50)")
        connection.execute("INSERT INTO t (rowid, a) VALUES (-5, 'first')")
        connection.commit()
    gaps: list[tuple[int, int]] = []
    with database.Source(path).connection() as connection:
        rows = list(
            database.salvage(
                connection, "SELECT rowid, a, b FROM t", (), lambda *gap: gaps.append(gap[:2])
            )
        )
    assert [row[0] for row in rows] == [-5, *(at for at in range(1, 101) if at not in (7, 8, 50))]
    assert gaps == [(7, 8), (50, 50)]


def test_a_transaction_is_all_or_nothing(tmp_path: Path) -> None:
    path, schema = tmp_path / "x.db", "CREATE TABLE IF NOT EXISTS t (a, b)"

    def write(value: int) -> None:
        with database.transaction(path, schema, WANTED) as connection:
            connection.execute("INSERT INTO t VALUES (?, 0)", (value,))
            if value < 0:
                raise KeyError

    write(1)
    with pytest.raises(KeyError):
        write(-1)
    write(2)
    assert rows_of(database.Source(path)) == [(1, 0), (2, 0)]
    other = database.transaction(path, schema, {"t": {"c"}})
    with pytest.raises(ConversionError, match="another database"), other:
        pass


def test_what_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("text")
    for place in (tmp_path / "x", tmp_path / "none", tmp_path):
        with pytest.raises(FormatError, match="no SQLite database"):
            database.Source(place)
