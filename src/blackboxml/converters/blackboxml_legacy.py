"""Runs of blackboxml 0.5, both ways, and of 0.2.

A step of 0.5 is a place in a list. Where that is not the step of a run, an export says it by a
member `_step` among the metrics, which an import takes for the step.

0.5 wrote a folder `<name>_<YYYYMMDD_HHMMSS>` with one `run.json` of all steps; what stands in it is
described by `blackboxml.foreign.legacy` (https://pypi.org/project/blackboxml/0.5.2/, store.py and
tracker.py). 0.2 wrote `metrics_<YYYYMMDD_HHMMSS>.json`: the last values of a Keras training with
`experiment`, `tags` and `timestamp`, or the history of one, a list of values for each metric.
"""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from blackboxml import manifest as manifests
from blackboxml.base import naming
from blackboxml.base.files import raise_refusal
from blackboxml.errors import BlackboxError, FormatError
from blackboxml.foreign import values as foreign
from blackboxml.foreign.interchange import (
    ForeignRun,
    Point,
    count_as,
    fingerprint,
    is_plain,
)
from blackboxml.foreign.legacy import scan_legacy
from blackboxml.model import INT64_MAX, INT64_MIN, MANIFEST, SCRATCH

if TYPE_CHECKING:
    from collections.abc import Iterator, KeysView, Mapping
    from pathlib import Path
    from typing import IO

    from blackboxml.foreign.interchange import Item, Kind, Ledger
    from blackboxml.model import MediaRecord
    from blackboxml.reader import RunReader

EXTRA: Final = None

_HEAD: Final = 2**16
_TAIL: Final = 64
_SMALL: Final = 16 * 2**20
_RUN: Final = re.compile(
    rb'\s*\{\s*"name"\s*:\s*(?:"(?:[^"\\]|\\.)*"|null)\s*,\s*"tags"\s*:\s*(?:\[|null)', re.DOTALL
)
_STEPS: Final = re.compile(rb'"steps"\s*:\s*\[')
_FINAL: Final = re.compile(rb'\s*\{\s*"experiment"\s*:.*"final_logs"\s*:\s*\{', re.DOTALL)
_HISTORY: Final = re.compile(rb'\s*\{\s*"(?:[^"\\]|\\.)*"\s*:\s*\[')
_FILE: Final = re.compile(r"metrics_(\d{8}_\d{6})\.json")
_STAMP: Final = "%Y%m%d_%H%M%S"
_STEP: Final = "_step"
_TOLERANCE: Final = 0.001
_KNOWN: Final = frozenset(["name", "tags", "environment", "start", "end", "steps"])
_LOCAL: Final = "a time without its offset from UTC is taken as UTC"


def recognise(path: Path) -> bool:
    """Tell whether a JSON file, or the `run.json` of a folder, is a run of 0.5 or of 0.2.

    What `bbml show` printed of a run and somebody kept is of another name, and not taken for one.
    """
    file = path / MANIFEST if path.is_dir() else path
    return file.suffix == ".json" and _kind(file) is not None


def members(path: Path) -> set[str]:
    """Return the file of a run of 0.5."""
    return {MANIFEST} if _kind(path / MANIFEST) == "run" else set()


def _kind(path: Path) -> str | None:
    """Return what a file is: `run` of 0.5, `final` or `history` of 0.2, None if something else."""
    try:
        if not is_plain(path):
            return None
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise_refusal(error)
        return None
    if _RUN.match(head):
        return "run"
    listed = _STEPS.search(head) is not None and b'"start"' in head and b'"format"' not in head
    if listed and path.name == MANIFEST and b'"name"' in head:
        return "run"
    if _FINAL.match(head):
        return "final"
    return "history" if _FILE.fullmatch(path.name) and _HISTORY.match(head) else None


# ---- reading -----------------------------------------------------------------------------------


def read(path: Path) -> Iterator[ForeignRun]:
    """Yield the run at a path.

    Raises:
        FormatError: If there is none.
        OSError: If it cannot be read.
    """
    file = path / MANIFEST if path.is_dir() else path
    kind = _kind(file)
    if kind is None:
        raise FormatError(f"{file} is no run of blackboxml 0.5 or 0.2")
    yield _read_run(file) if kind == "run" else _read_metrics(file, kind)


def _read_run(file: Path) -> ForeignRun:
    """Return a run of 0.5."""
    found = _members(file)
    remarks: list[tuple[Any, ...]] = []
    run = ForeignRun(
        source=str(file),
        key="",
        fingerprint=fingerprint([file]),
        name=_name(found.get("name"), file.parent.name or file.stem, remarks),
        items=lambda ledger: _items(file, found.keys(), remarks, ledger),
        files=[file],
    )
    run.tags = _tags(found.get("tags"), remarks)
    for key in ("start", "end"):
        moment = _moment(found.get(key))
        setattr(run, key, moment)
        if moment is not None and datetime.fromisoformat(found[key]).tzinfo is None:
            remarks.append(("changed", "time", _LOCAL))
            run.extra[key] = found[key]
        elif moment is None and found.get(key) is not None:
            run.extra[key] = found[key]
    if isinstance(found.get("environment"), dict):
        try:
            run.environment = foreign.to_json(found["environment"])
        except ValueError:
            run.extra["environment"] = found["environment"]
    # The callback of Keras writes a run only when the training has come to its end.
    if isinstance(found.get("model"), dict) and run.end is not None:
        run.status = "completed"
    run.extra |= {key: value for key, value in found.items() if key not in _KNOWN}
    duration = run.extra.get("duration_seconds")
    known = run.start is not None and run.end is not None and isinstance(duration, int | float)
    if known and abs((run.end or 0) - (run.start or 0) - (duration or 0)) < _TOLERANCE:
        del run.extra["duration_seconds"]
    run.extra = {key: foreign.to_tree(value) for key, value in run.extra.items()}
    return run


def _members(file: Path) -> dict[str, Any]:
    """Return all members but the steps, without going through these if nothing is behind them."""
    found: dict[str, Any] = {}
    with file.open("rb") as data:
        data.seek(max(0, os.fstat(data.fileno()).st_size - _TAIL))
        closed = re.search(rb"[]}]\s*]\s*}\s*\Z|\[\s*]\s*}\s*\Z", data.read()) is not None
    for piece in scan_legacy(file):
        if piece.kind == "member":
            found[str(piece.key)] = piece.value
        elif piece.kind == "step" and closed:
            break
    return found


def _name(name: object, other: str, remarks: list[tuple[Any, ...]]) -> str:
    """Return the name of a run; the other one if it has none."""
    if isinstance(name, str) and name:
        return name
    remarks.append(("made", "field", "a run without a name is called as its folder or file"))
    return other


def _tags(tags: object, remarks: list[tuple[Any, ...]]) -> list[str]:
    """Return tags; one that is no text is spelled as JSON, an empty one is left out."""
    found = []
    for tag in tags if isinstance(tags, list) else []:
        text = foreign.to_text(tag) if isinstance(tag, str) else json.dumps(tag)
        if text != tag:
            remarks.append(("changed", "tag", "a tag that is no text is spelled as JSON"))
        if text:
            found.append(text)
        else:
            remarks.append(("lost", "tag", "an empty tag is left out"))
    return found


def _moment(text: object) -> float | None:
    """Return an ISO 8601 time as Unix seconds, None if it is none."""
    try:
        return manifests.seconds(text) if isinstance(text, str) else None
    except (ValueError, OverflowError):
        return None


def _items(
    file: Path, known: KeysView[str], remarks: list[tuple[Any, ...]], ledger: Ledger
) -> Iterator[Item]:
    """Yield the steps of a run of 0.5; the step is the place in the list."""
    _remark(remarks, ledger)
    name = foreign.Names(ledger)
    seen = False
    for piece in scan_legacy(file):
        if piece.kind == "damage":
            where = f"{file.name}: byte {piece.offset}: {piece.key}"
            kind: Kind = "step" if piece.key.startswith("step ") else "field"
            ledger.unreadable(kind, "a part that is damaged", where=where)
        elif piece.kind == "member":
            if seen and piece.key not in known:
                what = "a member behind the steps is left out"
                ledger.lost("field", what, where=str(piece.key), declared=False)
        else:
            seen = True
            yield from _step(piece.key, piece.value, name, ledger)


def _step(step: int, value: Any, name: foreign.Names, ledger: Ledger) -> Iterator[Item]:
    """Yield what stands in one step."""
    if isinstance(value, dict) and type(said := value.get(_STEP)) is int and _is_step(said):
        step, value = said, {key: each for key, each in value.items() if key != _STEP}
    if not isinstance(value, dict) or not value:
        yield foreign.to_medium(name("step"), value, step, None, ledger)
        return
    metrics, media = foreign.separate(value, name, step, None, ledger)
    if metrics:
        yield Point(step, None, metrics)
    yield from media


def _is_step(number: int) -> bool:
    """Tell whether a number can be a step."""
    return INT64_MIN <= number <= INT64_MAX


def _remark(remarks: list[tuple[Any, ...]], ledger: Ledger) -> None:
    """Enter what was found before there was a ledger."""
    for effect, kind, what in remarks:
        getattr(ledger, effect)(kind, what)


def _read_metrics(file: Path, kind: str) -> ForeignRun:
    """Return a run of 0.2."""
    found = _members(file)
    damage = [piece for piece in scan_legacy(file) if piece.kind == "damage"]
    remarks: list[tuple[Any, ...]] = []
    own = kind == "final"
    stem = _FILE.fullmatch(file.name)
    text = found.get("timestamp") if own else stem and stem[1]
    try:
        end = datetime.strptime(str(text), _STAMP).replace(tzinfo=UTC).timestamp()
        remarks.append(("changed", "time", _LOCAL))
    except ValueError:
        end = None
    if own:
        last = found.get("final_logs")
        columns = {key: [value] for key, value in last.items()} if isinstance(last, dict) else {}
        remarks.append(("made", "step", "the last values of a training stand at step 0"))
    else:
        columns = {key: each for key, each in found.items() if isinstance(each, list)}

    def items(ledger: Ledger) -> Iterator[Item]:
        _remark(remarks, ledger)
        columns_of = dict(columns)
        for piece in damage:
            where = f"{file.name}: byte {piece.offset}: {piece.key}"
            ledger.unreadable("field", "a part that is damaged", where=where)
            if not own:
                columns_of.update(_cut_list(file, piece.offset))
        name = foreign.Names(ledger)
        for step in range(max(map(len, columns_of.values()), default=0)):
            row = {key: each[step] for key, each in columns_of.items() if step < len(each)}
            yield from _step(step, row, name, ledger)

    run = ForeignRun(
        source=str(file),
        key="",
        fingerprint=fingerprint([file]),
        name=_name(found.get("experiment") if own else None, file.stem, remarks),
        items=items,
        end=end,
        files=[file],
    )
    run.tags = _tags(found.get("tags") if own else None, remarks)
    rest = {
        key
        for key in found
        if key not in (("experiment", "tags", "final_logs") if own else columns)
    }
    run.extra = {key: foreign.to_tree(found[key]) for key in sorted(rest)}
    return run


def _cut_list(file: Path, offset: int) -> dict[str, list[Any]]:
    """Return the list that a file of 0.2 breaks off in, as far as it goes."""
    with file.open("rb") as data:
        text = data.read(_SMALL)[:offset].decode(errors="replace")
        data.seek(offset)
        rest = data.read(_SMALL).decode(errors="replace")
    key = re.search(r'("(?:[^"\\]|\\.)*")\s*:\s*\Z', text)
    values = re.match(r"\[((?:\s*[^][{}\",\s]+\s*,)*)", rest)
    if key is None or values is None:
        return {}
    try:
        return {json.loads(key[1]): json.loads(f"[{values[1].rstrip().rstrip(',')}]")}
    except ValueError:
        return {}


# ---- writing -----------------------------------------------------------------------------------


def write(run: RunReader, target: Path, ledger: Ledger, options: Mapping[str, Any]) -> Path:
    """Write a run as the `run.json` of 0.5, with its members and no other.

    A text or an event is a member of the step that it belongs to. A run of the same name and start
    is taken for the same one, and replaced.

    Args:
        run: The run.
        target: A folder of runs, or the name of the file if that ends with `.json`.
        ledger: Told what has no home.
        options: None are known.

    Raises:
        OSError: If the target cannot be written.
    """
    del options
    start = run.manifest["start"]
    path = target if target.suffix == ".json" else _place(run, target, start)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f"{SCRATCH}{path.name}")
    try:
        with scratch.open("w", encoding="ascii") as file:
            _Writer(run, file, ledger).write()
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    return path


def _place(run: RunReader, target: Path, start: str) -> Path:
    """Return the file for a run in a folder of runs: a new one, or that of an earlier export."""
    stem = naming.run_directory_name(run.name, run.start)
    number = 0
    while True:
        path = target / (f"{stem}_{number}" if number else stem) / MANIFEST
        if not path.exists():
            return path
        found = _members(path) if _kind(path) == "run" else {}
        if found.get("name") == run.name and _moment(found.get("start")) == _moment(start):
            return path
        number += 1


class _Writer:
    """Writes one run."""

    def __init__(self, run: RunReader, file: IO[str], ledger: Ledger) -> None:
        """Begin."""
        self._run = run
        self._file = file
        self._ledger = ledger
        self._count = 0

    def write(self) -> None:
        """Write the whole document."""
        run = self._run
        origin = foreign.origin(run, "blackboxml_legacy")
        manifest = run.manifest
        document: dict[str, Any] = {"name": run.name, "tags": run.tags}
        document["environment"] = manifest["environment"]
        if isinstance(origin.get("model"), dict):
            document["model"] = origin["model"]
        for key in ("start", "end"):
            naive = origin.get(key)
            same = _moment(naive) is not None and _moment(naive) == _moment(manifest.get(key))
            document[key] = naive if same else manifest.get(key)
        document["duration_seconds"] = origin.get("duration_seconds", run.duration_seconds)
        self._file.write("{")
        for key, value in document.items():
            self._file.write(f"\n  {json.dumps(key)}: {_dump(value, 2)},")
        self._file.write('\n  "steps": [')
        self._steps()
        self._file.write("\n  ]\n}" if self._count else "]\n}")
        self._lose(origin)

    def _lose(self, origin: Mapping[str, Any]) -> None:
        """Enter what 0.5 has no member for."""
        run, ledger = self._run, self._ledger
        if config := run.config:
            what = "0.5 has no configuration"
            ledger.lost("config", what, len(config))
        if run.status != "completed" or "model" not in origin:
            ledger.lost("status", "0.5 has no status", where=run.status)
        for name in ("exception", "lineage"):
            if run.manifest.get(name):
                ledger.lost("field", f"0.5 has no {name}")
        if count := len(run.manifest["attempts"]) - 1:
            ledger.lost("field", "0.5 knows no attempts of a run", count)

    def _steps(self) -> None:
        """Write the points in the order of the history, each with the media of its step."""
        media = self._media()
        waiting = next(media, None)
        others = 0
        for record in self._run.records():
            while waiting is not None and waiting[0] < record.step:
                waiting = self._alone(waiting, media)
            found: dict[str, Any] = dict(record.metrics)
            for metric, statistics in record.ranks.items():
                found |= {f"{metric}/{key}": value for key, value in statistics.items()}
                what = "statistics across ranks become metrics of their own"
                self._ledger.changed("scalar", what, len(statistics), where=metric)
            while waiting is not None and waiting[0] == record.step and waiting[1] not in found:
                found[waiting[1]] = waiting[2]
                waiting = next(media, None)
            others += record.rank != 0
            self._put(record.step, found)
            self._ledger.lost("time", "0.5 keeps no times of steps")
        while waiting is not None:
            waiting = self._alone(waiting, media)
        if others:
            self._ledger.lost("field", "0.5 knows no ranks; their points are kept", others)

    def _alone(
        self, medium: tuple[int, str, Any], media: Iterator[tuple[int, str, Any]]
    ) -> tuple[int, str, Any] | None:
        """Write a step that has media and no point; return the medium behind them."""
        step, name, value = medium
        found = {name: value}
        following = next(media, None)
        while following is not None and following[0] == step and following[1] not in found:
            found[following[1]] = following[2]
            following = next(media, None)
        whole = list(found) == ["step"] and not isinstance(value, str) and step == self._count
        self._put(step, value if whole else found)
        return following

    def _put(self, step: int, found: Any) -> None:
        """Write one step."""
        if isinstance(found, dict) and _STEP in found:
            self._ledger.lost("scalar", "a metric has the name that 0.5 is told the step by")
            found = {key: each for key, each in found.items() if key != _STEP}
        if step != self._count:
            found = {_STEP: step, **found}
        self._file.write(f"{',' if self._count else ''}\n    {_dump(found, 4)}")
        self._count += 1

    def _media(self) -> Iterator[tuple[int, str, Any]]:
        """Yield step, name and value of what can stand in a step."""
        for record in self._run.media():
            kind = count_as(record.kind)
            try:
                value = self._value(record)
            except (BlackboxError, OSError, ValueError, TypeError) as error:
                raise_refusal(error)
                self._ledger.unreadable(kind, f"it cannot be read: {error}", where=record.name)
                continue
            if value is _NOTHING:
                what = f"0.5 has no place for a medium of the kind {record.kind}"
                self._ledger.lost(kind, what, where=record.name)
            else:
                self._ledger.lost("time", "0.5 keeps no times of steps")
                yield record.step, record.name, value

    def _value(self, record: MediaRecord) -> Any:
        """Return what stands in a step for a medium, if anything does."""
        if record.kind == "text" or (record.kind == "event" and record.value is not None):
            value = foreign.from_medium(self._run, record)
            json.dumps(value)
            foreign.declare_event(record, self._ledger)
            return value
        return _NOTHING


_NOTHING: Final = object()


def _dump(value: Any, depth: int) -> str:
    """Return a value as `json.dumps` with an indent of 2 writes it so deep in a document."""
    inner = "\n" + " " * (depth + 2)
    if isinstance(value, dict) and value:
        parts = (f"{json.dumps(key)}: {_dump(each, depth + 2)}" for key, each in value.items())
        return "{" + inner + f",{inner}".join(parts) + "\n" + " " * depth + "}"
    if isinstance(value, list) and value:
        parts = (_dump(each, depth + 2) for each in value)
        return "[" + inner + f",{inner}".join(parts) + "\n" + " " * depth + "]"
    return json.dumps(value)
