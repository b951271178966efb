"""The points of many runs as one table, a group of metrics at a time."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
from polars.io.plugins import register_io_source

from blackboxml.base import naming
from blackboxml.collection.cells import LAST
from blackboxml.collection.runs import RunTable
from blackboxml.errors import BlackboxError, TableError
from blackboxml.journal.table import read_keys
from blackboxml.reader import open_run

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from blackboxml.collection.ledger import Ledger
    from blackboxml.reader import RunReader

logger = logging.getLogger("blackboxml")

OWN: Final[dict[str, Any]] = {"run": pl.String(), "path": pl.String()}
"""The columns that say of which run a point is."""

INDEX: Final[dict[str, Any]] = {
    "step": pl.Int64(),
    "time": pl.Float64(),
    "rank": pl.Int32(),
    "attempt": pl.Int32(),
}
"""The columns of a table of a run that every point has."""

_WIDTH: Final = [pa.bool_(), pa.int64(), pa.float64()]
_ARROW: Final = dict(zip(("Boolean", "Int64", "Float64"), _WIDTH, strict=True))
_TAKEN: Final = re.compile(r"(?:run|path)_*")
_ROWS: Final = 100_000
_MOST_NAMED: Final = 5
_LARGE_CELLS: Final = 2**23
"""Cells of a table from which on it is read piece by piece."""


class _Piece(NamedTuple):
    """Points of a run, with its id and its directory."""

    table: pa.Table
    run: str
    path: str

    def head(self, rows: int) -> _Piece:
        """Return the first of the points."""
        return self._replace(table=self.table.slice(0, rows))


class PointTable:
    """A group of all runs of a ledger.

    Attributes:
        schema: Types by column.
    """

    def __init__(
        self,
        ledger: Ledger,
        root: str,
        group: str | None,
        columns: Sequence[str] | None,
        runs: Collection[str] | None = None,
    ) -> None:
        """Find out which metrics there are; the arguments are those of `scan_metrics`."""
        table = RunTable(ledger, root)
        groups = metric_groups(table)
        self._runs = table.frame(["id", "path", "problem"]).rename({"id": "run"})
        self._runs = self._runs.with_row_index("row")
        if runs is not None:
            self._runs = self._runs.filter(pl.col("run").is_in(list(runs)))
        if group is None:
            if len(groups) > 1:
                raise KeyError(f"{root} has the groups {list(groups)}; say which one")
            group = next(iter(groups), "")
        if group not in groups and groups:
            raise KeyError(f"{root} has no group {group!r}; it has {list(groups)}")
        self._group = group
        names = column_names(groups.get(group, []))
        if columns is not None and groups:
            known = {column: metric for metric, column in names.items()}
            if missing := [column for column in columns if column not in known]:
                message = (
                    f"no run in {root} has {missing[0]!r} in {group!r}; there are {list(known)}"
                )
                raise KeyError(message)
            names = {known[column]: column for column in columns}
        self._names = names
        self._has = table.having([LAST + metric for metric in groups.get(group, [])])
        self.schema = {**OWN, **INDEX}
        self.schema |= {column: table.schema[LAST + metric] for metric, column in names.items()}
        if not groups:
            self.schema |= dict.fromkeys(columns or (), pl.Float64())

    def scan(self) -> pl.LazyFrame:
        """Return the points, which a query reads run by run."""
        return register_io_source(self._read, schema=self.schema)

    def _read(
        self,
        columns: list[str] | None,
        where: pl.Expr | None,
        rows: int | None,
        batch: int | None,
    ) -> Iterator[pl.DataFrame]:
        """Yield the points in pieces of about so many rows."""
        wanted = list(self.schema) if columns is None else columns
        runs = self._runs
        for part in _conditions(where):
            if set(part.meta.root_names()) <= OWN.keys():
                runs = runs.filter(part)
        left, waiting, count = rows, list[_Piece](), 0
        failed: dict[str, str] = {}
        try:
            for piece in self._pieces(runs, wanted, failed):
                waiting.append(piece if left is None else piece.head(left - count))
                count += waiting[-1].table.num_rows
                if count >= (batch or _ROWS) or count == left:
                    yield self._frame(waiting, wanted, where)
                    left = None if left is None else left - count
                    waiting, count = [], 0
                if left == 0:
                    return
            yield self._frame(waiting, wanted, where)
        finally:
            _tell(failed)

    def _pieces(
        self, runs: pl.DataFrame, wanted: Sequence[str], failed: dict[str, str]
    ) -> Iterator[_Piece]:
        """Yield the points of runs.

        Args:
            runs: Which ones.
            wanted: Columns.
            failed: Receives the runs that cannot be read, and why.
        """
        for row, run, path, problem in runs.select("row", *OWN, "problem").rows():
            if row in self._has:
                try:
                    for table in self._tables(open_run(path), wanted):
                        yield _Piece(table, run, path)
                except (BlackboxError, OSError, KeyError) as error:
                    failed[path] = str(error)
            elif problem is not None:
                failed[path] = problem

    def _frame(
        self, pieces: Sequence[_Piece], wanted: Sequence[str], where: pl.Expr | None
    ) -> pl.DataFrame:
        """Return pieces as a query gets them, without the rows that do not count."""
        if not pieces:
            return pl.DataFrame(schema=self.schema).select(wanted)
        frame = pl.DataFrame(pa.concat_tables(each.table for each in pieces))
        rows = np.repeat(np.arange(len(pieces)), [each.table.num_rows for each in pieces])
        own = [pl.Series(name, [getattr(each, name) for each in pieces]) for name in OWN]
        frame = frame.with_columns(each.gather(rows) for each in own).select(wanted)
        return frame if where is None else frame.filter(where)

    def _tables(self, reader: RunReader, wanted: Sequence[str]) -> Iterator[pa.Table]:
        """Yield the points of a run with the columns that are wanted, null where it has none.

        Raises:
            BlackboxError: If it cannot be read.
            KeyError: If the group is not there any more.
        """
        index = [name for name in INDEX if name in wanted] or ["step"]
        metrics = [metric for metric, column in self._names.items() if column in wanted]
        if not reader.sealed:
            table = reader.arrow(self._group)
            yield self._conform(table, index, metrics, _metric_columns(table, metrics))
            return
        said = reader.manifest["groups"][self._group]
        there = [metric for metric in metrics if metric in said["metrics"]]
        own = {metric: said["metrics"][metric]["column"] for metric in there}
        if said["rows"] * len(said["metrics"]) < _LARGE_CELLS:
            table = reader.arrow(self._group, columns=[*index, *own.values()])
            yield self._conform(table, index, metrics, own)
            return
        for piece in reader.pieces(self._group):
            yield self._conform(piece, index, metrics, own)

    def _conform(
        self, table: pa.Table, index: list[str], metrics: list[str], own: dict[str, str]
    ) -> pa.Table:
        """Return a table with the columns and types that were promised.

        Args:
            table: Points of a run.
            index: Columns that stay as they are.
            metrics: The metrics that are wanted.
            own: Its columns, of those metrics that it has.

        Raises:
            TableError: If a column has a wider type than its metric had in any run before.
        """
        arrays = {name: table.column(name) for name in index}
        for metric in metrics:
            kind = _ARROW[str(self.schema[self._names[metric]])]
            if metric not in own:
                arrays[self._names[metric]] = pa.nulls(table.num_rows, kind)
                continue
            array = table.column(own[metric])
            if _WIDTH.index(array.type) > _WIDTH.index(kind):
                message = f"{metric!r} has become {array.type} in the meantime: scan again"
                raise TableError(message)
            arrays[self._names[metric]] = array.cast(kind, safe=False)
        return pa.table(arrays)


def metric_groups(table: RunTable) -> dict[str, list[str]]:
    """Return the metrics of each group, by name."""
    found: dict[str, list[str]] = {}
    for name in table.schema:
        if name.startswith(LAST):
            metric = name.removeprefix(LAST)
            found.setdefault(naming.group_of(metric), []).append(metric)
    return dict(sorted(found.items()))


def column_names(metrics: Sequence[str]) -> dict[str, str]:
    """Return the column of each metric of a group."""
    return {
        metric: f"{column}_" if _TAKEN.fullmatch(column) else column
        for metric, column in naming.column_names(metrics).items()
    }


def _metric_columns(table: pa.Table, metrics: Sequence[str]) -> dict[str, str]:
    """Return the columns of metrics that a table of a run has, as they are labelled."""
    keys = read_keys(table.schema)
    names = table.column_names[len(table.column_names) - len(keys) :]
    found = {metric: name for name, (metric, said) in zip(names, keys, strict=True) if said is None}
    return {metric: found[metric] for metric in metrics if metric in found}


def _conditions(where: pl.Expr | None) -> list[pl.Expr]:
    """Return the conditions that all have to hold for another one."""
    if where is None:
        return []
    parts = where.meta.pop()
    if len(parts) == 2:  # noqa: PLR2004 - the sides of an operator
        for left, right in (parts, parts[::-1]):
            if (left & right).meta.eq(where):
                return [*_conditions(left), *_conditions(right)]
    return [where]


def _tell(failed: dict[str, str]) -> None:
    """Warn of runs that could not be read."""
    if failed:
        named = "; ".join(f"{path}: {why}" for path, why in list(failed.items())[:_MOST_NAMED])
        more = f"; and {len(failed) - _MOST_NAMED:,} more" if len(failed) > _MOST_NAMED else ""
        logger.warning("%d run(s) cannot be read and are left out: %s%s", len(failed), named, more)
