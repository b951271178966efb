"""A foreign run becomes a run directory: with its own times, whole or not at all, and only once."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from blackboxml import manifest as manifests
from blackboxml.base.files import Directory, is_refusal, raise_refusal
from blackboxml.base.naming import group_of
from blackboxml.collection import find_runs
from blackboxml.config import encode_config
from blackboxml.errors import BlackboxError, ConfigError, ConversionError, MetricError
from blackboxml.foreign.interchange import (
    Description,
    ForeignRun,
    Ledger,
    Medium,
    Point,
    Restart,
    count_as,
    flatten,
    one_by_one,
)
from blackboxml.journal.metric import Points
from blackboxml.model import CONFIG_FORMAT, SCRATCH, VERSION
from blackboxml.seal import seal
from blackboxml.version import __version__
from blackboxml.writer import RunWriter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blackboxml.foreign.interchange import Item, Kind
    from blackboxml.seal.stretch import Stretches

EXTENSION: Final = "org.blackboxml.source"
"""The member of `extensions` that says where an imported run comes from."""

_REFUSED: Final = "the format cannot hold it"
_NO_VALUE: Final = "no value of the step can be held"
_NO_TIME: Final = "the source gives no time; it is that of the item before, or of the start"


def identity(form: str, run: ForeignRun) -> str:
    """Return what tells a foreign run from all others: its format, its place, its key."""
    place = run.source if "://" in run.source else str(Path(run.source).absolute())
    text = f"{form}\x00{place}\x00{run.key}"
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class Imported(NamedTuple):
    """A run that was imported before.

    Attributes:
        path: Where it is.
        run_id: Its id, which it keeps when the source has changed.
        fingerprint: That of the source then.
    """

    path: Path
    run_id: str
    fingerprint: str


def imported(folder: Path) -> dict[str, Imported]:
    """Return the runs below a folder that were imported, by the identity of their source.

    Those that this user may not read are left out.

    Raises:
        ConversionError: If another one cannot be read: it might be imported twice.
    """
    found: dict[str, Imported] = {}
    for path in find_runs(folder):
        try:
            with Directory(path) as directory:
                manifest = manifests.read(directory)
            said = manifest["extensions"][EXTENSION]
            known = Imported(path, str(manifest["id"]), str(said["fingerprint"]))
            found[str(said["identity"])] = known
        except PermissionError:
            continue
        except (BlackboxError, OSError, KeyError, TypeError) as error:
            if is_refusal(error):
                message = f"{path} cannot be read, so it might be imported twice: {error}"
                raise ConversionError(message) from error
    return found


def import_run(
    form: str,
    run: ForeignRun,
    folder: Path,
    ledger: Ledger,
    *,
    keep_source: bool = False,
    earlier: Imported | None = None,
    run_id: str | None = None,
) -> tuple[Path, Counter[Kind]]:
    """Write a foreign run into a folder of runs, and seal it.

    It is written under a scratch name and renamed when it is whole.

    Args:
        form: Name of the format it comes from.
        run: The run.
        folder: Folder of runs; made if it is missing.
        ledger: Receives what was lost, changed, made up or unreadable.
        keep_source: Copy the files of the source into the run, below `artifacts/source`.
        earlier: The run of the same identity that it replaces, whose id it takes over.
        run_id: The id of a new run; made up by default.

    Returns:
        The path of the run, and what was found in the source, by kind.

    Raises:
        BlackboxError: If the run cannot be written or sealed.
        OSError: If the file system refuses, or the source cannot be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scratch = folder / f"{SCRATCH}import-{identity(form, run)}-{os.getpid()}"
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        path, came_in = _write(
            form,
            run,
            scratch,
            ledger,
            run_id=run_id if earlier is None else earlier.run_id,
            keep_source=keep_source,
        )
        return _settle(path, folder, None if earlier is None else earlier.path), came_in
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _write(
    form: str,
    run: ForeignRun,
    scratch: Path,
    ledger: Ledger,
    *,
    run_id: str | None,
    keep_source: bool,
) -> tuple[Path, Counter[Kind]]:
    """Write a run below a scratch folder and seal it."""
    from blackboxml.seal.stretch import Stretches

    items = run.items(ledger)
    first = next(items, None)
    start = run.start
    if start is None and isinstance(first, Points):
        start = float(first.times[0])
    elif start is None and isinstance(first, Point | Medium):
        start = first.time
    if start is None:
        start = min((file.stat().st_mtime for file in run.files), default=time.time())
        what = "the source does not say when the run began; it is when its files were last written"
        ledger.made("time", what)
    writer = RunWriter.create(
        scratch,
        _name(run.name, ledger),
        tags=run.tags,
        run_id=run_id,
        environment=run.environment,
        lineage=run.lineage,
        extensions=_extensions(form, run),
        start=start,
        sync="none",
        strict=True,
    )
    came_in: Counter[Kind] = Counter()
    came_in["tag"], came_in["field"] = len(run.tags), len(run.extra)
    came_in["config"] = _write_config(writer, run.config, ledger)
    with Stretches(scratch) as known:
        sink = _Sink(writer, known, ledger, start, came_in)
        try:
            for item in _chain(first, items):
                sink.take(item)
        except BaseException:
            writer.finish("interrupted")
            raise
        finally:
            sink.finish()
        came_in.update(_left_out(ledger))
        if ledger.refused:  # no source is like that, so the next conversion reads it again
            writer.manifest["extensions"][EXTENSION]["fingerprint"] = ""
        _end(run, writer, sink, keep_source=keep_source)
        seal(writer.path, known=known)
    return writer.path, came_in


def _end(run: ForeignRun, writer: RunWriter, sink: _Sink, *, keep_source: bool) -> None:
    """Keep the files of the source, and end the run as it ended, or at the last time known."""
    if keep_source:
        for file in run.files:
            writer.log_media(
                f"source/{file.name}"[:1000], "artifact", 0, path=file, folder="artifacts"
            )
    status = run.status
    if status is None or status == "running":
        status = "interrupted"
        sink.ledger.made("status", "the source does not say how the run ended; it is interrupted")
    else:
        sink.came_in["status"] = 1
    end = run.end
    if end is None:
        end = sink.last
        what = "the source does not say when the run ended; it is the last time known"
        sink.ledger.made("time", what)
    exception = run.exception if status == "failed" else None
    writer.finish(status, exception, max(end, sink.start))


class _Sink:
    """Hands items to a writer, and counts them."""

    def __init__(
        self,
        writer: RunWriter,
        known: Stretches,
        ledger: Ledger,
        start: float,
        came_in: Counter[Kind],
    ) -> None:
        self._writers = {0: writer}
        self._known = known
        self.ledger = ledger
        self.came_in = came_in
        self.start = self.last = start

    def take(self, item: Item) -> None:
        """Write one item."""
        match item:
            case Points():
                self._take_points(item)
            case Point():
                self._take_point(item)
            case Medium():
                self._take_medium(item)
            case Restart():
                for writer in self._writers.values():
                    writer.rewind(item.step)
            case Description():
                self.came_in["field"] += (item.unit is not None) + (item.description is not None)
                self._writers[0].describe(item.metric, unit=item.unit, description=item.description)

    def finish(self) -> None:
        """End the journals of the other ranks; that of rank 0 says how the run ended."""
        for rank, writer in self._writers.items():
            if rank:
                writer.finish()

    def _writer(self, rank: int) -> RunWriter:
        """Return the writer of a rank."""
        if rank not in self._writers:
            path = self._writers[0].path
            self._writers[rank] = RunWriter.join(path, rank, 0, sync="none", strict=True)
        return self._writers[rank]

    def _take_points(self, points: Points) -> None:
        """Write many points at once; one by one if they are few, or one cannot be stored."""
        if points.worth:
            with suppress(MetricError):
                stretch = self._writer(points.rank).log_points(points)
                if stretch is not None:
                    self._known.add(stretch, points)
                self._count(points)
                return
        for point in one_by_one([points]):
            self.take(point)

    def _count(self, points: Points) -> None:
        """Count points that were written."""
        for names, columns in zip(points.layouts, points.values, strict=True):
            self.came_in["scalar"] += len(names) * len(columns[0])
            self.came_in["step"] += len({group_of(name) for name in names}) * len(columns[0])
        self.came_in["time"] += len(points)
        self.last = float(points.times[-1])

    def _take_point(self, point: Point) -> None:
        count = len(point.metrics)
        self.came_in["scalar"] += count
        self.came_in["step"] += len({group_of(name) for name in point.metrics})
        when = self._time(point.time)
        try:
            self._writer(point.rank).log(point.metrics, point.step, point.ranks, when)
        except MetricError:
            self._take_values(point, when)

    def _take_values(self, point: Point, when: float) -> None:
        """Write those values of a point that can be stored."""
        kept = 0
        for name, value in point.metrics.items():
            ranks = {name: point.ranks[name]} if point.ranks and name in point.ranks else None
            try:
                self._writer(point.rank).log({name: value}, point.step, ranks, when)
                kept += 1
            except MetricError as error:
                self.ledger.lost(
                    "scalar",
                    _REFUSED,
                    where=f"{name} at step {point.step}: {error}",
                )
        if not kept:
            self.ledger.lost("step", _NO_VALUE, where=str(point.step))

    def _take_medium(self, medium: Medium) -> None:
        kind = count_as(medium.kind)
        self.came_in[kind] += 1
        try:
            self._writer(medium.rank).log_media(
                medium.name,
                medium.kind,
                medium.step,
                value=medium.value,
                data=medium.data,
                path=medium.path,
                reference=medium.reference,
                media_type=medium.media_type,
                dims=medium.dims,
                entry=medium.entry,
                folder="artifacts" if medium.kind == "artifact" else "media",
                time=self._time(medium.time),
            )
        except MetricError as error:
            if isinstance(error.__cause__, OSError):
                raise_refusal(error.__cause__)
            where = f"{medium.name} at step {medium.step}: {error}"
            self.ledger.lost(kind, _REFUSED, where=where)

    def _time(self, given: float | None) -> float:
        """Return the time of an item, in Unix seconds."""
        if given is None:
            self.ledger.made("time", _NO_TIME)
        else:
            self.came_in["time"] += 1
            self.last = given
        return self.last


def _left_out(ledger: Ledger) -> Counter[Kind]:
    """Return how many of each kind an importer itself left out: they were in the source as well."""
    found: Counter[Kind] = Counter()
    for remark, count in ledger.counts.items():
        if remark.effect == "lost" and remark.what not in (_REFUSED, _NO_VALUE):
            found[remark.kind] += count
    return found


def _chain(first: Item | None, rest: Iterator[Item]) -> Iterator[Item]:
    if first is not None:
        yield first
        yield from rest


def _name(name: str, ledger: Ledger) -> str:
    """Return a name that a run may have."""
    clean = re.sub("[\x00-\x1f\x7f-\x9f]", " ", name)
    clean = clean.encode(errors="replace")[:1024].decode(errors="ignore").strip() or "run"
    if clean != name:
        ledger.changed(
            "field", "the name of the run became one line of text", where=repr(name)[:80]
        )
    return clean


def _extensions(form: str, run: ForeignRun) -> dict[str, Any]:
    """Return what the manifest says of the source."""
    said: dict[str, Any] = {
        "format": form,
        "source": run.source,
        "identity": identity(form, run),
        "fingerprint": run.fingerprint,
        "converter": f"blackboxml {__version__}",
    }
    if run.key:
        said["key"] = run.key
    if run.extra:
        said["extra"] = run.extra
    return {EXTENSION: said}


def _write_config(writer: RunWriter, config: dict[str, Any], ledger: Ledger) -> int:
    """Write `config.json`; return the number of leaves."""
    if not config:
        return 0
    try:
        tree = encode_config(config)
    except ConfigError as error:
        tree = encode_config({str(key): repr(value) for key, value in config.items()})
        ledger.changed("config", "nested too deep; kept as text", where=str(error))
    document = {
        "format": {"name": CONFIG_FORMAT, "version": VERSION, "features": []},
        "config": tree,
    }
    writer.write_config(json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n")
    return len(flatten(config))


def _settle(path: Path, folder: Path, earlier: Path | None) -> Path:
    """Give a run that is whole its place in the folder, instead of an earlier one or beside it."""
    if earlier is not None:
        old = folder / f"{SCRATCH}old-{earlier.name}-{os.getpid()}"
        earlier.rename(old)
        path.rename(earlier)
        shutil.rmtree(old, ignore_errors=True)
        return earlier
    number = 1
    while True:
        place = folder / (path.name if number == 1 else f"{path.name}_{number}")
        number += 1
        try:
            place.mkdir()  # claims the name; an empty directory is what rename replaces
        except FileExistsError:
            continue
        path.rename(place)
        return place
