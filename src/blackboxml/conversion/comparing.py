"""What a run holds, counted by kind; and where two runs differ, value by value."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from blackboxml.errors import FormatError
from blackboxml.foreign.interchange import count_as, flatten

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    from blackboxml.foreign.interchange import Kind
    from blackboxml.model import MediaRecord, View
    from blackboxml.reader import RunReader

_MOST_PLACES = 20


def tally(run: RunReader, view: View) -> Counter[Kind]:
    """Return how many of each kind a run holds, one piece of a group in memory at a time.

    A `step` is a row of a group. Statistics across ranks are not counted.
    """
    found: Counter[Kind] = Counter()
    found["tag"], found["config"] = len(run.tags), len(flatten(run.config))
    for group in run.groups:
        names = list(columns(run, group).values())
        for piece in run.pieces(group, view):
            found["step"] += len(piece)
            found["scalar"] += sum(len(piece) - piece.column(name).null_count for name in names)
    for medium in run.media(view):
        found[count_as(medium.kind)] += 1
    return found


def count_superseded(run: RunReader) -> int:
    """Return how many scalars a rewind superseded; only groups with such rows are looked at."""
    found = 0
    for group in run.groups:
        rows = [len(run.arrow(group, view, ["step"])) for view in ("all", "effective")]
        if rows[0] != rows[1]:
            for column in columns(run, group).values():
                every, rest = (run.arrow(group, view, [column]) for view in ("all", "effective"))
                found += _count(every) - _count(rest)
    return found


def _count(table: pa.Table) -> int:
    """Return the values of the first column."""
    return len(table) - int(table.column(0).null_count)


def columns(run: RunReader, group: str) -> dict[str, str]:
    """Return the column of each metric of a group."""
    if run.sealed:
        metrics = run.manifest["groups"][group]["metrics"]
        return {name: said["column"] for name, said in metrics.items()}
    return {
        field.metadata[b"blackbox.metric"].decode(): field.name
        for field in run.arrow(group).schema
        if field.metadata
        and b"blackbox.metric" in field.metadata
        and b"blackbox.statistic" not in field.metadata
    }


@dataclass(slots=True)
class Difference:
    """Where one run is not as another.

    Attributes:
        lost: How many of each kind only the first has.
        extra: How many of each kind only the second has.
        changed: How many of each kind both have, with other values.
        greatest: The greatest absolute change of a number, by kind.
        places: The first places, for people.
    """

    lost: Counter[Kind] = field(default_factory=Counter)
    extra: Counter[Kind] = field(default_factory=Counter)
    changed: Counter[Kind] = field(default_factory=Counter)
    greatest: dict[Kind, float] = field(default_factory=dict)
    places: list[str] = field(default_factory=list)

    def say(self, place: str) -> None:
        """Keep a place, if there are not too many."""
        if len(self.places) < _MOST_PLACES:
            self.places.append(place)


def compare(first: RunReader, second: RunReader) -> Difference:
    """Compare the effective histories of two runs, and what else was recorded.

    Values are equal as numbers, NaN being equal to NaN; rows of a metric are matched by step, and
    of equal steps in order. One metric is in memory at a time.
    """
    found = Difference()
    places = [
        {
            name: (group, column)
            for group in run.groups
            for name, column in columns(run, group).items()
        }
        for run in (first, second)
    ]
    for name, (group, column) in places[0].items():
        mine = _series(first, group, column)
        if name not in places[1]:
            found.lost["scalar"] += len(mine[0])
            if len(mine[0]):
                found.say(f"metric {name}: it is missing")
            continue
        _compare_series(name, mine, _series(second, *places[1][name]), found)
    for name in places[1].keys() - places[0].keys():
        count = len(_series(second, *places[1][name])[0])
        found.extra["scalar"] += count
        if count:
            found.say(f"metric {name}: it was not there")
    _compare_config(first, second, found)
    _compare_tags(first, second, found)
    _compare_media(first, second, found)
    return found


Series = tuple["npt.NDArray[np.int64]", "npt.NDArray[np.float64]", "npt.NDArray[Any]"]
"""Steps, times and values of a metric, ascending by step."""


def _series(run: RunReader, group: str, column: str) -> Series:
    """Return a metric as arrays."""
    import numpy as np
    import pyarrow.compute as pc

    table = run.arrow(group, "effective", ["step", "time", column])
    table = table.filter(pc.is_valid(table.column(2)))
    steps, times, values = (each.to_numpy() for each in table.columns)
    order = np.argsort(steps, kind="stable")
    return steps[order], times[order], values[order]


def _compare_series(name: str, mine: Series, theirs: Series, found: Difference) -> None:
    """Compare one metric."""
    import numpy as np

    steps, times, values = mine
    if not np.array_equal(steps, theirs[0]):
        here, there = Counter(steps.tolist()), Counter(theirs[0].tolist())
        lost, extra = here - there, there - here
        found.lost["scalar"] += lost.total()
        found.extra["scalar"] += extra.total()
        odd = next(iter(lost or extra))
        found.say(
            f"metric {name}: step {odd} comes {here[odd]} times, and {there[odd]} times there"
        )
        return
    floats = values.astype(np.float64), theirs[2].astype(np.float64)
    exact = values.dtype.kind == "i" and theirs[2].dtype.kind == "i"
    same = values == theirs[2] if exact else (floats[0] == floats[1])
    same |= np.isnan(floats[0]) & np.isnan(floats[1])
    _count_changes(name, "scalar", steps, same, floats, found)
    _count_changes(name, "time", steps, times == theirs[1], (times, theirs[1]), found)


def _count_changes(  # noqa: PLR0917
    name: str,
    kind: Kind,
    steps: npt.NDArray[np.int64],
    same: npt.NDArray[np.bool_],
    values: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]],
    found: Difference,
) -> None:
    """Count what is not the same."""
    import numpy as np

    if same.all():
        return
    where = np.flatnonzero(~same)
    found.changed[kind] += len(where)
    with np.errstate(invalid="ignore"):
        by = np.abs(values[0][where] - values[1][where])
    by[np.isnan(by)] = np.inf
    found.greatest[kind] = max(found.greatest.get(kind, 0.0), float(by.max()))
    at = where[0]
    what = "" if kind == "scalar" else " the time"
    found.say(f"metric {name}, step {steps[at]}:{what} {values[0][at]!r} became {values[1][at]!r}")


def _compare_config(first: RunReader, second: RunReader, found: Difference) -> None:
    """Compare the configurations leaf by leaf."""
    mine, theirs = flatten(first.config), flatten(second.config)
    for key, value in mine.items():
        if key not in theirs:
            found.lost["config"] += 1
            found.say(f"config {key}: it is missing")
        elif not _same(value, theirs[key]):
            found.changed["config"] += 1
            found.say(f"config {key}: {value!r:.60} became {theirs[key]!r:.60}")
    found.extra["config"] += len(theirs.keys() - mine.keys())


def _same(first: Any, second: Any) -> bool:
    """Tell whether two values are equal, NaN being equal to itself."""
    return type(first) is type(second) and (first == second or repr(first) == repr(second))


def _compare_tags(first: RunReader, second: RunReader, found: Difference) -> None:
    """Compare the tags."""
    mine, theirs = Counter(first.tags), Counter(second.tags)
    found.lost["tag"] += (mine - theirs).total()
    found.extra["tag"] += (theirs - mine).total()


def _compare_media(first: RunReader, second: RunReader, found: Difference) -> None:
    """Compare media by kind, name, step and content."""
    mine, theirs = Counter(_digests(first)), Counter(_digests(second))
    for left, counts in ((mine - theirs, found.lost), (theirs - mine, found.extra)):
        for (kind, name, step, _), count in left.items():
            counts[count_as(kind)] += count
            found.say(f"{kind} {name} at step {step}: only one of them has it so")


def _digests(run: RunReader) -> Iterator[tuple[str, str, int, str]]:
    """Yield kind, name, step and a digest of each medium."""
    for medium in run.media():
        yield medium.kind, medium.name, medium.step, _digest(run, medium)


def _digest(run: RunReader, medium: MediaRecord) -> str:
    """Return a digest of what a medium is."""
    if medium.file is None:
        return json.dumps(medium.reference or medium.value, sort_keys=True)
    if medium.kind == "text":
        try:
            return json.dumps(run.load(medium).decode())
        except (FormatError, UnicodeDecodeError):
            return "unreadable"
    if medium.sha256 is not None:
        return medium.sha256
    try:
        return hashlib.sha256(run.load(medium)).hexdigest()
    except FormatError:
        return "unreadable"
