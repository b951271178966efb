"""Hugging Face Transformers' `trainer_state.json`, in an output folder or its checkpoints.

`log_history` is a list of what was logged, each with `step` and `epoch`; a later checkpoint holds
all that an earlier one does. No times and no status are recorded.
Source: https://huggingface.co/docs/transformers/main_classes/callback#transformers.TrainerState
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from blackboxml.base.files import raise_refusal
from blackboxml.foreign.hyperparameters import read_json
from blackboxml.foreign.interchange import (
    ForeignRun,
    Point,
    Restart,
    fingerprint,
    is_plain,
)
from blackboxml.foreign.values import Names, separate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from blackboxml.foreign.interchange import Item, Ledger

EXTRA: Final = None

STATE: Final = "trainer_state.json"

_CHECKPOINT: Final = re.compile(r"checkpoint-([0-9]+)")
_OWN: Final = frozenset(["log_history", "trial_params", "trial_name"])


def recognise(path: Path) -> bool:
    """Tell whether a folder, or a checkpoint in it, holds the state of a trainer."""
    return path.is_dir() and any(_is_state(each) for each in _states(path))


def members(path: Path) -> set[str]:
    """Return the state and the checkpoints."""
    return {STATE, *(each.parent.name for each in _states(path) if each.parent != path)}


def read(path: Path) -> Iterator[ForeignRun]:
    """Yield the run of a folder, and one for each checkpoint that holds something else."""
    states = []
    for place in _states(path):
        try:
            states.append((place, read_json(place)))
        except (OSError, ValueError) as error:
            raise_refusal(error)
            yield _unreadable(place, str(error))
    states.sort(key=lambda each: len(_history(each[1])), reverse=True)
    taken: list[list[Any]] = []
    for place, state in states:
        history = _history(state)
        if any(longer[: len(history)] == history for longer in taken):
            continue
        taken.append(history)
        key = "" if len(taken) == 1 else place.parent.name
        yield _run(path, key, place, state)


def _states(path: Path) -> list[Path]:
    """Return the files that may hold a state: that of the folder, then those of checkpoints."""
    below = [
        (int(found[1]), each / STATE)
        for each in path.iterdir()
        if (found := _CHECKPOINT.fullmatch(each.name)) and not each.is_symlink()
    ]
    places = [path / STATE, *(place for _, place in sorted(below, reverse=True))]
    return [place for place in places if is_plain(place)]


def _is_state(path: Path) -> bool:
    """Tell whether a file holds the state of a trainer, or is too damaged to say."""
    try:
        return isinstance(read_json(path).get("log_history"), list)
    except (OSError, ValueError) as error:
        raise_refusal(error)
        return True


def _history(state: dict[str, Any]) -> list[Any]:
    """Return what was logged."""
    history = state.get("log_history")
    return history if isinstance(history, list) else []


def _run(path: Path, key: str, place: Path, state: dict[str, Any]) -> ForeignRun:
    """Return the run that a state tells of."""
    config = state.get("trial_params")
    return ForeignRun(
        source=str(path),
        key=key,
        fingerprint=fingerprint([place]),
        name=str(state.get("trial_name") or path.resolve().name),
        items=lambda ledger: _items(place, _history(state), ledger),
        config=config if isinstance(config, dict) else {},
        extra={key: value for key, value in state.items() if key not in _OWN},
        files=[place],
    )


def _unreadable(place: Path, why: str) -> ForeignRun:
    """Return a run without content for a state that cannot be read."""

    def items(ledger: Ledger) -> Iterator[Item]:
        ledger.unreadable("step", "the state of the trainer cannot be read", where=why)
        return iter(())

    return ForeignRun(
        source=str(place.parent),
        key=place.name,
        fingerprint=fingerprint([place]),
        name=place.resolve().parent.name,
        items=items,
        files=[place],
    )


def _items(place: Path, history: list[Any], ledger: Ledger) -> Iterator[Item]:
    """Yield what was logged; a step that goes back is a training that was resumed."""
    names = Names(ledger)
    last: int | None = None
    for index, entry in enumerate(history):
        where = f"{place}#/log_history/{index}"
        step = entry.get("step") if isinstance(entry, dict) else None
        if type(step) is not int:
            ledger.unreadable("step", "an entry has no step", where=where)
            continue
        if last is not None and step < last:
            yield Restart(step)
        last = step
        values = {key: each for key, each in entry.items() if key != "step" and each is not None}
        metrics, media = separate(values, names, step, None, ledger)
        yield from media
        if metrics:
            yield Point(step, None, metrics)
