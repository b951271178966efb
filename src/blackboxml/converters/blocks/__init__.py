"""Training logs of Blocks: the SQLite backend, both ways, and the pickled one.

The tables, the pickles in them and how a log reads those that it was resumed from are those of
`blocks.log` (https://github.com/mila-iqia/blocks, blocks/log/sqlite.py and log.py). A log that no
other was resumed from is one run, with what its ancestors logged; of a key that several of them
have at one time, the youngest value counts. Nothing that a pickle names is ever called. A pickled
log is decoded as a whole, so its file may have 128 MiB at most.
"""

from __future__ import annotations

import re
import sqlite3
import tarfile
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

from blackboxml.base.files import raise_refusal
from blackboxml.converters.blocks.pickles import Made, UnsafePickleError, load, simplify, understand
from blackboxml.converters.blocks.value import Values, is_pickle
from blackboxml.converters.blocks.writer import OWN, SCHEMA, Writer
from blackboxml.errors import FormatError
from blackboxml.foreign import values as foreign
from blackboxml.foreign.database import ERRORS, Source, has_tables, salvage, transaction
from blackboxml.foreign.interchange import ForeignRun, fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from blackboxml.foreign.interchange import Item, Ledger
    from blackboxml.reader import RunReader

EXTRA: Final = None

SUFFIXES: Final = (".sqlite",)
"""Of a target that is a log unless another format is named."""

FILE: Final = "blocks_log.sqlite"
"""The database that is made in a folder."""

_TABLES: Final = {"entries": {"uuid", "time", "key", "value"}, "status": {"uuid", "key", "value"}}
_HEX: Final = re.compile("[0-9a-f]{32}")
_HEAD: Final = 256
_MOST_BYTES: Final = 128 * 2**20
_MOST_ANCESTORS: Final = 16_000
_TOLD_ANCESTORS: Final = 1000
_ENDS: Final = ("got_exception", "training_finished")
_BATCH: Final = 8192


def recognise(path: Path) -> bool:
    """Tell whether a file is a log: a database, a pickle, or a checkpoint with a log in it."""
    if has_tables(path, _TABLES):
        return True
    try:
        return path.is_file() and _pickled(path) is not None
    except (OSError, tarfile.TarError, FormatError) as error:
        raise_refusal(error)
        return False


def members(path: Path) -> set[str]:
    """Return nothing: a log is a file."""
    del path
    return set()


def read(path: Path) -> Iterator[ForeignRun]:
    """Yield the runs of a log.

    Raises:
        FormatError: If it is no log, or is damaged as a whole.
        OSError: If it cannot be read.
    """
    if has_tables(path, _TABLES):
        try:
            yield from _Database(path).runs()
        except ERRORS as error:
            raise FormatError(f"{path} is damaged: {error}") from None
        return
    try:
        data = _pickled(path)
        if data is None:
            raise FormatError(f"{path} is no log of Blocks")
        yield _from_pickle(path, data)
    except (tarfile.TarError, UnsafePickleError) as error:
        raise FormatError(f"{path} is damaged: {error}") from None


# ---- pickles -----------------------------------------------------------------------------------


def _is_log(data: bytes) -> bool:
    """Tell whether a pickle begins with a log of Blocks."""
    return is_pickle(data) and b"blocks.log." in data and b"Log" in data


def _pickled(path: Path) -> bytes | None:
    """Return the pickle of a log from its file, or from the member `log` of a checkpoint.

    Raises:
        FormatError: If it is too large to be decoded.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
        if _is_log(head):
            if path.stat().st_size > _MOST_BYTES:
                raise FormatError(f"{path} has more than {_MOST_BYTES:,} bytes")
            return head + file.read(_MOST_BYTES)
    if not tarfile.is_tarfile(path):
        return None
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            inside = tar.extractfile(member) if member.name == "log" and member.isreg() else None
            if inside is not None and member.size <= _MOST_BYTES:
                found = inside.read(_MOST_BYTES)
                return found if _is_log(found[:_HEAD]) else None
    return None


def _from_pickle(path: Path, data: bytes) -> ForeignRun:
    """Return the run of a pickled log."""
    log = load(data)
    state = log.state if isinstance(log, Made) else None
    if not isinstance(log, Made) or not isinstance(state, dict):
        raise UnsafePickleError("it holds no log")
    uuid = getattr(understand(state.get("uuid")), "hex", "")
    status: dict[Any, Any] = {}
    if isinstance(state.get("status"), dict):
        status = {str(key): _plain(value) for key, value in state["status"].items()}
    database = state.get("database")

    def items(ledger: Ledger) -> Iterator[Item]:
        if isinstance(database, str):
            what = "the rows of a pickled log are in its database, which is not opened from here"
            ledger.unreadable("scalar", what, where=database)
        values, rows = Values(ledger), []
        for time, row in log.entries.items():
            if isinstance(time, bool) or not isinstance(step := foreign.number(time), int):
                step = int(time) if isinstance(time, bool) else None
            if step is None or not isinstance(row, dict):
                ledger.unreadable("step", "a row at no whole time", where=repr(time)[:80])
            else:
                rows.append((step, row))
        for step, row in sorted(rows, key=lambda each: each[0]):
            yield from values.items(step, {str(key): value for key, value in row.items()})

    times = [int(time) for time in log.entries if isinstance(foreign.number(time), int | bool)]
    last = log.entries.get(max(times)) if times else None
    ends = last if isinstance(last, dict) else {}
    chain = [uuid, *([status["resumed_from"]] if status.get("resumed_from") else [])]
    run = _describe(path, fingerprint([path]), chain, status, ends)
    run.items = items
    run.key = ""
    if isinstance(database, str):
        run.extra["database"] = database
    return run


def _plain(value: Any) -> Any:
    """Return a value of a pickle as configurations may hold it, or a description of it."""
    try:
        return simplify(value)
    except UnsafePickleError as error:
        return f"<{error}>"


def _describe(
    path: Path, digest: str, chain: list[Any], status: dict[Any, Any], ends: Mapping[str, Any]
) -> ForeignRun:
    """Return a run without its items; its key is its id.

    Args:
        path: The file.
        digest: Its fingerprint.
        chain: Its own id, and those of what it was resumed from, the nearest first.
        status: What the log's status holds.
        ends: What the last row says of the end.
    """
    own = status.pop(OWN, None)
    ancestors = [each for each in chain[1:] if isinstance(each, str)]
    run = ForeignRun(
        source=str(path),
        key=chain[0],
        fingerprint=digest,
        name=f"{path.stem}-{chain[0][:6]}" if chain[0] else path.stem,
        items=lambda _: iter(()),
        extra={"uuid": chain[0], "status": foreign.to_tree(status)},
        files=[path],
    )
    if ancestors:
        told = ancestors[:_TOLD_ANCESTORS]
        run.lineage = {"root": ancestors[-1], "ancestors": told, "count": len(ancestors)}
        if _HEX.fullmatch(ancestors[0]):
            run.lineage["parent"] = ancestors[0]
    text = ends.get("got_exception")
    if isinstance(text, str):
        run.status, run.exception = "failed", _exception(text)
    elif ends.get("training_finished"):
        run.status = "completed"
    document = foreign.parse(own)
    if isinstance(document, dict):
        foreign.recall(run, document)
    return run


def _exception(traceback: str) -> dict[str, str]:
    """Return an exception from the text that Python prints of it."""
    lines = [line for line in traceback.splitlines() if line.strip()]
    kind, _, message = (lines[-1] if lines else "Exception").partition(":")
    return {"type": kind.strip(), "message": message.strip(), "traceback": traceback}


# ---- databases ---------------------------------------------------------------------------------


class _Database:
    """One database, from which runs are read."""

    def __init__(self, path: Path) -> None:
        """Learn which logs there are, and which was resumed from which."""
        self._source = Source(path)
        self._path = path
        self._gaps: list[str] = []
        self._parents: dict[str, str | None] = {}
        self._sizes: dict[str, tuple[int, Any]] = {}
        with self._source.connection() as connection:
            query = (
                "SELECT rowid, uuid, key, CASE key WHEN 'resumed_from' THEN value END FROM status"
            )
            for _, uuid, key, value in salvage(connection, query, (), self._lose):
                parent = value.decode(errors="replace") if isinstance(value, bytes) else value
                self._parents.setdefault(str(uuid), None)
                if key == "resumed_from" and isinstance(parent, str):
                    self._parents[str(uuid)] = parent
            query = "SELECT uuid, count(*), max(time) FROM entries GROUP BY uuid"
            try:
                for uuid, count, last in connection.execute(query):
                    self._sizes[str(uuid)] = count, last
            except ERRORS as error:
                self._gaps.append(f"entries: {error}")

    def _lose(self, first: int, last: int, error: Exception) -> None:
        """Note rows that cannot be read."""
        self._gaps.append(f"status, rows {first} to {last}: {error}")

    def runs(self) -> Iterator[ForeignRun]:
        """Yield a run for each log that no other was resumed from."""
        known = self._parents
        resumed = set(known.values())
        orphans = {
            uuid: count
            for uuid, (count, _) in self._sizes.items()
            if uuid not in known and uuid not in resumed
        }
        leaves = [uuid for uuid in known if uuid not in resumed]
        if known and not leaves:  # each is an ancestor of all others
            leaves = [next(iter(known))]
        if not known:
            leaves, orphans = list(orphans), {}
        for uuid in leaves:
            yield self._run(uuid, orphans)
            orphans, self._gaps = {}, []

    def _chain(self, uuid: str) -> list[str]:
        """Return a log and its ancestors, the nearest first."""
        chain, seen, parent = [uuid], {uuid}, self._parents.get(uuid)
        while parent is not None and parent not in seen:
            chain.append(parent)
            seen.add(parent)
            parent = self._parents.get(parent)
        return chain

    def _run(self, uuid: str, orphans: dict[str, int]) -> ForeignRun:
        """Return the run of one log; it tells of what belongs to none."""
        chain, gaps = self._chain(uuid), self._gaps
        digest = foreign.Digest(chain)
        with self._source.connection() as connection:
            status: dict[Any, Any] = {}
            query = "SELECT rowid, key, value FROM status WHERE uuid = ?"
            values = Values(None)
            for _, key, value in salvage(connection, query, (uuid,), self._lose):
                digest.update([(key, value)])
                plain = isinstance(value, bytes) and key != "resumed_from"
                status[str(key)] = values.decode(value) if plain else value
            for each in chain:
                digest.update([(each,)])
                query = "SELECT time, key, value FROM entries WHERE uuid = ?"
                try:
                    digest.update(connection.execute(query, (each,)))
                except ERRORS as error:
                    digest.update([(str(error),)])
            ends = self._ends(connection, chain)
        run = _describe(self._path, digest.hexdigest(), chain, status, ends)
        if orphans:
            run.extra["orphans"] = orphans

        def items(ledger: Ledger) -> Iterator[Item]:
            for orphan, count in orphans.items():
                what = "rows of a log without a status, which Blocks cannot read, belong to no run"
                ledger.lost("scalar", what, count, where=f"{self._path.name}: uuid {orphan}")
            for gap in gaps:
                ledger.unreadable("field", "rows of the status that cannot be read", where=gap)
            if len(chain) > _MOST_ANCESTORS:
                what = "what the oldest of very many ancestors logged is left out"
                ledger.lost("scalar", what, where=chain[-1], declared=False)
            yield from self._items(chain, ledger)

        run.items = items
        return run

    def _ends(self, connection: sqlite3.Connection, chain: list[str]) -> dict[str, Any]:
        """Return what the last row says of the end of the training."""
        times = [self._sizes[uuid][1] for uuid in chain if uuid in self._sizes]
        last = max((time for time in times if isinstance(time, int)), default=None)
        found: dict[str, Any] = {}
        query = "SELECT value FROM entries WHERE uuid = ? AND time = ? AND key = ?"
        for uuid in reversed(chain if last is not None else []):
            for key in _ENDS:
                try:
                    row = connection.execute(query, (uuid, last, key)).fetchone()
                except ERRORS:
                    row = None
                if row is not None:
                    found[key] = Values(None).decode(row[0])
        return found

    def _rows(
        self, connection: sqlite3.Connection, chain: list[str], ledger: Ledger
    ) -> Iterator[tuple[Any, ...]]:
        """Yield time, key, value and age of all entries of a log: by time, the youngest log last.

        Should SQLite fail, the rows that can be read are sorted in a database of their own.
        """
        shown = chain[:_MOST_ANCESTORS]
        marks = ", ".join(["(?, ?)"] * len(shown))
        query = (
            f"WITH lineage (uuid, age) AS (VALUES {marks}) "  # noqa: S608 - question marks
            "SELECT e.time, e.key, e.value, lineage.age FROM lineage "
            "CROSS JOIN entries AS e ON e.uuid = lineage.uuid "
            "ORDER BY e.time, lineage.age DESC, e.rowid"
        )
        bound = [part for age, uuid in enumerate(shown) for part in (uuid, age)]
        count = 0
        try:
            for row in connection.execute(query, bound):
                count += 1
                yield row
        except ERRORS:
            with closing(sqlite3.connect("")) as scratch:
                scratch.execute("CREATE TABLE entries (uuid, time, key, value)")
                rows = salvage(
                    connection,
                    "SELECT rowid, uuid, time, key, value FROM entries",
                    (),
                    lambda *gap: self._tell(ledger, *gap),
                )
                scratch.executemany(
                    "INSERT INTO entries VALUES (?, ?, ?, ?)", (row[1:] for row in rows)
                )
                scratch.execute("CREATE INDEX place ON entries (uuid, time)")
                # What was yielded before the damage was met comes first here too.
                for at, row in enumerate(scratch.execute(query, bound)):
                    if at >= count:
                        yield row

    def _tell(self, ledger: Ledger, first: int, last: int, error: Exception) -> None:
        """Enter rows that cannot be read."""
        where = f"{self._path.name}: entries, rows {first} to {last}: {error}"
        ledger.unreadable("scalar", "rows that cannot be read", where=where)

    def _items(self, chain: list[str], ledger: Ledger) -> Iterator[Item]:
        """Yield what a log shows, time by time."""
        values = Values(ledger)
        step: int | None = None
        row: dict[str, Any] = {}
        shadowed = 0
        with self._source.connection() as connection:
            for raw_time, key, value, _ in self._rows(connection, chain, ledger):
                time = raw_time if type(raw_time) is int else values.whole(raw_time)
                if time is None:
                    what = "values at a time that is no whole number"
                    ledger.unreadable("step", what, where=f"{key}: {raw_time!r:.40}")
                    continue
                if time != step:
                    if step is not None:
                        yield from values.items(step, row)
                    step, row = time, {}
                name = key if isinstance(key, str) else repr(key)
                shadowed += name in row
                row[name] = value
            if step is not None:
                yield from values.items(step, row)
        if shadowed:
            what = "values that a later log of the lineage has in their place"
            ledger.lost("scalar", what, shadowed)


# ---- writing -----------------------------------------------------------------------------------


def write(run: RunReader, target: Path, ledger: Ledger, options: Mapping[str, Any]) -> Path:
    """Put a run into a database beside the others, its id being the log's uuid.

    `SQLiteLog(database, uuid=UUID(run.id))` opens it. A run that is there already is replaced.

    Args:
        run: The run.
        target: The database, or a folder for one.
        ledger: Told what has no home.
        options: None are known.

    Raises:
        ConversionError: If the target is another database, or cannot be written.
        OSError: If the folder of the target cannot be made.
    """
    del options
    path = target / FILE if target.is_dir() or not target.suffix else target
    with transaction(path, SCHEMA, _TABLES) as connection:
        Writer(run, connection, ledger).write()
    return path
