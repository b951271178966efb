"""Ray Tune's trial folders: `result.json`, `progress.csv`, `params.json`.

`result.json` has one JSON object for each report; `progress.csv` holds the same in a table, joined
by `/`, and is read where the other is missing. The step is `training_iteration`, the time
`timestamp`, in whole Unix seconds. `params.pkl` is never opened.
Source: https://docs.ray.io/en/latest/tune/api/loggers.html
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from blackboxml.base.files import raise_refusal
from blackboxml.foreign import delimited
from blackboxml.foreign.hyperparameters import read_json
from blackboxml.foreign.interchange import (
    ForeignRun,
    Ledger,
    Point,
    Restart,
    fingerprint,
    flatten,
    is_plain,
    open_plain,
)
from blackboxml.foreign.values import Names, number, to_medium

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from blackboxml.foreign.interchange import Item
    from blackboxml.model import Number, Status

EXTRA: Final = None

RESULT: Final = "result.json"
PROGRESS: Final = "progress.csv"
PARAMS: Final = "params.json"
ERRORS: Final = ("error.txt", "error.pkl")

STEP: Final = "training_iteration"
TIME: Final = "timestamp"

_CONFIG: Final = "config"
_LONGEST_LINE: Final = 2**26


def recognise(path: Path) -> bool:
    """Tell whether a folder holds the results of a trial."""
    if is_plain(path / RESULT):
        with open_plain(path / RESULT) as file:
            line = file.readline(_LONGEST_LINE)
        return STEP.encode() in line or (not line and (path / PARAMS).is_file())
    return (path / PROGRESS).is_file() and STEP in delimited.header(path / PROGRESS)


def members(path: Path) -> set[str]:
    """Return the files of a trial."""
    del path
    return {RESULT, PROGRESS, PARAMS, "params.pkl", *ERRORS}


def read(path: Path) -> Iterator[ForeignRun]:
    """Yield the one run of a folder."""
    names = (RESULT, PROGRESS, PARAMS, *ERRORS)
    files = [path / name for name in names if (path / name).is_file()]
    config, why = _params(path)
    first, last = _ends(path)
    config = config or _object(first.get(_CONFIG))
    failed = next((path / name for name in ERRORS if (path / name).is_file()), None)
    status: Status | None = "completed" if last.get("done") is True else None

    def items(ledger: Ledger) -> Iterator[Item]:
        if why:
            ledger.unreadable("config", "the parameters cannot be read", where=why)
        return _items(path, ledger)

    yield ForeignRun(
        source=str(path),
        key="",
        fingerprint=fingerprint(files),
        name=str(last.get("trial_name") or last.get("experiment_tag") or path.resolve().name),
        items=items,
        config=config,
        status="failed" if failed else status,
        exception=_exception(failed) if failed else None,
        environment={"hostname": last["hostname"]} if _is_text(last.get("hostname")) else {},
        extra={key: last[key] for key in ("trial_id", "experiment_id") if _is_text(last.get(key))},
        files=files,
    )


def _params(path: Path) -> tuple[dict[str, Any], str]:
    """Return the parameters of the trial, and why they cannot be read."""
    try:
        return read_json(path / PARAMS), ""
    except FileNotFoundError:
        return {}, ""
    except (OSError, ValueError) as error:
        raise_refusal(error)
        return {}, str(error)


def _exception(path: Path) -> dict[str, str]:
    """Return what is known of the error that ended a trial; a pickle is not opened."""
    text = ""
    if path.suffix == ".txt":
        with open_plain(path) as file:
            text = file.read(20_000).decode(errors="replace").strip()
    last = text.rpartition("\n")[2]
    kind, colon, message = last.partition(":")
    if not colon or not kind.replace(".", "").replace("_", "").isalnum():
        kind, message = "Error", last
    return {"type": kind.strip(), "message": message.strip(), "traceback": text}


def _ends(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the first and the last result that can be read."""
    first: dict[str, Any] = {}
    last: dict[str, Any] = {}
    for _, entry in _results(path, Ledger()):
        first = first or entry
        last = entry
    return first, last


def _results(path: Path, ledger: Ledger) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield place and content of each result."""
    if not (path / RESULT).is_file():
        for line, cells in delimited.rows(path / PROGRESS, ledger):
            values = {key: delimited.number(text) for key, text in cells.items()}
            yield (
                f"{path / PROGRESS}:{line}",
                {key: cells[key] if value is None else value for key, value in values.items()},
            )
        return
    with open_plain(path / RESULT) as file:
        offset = 0
        for place, data in enumerate(file, start=1):
            where = f"{path / RESULT}:{place} (byte {offset})"
            offset += len(data)
            if not data.strip():
                continue
            try:
                entry = json.loads(data)
            except (ValueError, RecursionError):
                ledger.unreadable("step", "a line is no JSON", where=where)
                continue
            if isinstance(entry, dict):
                yield where, entry
            else:
                ledger.unreadable("step", "a line holds no object", where=where)


def _items(path: Path, ledger: Ledger) -> Iterator[Item]:
    """Yield the results; an iteration that comes again is a trial that was restored."""
    names = Names(ledger)
    last: int | None = None
    texts: dict[str, Any] = {}
    for where, entry in _results(path, ledger):
        step = entry.get(STEP)
        if type(step) is not int:
            ledger.unreadable("step", f"a result has no {STEP}", where=where)
            continue
        if last is not None and step <= last:
            yield Restart(step)
        last = step
        time = number(entry.get(TIME))
        when = None if time is None else float(time)
        metrics: dict[str, Number] = {}
        for name, value in flatten(entry, "/").items():
            if name == STEP or name.partition("/")[0] == _CONFIG:
                continue
            if name == TIME and when is not None:
                continue
            scalar = number(value)
            if scalar is not None:
                metrics[names(name)] = scalar
            elif value is not None and (name not in texts or texts[name] != value):
                texts[name] = value  # a host's name stands in every result: once is enough
                yield to_medium(names(name), value, step, when, ledger)
        if metrics:
            yield Point(step, when, metrics)


def _object(value: Any) -> dict[str, Any]:
    """Return an object, or an empty one."""
    return value if isinstance(value, dict) else {}


def _is_text(value: Any) -> bool:
    """Tell whether a value is a text that is not empty."""
    return isinstance(value, str) and bool(value)
