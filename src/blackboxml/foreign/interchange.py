"""What converters exchange: a run of another system as data, and the book of what became of it.

An importer yields `ForeignRun`s, whose items come in the order in which they were logged. An
exporter takes a `RunReader`. Both enter into a `Ledger` what had no home, what was changed and what
could not be read; the counts of what went in and came out are made by the hub, not by them.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast

from blackboxml.base.files import is_refusal
from blackboxml.journal.metric import Points

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from io import BufferedReader
    from pathlib import Path

    from blackboxml.model import Number, Status

Kind = Literal[
    "scalar",
    "step",
    "time",
    "config",
    "tag",
    "text",
    "image",
    "histogram",
    "array",
    "table",
    "figure",
    "graph",
    "artifact",
    "event",
    "status",
    "field",
]
"""What is counted. `field` is a member that is none of the others, such as a user's name."""

MEDIA_KINDS: Final = (
    *("text", "image", "histogram", "array", "table", "figure", "graph", "artifact", "event"),
)
"""The kinds of media of the format."""


@dataclass(slots=True)
class Point:
    """Numbers that were logged at a step.

    Attributes:
        step: An int64.
        time: Unix seconds, or None where the source does not say.
        metrics: Values by full metric name; at least one.
        ranks: Statistics across ranks by metric name.
        rank: Which rank logged it, from 0.
    """

    step: int
    time: float | None
    metrics: dict[str, Number]
    ranks: dict[str, dict[str, Number]] | None = None
    rank: int = 0


@dataclass(slots=True)
class Medium:
    """Something else that was logged at a step: one of `value`, `data`, `path` and `reference`.

    Attributes:
        name: As a metric's name.
        kind: One of `MEDIA_KINDS`, or another word.
        step: An int64.
        time: Unix seconds, or None where the source does not say.
        value: A small thing itself: a text, `{"edges": […], "counts": […]}`, JSON.
        data: The content of a file.
        path: A file to copy.
        media_type: Such as `image/png`.
        rank: Which rank logged it, from 0.
        reference: Where it is outside the run.
        dims: Names of the dimensions of an array.
        entry: Path of the file in a folder that is one artifact.
    """

    name: str
    kind: str
    step: int
    time: float | None
    value: Any = None
    data: bytes | None = None
    path: Path | None = None
    media_type: str | None = None
    rank: int = 0
    reference: Mapping[str, Any] | None = None
    dims: Sequence[str] | None = None
    entry: str | None = None


@dataclass(slots=True)
class Restart:
    """The training went back: earlier points at `step` or later are superseded."""

    step: int


@dataclass(slots=True)
class Description:
    """Unit and description of a metric."""

    metric: str
    unit: str | None = None
    description: str | None = None


Item: TypeAlias = Point | Points | Medium | Restart | Description


def one_by_one(items: Iterable[Item]) -> Iterator[Point | Medium | Restart | Description]:
    """Yield items with every point on its own."""
    for item in items:
        if isinstance(item, Points):
            for step, time, metrics in item.records():
                yield Point(step, time, metrics, rank=item.rank)
        else:
            yield item


@dataclass(slots=True)
class ForeignRun:
    """A run of another system.

    Attributes:
        source: Where it comes from, for people: a path, or a URI without credentials.
        key: What tells it from other runs of the same source; empty if there is one.
        fingerprint: Hexadecimal digest; another one when the source has changed.
        name: Any text that is not empty.
        items: Yields what was logged, anew at each call; enters what cannot be read into the
            ledger instead of raising.
        tags: Any texts.
        config: Hyper-parameters, a tree of what `config.json` can hold.
        status: How it ended; None where the source does not say, and then it is `interrupted`.
        start: Unix seconds; None for the time of the first item.
        end: Unix seconds; None for the time of the last item.
        exception: `type`, `message` and `traceback` of a run that failed.
        environment: What the source says about machine and software.
        lineage: Such as `{"parent": id}`, ids of 32 hexadecimal digits.
        extra: What the format has no field for; kept under `extensions` in the manifest.
        files: The files of the source, for `--keep-source`.
    """

    source: str
    key: str
    fingerprint: str
    name: str
    items: Callable[[Ledger], Iterator[Item]]
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    status: Status | None = None
    start: float | None = None
    end: float | None = None
    exception: dict[str, str] | None = None
    environment: dict[str, Any] = field(default_factory=dict)
    lineage: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Remark:
    """Something that did not come over as it was.

    Attributes:
        effect: `lost`: there and left out; `changed`: there and altered; `unreadable`: damaged in
            the source; `made`: not in the source, and made up, such as a missing time.
        kind: What it was.
        what: One sentence: what became of it, and why.
        declared: Whether the converter is known for it; an undeclared loss is a fault.
        where: The first place: a file and an offset, a metric's name.
    """

    effect: Literal["lost", "changed", "unreadable", "made"]
    kind: Kind
    what: str
    declared: bool
    where: str = ""


class Ledger:
    """Counts what did not come over as it was.

    Attributes:
        counts: How often each remark was made; the place is that of the first.
        greatest: The greatest absolute change of a number, by remark.
        refused: Whether there is more to read another time.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self.refused = False
        self.counts: Counter[Remark] = Counter()
        self.greatest: dict[Remark, float] = {}
        self._first: dict[tuple[str, str, str], Remark] = {}

    def lost(
        self, kind: Kind, what: str, count: int = 1, *, where: str = "", declared: bool = True
    ) -> None:
        """Enter that something has no home in the target.

        Args:
            kind: What it was.
            what: One sentence that is the same for all of its kind: why it was left out.
            count: How many.
            where: A place, for the first of them.
            declared: Whether this converter is known to lose it.
        """
        self._enter("lost", kind, what, count, where, declared=declared)

    def changed(
        self, kind: Kind, what: str, count: int = 1, *, where: str = "", by: float = 0.0
    ) -> None:
        """Enter that something was altered; `by` is the absolute change of a number."""
        remark = self._enter("changed", kind, what, count, where, declared=True)
        self.greatest[remark] = max(by, self.greatest.get(remark, 0.0))

    def made(self, kind: Kind, what: str, count: int = 1, *, where: str = "") -> None:
        """Enter that something was made up that the source does not hold."""
        self._enter("made", kind, what, count, where, declared=True)

    def unreadable(self, kind: Kind, what: str, count: int = 1, *, where: str) -> None:
        """Enter that a part of the source is damaged or not understood."""
        self._enter("unreadable", kind, what, count, where, declared=True)

    def refuse(self, kind: Kind, error: OSError, *, where: str) -> None:
        """Enter that the file system does not show a part of the source, for good or this time."""
        refused = is_refusal(error)
        what = f"the system refuses: {error.strerror or error}"
        self._enter("unreadable", kind, what, 1, where, declared=not refused)
        self.refused |= refused

    def _enter(
        self,
        effect: Literal["lost", "changed", "unreadable", "made"],
        kind: Kind,
        what: str,
        count: int,
        where: str,
        *,
        declared: bool,
    ) -> Remark:
        """Count a remark."""
        remark = self._first.setdefault(
            (effect, kind, what), Remark(effect, kind, what, declared, where)
        )
        if count:
            self.counts[remark] += count
        return remark

    def total(self, effect: str, kind: Kind) -> int:
        """Return how many of a kind met with an effect."""
        return sum(
            count
            for remark, count in self.counts.items()
            if remark.effect == effect and remark.kind == kind
        )


def count_as(kind: str) -> Kind:
    """Return as what a medium counts: one of a kind that the format has not is an artifact."""
    return cast("Kind", kind) if kind in MEDIA_KINDS else "artifact"


def is_plain(path: Path) -> bool:
    """Tell whether there is a regular file, and no link: what `open_plain` opens."""
    return path.is_file() and not path.is_symlink()


_PLAINLY: Final = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)


def open_plain(path: Path) -> BufferedReader:
    """Open a regular file of a source for reading.

    A pipe in its place would be waited for, a device never ends, and a link may lead anywhere.

    Raises:
        OSError: If it cannot be opened, or is something else.
    """
    descriptor = os.open(path, os.O_RDONLY | _PLAINLY)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise OSError(errno.EINVAL, "it is no regular file", str(path))


def fingerprint(files: Iterable[Path], *more: str) -> str:
    """Return a digest of the content of files, of links where they lead, and of further texts.

    Raises:
        OSError: If a file cannot be read.
    """
    found = hashlib.sha256()
    for text in more:
        found.update(text.encode("utf-8", "surrogatepass") + b"\0")
    for path in files:
        if path.is_symlink():
            found.update(os.fsencode(path.readlink()) + b"\0")
            continue
        with open_plain(path) as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()


def flatten(tree: Mapping[str, Any], joint: str = ".") -> dict[str, Any]:
    """Return the leaves of a configuration by path, for systems that have no trees.

    >>> flatten({"a": {"b": 1}, "c": [1, 2]})
    {'a.b': 1, 'c': [1, 2]}
    """
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat |= {f"{key}{joint}{rest}": leaf for rest, leaf in flatten(value, joint).items()}
        else:
            flat[str(key)] = value
    return flat
