"""Tables and events of a sealed run as a source of records, also where a table is damaged.

A table whose digest is the recorded one is taken as it is. Of any other a column of a row group is
taken only if its pages have their checksums, and its values are as many, and between the same least
and greatest, as the footer says: a page's own header is not under its checksum.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from blackboxml.base import naming
from blackboxml.base.files import raise_refusal
from blackboxml.base.scalar import spell
from blackboxml.errors import BlackboxError
from blackboxml.journal.table import INDEX, METADATA, read_keys
from blackboxml.seal.sealed import close_table, open_table
from blackboxml.validation.document import parse

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pyarrow.parquet as pq

    from blackboxml.base.files import Directory
    from blackboxml.journal.scan import Event
    from blackboxml.journal.table import Key
    from blackboxml.model import Limits

Place = tuple[int, int, int]
"""Attempt, rank and `seq` of a record."""

FIRST: Final[Place] = (-1, -1, -1)
LAST: Final[Place] = (2**63, 0, 0)
_PLACE: Final = ("attempt", "rank", "seq")
_ERRORS: Final = (pa.ArrowException, OSError, ValueError, BlackboxError, OverflowError)
_TYPES: Final = {"bool": pa.bool_(), "int64": pa.int64(), "float64": pa.float64()}


@dataclass(slots=True)
class TableSource:
    """One table.

    Attributes:
        directory: The run.
        name: The file.
        group: The group that it is of, None where only the file can tell.
        metrics: What the manifest says of its metrics, None where it says nothing.
        run_id: The run that it has to be of.
        sound: Whether its digest is the recorded one.
        limits: What a reader accepts.
        holes: Between which places rows are gone, the ends not included.
        thin: Places from and to which columns are gone, the ends included.
        kept: Row groups that were read whole.
    """

    directory: Directory
    name: str
    group: str | None
    metrics: Mapping[str, Any] | None
    run_id: str
    sound: bool
    limits: Limits
    holes: list[tuple[Place, Place]] = field(default_factory=list)
    thin: list[tuple[Place, Place]] = field(default_factory=list)
    kept: int = 0

    def rows(self) -> Iterator[tuple[Place, Event]]:
        """Yield the rows that can be trusted in order, each as a record of its group's metrics."""
        self.holes, self.thin, self.kept = [], [], 0
        try:
            file = open_table(self.directory, self.name, self.limits)
        except _ERRORS as error:
            raise_refusal(error, self.name)
            self.holes.append((FIRST, LAST))
            return
        try:
            yield from self._rows(file)
        finally:
            close_table(file)

    def _rows(self, file: pq.ParquetFile) -> Iterator[tuple[Place, Event]]:
        """Yield the rows of a file that opens."""
        if not self.sound and not self._is_named_well(file):
            self.holes.append((FIRST, LAST))
            return
        keys = read_keys(file.schema_arrow)
        last, torn = FIRST, False
        for at in range(file.metadata.num_row_groups):
            places, table, missing = self._read(file, at, last)
            if table is None:
                torn = True
                continue
            if torn:
                self.holes.append((last, places[0]))
                torn = False
            if missing:
                self.thin.append((places[0], places[-1]))
            self.kept += not missing
            last = places[-1]
            yield from _records(places, table, keys)
        if torn:
            self.holes.append((last, LAST))

    def _read(
        self, file: pq.ParquetFile, at: int, last: Place
    ) -> tuple[list[Place], pa.Table | None, bool]:
        """Return the places and the columns of a row group, and whether columns are missing."""
        names = file.schema_arrow.names
        count = file.metadata.row_group(at).num_rows
        columns: list[Any] = []
        missing = False
        for place, name in enumerate(names):
            column = self._column(file, at, place, name, count)
            if column is None and name in _PLACE:
                return [], None, True
            missing = missing or column is None
            kind = file.schema_arrow.field(place).type
            columns.append(pa.nulls(count, kind) if column is None else column)
        table = pa.Table.from_arrays(columns, names=names)
        index = [table.column(name).to_pylist() for name in _PLACE]
        places: list[Place] = list(zip(*index, strict=True))
        if not places or any(None in each or min(each) < 0 for each in places):
            return [], None, True
        if any(right <= left for left, right in zip([last, *places], places, strict=False)):
            return [], None, True
        return places, table, missing

    def _column(
        self, file: pq.ParquetFile, at: int, place: int, name: str, rows: int
    ) -> pa.ChunkedArray | None:
        """Return a column of a row group if nothing speaks against it."""
        try:
            column = file.read_row_group(at, columns=[name]).column(0)
            column.validate()
        except _ERRORS as error:
            raise_refusal(error, self.name)
            return None
        if len(column) != rows or (place < len(INDEX) and column.null_count):
            return None
        if self.sound:
            return column
        try:
            found = file.metadata.row_group(at).column(place).statistics
            return column if found is not None and _agrees(column, found) else None
        except _ERRORS:
            return None

    def _is_named_well(self, file: pq.ParquetFile) -> bool:
        """Tell whether names, labels and types of the columns confirm each other."""
        schema = file.schema_arrow
        try:
            said = parse((schema.metadata or {}).get(METADATA, b""), self.limits.depth)
            group, run_id = said["group"], said["run"]["id"]
            keys = read_keys(schema)
        except (*_ERRORS, KeyError, TypeError):
            return False
        plain = naming.column_names(list(dict.fromkeys(metric for metric, _ in keys)))
        columns = zip(list(schema)[len(INDEX) :], keys, strict=True)
        return (
            run_id == self.run_id
            and self.group in {None, group}
            and all(naming.group_of(metric) == group for metric in plain)
            and all(self._fits(column, key, plain[key[0]]) for column, key in columns)
        )

    def _fits(self, column: pa.Field, key: Key, plain: str) -> bool:
        """Tell whether a column is named and typed as its label and the manifest say."""
        metric, statistic = key
        if statistic is not None:
            return bool(column.name.startswith(plain) and column.name.endswith(statistic))
        if self.metrics is None:
            return bool(column.name == plain)
        kind = self.metrics.get(metric, {}).get("type")
        return bool(column.name == plain and column.type == _TYPES.get(kind))


def merged(
    sources: Sequence[TableSource], events: Mapping[Place, Event]
) -> Iterator[tuple[Place, Event, bool]]:
    """Yield every record that tables and events hold in merge order.

    An event takes the place of a row. A row without `step` or `time` is given only if another table
    has them. The third member tells whether it is an event, and so whole
    whatever became of a table.
    """
    streams: list[Iterator[tuple[Place, Event]]] = [source.rows() for source in sources]
    streams.append(iter(sorted(events.items(), key=lambda each: each[0])))
    rows = heapq.merge(*streams, key=lambda each: each[0])
    for place, same in itertools.groupby(rows, key=lambda each: each[0]):
        records = [record for _, record in same]
        if place in events:
            yield place, events[place], True
            continue
        whole = records[0]
        for record in records[1:]:
            for key in ("step", "time"):
                whole[key] = record[key] if whole[key] is None else whole[key]
            whole["metrics"].update(record["metrics"])
            if "ranks" in record:
                whole.setdefault("ranks", {}).update(record["ranks"])
        if whole["step"] is not None and whole["time"] is not None:
            yield place, whole, False


def _records(
    places: list[Place], table: pa.Table, keys: list[tuple[str, str | None]]
) -> Iterator[tuple[Place, Event]]:
    """Yield the rows of a table as records."""
    columns = [column.to_pylist() for column in table.columns]
    step, time = columns[0], columns[1]
    values = columns[len(INDEX) :]
    for at, place in enumerate(places):
        metrics: dict[str, Any] = {}
        ranks: dict[str, dict[str, Any]] = {}
        for (metric, statistic), column in zip(keys, values, strict=True):
            if column[at] is None:
                continue
            if statistic is None:
                metrics[metric] = spell(column[at])
            else:
                ranks.setdefault(metric, {})[statistic] = spell(column[at])
        record = {"seq": place[2], "step": step[at], "time": time[at], "metrics": metrics}
        yield place, record | ({"ranks": ranks} if ranks else {})


def _agrees(column: pa.ChunkedArray, said: Any) -> bool:
    """Tell whether the values of a column are those that the footer summarises."""
    if not said.has_null_count or said.null_count != column.null_count:
        return False
    values = column.drop_null().to_numpy()
    if values.dtype.kind == "f":
        values = values[~np.isnan(values)]
    if not len(values):
        return not said.has_min_max
    if not said.has_min_max:
        return False
    least, greatest = values.min(), values.max()
    return bool(said.min == least and said.max == greatest)
