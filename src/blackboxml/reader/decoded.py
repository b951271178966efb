"""What the journals of a run hold, as tables.

Strategy: what is not large is kept in memory. Of more than that only the types of the columns are
kept, and the journals are read a second time for the rows, piece by piece.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from blackboxml.errors import Findings, FormatError, LimitError
from blackboxml.journal.scan import Scan
from blackboxml.journal.table import Tabulator

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blackboxml.base.files import Directory
    from blackboxml.errors import Problem
    from blackboxml.journal.table import GroupSchema, Part
    from blackboxml.model import JournalFile, Limits

KEPT_BYTES: Final = 2**27
"""So much of the rows is kept in memory at most."""

_PIECE_BYTES: Final = 2**25


@dataclass(slots=True)
class Decoded:
    """What the journals of a run hold.

    Attributes:
        directory: The run.
        schemas: The groups in first-seen order.
        parts: Their rows; None if they are too many to be kept.
        scans: The journals as they were read.
        limits: What a reader accepts.
    """

    directory: Directory
    schemas: dict[str, GroupSchema]
    parts: dict[str, list[Part]] | None
    scans: list[Scan]
    limits: Limits

    def table(self, group: str, run: dict[str, str]) -> pa.Table:
        """Return the rows of a group as one table.

        Args:
            group: The group.
            run: `id` and `name` of the run.

        Raises:
            LimitError: If the table is larger than the limits accept.
            FormatError: If a journal is read again and has changed.
        """
        schema = self.schemas[group].schema(run)
        size = self.schemas[group].rows * len(schema) * 8
        if size > self.limits.table_bytes:
            message = (
                f"group {group!r} has {size:,} bytes, {self.limits.table_bytes:,} are accepted: "
                "give open_run a higher Limits(table_bytes=…), or read its records()"
            )
            raise LimitError(message)
        return pa.concat_tables([schema.empty_table(), *self.pieces(run, group)])

    def pieces(self, run: dict[str, str], group: str | None = None) -> Iterator[pa.Table]:
        """Yield the rows of a group with all of its columns: whole if they are kept, else in parts.

        Args:
            run: `id` and `name` of the run.
            group: The group; None for all, of which each piece is of one.

        Raises:
            FormatError: If a journal is read again and has changed.
        """
        wanted = self.schemas if group is None else {group: self.schemas[group]}
        schemas = {name: each.schema(run) for name, each in wanted.items()}
        if self.parts is not None:
            for name, schema in schemas.items():
                rows = (wanted[name].conform(part, schema) for part in self.parts[name])
                yield pa.Table.from_batches(rows, schema)
            return
        held: dict[str, list[pa.RecordBatch]] = {}
        size = 0
        for part in self._again():
            if part.group not in wanted:
                continue
            batch = wanted[part.group].conform(part, schemas[part.group])
            held.setdefault(part.group, []).append(batch)
            size += batch.nbytes
            if size > _PIECE_BYTES:
                yield from map(pa.Table.from_batches, held.values())
                held, size = {}, 0
        yield from map(pa.Table.from_batches, held.values())

    def _again(self) -> Iterator[Part]:
        """Yield the rows of journals that are read once more, as far as they were read before."""
        names: set[str] = set()
        tabulator = Tabulator()
        for before in self.scans:
            journal = replace(before.journal, stop=before.offset)
            scan = Scan(journal, names, Findings(), self.limits)
            yield from tabulator.parts(scan, self.directory)
            if (scan.offset, scan.records) != (before.offset, before.records):
                message = f"{journal.name} has changed while it was read; open the run again"
                raise FormatError(message)


def decode_journals(
    directory: Directory,
    journals: Sequence[JournalFile],
    problems: list[Problem],
    limits: Limits,
) -> Decoded:
    """Read all journals of a run.

    Args:
        directory: The run.
        journals: Its journals in merge order.
        problems: Receives what was found.
        limits: What a reader accepts.
    """
    names: set[str] = set()
    tabulator = Tabulator()
    schemas: dict[str, GroupSchema] = {}
    parts: dict[str, list[Part]] | None = {}
    size = 0
    for journal in journals:
        for part in tabulator.parts(Scan(journal, names, problems, limits), directory):
            if part.group not in schemas:
                schemas[part.group] = tabulator.group(part.group)
            schemas[part.group].add(part)
            size += part.batch.nbytes
            if size > KEPT_BYTES:
                parts = None
            elif parts is not None:
                parts.setdefault(part.group, []).append(part)
    return Decoded(directory, schemas, parts, tabulator.scans, limits)
