"""Parquet: `.parquet`, `.pq`.

Import. Which column is the step, and which the time, is told by its name: see `tabular.STEPS` and
`tabular.TIMES`; a file with the columns name, step and value is a long table. null was not logged,
NaN was. Lists of numbers become arrays; texts, moments, decimals and what is nested become media.
Tables of a run directory are left to the run.
Source: https://parquet.apache.org/docs/file-format/

Export. A folder `<target>/<run>/` with one file a group, or the one file that the target names with
its suffix; then each row holds what one group logged. The columns are step, time, rank and attempt
where they are not all 0, and the metrics by full name, statistics across ranks as `<metric>/mean`
and so on; types are int64, double and boolean. Unit and description stand in the metadata of a
column; what the table has no place for, in that of the file, as JSON under `blackbox.export`. Media
are lost.
"""

from __future__ import annotations

import datetime as dt
import decimal
import json
from typing import TYPE_CHECKING, Any, Final

from blackboxml.base.files import raise_refusal
from blackboxml.foreign import layout, tabular

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import pyarrow as pa
    import pyarrow.parquet as pq

    from blackboxml.foreign.interchange import ForeignRun, Item, Ledger
    from blackboxml.foreign.tabular import Plan
    from blackboxml.reader import RunReader

EXTRA: Final = None
SUFFIXES: Final = (".parquet", ".pq")
_KEY: Final = b"blackbox.export"
_OWN: Final = b"blackbox"
_BATCH: Final = 2**14


def recognise(path: Path) -> bool:
    """Tell whether a file is a table with steps and not of a run, or a folder was exported."""
    if path.is_dir():
        return tabular.is_folder([_about(table) for table in layout.tables(path, SUFFIXES)])
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        return False
    with _open(path) as file:
        schema = file.schema_arrow
    if _OWN in (schema.metadata or {}):
        return False
    return _about(path) is not None or tabular.roles(schema.names).step is not None


def members(path: Path) -> set[str]:
    """Return the tables of an exported folder."""
    return {table.name for table in layout.tables(path, SUFFIXES)}


def read(path: Path) -> Iterator[ForeignRun]:
    """Yield the one run of a file or folder."""
    tables = layout.tables(path, SUFFIXES)
    about = next(filter(None, map(_about, tables)), None)
    yield tabular.foreign_run(path, tables, about, _items)


def _open(path: Path) -> pq.ParquetFile:
    """Open a file.

    Raises:
        OSError: If the file system refuses.
        ValueError: If it is damaged, or has what pyarrow does not know.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except pa.ArrowNotImplementedError as error:
        raise ValueError(str(error)) from error


def _about(path: Path) -> dict[str, Any] | None:
    """Return what an export kept in the metadata of a file."""
    try:
        with _open(path) as file:
            return tabular.check_about(json.loads((file.schema_arrow.metadata or {})[_KEY]))
    except (KeyError, OSError, ValueError, RecursionError) as error:
        raise_refusal(error)
        return None


def _items(path: Path, about: dict[str, Any] | None, ledger: Ledger) -> Iterator[Item]:
    """Yield the items of one table; a part that is damaged is left out."""
    import pyarrow as pa

    try:
        file = _open(path)
    except (OSError, ValueError) as error:
        raise_refusal(error)
        ledger.unreadable("step", "a table cannot be read", where=f"{path}: {error}"[:300])
        return
    with file:
        names = file.schema_arrow.names
        rows = tabular.Rows(ledger, tabular.roles(names, about), about)
        first = 0
        for part in range(file.num_row_groups):
            count = file.metadata.row_group(part).num_rows
            try:
                for batch in file.iter_batches(_BATCH, row_groups=[part]):
                    for row in _cells(names, batch):
                        yield from rows.take(row, f"{path}: row {first}")
                        first, count = first + 1, count - 1
            except (pa.ArrowException, OSError, ValueError) as error:
                raise_refusal(error)
                where = f"{path}: row {first}: {error}"[:300]
                ledger.unreadable("step", "rows cannot be read", count, where=where)
                first += count
        yield from rows.finish()


def _cells(names: list[str], batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """Yield the values of each row, those that are null left out."""
    import pyarrow as pa

    columns = []
    for column in batch.columns:
        kind = column.type
        values = column.to_pylist()
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or kind == pa.bool_()):
            values = [_plain(value) for value in values]
        columns.append(values)
    for row in zip(*columns, strict=True):
        yield {n: value for n, value in zip(names, row, strict=True) if value is not None}


def _plain(value: Any) -> Any:
    """Return a value as one that a medium can have; a moment stays one."""
    import numpy as np

    if isinstance(value, list) and value and all(type(each) in (int, float) for each in value):
        array = np.asarray(value)
        return array if array.dtype.kind in "if" else value
    if isinstance(value, (dt.date, dt.time, dt.timedelta, decimal.Decimal)):
        return value if isinstance(value, dt.datetime) else str(value)
    return value


# -- export


def write(run: RunReader, target: Path, ledger: Ledger, options: Mapping[str, Any]) -> Path:
    """Write the effective history of a run; see the head of this module.

    Raises:
        ConversionError: If the target file holds something else.
    """
    del options
    plan = tabular.plan(run, ledger)

    def write_table(path: Path, groups: list[str]) -> None:
        _write(path, run, plan, groups)

    return layout.write(run, target, SUFFIXES, plan, write_table)


def _write(path: Path, run: RunReader, plan: Plan, groups: list[str]) -> None:
    """Write the rows of some groups, piece by piece."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = [each for group in groups for each in plan.columns[group]]
    kinds = {"step": pa.int64(), "time": pa.float64()}
    fields = [pa.field(key, kinds.get(key, pa.int32()), nullable=False) for key in plan.keys]
    for each in columns:
        said = plan.about["descriptions"].get(each.metric, {}) if each.statistic is None else {}
        kind = pa.type_for_alias(each.type)
        fields.append(pa.field(each.label, kind, metadata=said or None))
    schema = pa.schema(fields, {_KEY: json.dumps(plan.about)})
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for group in groups:
            for piece in run.pieces(group):
                nothing = {
                    each.label: pa.nulls(len(piece), pa.type_for_alias(each.type))
                    for each in columns
                    if each.group != group
                }
                own = {each.label: piece.column(each.column) for each in plan.columns[group]}
                arrays = {key: piece.column(key) for key in plan.keys} | nothing | own
                writer.write_table(
                    pa.table([arrays[field.name] for field in schema], schema=schema)
                )
