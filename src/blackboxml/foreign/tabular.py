"""Tables as runs and runs as tables: one column is the step, the others are metrics.

What an exported table has no place for is kept beside it as one JSON object, `about`:

    format   name `blackbox-table` and version
    run      what `foreign.document` says: id, name, tags, status, start, end, config, …
    index    the columns of a row that are no metrics: step, time, and rank and attempt if they vary
    columns  of each other column the metric, and the statistic across ranks or null
    descriptions  unit and description by metric
    folder   true if the table is one of several, which are a folder together
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from blackboxml.base.files import raise_refusal
from blackboxml.base.naming import distinct
from blackboxml.foreign import delimited
from blackboxml.foreign.hyperparameters import read_yaml
from blackboxml.foreign.interchange import (
    Description,
    ForeignRun,
    Medium,
    Point,
    Restart,
    count_as,
    fingerprint,
)
from blackboxml.foreign.values import Names, document, number, recall, to_medium
from blackboxml.model import INT64_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from blackboxml.foreign.interchange import Item, Ledger
    from blackboxml.reader import RunReader

ABOUT: Final = "blackbox-table"

STEPS: Final = (
    *("step", "_step", "global_step", "trainer/global_step", "iteration", "iter"),
    *("training_iteration", "epoch", "_epoch"),
)
"""Names of a column of steps, in any case; the first that is there counts."""

TIMES: Final = ("time", "_time", "timestamp", "_timestamp", "wall_time", "datetime", "date")
"""Names of a column of times, in Unix seconds or ISO 8601 (without an offset: UTC)."""

NAMES: Final = ("name", "metric", "tag", "key", "variable")
VALUES: Final = ("value", "val")
_RESERVED: Final = ("step", "time", "rank", "attempt", "name", "value", "", "na", "none", "null")
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\0", "'")


def points(
    path: Path,
    ledger: Ledger,
    *,
    step: str | None,
    leave_out: Collection[str] = (),
    restarts: bool = False,
) -> Iterator[Item]:
    """Yield the rows of a file of delimited text as points, in order.

    Numbers become metrics, texts media. No time is known.

    Args:
        path: The file.
        ledger: Receives what cannot be read.
        step: The column of the step; None for the number of the row, from 0.
        leave_out: Columns that are something else.
        restarts: Whether a step that is not above the last one means that the training went back.
    """
    names = Names(ledger)
    last: int | None = None
    for place, (line, cells) in enumerate(delimited.rows(path, ledger)):
        at = place if step is None else _step(cells.get(step))
        if at is None:
            what = f"a row has no {step} that is an integer"
            ledger.unreadable("step", what, where=f"{path}:{line}")
            continue
        if restarts and last is not None and at <= last:
            yield Restart(at)
        last = at
        metrics = {}
        for column, text in cells.items():
            if column == step or column in leave_out:
                continue
            value = delimited.number(text)
            if value is None:
                plain = text.encode(errors="backslashreplace").decode()
                yield Medium(names(column), "text", at, None, value=plain)
            else:
                metrics[names(column)] = value
        if metrics:
            yield Point(at, None, metrics)


def folder_run(
    path: Path, table: str, settings: str, extra: str, *, step: str, restarts: bool = False
) -> ForeignRun:
    """Return the run of a folder that holds a table, and perhaps its settings as YAML.

    It is called as the folder is.

    Args:
        path: The folder.
        table: Name of the file of delimited text.
        settings: Name of the file of hyper-parameters.
        extra: The extra of this package that brings PyYAML.
        step: As for `points`.
        restarts: As for `points`.
    """
    files = [path / name for name in (table, settings) if (path / name).is_file()]
    config, why = {}, ""
    try:
        config = read_yaml(path / settings, extra)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        raise_refusal(error)
        why = str(error)

    def items(ledger: Ledger) -> Iterator[Item]:
        if why:
            ledger.unreadable("config", "the hyper-parameters cannot be read", where=why)
        return points(path / table, ledger, step=step, restarts=restarts)

    return ForeignRun(
        source=str(path),
        key="",
        fingerprint=fingerprint(files),
        name=path.resolve().name,
        items=items,
        config=config,
        files=files,
    )


def _step(text: str | None) -> int | None:
    """Return the step in a cell; some loggers write it as `3.0`."""
    value = None if text is None else delimited.number(text)
    if value is None or isinstance(value, bool) or not abs(value) <= INT64_MAX:
        return None
    return int(value) if int(value) == value else None


# -- runs as tables


class Column(NamedTuple):
    """A column of an exported table.

    Attributes:
        group: The group it is of.
        column: Its name in `RunReader.arrow`.
        label: Its name in the exported table; no other column of the run has it.
        metric: Full name.
        statistic: A statistic across ranks, or None.
        type: `bool`, `int64` or `double`.
    """

    group: str
    column: str
    label: str
    metric: str
    statistic: str | None
    type: str


class Plan(NamedTuple):
    """How a run becomes tables.

    Attributes:
        keys: `step`, `time`, and `rank` and `attempt` where one of them is not 0.
        columns: By group.
        about: What the tables have no place for.
    """

    keys: list[str]
    columns: dict[str, list[Column]]
    about: dict[str, Any]


def plan(run: RunReader, ledger: Ledger) -> Plan:
    """Return how a run becomes tables; media are entered as lost."""
    from blackboxml.journal.table import INDEX, read_keys

    index = ["step", "time"]
    found: dict[str, list[Column]] = {}
    taken = set(_RESERVED)
    for group in run.groups:
        places = run.arrow(group, "effective", ["rank", "attempt"])
        for name in places.column_names:
            if name not in index and any(_varies(places.column(name).chunks)):
                index.append(name)
        schema = next(iter(run.pieces(group))).schema
        found[group] = []
        for field, (metric, statistic) in zip(
            list(schema)[len(INDEX) :], read_keys(schema), strict=True
        ):
            label = _label(metric if statistic is None else f"{metric}/{statistic}", taken)
            column = Column(group, field.name, label, metric, statistic, str(field.type))
            found[group].append(column)
    index.sort(key=("step", "time", "rank", "attempt").index)
    for medium in run.media():
        ledger.lost(count_as(medium.kind), "a table has no place for media", where=medium.name)
    about = {
        "format": {"name": ABOUT, "version": "1.0"},
        "run": document(run),
        "index": index,
        "columns": {
            each.label: [each.metric, each.statistic] for group in found.values() for each in group
        },
        "descriptions": run.descriptions,
    }
    return Plan(index, found, about)


def _varies(chunks: list[Any]) -> Iterator[bool]:
    """Tell of each chunk whether something in it is not 0."""
    for chunk in chunks:
        yield bool(chunk.to_numpy(zero_copy_only=False).any())


def _label(name: str, taken: set[str]) -> str:
    """Return a name that is no formula to a spreadsheet and that no other column has."""
    stem = name.strip()
    if stem.startswith(_FORMULA):
        stem = f"'{stem}"
    label = distinct(stem, lambda each: each.casefold() in taken)
    taken.add(label.casefold())
    return label


def rows(run: RunReader, group: str, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Yield the effective rows of a group as values of some columns, None where there is none."""
    for piece in run.pieces(group):
        for batch in piece.select(list(names)).to_batches(2**14):
            yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


# -- tables as runs


class Roles(NamedTuple):
    """Which column is what; None where there is none."""

    step: str | None
    time: str | None = None
    rank: str | None = None
    attempt: str | None = None
    name: str | None = None
    value: str | None = None


def roles(labels: Sequence[str], about: Mapping[str, Any] | None = None) -> Roles:
    """Return what the columns of a table are, by name; of an exported one by its `about`."""
    plain = {label.strip().replace(" ", "_").casefold(): label for label in reversed(labels)}

    def first(names: Sequence[str]) -> str | None:
        return next((plain[name] for name in names if name in plain), None)

    name, value = first(NAMES), first(VALUES)
    if name is None or value is None:
        name = value = None
    if about is not None:
        own = {each: each for each in about["index"] if each in labels}
        long = "name" in labels
        return Roles(
            own.get("step"),
            own.get("time"),
            own.get("rank"),
            own.get("attempt"),
            name if long else None,
            value if long else None,
        )
    step = first(STEPS)
    if step is None and labels and not labels[0]:
        step = labels[0]  # the index of a data frame has no name
    return Roles(step, first(TIMES), name=name, value=value)


class Rows:
    """Turns rows into items. Cells are values; text cells become media.

    Values of a long table that stand below each other, of one step and time, are one point.
    """

    def __init__(self, ledger: Ledger, found: Roles, about: Mapping[str, Any] | None) -> None:
        """Begin with the first row of a table."""
        self._ledger = ledger
        self._roles = found
        self._known = about["columns"] if about is not None else {}
        self._index = frozenset(each for each in found if each is not None)
        self._names = Names(ledger)
        self._count = 0
        self._point: Point | None = None

    def take(self, cells: Mapping[str, Any], where: str) -> Iterator[Item]:
        """Yield the items of a row; in a long table those of rows before it."""
        place, self._count = self._count, self._count + 1
        step = self._step(cells, place, where)
        if step is None:
            return
        rank = cells.get(self._roles.rank, 0) if self._roles.rank is not None else 0
        if cells.get(self._roles.attempt or ""):
            what = "the effective history of several attempts becomes that of one"
            self._ledger.lost("field", what, where=where)
        point = Point(step, self._time(cells, where), {}, None, rank)
        if self._roles.name is not None:
            yield from self._take_long(point, cells, where)
            return
        for label, value in cells.items():
            if label not in self._index and value is not None:
                yield from self._enter(point, label, value)
        yield from self._whole(point)

    def _take_long(self, point: Point, cells: Mapping[str, Any], where: str) -> Iterator[Item]:
        """Yield the points before a row of a long table, if they are whole."""
        name, value = cells.get(self._roles.name or ""), cells.get(self._roles.value or "")
        if name is None:
            self._ledger.unreadable("scalar", "a row names no metric", where=where)
            return
        for label, more in cells.items():
            if label not in self._index and more is not None:
                what = "a long table has a further column"
                self._ledger.lost("field", what, where=f"{where}: {label}")
        last = self._point
        if (
            last is None
            or (last.step, last.time, last.rank) != (point.step, point.time, point.rank)
            or self._metric(str(name)) in last.metrics
        ):
            yield from self.finish()
            self._point = last = point
        if value is not None:
            yield from self._enter(last, str(name), value)

    def metric(self, label: str) -> str | None:
        """Return the metric that a column became, or None if it is the step or the time."""
        return None if label in self._index else self._metric(label)

    def finish(self) -> Iterator[Item]:
        """Yield what is left of a long table."""
        last, self._point = self._point, None
        if last is not None:
            yield from self._whole(last)

    def _metric(self, label: str) -> str | None:
        """Return the metric of a column, None if it is a statistic."""
        known = self._known.get(label)
        if known is None:
            return self._names(label)
        return known[0] if known[1] is None else None

    def _enter(self, point: Point, label: str, value: Any) -> Iterator[Item]:
        """Put a value into a point, or yield it as a medium."""
        scalar = number(value)
        metric = self._metric(label)
        if metric is None:
            name, statistic = self._known[label]
            if scalar is not None:
                point.ranks = point.ranks or {}
                point.ranks.setdefault(name, {})[statistic] = scalar
        elif scalar is None:
            yield to_medium(metric, value, point.step, point.time, self._ledger)
        else:
            point.metrics[metric] = scalar

    def _whole(self, point: Point) -> Iterator[Item]:
        """Yield a point, without statistics of what it has no value of."""
        alone = (point.ranks or {}).keys() - point.metrics.keys()
        if alone:
            what = "a statistic across ranks stands without a value"
            self._ledger.lost("field", what, len(alone), where=f"step {point.step}")
            point.ranks = {k: v for k, v in (point.ranks or {}).items() if k not in alone} or None
        if point.metrics:
            yield point

    def _step(self, cells: Mapping[str, Any], place: int, where: str) -> int | None:
        """Return the step of a row; its place if no column tells it."""
        if self._roles.step is None:
            self._ledger.made(
                "step", "the source has no steps; it is the number of the row, from 0"
            )
            return place
        value = cells.get(self._roles.step)
        if isinstance(value, float) and value == value // 1 and abs(value) <= INT64_MAX:
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= INT64_MAX:
            return value
        what = f"a row has no {self._roles.step} that is an integer"
        self._ledger.unreadable("step", what, where=where)
        return None

    def _time(self, cells: Mapping[str, Any], where: str) -> float | None:
        """Return the time of a row in Unix seconds."""
        value = cells.get(self._roles.time) if self._roles.time is not None else None
        if value is None:
            return None
        time = to_time(value)
        if time is None:
            what = "a time is neither Unix seconds nor ISO 8601"
            self._ledger.unreadable("time", what, where=f"{where}: {value!r:.40}")
        return time


def to_time(value: Any) -> float | None:
    """Return Unix seconds of a number, a text in ISO 8601 or a `datetime`; without offset: UTC.

    >>> [to_time(each) for each in (1.5, "1970-01-01T00:00:02", "1970-01-01 01:00+01:00", "x")]
    [1.5, 2.0, 0.0, None]
    """
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if isinstance(value, datetime):
        return (value if value.tzinfo is not None else value.replace(tzinfo=UTC)).timestamp()
    scalar = number(value)
    if scalar is None or isinstance(scalar, bool) or not math.isfinite(scalar) or scalar < 0:
        return None
    return float(scalar)


def foreign_run(
    path: Path,
    tables: Sequence[Path],
    about: dict[str, Any] | None,
    read: Callable[[Path, dict[str, Any] | None, Ledger], Iterator[Item]],
    beside: Sequence[Path] = (),
) -> ForeignRun:
    """Return the run of tables.

    Args:
        path: The table, or their folder.
        tables: All of them.
        about: What was kept about the run, if it was exported.
        read: Yields the items of a table, being given `about` too.
        beside: Further files that belong to it.
    """

    def items(ledger: Ledger) -> Iterator[Item]:
        for table in tables:
            yield from read(table, about, ledger)
        for metric, said in (about or {}).get("descriptions", {}).items():
            yield Description(metric, said.get("unit"), said.get("description"))

    files = [*tables, *beside]
    name = path.resolve().stem
    run = ForeignRun(str(path), "", fingerprint(files), name, items, files=files)
    if about is not None:
        recall(run, about["run"])
    return run


def is_folder(abouts: Collection[Mapping[str, Any] | None]) -> bool:
    """Tell whether tables are a folder together, each being of the same run."""
    ids = {
        None if each is None or each.get("folder") is not True else str(each["run"].get("id"))
        for each in abouts
    }
    return len(ids) == 1 and None not in ids


def check_about(tree: Any) -> dict[str, Any] | None:
    """Return an `about` that is one, or None."""
    if not isinstance(tree, dict) or not isinstance(tree.get("format"), dict):
        return None
    columns, said = tree.get("columns"), tree.get("descriptions")
    good = (
        tree["format"].get("name") == ABOUT
        and isinstance(tree.get("run"), dict)
        and isinstance(tree.get("index"), list)
        and isinstance(columns, dict)
        and all(
            isinstance(each, list)
            and len(each) == 2  # noqa: PLR2004
            and isinstance(each[0], str)
            and (each[1] is None or isinstance(each[1], str))
            for each in columns.values()
        )
        and isinstance(said, dict)
        and all(isinstance(each, dict) for each in said.values())
    )
    return tree if good else None
