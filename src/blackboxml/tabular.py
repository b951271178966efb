"""Rows of a logger's table as points: one column is the step, the others are metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blackboxml import delimited
from blackboxml.foreign import Names
from blackboxml.hyperparameters import read_yaml
from blackboxml.interchange import ForeignRun, Medium, Point, Restart, fingerprint
from blackboxml.model import INT64_MAX

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from blackboxml.interchange import Item, Ledger


def points(
    path: Path,
    ledger: Ledger,
    *,
    step: str | None,
    leave_out: Collection[str] = (),
    restarts: bool = False,
) -> Iterator[Item]:
    """Yield the rows of a file of delimited text as points, in order.

    Numbers become metrics, texts media. No time is known.

    Args:
        path: The file.
        ledger: Receives what cannot be read.
        step: The column of the step; None for the number of the row, from 0.
        leave_out: Columns that are something else.
        restarts: Whether a step that is not above the last one means that the training went back.
    """
    names = Names(ledger)
    last: int | None = None
    for place, (line, cells) in enumerate(delimited.rows(path, ledger)):
        at = place if step is None else _step(cells.get(step))
        if at is None:
            what = f"a row has no {step} that is an integer"
            ledger.unreadable("step", what, where=f"{path}:{line}")
            continue
        if restarts and last is not None and at <= last:
            yield Restart(at)
        last = at
        metrics = {}
        for column, text in cells.items():
            if column == step or column in leave_out:
                continue
            value = delimited.number(text)
            if value is None:
                plain = text.encode(errors="backslashreplace").decode()
                yield Medium(names(column), "text", at, None, value=plain)
            else:
                metrics[names(column)] = value
        if metrics:
            yield Point(at, None, metrics)


def folder_run(
    path: Path, table: str, settings: str, extra: str, *, step: str, restarts: bool = False
) -> ForeignRun:
    """Return the run of a folder that holds a table, and perhaps its settings as YAML.

    It is called as the folder is.

    Args:
        path: The folder.
        table: Name of the file of delimited text.
        settings: Name of the file of hyper-parameters.
        extra: The extra of this package that brings PyYAML.
        step: As for `points`.
        restarts: As for `points`.
    """
    files = [path / name for name in (table, settings) if (path / name).is_file()]
    config, why = {}, ""
    try:
        config = read_yaml(path / settings, extra)
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        why = str(error)

    def items(ledger: Ledger) -> Iterator[Item]:
        if why:
            ledger.unreadable("config", "the hyper-parameters cannot be read", where=why)
        return points(path / table, ledger, step=step, restarts=restarts)

    return ForeignRun(
        source=str(path),
        key="",
        fingerprint=fingerprint(files),
        name=path.resolve().name,
        items=items,
        config=config,
        files=files,
    )


def _step(text: str | None) -> int | None:
    """Return the step in a cell; some loggers write it as `3.0`."""
    value = None if text is None else delimited.number(text)
    if value is None or isinstance(value, bool) or not abs(value) <= INT64_MAX:
        return None
    return int(value) if int(value) == value else None
