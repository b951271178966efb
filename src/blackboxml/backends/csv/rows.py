"""The rows of `metrics.csv`: appended, and at every instant whole.

Strategy: a row is one write to the end of the file, in the kernel when `commit` returns; a row that
the file system refuses waits and is tried again. A key that comes for the first time makes the
header longer, for which the file is written anew under another name, with empty cells in the
earlier rows, and put in place of the old one. Such rewrites may cost four times what the rows cost,
and 64 MiB; a key that comes when this is used up waits, with the rows after it, in
`metrics.csv.pending`, and is put in when the file has grown enough, or at the end. So the cost of a
row does not depend on how many there are, and each row is always whole in one of the two.
"""

from __future__ import annotations

import csv
import errno
import json
import logging
import os
import re
import secrets
import time
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple

from blackboxml.base.files import write_all
from blackboxml.model import SCRATCH

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from blackboxml.base.files import Directory

logger = logging.getLogger("blackboxml")

METRICS: Final = "metrics.csv"
PENDING: Final = "metrics.csv.pending"
TORN: Final = "metrics.csv.torn"

MOST_HELD: Final = 10_000
"""Rows that are held while they are not committed, or cannot be written; past it, the oldest go."""

RETRY: Final = 1.0
"""Seconds after which rows that could not be written are tried again."""

_FACTOR: Final = 4
_SLACK: Final = 64 * 2**20
_BLOCK: Final = 2**20
_LONGEST_HEAD: Final = 2**24
_LONGEST_TAIL: Final = 2**16
_LINE_END: Final = re.compile(rb"\r?\n\Z")
_LINE_ENDS: Final = re.compile(rb"\r?\n")


class Encoder:
    """Rows as lines of CSV."""

    def __init__(self) -> None:
        class Line:
            """What `csv.writer` writes to; it returns what `write` returns."""

            @staticmethod
            def write(text: str) -> str:
                return text

        self._write = csv.writer(Line()).writerow

    def __call__(self, cells: Iterable[Any]) -> bytes:
        """Return a line."""
        line: Any = self._write(cells)
        return str(line).encode(errors="backslashreplace")


class Rows:
    """The rows of `metrics.csv`, of which there is one writer."""

    def __init__(self, directory: Directory) -> None:
        """Open the file, if there is one, and put in what an earlier process left.

        Raises:
            OSError: If it cannot be used.
        """
        self._directory = directory
        self._encode = Encoder()
        self._columns: dict[str, None] = {}
        self._file = -1
        self._head = self._size = 0  # bytes of the header; bytes of whole rows and header
        self._pending: int | None = None
        self._pending_size = 0
        self._held: list[Mapping[str, Any]] = []
        self._lost = 0
        self._retry = 0.0
        self._spent = 0  # bytes written for the sake of new keys
        self._open()
        self._earned = self._size  # bytes of rows
        self._merge()

    def add(self, cells: Mapping[str, Any]) -> None:
        """Hold a row until `commit`."""
        if cells:
            self._held.append(cells)
        if len(self._held) > MOST_HELD:
            excess = len(self._held) - MOST_HELD
            del self._held[:excess]
            self._lost += excess

    def commit(self) -> None:
        """Write the rows that are held.

        Raises:
            OSError: If the file system refuses; they are kept, and no other try is made for a
                second.
        """
        if self._retry and time.monotonic() < self._retry:
            return
        try:
            self._write()
        except OSError:
            self._retry = time.monotonic() + RETRY
            raise
        self._retry = 0.0

    def finish(self) -> None:
        """Write all and close.

        Raises:
            OSError: If the file system refuses, or has refused for so long that rows were lost.
        """
        reason: OSError | None = None
        try:
            self._write()
            if self._pending is not None:
                self._merge()
            if self._file >= 0:
                os.fsync(self._file)
        except OSError as error:
            reason = error
        finally:
            for descriptor in (self._file, self._pending):
                if descriptor is not None and descriptor >= 0:
                    os.close(descriptor)
            self._file, self._pending = -1, None
        lost = self._lost + len(self._held)
        if lost:
            message = f"{lost} rows could not be written ({reason or 'the disk was full'})"
            raise OSError(errno.EIO, message, METRICS)
        if reason is not None:
            raise reason

    # -- writing

    def _write(self) -> None:
        if not self._held:
            return
        if self._file >= 0 and not os.fstat(self._file).st_nlink:
            self._reopen()  # somebody has removed it, or put another in its place
        fresh = self._fresh(self._held)
        if fresh and self._pending is None and not self._affordable():
            self._defer()
        if self._pending is not None:
            lines = b"".join(_to_line(row) for row in self._held)
            self._append(self._pending, self._pending_size, lines)
            self._pending_size += len(lines)
            self._held.clear()
            if self._affordable():
                self._merge()
            return
        if fresh:
            self._widen(fresh)
        lines = b"".join(self._line(row) for row in self._held)
        self._append(self._file, self._size, lines)
        self._size += len(lines)
        self._earned += len(lines)
        self._held.clear()

    def _line(self, row: Mapping[str, Any]) -> bytes:
        if len(row) == len(self._columns) and list(row) == list(self._columns):
            return self._encode(row.values())
        return self._encode([row.get(name, "") for name in self._columns])

    def _fresh(self, rows: Iterable[Mapping[str, Any]]) -> list[str]:
        """Return the keys that have no column, in the order in which they come."""
        known = self._columns.keys()
        found: dict[str, None] = {}
        for row in rows:
            if not row.keys() <= known:
                found.update(dict.fromkeys(name for name in row if name not in known))
        return list(found)

    def _append(self, descriptor: int, size: int, data: bytes) -> None:
        """Write to the end of a file; what was written of it is taken back if not all can be."""
        try:
            write_all(descriptor, data)
        except BaseException:  # also an interrupt: the rows are held, and would come twice
            os.ftruncate(descriptor, size)
            raise

    # -- new keys

    def _affordable(self) -> bool:
        earned = self._earned + self._pending_size
        return self._spent + self._size <= _FACTOR * earned + _SLACK

    def _defer(self) -> None:
        """Begin a file of rows that go on after the present end of `metrics.csv`."""
        self._directory.remove(PENDING)
        self._pending = self._directory.create(PENDING, append=True)
        head = json.dumps({"after": self._size}).encode() + b"\n"
        self._append(self._pending, 0, head)
        self._pending_size = len(head)

    def _widen(self, fresh: Sequence[str], more: Iterable[Mapping[str, Any]] = ()) -> None:
        """Put `metrics.csv` anew in its place: more columns, and perhaps more rows."""
        columns = {**self._columns, **dict.fromkeys(fresh)}
        head = self._encode(columns)
        temporary = f"{SCRATCH}{METRICS}-{secrets.token_hex(4)}"
        file = self._directory.create(temporary, append=True)
        try:
            write_all(file, head)
            size = len(head)
            for block in self._body(b"," * len(fresh)):
                write_all(file, block)
                size += len(block)
            for row in more:
                line = self._encode([row.get(name, "") for name in columns])
                write_all(file, line)
                size += len(line)
            os.fsync(file)
            self._directory.rename(temporary, METRICS)
        except BaseException:
            os.close(file)
            self._directory.remove(temporary)
            raise
        if self._file >= 0:
            os.close(self._file)
        self._file, self._columns = file, columns
        self._head, self._size = len(head), size
        self._spent += size
        self._directory.sync()

    def _body(self, padding: bytes) -> Iterator[bytes]:
        """Yield the rows of the file with empty cells at the end of each."""
        if self._file < 0:
            return
        with os.fdopen(os.dup(self._file), "rb") as file:
            file.seek(self._head)
            quoted = False
            while lines := file.readlines(_BLOCK):
                if not quoted and not any(b'"' in line for line in lines):
                    yield _LINE_ENDS.sub(padding + rb"\g<0>", b"".join(lines))
                    continue
                for line in lines:
                    quoted ^= line.count(b'"') % 2 == 1
                    yield line if quoted else _LINE_END.sub(padding + rb"\g<0>", line)

    def _merge(self) -> None:
        """Put the rows that wait in `metrics.csv.pending` into the file.

        They belong to it while it ends where it ended when they began to wait. Once it is longer it
        holds them already: the process was killed before they were removed. A shorter one is
        another file.
        """
        waiting = _read_pending(self._directory)
        if waiting is not None and waiting.after == self._size and waiting.rows:
            self._widen(self._fresh(waiting.rows), waiting.rows)
        if self._pending is not None:
            os.close(self._pending)
            self._pending = None
            self._earned += self._pending_size
            self._pending_size = 0
        if waiting is not None and (waiting.damaged or waiting.after > self._size):
            put_aside(self._directory, PENDING)
        else:
            self._directory.remove(PENDING)

    # -- reopening

    def _reopen(self) -> None:
        """Go on with what is at the place of the file now."""
        os.close(self._file)
        self._file, self._columns = -1, {}
        self._head = self._size = 0
        self._open()
        if self._pending is not None:
            self._merge()

    def _open(self) -> None:
        """Open `metrics.csv` at the end of its last whole row."""
        path = self._directory.path / METRICS
        try:
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        with os.fdopen(os.dup(self._file), "rb") as file:
            head = _record(file)
            self._head = len(head)
            self._size = self._head + _whole(file) if head.endswith(b"\n") else 0
            total = file.seek(0, os.SEEK_END)
            file.seek(self._size)
            tail = file.read(_LONGEST_TAIL + 1)
        columns = _columns(head)
        if total and (columns is None or not self._size or len(tail) > _LONGEST_TAIL):
            os.close(self._file)
            self._file, self._head, self._size = -1, 0, 0
            put_aside(self._directory, METRICS)
            return
        if tail:
            logger.warning("%s ends in half a row, which is now in %s", path, TORN)
            with (self._directory.path / TORN).open("ab") as torn:
                torn.write(tail + b"\n")
            os.ftruncate(self._file, self._size)
        self._columns = dict.fromkeys(columns or ())


def _record(file: BinaryIO) -> bytes:
    """Return the first record of a file, over several lines if it quotes line ends."""
    found, size, quoted = [], 0, False
    for line in file:
        found.append(line)
        size += len(line)
        quoted ^= line.count(b'"') % 2 == 1
        if not quoted or size > _LONGEST_HEAD:
            break
    return b"".join(found)


def _whole(file: BinaryIO) -> int:
    """Return how many bytes from here on are whole rows."""
    good = at = 0
    quoted = False
    while lines := file.readlines(_BLOCK):
        for line in lines:
            at += len(line)
            quoted ^= line.count(b'"') % 2 == 1
            if not quoted and line.endswith(b"\n"):
                good = at
    return good


def _columns(head: bytes) -> list[str] | None:
    """Return the names in a header, or None if it is none."""
    try:
        names = next(csv.reader([head.decode()], strict=True), None)
    except (UnicodeDecodeError, csv.Error):
        return None
    return names if names and len(set(names)) == len(names) else None


def _to_line(row: Mapping[str, Any]) -> bytes:
    cells = {name: "" if value is None else str(value) for name, value in row.items()}
    return json.dumps(cells).encode() + b"\n"


class _Waiting(NamedTuple):
    after: int  # bytes of the file that they go on after
    rows: list[dict[str, str]]
    damaged: bool


def _read_pending(directory: Directory) -> _Waiting | None:
    """Return the whole rows that wait, or None where there are none."""
    after, rows, damaged = -1, [], False
    try:
        with directory.reading(PENDING) as descriptor, os.fdopen(os.dup(descriptor), "rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break  # cut by a crash
                try:
                    found = json.loads(line)
                    if after < 0:
                        after = int(found["after"])
                    else:
                        rows.append({str(name): str(cell) for name, cell in found.items()})
                except (ValueError, TypeError, KeyError, AttributeError):
                    damaged = True
    except FileNotFoundError:
        return None
    return _Waiting(after, rows, damaged) if rows or damaged else None


def put_aside(directory: Directory, name: str) -> None:
    """Give a file that cannot be used a name that is free."""
    free = directory.set_aside(name)
    logger.warning("%s is damaged; it is now %s", directory.path / name, free)
