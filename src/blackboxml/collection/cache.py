"""What was read of many runs, in a SQLite file that may be deleted at any time.

Strategy: every row says of which files it was read, so that a row is right or is not used, whoever
wrote it. Transactions are short, the journal is SQLite's plain one, which needs no shared memory,
and whatever goes wrong costs only the time to read the runs again.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import sqlite3
from collections import defaultdict
from contextlib import closing, suppress
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from blackboxml.collection.entry import Entry, Facts, Series

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

logger = logging.getLogger("blackboxml")

FILE: Final = ".blackbox-catalogue.sqlite"
"""The name of the file in the folder of the runs."""

_VERSION: Final = 1
_SECONDS: Final = 2.0
_NO_PLACE: Final = frozenset([sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY])
_DAMAGED: Final = frozenset([sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR])
_COLUMNS: Final = tuple(field.name for field in fields(Facts))
_facts: Final = attrgetter(*_COLUMNS)
_SCHEMA: Final = f"""
DROP TABLE IF EXISTS run;
DROP TABLE IF EXISTS metric;
CREATE TABLE run (
    number INTEGER PRIMARY KEY,
    path TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    {", ".join(f'"{name}"' for name in _COLUMNS)}
);
CREATE TABLE metric (
    run INTEGER NOT NULL,
    name TEXT NOT NULL,
    type TEXT NOT NULL,
    last, last_step INTEGER, min, max, n INTEGER NOT NULL
);
CREATE INDEX run_id ON run (id);
CREATE INDEX metric_run ON metric (run);
PRAGMA user_version = {_VERSION};
"""


class Cache:
    """The file of one folder of runs; without a place to write, nothing is kept."""

    def __init__(self, root: Path) -> None:
        """Find a place: the folder itself, else the user's folder for caches."""
        self._root = root
        self._places = [root / FILE]
        with suppress(RuntimeError):  # a user without a home
            home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
            digest = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:32]
            self._places.append(Path(home) / "blackboxml" / f"{digest}.sqlite")

    def load(self) -> dict[str, Entry]:
        """Return all rows by path; none where the file is missing, damaged or locked."""
        found = []
        for place in self._places:
            with suppress(OSError):
                found.append((place.stat().st_mtime_ns, place))
        try:
            return self._load(max(found)[1]) if found else {}
        except (sqlite3.Error, TypeError, ValueError) as error:
            logger.debug("the catalogue of %s is not used: %s", self._root, error)
            return {}

    def _load(self, place: Path) -> dict[str, Entry]:
        """Return all rows of a file."""
        with closing(_connect(place)) as connection, connection:
            connection.execute("BEGIN")  # runs and metrics of one state
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version != _VERSION:
                return {}
            metrics: defaultdict[int, dict[str, Series]] = defaultdict(dict)
            query = (
                "SELECT run, name, type, last, last_step, min, max, n FROM metric ORDER BY rowid"
            )
            for row in connection.execute(query):
                metrics[row[0]][row[1]] = _series(row[2:])
            names = ", ".join(f'"{name}"' for name in _COLUMNS)
            query = f"SELECT number, path, state, {names} FROM run"  # noqa: S608 - constants
            return {
                path: Entry(self._root, path, state, Facts(*said), metrics[number])
                for number, path, state, *said in connection.execute(query)
            }

    def save(self, changed: Mapping[str, Entry], removed: Iterable[str]) -> None:
        """Replace rows; should that fail, the next reader reads these runs again."""
        for place in self._places:
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                self._save(place, changed, removed)
            except OSError:
                continue
            except sqlite3.DatabaseError as error:
                code = error.sqlite_errorcode & 0xFF
                if code in _NO_PLACE:
                    continue
                if code in _DAMAGED:  # it is made anew the next time
                    with suppress(OSError):
                        place.unlink()
                logger.debug("%s was not written: %s", place, error)
            return

    def _save(self, place: Path, changed: Mapping[str, Entry], removed: Iterable[str]) -> None:
        """Replace rows of a file."""
        names = ", ".join(f'"{name}"' for name in _COLUMNS)
        marks = ", ".join("?" * (len(_COLUMNS) + 2))
        insert = f"INSERT INTO run (path, state, {names}) VALUES ({marks})"  # noqa: S608 - constants
        with closing(_connect(place)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version != _VERSION:
                for statement in _SCHEMA.split(";"):
                    connection.execute(statement)
            gone = [(path,) for path in (*removed, *changed)]
            connection.executemany(
                "DELETE FROM metric WHERE run = (SELECT number FROM run WHERE path = ?)", gone
            )
            connection.executemany("DELETE FROM run WHERE path = ?", gone)
            rows: list[tuple[object, ...]] = []
            for path, entry in changed.items():
                made = connection.execute(insert, (path, entry.state, *_facts(entry.facts)))
                rows += [
                    (made.lastrowid, *_row(name, said)) for name, said in entry.metrics.items()
                ]
            connection.executemany("INSERT INTO metric VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
            connection.execute("COMMIT")


def _connect(place: Path) -> sqlite3.Connection:
    """Open a file; transactions are begun and ended by whoever uses it."""
    connection = sqlite3.connect(place, timeout=_SECONDS, isolation_level=None)
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def _series(row: tuple[Any, ...]) -> Series:
    """Return a metric of a row: SQLite has no bool, and NULL for NaN."""
    kind, last, last_step, low, high, n = row
    if kind == "bool":
        last, low, high = (None if each is None else bool(each) for each in (last, low, high))
    if last is None and n:
        last = math.nan
    return Series(kind, last, last_step, low, high, n)


def _row(name: str, said: Series) -> tuple[object, ...]:
    """Return a metric as a row."""
    return name, said.type, said.last, said.last_step, said.min, said.max, said.n
