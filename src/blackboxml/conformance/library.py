"""Answers of this library: what its reader gives, what its validator says."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path, PurePath
from typing import IO, TYPE_CHECKING, Any, Final

from blackboxml.base.files import Directory
from blackboxml.base.naming import parse_journal_name
from blackboxml.base.scalar import spell
from blackboxml.conformance.answer import AdapterError
from blackboxml.errors import (
    BlackboxError,
    Findings,
    FormatError,
    NotARunError,
    TableError,
    UnsafePathError,
)
from blackboxml.journal.merge import find_journals
from blackboxml.journal.scan import Scan
from blackboxml.journal.table import METRIC, STATISTIC
from blackboxml.model import INT64_MAX, INT64_MIN, LIMITS
from blackboxml.reader import open_run
from blackboxml.validation import validate
from blackboxml.version import __version__

if TYPE_CHECKING:
    import pyarrow as pa

    from blackboxml.conformance.answer import Operation
    from blackboxml.model import JournalFile
    from blackboxml.reader import RunReader

_MOST_EXACT: Final = 2**53 - 1
_PLACE: Final = ("file", "line", "offset", "pointer")
_INDEX: Final = ("step", "time", "attempt", "rank", "seq")
_TYPES: Final = {"bool": "bool", "int64": "int64", "double": "float64"}

_DAMAGE: Final = frozenset(
    [f"BB-JNL-{number:03}" for number in (1, 2, 3, 4, 5, 7, 8, 12, 13)]
    + ["BB-GRP-001", "BB-GRP-002", "BB-GRP-003", "BB-LIM-001"]
)
"""What makes a line no record."""

_LEFT_OUT: Final = frozenset(["BB-MRG-008", "BB-VER-001", "BB-VER-006"])


class Library:
    """This library as an adapter."""

    @property
    def hello(self) -> dict[str, Any]:
        """What it says of itself."""
        claims = ["read", "tables", "validate"]
        return {"name": "blackboxml", "version": __version__, "claims": claims}

    def ask(self, operation: Operation, run: Path) -> dict[str, Any]:
        """Return the answer to a request."""
        if operation == "read":
            return read(run)
        if operation == "validate":
            return judge(run)
        raise AdapterError(f"there is no operation {operation!r:.80}")


def serve(source: IO[str], sink: IO[str]) -> None:
    """Answer requests line by line, as `fixtures/README.md` says, until there are no more."""
    library = Library()
    for line in source:
        request: Any = None
        try:
            request = json.loads(line)
            operation = request["operation"]
            answer = (
                library.hello
                if operation == "hello"
                else {operation: library.ask(operation, Path(request["run"]))}
            )
        except Exception as error:  # noqa: BLE001 - the other side is told, and goes on
            answer = {"error": f"{type(error).__name__}: {error}"}
        known = request.get("id") if isinstance(request, dict) else None
        sink.write(json.dumps({"id": known, **answer}) + "\n")
        sink.flush()


def judge(path: Path) -> dict[str, Any]:
    """Return verdict and findings of a run."""
    try:
        report = validate(path)
    except NotARunError:
        return {"verdict": "unreadable", "findings": []}
    findings = []
    for problem in report.problems:
        finding: dict[str, Any] = {"rule": problem.rule, "severity": problem.severity}
        place = {key: getattr(problem, key) for key in _PLACE}
        finding |= {key: each for key, each in place.items() if each is not None}
        if not problem.file:
            del finding["file"]
        findings.append(finding)
    return {"verdict": report.verdict, "findings": findings}


def read(path: Path) -> dict[str, Any]:
    """Return what a reader gives of a run."""
    try:
        reader = open_run(path)
    except (NotARunError, FormatError, UnsafePathError):
        return {"refused": True}
    survey = _Survey(reader)
    answer: dict[str, Any] = {
        "id": reader.id,
        "name": reader.manifest.get("name"),
        "tags": reader.tags,
        "status": reader.status,
        "start": reader.manifest.get("start"),
        "end": reader.manifest.get("end"),
        "exception": reader.manifest.get("exception"),
        "config": tree(reader.config),
        "groups": [_group(reader, group, survey) for group in reader.groups],
        "lost": survey.lost(),
    }
    problems = reader.problems
    answer["damaged"] = [
        {"file": each.file, "line": each.line, "offset": each.offset}
        for each in problems
        if each.rule in _DAMAGE and each.line is not None
    ]
    answer["left_out"] = sorted(
        {
            each.file
            for each in problems
            if each.rule in _LEFT_OUT and parse_journal_name(each.file) is not None
        }
    )
    return answer


def _group(reader: RunReader, group: str, survey: _Survey) -> dict[str, Any]:
    """Return the rows and columns of a group."""
    try:
        table = reader.arrow(group, "all")
        counting = set(_places(reader.arrow(group, "effective")))
    except (TableError, UnsafePathError):
        return {"group": group, "unreadable": True}
    found: dict[str, Any] = {"group": group}
    for name in _INDEX:
        found[name] = [_spell(value) for value in table.column(name).to_pylist()]
    found["effective"] = [place in counting for place in _places(table)]
    found["columns"] = [
        _column(field, values, survey)
        for field, values in list(zip(table.schema, table.columns, strict=True))[len(_INDEX) :]
    ]
    return found


def _column(field: pa.Field, values: pa.ChunkedArray, survey: _Survey) -> dict[str, Any]:
    """Return one column."""
    column: dict[str, Any] = {"metric": field.metadata[METRIC].decode()}
    if STATISTIC in field.metadata:
        column["statistic"] = field.metadata[STATISTIC].decode()
    else:
        column |= survey.said.get(column["metric"], {})
    column["type"] = _TYPES[str(field.type)]
    column["values"] = [_spell(value) for value in values.to_pylist()]
    return column


def _places(table: pa.Table) -> list[tuple[int, int, int]]:
    """Return attempt, rank and `seq` of each row."""
    columns = [table.column(name).to_pylist() for name in ("attempt", "rank", "seq")]
    return list(zip(*columns, strict=True))


class _Survey:
    """What the journals hold beside values.

    Attributes:
        said: Unit and description by metric.
    """

    def __init__(self, reader: RunReader) -> None:
        """Read every journal; a packed run has none, and its manifest says the units."""
        self.said: dict[str, dict[str, str]] = {}
        self._seqs: dict[tuple[int, int], set[int]] = {}
        self._ends: dict[tuple[int, int], int] = {}
        groups = reader.manifest.get("groups", {}).values() if reader.packed else []
        for name, stated in (pair for group in groups for pair in group["metrics"].items()):
            self._describe(name, stated)
        with Directory(reader.path) as directory:
            journals = find_journals(directory, LIMITS, None, reader.id, share=False)
            for journal in [] if reader.packed else journals:
                self._read(journal, directory)

    def _read(self, journal: JournalFile, directory: Directory) -> None:
        """Read one journal."""
        place = journal.attempt, journal.rank
        seqs = self._seqs.setdefault(place, set())
        scan = Scan(journal, set(), Findings())
        for block in scan.blocks(directory):
            for _, _, document, _ in scan.good(block):
                seqs.add(document["seq"])
                if "describe" in document:
                    self._describe(document["describe"]["metric"], document["describe"])
        self._ends[place] = max(self._ends.get(place, 0), journal.first_seq)

    def _describe(self, metric: str, said: dict[str, Any]) -> None:
        """Keep what is said of a metric; what comes later wins, member by member."""
        members = {key: said[key] for key in ("unit", "description") if key in said}
        self.said[metric] = self.said.get(metric, {}) | members

    def lost(self) -> list[dict[str, Any]]:
        """Return the ranges of `seq` that no journal of their attempt and rank holds."""
        return [
            {
                "attempt": attempt,
                "rank": rank,
                "first": _spell(first),
                "last": _spell(last),
            }
            for (attempt, rank), seqs in self._seqs.items()
            for first, last in _gaps(sorted(seqs), self._ends[attempt, rank])
        ]


def _gaps(seqs: list[int], end: int) -> list[tuple[int, int]]:
    """Return the ranges between numbers that ascend from 0, and before an end."""
    found, due = [], 0
    for seq in [*seqs, max(end, seqs[-1] + 1 if seqs else 0)]:
        if seq > due:
            found.append((due, seq - 1))
        due = seq + 1
    return found


def tree(value: Any) -> Any:  # noqa: C901, PLR0911 - one for each type
    """Return a value of a configuration in the corpus's spelling."""
    match value:
        case None | bool() | str():
            return value
        case int():
            fits = INT64_MIN <= value <= INT64_MAX
            return {"int64": _spell(value)} if fits else {"int": str(value)}
        case float():
            return {"float64": _spell(value)}
        case bytes():
            return {"bytes": base64.b64encode(value).decode()}
        case PurePath():
            return {"path": str(value)}
        case tuple():
            return {"tuple": [tree(each) for each in value]}
        case list():
            return [tree(each) for each in value]
        case dict():
            tag = next(iter(value), None)
            if len(value) == 1 and tag == "$dict":  # with keys that Python has not
                return {"mapping": [[tree(key), tree(each)] for key, each in value[tag]]}
            if len(value) == 1 and isinstance(tag, str) and tag.startswith("$"):
                return {"unknown": [tag, tree(value[tag])]}
            return {"mapping": [[tree(key), tree(each)] for key, each in value.items()]}
    raise BlackboxError(f"a configuration gave {type(value).__name__}")


def _spell(value: Any) -> Any:
    """Return a number as it stands in the corpus."""
    if isinstance(value, float):
        return "-0.0" if value == 0 and math.copysign(1, value) < 0 else spell(value)
    if type(value) is int and abs(value) > _MOST_EXACT:
        return str(value)
    return value
