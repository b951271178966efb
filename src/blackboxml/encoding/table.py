"""Tables: columns and rows as they are, and frames of polars, pandas and Arrow."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from blackboxml.encoding import Encoded

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pyarrow as pa

PARQUET: Final = "application/vnd.apache.parquet"
_SMALL_BYTES: Final = 16 * 2**10


def encode_table(
    rows: Any,
    columns: Sequence[str] | None = None,
) -> Encoded:
    """Return a table: as JSON, or a large frame, or one with more than plain cells, as Parquet.

    Args:
        rows: A list of rows, each a list of cells or a mapping by column; a mapping of columns; or
            a frame of polars, pandas or Arrow.
        columns: Names of the columns, where the rows do not say them.

    Raises:
        ValueError: If a row has another number of cells, or names are missing.
    """
    frame = _to_arrow(rows)
    if frame is not None:
        if columns is not None:
            raise ValueError("a frame has columns of its own; leave `columns` out, or rename them")
        return _of_frame(frame)
    if isinstance(rows, Mapping):
        cells = [list(column) for column in rows.values()]
        if len({len(column) for column in cells}) > 1:
            raise ValueError(f"columns of {sorted({len(each) for each in cells})} cells")
        return _of_rows(list(rows), [list(row) for row in zip(*cells, strict=True)])
    listed = _listed(rows)
    if columns is None:
        if not listed or not all(isinstance(row, Mapping) for row in listed):
            raise ValueError("the names of the columns are missing; give `columns`")
        columns = list(dict.fromkeys(name for row in listed for name in row))
    return _of_rows(list(columns), [_cells(row, columns) for row in listed])


def _listed(rows: Any) -> list[Any]:
    """Return rows as a list."""
    if isinstance(rows, str | bytes) or not hasattr(rows, "__iter__"):
        raise ValueError(f"a {type(rows).__name__} is no list of rows, and no frame")
    listed = list(rows)
    for at, row in enumerate(listed):
        if isinstance(row, str | bytes) or not hasattr(row, "__iter__"):
            raise ValueError(f"row {at:,} is a {type(row).__name__}, wanted a list of cells")
    return listed


def _cells(row: Any, columns: Sequence[str]) -> list[Any]:
    """Return a row as a list of cells; what a mapping lacks is None."""
    if isinstance(row, Mapping):
        if unknown := [name for name in row if name not in columns]:
            raise ValueError(f"a row has the column {unknown[0]!r:.80}, which `columns` has not")
        return [row.get(name) for name in columns]
    return list(row)


def _of_rows(columns: list[Any], rows: Iterable[list[Any]]) -> Encoded:
    """Return a table as JSON; whoever stores it looks at the cells."""
    return Encoded("table", value={"columns": [str(name) for name in columns], "rows": list(rows)})


def _to_arrow(rows: Any) -> pa.Table | None:
    """Return a frame as an Arrow table, None if it is no frame."""
    pandas: Any = sys.modules.get("pandas")
    polars: Any = sys.modules.get("polars")
    arrow: Any = sys.modules.get("pyarrow")
    if hasattr(polars, "LazyFrame") and isinstance(rows, polars.LazyFrame):
        rows = rows.collect()
    if hasattr(polars, "DataFrame") and isinstance(rows, polars.DataFrame):
        return rows.to_arrow()
    if hasattr(pandas, "DataFrame") and isinstance(rows, pandas.DataFrame):
        import pyarrow as pa

        try:
            return pa.Table.from_pandas(rows)
        except (pa.ArrowException, TypeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(f"the frame cannot be stored ({reason:.200})") from None
    if hasattr(arrow, "Table") and isinstance(rows, arrow.Table | arrow.RecordBatch):
        return arrow.table(rows)
    return None


def _of_frame(frame: pa.Table) -> Encoded:
    """Return a small frame of plain cells as JSON, any other as Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def is_plain(kind: pa.DataType) -> bool:
        return bool(
            pa.types.is_signed_integer(kind)
            or pa.types.is_float64(kind)
            or pa.types.is_boolean(kind)
            or pa.types.is_string(kind)
            or pa.types.is_large_string(kind)
            or pa.types.is_null(kind)
        )

    if frame.nbytes <= _SMALL_BYTES and all(is_plain(each) for each in frame.schema.types):
        cells = [column.to_pylist() for column in frame.columns]
        return _of_rows(frame.column_names, [list(row) for row in zip(*cells, strict=True)])
    file = io.BytesIO()
    pq.write_table(frame, file, compression="zstd")
    return Encoded("table", data=file.getvalue(), media_type=PARQUET)
