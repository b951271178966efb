"""Runs as TensorBoard's event files.

    <log directory>/<run directory>/events.out.tfevents.<start>.<host>.<id>.blackbox
    <log directory>/<run directory>/rank_1/events.out.tfevents.<start>.<host>.<id>.blackbox

The files are written under other names and renamed when they are whole; that of rank 0 comes last.
The same run makes the same files.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

import numpy as np

from blackboxml.config import encode_config
from blackboxml.converters.tensorboard import scalars
from blackboxml.errors import FormatError
from blackboxml.foreign.interchange import count_as, flatten
from blackboxml.foreign.tensorboard import hparams, messages, summary
from blackboxml.foreign.tensorboard.messages import member
from blackboxml.foreign.tensorboard.records import frame
from blackboxml.foreign.values import declare, from_npy, to_npy
from blackboxml.model import SCRATCH

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import numpy.typing as npt
    import pyarrow as pa

    from blackboxml.foreign.interchange import Ledger
    from blackboxml.model import MediaRecord
    from blackboxml.reader import RunReader

_WINDOW: Final = 2**15  # records that are encoded together,
_CELLS: Final = 2**18  # if they have no more values
_RANK: Final = 2**32 - 1
_GRAPHS: Final = {"graph_def": messages.GRAPH, "meta_graph_def": messages.META_GRAPH}
_ROUNDED: Final = "TensorBoard reads float32; the exact value stands beside it, for this package"
_AS_TEXT: Final = "TensorBoard is shown a text; the thing itself stands beside it, for this package"
_NO_HOME: Final = "TensorBoard has no place for it"
_GONE: Final = "its file is missing or damaged"


def write(run: RunReader, target: Path, ledger: Ledger) -> Path:
    """Put a run into a folder of its own below a log directory, in place of what it left there.

    Args:
        run: The run; what a rewind superseded is left out.
        target: The log directory; made if it is missing.
        ledger: Receives what TensorBoard has no place for, and what it is shown otherwise.

    Returns:
        The folder.

    Raises:
        OSError: If the file system refuses.
    """
    folder = _folder(run, target)
    folder.mkdir(parents=True, exist_ok=True)
    host = re.sub(r"[^A-Za-z0-9-]", "_", str(run.manifest["environment"].get("hostname") or "host"))
    begun = max(0, int(run.start.timestamp()))
    name = f"events.out.tfevents.{begun:010}.{host[:64]}.{run.id}.blackbox"
    with ExitStack() as stack:
        files = _Files(folder, run, stack)
        _write_head(run, files.of(0), ledger)
        for rank, data in _points(run, ledger):
            files.of(rank).write(data)
        for rank, data in _media(run, ledger):
            files.of(rank).write(frame(data))
        if run.end is not None:
            end = run.end.timestamp()
            said = hparams.write_end(run.status, end)
            files.of(0).write(frame(messages.event(end, 0, messages.SUMMARY, said)))
        files.settle(name)
    return folder


def _folder(run: RunReader, target: Path) -> Path:
    """Return the folder of a run: named like the run's, if no other run has that."""
    folder = target / run.path.name
    others = (
        re.fullmatch(r"events\.out\.tfevents\..*\.([0-9a-f]{32})\.blackbox", path.name)
        for path in (folder.iterdir() if folder.is_dir() else ())
    )
    if any(other is not None and other[1] != run.id for other in others):
        return target / f"{run.path.name}-{run.id[:8]}"
    return folder


class _Files:
    """The event files of a run, one for each rank, under scratch names."""

    def __init__(self, folder: Path, run: RunReader, stack: ExitStack) -> None:
        self._folder = folder
        self._id = run.id
        self._start = run.start.timestamp()
        self._stack = stack
        self._files: dict[int, BinaryIO] = {}

    def of(self, rank: int) -> BinaryIO:
        """Return the file of a rank; a new one begins with what says of which version it is."""
        if rank not in self._files:
            folder = self._place(rank)
            folder.mkdir(exist_ok=True)
            path = folder / f"{SCRATCH}{self._id}-{os.getpid()}"
            self._stack.callback(path.unlink, missing_ok=True)
            self._files[rank] = self._stack.enter_context(path.open("wb"))
            begin = messages.event(self._start, 0, messages.FILE_VERSION, "brain.Event:2")
            self._files[rank].write(frame(begin + member(messages.SOURCE, member(1, "blackboxml"))))
        return self._files[rank]

    def _place(self, rank: int) -> Path:
        return self._folder / f"rank_{rank}" if rank else self._folder

    def settle(self, name: str) -> None:
        """Give the files their name, and remove what an earlier export of the run left."""
        for rank in sorted(self._files, reverse=True):
            file = self._files[rank]
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, self._place(rank) / name)
        kept = {self._place(rank) / name for rank in self._files}
        for path in (
            *self._folder.glob(f"*.{self._id}.blackbox"),
            *self._folder.glob(f"rank_*/*.{self._id}.blackbox"),
        ):
            if path not in kept:
                path.unlink()


def _write_head(run: RunReader, file: BinaryIO, ledger: Ledger) -> None:
    """Write what the run is: for TensorBoard its hyper-parameters, for this package all of it."""
    start = run.start.timestamp()
    manifest, status = run.manifest, run.status
    said = {
        "id": run.id,
        "name": run.name,
        "tags": run.tags,
        "config": encode_config(run.config),
        "status": status if status in {"completed", "failed"} else "interrupted",
        "start": start,
        "end": None if run.end is None else run.end.timestamp(),
        "exception": manifest.get("exception"),
        "environment": manifest["environment"],
        "lineage": manifest.get("lineage") or {},
        "extensions": manifest.get("extensions") or {},
        "descriptions": run.descriptions,
    }
    heads = (hparams.write_own(said), hparams.write_start(_shown(run, ledger), start))
    file.writelines(frame(messages.event(start, 0, messages.SUMMARY, head)) for head in heads)


def _shown(run: RunReader, ledger: Ledger) -> dict[str, float | str]:
    """Return the hyper-parameters as TensorBoard knows them: texts, bools and float64."""
    shown: dict[str, float | str] = {}
    for name, value in flatten(run.config).items():
        if isinstance(value, str | bool | float):
            shown[name] = value
        elif isinstance(value, int) and abs(value) <= 2**53:
            shown[name] = float(value)
        else:
            shown[name] = json.dumps(value, default=repr)
            what = "TensorBoard is shown a text; the value stands beside it, for this package"
            ledger.changed("config", what, where=name)
    return shown


# -- points


class _Rows:
    """Points of a group that lie side by side, as columns."""

    def __init__(self, table: pa.Table) -> None:
        self.rank, self.seq, self.step, self.time = (
            table.column(name).to_numpy() for name in ("rank", "seq", "step", "time")
        )
        attempt = table.column("attempt").to_numpy()
        self.session = attempt.astype(np.int64) << 32 | self.rank
        self.metrics: dict[str, pa.Array] = {}
        self.statistics = 0
        for place, about in enumerate(table.schema):
            metadata, column = about.metadata or {}, table.column(place)
            if b"blackbox.statistic" in metadata:
                self.statistics += len(column) - column.null_count
            elif b"blackbox.metric" in metadata:
                self.metrics[metadata[b"blackbox.metric"].decode()] = column.combine_chunks()


class _Cursor:
    """A group of which the points are taken in their order."""

    def __init__(self, pieces: Iterator[pa.Table], ledger: Ledger) -> None:
        self._pieces = pieces
        self._ledger = ledger
        self._rows: _Rows | None = None
        self._at = 0
        self.head: tuple[int, int] | None = None
        """Session and `seq` of the next point; None after the last."""
        self._move(0)

    def _move(self, at: int) -> None:
        self._at = at
        while self._rows is None or self._at >= len(self._rows.seq):
            piece = next(self._pieces, None)
            if piece is None:
                self.head = None
                return
            self._rows, self._at = _Rows(piece), 0
            if self._rows.statistics:
                what = "TensorBoard has no place for statistics across ranks"
                self._ledger.lost("field", what, self._rows.statistics)
        self.head = (int(self._rows.session[self._at]), int(self._rows.seq[self._at]))

    def take(self, session: int, below: int) -> Iterator[tuple[_Rows, slice]]:
        """Yield the points of a session whose `seq` is below a limit."""
        while self.head is not None and self.head[0] == session and self.head[1] < below:
            rows = cast("_Rows", self._rows)
            end = int(np.searchsorted(rows.session, session, side="right"))
            end = self._at + int(np.searchsorted(rows.seq[self._at : end], below))
            yield rows, slice(self._at, end)
            self._move(end)


def _points(run: RunReader, ledger: Ledger) -> Iterator[tuple[int, bytes]]:
    """Yield rank and records of the points, in merge order."""
    metadata = {
        name: messages.metadata("scalars", b"", said["description"])
        for name, said in run.descriptions.items()
        if said.get("description")
    }
    window = max(1, min(_WINDOW, _CELLS // max(1, len(run.metrics))))
    cursors = [_Cursor(run.pieces(name), ledger) for name in run.groups]
    while heads := [cursor.head for cursor in cursors if cursor.head is not None]:
        session, seq = min(heads)
        parts = [part for cursor in cursors for part in cursor.take(session, seq + window)]
        data = _window(parts, metadata, ledger)
        if data:
            yield session & _RANK, data


def _window(
    parts: list[tuple[_Rows, slice]], metadata: Mapping[str, bytes], ledger: Ledger
) -> bytes:
    """Return the records of some points of one rank; those of one `seq` make one record."""
    keys = np.unique(np.concatenate([rows.seq[part] for rows, part in parts]))
    steps, times = np.zeros(len(keys), np.int64), np.zeros(len(keys))
    filled = np.zeros(len(keys), bool)
    series: list[scalars.Series] = []
    for rows, part in parts:
        places = np.searchsorted(keys, rows.seq[part])
        steps[places], times[places] = rows.step[part], rows.time[part]
        logged = np.zeros(len(places), bool)
        for name, column in rows.metrics.items():
            piece = column.slice(part.start, part.stop - part.start)
            valid = piece.is_valid().to_numpy(zero_copy_only=False)
            if not valid.any():
                continue
            values = piece.drop_null().to_numpy(zero_copy_only=False)
            present = np.zeros(len(keys), bool)
            present[places[valid]] = True
            logged |= valid
            series.append(scalars.Series(name, present, values, metadata.get(name, b"")))
            _compare(values, ledger)
        filled[places] |= logged
        if not logged.all():
            what = "TensorBoard has no place for a point of statistics alone"
            ledger.lost("step", what, int((~logged).sum()))
    if not filled.all():
        series = [one._replace(present=one.present[filled]) for one in series]
    return scalars.encode(steps[filled], times[filled], series)


def _compare(values: npt.NDArray[Any], ledger: Ledger) -> None:
    """Enter how far float32 is from values."""
    if values.dtype.kind == "b":
        return
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = values.astype(np.float32).astype(np.float64)
        away = np.abs(rounded - values)
        if values.dtype.kind == "i":  # the difference of two float64 would round once more
            away = np.where(np.abs(rounded) < 2.0**63, away, 1.0)
            odd = rounded.astype(np.longdouble) != values.astype(np.longdouble)
        else:
            odd = (rounded != values) & ~np.isnan(values)
    if odd.any():
        ledger.changed("scalar", _ROUNDED, int(odd.sum()), by=float(away[odd].max()))


# -- media


def _media(run: RunReader, ledger: Ledger) -> Iterator[tuple[int, bytes]]:
    """Yield rank and event of each medium that TensorBoard has a place for."""

    def place(medium: MediaRecord) -> tuple[Any, ...]:
        return (medium.rank, medium.name, medium.step, medium.time, medium.kind)

    for (rank, name, step, time, kind), several in itertools.groupby(run.media(), place):
        images: list[bytes] = []
        for medium in several:
            if not declare(medium, ledger):
                continue
            try:
                data = None if medium.file is None else run.load(medium)
                if (
                    kind in {"image", "figure"}
                    and data is not None
                    and summary.size(data) is not None
                ):
                    images.append(data)
                    continue
                said = _event(medium, data, ledger)
            except FormatError as error:
                ledger.lost(count_as(kind), _GONE, where=f"{name} at step {step}: {error}")
                continue
            if said is None:
                ledger.lost(count_as(kind), _NO_HOME, where=f"{name} at step {step}")
            else:
                yield rank, messages.event(time, step, *said)
        if images:
            exact = None if kind == "image" else {"kind": kind}
            said = messages.SUMMARY, summary.of_images(name, images, exact)
            yield rank, messages.event(time, step, *said)


def _event(medium: MediaRecord, data: bytes | None, ledger: Ledger) -> tuple[int, bytes] | None:
    """Return member and content of the event that holds a medium; None if none can."""
    if data is None:
        return messages.SUMMARY, _value(medium, medium.value, ledger)
    if medium.name in _GRAPHS and medium.kind == "artifact":
        return _GRAPHS[medium.name], data
    if medium.kind == "audio" and medium.media_type == "audio/wav":
        said = summary.of_tensor(medium.name, messages.tensor([data], [1]), "audio", member(2, 11))
        return messages.SUMMARY, said
    if medium.kind == "array":
        return _array(medium.name, data)
    value = _parse(medium, data)
    return None if value is None else (messages.SUMMARY, _value(medium, value, ledger))


def _value(medium: MediaRecord, value: Any, ledger: Ledger) -> bytes:
    """Return a summary of JSON."""
    name, kind = medium.name, medium.kind
    if kind == "text" and isinstance(value, str):
        return summary.of_text(name, value)
    if kind == "histogram" and (rows := _triples(value)) is not None:
        plain = {"edges": [*rows[:, 0].tolist(), float(rows[-1, 1])], "counts": rows[:, 2].tolist()}
        same = json.dumps(plain, sort_keys=True) == json.dumps(value, sort_keys=True)
        exact = None if same else {"kind": kind, "value": value}
        tensor = messages.tensor(rows, rows.shape)
        return summary.of_tensor(name, tensor, "histograms", exact=exact)
    ledger.changed(count_as(kind), _AS_TEXT, where=f"{name} at step {medium.step}")
    return summary.of_text(name, summary.markdown(value), {"kind": kind, "value": value})


def _parse(medium: MediaRecord, data: bytes) -> Any:
    """Return what a file holds that could stand in the record, or None."""
    try:
        if medium.kind == "text":
            return data.decode()
        if medium.media_type == "application/json" and medium.kind != "artifact":
            return json.loads(data)
    except ValueError:
        pass
    return None


def _array(name: str, data: bytes) -> tuple[int, bytes] | None:
    """Return an array as a tensor, which programs can read and TensorBoard does not show."""
    try:
        found = from_npy(data)
        if to_npy(found) != data:
            return None  # in another order of axes or bytes, which a tensor does not keep
        tensor = messages.tensor(found, found.shape)
    except (ValueError, AttributeError):
        return None
    said = member(1, name) + member(8, tensor)
    said += member(messages.EXACT_MEDIUM, json.dumps({"kind": "array"}))
    return messages.SUMMARY, member(1, said)


def _triples(value: Any) -> npt.NDArray[np.float64] | None:
    """Return a histogram as rows of left edge, right edge and count, or None if it is none."""
    try:
        edges = np.array([float(each) for each in value["edges"]])
        counts = np.array([float(each) for each in value["counts"]])
    except (TypeError, KeyError, ValueError, OverflowError):
        return None
    if len(edges) != len(counts) + 1 or not len(counts):
        return None
    return np.column_stack([edges[:-1], edges[1:], counts])
