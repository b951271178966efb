"""Journals to Arrow: the rows of each metric group, a block at a time, in bounded memory.

Strategy: blocks of lines are parsed by pyarrow's JSON reader on other threads, with the schema
known so far, while this thread checks the checksums of the lines. Whatever that reader does not
take exactly (an event, a new metric, NaN, a value of another type, damage) sends the block through
the record reader of `scan`, which is the reference; both give the same rows.
"""

from __future__ import annotations

import re
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import numpy as np
import orjson
import pyarrow as pa

from blackboxml.base import naming
from blackboxml.journal.block import check_lines, cut, parse_lines, without_end
from blackboxml.model import LIMITS, STATISTICS, TABLE_FORMAT, VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from blackboxml.base.files import Directory
    from blackboxml.journal import Block
    from blackboxml.journal.scan import Scan
    from blackboxml.model import JournalFile, Record

Key: TypeAlias = tuple[str, str | None]
"""A column: the full name of a metric, and a statistic across ranks or None."""

INDEX: Final = {
    "step": pa.int64(),
    "time": pa.float64(),
    "attempt": pa.int32(),
    "rank": pa.int32(),
    "seq": pa.int64(),
}
"""The columns that every table opens with."""

METRIC: Final = b"blackbox.metric"
STATISTIC: Final = b"blackbox.statistic"
METADATA: Final = b"blackbox"

_SMALL_BYTES = 2**18
_MOST_CELLS = 2**23
_LEARN_BYTES = 2**14
_AHEAD = 2
_THREADS = 2
_LONG_INTEGER = re.compile(rb":\s*-?[0-9]{16,}\s*[,}]")
_MINUS_ZERO = re.compile(rb":\s*-0\s*[,}]")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_EXACT_FLOAT = float(2**53)
_ORDER = {pa.null(): -1, pa.bool_(): 0, pa.int64(): 1, pa.float64(): 2}


@dataclass(frozen=True, slots=True)
class Part:
    """Some rows of one group.

    Attributes:
        group: The group's name.
        keys: What the columns behind the index are.
        batch: The index columns, then one column per key; columns are named by position.
        rounded: Attempt, rank and `seq` of rows with an integer that became the nearest float64.
    """

    group: str
    keys: tuple[Key, ...]
    batch: pa.RecordBatch
    rounded: frozenset[tuple[int, int, int]] = frozenset()


@dataclass(slots=True)
class GroupSchema:
    """What a group's table will look like, gathered while its parts go by.

    Attributes:
        name: The group.
        rows: Number of rows so far.
        types: Column types by key, in first-seen order.
        counts: Values by key.
        inexact: Attempt, rank and `seq` of rows with an integer that float64 rounds.
    """

    name: str
    rows: int = 0
    types: dict[Key, pa.DataType] = field(default_factory=dict)
    counts: dict[Key, int] = field(default_factory=dict)
    inexact: set[tuple[int, int, int]] = field(default_factory=set)

    def add(self, part: Part) -> None:
        """Count a part in: new columns, wider types."""
        self.rows += part.batch.num_rows
        self.inexact |= part.rounded
        for key, column in zip(part.keys, part.batch.columns[len(INDEX) :], strict=True):
            self.types[key] = join(self.types.get(key), column.type)
            self.counts[key] = self.counts.get(key, 0) + len(column) - column.null_count

    @property
    def keys(self) -> list[Key]:
        """The columns in table order: metrics as first seen, each followed by its statistics."""
        metrics = dict.fromkeys(metric for metric, _ in self.types)
        return [
            (metric, statistic)
            for metric in metrics
            for statistic in (None, *STATISTICS)
            if statistic is None or (metric, statistic) in self.types
        ]

    def type_of(self, key: Key) -> pa.DataType:
        """Return the type of a column; float64 for a metric that has no value of its own."""
        kind = self.types.get(key, pa.float64())
        return pa.float64() if kind == pa.null() else kind

    def columns(self) -> dict[Key, str]:
        """Return the column name of each key."""
        metrics = dict.fromkeys(metric for metric, _ in self.types)
        plain = naming.column_names(list(metrics))
        taken = set(plain.values())
        names: dict[Key, str] = {}
        for metric, statistic in self.keys:
            name = plain[metric]
            if statistic is not None:
                name = naming.statistic_column(name, statistic, taken)
                taken.add(name)
            names[metric, statistic] = name
        return names

    def schema(self, run: Mapping[str, str]) -> pa.Schema:
        """Return the Arrow schema of the table, with the names a reader goes by as metadata.

        Args:
            run: `id` and `name` of the run.
        """
        names = self.columns()
        fields = [pa.field(name, kind, nullable=False) for name, kind in INDEX.items()]
        for key in self.keys:
            metadata = {METRIC: key[0].encode()}
            if key[1] is not None:
                metadata[STATISTIC] = key[1].encode()
            fields.append(pa.field(names[key], self.type_of(key), metadata=metadata))
        document = {
            "format": {"name": TABLE_FORMAT, "version": VERSION, "features": []},
            "run": dict(run),
            "group": self.name,
        }
        return pa.schema(fields, {METADATA: orjson.dumps(document)})

    def conform(self, part: Part, schema: pa.Schema) -> pa.RecordBatch:
        """Return the rows of a part with the columns of the whole table."""
        given = dict(zip(part.keys, part.batch.columns[len(INDEX) :], strict=True))
        arrays = list(part.batch.columns[: len(INDEX)])
        for key in self.keys:
            column = given.get(key)
            if column is None:
                column = pa.nulls(part.batch.num_rows, self.type_of(key))
            elif column.type != self.type_of(key):
                column = self._widen(key, column, part.batch)
            arrays.append(column)
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _widen(self, key: Key, column: pa.Array, batch: pa.RecordBatch) -> pa.Array:
        """Return a column as the type of the whole table; an integer takes the nearest float64."""
        kind = self.type_of(key)
        wide = column.cast(kind, safe=False)
        if column.type == pa.int64():
            for row in _rounded(column):
                place = {name: batch.column(at)[row].as_py() for at, name in enumerate(INDEX)}
                self.inexact.add((place["attempt"], place["rank"], place["seq"]))
        return wide


def join(left: pa.DataType | None, right: pa.DataType) -> pa.DataType:
    """Return the narrowest of bool, int64 and float64 that holds both."""
    return right if left is None or _ORDER[right] > _ORDER[left] else left


def read_keys(schema: pa.Schema) -> list[Key]:
    """Return what the columns of a sealed table are, the index left out."""
    keys: list[Key] = []
    for column in list(schema)[len(INDEX) :]:
        metadata = column.metadata or {}
        statistic = metadata.get(STATISTIC)
        keys.append(
            (
                metadata.get(METRIC, column.name.encode()).decode(),
                statistic.decode() if statistic is not None else None,
            )
        )
    return keys


class _Parse(NamedTuple):
    """A block that is being parsed on another thread."""

    schema: pa.Schema
    table: Future[pa.Table | None]


class Tabulator:
    """Turns the blocks of a run's journals into parts.

    Attributes:
        scans: The journals that were read, with their events.
    """

    def __init__(self) -> None:
        """Begin with no known metric."""
        self.scans: list[Scan] = []
        self._types: dict[Key, pa.DataType] = {}
        self._schema: pa.Schema | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._places: dict[str, tuple[str, Key]] = {}
        self._refused = False

    @staticmethod
    def group(name: str) -> GroupSchema:
        """Return an empty schema for a group that was met."""
        return GroupSchema(name)

    def parts(self, scan: Scan, directory: Directory) -> Iterator[Part]:
        """Yield the rows of one journal, group by group within each block."""
        self.scans.append(scan)
        ahead: deque[tuple[Block, _Parse | None]] = deque()
        try:
            for block in scan.blocks(directory):
                for piece in self._pieces(block):
                    ahead.append((piece, self._submit(piece)))
                    if len(ahead) > _AHEAD or not self._types:
                        yield from self._read(*ahead.popleft(), scan)
            while ahead:
                yield from self._read(*ahead.popleft(), scan)
        finally:
            if self._pool is not None:
                self._pool.shutdown(cancel_futures=True)
                self._pool = None

    def _pieces(self, block: Block) -> Iterator[Block]:
        """Yield a block whole, or in pieces where much of the last one went line by line."""
        if not self._types and len(block.data) >= _SMALL_BYTES:
            yield from cut(block, _LEARN_BYTES, most=1)
        elif self._refused:
            yield from cut(block, _SMALL_BYTES)
        else:
            yield from without_end(block)

    def _submit(self, block: Block) -> _Parse | None:
        """Begin to parse a block on another thread, unless it is small or nothing is known yet."""
        if len(block.data) < _SMALL_BYTES // 2 or not self._types:
            return None
        if block.data.count(b"\n") * len(self._types) > _MOST_CELLS:
            return None
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_THREADS)
        schema = self._json_schema()
        return _Parse(schema, self._pool.submit(parse_lines, block.data, schema))

    def _read(self, block: Block, parse: _Parse | None, scan: Scan) -> Iterator[Part]:
        """Yield the parts of a block, as much of it as possible the fast way."""
        if parse is not None and parse.schema is not self._schema:
            parse.table.cancel()
            parse = self._submit(block)
        if parse is None or scan.ended:
            yield from self._slow(block, scan)
            return
        parts = self._fast(block, parse, scan)
        self._refused = parts is None
        if parts is not None:
            yield from parts
        elif len(pieces := list(cut(block, _SMALL_BYTES))) > 1:
            for piece in pieces:
                yield from self._read(piece, self._submit(piece), scan)
        else:
            yield from self._slow(block, scan)

    def _slow(self, block: Block, scan: Scan) -> Iterator[Part]:
        """Yield the parts of records that are read one by one."""
        grouped: dict[str, list[tuple[Record, dict[Key, Any]]]] = {}
        seen: set[Key] = set()
        for count, record in enumerate(scan.read(block), start=1):
            for group, values in self._by_group(record).items():
                grouped.setdefault(group, []).append((record, values))
                seen.update(values)
            if count * len(seen) > _MOST_CELLS:
                yield from self._rows(grouped, scan.journal)
                grouped, seen = {}, set()
        yield from self._rows(grouped, scan.journal)

    def _rows(
        self, grouped: dict[str, list[tuple[Record, dict[Key, Any]]]], journal: JournalFile
    ) -> Iterator[Part]:
        """Yield records, by group and with their values by column, as parts."""
        rank, attempt = journal.rank, journal.attempt
        for group, rows in grouped.items():
            columns: dict[Key, list[Any]] = {}
            for place, (_, values) in enumerate(rows):
                for key, value in values.items():
                    if key not in columns:
                        columns[key] = [None] * len(rows)
                    columns[key][place] = value
            arrays = [_column(values) for values in columns.values()]
            rounded: set[tuple[int, int, int]] = set()
            for (key, column), array in zip(columns.items(), arrays, strict=True):
                if array.type != pa.null():
                    self._learn(key, array.type)
                if array.type == pa.float64() and int in set(map(type, column)):
                    rounded |= {
                        (attempt, rank, record.seq)
                        for (record, _), value in zip(rows, column, strict=True)
                        if type(value) is int and int(float(value)) != value
                    }
            index = make_index(
                pa.array([record.step for record, _ in rows], pa.int64()),
                pa.array([record.time for record, _ in rows], pa.float64()),
                pa.array([record.seq for record, _ in rows], pa.int64()),
                rank,
                attempt,
            )
            yield make_part(group, tuple(columns), index, arrays, frozenset(rounded))

    def _by_group(self, record: Record) -> dict[str, dict[Key, Any]]:
        """Return the values of a record by group and column."""
        places = self._places
        groups: dict[str, dict[Key, Any]] = {}
        for name, value in record.metrics.items():
            place = places.get(name)
            if place is None:
                place = places[name] = (naming.group_of(name), (name, None))
            groups.setdefault(place[0], {})[place[1]] = value
        for name, statistics in record.ranks.items():
            group = groups.setdefault(naming.group_of(name), {})
            if not statistics:  # only some of a later version, but the metric is there
                group.setdefault((name, None), None)
            for key, value in statistics.items():
                group[name, key] = value
        return groups

    def _learn(self, key: Key, kind: pa.DataType) -> None:
        """Remember the type of a column for the next block."""
        wider = join(self._types.get(key), kind)
        if wider != self._types.get(key):
            self._types[key] = wider
            self._schema = None

    def _fast(self, block: Block, parse: _Parse, scan: Scan) -> list[Part] | None:
        """Return the parts of a block of plain records, or None if it needs the record reader."""
        data = block.data
        if b"null" in data or not data.endswith(b"\n") or data.startswith(_BYTE_ORDER_MARK):
            return None
        lines = check_lines(data, scan.limits.line_bytes)
        table = parse.table.result()
        if table is None or table.num_rows != lines:
            return None
        seq = table.column("seq").to_numpy()
        if not np.array_equal(seq, np.arange(scan.expected, scan.expected + lines)):
            return None
        columns = self._columns(table, data)
        if columns is None:
            return None
        low, high = scan.journal.low, scan.journal.high
        begin = max(0, low - scan.expected)
        length = lines if high is None else max(0, high + 1 - scan.expected - begin)
        scan.accept(lines, len(data), table.column("time")[-1].as_py())
        return self._split(table, columns, scan, slice(begin, begin + length))

    def _json_schema(self) -> pa.Schema:
        """Return the schema of a record with the metrics known so far."""
        if self._schema is None:
            metrics = [
                pa.field(name, kind) for (name, key), kind in self._types.items() if key is None
            ]
            ranks: dict[str, list[pa.Field]] = {}
            for (name, key), kind in self._types.items():
                if key is not None:
                    ranks.setdefault(name, []).append(pa.field(key, kind))
            fields = [
                pa.field("seq", pa.int64()),
                pa.field("step", pa.int64()),
                pa.field("time", pa.float64()),
                pa.field("metrics", pa.struct(metrics)),
                pa.field("crc", pa.string()),
            ]
            if ranks:
                members = [pa.field(name, pa.struct(keys)) for name, keys in ranks.items()]
                fields.append(pa.field("ranks", pa.struct(members)))
            self._schema = pa.schema(fields)
        return self._schema

    def _columns(  # noqa: C901, PLR0911 - one look at each thing that may be inexact
        self, table: pa.Table, data: bytes
    ) -> dict[Key, pa.Array] | None:
        """Return the columns of a parsed block, or None if a value is not exact or not there."""
        required = ("seq", "step", "time", "metrics", "crc")
        if any(table.column(name).null_count for name in required):
            return None
        columns: dict[Key, pa.Array] = {}
        metrics = _combine(table.column("metrics"))
        if len(metrics.type) > LIMITS.metrics_per_record:
            return None
        for index, member in enumerate(metrics.type):
            columns[member.name, None] = metrics.field(index)
        if "ranks" in table.column_names:
            ranks = _combine(table.column("ranks"))
            if _some_empty(ranks):
                return None
            for member, inner in zip(ranks.type, ranks.flatten(), strict=True):
                if _some_empty(inner):
                    return None
                for key, column in zip(member.type, inner.flatten(), strict=True):
                    columns[member.name, key.name] = column
        given = {key: column for key, column in columns.items() if column.null_count < len(column)}
        for (_, statistic), column in given.items():
            if column.type == pa.float64() and not _plain(column, data):
                return None
            if statistic == "count" and (column.drop_null().to_numpy() < 0).any():
                return None
        return given

    def _split(
        self, table: pa.Table, columns: dict[Key, pa.Array], scan: Scan, rows: slice
    ) -> list[Part]:
        """Return the parts of a block: for each group the rows that have a value of it."""
        index = make_index(
            _combine(table.column("step")),
            _combine(table.column("time")),
            _combine(table.column("seq")),
            scan.journal.rank,
            scan.journal.attempt,
        )
        whole = rows.start == 0 and rows.stop >= table.num_rows
        groups: dict[str, list[Key]] = {}
        for key in columns:
            groups.setdefault(naming.group_of(key[0]), []).append(key)
        present = np.zeros(table.num_rows, dtype=bool)
        parts: list[Part] = []
        for group, keys in groups.items():
            arrays = [columns[key] for key in keys]
            part = make_part(group, tuple(keys), index, arrays)
            mask = _any_valid(arrays)
            present |= True if mask is None else mask
            if mask is not None or not whole:
                chosen = np.zeros(table.num_rows, dtype=bool)
                chosen[rows] = True if mask is None else mask[rows]
                part = Part(group, part.keys, part.batch.filter(pa.array(chosen)))
            if part.batch.num_rows:
                parts.append(_without_empty(part))
        for row in np.flatnonzero(~present).tolist():
            if rows.start <= row < rows.stop:
                event = {name: table.column(name)[row].as_py() for name in ("seq", "step", "time")}
                scan.events.append({**event, "metrics": {}})
        return parts


def _column(values: Sequence[Any]) -> pa.Array:
    """Return values as bool, int64 or float64: the narrowest that holds all; None where absent."""
    kinds = set(map(type, values)) - {type(None)}
    if not kinds:
        return pa.nulls(len(values))
    for kind, arrow in ((float, pa.float64()), (int, pa.int64())):
        if kind in kinds:
            if len(kinds) > 1:
                values = [None if value is None else kind(value) for value in values]
            return pa.array(values, arrow)
    return pa.array(values, pa.bool_())


def make_index(step: pa.Array, time: pa.Array, seq: pa.Array, rank: int, attempt: int) -> list[Any]:
    """Return the index columns of rows that one journal holds."""
    rows = len(step)
    attempts = pa.array(np.full(rows, attempt, np.int32))
    ranks = pa.array(np.full(rows, rank, np.int32))
    return [step, time, attempts, ranks, seq]


def make_part(
    group: str,
    keys: tuple[Key, ...],
    index: list[Any],
    arrays: list[Any],
    rounded: frozenset[tuple[int, int, int]] = frozenset(),
) -> Part:
    """Return rows as a part, its columns named by position."""
    columns = [*index, *arrays]
    names = [str(place) for place in range(len(columns))]
    return Part(group, keys, pa.RecordBatch.from_arrays(columns, names), rounded)


def _without_empty(part: Part) -> Part:
    """Return a part without the columns in which it has no value."""
    columns = part.batch.columns
    filled = [
        (key, column)
        for key, column in zip(part.keys, columns[len(INDEX) :], strict=True)
        if column.null_count < len(column)
    ]
    if len(filled) == len(part.keys):
        return part
    keys = tuple(key for key, _ in filled)
    return make_part(part.group, keys, columns[: len(INDEX)], [column for _, column in filled])


def _combine(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _rounded(column: pa.Array) -> list[int]:
    """Return the rows whose integer is not a float64."""
    values = column.fill_null(0).to_numpy()
    far = np.flatnonzero(np.abs(values.astype(np.float64)) >= _EXACT_FLOAT)
    return [row for row in far.tolist() if int(float(int(values[row]))) != int(values[row])]


def _plain(column: pa.Array, data: bytes) -> bool:
    """Tell whether all floats are finite, and none was an integer that reads another way."""
    values = column.drop_null().to_numpy() if column.null_count else column.to_numpy()
    if np.signbit(values[values == 0]).any() and _MINUS_ZERO.search(data):
        return False
    sizes = np.abs(values)
    if (sizes < _EXACT_FLOAT).all():
        return True
    return bool(np.isfinite(sizes).all()) and not _LONG_INTEGER.search(data)


def _some_empty(column: pa.StructArray) -> bool:
    """Tell whether an object is there that has no member."""
    filled = np.zeros(len(column), dtype=bool)
    for member in column.flatten():
        filled |= member.is_valid().to_numpy(zero_copy_only=False)
    return bool((column.is_valid().to_numpy(zero_copy_only=False) & ~filled).any())


def _any_valid(arrays: Iterable[pa.Array]) -> Any:
    """Return which rows have a value in any column, or None if all have."""
    mask: Any = None
    for array in arrays:
        if not array.null_count:
            return None
        valid = array.is_valid().to_numpy(zero_copy_only=False)
        mask = valid if mask is None else mask | valid
    return mask
