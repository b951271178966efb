"""MLflow's SQL store in an SQLite file `mlflow.db`, as it was in any version since 0.9.

The tables are those of
https://github.com/mlflow/mlflow/blob/master/mlflow/store/tracking/dbmodels/models.py; what an
earlier version lacks (`step`, `is_nan`, `experiment_tags`, `inputs`, …) is found by looking.
Infinities stand there as the greatest float64, NaN as 0 with a flag.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from blackboxml.converters.mlflow.run import Told, build, files_below
from blackboxml.errors import FormatError
from blackboxml.foreign.database import (
    ALL,
    ERRORS,
    Source,
    has_tables,
    read_columns,
    salvage,
    tables,
)
from blackboxml.foreign.interchange import fingerprint
from blackboxml.foreign.values import Digest

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
    from pathlib import Path

    from blackboxml.converters.mlflow.series import Series
    from blackboxml.foreign.interchange import ForeignRun

FILE: Final = "mlflow.db"
FOLDERS: Final = ("mlruns", "mlartifacts")
"""Where artifacts lie beside a database."""

_WANTED: Final = {
    "experiments": {"experiment_id", "name"},
    "runs": {"run_uuid", "experiment_id", "status"},
    "metrics": {"key", "value", "timestamp", "run_uuid"},
}
_HAS_INDEX: Final = (
    "SELECT count(*) FROM sqlite_master WHERE type = 'index' AND name = 'index_metrics_run_uuid'"
)
_END: Final = "SELECT rowid FROM metrics WHERE run_uuid = ? ORDER BY rowid {} LIMIT 1"
_RANGES: Final = "SELECT run_uuid, min(rowid), max(rowid) FROM metrics GROUP BY run_uuid"
_RUN: Final = (
    *("run_uuid", "name", "source_type", "source_name", "entry_point_name", "user_id", "status"),
    *("start_time", "end_time", "deleted_time", "source_version", "lifecycle_stage"),
    *("artifact_uri", "experiment_id"),
)
_EXPERIMENT: Final = (
    *("experiment_id", "name", "artifact_location", "lifecycle_stage", "creation_time"),
    "last_update_time",
)


def recognise(path: Path) -> bool:
    """Tell whether a file is such a database."""
    return has_tables(path, _WANTED)


def read(path: Path) -> Iterator[ForeignRun]:
    """Yield the runs of a database, those in the trash as well.

    Raises:
        FormatError: If it is no such database, or too damaged.
        OSError: If it cannot be read.
    """
    source = Source(path)
    try:
        with source.connection() as connection:
            yield from _Store(source, connection).runs()
    except ERRORS as error:
        raise FormatError(f"{path} is damaged: {error}") from None


class _Store:
    """One database."""

    def __init__(self, source: Source, connection: sqlite3.Connection) -> None:
        from blackboxml.base.shelf import Shelf

        self._source = source
        self._connection = connection
        self._schema = tables(connection)
        self._bad: list[str] = []
        self._shelf = Shelf()
        self._indexed = 0
        self._ranges: dict[Any, tuple[int, int]] | None = None
        with suppress(*ERRORS):
            (self._indexed,) = connection.execute(_HAS_INDEX).fetchone()
            if not self._indexed:
                self._ranges = {row[0]: row[1:] for row in connection.execute(_RANGES)}

    def _range(self, run: Any) -> tuple[int, int] | None:
        """Return the least and greatest `rowid` of what a run measured; None if that is nothing."""
        if self._ranges is not None:
            return self._ranges.get(run)
        if not self._indexed:
            return ALL
        try:
            ways = (self._connection.execute(_END.format(way), (run,)) for way in ("ASC", "DESC"))
            first, last = (found.fetchone() for found in ways)
        except ERRORS:
            return ALL
        return None if None in (first, last) else (first[0], last[0])

    def runs(self) -> Iterator[ForeignRun]:
        """Yield the runs, in the order in which they were made."""
        experiments = {row["experiment_id"]: row for row in self._rows("experiments", _EXPERIMENT)}
        for tag in self._rows("experiment_tags", ("experiment_id", "key", "value")):
            about = experiments.get(tag["experiment_id"])
            if about is not None:
                about.setdefault("tags", {})[str(tag.get("key"))] = str(tag.get("value"))
        for row in list(self._rows("runs", _RUN)):
            about = experiments.get(row["experiment_id"], {})
            yield self._run(row, {key: _plain(each) for key, each in about.items()})

    def _rows(
        self, table: str, wanted: tuple[str, ...], where: str = "", parameters: tuple[Any, ...] = ()
    ) -> Iterator[dict[str, Any]]:
        """Yield those columns of a table that are there, as they were inserted."""
        found = [name for name in wanted if name in self._schema.get(table, set())]
        if not found or (where and where not in self._schema[table]):
            return
        condition = f" WHERE {where} = ?" if where else ""
        query = f"SELECT rowid, {', '.join(found)} FROM {table}{condition}"  # noqa: S608 - constants

        def lost(first: int, last: int, error: Exception) -> None:
            self._bad.append(f"{table}, rows {first} to {last}: {error}")

        for row in salvage(self._connection, query, parameters, lost):
            yield dict(zip(found, row[1:], strict=True))

    def _pairs(self, table: str, run: Any) -> dict[str, str]:
        """Return the parameters, or the tags, of a run."""
        rows = self._rows(table, ("key", "value"), "run_uuid", (run,))
        return {str(row.get("key")): _text(row.get("value")) for row in rows}

    def _inputs(self, run: Any) -> list[Any]:
        """Return the data sets and models of a run."""
        wanted = ("source_type", "source_id", "destination_type", "destination_id", "input_uuid")
        found = []
        rows = [
            *self._rows("inputs", wanted, "destination_id", (run,)),
            *self._rows("inputs", wanted, "source_id", (run,)),
        ]
        for row in rows:
            said = {key: _plain(each) for key, each in row.items()}
            columns = (
                *("name", "digest", "dataset_source_type", "dataset_source"),
                *("dataset_schema", "dataset_profile"),
            )
            for data in self._rows("datasets", columns, "dataset_uuid", (row.get("source_id"),)):
                said["dataset"] = {key: _plain(each) for key, each in data.items()}
            pair = ("name", "value")
            uuid = (row.get("input_uuid"),)
            if tags := list(self._rows("input_tags", pair, "input_uuid", uuid)):
                said["tags"] = {str(tag.get("name")): _text(tag.get("value")) for tag in tags}
            found.append(said)
        return found

    def _run(self, row: dict[str, Any], experiment: dict[str, Any]) -> ForeignRun:
        """Return one run."""
        run = row["run_uuid"]
        root = self._source.path.absolute().parent
        info = {key: _plain(value) for key, value in row.items()}
        info["run_id"] = info.pop("run_uuid")
        artifacts, elsewhere = locate(str(row.get("artifact_uri") or ""), root)
        params, tags = self._pairs("params", run), self._pairs("tags", run)
        inputs = self._inputs(run)
        series = self._read_series(run)
        bad, self._bad = self._bad, []
        told = Told(
            source=str(self._source.path),
            info=info,
            experiment=experiment,
            params=params,
            tags=tags,
            inputs=inputs,
            root=root,
            artifacts=artifacts,
            bad=bad,
            series=series.points,
            elsewhere=elsewhere,
        )
        unread = repr(series.ledger.counts)
        found = Digest(info, experiment, params, tags, inputs, list(series.names), unread)
        found.update(map(tuple, series.parts()), at_once=1)
        below = [] if artifacts is None else list(files_below(artifacts, lambda *_: None))
        found.update((name, fingerprint([path])) for name, path in below)
        return build(told, found.hexdigest(), [self._source.path])

    def _read_series(self, run: Any) -> Series:
        """Return what a run measured; it is read once, and put by."""
        from blackboxml.converters.mlflow.series import AT_ONCE, Series

        found = Series(self._shelf)
        bounds = self._range(run)
        if bounds is None:
            return found
        there = self._schema["metrics"]
        step = "step" if "step" in there else "0"
        flag = "is_nan" if "is_nan" in there else "0"
        place = "metrics NOT INDEXED WHERE run_uuid = ?"
        with self._source.connection() as connection:
            connection.text_factory = bytes
            kinds = {"key": "TEXT", "timestamp": "INTEGER", step: "INTEGER", "value": "REAL"}
            kinds[f"+{flag}"] = "INTEGER"
            within = f"{place} AND rowid >= ? AND rowid <= ?"
            try:
                for part in read_columns(connection, kinds, within, (run, *bounds), AT_ONCE):
                    found.add(part)
            except (*ERRORS, FormatError):
                found = Series(self._shelf)
            else:
                return found

            def lost(first: int, last: int, error: Exception) -> None:
                where = f"metrics, rows {first} to {last}: {error}"
                found.ledger.unreadable("scalar", "rows that cannot be read", where=where)

            query = f"SELECT rowid, key, value, timestamp, {step}, {flag} FROM {place}"  # noqa: S608 - constants
            rows = salvage(connection, query, (run,), lost, bounds)
            while some := list(islice(rows, AT_ONCE)):
                found.add_rows(some)
        return found


def locate(uri: str, root: Path) -> tuple[Path | None, str]:
    """Return the folder of artifacts below a root, also where both were moved together.

    Args:
        uri: Where the store says that they are.
        root: The folder of the database, which is not left.

    Returns:
        The folder, or None; and where they are if that is elsewhere.
    """
    if not uri:
        return None, ""
    split = urlsplit(uri)
    if split.scheme not in ("", "file", "mlflow-artifacts"):
        return None, f"{split.scheme}://{split.hostname or ''}{split.path}"
    parts = [part for part in unquote(split.path).split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in uri:
        return None, uri
    inner = split.scheme != "file" and not split.path.startswith("/")
    for first in range(len(parts) - 1):
        for base in (root, *(root / name for name in FOLDERS)):
            place = base.joinpath(*parts[first:])
            if place.is_dir() and _is_plain(place, root):
                return place, ""
    below = list(root.parts[1:]) == parts[: len(root.parts) - 1]
    return None, "" if inner or below else uri


def _is_plain(place: Path, root: Path) -> bool:
    """Tell whether no link leads from a root to a place in it."""
    while place != root:
        if place.is_symlink():
            return False
        place = place.parent
    return True


def _plain(value: Any) -> Any:
    """Return a value of a cell as a configuration can hold it."""
    return value.hex() if isinstance(value, bytes) else value


def _text(value: Any) -> str:
    """Return a value as text, empty for none."""
    return "" if value is None else str(_plain(value))
