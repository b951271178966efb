"""RunReader: the only code that answers questions about a run, live, crashed, sealed or packed.

Strategy: the journals are the truth, and tables are taken in their place only while the manifest
that lists them still fits what lies in the directory. All tables come out of one Arrow table a
group, whatever it was read from, so that every kind of run and every library gives the same answer.
"""

from __future__ import annotations

import logging
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blackboxml import manifest as manifests
from blackboxml import published
from blackboxml.base.files import Directory, is_refusal
from blackboxml.base.settled import settled
from blackboxml.config import decode_config
from blackboxml.errors import Findings, FormatError, Problem, TableError, UnsafePathError
from blackboxml.journal import check_format, parse, read_record
from blackboxml.journal.merge import Cuts
from blackboxml.journal.scan import Scan
from blackboxml.manifest.status import Verdict, Watch, determine
from blackboxml.model import (
    CONFIG,
    CONFIG_FORMAT,
    LIMITS,
    MANIFEST,
    Limits,
    MediaRecord,
    Record,
    Rewind,
    Summary,
    View,
)
from blackboxml.reader.encoding import state_of, tables_are_better

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    import pandas as pd
    import pyarrow as pa
    import xarray as xr

    from blackboxml.manifest import Manifest
    from blackboxml.model import ReaderStatus
    from blackboxml.reader.decoded import Decoded

logger = logging.getLogger("blackboxml")

Snapshot = tuple[tuple[str, int], ...]


def open_run(path: str | os.PathLike[str], limits: Limits = LIMITS) -> RunReader:
    """Open a run for reading; nothing in its directory is ever changed.

    Args:
        path: A run directory, or its `run.json`.
        limits: What to accept from a file before refusing to go on.

    Raises:
        NotARunError: If there is no run at `path`.
        ManifestError: If `run.json` is damaged and there is no journal to rebuild it from.
        UnsupportedVersionError: If the run needs a newer version of this library.

    >>> import tempfile
    >>> from blackboxml import Run, open_run
    >>> with Run("demo", log_dir=tempfile.mkdtemp()) as run:
    ...     run.log({"train/loss": 0.5})
    >>> open_run(run.path).polars("train")["loss"].to_list()
    [0.5]
    """
    place = Path(path)
    return RunReader(place.parent if place.name == MANIFEST else place, limits)


class RunReader:
    """One run. Make one with `open_run`.

    What it says follows the files: a live run grows between two calls.

    Attributes:
        path: The run directory.
        problems: What is wrong with the run, as far as it was read.
    """

    def __init__(self, path: Path, limits: Limits = LIMITS) -> None:
        """Open the directory; `open_run` says what may be raised."""
        self.path = path
        self.problems: list[Problem] = Findings()
        self._limits = limits
        self._directory = Directory(path)
        self._watch = Watch()
        self._decoded: tuple[Snapshot, Decoded] | None = None
        self._state: tuple[Any, ...] | None = None
        self._refresh()
        self._note_newer()

    def __repr__(self) -> str:
        """Return name, status and place."""
        return f"<RunReader {self.name!r} {self.status} at {str(self.path)!r}>"

    # -- what the run is

    @property
    def manifest(self) -> Manifest:
        """What `run.json` says, or what the journals prove where it is missing or damaged."""
        return self._manifest

    @property
    def id(self) -> str:
        """32 hexadecimal digits."""
        return str(self._manifest["id"])

    @property
    def name(self) -> str:
        """The name as the user gave it; empty where that is lost."""
        return str(self._manifest.get("name", ""))

    @property
    def tags(self) -> list[str]:
        """The tags as the user gave them."""
        return list(self._manifest["tags"])

    @property
    @settled
    def verdict(self) -> Verdict:
        """The status, and how it is known."""
        return determine(self._directory, self._manifest, self._journals, self._watch, self._limits)

    @property
    def status(self) -> ReaderStatus:
        """`running`, `completed`, `failed`, `interrupted`, `crashed` or `stale`.

        `crashed` is proven: the process is gone and wrote no end. `stale` is a run on another
        machine whose journal did not change for two minutes while this reader watched.
        """
        self._refresh()
        return self.verdict.status

    @property
    def start(self) -> datetime:
        """When the run began, with its offset from UTC; 1970 where nothing tells that."""
        return manifests.begun(self._manifest)

    @property
    def end(self) -> datetime | None:
        """When the run ended, or None if that is not known."""
        end = self._manifest.get("end")
        return None if end is None else manifests.moment(end)

    @property
    def duration_seconds(self) -> float | None:
        """Seconds from start to end, or None while there is no end."""
        end = self.end if "start" in self._manifest else None
        return None if end is None else max(0.0, (end - self.start).total_seconds())

    @property
    def sealed(self) -> bool:
        """Whether tables are there that still fit the journals."""
        return self._tables_count()

    @property
    def packed(self) -> bool:
        """Whether the run is tables and manifests only."""
        return bool(self._manifest.get("sealed", {}).get("packed", False))

    @property
    def config(self) -> dict[str, Any]:
        """The hyper-parameters; empty where there are none or the file is damaged."""
        try:
            document = parse(self._directory.read(CONFIG, self._limits.config_bytes))
            check_format(document, CONFIG_FORMAT)
            return decode_config(document["config"])
        except FileNotFoundError:
            return {}
        except (FormatError, UnsafePathError, KeyError, TypeError, ValueError) as error:
            self._report("BB-CFG-001", f"{CONFIG} is damaged: {error}", CONFIG)
            return {}

    @property
    @settled
    def groups(self) -> list[str]:
        """The metric groups in first-seen order; `""` is the group of metrics without a prefix."""
        self._refresh()
        if self._tables_count():
            return list(self._manifest["groups"])
        return list(self._decode().schemas)

    @property
    @settled
    def metrics(self) -> list[str]:
        """The full names of all metrics, group by group in first-seen order."""
        self._refresh()
        if self._tables_count():
            return [
                name for group in self._manifest["groups"].values() for name in group["metrics"]
            ]
        schemas = self._decode().schemas.values()
        return list(dict.fromkeys(metric for schema in schemas for metric, _ in schema.keys))

    @property
    @settled
    def descriptions(self) -> dict[str, dict[str, str]]:
        """`unit` and `description` of each metric that has one of them."""
        from blackboxml.seal import described

        self._refresh()
        if not self._tables_count():
            return {name: said for name, said in described(self._decode().scans).items() if said}
        groups = self._manifest["groups"].values()
        metrics = {name: said for group in groups for name, said in group["metrics"].items()}
        keys = ("unit", "description")
        found = {name: {k: said[k] for k in keys if k in said} for name, said in metrics.items()}
        return {name: said for name, said in found.items() if said}

    # -- what was logged

    def records(self, view: View = "effective") -> Iterator[Record]:
        """Yield the points of the run in merge order: attempt, rank, `seq`.

        Args:
            view: `effective` leaves out points that a rewind superseded, `all` does not.

        Raises:
            ValueError: If there is no such view.
            TableError: If a table of a packed run is damaged.
        """
        _check_view(view)
        self._refresh()
        if self._tables_count() and (
            self.packed or tables_are_better(self._directory, self._manifest)
        ):
            return self._table_records(view)
        return self._journal_records(view)

    def _journal_records(self, view: View) -> Iterator[Record]:
        """Yield the points that the journals hold; should they be packed away, those of tables."""
        last = (-1, -1, -1)
        try:
            cuts = Cuts(self._rewinds() if view == "effective" else [])
            names: set[str] = set()
            for journal in self._journals:
                scan = Scan(journal, names, self.problems, self._limits)
                for block in scan.blocks(self._directory):
                    for record in scan.read(block):
                        if not cuts.supersede(record):
                            yield record
                            last = (record.attempt, record.rank, record.seq)
        except FileNotFoundError:
            rest = self.records(view)
            yield from (each for each in rest if (each.attempt, each.rank, each.seq) > last)

    def media(self, view: View = "effective") -> Iterator[MediaRecord]:
        """Yield what was logged besides numbers, in merge order: texts, images, files.

        Args:
            view: `effective` leaves out what a rewind superseded, `all` does not.

        Raises:
            ValueError: If there is no such view.
        """
        from blackboxml.media import read_media

        _check_view(view)
        yield from read_media(self._directory, self.id, view, self._limits, self.problems)

    def load(self, record: MediaRecord) -> bytes:
        """Return the content of the file of a medium.

        Raises:
            ValueError: If the medium has a value and no file.
            FormatError: If the file is missing, or not the one that was recorded.
            OSError: If the file system refuses to show it.
        """
        from blackboxml.media import load_file

        return load_file(self._directory, record, self._limits.media_bytes)

    @settled
    def arrow(
        self,
        group: str | None = None,
        view: View = "effective",
        columns: Sequence[str] | None = None,
    ) -> pa.Table:
        """Return a group as an Arrow table.

        Its columns are `step`, `time`, `attempt`, `rank`, `seq`, then one a metric by its name
        without the group; null where the metric was not logged.

        Args:
            group: The group; None where the run has only one.
            view: `effective` leaves out points that a rewind superseded, `all` does not.
            columns: Names of the columns that are wanted, None for all.

        Raises:
            KeyError: If there is no such group or column.
            TableError: If a table of a packed run is damaged.
            LimitError: If the table is larger than the limits accept.
        """
        _check_view(view)
        self._refresh()
        name = self._group(group)
        rewinds = self._rewinds() if view == "effective" else []
        wanted = None if columns is None else list(columns)
        if rewinds and wanted is not None:
            wanted += [
                column for column in ("step", "rank", "attempt", "seq") if column not in wanted
            ]
        if self._tables_count():
            table = self._read_table(name, wanted)
        else:
            table = self._decode().table(name, self._identity())
            if wanted is not None:
                self._require(table, wanted)
                table = table.select(wanted)
        if rewinds:
            from blackboxml.seal.sealed import effective_rows

            table = effective_rows(table, rewinds)
        return table if columns is None else table.select(list(columns))

    def pieces(self, group: str | None = None, view: View = "effective") -> Iterator[pa.Table]:
        """Yield what `arrow` returns piece by piece; a sealed group then takes little memory."""
        _check_view(view)
        self._refresh()
        yield from self._pieces(view, self._group(group))

    def polars(
        self, group: str | None = None, view: View = "effective", *, lazy: bool = False
    ) -> Any:
        """Return a group as a polars DataFrame, or as a LazyFrame; columns as in `arrow`.

        A LazyFrame of a sealed group reads only the columns that a query asks for.
        """
        import polars as pl

        if lazy:
            from blackboxml.seal.sealed import is_sound

            self._refresh()
            name = self._group(group)
            if self._tables_count() and not self._superseded(name, view):
                table = self._manifest["groups"][name]["table"]
                if is_sound(self._directory, table, self._limits):
                    return pl.scan_parquet(self.path / table)
            return pl.from_arrow(self.arrow(group, view)).lazy()  # type: ignore[union-attr]
        return pl.from_arrow(self.arrow(group, view))

    def pandas(self, group: str | None = None, view: View = "effective") -> pd.DataFrame:
        """Return a group as a pandas DataFrame; columns as in `arrow`.

        A column of integers or bools with gaps has pandas' nullable type, so that nothing is
        rounded.
        """
        import pandas as pd

        nullable = {"int64": pd.Int64Dtype(), "bool": pd.BooleanDtype()}
        table = self.arrow(group, view)
        frame: pd.DataFrame = table.to_pandas(integer_object_nulls=True)
        for column in table.column_names:
            kind = nullable.get(str(table.schema.field(column).type))
            if kind is not None and table.column(column).null_count:
                frame[column] = frame[column].astype(kind)
        return frame

    def xarray(self, group: str | None = None, view: View = "effective") -> xr.Dataset:
        """Return a group as an xarray Dataset along `draw`, like the sealed `<group>.h5`.

        `step`, `time`, `rank` and `attempt` are coordinates. A metric that was not logged is NaN.
        Arrays and histograms of one name that fit together have variables too.
        """
        from blackboxml.media.series import find_series
        from blackboxml.reader.arrays import to_dataset

        table, name = self.arrow(group, view), self._group(group)
        given = self._directory, self.id, view, self._limits, self.problems
        series = find_series(*given, group=name)
        return to_dataset(table, self.descriptions, self._identity(), name, series)

    @settled
    def summary(self, view: View = "effective") -> dict[str, Summary]:
        """Return the statistics of every metric that has values.

        Minimum, maximum, mean and population standard deviation are over the finite values; `last`
        is the value at the greatest step, of equal steps the one that was logged last.
        """
        from blackboxml.reader.arrays import summarise

        _check_view(view)
        self._refresh()
        return summarise(self._pieces(view, None))

    @settled
    def follow(
        self, *, from_start: bool = False, poll: float = 0.5, timeout: float | None = None
    ) -> Iterator[Record]:
        """Yield points as a live run logs them, until it ends; each comes once.

        Args:
            from_start: Begin with the points that are there at this call; otherwise with those
                that come after it.
            poll: Seconds between two looks at the files.
            timeout: Seconds without a new point after which to stop, None for never.
        """
        from blackboxml.reader.following import Follower, follow

        self._refresh()
        if self.packed:
            return self.records("all") if from_start else iter(())
        follower = Follower(self._directory, self.id, self._limits, self.problems)
        if not from_start:
            follower.skip()
        return follow(follower, self._stands, poll, timeout)

    def _stands(self) -> tuple[bool, Iterator[Record] | None]:
        """Tell whether the run has ended, and all its records if only its tables have them."""
        over = self.status not in {"running", "stale"}
        return over, self._table_records("all") if self.packed else None

    # -- how

    def _note_newer(self) -> None:
        """Report documents of a minor version that came after this library."""
        headers = {each.name: each.header.document for each in self._journals if each.header}
        for file, document in {MANIFEST: self._manifest, **headers}.items():
            version = document.get("format", {}).get("version")
            if isinstance(version, str) and published.is_newer(version):
                message = f"it is of version {version}, newer than {published.newest()}"
                where = "/format/version"
                self.problems.append(Problem("BB-VER-003", "warning", message, file, pointer=where))

    def _refresh(self) -> None:
        """Look at the files again, if there is anything new."""
        state = state_of(self._directory)
        if state == self._state:
            return
        self._manifest, self._journals = manifests.open_proven(
            self._directory, self._limits, self.problems
        )
        self._state = state

    def _tables_count(self) -> bool:  # noqa: PLR0911 - one return for each reason
        """Tell whether tables may be taken in place of the journals."""
        if "sealed" not in self._manifest:
            return False
        entries = {entry["file"]: entry for entry in self._manifest["journals"]}
        files = self._manifest["files"]
        if any(journal.name not in entries for journal in self._journals):
            return False
        if self.packed:
            return True
        if any("events" not in entry for entry in entries.values()):
            return False
        tables = [group["table"] for group in self._manifest["groups"].values()]
        listed = {name: said.get("bytes") for name, said in files.items()}
        if any(listed.get(name) != self._directory.size(name) for name in tables):
            return False
        for journal in self._journals:
            size = listed.get(journal.name)
            if not isinstance(size, int) or journal.size > size:
                return False
            if journal.size < size:
                message = (
                    f"{size - journal.size:,} bytes are gone since sealing; the tables have them"
                )
                self._report("BB-INT-009", message, journal.name)
        return True

    def _group(self, group: str | None) -> str:
        """Return the group that is meant."""
        groups = self.groups
        if group is None:
            if len(groups) == 1:
                return groups[0]
            message = f"{self.path} has the groups {groups}; say which one"
            raise KeyError(message)
        if group not in groups:
            message = f"{self.path} has no group {group!r}; it has {groups}"
            raise KeyError(message)
        return group

    def _pieces(self, view: View, group: str | None) -> Iterator[pa.Table]:
        """Yield the rows of a group piece by piece; of all groups if it is None."""
        from blackboxml.seal.sealed import effective_rows

        rewinds = self._rewinds() if view == "effective" else []
        if self._tables_count():
            names = list(self._manifest["groups"]) if group is None else [group]
            pieces: Iterator[pa.Table] = chain.from_iterable(map(self._sealed_pieces, names))
        else:
            pieces = self._decode().pieces(self._identity(), group)
        for piece in pieces:
            yield effective_rows(piece, rewinds)

    def _sealed_pieces(self, group: str) -> Iterator[pa.Table]:
        """Yield a sealed table piece by piece; what is damaged comes from the journals."""
        from blackboxml.seal.sealed import iterate_table

        said = self._manifest["groups"][group]
        file, given = said["table"], (self._limits, said["metrics"], self.problems)
        done = 0
        try:
            for piece in iterate_table(self._directory, file, *given):
                yield piece
                done += len(piece)
        except (TableError, UnsafePathError, OSError) as error:
            self._take_journals(group, file, error)
        else:
            return
        for piece in self._decode().pieces(self._identity(), group):
            yield piece.slice(done)
            done = max(0, done - len(piece))

    def _read_table(self, group: str, columns: list[str] | None) -> pa.Table:
        """Return a sealed table, or the same from the journals if it is damaged."""
        from blackboxml.seal.sealed import read_table

        said = self._manifest["groups"][group]
        name, listed, directory = said["table"], said["metrics"], self._directory
        try:
            table = read_table(directory, name, self._limits, columns, listed, self.problems)
        except (TableError, UnsafePathError, OSError) as error:
            self._take_journals(group, name, error)
            table = self._decode().table(group, self._identity())
        if columns is not None:
            self._require(table, columns)
            table = table.select(columns)
        return table

    def _take_journals(self, group: str, name: str, error: Exception) -> None:
        """Report a damaged table that the journals stand in for; raise the error if they cannot."""
        if self.packed or group not in self._decode().schemas:
            raise error
        message = f"{error}; the journal is read instead"
        if is_refusal(error):  # which breaks no rule
            logger.warning("%s: %s", self.path, message)
        else:
            self._report(getattr(error, "rule", "BB-LAY-009"), message, name)

    def _require(self, table: pa.Table, columns: list[str]) -> None:
        """Refuse columns that a table does not have."""
        missing = [column for column in columns if column not in table.column_names]
        if missing:
            message = f"no column {missing[0]!r}; there are {table.column_names}"
            raise KeyError(message)

    def _decode(self) -> Decoded:
        """Return all groups as the journals hold them; read once for each state of the files."""
        from blackboxml.reader.decoded import decode_journals

        snapshot = tuple((each.name, each.size) for each in self._journals)
        if self._decoded is None or self._decoded[0] != snapshot:
            journals = self._journals
            found = decode_journals(self._directory, journals, self.problems, self._limits)
            self._decoded = (snapshot, found)
        return self._decoded[1]

    def _rewinds(self) -> list[Rewind]:
        """Return all rewinds of the run."""
        if self._tables_count():
            from blackboxml.seal import rewinds_of

            return rewinds_of(self._manifest)
        return [rewind for scan in self._decode().scans for rewind in scan.rewinds]

    def _superseded(self, group: str, view: View) -> bool:
        """Tell whether a sealed table has rows that the view leaves out."""
        return view == "effective" and bool(self._manifest["groups"][group]["superseded"])

    def _table_records(self, view: View) -> Iterator[Record]:
        """Yield the points that tables and events hold."""
        from blackboxml.seal.pack import merged_records

        cuts = Cuts(self._rewinds() if view == "effective" else [])
        merged = merged_records(self._directory, self._manifest, self._limits)
        for (attempt, rank, _), event in merged:
            if "metrics" in event:
                record = read_record(event, rank, attempt, self._limits)
                if not cuts.supersede(record):
                    yield record

    def _identity(self) -> dict[str, str]:
        """Return what a table says of its run."""
        return {"id": self.id, "name": self.name}

    def _report(self, rule: str, message: str, file: str) -> None:
        """Keep a finding once."""
        self.problems.append(Problem(rule, "error", message, file))


def _check_view(view: str) -> None:
    """Refuse a view that there is not."""
    if view not in {"effective", "all"}:
        message = f'view is {view!r}, wanted "effective" or "all"'
        raise ValueError(message)
