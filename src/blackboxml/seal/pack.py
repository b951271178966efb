"""Packing: a sealed run as tables and manifests only, and back."""

from __future__ import annotations

import contextlib
import heapq
import os
from typing import TYPE_CHECKING, Any

from blackboxml import manifest as manifests
from blackboxml.base.files import Directory, write_all
from blackboxml.base.scalar import spell
from blackboxml.errors import Findings, SealError
from blackboxml.journal import encode, new_header
from blackboxml.model import LIMITS, Limits
from blackboxml.seal import (
    Sealing,
    SealReport,
    journal_entries,
    remove_scratch,
    scratch_folder,
    seal_claimed,
)
from blackboxml.seal.sums import fits, write_manifest, write_sums

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from blackboxml.journal.scan import Event
    from blackboxml.manifest import Manifest

Place = tuple[int, int, int]
"""Attempt, rank and `seq` of a record: its place in merge order."""

_FLUSH_BYTES = 2**20


def pack(
    path: str | os.PathLike[str],
    *,
    progress: Callable[[float], None] | None = None,
    limits: Limits = LIMITS,
    force: bool = False,
) -> SealReport:
    """Seal a run, compare every value of its tables with the journals, and drop the journals.

    `seal` makes journals and datasets again. Packing again does nothing.

    Args:
        path: The run directory.
        progress: Called with the share of the work that is done, from 0 to 1.
        limits: What a reader accepts.
        force: Take it for granted that the run has ended, where nothing proves it.

    Raises:
        NotARunError: If there is no run at `path`.
        RunIsLiveError: If its writer is alive, or may be.
        SealError: If a journal is damaged or the tables do not hold all of it; nothing is dropped.
        OSError: If the file system refuses.
    """
    with Directory(path) as directory, directory.claimed():
        manifest, _ = manifests.open_history(directory, limits)
        if not manifest.get("sealed", {}).get("packed"):
            seal_claimed(directory, progress, limits, force=force)
            manifest = _pack(directory, limits)
            if not manifests.read(directory, limits).get("sealed", {}).get("packed"):
                message = f"{path} was sealed by somebody else meanwhile; it is not packed"
                raise SealError(message)
            changed = True
        else:
            remove_scratch(directory)
            changed = False
            write_sums(directory, manifest)
        # A pack that was killed may have left files that the manifest no longer counts.
        for entry in manifest["journals"]:
            directory.remove(entry["file"])
        for name in directory.names():
            if name.endswith(".h5") and name.removesuffix(".h5") in _stems(manifest):
                directory.remove(name)
        directory.sync()
        rows = {name: group["rows"] for name, group in manifest["groups"].items()}
        return SealReport(changed=changed, rows=rows)


def unpack(
    directory: Directory,
    manifest: Manifest,
    progress: Callable[[float], None] | None,
    limits: Limits,
) -> SealReport:
    """Make the journals and the datasets of a packed run again.

    Args:
        directory: The run.
        manifest: Its manifest.
        progress: Called with the share of the work that is done, from 0 to 1.
        limits: What a reader accepts.

    Raises:
        SealError: If what was made does not read back the same; the run stays packed.
        TableError: If a table is damaged.
    """
    with scratch_folder(directory) as scratch:
        _write_journals(directory, manifest, scratch, limits)
        for entry in manifest["journals"]:
            directory.rename(f"{scratch}/{entry['file']}", entry["file"])
        directory.sync()
        problems = Findings()
        _, journals = manifests.open_history(directory, limits, problems)
        sealing = Sealing(directory, manifest, journals, limits, progress)
        sealing.unpack(scratch, problems)
    rows = {name: group["rows"] for name, group in manifest["groups"].items()}
    return SealReport(changed=True, rows=rows, problems=problems)


def merged_records(
    directory: Directory, manifest: Manifest, limits: Limits = LIMITS
) -> Iterator[tuple[Place, Event]]:
    """Yield every record of a packed run in merge order, joined from its tables and events.

    A number has the type of its column.

    Raises:
        TableError: If a table is missing or damaged.
    """
    from blackboxml.journal.table import INDEX, read_keys
    from blackboxml.seal.sealed import iterate_table

    def rows(group: dict[str, Any]) -> Iterator[tuple[Place, Event]]:
        for table in iterate_table(directory, group["table"], limits, group["metrics"]):
            keys = read_keys(table.schema)
            columns = [column.to_pylist() for column in table.columns]
            index = dict(zip(INDEX, columns[: len(INDEX)], strict=True))
            values = columns[len(INDEX) :]
            for at in range(table.num_rows):
                place = (index["attempt"][at], index["rank"][at], index["seq"][at])
                yield (
                    place,
                    {
                        "seq": place[2],
                        "step": index["step"][at],
                        "time": index["time"][at],
                        **_members(keys, [column[at] for column in values]),
                    },
                )

    sources = [rows(group) for group in manifest["groups"].values()]
    pending: tuple[Place, Event] | None = None
    events = {
        (entry["attempt"], entry["rank"], event["seq"]): event
        for entry in manifest["journals"]
        for event in entry["events"]
    }
    sources.append(iter(sorted(events.items())))
    for place, record in heapq.merge(*sources, key=lambda item: item[0]):
        whole = events.get(place, record)
        if pending is not None and pending[0] == place:
            if place not in events:
                pending[1]["metrics"].update(record["metrics"])
                if "ranks" in record:
                    pending[1].setdefault("ranks", {}).update(record["ranks"])
            continue
        if pending is not None:
            yield pending
        pending = (place, whole)
    if pending is not None:
        yield pending


def _pack(directory: Directory, limits: Limits) -> Manifest:
    """Compare journals and tables, then let the manifest count on the tables alone."""
    problems = Findings()
    manifest, journals = manifests.open_history(directory, limits, problems)
    sealing = Sealing(directory, manifest, journals, limits, None)
    with scratch_folder(directory) as scratch:
        sealing.compare(scratch, problems)
    if problems:
        message = (
            f"{directory.path} has damage ({problems[0]}); its journals are kept, as packing "
            "would lose what can still be told from them"
        )
        raise SealError(message)
    if stated := [each.name for each in journals if each.header and each.header.losses]:
        message = (
            f"{directory.path} lacks what {stated[0]} states as lost since a repair; its journals "
            "are kept, as tables cannot say so"
        )
        raise SealError(message)
    if any("events" not in entry for entry in manifest["journals"]):
        sealing.keep_exact()
        manifest["journals"] = journal_entries(sealing.scans)
    manifest["sealed"]["packed"] = True
    dropped = {entry["file"] for entry in manifest["journals"]}
    for group in manifest["groups"].values():
        dropped.add(group.pop("dataset", None))
        for said in group["metrics"].values():
            said.pop("variable", None)
    for name in dropped:
        manifest["files"].pop(name, None)
    if not fits(manifest, limits):
        message = f"{directory.path} has too many events for a manifest; its journals are kept"
        raise SealError(message)
    write_manifest(directory, manifest)
    return manifest


def _write_journals(directory: Directory, manifest: Manifest, scratch: str, limits: Limits) -> None:
    """Write each journal anew under a scratch name."""
    with contextlib.ExitStack() as stack:
        sinks: dict[str, _Sink] = {}
        for entry in manifest["journals"]:
            sink = sinks[entry["file"]] = _Sink(directory.create(f"{scratch}/{entry['file']}"))
            stack.callback(sink.close)
            session = entry["attempt"], entry["rank"]
            time = entry.get("time", manifests.seconds(manifest["start"]))
            process = entry.get("process", {"host": "unknown", "pid": 0})
            header = new_header(manifest, session, entry["first_seq"], time, process)
            sink.write(encode(header))
        for (attempt, rank, seq), record in merged_records(directory, manifest, limits):
            sinks[_journal_of(manifest, attempt, rank, seq)].write(encode(record))
        for sink in sinks.values():
            sink.sync()


class _Sink:
    """A journal that is made again: lines are gathered before they are written."""

    def __init__(self, descriptor: int) -> None:
        """Take over a new file."""
        self._fd = descriptor
        self._lines: list[bytes] = []
        self._size = 0

    def write(self, line: bytes) -> None:
        """Add a line."""
        self._lines.append(line)
        self._size += len(line)
        if self._size > _FLUSH_BYTES:
            self._flush()

    def sync(self) -> None:
        """Make all lines durable."""
        self._flush()
        os.fsync(self._fd)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _flush(self) -> None:
        """Hand the lines to the kernel."""
        write_all(self._fd, b"".join(self._lines))
        self._lines, self._size = [], 0


def _journal_of(manifest: Manifest, attempt: int, rank: int, seq: int) -> str:
    """Return the journal to which a record belongs: the last that begins at or before it."""
    found = ""
    best = -1
    for entry in manifest["journals"]:
        fits = (entry["attempt"], entry["rank"]) == (attempt, rank)
        if fits and best <= entry["first_seq"] <= seq:
            found, best = entry["file"], entry["first_seq"]
    if not found:
        message = f"no journal begins at or before record {seq} of rank {rank}, attempt {attempt}"
        raise SealError(message)
    return str(found)


def _members(keys: list[tuple[str, str | None]], values: list[Any]) -> Event:
    """Return the cells of a row as members of a record."""
    metrics: dict[str, Any] = {}
    ranks: dict[str, dict[str, Any]] = {}
    for (metric, statistic), value in zip(keys, values, strict=True):
        if value is None:
            continue
        if statistic is None:
            metrics[metric] = spell(value)
        else:
            ranks.setdefault(metric, {})[statistic] = spell(value)
    return {"metrics": metrics} | ({"ranks": ranks} if ranks else {})


def _stems(manifest: Manifest) -> set[str]:
    """Return the file stems of the groups."""
    return {entry["table"].removesuffix(".parquet") for entry in manifest["groups"].values()}
