"""What the journals of a run hold, as tables in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from blackboxml.errors import LimitError
from blackboxml.journal.scan import Scan
from blackboxml.journal.table import Tabulator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blackboxml.base.files import Directory
    from blackboxml.errors import Problem
    from blackboxml.journal.table import GroupSchema, Part
    from blackboxml.model import JournalFile, Limits


@dataclass(slots=True)
class Decoded:
    """What the journals of a run hold.

    Attributes:
        schemas: The groups in first-seen order.
        parts: Their rows.
        scans: The journals as they were read.
        limits: What a reader accepts.
    """

    schemas: dict[str, GroupSchema]
    parts: dict[str, list[Part]]
    scans: list[Scan]
    limits: Limits

    def table(self, group: str, run: dict[str, str]) -> pa.Table:
        """Return the rows of a group as one table.

        Raises:
            LimitError: If the table is larger than the limits accept.
        """
        schema = self.schemas[group].schema(run)
        size = self.schemas[group].rows * len(schema) * 8
        if size > self.limits.table_bytes:
            message = (
                f"group {group!r} has {size:,} bytes, {self.limits.table_bytes:,} are accepted: "
                "give open_run a higher Limits(table_bytes=…), or read its records()"
            )
            raise LimitError(message)
        batches = [self.schemas[group].conform(part, schema) for part in self.parts[group]]
        return pa.Table.from_batches(batches, schema)


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
    decoded = Decoded({}, {}, tabulator.scans, limits)
    for journal in journals:
        for part in tabulator.parts(Scan(journal, names, problems, limits), directory):
            if part.group not in decoded.schemas:
                decoded.schemas[part.group] = tabulator.group(part.group)
            decoded.schemas[part.group].add(part)
            decoded.parts.setdefault(part.group, []).append(part)
    return decoded
