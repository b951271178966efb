"""Whether a plain sealed run is valid, proved in about a millisecond.

Plain is what most runs are once they have ended: small, one attempt of one process, each metric of
a group in each of its rows, files as this library spells them. What has to be said of such a run is
known beforehand, so it is made from the journal and compared with what is there, mostly as bytes.

This only ever says yes. Whatever it does not know, or finds otherwise, is looked at by the checks:
they alone say what is wrong, and what came of each rule.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import stat
from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

import orjson

from blackboxml import manifest as manifests
from blackboxml.base import naming, schema
from blackboxml.base.checksum import crc32
from blackboxml.errors import BlackboxError
from blackboxml.model import (
    CONFIG,
    CONFIG_FORMAT,
    DATASET_FORMAT,
    INT64_MAX,
    INT64_MIN,
    JOURNAL_FORMAT,
    MANIFEST,
    RUN_FORMAT,
    SUMS,
    TABLE_FORMAT,
    VERSION,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping

    from blackboxml.base.files import Directory
    from blackboxml.validation.exact import Column, Values

_JOURNAL: Final = "metrics.jsonl"
_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_MOST_FILES: Final = 32
_MOST_BYTES: Final = 2**19
_MOST_LEVELS: Final = 60
_SUFFIX_BYTES: Final = 18
_DIGITS: Final = re.compile(rb"[0-9]{19}")
_TOLERANCE: Final = 0.001
_POINT: Final = frozenset(["seq", "step", "time", "metrics", "crc"])
_END: Final = frozenset(["seq", "time", "end", "crc"])
_DESCRIBE: Final = frozenset(["seq", "time", "describe", "crc"])
_HEADER: Final = frozenset(
    ["format", "run", "rank", "attempt", "first_seq", "time", "process", "writer", "crc"]
)
_MANIFEST: Final = frozenset(manifests.ORDER) - {"exception", "lineage", "extensions"}
_ATTEMPT: Final = frozenset(["attempt", "start", "end", "status", "process"])
_ENDED: Final = frozenset(["completed", "interrupted"])
_TYPES: Final = {float: ("float64", "f8"), int: ("int64", "i8"), bool: ("bool", "?")}


_UNFIT: Final = (AttributeError, LookupError, OverflowError, TypeError, ValueError)
"""What a document raises that is not of the shape that is taken for granted."""


class Unproven(Exception):  # noqa: N818 - it is no error
    """The run is not plain, or not as it has to be."""


def prove(directory: Directory) -> Hashable | None:
    """Return what kind of plain run this is if it is a valid one, None if that is not proved.

    Runs of one kind are alike in all that decides which rules apply to them.
    """
    try:
        files = _read(directory)
        document = _document(files[MANIFEST], RUN_FORMAT, "manifest")
        journal = _Journal(files[_JOURNAL], document)
        config = CONFIG in files and _check_config(files[CONFIG])
        _check_manifest(document, journal)
        _check_files(files, document)
        others = _check_groups(files, document, journal)
    except (Unproven, BlackboxError, OSError, *_UNFIT):
        return None
    types = frozenset(kind for each in journal.groups.values() for kind in each.kinds.values())
    return config, others, types, len(journal.groups) > 1, bool(journal.said), journal.tagged


def _require(fact: object) -> None:
    """Give up unless something is so."""
    if not fact:
        raise Unproven


def _read(directory: Directory) -> dict[str, bytes]:
    """Return every file of a run that has only a few small ones."""
    names = os.listdir(directory.fd)
    _require(len(names) <= _MOST_FILES and _JOURNAL in names)
    _require(len({name.lower() for name in names}) == len(names))
    files: dict[str, bytes] = {}
    for name in sorted(names):
        descriptor = os.open(name, _OPEN, dir_fd=directory.fd)
        try:
            found = os.fstat(descriptor)
            _require(stat.S_ISREG(found.st_mode) and found.st_size < _MOST_BYTES)
            files[name] = os.read(descriptor, found.st_size + 1)
        finally:
            os.close(descriptor)
        _require(len(files[name]) == found.st_size)
    return files


def _document(data: bytes, form: str, name: str) -> Any:
    """Return a document that is spelled as this library spells it, and valid by its schema.

    What is spelled again byte for byte repeats no key and holds nothing that JSON cannot.
    """
    document = orjson.loads(data)
    _require(isinstance(document, dict))
    _require(manifests.encode(document) == data and b"\n" + b"  " * _MOST_LEVELS not in data)
    _require(document["format"] == {"name": form, "version": VERSION, "features": []})
    _require(schema.is_valid(name, document))
    return document


def _check_config(data: bytes) -> bool:
    """Check a configuration without tagged values."""
    document = _document(data, CONFIG_FORMAT, "config")
    _require(document.keys() == {"format", "config"})
    _require(b'"$' not in data and not _DIGITS.search(data))
    return True


class _Group:
    """The rows of one group.

    Attributes:
        names: Its metrics, in the order in which they are first seen.
        kinds: The type of each.
        columns: The values of each, one a row; of step, time and seq likewise.
    """

    __slots__ = ("columns", "kinds", "names", "rows", "seqs", "steps", "times")

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.kinds: dict[str, type] = {}
        self.columns: list[tuple[Any, ...]] = []
        self.steps: list[int] = []
        self.times: list[float] = []
        self.seqs: list[int] = []
        self.rows: list[Iterable[Any]] = []

    def close(self) -> None:
        """Turn rows into columns of one type each."""
        self.columns = list(zip(*self.rows, strict=True))
        for name, column in zip(self.names, self.columns, strict=True):
            (self.kinds[name],) = set(map(type, column))
        _require(_TYPES.keys() >= set(self.kinds.values()))


class _Journal:
    """A journal of points, descriptions and an end.

    Attributes:
        header: Its first line.
        events: The records that are no points, as the manifest lists them.
        records: How many records it has.
        said: Unit and description by metric.
        groups: The rows of each group.
        tagged: Whether its header has tags.
    """

    def __init__(self, data: bytes, document: dict[str, Any]) -> None:
        lines = data.split(b"\n")
        _require(lines.pop() == b"")
        for line in lines:
            head = line[:-_SUFFIX_BYTES]
            _require(line[-_SUFFIX_BYTES:] == b',"crc":"%08x"}' % crc32(head))
        text = b"[" + b",".join(lines) + b"]"
        self.header, *records = orjson.loads(text)
        _require(all(isinstance(each, dict) for each in (self.header, *records)))
        _require(orjson.dumps([self.header, *records]) == text)
        self._check_header(document)
        self.events: list[dict[str, Any]] = []
        self.said: dict[str, dict[str, str]] = {}
        self.groups: dict[str, _Group] = {}
        self.records = len(records)
        self._add(records)
        ends = [event["end"] for event in self.events if "end" in event]
        _require(ends == [{"status": document["status"]}] and "end" in self.events[-1])

    def _check_header(self, document: dict[str, Any]) -> None:
        """Check the first line."""
        header = self.header
        _require(header.keys() == _HEADER and schema.is_valid("journal-header", header))
        _require(header["format"] == {"name": JOURNAL_FORMAT, "version": VERSION, "features": []})
        numbers = [header[key] for key in ("rank", "attempt", "first_seq")]
        _require(numbers == [0, 0, 0] and set(map(type, numbers)) == {int})
        process = header["process"].values()
        _require(not any(type(value) is float for value in process))
        _require(header["run"]["id"] == document["id"])
        self.tagged = "tags" in header["run"]

    def _add(self, records: list[dict[str, Any]]) -> None:
        """Take in the records."""
        plans: dict[tuple[str, ...], list[tuple[_Group, Callable[[Any], Iterable[Any]]]]] = {}
        for seq, record in enumerate(records):
            time = record["time"]
            _require(record["seq"] == seq and type(record["seq"]) is int)
            _require(type(time) is float and math.isfinite(time))
            if record.keys() != _POINT:
                self._add_event(record)
                continue
            step, metrics = record["step"], record["metrics"]
            _require(type(step) is int and INT64_MIN <= step <= INT64_MAX and metrics)
            names = tuple(metrics)
            plan = plans.get(names)
            if plan is None:
                plan = plans[names] = self._plan(names)
            for group, pick in plan:
                group.steps.append(step)
                group.times.append(time)
                group.seqs.append(seq)
                group.rows.append(pick(metrics))
        for group in self.groups.values():
            group.close()

    def _plan(self, names: tuple[str, ...]) -> list[tuple[_Group, Callable[[Any], Iterable[Any]]]]:
        """Return the groups of a point with these metrics, and how to get the values of each."""
        parts: dict[str, list[str]] = {}
        for name in names:
            parts.setdefault(_group_of(name), []).append(name)
        plan = []
        for group, own in parts.items():
            known = self.groups.setdefault(group, _Group(tuple(own)))
            _require(known.names == tuple(own))  # in every row the same, in the same order
            several = len(parts) > 1
            plan.append((known, _picker(known.names) if several else dict.values))
        return plan

    def _add_event(self, record: dict[str, Any]) -> None:
        """Take in a description or an end."""
        _require(record.keys() == _DESCRIBE or record.keys() == _END)
        _require(schema.is_valid("journal-record", record))
        event = {key: value for key, value in record.items() if key != "crc"}
        self.events.append(event)
        if said := event.get("describe"):
            _require(said.keys() <= {"metric", "unit", "description"})
            texts = {key: text for key, text in said.items() if key != "metric"}
            self.said.setdefault(said["metric"], {}).update(texts)


def _picker(names: tuple[str, ...]) -> Callable[[Any], Iterable[Any]]:
    """Return what gives these members of a mapping."""
    if len(names) > 1:
        return itemgetter(*names)
    (name,) = names
    return lambda metrics: (metrics[name],)


def _check_manifest(document: dict[str, Any], journal: _Journal) -> None:
    """Check what the manifest says of the run as a whole."""
    _require(document.keys() == _MANIFEST and document["status"] in _ENDED)
    _require(document["sealed"].keys() == {"time", "packed"} and not document["sealed"]["packed"])
    (entry,) = document["attempts"]
    _require(entry.keys() == _ATTEMPT and entry["attempt"] == 0)
    _require(type(entry["attempt"]) is int)
    _require(all(entry[key] == document[key] for key in ("start", "end", "status")))
    _require(_same(entry["process"], journal.header["process"]))
    lasted = manifests.seconds(document["end"]) - manifests.seconds(document["start"])
    _require(lasted >= 0 and abs(lasted - document["duration_seconds"]) <= _TOLERANCE)
    manifests.seconds(document["sealed"]["time"])
    wanted = {
        "file": _JOURNAL,
        "rank": 0,
        "attempt": 0,
        "first_seq": 0,
        "records": journal.records,
        "time": float(journal.header["time"]),
        "process": journal.header["process"],
        "events": journal.events,
    }
    _require(_same(document["journals"], [wanted]))


def _check_files(files: dict[str, bytes], document: dict[str, Any]) -> None:
    """Check every size and digest, and that nothing is listed or there besides."""
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    wanted = {
        name: {"bytes": len(data), "sha256": digests[name]}
        for name, data in files.items()
        if name not in {MANIFEST, SUMS}
    }
    _require(document["files"] == wanted)
    _require(all(type(entry["bytes"]) is int for entry in document["files"].values()))
    sums = "".join(f"{digests[name]}  {name}\n" for name in files if name != SUMS)
    _require(files[SUMS] == sums.encode())


def _check_groups(files: dict[str, bytes], document: dict[str, Any], journal: _Journal) -> bool:
    """Check tables and datasets; tell whether there are files that no rule speaks of."""
    stems = _stems(tuple(journal.groups))
    _require(document["groups"].keys() == journal.groups.keys())
    known = {MANIFEST, SUMS, CONFIG, _JOURNAL}
    run = {"id": document["id"], "name": document["name"]}
    for name, group in journal.groups.items():
        known |= {f"{stems[name]}.parquet", f"{stems[name]}.h5"}
        _check_group(group, stems[name], document["groups"][name], journal.said)
        tables = (files[f"{stems[name]}.parquet"], files[f"{stems[name]}.h5"])
        _compare(tables, {**run, "group": name}, group, journal.said)
    others = files.keys() - known
    _require(all(_is_other(name) for name in others))
    return bool(others)


def _check_group(
    group: _Group, stem: str, stated: Any, said: Mapping[str, Mapping[str, str]]
) -> None:
    """Check what the manifest says of a group."""
    names = _names(group.names)
    last = max(range(len(group.steps)), key=lambda at: (group.steps[at], at))
    metrics = {}
    for at, (metric, kind) in enumerate(group.kinds.items()):
        column, variable = names[metric]
        metrics[metric] = {
            "type": _TYPES[kind][0],
            "column": column,
            "variable": variable,
            "count": len(group.seqs),
            "last": group.columns[at][last],
            **said.get(metric, {}),
        }
    wanted = {
        "rows": len(group.seqs),
        "superseded": 0,
        "table": f"{stem}.parquet",
        "dataset": f"{stem}.h5",
        "metrics": metrics,
    }
    _require(_same(stated, wanted))


def _compare(
    tables: tuple[bytes, bytes],
    whose: Mapping[str, str],
    group: _Group,
    said: Mapping[str, Mapping[str, str]],
) -> None:
    """Compare the table and the dataset of a group with its rows."""
    import numpy as np

    from blackboxml.validation.exact import Column, is_dataset, is_table

    rows = len(group.seqs)
    index: dict[str, Values] = {
        "step": np.array(group.steps, np.int64),
        "time": np.array(group.times, np.float64),
        "attempt": np.zeros(rows, np.int32),
        "rank": np.zeros(rows, np.int32),
        "seq": np.array(group.seqs, np.int64),
    }
    names = _names(group.names)
    columns: list[Column] = []
    for (metric, kind), values in zip(group.kinds.items(), group.columns, strict=True):
        texts = said.get(metric, {})
        array = np.array(values, _TYPES[kind][1])
        columns.append(
            Column(metric, *names[metric], array, texts.get("unit"), texts.get("description"))
        )
    form = {"name": TABLE_FORMAT, "version": VERSION, "features": []}
    run = {"id": whose["id"], "name": whose["name"]}
    document = orjson.dumps({"format": form, "run": run, "group": whose["group"]})
    _require(is_table(tables[0], index, columns, document))
    root = {"format": DATASET_FORMAT, "version": VERSION, "group": whose["group"]}
    root |= {"run_id": whose["id"], "run_name": whose["name"]}
    _require(is_dataset(tables[1], index, columns, root))


def _same(found: Any, wanted: Any) -> bool:
    """Tell whether two JSON values are spelled the same, but for the order of members."""
    option = orjson.OPT_SORT_KEYS
    return orjson.dumps(found, option=option) == orjson.dumps(wanted, option=option)


@lru_cache(4096)
def _group_of(name: str) -> str:
    """Return the group of a metric whose name can be one."""
    naming.check_metric_name(name)
    return naming.group_of(name)


@lru_cache(256)
def _names(metrics: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    """Return column and variable of each metric of a group."""
    columns = naming.column_names(metrics)
    variables = naming.variable_names(columns.values())
    return {metric: (column, variables[column]) for metric, column in columns.items()}


@lru_cache(256)
def _stems(groups: tuple[str, ...]) -> dict[str, str]:
    """Return the name of the files of each group."""
    return naming.file_stems(groups)


@lru_cache(256)
def _is_other(name: str) -> bool:
    """Tell whether a file is one that no rule speaks of."""
    return name in {"console.log", "report.md"}
