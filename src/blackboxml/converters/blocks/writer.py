"""A run as rows of Blocks' tables."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from blackboxml.base.files import raise_refusal
from blackboxml.converters.blocks.value import PICKLE, freeze, thaw
from blackboxml.errors import BlackboxError
from blackboxml.foreign import values as foreign
from blackboxml.foreign.interchange import count_as
from blackboxml.foreign.training_log import STATUS, is_log, read_history

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping

    from blackboxml.foreign.interchange import Kind, Ledger
    from blackboxml.foreign.training_log import History
    from blackboxml.model import MediaRecord
    from blackboxml.reader import RunReader

OWN: Final = "blackboxml"
"""The key of a log's status under which an export keeps what Blocks has no place for."""

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS entries (
    uuid TEXT NOT NULL,
    time INT NOT NULL,
    "key" TEXT NOT NULL,
    value,
    PRIMARY KEY(uuid, time, "key")
);
CREATE TABLE IF NOT EXISTS status (
    uuid TEXT NOT NULL,
    "key" text NOT NULL,
    value,
    PRIMARY KEY(uuid, "key")
)
"""


class Writer:
    """Writes one run into an open transaction."""

    def __init__(self, run: RunReader, connection: sqlite3.Connection, ledger: Ledger) -> None:
        """Begin."""
        self._run = run
        self._connection = connection
        self._ledger = ledger
        self._last = 0
        self._written = 0

    def write(self) -> None:
        """Write all of it."""
        run, ledger = self._run, self._ledger
        for table in ("entries", "status"):
            self._connection.execute(f"DELETE FROM {table} WHERE uuid = ?", (run.id,))  # noqa: S608 - a constant
        if is_log(run):
            self._history(read_history(run, {}))
            return
        for group in run.groups:
            self._records(group)
        for record in run.media():
            kind = count_as(record.kind)
            try:
                self._medium(record, kind)
            except (BlackboxError, OSError, ValueError, RecursionError) as error:
                raise_refusal(error)
                ledger.unreadable(kind, f"it cannot be read: {error}", where=record.name)
        query = "SELECT count(*) FROM entries WHERE uuid = ?"
        (count,) = self._connection.execute(query, (run.id,)).fetchone()
        if count < self._written:
            what = "Blocks has one value of a key at a time; the last one is kept"
            ledger.lost("scalar", what, self._written - count)
        if attempts := len(run.manifest["attempts"]) - 1:
            ledger.lost("field", "Blocks knows no attempts of a run", attempts)
        self._status()

    def _history(self, found: History) -> None:
        """Write a training log: its values as they stand, and its status."""
        status = {key: value for (time, key), value in found.values.items() if time is None}
        self._insert(
            (time, key, freeze(thaw(value)))
            for (time, key), value in found.values.items()
            if time is not None
        )
        self._declare(found)
        self._status(status)

    def _declare(self, found: History) -> None:
        """Enter what a training log loses: times, all but the last of a value, and its status."""
        media = [*self._run.media()]
        # The last at a place is the one that stands there.
        kinds = {(each.step, each.name): count_as(each.kind) for each in media}
        of_status = {name: kind for (_, name), kind in kinds.items()}
        left: Counter[Kind] = Counter(count_as(each.kind) for each in media)
        left["scalar"] = found.extent.points
        self._ledger.lost("time", "Blocks keeps no times", left.total())
        for (time, key), value in found.values.items():
            kind: Kind = "scalar"
            if foreign.number(thaw(value)) is None:
                known = of_status.get(STATUS + key) if time is None else kinds.get((time, key))
                kind = known or "event"
            left[kind] -= 1
            if time is None:
                what = "the status has no steps, and comes back as what the source says of itself"
                self._ledger.lost(kind, what)
        for kind, count in (+left).items():
            what = "of a value that was set again, or deleted, the log keeps the last"
            self._ledger.lost(kind, what, count)

    def _status(self, own: Mapping[str, Any] | None = None) -> None:
        """Write the status: that of the log a run came from, or a new one, and what else it is.

        Args:
            own: What the run says of it, if it is a training log.
        """
        status: dict[str, Any] = {
            "iterations_done": self._last,
            "epochs_done": 0,
            "_epoch_ends": [],
            "resumed_from": None,
            OWN: json.dumps(foreign.document(self._run)),
        }
        origin = foreign.origin(self._run, "blocks").get("status")
        if isinstance(origin, dict):
            status = {**status, **thaw(origin), "resumed_from": None, OWN: status[OWN]}
        status |= thaw(dict(own or {}))
        rows = [(self._run.id, key, freeze(value)) for key, value in status.items()]
        self._connection.executemany("INSERT INTO status VALUES (?, ?, ?)", rows)

    def _insert(self, rows: Iterable[tuple[int, str, Any]]) -> None:
        """Write entries: time, key and value."""
        mine = [(self._run.id, *row) for row in rows]
        self._connection.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?)", mine)
        self._written += len(mine)
        self._last = max(self._last, max((row[1] for row in mine), default=0))

    def _records(self, group: str) -> None:
        """Write the numbers of one group."""
        ledger = self._ledger
        for table, columns in foreign.points(self._run, group):
            steps, ranks = (table[name].to_pylist() for name in ("step", "rank"))
            good = [step >= 0 and rank == 0 for step, rank in zip(steps, ranks, strict=True)]
            for column, name, statistic in columns:
                values = table[column].to_pylist()
                rows = [
                    (step, name, value if type(value) is int else freeze(value))
                    for step, value, is_good in zip(steps, values, good, strict=True)
                    if value is not None and is_good
                ]
                self._insert(rows)
                if statistic is not None and rows:
                    what = "statistics across ranks become keys of their own"
                    ledger.changed("scalar", what, len(rows), where=name)
                left = sum(value is not None for value in values) - len(rows)
                if left:
                    what = "Blocks has no ranks and no steps below 0; values of rank 0 are kept"
                    ledger.lost("scalar", what, left, where=name)
            if count := sum(good):
                ledger.lost("time", "Blocks keeps no times", count)

    def _medium(self, record: MediaRecord, kind: Kind) -> None:
        """Write a medium, if Blocks can have it as a value."""
        ledger = self._ledger
        if record.step < 0 or record.rank != 0:
            what = "Blocks has no ranks and no steps below 0; values of rank 0 are kept"
            ledger.lost(kind, what, where=record.name)
        elif kind in ("image", "figure") or (record.value is None and kind == "table"):
            ledger.lost(kind, f"Blocks has no place for a medium of the kind {kind}")
        elif foreign.declare(record, ledger):
            value = foreign.from_medium(self._run, record)
            foreign.declare_event(record, ledger)
            if kind in ("histogram", "graph", "table"):
                what = "it becomes a value of Python, without a kind of its own"
                ledger.changed(kind, what, where=record.name)
                ledger.made("event", what, where=record.name)
                value = foreign.from_json(value)
            frozen = value if record.media_type == PICKLE else freeze(thaw(value))
            self._insert([(record.step, record.name, frozen)])
            ledger.lost("time", "Blocks keeps no times")
