"""SQLite files of other programs: read from a private copy, guarded, and around damage.

Nobody's database is locked or changed: the file and what SQLite keeps beside it are copied while
they hold still, and a crashed transaction is rolled back in the copy. A file may be hostile: only
plain tables are read, no function of the schema runs, no value of more than `MOST_BYTES` is loaded.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import stat
import tempfile
import weakref
from contextlib import closing, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from blackboxml.base.files import raise_refusal
from blackboxml.errors import ConversionError, FormatError
from blackboxml.foreign.interchange import open_plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import numpy.typing as npt

MOST_BYTES: Final = 64 * 2**20
"""Size of a value above which its row is left out."""

ALL: Final = (-(2**63), 2**63 - 1)
"""The bounds of `rowid`."""

ERRORS: Final = (sqlite3.Error, UnicodeDecodeError)
"""What a damaged database raises; the second where it names what is no text."""

_MAGIC: Final = b"SQLite format 3\0"
_JOURNAL_MAGIC: Final = bytes.fromhex("d9d505f920a163d7")
_TYPES: Final = {"INTEGER": "i8", "REAL": "f8"}
_TRIES: Final = 5
_PATIENCE: Final = 300.0  # seconds for which one of several exports waits for the others
_FUNCTIONS: Final = frozenset(["count", "max", "min", "length", "typeof", "coalesce"])
_ALLOWED: Final = frozenset([sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE])


def is_sqlite(path: Path) -> bool:
    """Tell whether a file begins as an SQLite database does."""
    try:
        with open_plain(path) as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError as error:
        raise_refusal(error)
        return False


def has_tables(path: Path, wanted: dict[str, set[str]]) -> bool:
    """Tell whether a file is a database with plain tables of these columns, and maybe others."""
    if not is_sqlite(path):
        return False
    uri = f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1"
    try:
        with closing(_guard(uri)) as found:
            if _holds(found, wanted):
                return True
    except ERRORS as error:
        _raise_refusal(error, path)
    # What was never checkpointed is in the write-ahead log alone.
    if os.path.exists(f"{path}-wal"):
        try:
            with suppress(*ERRORS, FormatError), Source(path).connection() as found:
                return _holds(found, wanted)
        except OSError as error:
            raise_refusal(error)
    return False


def _raise_refusal(error: Exception, path: Path) -> None:
    """Raise an error of the system in place of one of SQLite that stands for one.

    Those are `SQLITE_IOERR` and `SQLITE_CANTOPEN` (sqlite.org/rescode.html), whatever is in their
    upper bits, but for a file that is shorter than it should be.
    """
    code = getattr(error, "sqlite_errorcode", 0)
    kinds = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}
    if code & 0xFF in kinds and code != sqlite3.SQLITE_IOERR_SHORT_READ:
        raise OSError(errno.EIO, str(error), str(path)) from error


def _holds(connection: sqlite3.Connection, wanted: dict[str, set[str]]) -> bool:
    """Tell whether there are these tables and columns."""
    found = tables(connection)
    return all(columns <= found.get(name, set()) for name, columns in wanted.items())


class Source:
    """A copy of a database as it was at one moment, gone when nothing refers to it any more."""

    def __init__(self, path: Path) -> None:
        """Take the copy.

        Raises:
            OSError: If the file cannot be read or copied.
            FormatError: If it is no database.
        """
        if not is_sqlite(path):
            raise FormatError(f"{path} is no SQLite database")
        folder = Path(tempfile.mkdtemp(prefix="blackboxml-"))
        weakref.finalize(self, _remove, folder, os.getpid())
        self.path = path
        self._copy = folder / "copy.db"
        if not any(_copy(path, self._copy) for _ in range(_TRIES)):
            _back_up(path, self._copy)

    def connect(self) -> sqlite3.Connection:
        """Return a guarded connection to the copy."""
        return _guard(f"file:{quote(str(self._copy))}?mode=rw")

    @contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """Give a guarded connection, closed behind it."""
        with closing(self.connect()) as found:
            yield found


def _remove(folder: Path, process: int) -> None:
    """Remove a copy, in the process that made it."""
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


def _copy(source: Path, target: Path) -> bool:
    """Copy a database and what belongs to it; tell whether all held still meanwhile."""
    places = [(f"{source}{suffix}", f"{target}{suffix}") for suffix in ("-wal", "-journal")]
    for _, copy in places:
        Path(copy).unlink(missing_ok=True)
    before = _state(str(source)), *(_state(place) for place, _ in places)
    try:
        shutil.copyfile(source, target)
        for (place, copy), known in zip(places, before[1:], strict=True):
            # A link is not followed. A journal that names another would have SQLite look at that.
            if known is not None and not _names_another(place):
                shutil.copyfile(place, copy, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return before == (_state(str(source)), *(_state(place) for place, _ in places))


def _state(path: str) -> tuple[int, int, int] | None:
    """Return what changes when a file does, or None if there is no such file."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _names_another(path: str) -> bool:
    """Tell whether a rollback journal ends with the name of a journal of several databases."""
    with open(path, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - len(_JOURNAL_MAGIC)))
        return file.read() == _JOURNAL_MAGIC


def _back_up(source: Path, target: Path) -> None:
    """Copy a database that is written all the time, as one reader among others.

    Raises:
        FormatError: If that is not possible.
    """
    for suffix in ("", "-wal", "-journal"):
        Path(f"{target}{suffix}").unlink(missing_ok=True)
    uri = f"file:{quote(str(source.absolute()))}?mode=ro"
    try:
        with (
            closing(sqlite3.connect(uri, uri=True, timeout=30)) as live,
            closing(sqlite3.connect(target)) as copy,
        ):
            live.backup(copy)
    except sqlite3.Error as error:
        raise FormatError(f"{source} is being written and cannot be copied: {error}") from None


def _guard(uri: str) -> sqlite3.Connection:
    """Return a connection that does nothing but read plain tables."""
    connection = sqlite3.connect(uri, uri=True, isolation_level=None)
    try:
        for pragma in ("trusted_schema=OFF", "cell_size_check=ON", "mmap_size=0", "query_only=ON"):
            connection.execute(f"PRAGMA {pragma}")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_BYTES)
        connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        connection.set_authorizer(_authorise)
        connection.text_factory = _text
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _text(data: bytes) -> str:
    """Return a text; bytes that are not UTF-8 are spelled out."""
    return data.decode(errors="backslashreplace")


def _authorise(
    action: int, first: str | None, second: str | None, _schema: str | None, inner: str | None
) -> int:
    """Allow reading, the functions that are used here, and nothing that a view or trigger does."""
    if inner is None and (
        action in _ALLOWED
        or (action == sqlite3.SQLITE_FUNCTION and second in _FUNCTIONS)
        or (action == sqlite3.SQLITE_PRAGMA and first == "table_xinfo")
    ):
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


def tables(connection: sqlite3.Connection) -> dict[str, set[str]]:
    """Return the columns of the plain tables; views, virtual tables and computed columns are none.

    Raises:
        sqlite3.Error: If the schema is damaged.
    """
    found: dict[str, set[str]] = {}
    for name, sql in connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'"):
        if isinstance(sql, str) and not sql.lstrip().upper().startswith("CREATE VIRTUAL"):
            quoted = str(name).replace('"', '""')
            rows = connection.execute(f'PRAGMA table_xinfo("{quoted}")').fetchall()
            found[str(name)] = {str(row[1]) for row in rows if not row[6]}
    return found


@contextmanager
def transaction(
    path: Path, schema: str, wanted: dict[str, set[str]]
) -> Iterator[sqlite3.Connection]:
    """Give a connection that writes into a database all or nothing, while others wait.

    Args:
        path: The database, made if it is missing.
        schema: Statements that make what is missing in it, with `;` between them.
        wanted: Tables and columns that one which is not empty has.

    Raises:
        ConversionError: If it is another database, or cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with closing(sqlite3.connect(path, isolation_level=None, timeout=_PATIENCE)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                if tables(connection) and not _holds(connection, wanted):
                    raise ConversionError(f"{path} is another database; name another target")
                for statement in schema.split(";"):
                    connection.execute(statement)
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                connection.execute("ROLLBACK")
                raise
    except sqlite3.Error as error:
        raise ConversionError(f"{path} cannot be written: {error}") from None


def salvage(
    connection: sqlite3.Connection,
    query: str,
    parameters: tuple[Any, ...],
    lost: Callable[[int, int, Exception], None],
    bounds: tuple[int, int] = ALL,
) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a table in order of `rowid`, going around those that cannot be read.

    Args:
        connection: A guarded connection.
        query: `SELECT rowid, … FROM table` with a condition that opens with WHERE, or none.
        parameters: Those of the condition.
        lost: Told of each gap: the first and the last `rowid` that may be in it, and why.
        bounds: Least and greatest `rowid`.
    """
    first, last = bounds
    joint = "AND" if " WHERE " in query else "WHERE"
    ordered = f"{query} {joint} rowid >= ? AND rowid <= ? ORDER BY rowid"
    while first <= last:
        try:
            for row in connection.execute(ordered, (*parameters, first, last)):
                first = row[0] + 1
                yield row
        except ERRORS as error:
            # The module has looked one row ahead: the one before the damage is still to come.
            query = f"{ordered} LIMIT 1"
            try:
                row = connection.execute(query, (*parameters, first, last)).fetchone()
            except ERRORS:
                beyond = _beyond(connection, query, parameters, first, last)
                lost(first, beyond - 1, error)
                first = beyond
            else:
                if row is None:
                    return
                first = row[0] + 1
                yield row
        else:
            return


def read_columns(
    connection: sqlite3.Connection,
    kinds: Mapping[str, str],
    place: str,
    parameters: tuple[Any, ...],
    at_once: int,
) -> Iterator[npt.NDArray[Any]]:
    """Yield rows as arrays of one field each column, in half the time that `salvage` takes.

    Args:
        connection: A guarded connection.
        kinds: By expression: `INTEGER` and `REAL` become int64 and float64, others objects.
        place: The table, with a condition that opens with WHERE.
        parameters: Those of the condition.
        at_once: Rows of an array.

    Raises:
        FormatError: Before all arrays, if a number is none, or cannot be had exactly.
        sqlite3.Error: If the table is damaged.
    """
    import numpy as np

    same = [f"{name} = CAST({name} AS {kind})" for name, kind in kinds.items() if kind in _TYPES]
    odd = f"SELECT 1 FROM {place} AND NOT coalesce({' AND '.join(same)}, 0) LIMIT 1"  # noqa: S608 - of constants
    if connection.execute(odd, parameters).fetchone() is not None:
        raise FormatError("there are rows of other types than the columns")
    layout = np.dtype([(f"f{at}", _TYPES.get(kind, "O")) for at, kind in enumerate(kinds.values())])
    query = f"SELECT {', '.join(kinds)} FROM {place} ORDER BY rowid"  # noqa: S608 - of constants
    rows = connection.execute(query, parameters)
    while len(part := np.fromiter(islice(rows, at_once), layout)):
        yield part


def _beyond(
    connection: sqlite3.Connection, query: str, parameters: tuple[Any, ...], first: int, last: int
) -> int:
    """Return the `rowid` behind a gap from which reading goes on; above `last` if none does."""

    def is_good(start: int) -> bool:
        try:
            connection.execute(query, (*parameters, start, last)).fetchone()
        except ERRORS:
            return False
        return True

    bad, stride = first, 1
    while bad + stride <= last and not is_good(bad + stride):
        bad, stride = bad + stride, stride * 2
    good = min(bad + stride, last + 1)
    while good - bad > 1:
        middle = (good + bad) // 2
        if is_good(middle):
            good = middle
        else:
            bad = middle
    return good
