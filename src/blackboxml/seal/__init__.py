"""Sealing: journals to Parquet, HDF5 and checksums, in bounded memory, safe to kill at any instant.

Strategy: the journals are read once, and the rows of each group are put by in a scratch file. Each
table and dataset is then written under a scratch name, made durable, opened again and compared with
what was put by, value for value, and only then renamed. The checksums come next and the manifest
that lists them last, so that a kill leaves the old state or the new one. Nothing of the journal is
changed; `pack` drops it, after comparing again, and `seal` makes it again.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

from blackboxml import manifest as manifests
from blackboxml.base import naming
from blackboxml.base.files import Directory, write_all
from blackboxml.errors import (
    BlackboxError,
    Findings,
    Problem,
    SealError,
)
from blackboxml.journal.merge import journal_sizes
from blackboxml.journal.scan import Scan
from blackboxml.manifest.status import determine, refuse_live
from blackboxml.model import LIMITS, MANIFEST, SCRATCH, Limits, Rewind
from blackboxml.seal.sums import fits, has_sums, is_unchanged, list_files, write_manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pyarrow as pa

    from blackboxml.journal.table import GroupSchema, Key, Part, Tabulator
    from blackboxml.manifest import Manifest
    from blackboxml.media.series import Series
    from blackboxml.model import JournalFile
    from blackboxml.seal.sealed import GroupFiles
    from blackboxml.seal.stretch import Stretches

_ROW_GROUP_ROWS: Final = 131_072
_ROW_GROUP_BYTES: Final = 2**25
_TINY_BYTES: Final = 2**16


@dataclass(slots=True)
class SealReport:
    """What sealing did.

    Attributes:
        changed: False where the run was sealed already and nothing had to be done.
        rows: Rows by group.
        problems: Damage that was found in the journals; the good records are sealed.
    """

    changed: bool
    rows: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def seal(
    path: str | os.PathLike[str],
    *,
    progress: Callable[[float], None] | None = None,
    limits: Limits = LIMITS,
    force: bool = False,
    known: Stretches | None = None,
) -> SealReport:
    """Write tables, datasets and checksums of a run that has ended; of a packed run, the rest.

    A run that was killed becomes `interrupted`. Sealing again does nothing.

    Args:
        path: The run directory.
        progress: Called with the share of the work that is done.
        limits: What a reader accepts.
        force: Take it for granted that the run has ended, where nothing proves it.
        known: What who wrote the run knows of its journals.

    Raises:
        NotARunError: If there is no run at `path`.
        RunIsLiveError: If its writer is alive, or may be.
        SealError: If what was written does not read back the same, or a sealed journal is damaged.
        OSError: If the file system refuses; the run is as it was.
    """
    with Directory(path) as directory, directory.claimed():
        return seal_claimed(directory, progress, limits, force=force, known=known)


def seal_claimed(
    directory: Directory,
    progress: Callable[[float], None] | None,
    limits: Limits,
    *,
    force: bool = False,
    known: Stretches | None = None,
) -> SealReport:
    """Seal a run that nobody else is at; see `seal`."""
    problems = Findings()
    manifest, journals = manifests.open_history(directory, limits, problems)
    if known is None:  # else it is its writer, who has ended it, that seals it
        refuse_live(directory, determine(directory, manifest, journals, limits=limits), force=force)
    remove_scratch(directory)
    if manifest.get("sealed", {}).get("packed"):
        from blackboxml.seal.pack import unpack

        return unpack(directory, manifest, progress, limits)
    if _is_sealed(directory, manifest, journals):
        rows = {name: group["rows"] for name, group in manifest["groups"].items()}
        return SealReport(changed=False, rows=rows)
    sealing = Sealing(directory, manifest, journals, limits, progress, known=known)
    sealing.run(problems)
    return SealReport(
        changed=True,
        rows={group.name: group.rows for group in sealing.groups.values()},
        problems=problems,
    )


class Sealing:
    """One sealing of one run.

    Attributes:
        groups: What each group's table holds.
        scans: The journals that were read, with their events.
    """

    def __init__(
        self,
        directory: Directory,
        manifest: Manifest,
        journals: list[JournalFile],
        limits: Limits,
        progress: Callable[[float], None] | None,
        *,
        known: Stretches | None = None,
    ) -> None:
        """Prepare; `run` does the work."""
        self._known = known
        self.groups: dict[str, GroupSchema] = {}
        self.scans: list[Scan] = []
        self._directory = directory
        self._manifest = manifest
        self._journals = journals
        self._sizes = journal_sizes(directory) | {each.name: each.size for each in journals}
        self._limits = limits
        self._progress = progress or _ignore
        self._identity = {key: manifest[key] for key in ("id", "name")}
        self._problems: list[Problem] = Findings()
        self._found: list[Series] | None = None

    def run(self, problems: list[Problem]) -> None:
        """Seal: tables, datasets, manifest, checksums."""
        with scratch_folder(self._directory) as scratch:
            entries = self._write(scratch, problems)
        self._directory.sync()
        self._publish(entries)
        self._progress(1.0)

    def compare(self, scratch: str, problems: list[Problem]) -> None:
        """Compare the tables that are there with the journals, value for value.

        Raises:
            SealError: If a value differs.
        """
        with Spill(self._directory, f"{scratch}/rows") as spill:
            self.read(spill, problems)
            listed = self._manifest["groups"]
            self._require_groups()
            for name, group in self.groups.items():
                stem = listed[name]["table"].removesuffix(".parquet")
                self._compare_table(stem, group, spill)

    def _require_groups(self) -> None:
        """Refuse tables of other groups than the journals have.

        Raises:
            SealError: Naming them.
        """
        listed = self._manifest["groups"]
        if set(listed) != set(self.groups):
            message = f"the tables of {self._directory.path} are of other groups: {list(listed)}"
            raise SealError(message)

    def _compare_table(self, stem: str, group: GroupSchema, spill: Spill) -> None:
        """Compare one table that is there with the journals."""
        import pyarrow as pa

        try:
            self._files("", stem, group).compare(spill, dataset=False)
        except pa.ArrowInvalid as error:
            message = (
                f"{self._directory.path / stem}.parquet is damaged: {error}; "
                f"`blackbox repair {self._directory.path} -o NEW` makes it again from the journals"
            )
            raise SealError(message) from None

    def unpack(self, scratch: str, problems: list[Problem]) -> None:
        """Check journals that were made again against the tables, and make the datasets again.

        Raises:
            SealError: If a value differs.
        """
        groups = self._manifest["groups"]
        with Spill(self._directory, f"{scratch}/rows") as spill:
            self.read(spill, problems)
            self._require_groups()
            for name, group in self.groups.items():
                stem = groups[name]["table"].removesuffix(".parquet")
                self._files("", stem, group).compare(spill, dataset=False)
                files = self._files(scratch, stem, group, self._series(name))
                files.write(spill)
                files.compare(spill)
                groups[name] = files.entry()
                if "dataset" in groups[name]:
                    dataset = groups[name]["dataset"]
                    self._directory.rename(f"{scratch}/{dataset}", dataset)
        self._directory.sync()
        self.keep_exact()
        self._publish(groups)
        self._progress(1.0)

    def _write(self, scratch: str, problems: list[Problem]) -> dict[str, Any]:
        """Write all tables and datasets, compare and rename them; return the groups' entries."""
        entries: dict[str, Any] = {}
        with Spill(self._directory, f"{scratch}/rows") as spill:
            self.read(spill, problems)
            stems = naming.file_stems(self.groups)
            for place, (name, group) in enumerate(self.groups.items()):
                entries[name] = self._write_group(scratch, stems[name], group, spill)
                self._progress(0.5 + 0.5 * (place + 1) / len(self.groups))
            for entry in entries.values():
                for name in entry_files(entry):
                    self._directory.rename(f"{scratch}/{name}", name)
        self.keep_exact()
        return entries

    def read(self, spill: Spill, problems: list[Problem]) -> None:
        """Read the journals; put the rows by."""
        self._problems = problems
        total = sum(journal.size for journal in self._journals) or 1
        done = 0
        names: set[str] = set()
        tabulator: Tabulator | None = None
        for journal in self._journals:
            scan = Scan(journal, names, problems, self._limits)
            self.scans.append(scan)
            if journal.size < _TINY_BYTES and not _has_points(scan, self._directory):
                continue
            if tabulator is None:
                from blackboxml.journal.table import Tabulator

                tabulator = Tabulator()
            given = scan, self._directory
            known = self._known
            for part in known.parts(tabulator, *given) if known else tabulator.parts(*given):
                group = self.groups.get(part.group)
                if group is None:
                    group = self.groups[part.group] = tabulator.group(part.group)
                group.add(part)
                spill.append(part)
                self._progress(0.5 * min(1.0, (done + scan.offset) / total))
            done += journal.size

    def keep_exact(self) -> None:
        """Keep as events the points with an integer that their column rounds."""
        rounded = set().union(*(group.inexact for group in self.groups.values()))
        if not rounded:
            return
        for scan in self.scans:
            again = Scan(scan.journal, set(scan.names), Findings(), self._limits, rounded)
            for block in again.blocks(self._directory):
                again.read(block)
            scan.events = again.events

    def _publish(self, groups: dict[str, Any]) -> None:
        """Replace the checksums and the manifest by what was sealed."""
        manifest = self._manifest
        stale = {
            name for entry in manifest.get("groups", {}).values() for name in entry_files(entry)
        }
        own = {name for entry in groups.values() for name in entry_files(entry)}
        self._settle_attempts()
        manifest["sealed"] = {"time": manifests.timestamp(time.time()), "packed": False}
        manifest["groups"] = groups
        manifest["journals"] = journal_entries(self.scans)
        manifest["files"] = list_files(self._directory, stale - own)
        if not fits(manifest, self._limits):
            for entry in manifest["journals"]:  # the journals hold them too
                del entry["events"]
        if not fits(manifest, self._limits):
            message = (
                f"{self._directory.path} has too many metrics for a manifest of "
                f"{self._limits.manifest_bytes:,} bytes; it stays as it was"
            )
            raise SealError(message)
        now = self._refuse_changed()
        if gone := self._sizes.keys() - now.keys():
            message = f"{self._directory.path / min(gone)} is gone: somebody else packs the run"
            raise SealError(message)
        write_manifest(self._directory, manifest)
        try:
            self._refuse_changed()
        except SealError:
            manifests.unseal(manifest)
            self._directory.replace(MANIFEST, manifests.next_generation(manifest))
            raise

    def _refuse_changed(self) -> dict[str, int]:
        """Refuse to say that a run is sealed that somebody went on with; return the sizes now.

        Raises:
            SealError: If there are other journals than were read, or a larger one.
        """
        now = journal_sizes(self._directory)
        for name, size in now.items():
            if size > self._sizes.get(name, 0):
                message = (
                    f"{self._directory.path / name} was written while the run was sealed; it is "
                    "not sealed. Seal it again when all that write it have ended"
                )
                raise SealError(message)
        return now

    def _settle_attempts(self) -> None:
        """Say how each attempt began and ended whose writer could not say it in the manifest."""
        manifest = self._manifest
        rank = min((scan.journal.rank for scan in self.scans), default=0)
        entries = {entry["attempt"]: entry for entry in manifest["attempts"]}
        sessions: dict[int, list[Scan]] = {attempt: [] for attempt in entries}
        for scan in self.scans:
            if scan.journal.rank == rank:
                sessions.setdefault(scan.journal.attempt, []).append(scan)
        for attempt, session in sessions.items():
            headers = [scan.journal.header for scan in session if scan.journal.header]
            if attempt not in entries:
                entry = entries[attempt] = {"attempt": attempt, "start": manifest["start"]}
                if headers:
                    entry["start"] = manifests.timestamp(headers[0].time)
                    entry["process"] = headers[0].process
            manifests.complete(entries[attempt], manifest["start"])
            times = [header.time for header in headers[-1:]]
            times += [scan.last_time for scan in session if scan.records]
            self._settle(entries[attempt], session, times)
        manifest["attempts"] = [entries[attempt] for attempt in sorted(entries)]
        ended = {"status": "interrupted", "end": manifest["start"]}
        self._take_end(entries[max(entries)] if entries else ended)

    def _settle(self, entry: Manifest, session: list[Scan], times: list[float]) -> None:
        """Enter how an attempt ended: what its journals prove, else when they broke off."""
        ends = [event for scan in session for event in scan.events if "end" in event]
        known = entry.get("status", "running")
        if known != "running" and (not ends or ends[-1]["end"]["status"] == known):
            return
        entry.pop("exception", None)
        entry["status"] = "interrupted"
        entry["end"] = manifests.timestamp(times[-1]) if times else entry["start"]
        if ends:
            said = ends[-1]["end"]
            entry |= {key: said[key] for key in ("status", "exception") if key in said}
            entry["end"] = manifests.timestamp(ends[-1]["time"])

    def _take_end(self, entry: Manifest) -> None:
        """Let the run end as its last attempt did."""
        manifest = self._manifest
        end = entry.get("end", manifest["start"])
        if (manifest["status"], manifest.get("end")) == (entry["status"], end):
            return
        manifest.pop("exception", None)
        manifest["status"] = entry["status"]
        manifest["end"] = end
        if "exception" in entry:
            manifest["exception"] = entry["exception"]
        lasted = manifests.seconds(manifest["end"]) - manifests.seconds(manifest["start"])
        manifest["duration_seconds"] = round(max(0.0, lasted), 6)

    def _write_group(
        self, scratch: str, stem: str, group: GroupSchema, spill: Spill
    ) -> dict[str, Any]:
        """Write, sync and compare the files of one group; return the group's entry."""
        files = self._files(scratch, stem, group, self._series(group.name))
        files.write(spill)
        files.compare(spill)
        return files.entry()

    def _series(self, group: str) -> list[Series]:
        """Return the arrays and histograms of a group; the media are looked at once."""
        if self._found is None:
            from blackboxml.media.series import find_series

            given = self._directory, self._identity["id"]
            self._found = find_series(*given, limits=self._limits, problems=self._problems)
        return [each for each in self._found if each.group == group]

    def _files(
        self, folder: str, stem: str, group: GroupSchema, series: Sequence[Series] = ()
    ) -> GroupFiles:
        """Return the files of one group in a folder of the run."""
        from blackboxml.seal.sealed import GroupFiles

        rewinds = [rewind for scan in self.scans for rewind in scan.rewinds]
        said = described(self.scans)
        place = str(self._directory.path / folder)
        return GroupFiles(group, self._identity, rewinds, said, place, stem, series)


class Spill:
    """A scratch file that keeps the parts of all groups until their tables are written."""

    def __init__(self, directory: Directory, name: str) -> None:
        """Create the file."""
        self._fd = directory.create(name)
        self._end = 0
        self._places: dict[str, list[tuple[tuple[Key, ...], pa.Schema, int, int]]] = {}

    def append(self, part: Part) -> None:
        """Put a part by."""
        data = part.batch.serialize()
        write_all(self._fd, data)
        places = self._places.setdefault(part.group, [])
        schema = part.batch.schema
        if places and places[-1][1].equals(schema):
            schema = places[-1][1]
        places.append((part.keys, schema, self._end, data.size))
        self._end += data.size

    def tables(self, group: GroupSchema, schema: pa.Schema) -> Iterator[pa.Table]:
        """Yield the rows of a group with the columns of its table, a row group at a time."""
        import pyarrow as pa

        from blackboxml.journal.table import Part

        rows = max(1024, min(_ROW_GROUP_ROWS, _ROW_GROUP_BYTES // (8 * len(schema))))
        waiting: list[pa.RecordBatch] = []
        count = 0
        for keys, batch_schema, offset, size in self._places.get(group.name, []):
            data = os.pread(self._fd, size, offset)
            batch = pa.ipc.read_record_batch(pa.py_buffer(data), batch_schema)
            start = 0
            while start < batch.num_rows:  # a whole batch may be too much, as wide as the table
                piece = batch.slice(start, rows - count)
                waiting.append(group.conform(Part(group.name, keys, piece), schema))
                start += piece.num_rows
                count += piece.num_rows
                if count == rows:
                    yield pa.Table.from_batches(waiting, schema).combine_chunks()
                    waiting, count = [], 0
        if count:
            yield pa.Table.from_batches(waiting, schema).combine_chunks()

    def __enter__(self) -> Self:
        """Return the spill."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file; whoever made the scratch folder removes it."""
        os.close(self._fd)


def journal_entries(scans: list[Scan]) -> list[dict[str, Any]]:
    """Return what the manifest says of each journal: enough to make it again from the tables."""
    entries: dict[str, dict[str, Any]] = {}
    places = {scan.journal.name: (scan.journal.rank, scan.journal.ordinal) for scan in scans}
    for scan in scans:
        journal = scan.journal
        entry = entries.get(journal.name)
        if entry is None:
            entry = entries[journal.name] = {
                "file": journal.name,
                "rank": journal.rank,
                "attempt": journal.attempt,
                "first_seq": journal.first_seq,
                "records": 0,
            }
            if journal.header is not None:
                entry |= {"time": journal.header.time, "process": journal.header.process}
            entry["events"] = []
        entry["records"] += scan.records
        entry["events"] += scan.events
    return sorted(entries.values(), key=lambda entry: places[entry["file"]])


def entry_files(entry: dict[str, Any]) -> list[str]:
    """Return the files of a group that the manifest names."""
    return [entry[kind] for kind in ("table", "dataset") if kind in entry]


def remove_scratch(directory: Directory) -> None:
    """Remove what a writer or a seal left that was killed; nobody must be writing the run."""
    for name in directory.scratch():
        with contextlib.suppress(OSError):
            directory.remove(name)


@contextlib.contextmanager
def scratch_folder(directory: Directory) -> Iterator[str]:
    """Make a folder for unfinished files, and remove it in the end."""
    name = f"{SCRATCH}seal-{secrets.token_hex(4)}"
    os.mkdir(name, 0o700, dir_fd=directory.fd)
    try:
        yield name
    finally:
        with contextlib.suppress(OSError):
            directory.remove(name)


def described(scans: list[Scan]) -> dict[str, dict[str, str]]:
    """Return unit and description by metric; what was said later wins."""
    found: dict[str, dict[str, str]] = {}
    for scan in scans:
        for event in scan.events:
            said = event.get("describe")
            if isinstance(said, dict) and isinstance(said.get("metric"), str):
                texts = {
                    key: said[key]
                    for key in ("unit", "description")
                    if isinstance(said.get(key), str)
                }
                found.setdefault(said["metric"], {}).update(texts)
    return found


def rewinds_of(manifest: Manifest) -> list[Rewind]:
    """Return the rewinds that a sealed manifest lists."""
    return [
        Rewind(entry["rank"], entry["attempt"], event["seq"], event["rewind"]["step"])
        for entry in manifest.get("journals", [])
        for event in entry.get("events", ())
        if "rewind" in event
    ]


def _is_sealed(directory: Directory, manifest: Manifest, journals: list[JournalFile]) -> bool:
    """Tell whether nothing needs to be done.

    Raises:
        SealError: If a sealed journal has changed: it must not replace good tables.
    """
    if "sealed" not in manifest:
        return False
    found = {journal.name for journal in journals}
    listed = [entry["file"] for entry in manifest["journals"]]
    files = manifest["files"]
    for name in listed:
        if name not in found or not is_unchanged(directory, name, files):
            message = (
                f"{directory.path / name} is not what it was when the run was sealed; "
                f"its tables are kept. See `blackbox validate {directory.path}`"
            )
            raise SealError(message)
    if not found.issubset(listed) or not all("sha256" in entry for entry in files.values()):
        return False
    try:
        if not all(is_unchanged(directory, name, files) for name in files):
            return False
        return has_sums(directory, manifest)
    except (OSError, BlackboxError):
        return False


def _has_points(scan: Scan, directory: Directory) -> bool:
    """Tell whether a small journal has points; if not, it is read with that, without pyarrow."""
    with directory.reading(scan.journal.name) as descriptor:
        data = os.pread(descriptor, scan.journal.size, 0)
    if b'"metrics"' in data:
        return True
    for block in scan.blocks(directory):
        scan.read(block)
    return False


def _ignore(share: float) -> None:
    """Report progress to nobody."""
