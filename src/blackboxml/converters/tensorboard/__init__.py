"""TensorBoard's event files, both ways; neither needs TensorBoard.

Each folder with event files is a run, named by its place below the folder that is converted; its
files count one after the other. Scalars (`simple_value` of TensorFlow 1 and of torch, tensors of
TensorFlow 2), texts, images, histograms and hyper-parameters become what they are. Audio, graphs,
other tensors and what other plugins say about their tags are kept as media.

A restart is what TensorBoard takes for one: `SessionLog.START` at a step. It is also one when the
next file of a run, begun later, goes back in tags that an earlier file has; of several such tags
the greatest first step counts, so that nothing is superseded that was not logged again.

Exported scalars are `simple_value`, the one form that all readers of TensorBoard show (its server
in Rust knows no scalars but float32). A member of the same message that they pass over holds the
exact value; see `messages`. One tag `_blackbox_/run` holds the members of the run.
"""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from blackboxml.base.files import raise_refusal
from blackboxml.config import decode_config
from blackboxml.errors import BlackboxError
from blackboxml.foreign.interchange import Description, ForeignRun, fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from blackboxml.foreign.interchange import Item, Ledger
    from blackboxml.model import Status
    from blackboxml.reader import RunReader

EXTRA: Final = None

_MARK: Final = "tfevents"
_EMPTY_PROFILE: Final = ".profile-empty"  # a mark that the profiler leaves, without any data
_PLUGINS: Final = "plugins"  # a folder for the files of the profiler and others
_PROJECTOR: Final = "projector_config.pbtxt"
_OWN_FILE: Final = re.compile(r".*tfevents\.\d+\..*\.([0-9a-f]{32})\.blackbox")
_RANK_FOLDER: Final = re.compile(r"rank_([1-9][0-9]{0,9})")
_STATUSES: Final = frozenset(["completed", "failed", "interrupted", "running"])
_FIRST: Final = 3


def recognise(path: Path) -> bool:
    """Tell whether a file is an event file, or a folder has some or nothing else below it."""
    if not path.is_dir():
        return _is_event_file(path)
    return bool(_event_files(path)) or _is_pure(path)


def members(path: Path) -> set[str]:
    """Return the event files of a folder, or everything in it if there is nothing else."""
    if _is_pure(path):
        return {"*"}
    return {file.name for file in _event_files(path)}


def read(path: Path) -> Iterator[ForeignRun]:
    """Yield the run of an event file, of a folder, and of the folders below it.

    A folder that has event files beside others stands for itself alone; what lies below it may
    be of another system.

    Raises:
        OSError: If a file cannot be read.
    """
    if not path.is_dir():
        yield _run(path, "", path.name, {0: [path]})
        return
    folders = [path]
    if _is_pure(path) or not _event_files(path):
        folders = [Path(folder) for folder, _, _ in _walk(path)]
    for folder in folders:
        files = _event_files(folder)
        if not files or _rank_of(folder, path):
            continue
        key = folder.relative_to(path).as_posix()
        name = (folder.resolve().name or "run") if key == "." else key
        yield _run(path, "" if key == "." else key, name, {0: files} | _ranks(folder, files))


def write(run: RunReader, target: Path, ledger: Ledger, options: Mapping[str, Any]) -> Path:
    """Put a run into a folder of its own below a log directory; there are no options.

    The folder holds one event file; further ranks have theirs in folders `rank_1`, `rank_2`, ….
    """
    del options
    from blackboxml.converters.tensorboard import export

    return export.write(run, target, ledger)


# -- finding


def _walk(path: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield the folders below one in byte order; links are not followed."""
    for folder, folders, files in os.walk(path, onerror=raise_refusal):
        folders.sort()
        yield folder, folders, files


def _event_files(folder: Path) -> list[Path]:
    """Return the event files of a folder in the order in which they were begun.

    Their names hold that moment: `events.out.tfevents.<seconds>.<host>…`.
    """
    try:
        with os.scandir(folder) as found:
            names = [
                entry.name
                for entry in found
                if _MARK in entry.name
                and not entry.name.endswith(_EMPTY_PROFILE)
                and entry.is_file(follow_symlinks=False)
            ]
    except OSError as error:
        raise_refusal(error)
        return []

    def order(name: str) -> tuple[int, str]:
        begun = re.search(_MARK + r"\.(\d{1,18})", name)
        return int(begun[1]) if begun else 0, name

    return [folder / name for name in sorted(names, key=order)]


def _is_event_file(path: Path) -> bool:
    """Tell whether a file is named as an event file, or begins as one."""
    from blackboxml.foreign.tensorboard import messages

    if _MARK in path.name:
        return not path.name.endswith(_EMPTY_PROFILE)
    try:
        first = next(_first_events(path), None)
    except messages.MalformedError:
        return False
    return first is not None and first.what == messages.FILE_VERSION


def _is_pure(path: Path) -> bool:
    """Tell whether there are event files below a folder, and no files of another system."""
    found = False
    for _, folders, files in _walk(path):
        folders[:] = [name for name in folders if name != _PLUGINS]
        for name in files:
            if _MARK not in name:
                if name != _PROJECTOR and not name.startswith("."):
                    return False
            elif not name.endswith(_EMPTY_PROFILE):
                found = True
    return found


def _rank_of(folder: Path, top: Path) -> int:
    """Return the rank whose points a folder holds for the run above it, or 0."""
    named = _RANK_FOLDER.fullmatch(folder.name)
    if named is None or folder == top:
        return 0
    mine, above = (_own_ids(_event_files(place)) for place in (folder, folder.parent))
    return int(named[1]) if mine and mine == above else 0


def _ranks(folder: Path, files: list[Path]) -> dict[int, list[Path]]:
    """Return the files of further ranks of a run that this package wrote."""
    if not _own_ids(files):
        return {}
    below = [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir()]
    found = {_rank_of(place, folder): place for place in below}
    return {rank: _event_files(found[rank]) for rank in sorted(found) if rank}


def _own_ids(files: list[Path]) -> set[str]:
    """Return the ids of the runs that event files of this package hold."""
    named = (_OWN_FILE.fullmatch(file.name) for file in files)
    return {name[1] for name in named if name is not None}


# -- reading


def _run(source: Path, key: str, name: str, files: dict[int, list[Path]]) -> ForeignRun:
    """Return the run that event files hold, those of further ranks beside those of rank 0."""
    from blackboxml.foreign.tensorboard import hparams

    every = [file for part in files.values() for file in part]
    descriptions: list[Description] = []
    found = ForeignRun(
        source=str(source),
        key=key,
        fingerprint=fingerprint(every, *(file.name for file in every)),
        name=name,
        items=lambda ledger: _items(files, descriptions, ledger),
        files=every,
    )
    found.extra["files"] = [_describe_file(file, found) for file in every]
    for file in files[0]:
        for metadata in hparams.find_metadata(file):
            try:
                if metadata.plugin == hparams.OWN:
                    _take_own(json.loads(bytes(metadata.content)), found, descriptions)
                else:
                    _take_hparams(hparams.read_hparams(metadata.content), found, descriptions)
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError, BlackboxError):
                continue  # damaged or foreign; its record is reported when it is read
    return found


def _items(
    files: dict[int, list[Path]], descriptions: list[Description], ledger: Ledger
) -> Iterator[Item]:
    """Yield what event files hold; enter what else TensorBoard keeps in their folder."""
    from blackboxml.converters.tensorboard import items

    folder = files[0][0].parent
    beside = [folder / name for name in (_PROJECTOR,) if (folder / name).is_file()]
    beside += [Path(place) / name for place, _, names in _walk(folder / _PLUGINS) for name in names]
    if beside:
        what = "profiles, and what the projector shows, stay where they are"
        ledger.lost("artifact", what, len(beside), where=str(beside[0]))
    yield from items.read_items(files, descriptions, ledger)


def _first_events(path: Path) -> Iterator[Any]:
    """Yield the first few events of a file, as far as they are good."""
    from blackboxml.foreign.tensorboard import messages, records

    for data in records.first_records(path, _FIRST):
        yield messages.read_event(data)


def _describe_file(path: Path, run: ForeignRun) -> dict[str, Any]:
    """Return what an event file says about itself; the first of all is the start of the run."""
    from blackboxml.foreign.tensorboard import messages

    said: dict[str, Any] = {"name": path.name}
    try:
        for event in _first_events(path):
            if event.time is not None and math.isfinite(event.time) and "time" not in said:
                said["time"] = event.time
                run.start = event.time if run.start is None else min(run.start, event.time)
            if event.what == messages.FILE_VERSION:
                said.setdefault("version", messages.text(event.data))
            if event.writer:
                said.setdefault("writer", event.writer)
    except messages.MalformedError:
        pass
    return said


def _take_hparams(said: dict[str, Any], run: ForeignRun, descriptions: list[Description]) -> None:
    """Take over what TensorBoard's plugin for hyper-parameters says."""
    if "blackbox_id" in run.extra:
        return
    extra = run.extra.setdefault("hparams", {})
    run.config |= said.pop("hparams", {})
    if "status" in said:
        run.status = said.pop("status")
        end = said.pop("end_time_secs", 0.0)
        run.end = end if end > 0 and math.isfinite(end) else run.end
    for metric in said.get("experiment", {}).get("metrics", []):
        about = ": ".join(metric[key] for key in ("display_name", "description") if key in metric)
        if about and metric.get("tag") and not metric.get("group"):
            descriptions.append(Description(metric["tag"], description=about))
    extra |= {key: value for key, value in said.items() if value}
    if not extra:
        del run.extra["hparams"]


def _take_own(said: dict[str, Any], run: ForeignRun, descriptions: list[Description]) -> None:
    """Take over what this package wrote about a run."""
    run.extra.pop("hparams", None)
    run.extra["blackbox_id"] = str(said["id"])
    run.name, run.tags = str(said["name"]), [str(tag) for tag in said["tags"]]
    run.config = decode_config(said["config"])
    run.status = cast("Status", said["status"]) if said["status"] in _STATUSES else None
    run.start, run.end = float(said["start"]), None if said["end"] is None else float(said["end"])
    run.exception = said.get("exception")
    run.environment, run.lineage = dict(said["environment"]), dict(said["lineage"])
    if said.get("extensions"):
        run.extra["extensions"] = said["extensions"]
    for metric, about in said["descriptions"].items():
        descriptions.append(Description(metric, about.get("unit"), about.get("description")))
