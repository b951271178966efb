"""The metrics of a run that is not sealed, counted on from where they were counted last.

A run with one journal that never went back only grows, so that what was read of it still holds: a
mark tells how far that was. Any other run is read whole.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from blackboxml.base.naming import group_of
from blackboxml.collection.entry import Series, finite
from blackboxml.journal.scan import Scan
from blackboxml.model import LIMITS, Mark
from blackboxml.reader.following import committed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from blackboxml.base.files import Directory
    from blackboxml.model import JournalFile, Number, Record, Summary

_SMALL_BYTES: Final = 2**20
"""Up to so many bytes, decoding line by line is faster than loading Arrow."""

_TYPES: Final = {bool: "bool", int: "int64", float: "float64"}
_KINDS: Final = {name: kind for kind, name in _TYPES.items()}
_ORDER: Final = list(_KINDS)


def tally(
    directory: Directory,
    journals: Sequence[JournalFile],
    mark: Mark | None,
    metrics: Mapping[str, Series],
) -> tuple[Mark, dict[str, Series]] | None:
    """Count what a journal holds behind a mark.

    Args:
        directory: The run.
        journals: Its journals.
        mark: Where the last count ended; None to begin.
        metrics: What that found.

    Returns:
        The new mark and the metrics so far; None if the run has to be read whole.
    """
    if len(journals) != 1 or journals[0].mark is not None or journals[0].stop is not None:
        return None
    journal = journals[0]
    with directory.reading(journal.name) as descriptor:
        end = committed(descriptor, journal.start, LIMITS.line_bytes)
    start = mark.offset if mark is not None else journal.start
    if end < start:
        return None
    piece = replace(journal, mark=mark, stop=end)
    found = dict(metrics)
    if end - start > _SMALL_BYTES:
        from blackboxml.reader.arrays import summarise
        from blackboxml.reader.decoded import decode_journals

        decoded = decode_journals(directory, [piece], [], LIMITS)
        scan = decoded.scans[0]
        _add(found, series(summarise(decoded.pieces({"id": "", "name": ""}))).items())
    else:
        scan = Scan(piece, set(), [], LIMITS)
        _add(found, _points(scan, directory))
    if scan.rewinds:
        return None
    groups = list(dict.fromkeys(map(group_of, found)))
    ordered = sorted(found, key=lambda name: groups.index(group_of(name)))
    return Mark(scan.expected, scan.offset, scan.line), {name: found[name] for name in ordered}


def series(summaries: Mapping[str, Summary]) -> dict[str, Series]:
    """Return what a catalogue keeps of the statistics of metrics."""
    return {
        name: Series(_TYPES[type(said.last)], said.last, said.last_step, said.min, said.max, said.n)
        for name, said in summaries.items()
    }


def _points(scan: Scan, directory: Directory) -> Iterator[tuple[str, Series]]:
    """Yield what is new, metric by metric."""
    for block in scan.blocks(directory):
        found: dict[str, list[Any]] = {}
        for record in scan.read(block):
            _count(found, record)
        for name, (kind, *said) in found.items():
            yield name, _conform(Series(kind, *said))


def _count(found: dict[str, list[Any]], record: Record) -> None:
    """Count a point in: type, last value, its step, least, greatest, how many."""
    for name, value in record.metrics.items():
        kind, known = _TYPES[type(value)], finite(value)
        said = found.get(name)
        if said is None:
            found[name] = [kind, value, record.step, known, known, 1]
            continue
        if kind != said[0]:
            said[0] = _join(kind, said[0])
        if record.step >= said[2]:
            said[1], said[2] = value, record.step
        said[3], said[4] = _least(said[3], known), _greatest(said[4], known)
        said[5] += 1


def _join(one: str, other: str) -> str:
    """Return the type that holds the values of two."""
    return max(one, other, key=_ORDER.index)


def _conform(said: Series) -> Series:
    """Return a metric with its values in its type."""
    kind = _KINDS[said.type]
    last, low, high = (
        None if each is None else kind(each) for each in (said.last, said.min, said.max)
    )
    return said._replace(last=last, min=low, max=high)


def _add(found: dict[str, Series], more: Iterable[tuple[str, Series]]) -> None:
    """Add later values of metrics."""
    for name, new in more:
        old = found.get(name)
        if old is None or old.last_step is None or new.last_step is None:
            found[name] = new
            continue
        later = new if new.last_step >= old.last_step else old
        joined = Series(
            _join(old.type, new.type),
            later.last,
            later.last_step,
            _least(old.min, new.min),
            _greatest(old.max, new.max),
            old.n + new.n,
        )
        found[name] = joined if old.type == new.type else _conform(joined)


def _least(one: Number | None, other: Number | None) -> Number | None:
    """Return the lesser number, None if there is none."""
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


def _greatest(one: Number | None, other: Number | None) -> Number | None:
    """Return the greater number, None if there is none."""
    if one is None or other is None:
        return other if one is None else one
    return max(one, other)
