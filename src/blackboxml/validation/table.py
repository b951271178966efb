"""One table: its columns, its metadata, and every value against the journals."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from blackboxml.base.files import raise_refusal
from blackboxml.journal.table import INDEX, METADATA, METRIC, STATISTIC
from blackboxml.model import TABLE_FORMAT
from blackboxml.seal.sealed import close_table, is_large, same
from blackboxml.validation.document import check_schema, check_version, parse
from blackboxml.validation.page import pages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blackboxml.journal.table import GroupSchema
    from blackboxml.seal import Spill
    from blackboxml.validation.subject import Subject

_BATCH_ROWS: Final = 65_536
_MOST_ROWS: Final = 1_048_576
_TYPES = {pa.bool_(): "BOOLEAN", pa.int64(): "INT64", pa.float64(): "DOUBLE", pa.int32(): "INT32"}
_ORDER = ("attempt", "rank", "seq")


def open_table(subject: Subject, name: str) -> pq.ParquetFile | None:
    """Open a table whose declared size is within the limits; None, and a report, otherwise.

    The file is closed with the validation.
    """
    try:
        with subject.directory.reading(name) as descriptor:
            # By descriptor: what was found to be a regular file is what is read.
            source = pa.OSFile(f"/dev/fd/{descriptor}")
        file = pq.ParquetFile(source, page_checksum_verification=True)
        subject.stack.callback(close_table, file)
        metadata, _ = file.metadata, file.schema_arrow
    except (pa.ArrowException, OSError, ValueError) as error:
        raise_refusal(error, name)
        message = f"it cannot be opened as Parquet: {error}"
        subject.report("BB-TAB-016", message[:300], name, cure=subject.cure)
        return None
    declared = metadata.num_rows * metadata.num_columns * 8
    if declared > subject.limits.table_bytes:
        message = (
            f"it decodes to {declared:,} bytes, {subject.limits.table_bytes:,} are accepted: "
            "validate with a higher Limits(table_bytes=…)"
        )
        subject.report("BB-LIM-005", message, name)
        return None
    return file


def batches(file: pq.ParquetFile, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a table, all columns or some.

    Row group by row group: the library keeps what it has read of a file until it is through.
    """
    many = is_large(file)
    for place in range(file.num_row_groups):
        yield from file.iter_batches(
            _BATCH_ROWS, row_groups=[place], columns=columns, use_threads=many
        )


def check_table(
    subject: Subject, name: str, group: GroupSchema, schema: pa.Schema, spill: Spill
) -> None:
    """Check a table of a run that has its journals.

    Args:
        subject: The run.
        name: The file.
        group: What it has to hold.
        schema: Its columns and metadata.
        spill: Its rows, as the journals give them.
    """
    file = open_table(subject, name)
    if file is None:
        return
    check_file(subject, name, file, schema)
    if not check_columns(subject, name, file.schema_arrow, schema):
        return
    if file.metadata.num_rows != group.rows:
        message = f"{file.metadata.num_rows:,} rows, wanted {group.rows:,}"
        subject.report("BB-TAB-003", message, name, cure=subject.cure)
        return
    try:
        if subject.asks("BB-SEA-004", "BB-TAB-004", "BB-TAB-008"):
            _compare(subject, name, file, spill.tables(group, schema))
        else:
            for _ in batches(file):
                pass
    except (pa.ArrowException, OSError) as error:
        raise_refusal(error, name)
        message = f"it cannot be read: {error}"
        subject.report("BB-TAB-017", message[:300], name, cure=subject.cure)
        return
    check_pages(subject, name, file)
    check_compression(subject, name, file)


def check_pages(subject: Subject, name: str, file: pq.ParquetFile) -> None:
    """Check that every page of a table has a checksum; its columns have all been read."""
    if not subject.asks("BB-TAB-011"):
        return
    try:
        with subject.directory.reading(name) as descriptor:
            found = Counter(page.checked for page in pages(descriptor, file))
    except ValueError as error:
        subject.report("BB-TAB-017", str(error), name, cure=subject.cure)
        return
    if found[False]:
        message = f"{found[False]:,} of {found.total():,} pages have no checksum"
        subject.report("BB-TAB-011", message, name, cure=subject.cure)


def check_compression(subject: Subject, name: str, file: pq.ParquetFile) -> None:
    """Check how a table is compressed whose columns have all been read.

    The library ends the process when it is asked about a column whose metadata are damaged; reading
    the column raises instead.
    """
    groups = (file.metadata.row_group(at) for at in range(file.metadata.num_row_groups))
    codecs = {group.column(at).compression for group in groups for at in range(group.num_columns)}
    if codecs - {"ZSTD"}:
        message = f"compressed with {', '.join(sorted(codecs))}, wanted Zstandard"
        subject.report("BB-TAB-014", message, name, severity="warning")


def check_file(subject: Subject, name: str, file: pq.ParquetFile, schema: pa.Schema) -> None:
    """Check row groups, and what the table says of itself."""
    metadata = file.metadata
    lengths = [metadata.row_group(at).num_rows for at in range(metadata.num_row_groups)]
    if max(lengths, default=0) > _MOST_ROWS:
        message = f"a row group has more than {_MOST_ROWS:,} rows"
        subject.report("BB-TAB-013", message, name, cure=subject.cure)
    found = (file.schema_arrow.metadata or {}).get(METADATA, b"")
    try:
        document = parse(found, subject.limits.depth)
    except ValueError as error:
        subject.report("BB-TAB-010", f"the metadata `blackbox`: {error}", name, cure=subject.cure)
        return
    if check_version(subject, document, TABLE_FORMAT, name, "BB-TAB-010") and check_schema(
        subject, document, "table-metadata", name, "BB-TAB-010"
    ):
        wanted = json.loads(schema.metadata[METADATA])
        for key in ("run", "group"):
            if document[key] != wanted[key]:
                message = (
                    f"the metadata say {key} {document[key]!r:.80}, wanted {wanted[key]!r:.80}"
                )
                subject.report("BB-TAB-010", message, name, cure=subject.cure)


def check_columns(subject: Subject, name: str, found: pa.Schema, wanted: pa.Schema) -> bool:
    """Tell whether a table has the columns it has to have; report what differs."""
    valid = True

    def report(rule: str, message: str) -> None:
        nonlocal valid
        valid = False
        subject.report(rule, message, name, cure=subject.cure)

    for field in found:
        if pa.types.is_nested(field.type):
            report("BB-TAB-015", f"column {field.name!r:.80} is nested: {field.type!s:.80}")
    leading = len(INDEX)
    if found.names[:leading] != list(INDEX):
        report("BB-TAB-005", f"the first columns are {found.names[:leading]!r:.200}")
    elif found.names[leading:] != wanted.names[leading:]:
        rule = _rule_of_names(list(found)[leading:], list(wanted)[leading:])
        metrics = found.names[leading:]
        report(rule, f"columns {metrics!r:.200}, wanted {wanted.names[leading:]!r:.200}")
    if not valid:
        return False
    for at, (field, want) in enumerate(zip(found, wanted, strict=True)):
        if field.type != want.type:
            rule = "BB-TAB-005" if at < leading else "BB-TAB-007"
            report(rule, f"{field.name!r:.80} is {field.type!s:.80}, wanted {_TYPES[want.type]}")
        elif at >= leading and _labels(field) != _labels(want):
            message = f"{field.name!r:.80} is labelled {_labels(field)}, wanted {_labels(want)}"
            report("BB-TAB-009", message)
    return valid


def _rule_of_names(found: list[pa.Field], wanted: list[pa.Field]) -> str:
    """Return the rule that columns break: are they others, or are they called otherwise?"""
    if list(map(_labels, found)) != list(map(_labels, wanted)):
        return "BB-TAB-006"
    pairs = zip(found, wanted, strict=True)
    first = next(want for have, want in pairs if have.name != want.name)
    return "BB-GRP-006" if STATISTIC in _labels(first) else "BB-GRP-005"


def _labels(field: pa.Field) -> dict[bytes, bytes]:
    """Return what a column says that it is."""
    metadata = field.metadata or {}
    return {key: metadata[key] for key in (METRIC, STATISTIC) if key in metadata}


def _compare(subject: Subject, name: str, file: pq.ParquetFile, wanted: Iterator[pa.Table]) -> None:
    """Compare every value with the journals; the first difference of each column is reported."""
    rows = Rows(file)
    told: set[str] = set()
    start = 0
    for table in wanted:
        found = rows.take(table.num_rows)
        if found.num_rows < table.num_rows:
            message = f"it ends after {start + found.num_rows:,} rows, though it declares more"
            subject.report("BB-TAB-003", message, name, cure=subject.cure)
            return
        placed = all(same(table.column(name), found.column(name)) for name in _ORDER)
        # Rows that are not where they have to be differ in everything.
        for column in table.column_names if placed else _ORDER:
            left, right = table.column(column), found.column(column)
            if column in told or same(left, right):
                continue
            told.add(column)
            row, message = _difference(left, right)
            rule = "BB-TAB-004" if column in _ORDER else "BB-SEA-004"
            if right.null_count and column in INDEX:
                rule = "BB-TAB-005"
            elif left.is_null().to_pylist()[row] != right.is_null().to_pylist()[row]:
                rule = "BB-TAB-008"
            message = f"column {column!r:.80}, row {start + row}: {message}"
            subject.report(rule, message, name, cure=subject.cure)
        if not placed:
            return
        start += table.num_rows


class Rows:
    """The rows of a table, read in parts of any length."""

    def __init__(self, file: pq.ParquetFile) -> None:
        """Begin at the first row."""
        self._batches = batches(file)
        self._schema = file.schema_arrow
        self._waiting: list[pa.RecordBatch] = []

    def take(self, rows: int) -> pa.Table:
        """Return the next rows, fewer at the end."""
        count = sum(batch.num_rows for batch in self._waiting)
        while count < rows and (batch := next(self._batches, None)) is not None:
            self._waiting.append(batch)
            count += batch.num_rows
        table = pa.Table.from_batches(self._waiting, self._schema)
        self._waiting = table.slice(rows).to_batches()
        return table.slice(0, rows)


def _difference(wanted: pa.ChunkedArray, found: pa.ChunkedArray) -> tuple[int, str]:
    """Return the first row in which two columns differ, and how."""
    pairs: list[tuple[Any, Any]] = list(zip(wanted.to_pylist(), found.to_pylist(), strict=False))
    for row, (want, have) in enumerate(pairs):
        if repr(want) != repr(have):
            return row, f"{have!r}, but the journals say {want!r}"
    return 0, "the bits of a NaN differ"
