"""MLflow's file store: a folder `mlruns/` of experiments, each with a folder for every run.

    <experiment id>/meta.yaml, tags/<key>
    <experiment id>/<run id>/meta.yaml, metrics/<name>, params/<name>, tags/<key>, artifacts/…

A metric is a file of lines `<ms> <value> [<step> [<dataset> <digest>]]`; names with `/` are folders
(https://github.com/mlflow/mlflow/blob/master/mlflow/store/tracking/file_store.py).
"""

from __future__ import annotations

import heapq
import os
import stat
from typing import TYPE_CHECKING, Any, Final

from blackboxml.base.files import raise_refusal
from blackboxml.converters.mlflow.run import EXTRA, Told, build, files_below
from blackboxml.foreign.hyperparameters import read_yaml
from blackboxml.foreign.interchange import fingerprint, open_plain
from blackboxml.foreign.values import Digest
from blackboxml.model import INT64_MAX, INT64_MIN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from blackboxml.foreign.interchange import ForeignRun, Ledger
    from blackboxml.journal.metric import Points

META: Final = "meta.yaml"
TRASH: Final = ".trash"
_PART: Final = 2**16
_MOST_TEXT: Final = 2**20
_LONGEST: Final = 2**16
_FIELDS: Final = (2, 3, 5)
_STATUS: Final = {
    "1": "RUNNING",
    "2": "SCHEDULED",
    "3": "FINISHED",
    "4": "FAILED",
    "5": "KILLED",
}


def meta(folder: Path) -> dict[str, Any] | None:
    """Return what a folder says of itself, None if it says nothing that can be read."""
    try:
        if not stat.S_ISREG((folder / META).lstat().st_mode):
            return None
        return read_yaml(folder / META, EXTRA)
    except (OSError, ValueError) as error:
        raise_refusal(error)
        return None


def is_run(said: dict[str, Any] | None) -> bool:
    """Tell whether a folder that says this is a run."""
    return said is not None and bool({"run_id", "run_uuid"} & said.keys())


def is_experiment(said: dict[str, Any] | None) -> bool:
    """Tell whether a folder that says this is an experiment."""
    return said is not None and not is_run(said) and {"experiment_id", "name"} <= said.keys()


def recognise(path: Path) -> bool:
    """Tell whether a folder is a run, an experiment, or holds experiments."""
    said = meta(path)
    if is_run(said) or is_experiment(said):
        return True
    return any(is_experiment(meta(each)) for each in _folders(path))


def read(path: Path) -> Iterator[ForeignRun]:
    """Yield the runs of a store, of an experiment, or one run; those in the trash at the end."""
    said = meta(path)
    if said is not None and is_run(said):
        yield _read_run(path, said, _experiment(path.parent), path.parent)
        return
    if is_experiment(said):
        yield from _read_experiment(path, path)
        return
    for folder in (path, path / TRASH):
        for each in _folders(folder):
            yield from _read_experiment(each, path)


def _read_experiment(folder: Path, root: Path) -> Iterator[ForeignRun]:
    """Yield the runs of one experiment."""
    about = _experiment(folder)
    for each in _folders(folder):
        said = meta(each)
        if said is not None and is_run(said):
            yield _read_run(each, said, about, root)
        elif said is None and (each / "metrics").is_dir():
            # Its own word is gone; what was measured is there.
            yield _read_run(each, {}, about, root)


def _experiment(folder: Path) -> dict[str, Any]:
    """Return what is known of an experiment."""
    said = meta(folder)
    if not is_experiment(said) or said is None:
        return {}
    if tags := dict(_texts(folder / "tags", [])):
        said["tags"] = tags
    return said


def _folders(path: Path) -> list[Path]:
    """Return the folders in a folder, links left out, in order."""
    try:
        with os.scandir(path) as entries:
            names = sorted(each.name for each in entries if each.is_dir(follow_symlinks=False))
    except OSError as error:
        raise_refusal(error)
        return []
    return [path / name for name in names if name != TRASH]


def _texts(folder: Path, bad: list[str]) -> Iterator[tuple[str, str]]:
    """Yield name and content of the files of a folder; those that cannot be read go into `bad`."""
    for name, path in files_below(folder, lambda where, _why: bad.append(where)):
        try:
            with open_plain(path) as file:
                data = file.read(_MOST_TEXT + 1)
        except OSError as error:
            raise_refusal(error, str(path))
            bad.append(str(path))
            continue
        if len(data) > _MOST_TEXT:
            bad.append(str(path))
            continue
        yield name, data.decode(errors="backslashreplace")


def _read_run(
    folder: Path, said: dict[str, Any], experiment: dict[str, Any], root: Path
) -> ForeignRun:
    """Return one run."""
    bad: list[str] = []
    info = {key: value for key, value in said.items() if key != "tags"}
    if not said:
        bad.append(str(folder / META))
    info["run_id"] = folder.name
    if "status" in info:
        said_status = str(info["status"])
        info["status"] = _STATUS.get(said_status, said_status)
    told = Told(
        source=str(root),
        info=info,
        experiment=experiment,
        params=dict(_texts(folder / "params", bad)),
        tags=dict(_texts(folder / "tags", bad)),
        inputs=_inputs(folder, bad),
        root=folder,
        artifacts=folder / "artifacts",
        bad=bad,
        series=lambda ledger: series(folder / "metrics", ledger),
    )
    files = [path for _, path in files_below(folder, lambda *_: None)]
    names = [str(path.relative_to(folder)) for path in files]
    found = Digest(names, experiment)
    found.update([(fingerprint([path]),) for path in files if os.access(path, os.R_OK)])
    return build(told, found.hexdigest(), files)


def _inputs(folder: Path, bad: list[str]) -> list[Any]:
    """Return what the run says of its data sets and models."""
    found = []
    for name in ("inputs", "outputs"):
        for each in _folders(folder / name):
            said = meta(each)
            if said is None:
                bad.append(str(each))
                continue
            data_set = meta(folder.parent / "datasets" / str(said.get("source_id", "")).strip("./"))
            found.append({"kind": name, **said, **({"dataset": data_set} if data_set else {})})
    return found


# ---- metrics -----------------------------------------------------------------------------------


def series(folder: Path, ledger: Ledger) -> Iterator[Points]:
    """Yield the points of all metrics of a run, in order of time; each file keeps its own order."""
    from blackboxml.converters.mlflow.series import Names, entries, points

    def refused(where: str, why: str) -> None:
        ledger.unreadable("scalar", f"a file of a metric that is not read: {why}", where=where)

    found = list(files_below(folder, refused))
    streams = [_values(name, path, at, ledger) for at, (name, path) in enumerate(found)]
    merged = heapq.merge(*streams, key=lambda value: (value[0], value[1], value[2]))
    names = Names()
    return points(entries(((name, *rest) for *rest, name in _turned(merged)), names), names)


def _turned(merged: Iterator[tuple[int, int, int, float, str]]) -> Iterator[tuple[Any, ...]]:
    """Yield time, step, value and name."""
    return ((time, step, value, name) for time, step, _, value, name in merged)


def _values(
    name: str, path: Path, at: int, ledger: Ledger
) -> Iterator[tuple[int, int, int, float, str]]:
    """Yield ms, step, place, value and name of the lines of a metric."""
    for offset, line in _lines(path, ledger):
        value = _parse(line)
        if value is None:
            what = "a line that is no time, value and step"
            ledger.unreadable("scalar", what, where=f"{path}, byte {offset}")
        else:
            time, number, step, data_set = value
            if data_set:
                what = "the data set that MLflow names with a value of a metric"
                ledger.lost("field", what, where=name)
            yield time, step, at, number, name


def _parse(line: bytes) -> tuple[int, float, int, bool] | None:
    """Return ms, value, step and whether a data set is named; the oldest stores had no step."""
    parts = line.split()
    if len(parts) not in _FIELDS:
        return None
    try:
        time, value = int(parts[0]), float(parts[1])
        step = int(parts[2]) if len(parts) > 2 else 0  # noqa: PLR2004 - columns
    except ValueError:
        return None
    whole = all(INT64_MIN <= each <= INT64_MAX for each in (time, step))
    return (time, value, step, len(parts) == _FIELDS[-1]) if whole else None


def _lines(path: Path, ledger: Ledger) -> Iterator[tuple[int, bytes]]:
    """Yield offset and text of each line; the file is open only while a part of it is read."""
    offset, rest = 0, b""
    while True:
        try:
            with open_plain(path) as file:
                file.seek(offset + len(rest))
                part = file.read(_PART)
        except OSError as error:
            ledger.refuse("scalar", error, where=str(path))
            return
        whole = rest + part
        if not part:
            if whole.strip():
                yield offset, whole
            return
        *lines, rest = whole.split(b"\n")
        for line in lines:
            if line.strip():
                yield offset, line
            offset += len(line) + 1
        if len(rest) > _LONGEST:
            ledger.unreadable("scalar", "a line without end", where=f"{path}, byte {offset}")
            return
