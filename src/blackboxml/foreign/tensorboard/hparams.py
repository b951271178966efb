"""What stands beside the values in TensorBoard's event files: hyper-parameters, and the run itself.

TensorBoard's plugin for hyper-parameters keeps three messages, each as the metadata of a tag
`_hparams_/…`; `api.proto` and `plugin_data.proto` in
https://github.com/tensorflow/tensorboard/tree/master/tensorboard/plugins/hparams describe them.
This package keeps a run's own members in the same way, as JSON under the tag `_blackbox_/run`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from blackboxml.foreign.tensorboard import messages
from blackboxml.foreign.tensorboard.messages import (
    LENGTH,
    blobs,
    doubles,
    fields,
    integers,
    member,
    text,
)
from blackboxml.foreign.tensorboard.records import CHUNK, is_intact, read_chunks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from blackboxml.foreign.tensorboard.messages import Metadata, View

HPARAMS: Final = "hparams"
OWN: Final = "blackbox"
OWN_TAG: Final = "_blackbox_/run"
START_TAG: Final = "_hparams_/session_start_info"
END_TAG: Final = "_hparams_/session_end_info"

_NEEDLES: Final = (b"_hparams_/", b"_blackbox_/")
_DEEPEST: Final = 32
_EXPERIMENT, _SESSION_START, _SESSION_END = 2, 3, 4
_DISCRETE, _INTERVAL = 5, 6
_TYPES: Final = {1: "string", 2: "bool", 3: "float64"}
_SETS: Final = {1: "training", 2: "validation"}
_STATUSES: Final = {1: "completed", 2: "failed", 3: "running"}


def find_metadata(path: Path) -> Iterator[Metadata]:
    """Yield what an event file says about hyper-parameters and the run, without reading the rest.

    Raises:
        OSError: If the file cannot be read.
    """
    if not _has_needle(path):
        return
    for chunk in read_chunks(path, lambda *_: None):
        for row in sorted({row for needle in _NEEDLES for row in _rows(chunk, needle)}):
            start = int(chunk.starts[row])
            end = start + int(chunk.lengths[row])
            if is_intact(chunk.data, start, end):
                yield from _metadata(chunk.data[start:end])


def _has_needle(path: Path) -> bool:
    """Tell whether a file may hold what is looked for."""
    tail = b""
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            data = tail + block
            if any(needle in data for needle in _NEEDLES):
                return True
            tail = block[-max(map(len, _NEEDLES)) :]
    return False


def _rows(chunk: Any, needle: bytes) -> Iterator[int]:
    """Yield the records of a chunk in which some bytes stand."""
    at = chunk.data.find(needle)
    while at >= 0:
        row = int(np.searchsorted(chunk.starts, at, side="right")) - 1
        if row >= 0:
            yield row
        at = chunk.data.find(needle, at + 1)


def _metadata(data: bytes) -> Iterator[Metadata]:
    try:
        event = messages.read_event(data)
        if event.what == messages.SUMMARY:
            for value, _ in messages.read_values(event.data):
                if value.metadata and value.metadata.plugin in {HPARAMS, OWN}:
                    yield value.metadata
    except messages.MalformedError:
        return


# -- reading


def read_hparams(content: View) -> dict[str, Any]:
    """Return what a message of the plugin says, by the names of its members.

    Raises:
        MalformedError: If it is none.
    """
    members = blobs(content)
    if _EXPERIMENT in members:
        return {"experiment": _read_experiment(members[_EXPERIMENT])}
    if _SESSION_START in members:
        return _read_start(members[_SESSION_START])
    if _SESSION_END in members:
        end = members[_SESSION_END]
        status = _STATUSES.get(integers(end).get(1, 0))
        return {"status": status, "end_time_secs": doubles(end).get(2, 0.0)}
    return {}


def _several(data: View, number: int) -> list[Any]:
    """Return the members of a number that are messages or texts."""
    return [each.value for each in fields(data) if each.number == number and each.wire == LENGTH]


def _texts(data: View, names: Mapping[int, str]) -> dict[str, Any]:
    """Return the members that are texts and not empty, by name."""
    members = blobs(data)
    return {name: text(members[key]) for key, name in names.items() if len(members.get(key, b""))}


def _read_start(data: View) -> dict[str, Any]:
    found = _texts(data, {2: "model_uri", 3: "monitor_url", 4: "group_name"})
    pairs = map(blobs, _several(data, 1))
    found["hparams"] = {text(pair.get(1, b"")): _read_json(pair.get(2, b"")) for pair in pairs}
    if start := doubles(data).get(5):
        found["start_time_secs"] = start
    return found


def _read_json(data: View, depth: int = 0) -> Any:
    """Return a `google.protobuf.Value`."""
    if depth > _DEEPEST:
        raise messages.MalformedError("a value is nested too deep")
    value: Any = None
    for number, wire, member_value, _ in fields(data):
        match number, wire:
            case 2, messages.FIXED64:
                value = messages.double(member_value)
            case 3, messages.LENGTH:
                value = text(member_value)
            case 4, messages.VARINT:
                value = bool(member_value)
            case 5, messages.LENGTH:
                pairs = map(blobs, _several(member_value, 1))
                value = {
                    text(pair.get(1, b"")): _read_json(pair.get(2, b""), depth + 1)
                    for pair in pairs
                }
            case 6, messages.LENGTH:
                value = [_read_json(each, depth + 1) for each in _several(member_value, 1)]
    return value


def _read_experiment(data: View) -> dict[str, Any]:
    found = _texts(data, {6: "name", 1: "description", 2: "user"})
    if created := doubles(data).get(3):
        found["time_created_secs"] = created
    for number, name, read in ((4, "hparams", _read_info), (5, "metrics", _read_metric)):
        if several := [read(each) for each in _several(data, number)]:
            found[name] = several
    return found


def _read_info(data: View) -> dict[str, Any]:
    """Return what is said about one hyper-parameter."""
    found = _texts(data, {1: "name", 2: "display_name", 3: "description"})
    if form := _TYPES.get(integers(data).get(4, 0)):
        found["type"] = form
    members = blobs(data)
    if _DISCRETE in members:
        found["domain"] = [_read_json(each) for each in _several(members[_DISCRETE], 1)]
    if _INTERVAL in members:
        ends = doubles(members[_INTERVAL])
        found["interval"] = [ends.get(1, 0.0), ends.get(2, 0.0)]
    return found


def _read_metric(data: View) -> dict[str, Any]:
    """Return what is said about one metric."""
    found = _texts(blobs(data).get(1, b""), {1: "group", 2: "tag"})
    found |= _texts(data, {3: "display_name", 4: "description"})
    if dataset := _SETS.get(integers(data).get(5, 0)):
        found["dataset"] = dataset
    return found


# -- writing


def write_start(hparams: Mapping[str, float | str], start: float) -> bytes:
    """Return the message that says with which hyper-parameters a run began."""
    said = b"".join(
        member(1, member(1, name) + member(2, _write_json(value)))
        for name, value in hparams.items()
    )
    said += member(5, start)
    return _tagged(START_TAG, HPARAMS, member(_SESSION_START, said))


def write_end(status: str, end: float) -> bytes:
    """Return the message that says how a run ended."""
    number = next((key for key, word in _STATUSES.items() if word == status), 0)
    said = (member(1, number) if number else b"") + member(2, end)
    return _tagged(END_TAG, HPARAMS, member(_SESSION_END, said))


def write_own(said: Mapping[str, Any]) -> bytes:
    """Return what this package says about a run."""
    content = json.dumps(said, ensure_ascii=True, allow_nan=False)
    return _tagged(OWN_TAG, OWN, content.encode())


def _write_json(value: float | str) -> bytes:
    if isinstance(value, bool):
        return member(4, value)
    return member(3, value) if isinstance(value, str) else member(2, float(value))


def _tagged(tag: str, plugin: str, content: bytes) -> bytes:
    """Return a summary that says something about a tag, and has no value."""
    said = messages.metadata(plugin, content)
    return member(1, member(1, tag) + member(9, said))
