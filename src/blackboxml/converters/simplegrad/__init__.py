"""Experiments of simplegrad's Tracker: one SQLite file of runs, as its SimpleBoard opens it.

The tables are those that `ExperimentDBManager.init_exp_db` makes
(https://github.com/gri-sha/simplegrad, simplegrad/track/exp_db_manager.py). What they have no
column for (id, tags, end, exception) is kept beside them in a table `blackboxml_runs`, which
SimpleBoard does not look at and from which an import takes it again.
"""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING, Any, Final

from blackboxml.converters.simplegrad.row import Decoder
from blackboxml.converters.simplegrad.writer import EXTRA, MEDIA, SCHEMA, STATUS, Writer
from blackboxml.errors import FormatError
from blackboxml.foreign import values as foreign
from blackboxml.foreign.database import (
    ALL,
    ERRORS,
    Source,
    has_tables,
    salvage,
    tables,
    transaction,
)
from blackboxml.foreign.interchange import ForeignRun

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from blackboxml.foreign.interchange import Item, Kind, Ledger
    from blackboxml.reader import RunReader

SUFFIXES: Final = (".db",)
"""Of a target that is an experiment unless another format is named."""

FILE: Final = "blackboxml.db"
"""The database that is made in a folder."""

_TABLES: Final = {
    "runs": {"id", "name", "created_at", "status", "config"},
    "metrics": {"id", "name"},
    "records": {"id", "run_id", "metric_id", "step", "value", "wall_time"},
}
_OWN: Final = "blackboxml_runs"

__all__ = ["EXTRA", "SUFFIXES", "members", "read", "recognise", "write"]


def recognise(path: Path) -> bool:
    """Tell whether a file is a database of experiments."""
    return has_tables(path, _TABLES)


def members(path: Path) -> set[str]:
    """Return nothing: a database is a file, and a folder of them is no run."""
    del path
    return set()


# ---- reading -----------------------------------------------------------------------------------


def read(path: Path) -> Iterator[ForeignRun]:
    """Yield the runs of an experiment, from the first to the last.

    Raises:
        FormatError: If it is no such database.
        OSError: If it cannot be read.
    """
    source = Source(path)
    try:
        with source.connection() as connection:
            schema = tables(connection)
            experiment = _Experiment(source, connection, schema)
            gaps: list[str] = []
            query = "SELECT rowid, id, name, created_at, status, config FROM runs"
            found = [*salvage(connection, query, (), lambda *gap: gaps.append(_gap(*gap)))]
            orphans = experiment.orphans({row[1] for row in found})
            for row in found:
                yield experiment.run(row, gaps, orphans)
                gaps, orphans = [], {}
    except ERRORS as error:
        raise FormatError(f"{path} is damaged: {error}") from None


def _gap(first: int, last: int, error: Exception) -> str:
    """Describe rows that cannot be read."""
    return f"rows {first} to {last}: {error}"


class _Experiment:
    """One database, from which runs are read."""

    def __init__(
        self, source: Source, connection: sqlite3.Connection, schema: dict[str, set[str]]
    ) -> None:
        """Learn what is where."""
        self.source = source
        self._connection = connection
        self.media = {
            name: wanted
            for name, wanted in MEDIA.items()
            if {"run_id", *wanted} <= schema.get(name, set())
        }
        self.names: dict[Any, str] = {}
        query = "SELECT rowid, id, name FROM metrics"
        for _, metric, name in salvage(connection, query, (), lambda *_: None):
            self.names[metric] = name if isinstance(name, str) else repr(name)
        self._ranges = {table: self._range(table) for table in ("records", *self.media)}
        self._own: dict[Any, dict[str, Any]] = {}
        if {"run_id", "id", "document"} <= schema.get(_OWN, set()):
            query = f"SELECT rowid, run_id, document FROM {_OWN}"  # noqa: S608 - a constant
            for _, run, text in salvage(connection, query, (), lambda *_: None):
                document = foreign.parse(text)
                self._own[run] = document if isinstance(document, dict) else {}

    def _range(self, table: str) -> dict[Any, tuple[int, int, int]]:
        """Return the first and the last row of each run in a table, and how many there are."""
        query = f"SELECT run_id, min(rowid), max(rowid), count(*) FROM {table} GROUP BY run_id"  # noqa: S608 - a constant
        try:
            return {row[0]: row[1:] for row in self._connection.execute(query)}
        except ERRORS:
            return {}

    def rows(
        self, connection: sqlite3.Connection, table: str, run: Any, lost: Any
    ) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a run in one table, as they were inserted."""
        known = self._ranges[table]
        if known and run not in known:
            return
        bounds = known[run][:2] if known else ALL
        columns = ", ".join(self.media.get(table, ("metric_id", "step", "value", "wall_time")))
        query = f"SELECT rowid, {columns} FROM {table} NOT INDEXED WHERE run_id = ?"  # noqa: S608 - constants
        yield from salvage(connection, query, (run,), lost, bounds)

    def orphans(self, runs: set[Any]) -> dict[str, Any]:
        """Return what belongs to no run: names without a record, and rows of runs that are gone."""
        found: dict[str, Any] = {}
        try:
            used = {
                row[0] for row in self._connection.execute("SELECT DISTINCT metric_id FROM records")
            }
        except ERRORS:
            used = set(self.names)
        idle = [name for metric, name in self.names.items() if metric not in used]
        if idle:
            found["orphan_metric_names"] = idle
        rows = {
            table: count
            for table, known in self._ranges.items()
            if (count := sum(each[2] for run, each in known.items() if run not in runs))
        }
        if rows:
            found["orphan_rows"] = rows
        return found

    def run(self, row: tuple[Any, ...], gaps: list[str], orphans: dict[str, Any]) -> ForeignRun:
        """Return one run; it tells of the gaps and the orphans that come with it."""
        _, number, name, created, status, config = row
        own = self._own.get(number, {})
        extra: dict[str, Any] = {"run_id": number, "status": status, **orphans}
        if _is_time(created):
            extra["created_at"] = created
        tree = foreign.parse(config)
        if not isinstance(tree, dict):
            extra["config"] = config if isinstance(config, str) else repr(config)
        found = ForeignRun(
            source=str(self.source.path),
            key=str(number),
            fingerprint=self._fingerprint(row, own),
            name=name if isinstance(name, str) and name else f"run_{number}",
            items=lambda ledger: self._items(number, ledger, gaps, extra),
            config=tree if isinstance(tree, dict) else {},
            status=status if status in ("completed", "failed") else None,
            start=created if _is_time(created) else None,
            extra=extra,
            files=[self.source.path],
        )
        # A status that was changed since is the later word.
        if own and STATUS.get(own.get("status", ""), "failed") == status:
            foreign.recall(found, {**own, "name": found.name, "start": found.start})
        return found

    def _fingerprint(self, row: tuple[Any, ...], own: dict[str, Any]) -> str:
        """Return a digest of all rows of a run."""
        found = foreign.Digest(row, own)
        with self.source.connection() as connection:
            used: set[Any] = set()

            def records() -> Iterator[tuple[Any, ...]]:
                for each in self.rows(connection, "records", row[1], lambda *_: None):
                    used.add(each[1])
                    yield each

            found.update(records())
            found.update((metric, self.names.get(metric)) for metric in sorted(used, key=repr))
            for table in self.media:
                found.update([(table,)])
                found.update(self.rows(connection, table, row[1], lambda *_: None), 1)
        return found.hexdigest()

    def _items(
        self, run: Any, ledger: Ledger, gaps: list[str], extra: Mapping[str, Any]
    ) -> Iterator[Item]:
        """Yield what was logged, in order of time."""
        for gap in gaps:
            ledger.unreadable("field", "runs that cannot be read", where=gap)
        for table, count in extra.get("orphan_rows", {}).items():
            what = "rows of a run that is not there belong to no run"
            ledger.lost("scalar" if table == "records" else "artifact", what, count, where=table)
        if "config" in extra:
            ledger.unreadable(
                "config", "a configuration that is no JSON object", where=f"run {run}"
            )
        name = foreign.Names(ledger)
        with self.source.connection() as connection:

            def rows(table: str) -> Iterator[tuple[Any, ...]]:
                def lost(first: int, last: int, error: Exception) -> None:
                    kind: Kind = "scalar" if table == "records" else "artifact"
                    where = f"{self.source.path.name}: {table}, {_gap(first, last, error)}"
                    ledger.unreadable(kind, "rows that cannot be read", where=where)

                return self.rows(connection, table, run, lost)

            decode = Decoder(ledger, name)
            streams: list[Iterator[Item]] = [decode.records(rows("records"), self.names)]
            for table, known in self._ranges.items():
                if table != "records" and (run in known or not known):
                    streams.append(map(getattr(decode, table), rows(table)))
            if len(streams) == 1:
                yield from streams[0]
            else:
                yield from heapq.merge(*streams, key=_moment)


def _moment(item: Any) -> float:
    """Return the time of an item, for the order."""
    return item.time if item.time is not None else -math.inf


def _is_time(value: object) -> bool:
    """Tell whether a value can be Unix seconds."""
    return isinstance(value, (int, float)) and math.isfinite(value)


# ---- writing -----------------------------------------------------------------------------------


def write(run: RunReader, target: Path, ledger: Ledger, options: Mapping[str, Any]) -> Path:
    """Put a run into a database beside the others; one that is there already is replaced.

    Args:
        run: The run.
        target: The database, or a folder for one.
        ledger: Told what has no home.
        options: None are known.

    Raises:
        ConversionError: If the target is another database, or cannot be written.
        MissingDependencyError: If there are images and Pillow is not installed.
        OSError: If the folder of the target cannot be made.
    """
    del options
    path = target / FILE if target.is_dir() or not target.suffix else target
    with transaction(path, SCHEMA, _TABLES) as connection:
        Writer(run, connection, ledger).write()
    return path
