"""Stretches of journals whose points are known as columns: sealed without being parsed.

Who writes many points at once, as an import does, knows what the lines say. The columns are put by
in a scratch file; when the run is sealed, the bytes of each stretch are read back from the journal
and compared with what was written, and the columns take the place of what a parser would find.
Everything else in the journal is parsed, as is a stretch that is not what it was.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import numpy as np
import pyarrow as pa

from blackboxml.base import naming
from blackboxml.base.checksum import crc32
from blackboxml.base.shelf import Shelf
from blackboxml.journal.metric import Points
from blackboxml.journal.table import Key, Part, make_index, make_part

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blackboxml.base.files import Directory
    from blackboxml.base.shelf import Place
    from blackboxml.journal.metric import Column, Stretch
    from blackboxml.journal.scan import Scan
    from blackboxml.journal.table import Tabulator

_BLOCK_BYTES: Final = 2**20


class _Kept(NamedTuple):
    """A stretch, and where its points are."""

    stretch: Stretch
    layouts: list[tuple[str, ...]]
    steps: Place
    times: Place
    which: Place
    values: list[list[Place]]


class Stretches:
    """What is known of the journals of one run, in a file that nobody else sees."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Make the file in a folder."""
        self._shelf = Shelf(folder)
        self._kept: dict[str, list[_Kept]] = {}

    def add(self, stretch: Stretch, points: Points) -> None:
        """Put points by that were written, unless a metric has values of several types.

        Which type a column then gets, and what that rounds, is for the parser to say.
        """
        types: dict[str, np.dtype[Any]] = {}
        for names, columns in zip(points.layouts, points.values, strict=True):
            for name, column in zip(names, columns, strict=True):
                if types.setdefault(name, column.dtype) != column.dtype:
                    return
        kept = _Kept(
            stretch,
            points.layouts,
            self._shelf.put(points.steps),
            self._shelf.put(points.times),
            self._shelf.put(points.which),
            [[self._shelf.put(column) for column in columns] for columns in points.values],
        )
        self._kept.setdefault(stretch.journal, []).append(kept)

    def parts(self, tabulator: Tabulator, scan: Scan, directory: Directory) -> Iterator[Part]:
        """Yield the rows of one journal: of its stretches, and of what lies between them."""
        journal = scan.journal
        # Of a journal that counts only in part, all is parsed.
        known = self._kept.get(journal.name, []) if journal.high is None else []
        for kept in known:
            begin, size = kept.stretch.offset, kept.stretch.size
            scan.journal = replace(journal, stop=begin)
            yield from tabulator.parts(scan, directory)
            if scan.offset == begin and _is_there(kept.stretch, scan, directory):
                points = self._points(kept)
                scan.names.update(*kept.layouts)
                scan.accept(len(points), size, float(points.times[-1]))
                yield from split(points, kept.stretch.first_seq, journal.rank, journal.attempt)
        scan.journal = journal
        yield from tabulator.parts(scan, directory)

    def _points(self, kept: _Kept) -> Points:
        """Return points that were put by."""
        return Points(
            self._shelf.get(kept.steps),
            self._shelf.get(kept.times),
            self._shelf.get(kept.which),
            kept.layouts,
            [[self._shelf.get(place) for place in columns] for columns in kept.values],
        )

    def __enter__(self) -> Self:
        """Return the stretches."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file, which is gone then."""
        self._shelf.close()


def _is_there(stretch: Stretch, scan: Scan, directory: Directory) -> bool:
    """Tell whether a journal holds the bytes that were written there, and in their order."""
    if scan.ended or not scan.journal.low <= stretch.first_seq == scan.expected:
        return False
    crc, at, end = 0, stretch.offset, stretch.offset + stretch.size
    with directory.reading(stretch.journal) as descriptor:
        while at < end and (data := os.pread(descriptor, min(_BLOCK_BYTES, end - at), at)):
            crc = crc32(data, crc)
            at += len(data)
    return at == end and crc == stretch.crc


def split(points: Points, first_seq: int, rank: int, attempt: int) -> Iterator[Part]:
    """Yield points as the rows of each group: of one type a metric."""
    count = len(points)
    groups: dict[str, dict[str, list[tuple[Any, Column]]]] = {}
    layouts = zip(points.rows(), points.layouts, points.values, strict=True)
    for rows, names, columns in sorted(layouts, key=lambda each: int(each[0][0])):
        for name, column in zip(names, columns, strict=True):
            metrics = groups.setdefault(naming.group_of(name), {})
            metrics.setdefault(name, []).append((rows, column))
    seqs = np.arange(first_seq, first_seq + count)
    for group, metrics in groups.items():
        there = np.zeros(count, bool)
        for pieces in metrics.values():
            for place, _ in pieces:
                there[place] = True
        arrays = [_column(pieces, there) for pieces in metrics.values()]
        steps, times, own = (pa.array(each[there]) for each in (points.steps, points.times, seqs))
        keys: tuple[Key, ...] = tuple((name, None) for name in metrics)
        yield make_part(group, keys, make_index(steps, times, own, rank, attempt), arrays)


def _column(pieces: list[tuple[Any, Column]], there: Column) -> pa.Array:
    """Return a metric as a column of the rows that its group has."""
    values = np.zeros(len(there), pieces[0][1].dtype)
    absent = np.ones(len(there), bool)
    for place, column in pieces:
        values[place], absent[place] = column, False
    absent = absent[there]
    return pa.array(values[there], mask=absent if absent.any() else None)
