"""The sealed files of one group: Parquet and HDF5, written together, compared, opened safely."""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from blackboxml.base.files import raise_refusal
from blackboxml.base.scalar import spell
from blackboxml.errors import (
    Findings,
    LimitError,
    Problem,
    SealError,
    TableError,
    UnsafePathError,
)
from blackboxml.journal.merge import Cuts
from blackboxml.journal.table import INDEX, METRIC, STATISTIC, read_keys
from blackboxml.media.placement import Rows, place_series
from blackboxml.media.series import MOST_BYTES, decoded_size, select
from blackboxml.model import LIMITS, Limits, Rewind
from blackboxml.seal.dataset import (
    COORDINATES,
    DatasetWriter,
    choose_fill,
    fill_candidates,
    holds,
)
from blackboxml.seal.dataset import filled as filled_column
from blackboxml.seal.dataset import variables as variable_names
from blackboxml.seal.dataset_reader import Dataset
from blackboxml.seal.dataset_series import compare_series, write_series

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from blackboxml.base.files import Directory
    from blackboxml.journal.table import GroupSchema, Key
    from blackboxml.media.placement import Placed
    from blackboxml.media.series import Series
    from blackboxml.seal import Spill

Metrics: TypeAlias = "Mapping[str, Mapping[str, Any]]"
"""What the manifest says of the metrics of a group, by name."""

_MOST_ALONE: Final = 2**16
"""Cells of a row group that are not worth another thread."""

_TYPE_NAMES: Final = {pa.bool_(): "bool", pa.int64(): "int64", pa.float64(): "float64"}


class GroupFiles:
    """Writes, compares and describes the table and the dataset of one group."""

    def __init__(  # noqa: PLR0917
        self,
        group: GroupSchema,
        run: Mapping[str, str],
        rewinds: Sequence[Rewind],
        described: Mapping[str, Mapping[str, str]],
        folder: str,
        stem: str,
        series: Sequence[Series] = (),
    ) -> None:
        """Prepare.

        Args:
            group: Columns, types and number of rows.
            run: `id` and `name`.
            rewinds: All rewinds of the run.
            described: `unit` and `description` by metric.
            folder: Path of the folder that receives the files.
            stem: Name of the files without suffix.
            series: Arrays and histograms of the group.
        """
        self.table, self.dataset = f"{stem}.parquet", f"{stem}.h5"
        self.schema = group.schema(run)
        self._group = group
        self._run = run
        self._rewinds = rewinds
        self._described = described
        self._folder = folder
        self._counts: dict[Key, int] = dict.fromkeys(group.keys, 0)
        self._last: dict[Key, tuple[int, Any]] = {}
        self._rows = group.rows
        self._fills: dict[Key, Any] = {}
        self._series = series
        self._placed: list[Placed] = []

    def write(self, spill: Spill) -> None:
        """Write both files and make them durable."""
        self._survey(spill)
        self._placed = self.place(self._series, spill)
        with contextlib.ExitStack() as stack:
            table_writer = stack.enter_context(self._table_writer())
            dataset_writer = None
            if self._rows:
                dataset_writer = stack.enter_context(self._dataset_writer())
            aside = stack.enter_context(ThreadPoolExecutor(1))
            for rows in spill.tables(self._group, self.schema):
                with _meanwhile(aside, rows, table_writer.write_table, rows):
                    counting = self.effective(rows)
                    self._account(counting)
                    if dataset_writer is not None:
                        dataset_writer.append(counting)
            if dataset_writer is not None and self._placed:
                write_series(dataset_writer, self._placed)
        for name in self.names:
            descriptor = os.open(f"{self._folder}/{name}", os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def compare(self, spill: Spill, *, dataset: bool = True) -> None:
        """Open what was written and compare every value.

        Args:
            spill: What the journals say.
            dataset: Compare the HDF5 file too.

        Raises:
            SealError: If a value differs.
        """
        with contextlib.ExitStack() as stack:
            table = stack.enter_context(
                pq.ParquetFile(f"{self._folder}/{self.table}", page_checksum_verification=True)
            )
            if not table.schema_arrow.equals(self.schema) or (
                table.metadata.num_rows != self._group.rows
            ):
                self._differs(self.table, "its schema or number of rows")
            written = None
            if dataset and self._rows:
                name = f"{self._folder}/{self.dataset}"
                written = stack.enter_context(Dataset(name, LIMITS_OF_OWN_FILES))
            aside = stack.enter_context(ThreadPoolExecutor(1))
            start = 0
            variables = variable_names(self._group)
            for place, rows in enumerate(spill.tables(self._group, self.schema)):
                with _meanwhile(aside, rows, self._compare_table, rows, table, place):
                    if written is not None:
                        counting = self.effective(rows)
                        self._compare_rows(counting, written, start, variables)
                        start += counting.num_rows
            if written is not None and (wrong := compare_series(written, self._placed)) is not None:
                self._differs(self.dataset, f"variable {wrong!r}")

    def survey(self, spill: Spill) -> None:
        """Count what the manifest says of the group, without writing a file."""
        self._survey(spill)
        for rows in spill.tables(self._group, self.schema):
            self._account(self.effective(rows))

    @property
    def names(self) -> list[str]:
        """The files: the table, and the dataset if a row counts."""
        return [self.table, self.dataset] if self._rows else [self.table]

    @property
    def fills(self) -> Mapping[Key, Any]:
        """The value that stands for "not logged" in each column that lacks one in some row."""
        return self._fills

    def effective(self, rows: pa.Table) -> pa.Table:
        """Return the rows that no rewind superseded."""
        return effective_rows(rows, self._rewinds)

    def place(self, series: Sequence[Series], spill: Spill) -> list[Placed]:
        """Return where the dataset holds arrays and histograms: those for which it has room."""
        decoded = decoded_size(self._rows, len(self._group.keys))
        taken = select(series, decoded, MOST_BYTES) if self._rows else []
        return place_series(taken, variable_names(self._group).values(), self.index(taken, spill))

    def index(self, series: Sequence[Series], spill: Spill) -> Rows | None:
        """Return what tells the rows of the dataset apart, if a series has as many media."""
        if not any(len(each) == self._rows for each in series):
            return None
        tables = (self.effective(table) for table in spill.tables(self._group, self.schema))
        index = pa.concat_tables(table.select(Rows._fields) for table in tables)
        return Rows(*(column.to_numpy() for column in index.columns))

    def entry(self) -> dict[str, Any]:
        """Return what the manifest says of the group."""
        columns = self._group.columns()
        variables = variable_names(self._group)
        metrics: dict[str, Any] = {}
        for key in self._group.keys:
            said = metrics.setdefault(key[0], {})
            if key[1] is not None:
                said.setdefault("statistics", []).append(key[1])
                continue
            said["type"] = _TYPE_NAMES[self._group.type_of(key)]
            said["column"] = columns[key]
            if self._rows:
                said["variable"] = variables[key]
            said["count"] = self._counts[key]
            if key in self._last:
                said["last"] = self._last[key][1]
        for metric, said in metrics.items():
            said.update(self._described.get(metric, {}))
        entry: dict[str, Any] = {
            "rows": self._group.rows,
            "superseded": self._group.rows - self._rows,
            "table": self.table,
        }
        if self._rows:
            entry["dataset"] = self.dataset
        return entry | {"metrics": metrics}

    def _survey(self, spill: Spill) -> None:
        """Count the effective rows, and find a value for "not logged" where one is needed."""
        group = self._group
        sparse = [key for key in group.keys if group.counts.get(key, 0) < group.rows]
        if not sparse and not self._rewinds:
            return
        used: dict[Key, set[int]] = {key: set() for key in sparse}
        lacking: set[Key] = set()
        self._rows = 0
        for rows in spill.tables(group, self.schema):
            counting = self.effective(rows)
            self._rows += counting.num_rows
            for place, key in enumerate(group.keys, start=len(INDEX)):
                if key in sparse:
                    if counting.column(place).null_count:
                        lacking.add(key)
                    values = counting.column(place).drop_null().to_numpy(zero_copy_only=False)
                    for index, fill in enumerate(fill_candidates(group.type_of(key))):
                        if holds(values, fill):
                            used[key].add(index)
        self._fills = {key: choose_fill(group.type_of(key), used[key]) for key in lacking}

    def _account(self, rows: pa.Table) -> None:
        """Count the values of each column, and keep the one at the greatest step."""
        if not rows.num_rows:
            return
        steps = rows.column("step").to_numpy()
        for place, key in enumerate(self._group.keys, start=len(INDEX)):
            column = rows.column(place)
            there = np.flatnonzero(column.is_valid().to_numpy()) if column.null_count else None
            own = steps if there is None else steps[there]
            if not len(own):
                continue
            self._counts[key] += len(own)
            at = len(own) - 1 - int(np.argmax(own[::-1]))
            step = int(own[at])
            if key not in self._last or step >= self._last[key][0]:
                value = column[at if there is None else int(there[at])].as_py()
                self._last[key] = (step, spell(value))

    def _dataset_writer(self) -> DatasetWriter:
        """Return a writer of the dataset."""
        return DatasetWriter(
            f"{self._folder}/{self.dataset}",
            self._group,
            self._rows,
            self._run,
            self._fills,
            self._described,
        )

    def _table_writer(self) -> pq.ParquetWriter:
        """Return a writer of the table: zstd, page checksums, encodings that suit numbers."""
        names = self.schema.names
        encodings = dict.fromkeys(names[: len(INDEX)], "DELTA_BINARY_PACKED")
        encodings["time"] = "BYTE_STREAM_SPLIT"
        for column in list(self.schema)[len(INDEX) :]:
            if column.type == pa.float64():
                encodings[column.name] = "BYTE_STREAM_SPLIT"
            elif column.type == pa.int64():
                encodings[column.name] = "DELTA_BINARY_PACKED"
        return pq.ParquetWriter(
            f"{self._folder}/{self.table}",
            self.schema,
            compression="zstd",
            use_dictionary=False,
            column_encoding=encodings,
            write_page_checksum=True,
        )

    def _compare_table(self, rows: pa.Table, written: pq.ParquetFile, place: int) -> None:
        """Compare one row group."""
        found = written.read_row_group(place, use_threads=is_large(written))
        for name in rows.column_names:
            if not same(rows.column(name), found.column(name)):
                self._differs(self.table, f"column {name!r} of row group {place}")

    def _compare_rows(
        self, rows: pa.Table, written: Dataset, start: int, variables: Mapping[Key, str]
    ) -> None:
        """Compare the rows of the dataset from one on."""
        if not rows.num_rows:
            return
        where = slice(start, start + rows.num_rows)
        for name in COORDINATES:
            if not np.array_equal(written.read(name, where), rows.column(name).to_numpy()):
                self._differs(self.dataset, f"coordinate {name!r}")
        for place, key in enumerate(self._group.keys, start=len(INDEX)):
            expected = filled_column(rows.column(place), self._fills.get(key))
            if written.read(variables[key], where).tobytes() != expected.tobytes():
                self._differs(self.dataset, f"variable {variables[key]!r}")

    def _differs(self, name: str, what: str) -> None:
        """Refuse a file that does not hold what was written."""
        message = (
            f"{name} does not read back the same: {what} differs; the journal is untouched. "
            "Check the disk and the memory of this machine, then seal again"
        )
        raise SealError(message)


@contextlib.contextmanager
def _meanwhile(
    aside: ThreadPoolExecutor, rows: pa.Table, work: Callable[..., object], *given: Any
) -> Iterator[None]:
    """Do work on rows on another thread while the body runs, if they are many; raise for both."""
    if rows.num_rows * rows.num_columns < _MOST_ALONE:
        work(*given)
        yield
        return
    doing = aside.submit(work, *given)
    try:
        yield
    finally:
        wait([doing])
    doing.result()


LIMITS_OF_OWN_FILES: Final = Limits(table_bytes=2**62, metric_names=2**31)
"""What was written a moment ago is not bounded by what a reader of foreign files accepts."""


def same(left: pa.ChunkedArray, right: pa.ChunkedArray) -> bool:
    """Tell whether two columns are equal bit for bit: NaN equals NaN, and 0.0 is not -0.0."""
    if left.type != right.type:
        return False
    if left.type == pa.float64():
        return bool(_bits(left).equals(_bits(right)))
    return bool(left.equals(right))


def effective_rows(rows: pa.Table, rewinds: Sequence[Rewind]) -> pa.Table:
    """Return the rows of a table that no rewind superseded."""
    if not rewinds or not rows.num_rows:
        return rows
    arrays = {name: rows.column(name).to_numpy() for name in ("rank", "attempt", "seq", "step")}
    mask = Cuts(rewinds).mask(**arrays)
    return rows if mask.all() else rows.filter(pa.array(mask))


def is_large(file: pq.ParquetFile) -> bool:
    """Tell whether it takes longer to read a table than to wake other threads for it."""
    return bool(file.metadata.num_rows * file.metadata.num_columns > _MOST_ALONE)


def open_table(directory: Directory, name: str, limits: Limits = LIMITS) -> pq.ParquetFile:
    """Open a table of a run, after looking at what it declares.

    The caller closes it. Page checksums are verified as pages are read.

    Raises:
        TableError: If it is missing, damaged, or no table of this format.
        OSError: If the file system refuses to show it.
        LimitError: If it is larger than a reader accepts.
        UnsafePathError: If it is a link or a special file.
    """
    try:
        descriptor = directory.open(name)
    except FileNotFoundError:
        message = f"{directory.path / name} is missing; `blackbox seal {directory.path}` makes it"
        raise TableError(message, "BB-INT-009") from None
    try:
        # Opened by descriptor: what was checked is what is read, even if the name changes.
        source = pa.OSFile(f"/dev/fd/{descriptor}")
    finally:
        os.close(descriptor)
    try:
        file = pq.ParquetFile(source, page_checksum_verification=True)
        metadata = file.metadata
        wrong = _wrong(file)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise_refusal(error, name)
        message = f"{directory.path / name} is damaged: {error}"
        raise TableError(message) from None
    if wrong:
        rule, found = wrong
        message = f"{directory.path / name} is not a table of a run: {found}"
        raise TableError(message, rule)
    declared = metadata.num_rows * metadata.num_columns * 8
    if declared > limits.table_bytes:
        message = (
            f"{directory.path / name} decodes to {declared:,} bytes, a reader accepts "
            f"{limits.table_bytes:,}: give open_run a higher Limits(table_bytes=…), "
            "or read it lazily"
        )
        raise LimitError(message)
    return file


def _wrong(file: pq.ParquetFile) -> tuple[str, str] | None:
    """Return what a table of a run must not be, and the rule; no value of it is looked at."""
    schema, metadata = file.schema_arrow, file.metadata
    leading = [(column.name, column.type) for column in list(schema)[: len(INDEX)]]
    if leading != [*INDEX.items()]:
        return "BB-TAB-005", f"it begins with {leading!r:.200}"
    if len(set(schema.names)) < len(schema.names):
        return "BB-TAB-006", "two columns have one name"
    for column in list(schema)[len(INDEX) :]:
        if column.type not in _TYPE_NAMES:
            return "BB-TAB-007", f"column {column.name!r:.80} is of type {column.type}"
    read_keys(schema)
    rows = 0
    for place in range(metadata.num_row_groups):
        rows += metadata.row_group(place).num_rows
    if rows != metadata.num_rows:
        return "BB-TAB-016", f"it declares {metadata.num_rows} rows, its row groups {rows}"
    return None


def _checked(rows: pa.Table, name: str, file: pq.ParquetFile, places: Iterable[int]) -> pa.Table:
    """Return rows that were read from a table, if they are all that their row groups hold.

    What a row group says of a column is asked only now. The library ends the process over some
    damage of it, where reading the column raises.
    """
    rows.validate()
    order = {column: at for at, column in enumerate(file.schema_arrow.names)}
    columns = [order[column] for column in rows.column_names]
    for place in places:
        group = file.metadata.row_group(place)
        counts = {group.column(at).num_values for at in columns} - {group.num_rows}
        if counts:
            message = (
                f"{name}: row group {place} has {group.num_rows} rows and {min(counts)} values"
            )
            raise TableError(message)
    for column in INDEX:
        if column in rows.column_names and rows.column(column).null_count:
            message = f"{name} has a null in {column}"
            raise TableError(message, "BB-TAB-005")
    return rows


def close_table(file: pq.ParquetFile) -> None:
    """Close a table; what was read of it stays good if that fails."""
    with contextlib.suppress(OSError):
        file.close(force=True)


def is_sound(directory: Directory, name: str, limits: Limits) -> bool:
    """Tell whether a table is safe to be opened by its path."""
    try:
        close_table(open_table(directory, name, limits))
    except (TableError, UnsafePathError, OSError):
        return False
    except LimitError:  # to read it lazily is the cure
        return True
    return True


def _labels(schema: pa.Schema, metrics: Metrics) -> dict[str, dict[bytes, bytes]]:
    """Return what the manifest says of each column that it knows, as the metadata of a field."""
    names = schema.names
    places = {column: at for at, column in enumerate(names) if at >= len(INDEX)}
    labels: dict[str, dict[bytes, bytes]] = {}
    for metric, said in metrics.items():
        at = places.get(said["column"])
        if at is None:
            continue
        labels[names[at]] = {METRIC: metric.encode()}
        statistics = said.get("statistics", ())
        columns = names[at + 1 : at + 1 + len(statistics)]
        for column, statistic in zip(columns, statistics, strict=False):
            labels[column] = {METRIC: metric.encode(), STATISTIC: statistic.encode()}
    return labels


def _labelled(
    table: pa.Table, schema: pa.Schema, name: str, said: Metrics, problems: list[Problem]
) -> pa.Table:
    """Return a table whose columns are labelled as the manifest says.

    Labels are in the footer, which has no checksum: damage of them shows nowhere else.
    """
    labels = _labels(schema, said)
    fields = [
        field.with_metadata(labels[field.name]) if field.name in labels else field
        for field in table.schema
    ]
    for old, new in zip(table.schema, fields, strict=True):
        if _label(new) != _label(old):
            message = (
                f"column {old.name!r:.80} is labelled {_label(old)!r:.200}, "
                f"the manifest says {_label(new)!r:.200}"
            )
            problems.append(Problem("BB-TAB-009", "error", message, name))
    return pa.Table.from_arrays(table.columns, schema=pa.schema(fields, table.schema.metadata))


def _label(field: pa.Field) -> list[bytes]:
    """Return metric and statistic of a column as it is labelled."""
    metadata = field.metadata or {}
    return [metadata[key] for key in (METRIC, STATISTIC) if key in metadata]


def read_table(  # noqa: PLR0917
    directory: Directory,
    name: str,
    limits: Limits,
    columns: Sequence[str] | None = None,
    said: Metrics | None = None,
    problems: list[Problem] | None = None,
) -> pa.Table:
    """Return a table of a run.

    Args:
        directory: The run.
        name: File name.
        limits: What a reader accepts.
        columns: Names of columns, or None for all.
        said: `metrics` of the group in the manifest, which labels the columns.
        problems: Receives the labels of the table that differ.

    Raises:
        TableError: If it is missing or damaged.
        OSError: If the file system refuses to show it.
        LimitError: If it is larger than a reader accepts.
    """
    file = open_table(directory, name, limits)
    try:
        wanted = None if columns is None else list(columns)
        places = range(file.metadata.num_row_groups)
        table = _checked(file.read(columns=wanted, use_threads=is_large(file)), name, file, places)
        found = Findings() if problems is None else problems
        return _labelled(table, file.schema_arrow, name, said or {}, found)
    except (pa.ArrowException, OSError) as error:
        raise_refusal(error, name)
        message = f"{directory.path / name} is damaged: {error}"
        raise TableError(message, "BB-TAB-017") from None
    finally:
        close_table(file)


def iterate_table(
    directory: Directory,
    name: str,
    limits: Limits,
    said: Metrics | None = None,
    problems: list[Problem] | None = None,
) -> Iterator[pa.Table]:
    """Yield a table of a run a row group at a time; the arguments are those of `read_table`.

    Raises:
        TableError: If it is missing or damaged.
        OSError: If the file system refuses to show it.
    """
    found = Findings() if problems is None else problems
    file = open_table(directory, name, limits)
    try:
        for place in range(file.metadata.num_row_groups):
            rows = file.read_row_group(place, use_threads=is_large(file))
            table = _checked(rows, name, file, [place])
            yield _labelled(table, file.schema_arrow, name, said or {}, found)
    except (pa.ArrowException, OSError) as error:
        raise_refusal(error, name)
        message = f"{directory.path / name} is damaged: {error}"
        raise TableError(message, "BB-TAB-017") from None
    finally:
        close_table(file)


def _bits(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return floats as the integers that their bits spell."""
    return pa.chunked_array([chunk.view(pa.int64()) for chunk in column.chunks], pa.int64())
