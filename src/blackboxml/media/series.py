"""Series: the arrays or histograms of one name, as variables of their group's dataset.

Strategy: one pass over the media journals looks at every array file, its header and its digest, and
keeps for each medium its step, time, rank and attempt, and where its record stands. The values are
read later, one medium at a time. Media of one name that do not fit together are no series; they
stay in their files alone.
"""

from __future__ import annotations

import json
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from blackboxml.base import naming, npy
from blackboxml.base.files import raise_refusal
from blackboxml.errors import FormatError, Problem, UnsafePathError
from blackboxml.media import Place, load_file, locate_media, read_at
from blackboxml.media.medium import value_fault
from blackboxml.model import LIMITS, Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy.typing as npt

    from blackboxml.base.files import Directory
    from blackboxml.model import JournalFile, MediaRecord, View

KINDS: Final = frozenset(["array", "histogram"])
BINS: Final = ("bin", "bin_edge")
"""The dimensions of counts and of edges."""

MOST_BYTES: Final = 2**30
"""Decoded size beyond which a dataset takes no series."""

MOST_DIMENSIONS: Final = 31
TYPES: Final[tuple[np.dtype[Any], ...]] = tuple(
    np.dtype(each) for each in ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8")
)
"""Types of variables, the least first."""

_DOUBLE: Final = np.dtype(np.float64)
_WHOLE: Final = np.dtype(np.int64)
_LARGEST: Final = 8
_INDEX_BYTES: Final = 24


class Part(NamedTuple):
    """What becomes one variable.

    Attributes:
        suffix: What its name ends with: nothing, `counts` or `edges`.
        dtype: Type of its values; int8 for bools.
        shape: Lengths of the dimensions of one medium.
        dims: Their names, empty where they have none.
        is_bool: Whether its values are bools.
    """

    suffix: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    dims: tuple[str, ...]
    is_bool: bool = False


@dataclass(slots=True)
class Series:
    """The media of one name, in the order of the merge.

    Attributes:
        name: Their full name.
        kind: `array` or `histogram`.
        parts: The variables: one of an array, counts and edges of histograms.
        step: The step of each, int64.
        time: Unix seconds of each.
        rank: The rank of each.
        attempt: The attempt of each.
    """

    name: str
    kind: str
    parts: tuple[Part, ...]
    step: npt.NDArray[np.int64]
    time: npt.NDArray[np.float64]
    rank: npt.NDArray[np.int32]
    attempt: npt.NDArray[np.int32]
    _read: Callable[[int], MediaRecord]
    _load: Callable[[MediaRecord], bytes]

    def __len__(self) -> int:
        """Return the number of media."""
        return len(self.step)

    @property
    def group(self) -> str:
        """The group."""
        return naming.group_of(self.name)

    @property
    def bytes(self) -> int:
        """Decoded size, coordinates included."""
        own = sum(part.dtype.itemsize * int(np.prod(part.shape)) for part in self.parts)
        return len(self) * (own + _INDEX_BYTES)

    def read(self, at: int) -> tuple[npt.NDArray[Any], ...]:
        """Return the values of one medium, an array for each part.

        Raises:
            FormatError: If its file has changed since it was looked at.
        """
        record = self._read(at)
        if self.kind == "histogram":
            counts, edges = _histogram(record, self._load)
            found = [np.asarray(counts), np.asarray(edges)]
        else:
            found = [npy.read_array(self._load(record))]
        if tuple(each.shape for each in found) != tuple(part.shape for part in self.parts):
            message = f"the {self.kind} {self.name!r:.80} at step {record.step} has changed"
            raise FormatError(message)
        pairs = zip(found, self.parts, strict=True)
        return tuple(each.astype(part.dtype, copy=False) for each, part in pairs)


def find_series(
    directory: Directory,
    run_id: str,
    view: View = "effective",
    limits: Limits = LIMITS,
    problems: list[Problem] | None = None,
    *,
    group: str | None = None,
    verify: bool = True,
    damaged: set[str] | None = None,
) -> list[Series]:
    """Return the series of a run in the order of their first media.

    Args:
        directory: The run.
        run_id: Its id.
        view: `effective` leaves out what a rewind superseded.
        limits: What a reader accepts.
        problems: Receives what was found wrong with files of media.
        group: Only those of one group; None for all.
        verify: Compare files with their digests, and not only their sizes.
        damaged: Receives the names of media that lack a file.
    """
    found: dict[str, _Candidate] = {}
    for record, place in locate_media(directory, run_id, view, limits, []):
        if group is not None and naming.group_of(record.name) != group:
            continue
        candidate = found.get(record.name)
        if candidate is None:
            candidate = found[record.name] = _Candidate(directory, limits, verify)
        if candidate.fits:
            candidate.add(record, place)
            if candidate.damage and damaged is not None:
                damaged.add(record.name)
            if candidate.damage and problems is not None:
                message = f"{candidate.damage}; {record.name!r:.80} is left out of the dataset"
                problems.append(Problem("BB-MED-011", "error", message, record.file or ""))
    return [candidate.series(name) for name, candidate in found.items() if candidate.fits]


@dataclass(slots=True)
class _Candidate:
    """Media of one name while they are looked at.

    Attributes:
        fits: Whether they may become a series.
        damage: What is wrong with a file of them.
    """

    directory: Directory
    limits: Limits
    verify: bool
    fits: bool = True
    damage: str = ""
    kind: str = ""
    _shape: tuple[int, ...] = ()
    _dims: tuple[str, ...] = ()
    _dtypes: set[np.dtype[Any]] = field(default_factory=set)
    _step: array[int] = field(default_factory=lambda: array("q"))
    _time: array[float] = field(default_factory=lambda: array("d"))
    _journals: list[JournalFile] = field(default_factory=list)
    _places: array[int] = field(default_factory=lambda: array("q"))

    def add(self, record: MediaRecord, place: Place) -> None:
        """Look at the next medium.

        Raises:
            OSError: If the file system refuses to show its file.
        """
        first = not self._step
        if record.kind not in KINDS or (not first and record.kind != self.kind):
            self._drop()
            return
        self.kind = record.kind
        try:
            shape, dtype = self._look(record)
        except (FormatError, OSError, UnsafePathError) as error:
            raise_refusal(error)
            self.damage = str(error)
            self._drop()
            return
        except ValueError:
            self._drop()
            return
        if first:
            self._shape, self._dims = shape, record.dims
        if record.dims != self._dims:
            self._dims = ()
        self._dtypes.add(dtype)
        if shape != self._shape or (record.kind == "array" and join(self._dtypes) is None):
            self._drop()
            return
        if not self._journals or self._journals[-1] is not place.journal:
            self._journals.append(place.journal)
        self._step.append(record.step)
        self._time.append(record.time)
        self._places.extend((len(self._journals) - 1, place.offset, place.length))

    def _drop(self) -> None:
        """Forget what was kept: they are no series."""
        self.fits = False
        self._step, self._time, self._places = array("q"), array("d"), array("q")

    def _look(self, record: MediaRecord) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Return shape and type of a medium: of the counts, if it is a histogram.

        Raises:
            FormatError: If its file is not the one that was recorded.
            ValueError: If it cannot stand in a dataset.
        """
        if record.kind == "histogram":
            counts, _ = _histogram(record, self._load)
            whole = all(type(count) is int for count in counts)
            return (len(counts),), _WHOLE if whole else _DOUBLE
        if record.file is None:
            raise ValueError("it has no file")
        if self.verify:
            self._load(record)
        with self.directory.reading(record.file) as descriptor:
            header = npy.read_header(descriptor)
        size = header.offset + int(np.prod(header.shape, dtype=object)) * header.dtype.itemsize
        if size != record.bytes:
            raise FormatError(f"{record.file} has {size:,} bytes, not {record.bytes:,}")
        if header.dtype.kind == "c" or header.dtype.itemsize > _LARGEST:
            raise ValueError("it has numbers that a dataset has not")
        if 0 in header.shape or len(header.shape) > MOST_DIMENSIONS:
            raise ValueError("it has no element, or too many dimensions")
        return header.shape, header.dtype.newbyteorder("=")

    def _load(self, record: MediaRecord) -> bytes:
        """Return the content of a file."""
        return load_file(self.directory, record, self.limits.media_bytes)

    def _read(self, at: int) -> MediaRecord:
        """Return the record of a medium."""
        journal, offset, length = self._places[3 * at : 3 * at + 3]
        return read_at(self.directory, Place(self._journals[journal], offset, length))

    def series(self, name: str) -> Series:
        """Return what they are together."""
        if self.kind == "histogram":
            dtype = _DOUBLE if _DOUBLE in self._dtypes else _WHOLE
            parts: tuple[Part, ...] = (
                Part("counts", dtype, self._shape, BINS[:1]),
                Part("edges", _DOUBLE, (self._shape[0] + 1,), BINS[1:]),
            )
        else:
            dims = self._dims if len(self._dims) == len(self._shape) else ()
            is_bool = all(dtype.kind == "b" for dtype in self._dtypes)
            parts = (Part("", join(self._dtypes) or _DOUBLE, self._shape, dims, is_bool),)
        journals = self._places[::3]
        return Series(
            name,
            self.kind,
            parts,
            np.array(self._step, np.int64),
            np.array(self._time, np.float64),
            np.array([self._journals[at].rank for at in journals], np.int32),
            np.array([self._journals[at].attempt for at in journals], np.int32),
            self._read,
            self._load,
        )


def join(dtypes: Iterable[np.dtype[Any]]) -> np.dtype[Any] | None:
    """Return the least type that holds every value of some types, None if there is none."""
    found = list(dtypes)
    for dtype in TYPES:
        if all(_holds(dtype, each) for each in found):
            return dtype
    return None


def _holds(dtype: np.dtype[Any], other: np.dtype[Any]) -> bool:
    """Tell whether a type holds every value of another."""
    rounds = dtype.kind == "f" and other.kind in "iu" and other.itemsize == _LARGEST
    return np.can_cast(other, dtype, "safe") and not rounds


def decoded_size(rows: int, columns: int) -> int:
    """Return how many bytes the rows of a dataset decode to, at most."""
    return rows * (_INDEX_BYTES + 8 * columns)


def select(series: Iterable[Series], decoded: int, limit: int) -> list[Series]:
    """Return the series that a dataset takes: those with which it stays within a limit.

    Args:
        series: In the order of their first media.
        decoded: Bytes of the dataset without them.
        limit: Most bytes of the dataset.
    """
    taken = []
    for each in series:
        if decoded + each.bytes <= limit:
            decoded += each.bytes
            taken.append(each)
    return taken


def _histogram(
    record: MediaRecord, load: Callable[[MediaRecord], bytes]
) -> tuple[list[int | float], list[float]]:
    """Return counts and edges of a histogram.

    Raises:
        FormatError: If its file is not the one that was recorded.
        ValueError: If it is none.
    """
    value = record.value
    if record.file is not None:
        value = json.loads(load(record))
    if fault := value_fault("histogram", value):
        raise ValueError(fault)
    counts = [float(each) if isinstance(each, str) else each for each in value["counts"]]
    if not counts or any(isinstance(each, int) and abs(each) >= 2**63 for each in counts):
        raise ValueError("no counts, or greater ones than int64 holds")
    return counts, [float(each) for each in value["edges"]]
