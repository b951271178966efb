"""A packed run: the tables and events by themselves, for there are no journals to compare with."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from blackboxml.base.files import raise_refusal
from blackboxml.journal.table import INDEX, GroupSchema, read_keys
from blackboxml.model import MANIFEST
from blackboxml.seal import rewinds_of
from blackboxml.seal.sealed import effective_rows
from blackboxml.validation.document import pointer
from blackboxml.validation.subject import TABLE
from blackboxml.validation.table import (
    batches,
    check_columns,
    check_compression,
    check_file,
    check_pages,
    open_table,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pyarrow.parquet as pq

    from blackboxml.journal.table import Key
    from blackboxml.validation.subject import Subject

_VALUES = ("BB-TAB-004", "BB-TAB-011", "BB-TAB-017")
_TYPES = {"bool": pa.bool_(), "int64": pa.int64(), "float64": pa.float64()}

Row = tuple[tuple[int, int, int], int | None, float | None]
"""Attempt, rank and `seq`; step and time, None for an event."""


def check_tables(subject: Subject, sealed: Mapping[str, Any]) -> None:
    """Check each table against the manifest, then all together."""
    sound: dict[str, pq.ParquetFile] = {}
    for name, entry in sealed["groups"].items():
        file_name = entry["table"]
        subject.look("BB-MAN-006", "BB-TAB-001")
        if not subject.is_sound(file_name, *TABLE, *_VALUES):
            continue
        file = open_table(subject, file_name)
        if file is None:
            continue
        wanted = _schema(subject, sealed, name, file.schema_arrow)
        check_file(subject, file_name, file, wanted)
        if check_columns(subject, file_name, file.schema_arrow, wanted) and _check_rows(
            subject, name, entry, file, sealed
        ):
            check_pages(subject, file_name, file)
            check_compression(subject, file_name, file)
            sound[file_name] = file
    if len(sound) == len(sealed["groups"]):
        subject.look("BB-SEA-009", "BB-MRG-001")
        _check_history(subject, sealed, sound)
    else:
        subject.skip("a table is not read", "BB-SEA-009", "BB-MRG-001")


def _schema(subject: Subject, sealed: Mapping[str, Any], name: str, found: pa.Schema) -> pa.Schema:
    """Return the columns of a table: the manifest tells which there are, the rules their names.

    A statistic has the type that it has: nothing else tells it.
    """
    metrics = sealed["groups"][name]["metrics"]
    types = dict(zip(read_keys(found), found.types[len(INDEX) :], strict=True))
    group = GroupSchema(name)
    for metric, said in metrics.items():
        group.types[metric, None] = _TYPES[said["type"]]
        for statistic in said.get("statistics", []):
            kind = types.get((metric, statistic))
            known = kind is not None and kind in _TYPES.values()
            group.types[metric, statistic] = kind if known else pa.float64()
    columns = group.columns()
    subject.look("BB-GRP-005", *["BB-GRP-006"] * (len(columns) > len(metrics)))
    for metric, said in metrics.items():
        _check_names(subject, [name, "metrics", metric], said, columns)
    return group.schema({key: sealed[key] for key in ("id", "name")})


def _check_names(
    subject: Subject, place: list[str], said: Mapping[str, Any], columns: Mapping[Key, str]
) -> None:
    """Compare what the manifest calls the columns of a metric with what they have to be called."""
    metric = place[-1]
    statistics = [key[1] for key in columns if key[0] == metric and key[1] is not None]
    for rule, key, wanted in (
        ("BB-GRP-005", "column", columns[metric, None]),
        ("BB-MAN-006", "statistics", statistics),
    ):
        if said.get(key, []) != wanted:
            message = f"{said.get(key)!r:.80}, wanted {wanted!r:.80}"
            subject.report(rule, message, MANIFEST, pointer=pointer(["groups", *place, key]))


def _check_rows(
    subject: Subject,
    name: str,
    entry: Mapping[str, Any],
    file: pq.ParquetFile,
    sealed: Mapping[str, Any],
) -> bool:
    """Tell whether every page of a table is good, its rows in order and as many as stated."""
    table, rewinds = entry["table"], rewinds_of(dict(sealed))
    rows = effective = 0
    last = (-1, -1, -1)
    keys = read_keys(file.schema_arrow)
    counts = dict.fromkeys(entry["metrics"], 0)
    try:
        for batch in batches(file):
            part = pa.Table.from_batches([batch])
            if any(part.column(index).null_count for index in INDEX):
                message = "a leading column holds a null"
                subject.report("BB-TAB-005", message, table)
                return False
            places = _places(part)
            if any(right <= left for left, right in zip([last, *places], places, strict=False)):
                message = "its rows are not in the order of attempt, rank, seq, each once"
                subject.report("BB-TAB-004", message, table)
                return False
            last = places[-1] if places else last
            counting = effective_rows(part, rewinds)
            rows, effective = rows + part.num_rows, effective + counting.num_rows
            for at, (metric, statistic) in enumerate(keys, start=len(INDEX)):
                if statistic is None:
                    column = counting.column(at)
                    counts[metric] += len(column) - column.null_count
    except (pa.ArrowException, OSError) as error:
        raise_refusal(error, table)
        subject.report("BB-TAB-017", f"it cannot be read: {error}"[:300], table)
        return False
    _check_counts(subject, name, entry, (rows, effective), counts)
    return True


def _check_counts(
    subject: Subject,
    name: str,
    entry: Mapping[str, Any],
    rows: tuple[int, int],
    counts: Mapping[str, int],
) -> None:
    """Compare what the manifest counts with the table."""
    found: dict[tuple[str, ...], tuple[int, int]] = {
        ("rows",): (entry["rows"], rows[0]),
        ("superseded",): (entry["superseded"], rows[0] - rows[1]),
    }
    for metric, count in counts.items():
        found["metrics", metric, "count"] = entry["metrics"][metric]["count"], count
    for place, (stated, counted) in found.items():
        if stated != counted:
            message = f"{stated:,}, but {entry['table']} gives {counted:,}"
            where = pointer(["groups", name, *place])
            subject.report("BB-MAN-006", message, MANIFEST, pointer=where)


def _check_history(
    subject: Subject, sealed: Mapping[str, Any], files: Mapping[str, pq.ParquetFile]
) -> None:
    """Check that tables and events make up every record, and agree about each."""
    events: list[Row] = sorted(
        ((entry["attempt"], entry["rank"], event["seq"]), None, None)
        for entry in sealed["journals"]
        for event in entry.get("events", [])
    )
    streams = [_rows(file) for file in files.values()]
    expected: dict[tuple[int, int], int] = {}
    previous: Row = ((-1, -1, -1), None, None)
    for row in heapq.merge(*streams, iter(events), key=lambda each: each[0]):
        (attempt, rank, seq), step, time = row
        if row[0] == previous[0]:
            if step is not None and previous[1] is not None and (step, time) != previous[1:]:
                message = f"record {seq} of rank {rank}, attempt {attempt} has two steps or times"
                subject.report("BB-SEA-009", message)
        else:
            due = expected.get((attempt, rank), 0)
            if seq != due:
                message = f"records {due} to {seq - 1} of rank {rank}, attempt {attempt} are lost"
                subject.report("BB-MRG-001", message)
            expected[attempt, rank] = seq + 1
        previous = row
    stated: dict[tuple[int, int], int] = {}
    for entry in sealed["journals"]:
        place = entry["attempt"], entry["rank"]
        stated[place] = stated.get(place, 0) + entry["records"]
    for place in sorted(stated.keys() | expected.keys()):
        if stated.get(place, 0) != expected.get(place, 0):
            message = (
                f"{stated.get(place, 0):,} records of attempt {place[0]}, rank {place[1]}, "
                f"but tables and events hold {expected.get(place, 0):,}"
            )
            subject.report("BB-MAN-006", message, MANIFEST, pointer="/journals")


def _rows(file: pq.ParquetFile) -> Iterator[Row]:
    """Yield place, step and time of each row."""
    for batch in batches(file, list(INDEX)):
        part = pa.Table.from_batches([batch])
        steps, times = part.column("step").to_pylist(), part.column("time").to_pylist()
        yield from zip(_places(part), steps, times, strict=True)


def _places(part: pa.Table) -> list[tuple[int, int, int]]:
    """Return attempt, rank and `seq` of each row."""
    columns = [part.column(name).to_pylist() for name in ("attempt", "rank", "seq")]
    return list(zip(*columns, strict=True))
