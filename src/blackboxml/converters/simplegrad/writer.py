"""A run as rows of simplegrad's tables."""

from __future__ import annotations

import base64
import json
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

from blackboxml.base.files import raise_refusal
from blackboxml.errors import BlackboxError
from blackboxml.foreign import values as foreign
from blackboxml.foreign.interchange import count_as
from blackboxml.foreign.pixels import MODES, decode, of_array

if TYPE_CHECKING:
    import sqlite3

    from blackboxml.foreign.interchange import Ledger
    from blackboxml.foreign.pixels import Pixels
    from blackboxml.model import MediaRecord
    from blackboxml.reader import RunReader

EXTRA: Final = "simplegrad"

STATUS: Final = {"completed": "completed", "running": "running"}
"""What simplegrad says of a status; of all others, that the run failed."""

MEDIA: Final = {
    "graphs": ("graph_json", "created_at"),
    "histograms": ("name", "step", "bucket_edges", "bucket_counts", "wall_time"),
    "images": ("name", "step", "width", "height", "channels", "image_data", "wall_time"),
    "texts": ("name", "step", "content", "wall_time"),
}
"""Columns of the tables of media, less `id` and `run_id`."""

_MICROSECOND: Final = 1.1e-6

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    created_at REAL NOT NULL,
    status TEXT NOT NULL DEFAULT 'running' CHECK(status IN ('running', 'completed', 'failed')),
    config TEXT DEFAULT '{}'
);
CREATE TABLE IF NOT EXISTS metrics (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE
);
CREATE TABLE IF NOT EXISTS records (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id INTEGER NOT NULL,
    metric_id INTEGER NOT NULL,
    step INTEGER NOT NULL,
    value REAL NOT NULL,
    wall_time REAL NOT NULL,
    FOREIGN KEY (run_id) REFERENCES runs(id),
    FOREIGN KEY (metric_id) REFERENCES metrics(id)
);
CREATE INDEX IF NOT EXISTS idx_records_run_step ON records(run_id, step);
CREATE TABLE IF NOT EXISTS graphs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id INTEGER NOT NULL UNIQUE,
    graph_json TEXT NOT NULL,
    created_at REAL NOT NULL,
    FOREIGN KEY (run_id) REFERENCES runs(id)
);
CREATE TABLE IF NOT EXISTS histograms (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id INTEGER NOT NULL,
    name TEXT NOT NULL,
    step INTEGER NOT NULL,
    bucket_edges TEXT NOT NULL,
    bucket_counts TEXT NOT NULL,
    wall_time REAL NOT NULL,
    FOREIGN KEY (run_id) REFERENCES runs(id)
);
CREATE INDEX IF NOT EXISTS idx_histograms_run_name ON histograms(run_id, name);
CREATE TABLE IF NOT EXISTS images (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id INTEGER NOT NULL,
    name TEXT NOT NULL,
    step INTEGER NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    channels INTEGER NOT NULL,
    image_data BLOB NOT NULL,
    wall_time REAL NOT NULL,
    FOREIGN KEY (run_id) REFERENCES runs(id)
);
CREATE INDEX IF NOT EXISTS idx_images_run_name ON images(run_id, name);
CREATE TABLE IF NOT EXISTS texts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id INTEGER NOT NULL,
    name TEXT NOT NULL,
    step INTEGER NOT NULL,
    content TEXT NOT NULL,
    wall_time REAL NOT NULL,
    FOREIGN KEY (run_id) REFERENCES runs(id)
);
CREATE INDEX IF NOT EXISTS idx_texts_run_name ON texts(run_id, name);
CREATE TABLE IF NOT EXISTS blackboxml_runs (
    run_id INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    document TEXT NOT NULL
)
"""


class Writer:
    """Writes one run into an open transaction."""

    def __init__(self, run: RunReader, connection: sqlite3.Connection, ledger: Ledger) -> None:
        """Begin."""
        self._run = run
        self._connection = connection
        self._ledger = ledger
        self._number = 0

    def write(self) -> None:
        """Write all of it."""
        self._begin()
        for group in self._run.groups:
            self._records(group)
        graphs = 0
        for record in self._run.media():
            try:
                graphs += self._medium(record)
            except (BlackboxError, OSError, ValueError) as error:
                raise_refusal(error)
                kind, what = count_as(record.kind), f"it cannot be read: {error}"
                self._ledger.unreadable(kind, what, where=record.name)
        if graphs > 1:
            what = "simplegrad has one computation graph a run; the last one is kept"
            self._ledger.lost("graph", what, graphs - 1)
        if count := len(self._run.manifest["attempts"]) - 1:
            self._ledger.lost("field", "simplegrad knows no attempts of a run", count)

    def _begin(self) -> None:
        """Write the run's own row, in place of the one that an earlier export made."""
        run, connection = self._run, self._connection
        status = run.status
        plain, document = _plain(run.config), foreign.document(run)
        if document["config"] != plain:
            what = "simplegrad's configuration is plain JSON; that with types is kept beside it"
            self._ledger.changed("config", what)
        if status not in ("running", "completed", "failed"):
            what = "simplegrad knows no such status and says failed; it is kept beside"
            self._ledger.changed("status", what, where=status)
        # A manifest has microseconds; a run of simplegrad goes back with all its digits.
        start, said = run.start.timestamp(), foreign.origin(run, EXTRA).get("created_at")
        if isinstance(said, float) and abs(said - start) <= _MICROSECOND:
            start = said
        values = (run.name, start, STATUS.get(status, "failed"), json.dumps(plain))
        found = connection.execute(
            "SELECT o.run_id, r.id FROM blackboxml_runs o LEFT JOIN runs r ON r.id = o.run_id "
            "WHERE o.id = ?",
            (run.id,),
        ).fetchone()
        if found is not None:
            connection.execute("DELETE FROM blackboxml_runs WHERE run_id = ?", found[:1])
        number = None if found is None else found[1]
        if number is not None:
            for table in ("records", *MEDIA):
                connection.execute(f"DELETE FROM {table} WHERE run_id = ?", (number,))  # noqa: S608 - a constant
            connection.execute("DELETE FROM runs WHERE id = ?", (number,))
        made = connection.execute(
            "INSERT INTO runs (id, name, created_at, status, config) VALUES (?, ?, ?, ?, ?)",
            (number, *values),
        )
        self._number = int(made.lastrowid or 0)
        connection.execute(
            "INSERT OR REPLACE INTO blackboxml_runs (run_id, id, document) VALUES (?, ?, ?)",
            (self._number, run.id, json.dumps(document)),
        )

    def _metric(self, name: str) -> int:
        """Return the number of a metric."""
        self._connection.execute("INSERT OR IGNORE INTO metrics (name) VALUES (?)", (name,))
        query = "SELECT id FROM metrics WHERE name = ?"
        return int(self._connection.execute(query, (name,)).fetchone()[0])

    def _records(self, group: str) -> None:
        """Write the numbers of one group."""
        nan = others = 0
        for table, columns in foreign.points(self._run, group):
            steps, times = (table[name].to_pylist() for name in ("step", "time"))
            series = []
            for column, name, statistic in columns:
                values = self._floats(name, table[column], statistic)
                series.append((self._metric(name), values))
            rows = []
            for at, (step, time) in enumerate(zip(steps, times, strict=True)):
                for metric, values in series:
                    value = values[at]
                    if value is None:
                        continue
                    if value == value:  # noqa: PLR0124 - NaN is the only value that does not
                        rows.append((self._number, metric, step, value, time))
                    else:
                        nan += 1
            self._connection.executemany(
                "INSERT INTO records (run_id, metric_id, step, value, wall_time) "
                "VALUES (?, ?, ?, ?, ?)",
                rows,
            )
            others += sum(rank != 0 for rank in table["rank"].to_pylist())
        if nan:
            self._ledger.lost("scalar", "SQLite has no NaN", nan)
        if others:
            self._ledger.lost("field", "simplegrad knows no ranks; their points are kept", others)

    def _floats(self, name: str, column: Any, statistic: str | None) -> list[float | None]:
        """Return a column as floats, entering what that changes."""
        values: list[Any] = column.to_pylist()
        count = len(column) - column.null_count
        if statistic is not None and count:
            what = "statistics across ranks become metrics of their own"
            self._ledger.changed("scalar", what, count, where=name)
        if str(column.type) == "double" or not count:
            return values
        floats = [None if value is None else float(value) for value in values]
        by = max(
            abs(value - int(each))
            for value, each in zip(values, floats, strict=True)
            if value is not None and each is not None
        )
        what = "simplegrad's values are floats"
        self._ledger.changed("scalar", what, count, where=name, by=float(by))
        return floats

    def _medium(self, record: MediaRecord) -> int:
        """Write a medium if there is a table for it; tell whether it was a graph."""
        run, kind = self._run, record.kind
        if kind == "text":
            self._insert("texts", record, str(foreign.from_medium(run, record)))
        elif kind == "histogram":
            value = foreign.from_json(foreign.from_medium(run, record))
            if value.keys() > {"edges", "counts"}:
                what = "simplegrad keeps edges and counts of a histogram alone"
                self._ledger.changed("histogram", what, where=record.name)
            self._insert(
                "histograms", record, json.dumps(value["edges"]), json.dumps(value["counts"])
            )
        elif kind == "graph":
            graph = json.dumps(foreign.from_json(foreign.from_medium(run, record)))
            self._connection.execute(
                "INSERT OR REPLACE INTO graphs (run_id, graph_json, created_at) VALUES (?, ?, ?)",
                (self._number, graph, record.time),
            )
            return 1
        else:
            pixels = None
            if kind in ("image", "figure"):
                pixels = self._pixels(run.load(record), record.name)
            elif kind == "array":
                array = foreign.from_medium(run, record)
                pixels = of_array(array)
            if pixels is None:
                what = f"simplegrad has no table for a medium of the kind {kind}"
                self._ledger.lost(count_as(kind), what, where=record.name)
            else:
                if kind != "array":
                    what = "the pixels of a picture are kept, and not its file"
                    self._ledger.changed(count_as(kind), what, where=record.name)
                self._insert("images", record, *pixels)
        return 0

    def _insert(self, table: str, record: MediaRecord, *values: Any) -> None:
        """Insert a row into a table of media."""
        columns = ", ".join(MEDIA[table])
        marks = ", ".join("?" * (len(values) + 4))
        self._connection.execute(
            f"INSERT INTO {table} (run_id, {columns}) VALUES ({marks})",  # noqa: S608 - constants
            (self._number, record.name, record.step, *values, record.time),
        )

    def _pixels(self, data: bytes, name: str) -> Pixels | None:
        """Return the pixels of an image, None if it has none."""
        found = decode(data, EXTRA)
        if found is None:
            return None
        pixels, mode = found
        if mode not in MODES:
            what = "images become 8 bits a channel, grey or RGB, with or without alpha"
            self._ledger.changed("image", what, where=f"{name}: {mode}")
        return pixels


def _plain(tree: Any) -> Any:
    """Return a configuration as plain JSON, and NaN as simplegrad writes it."""
    if isinstance(tree, dict):
        return {str(key): _plain(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_plain(value) for value in tree]
    if isinstance(tree, bytes):
        return base64.b64encode(tree).decode()
    if isinstance(tree, PurePath):
        return tree.as_posix()
    return tree
