"""The nouns of the specification as plain data: no files, no frameworks, no arrays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from blackboxml import published

Number: TypeAlias = bool | int | float
"""A value of a metric: bool, int64 or float64."""

Status = Literal["running", "completed", "failed", "interrupted"]
"""What a writer says of its run."""

ReaderStatus = Literal["running", "completed", "failed", "interrupted", "crashed", "stale"]
"""What a reader says: a writer's word, or `crashed` (proven) and `stale` (silent, unknown)."""

View = Literal["effective", "all"]
"""`effective` leaves out points that a rewind superseded."""

VERSION: Final = published.VERSION
"""The version of the format that this library writes."""

FEATURES: Final[frozenset[str]] = frozenset()
"""The features this library understands; version 1.0 defines none."""

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1

RUN_FORMAT: Final = "blackbox-run"
JOURNAL_FORMAT: Final = "blackbox-journal"
MEDIA_FORMAT: Final = "blackbox-media"
CONFIG_FORMAT: Final = "blackbox-config"
TABLE_FORMAT: Final = "blackbox-table"
DATASET_FORMAT: Final = "blackbox-dataset"

STATISTICS: Final = ("mean", "min", "max", "std", "count")
"""Statistics across ranks, in the order of their columns."""

MANIFEST: Final = "run.json"
CONFIG: Final = "config.json"
SUMS: Final = "SHA256SUMS"
SCRATCH: Final = ".tmp-"
"""Names that begin so are scratch: readers ignore them, sealing removes them."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a reader accepts before it refuses to go on.

    Attributes:
        manifest_bytes: Size of `run.json`.
        config_bytes: Size of `config.json`.
        line_bytes: Length of a journal line, LF included.
        depth: Nesting of a JSON document.
        metrics_per_record: Members of `metrics` in one record.
        metric_names: Distinct metric names in a run.
        files: Files in a run.
        folders: Folders within folders of a run.
        table_bytes: Decoded size of one table: rows × columns × 8 bytes.
        media_bytes: Size of one file of a medium that is read into memory.
    """

    manifest_bytes: int = 16 * 2**20
    config_bytes: int = 16 * 2**20
    line_bytes: int = 2**20
    depth: int = 64
    metrics_per_record: int = 10_000
    metric_names: int = 100_000
    files: int = 1_000_000
    folders: int = 64
    table_bytes: int = 2 * 2**30
    media_bytes: int = 2 * 2**30


LIMITS: Final = Limits()
"""The limits of the specification."""


@dataclass(frozen=True, slots=True)
class Record:
    """One step of a run.

    Attributes:
        seq: Position in the journal of this rank and attempt, from 0.
        step: The caller's step, int64.
        time: Unix seconds, UTC.
        rank: Rank of the writer, from 0.
        attempt: Which start of the run wrote it, from 0.
        metrics: Values by full metric name.
        ranks: Statistics across ranks by full metric name, empty where none were logged.
    """

    seq: int
    step: int
    time: float
    rank: int
    attempt: int
    metrics: dict[str, Number]
    ranks: dict[str, dict[str, Number]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MediaRecord:
    """Something other than numbers that was logged at a step: a text, an image, a file.

    Attributes:
        seq: Position in the media journal of this rank and attempt, from 0.
        step: The caller's step, int64.
        time: Unix seconds, UTC.
        rank: Rank of the writer, from 0.
        attempt: Which start of the run wrote it, from 0.
        name: Its name, with its group as that of a metric.
        kind: `text`, `image`, `histogram`, …; one of a later version is given as it stands.
        value: The thing itself, None where it is in a file or outside the run.
        file: Path of its file inside the run, None where there is none.
        bytes: Size of the file, None where there is none.
        sha256: Digest of the file, None where it was not computed.
        media_type: Such as `image/png`, None where it was not said.
        reference: `uri` of what is outside the run, with `bytes` and `sha256` if they are known.
        dims: Names of the dimensions of an array, empty where they were not said.
        entry: Which file of a folder it is, None where it was logged by itself.
    """

    seq: int
    step: int
    time: float
    rank: int
    attempt: int
    name: str
    kind: str
    value: Any = None
    file: str | None = None
    bytes: int | None = None
    sha256: str | None = None
    media_type: str | None = None
    reference: dict[str, Any] | None = None
    dims: tuple[str, ...] = ()
    entry: str | None = None


@dataclass(frozen=True, slots=True)
class Rewind:
    """A restart from a checkpoint: earlier points at `step` or later do not count.

    Attributes:
        rank: The rank whose points are superseded.
        attempt: Attempt of the record that says so.
        seq: Its position; points before it in merge order are superseded.
        step: First superseded step.
    """

    rank: int
    attempt: int
    seq: int
    step: int


@dataclass(frozen=True, slots=True)
class Losses:
    """What the header of a journal states as lost since a repair.

    Attributes:
        lost: Ranges of `seq`, ascending: a record of theirs that no journal holds is gone.
        lost_from: From this `seq` on more may be gone; None where the end is there.
        partial: Ranges of `seq` whose records may lack values.
        damaged: Files of media records that are missing or damaged.
        assumed: Members of the header that nobody knows any more.
    """

    lost: tuple[tuple[int, int], ...] = ()
    lost_from: int | None = None
    partial: tuple[tuple[int, int], ...] = ()
    damaged: frozenset[str] = frozenset()
    assumed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Tell whether anything is lost."""
        return self != Losses()

    def covers(self, low: int, high: int) -> bool:
        """Tell whether all records of a range are stated as lost, as far as they are missing."""
        if self.lost_from is not None:
            high = min(high, self.lost_from - 1)
        place = low
        for first, last in self.lost:
            if first <= place <= last:
                place = last + 1
        return place > high


@dataclass(frozen=True, slots=True)
class Header:
    """The first line of a journal.

    Attributes:
        run_id: 32 lower-case hexadecimal digits.
        run_name: The run's name as the user gave it.
        rank: Rank of the writer.
        attempt: Which start of the run this is, from 0.
        first_seq: `seq` of the first record; above 0 in a continuation.
        time: Unix seconds at which the journal was opened.
        process: Identity of the writing process, for liveness.
        document: The header as it stands in the file, without `crc`.
    """

    run_id: str
    run_name: str
    rank: int
    attempt: int
    first_seq: int
    time: float
    process: dict[str, Any]
    document: dict[str, Any]

    @property
    def losses(self) -> Losses:
        """What a repair has stated as lost; what is not stated well is left out."""
        said = self.document.get("repaired")
        if not isinstance(said, dict):
            return Losses()
        since = said.get("lost_from")
        return Losses(
            _ranges(said.get("lost")),
            since if type(since) is int and since >= 0 else None,
            _ranges(said.get("partial")),
            frozenset(_texts(said.get("damaged"))),
            tuple(_texts(said.get("assumed"))),
        )


@dataclass(frozen=True, slots=True)
class Summary:
    """The statistics of one metric.

    Attributes:
        min: Least finite value, None if there is none.
        max: Greatest finite value.
        mean: Mean of the finite values, in float64.
        std: Their population standard deviation.
        last: Value at the greatest step; of equal steps the one that was logged last.
        n: Number of values, those that are not finite included.
        first_step: Least step.
        last_step: Greatest step.
        nonfinite: How many values are NaN or infinite.
    """

    min: Number | None
    max: Number | None
    mean: float | None
    std: float | None
    last: Number
    n: int
    first_step: int
    last_step: int
    nonfinite: int


class Mark(NamedTuple):
    """Where a record of a journal begins.

    Attributes:
        seq: Its `seq`.
        offset: Byte offset of its line.
        line: Number of its line, from 1.
    """

    seq: int
    offset: int
    line: int


@dataclass(frozen=True, slots=True)
class JournalFile:
    """A journal as it takes part in the merge.

    Attributes:
        name: File name.
        rank: Rank of its writer, by name.
        ordinal: Which journal of that rank it is, from 0.
        attempt: Its attempt: the header's, or derived from its neighbours if that is damaged.
        first_seq: `seq` that its first record must have.
        low: First `seq` that counts from this journal.
        high: Last `seq` that counts, or None where nothing bounds it.
        start: Byte offset of the first record.
        size: Bytes at the time of the listing.
        header: The header, or None if that line is damaged.
        mark: Where to begin with the records that count, None for the first one.
        stop: Byte offset behind them, None for the end.
    """

    name: str
    rank: int
    ordinal: int
    attempt: int
    first_seq: int
    low: int
    high: int | None
    start: int
    size: int
    header: Header | None
    mark: Mark | None = None
    stop: int | None = None


def _ranges(found: object) -> tuple[tuple[int, int], ...]:
    """Return the ranges of a list, sorted."""
    ranges = []
    for each in found if isinstance(found, list) else []:
        match each:
            case [int(first), int(last)] if 0 <= first <= last:
                ranges.append((first, last))
    return tuple(sorted(ranges))


def _texts(found: object) -> list[str]:
    """Return the texts of a list."""
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []
