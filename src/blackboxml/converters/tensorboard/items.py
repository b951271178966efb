"""What TensorBoard's event files hold, as items: points, media, restarts."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from blackboxml.converters.tensorboard import scalars
from blackboxml.converters.tensorboard.media import PROTO, SILENT, Media
from blackboxml.converters.tensorboard.page import Page, Start
from blackboxml.foreign.interchange import Description, Medium, Point, Restart
from blackboxml.foreign.tensorboard import messages, records
from blackboxml.foreign.values import Names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from blackboxml.foreign.interchange import Item, Ledger
    from blackboxml.foreign.tensorboard.messages import Event, Metadata

_UNDERSTOOD: Final = frozenset(["", "scalars", "text", "images", "histograms", "audio"])
_SESSION: Final = {1: "START", 2: "STOP", 3: "CHECKPOINT"}
_LEVELS: Final = {10: "DEBUGGING", 20: "INFO", 30: "WARN", 40: "ERROR", 50: "FATAL"}


def read_items(
    files: Mapping[int, list[Path]], descriptions: Iterable[Description], ledger: Ledger
) -> Iterator[Item]:
    """Yield what the event files of a run hold.

    Args:
        files: Event files by rank, each list in the order in which they were begun.
        descriptions: What is known of metrics by their tags.
        ledger: Receives what cannot be read.
    """
    names = Names(ledger)
    for said in descriptions:
        yield Description(names(said.metric), said.unit, said.description)
    for rank, paths in files.items():
        stream = _Stream(ledger, Media(names, ledger, rank), several=len(paths) > 1)
        for path in paths:
            try:
                yield from stream.read(path)
            except OSError as error:
                ledger.refuse("event", error, where=str(path))


@dataclass(slots=True)
class _Stream:
    """The files of a rank, read one after the other."""

    ledger: Ledger
    media: Media
    several: bool
    decoder: scalars.Decoder = field(default_factory=scalars.Decoder)
    plugins: dict[str, str] = field(default_factory=dict)
    known: dict[bytes, str] = field(default_factory=dict)
    pending: list[Item] = field(default_factory=list)
    before: dict[str, int] = field(default_factory=dict)
    last: dict[str, int] = field(default_factory=dict)
    highest: int | None = None
    latest: float = -math.inf
    path: str = ""

    def read(self, path: Path) -> Iterator[Item]:
        """Yield what a file holds."""
        self.path, self.before = str(path), dict(self.last)
        look_back = bool(self.before)
        for chunk in records.read_chunks(path, self.report):
            page = self._decode(chunk)
            yield from self.pending
            self.pending.clear()
            if look_back:
                yield from self._look_back(page)
                look_back = False
            yield from self._in_order(page, len(chunk.starts))
            self.latest = max(self.latest, page.latest)
        if not path.stat().st_size:
            self.ledger.unreadable("event", "the file is empty", where=self.path)

    def report(self, begin: int, end: int, what: str) -> None:
        """Enter damage."""
        self.ledger.unreadable("event", what, where=f"{self.path}: bytes {begin:,} to {end:,}")

    # -- a chunk

    def _decode(self, chunk: records.Chunk) -> Page:
        """Return the items of the records of a chunk."""
        page = Page(len(chunk.starts), self.media.rank)
        slow: list[tuple[int, bytes]] = []
        for group in records.groups(chunk, scalars.LEAST, self.report):
            if not isinstance(group, records.Group):
                slow.append(group)
                continue
            batches, left = self.decoder.decode(group)
            for batch in batches:
                self._place(batch, page)
            slow += [(int(group.rows[at]), group.columns[:, at].tobytes()) for at in left.tolist()]
        for row, data in sorted(slow):
            if self._place_plain(row, data, page):
                continue
            try:
                event = messages.read_event(data)
                page.others[row] = list(self._event(event))
            except messages.MalformedError as error:
                at = chunk.offset + int(chunk.starts[row]) - records.HEAD
                self.report(at, at + len(data) + records.HEAD + records.FOOT, str(error))
                continue
            page.note(event.step, -math.inf if event.time is None else event.time)
            if event.what == messages.SESSION_LOG:
                page.highest = None
        return page

    def _place_plain(self, row: int, data: bytes, page: Page) -> bool:
        """Put the point where it belongs that an event of floats alone is, if it is one."""
        found = scalars.read_plain(data)
        if found is None or not math.isfinite(found[0]):
            return False
        time, step, numbers = found
        metrics = {}
        for tag, number in numbers.items():
            name = self.known.get(tag)
            if name is None:
                text = messages.text(tag)
                self.plugins.setdefault(text, "")
                name = self.known[tag] = self.media.names(text)
            metrics[name] = number
        if self.several:
            self._note(metrics, step)
        page.place_point(row, step, time, metrics)
        return True

    def _place(self, batch: scalars.Batch, page: Page) -> None:
        """Put the points of a batch where they belong."""
        if not len(batch.rows):
            return
        names = [self._learn_layout(layout) for layout in batch.layouts]
        page.place(batch, names)
        if self.several:
            most = np.full(len(names), np.iinfo(np.int64).min)
            np.maximum.at(most, batch.which, batch.steps)
            for metrics, step in zip(names, most.tolist(), strict=True):
                self._note(metrics, step)

    def _learn_layout(self, layout: scalars.Layout) -> tuple[str, ...]:
        """Return the names of the metrics of a layout."""
        for tag, metadata in zip(layout.tags, layout.metadata, strict=True):
            if tag not in self.plugins:
                self.pending += self._learn(tag, metadata, 0, None)
        return tuple(self.media.names(tag) for tag in layout.tags)

    def _note(self, names: Iterable[str], step: int) -> None:
        """Remember how far metrics came."""
        for name in names:
            self.last[name] = max(step, self.last.get(name, step))

    def _in_order(self, page: Page, size: int) -> Iterator[Item]:
        """Yield the items of a chunk, with restarts where sessions began."""
        begin = session = 0
        for at, items in sorted(page.others.items()):
            yield from page.points(begin, at)
            begin = at + 1
            for one in items:
                if not isinstance(one, Start):
                    yield one
                    continue
                self._climb(page.highest_of(session, at))
                session = at
                if self.highest is not None and self.highest >= one.step:
                    yield self._restart(one.step)
        yield from page.points(begin, size)
        is_plain = page.highest is not None
        self._climb(page.highest if is_plain else page.highest_of(session, size))

    def _climb(self, step: int | None) -> None:
        """Take note of the highest step."""
        if step is not None:
            self.highest = step if self.highest is None else max(step, self.highest)

    def _restart(self, step: int) -> Restart:
        self.highest = None if self.highest is None else min(self.highest, step - 1)
        return Restart(step)

    def _look_back(self, page: Page) -> Iterator[Item]:
        """Yield a restart if the first points of a file go back behind those of earlier files."""
        back = [
            step
            for name, (step, time) in page.firsts().items()
            if step < self.before.get(name, step) and (time is None or time >= self.latest)
        ]
        if back:
            yield self._restart(max(back))

    # -- an event

    def _event(self, event: Event) -> Iterator[Any]:
        """Yield what an event holds."""
        if event.time is not None and not math.isfinite(event.time):
            what = "a time that is not finite is taken for none"
            self.ledger.changed("time", what, where=f"{self.path}, step {event.step}")
            event.time = None
        match event.what:
            case messages.SUMMARY:
                yield from self._summary(event)
            case messages.GRAPH:
                yield self.media.of_file(
                    event, "graph_def", event.data, f"{PROTO}; proto=tensorflow.GraphDef"
                )
            case messages.META_GRAPH:
                kind = f"{PROTO}; proto=tensorflow.MetaGraphDef"
                yield self.media.of_file(event, "meta_graph_def", event.data, kind)
            case messages.RUN_METADATA:
                said = messages.blobs(event.data)
                name = f"run_metadata/{messages.text(said.get(1, b''))}"
                kind = f"{PROTO}; proto=tensorflow.RunMetadata"
                yield self.media.of_file(event, name, said.get(2, b""), kind)
            case messages.SESSION_LOG:
                said = messages.blobs(event.data)
                status = _SESSION.get(messages.integers(event.data).get(1, 0), "STATUS_UNSPECIFIED")
                if status == "START":
                    yield Start(event.step)
                texts = {2: "checkpoint_path", 3: "msg"}
                more = {
                    word: messages.text(said[key]) for key, word in texts.items() if key in said
                }
                yield self.media.of_value(event, "session_log", "event", {"status": status, **more})
            case messages.LOG:
                said = messages.blobs(event.data)
                level = _LEVELS.get(messages.integers(event.data).get(1, 0), "UNKNOWN")
                text = messages.text(said.get(2, b""))
                yield self.media.of_value(
                    event, "log_message", "event", {"level": level, "message": text}
                )

    def _summary(self, event: Event) -> Iterator[Any]:
        """Yield the numbers of a summary as one point, and then the rest."""
        metrics: dict[str, Any] = {}
        rest: list[Any] = []
        for value, _ in messages.read_values(event.data):
            if value.tag not in self.plugins:
                yield from self._learn(value.tag, value.metadata, event.step, event.time)
            try:
                found = self.media.read(value, event, self.plugins[value.tag])
            except messages.MalformedError as error:
                where = f"{self.path}: {value.tag!r:.80} at step {event.step}"
                self.ledger.unreadable("event", str(error), where=where)
                continue
            if isinstance(found, list):
                rest += found
                continue
            name = self.media.names(value.tag)
            if name in metrics:
                yield self._point(event, metrics)
                metrics = {}
            metrics[name] = found
        if metrics:
            yield self._point(event, metrics)
        yield from rest

    def _point(self, event: Event, metrics: dict[str, Any]) -> Point:
        if self.several:
            self._note(metrics, event.step)
        return Point(event.step, event.time, metrics, None, self.media.rank)

    def _learn(
        self, tag: str, metadata: Metadata | None, step: int, time: float | None
    ) -> Iterator[Item]:
        """Take over what the first value of a tag says about it."""
        self.plugins[tag] = metadata.plugin if metadata else ""
        if metadata is None or metadata.plugin in SILENT:
            return
        about = [metadata.description] if metadata.description else []
        if metadata.display_name and metadata.display_name not in {tag, tag.rpartition("/")[2]}:
            about.insert(0, metadata.display_name)
        if about:
            yield Description(self.media.names(tag), description=": ".join(about))
        if metadata.plugin not in _UNDERSTOOD:
            said = {"plugin": metadata.plugin}
            if len(metadata.content):
                said["content"] = base64.b64encode(metadata.content).decode()
            yield Medium(
                self.media.names(tag), "event", step, time, value=said, rank=self.media.rank
            )
