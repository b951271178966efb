"""What all of MLflow's stores say of a run, as a run of another system.

Times in MLflow are whole milliseconds since 1970. What an export of this package put into
`blackbox/` among the artifacts is taken again from there: it holds what MLflow has no place for.
"""

from __future__ import annotations

import math
import os
import stat
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from blackboxml.base.files import raise_refusal
from blackboxml.foreign import values as foreign
from blackboxml.foreign.interchange import ForeignRun, Medium, Point
from blackboxml.journal.metric import Points

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from blackboxml.foreign.interchange import Item, Ledger
    from blackboxml.model import Status

EXTRA: Final = "mlflow"
RUN_ID: Final = "blackbox.run_id"
"""The tag that names the run that was exported."""
OWN: Final = "blackbox"
"""The folder among the artifacts that is this package's."""
DOCUMENT: Final = "run.json"
INDEX: Final = "media.jsonl"
STATUS: Final[dict[str, Status]] = {
    "FINISHED": "completed",
    "FAILED": "failed",
    "KILLED": "interrupted",
    "RUNNING": "running",
    "SCHEDULED": "running",
}
GREATEST: Final = sys.float_info.max
"""What stands for infinity."""
_MOST_DOCUMENT: Final = 2**26


@dataclass(slots=True)
class Told:
    """What a store says of one run.

    Attributes:
        source: Where the store is.
        info: Fields of the run itself, as MLflow calls them.
        experiment: Fields of its experiment.
        params: Parameters, which are texts.
        tags: Tags.
        inputs: Data sets and models.
        root: The folder that is never left.
        artifacts: The folder of the artifacts, if it is within `root`.
        bad: Places of what could not be read.
        series: Yields the points.
        elsewhere: Where the artifacts are, if not within `root`.
    """

    source: str
    info: dict[str, Any]
    experiment: dict[str, Any]
    params: dict[str, str]
    tags: dict[str, str]
    inputs: list[Any]
    root: Path
    artifacts: Path | None
    bad: list[str]
    series: Callable[[Ledger], Iterator[Item]]
    elsewhere: str = ""
    names: dict[str, Any] = field(default_factory=dict)


def build(told: Told, fingerprint: str, files: list[Path]) -> ForeignRun:
    """Return the run."""
    info, tags = told.info, told.tags
    key = str(info["run_id"])
    name = tags.get("mlflow.runName") or info.get("run_name") or info.get("name") or key
    extra: dict[str, Any] = {
        "run": {name: value for name, value in info.items() if value not in (None, "")},
    }
    more = {
        "experiment": told.experiment,
        "tags": tags,
        "inputs": told.inputs,
        "user": tags.get("mlflow.user") or info.get("user_id"),
        "source": tags.get("mlflow.source.name") or info.get("source_name"),
        "note": tags.get("mlflow.note.content"),
        "parent_run_id": tags.get("mlflow.parentRunId"),
    }
    extra |= {member: value for member, value in more.items() if value}
    own = [tag for tag in tags.items() if not tag[0].startswith(("mlflow.", "blackbox."))]
    found = ForeignRun(
        source=told.source,
        key=key,
        fingerprint=fingerprint,
        name=str(name),
        items=lambda ledger: _items(told, ledger),
        tags=[f"{key}={value}" if value else key for key, value in own],
        config=dict(told.params),
        status=STATUS.get(str(info.get("status"))),
        start=_seconds(info.get("start_time")),
        end=_seconds(info.get("end_time")),
        extra=extra,
        files=files,
    )
    if identity := tags.get(RUN_ID):
        extra["blackbox_id"] = identity
        recall(found, told, told.artifacts)
    return found


def recall(found: ForeignRun, told: Told, artifacts: Path | None) -> None:
    """Take what an export kept beside, where MLflow does not say otherwise since."""
    document = _document(artifacts)
    if not document or document.get("id") != told.tags[RUN_ID]:
        return
    told.names = document["names"] if isinstance(document.get("names"), dict) else {}
    status, name = found.status, found.name
    foreign.recall(found, document)
    if STATUS.get(document.get("mlflow_status", "")) != status:
        found.status = status
    if document.get("mlflow_name") != name:
        found.name = name


def _document(artifacts: Path | None) -> dict[str, Any]:
    """Return the document that an export made, empty if there is none."""
    path = None if artifacts is None else inside(artifacts, f"{OWN}/{DOCUMENT}")
    if path is None or path.stat().st_size > _MOST_DOCUMENT:
        return {}
    document = foreign.parse(path.read_text("utf-8", errors="replace"))
    return document if isinstance(document, dict) else {}


def number(value: Any, is_nan: Any) -> float | None:
    """Return what a value stands for; None if it is no number."""
    if is_nan:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    found = float(value)
    return math.copysign(math.inf, found) if abs(found) == GREATEST else found


def _seconds(moment: Any) -> float | None:
    """Return Unix seconds of milliseconds; None for what is no time."""
    if isinstance(moment, bool) or not isinstance(moment, (int, float)):
        return None
    return moment / 1000 if math.isfinite(moment) and moment > 0 else None


def _items(told: Told, ledger: Ledger) -> Iterator[Item]:
    """Yield what was logged."""
    for where in told.bad:
        ledger.unreadable("field", "a part of the store that cannot be read", where=where)
    names = foreign.Names(ledger)
    for item in told.series(ledger):
        if not isinstance(item, Points):
            yield item
        elif told.names:
            for step, time, metrics in item.records():
                yield from _named(Point(step, time, metrics), told.names, names)
        else:
            item.layouts = [tuple(map(names, layout)) for layout in item.layouts]
            yield item
    if told.elsewhere:
        what = "the artifacts are kept outside the source; whatever there is stays there"
        ledger.lost("artifact", what, where=told.elsewhere)
    if told.artifacts is not None:
        yield from media(told.artifacts, ledger)


def _named(point: Point, known: Mapping[str, Any], names: foreign.Names) -> Iterator[Point]:
    """Yield a point with the names, ranks and statistics that it was exported from."""
    by_rank: dict[int, Point] = {}
    late: list[tuple[Point, str, str, Any, str]] = []
    for shown, value in point.metrics.items():
        said = known.get(shown)
        said = said if isinstance(said, dict) else {}
        rank, metric = said.get("rank", 0), said.get("metric", shown)
        rank = rank if type(rank) is int and 0 <= rank < 2**31 else 0
        metric = metric if isinstance(metric, str) else shown
        own = by_rank.setdefault(rank, Point(point.step, point.time, {}, rank=rank))
        if isinstance(statistic := said.get("statistic"), str):
            late.append((own, metric, statistic, value, shown))
        else:
            own.metrics[names(metric)] = _typed(value, said.get("type"))
    for own, metric, statistic, value, shown in late:
        if names(metric) in own.metrics:
            own.ranks = own.ranks or {}
            own.ranks.setdefault(names(metric), {})[statistic] = value
        else:
            own.metrics[names(shown)] = value
    yield from (own for own in by_rank.values() if own.metrics)


def _typed(value: Any, kind: Any) -> Any:
    """Return a float as the number that it was exported from."""
    if kind == "int" and float(value).is_integer() and abs(value) < 2**63:
        return int(value)
    if kind == "bool" and value in (0, 1):
        return bool(value)
    return value


# ---- artifacts ---------------------------------------------------------------------------------


def files_below(folder: Path, refused: Callable[[str, str], None]) -> Iterator[tuple[str, Path]]:
    """Yield relative name and path of the regular files below a folder; links are not followed.

    Args:
        folder: The folder; if it is none, there are no files.
        refused: Told the place of what is left out, and why.

    Raises:
        OSError: If the file system refuses to show what is there.
    """
    try:
        if not stat.S_ISDIR(folder.lstat().st_mode):
            return
    except OSError as error:
        raise_refusal(error)
        return
    for place, inner, names in os.walk(folder, onerror=raise_refusal):
        inner.sort()
        for name in [each for each in inner if os.path.islink(os.path.join(place, each))]:
            refused(os.path.join(place, name), "a link is not followed")
        for name in sorted(names):
            path = folder / os.path.relpath(os.path.join(place, name), folder)
            if stat.S_ISREG(path.lstat().st_mode):
                yield path.relative_to(folder).as_posix(), path
            else:
                refused(str(path), "a link is not followed, nor is what is no file")


def inside(folder: Path, name: Any) -> Path | None:
    """Return the path of a regular file by a relative name, None if that leads elsewhere."""
    if not isinstance(name, str) or not name or "\0" in name:
        return None
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in name:
        return None
    path = folder
    try:
        for part in parts:
            path /= part
            if stat.S_ISLNK(path.lstat().st_mode):
                return None
        return path if stat.S_ISREG(path.lstat().st_mode) else None
    except (OSError, ValueError) as error:
        raise_refusal(error)
        return None


def media(folder: Path, ledger: Ledger) -> Iterator[Medium]:
    """Yield the artifacts: media that this package exported as they were, others as files."""

    def refused(where: str, why: str) -> None:
        ledger.lost("artifact", why, where=where)

    indexed = 0
    index = inside(folder, f"{OWN}/{INDEX}")
    if index is not None:
        with index.open("rb") as file:
            for number, line in enumerate(file, start=1):
                medium = _medium(folder, foreign.parse(line.decode(errors="replace")))
                if medium is None:
                    where = f"{index}, line {number}"
                    ledger.unreadable("artifact", "a medium whose file is missing", where=where)
                else:
                    indexed += medium.path is not None
                    yield medium
    names = foreign.Names(ledger)
    own = 0
    for name, path in files_below(folder, refused):
        if index is not None and name.startswith(f"{OWN}/"):
            own += name not in (f"{OWN}/{INDEX}", f"{OWN}/{DOCUMENT}", f"{OWN}/config.json")
        elif name not in (f"{OWN}/{DOCUMENT}", f"{OWN}/config.json"):
            yield Medium(names(name), "artifact", 0, None, path=path)
    if own > indexed:
        what = "files beside an export's own that its index does not name"
        ledger.lost("artifact", what, own - indexed, where=f"{folder / OWN}")


def _medium(folder: Path, said: Any) -> Medium | None:
    """Return a medium by its line in the index."""
    if not isinstance(said, dict):
        return None
    name, kind, step, time = (said.get(key) for key in ("name", "kind", "step", "time"))
    if not (isinstance(name, str) and isinstance(kind, str) and type(step) is int):
        return None
    rank = said.get("rank", 0)
    found = Medium(
        name,
        kind,
        step,
        float(time) if isinstance(time, (int, float)) and math.isfinite(time) else None,
        media_type=said["media_type"] if isinstance(said.get("media_type"), str) else None,
        rank=rank if type(rank) is int and rank >= 0 else 0,
    )
    if isinstance(dims := said.get("dims"), list):
        found.dims = dims
    if isinstance(entry := said.get("entry"), str):
        found.entry = entry
    if isinstance(reference := said.get("reference"), dict):
        found.reference = reference
        return found
    if "value" in said:
        found.value = said["value"]
        return found
    found.path = inside(folder, said.get("path"))
    return None if found.path is None else found
