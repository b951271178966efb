"""Journals made by hand, and what the specification says of them.

Nothing here uses the library, so that both sides of a comparison are independent: lines are
spelled with the json module, and `expect` follows the steps of the chapters journal, merge, groups
and tables one by one.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from jsonschema.validators import extend
from referencing import Registry, Resource

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Files = dict[str, bytes]
Place = tuple[int, int, int]

RUN_ID = "0123456789abcdef0123456789abcdef"
RUN_NAME = "by hand"
STATISTICS = ("mean", "min", "max", "std", "count")
TIME = 1795270921.25
NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

# -- spelling


def seal_line(head: bytes | str) -> bytes:
    """Return a line from the text of an object without its last brace."""
    data = head.encode() if isinstance(head, str) else head
    return data + b',"crc":"%08x"}\n' % crc32(data)


def line(document: Mapping[str, Any]) -> bytes:
    """Return a document as a line."""
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return seal_line(text[:-1])


def point(
    seq: int,
    metrics: Mapping[str, Any] | None = None,
    step: int | None = None,
    ranks: Mapping[str, Mapping[str, Any]] | None = None,
    **other: Any,
) -> bytes:
    """Return a metrics record; its step is its `seq` if it is not given."""
    document: dict[str, Any] = {
        "seq": seq,
        "step": seq if step is None else step,
        "time": TIME + seq,
        "metrics": {name: spell(value) for name, value in (metrics or {}).items()},
    }
    if ranks is not None:
        document["ranks"] = {
            name: {key: spell(value) for key, value in values.items()}
            for name, values in ranks.items()
        }
    return line(document | other)


def event(seq: int, **kind: Any) -> bytes:
    """Return a record of another kind, such as `rewind={"step": 3}`."""
    return line({"seq": seq, "time": TIME + seq, **kind})


def end(seq: int, status: str = "completed", **other: Any) -> bytes:
    """Return an `end` record."""
    return event(seq, end={"status": status, **other})


def header(
    rank: int = 0,
    attempt: int = 0,
    first_seq: int = 0,
    *,
    process: Mapping[str, Any] | None = None,
    run_id: str = RUN_ID,
    **other: Any,
) -> bytes:
    """Return the header of a journal, of a process that is dead unless one is given."""
    document = {
        "format": {"name": "blackbox-journal", "version": "1.0", "features": []},
        "run": {"id": run_id, "name": RUN_NAME},
        "rank": rank,
        "attempt": attempt,
        "first_seq": first_seq,
        "time": TIME - 1,
        "process": dict(process or dead_process()),
        "writer": {"name": "by-hand", "version": "1"},
    }
    return line(document | other)


def spell(value: Any) -> Any:
    """Return a value as it stands in a record."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def live_process() -> dict[str, Any]:
    """Return the identity of this process."""
    stat = Path("/proc/self/stat").read_text("utf-8")
    return {
        "host": os.uname().nodename,
        "pid": os.getpid(),
        "started": int(stat.rpartition(")")[2].split()[19]),
        "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip(),
        "pid_namespace": Path("/proc/self/ns/pid").stat().st_ino,
    }


def dead_process() -> dict[str, Any]:
    """Return the identity of a process that had this pid before: it is proven to be gone."""
    return live_process() | {"started": 1}


def write(path: Path, files: Files) -> Path:
    """Write files into a new directory, and return it."""
    path.mkdir(parents=True)
    for name, data in files.items():
        (path / name).write_bytes(data)
    return path


# -- what the specification says


@dataclass
class Journal:
    """One journal as the steps of chapter journal read it."""

    name: str
    rank: int
    ordinal: int
    attempt: int = -1
    first_seq: int = 0
    run_id: str | None = None
    records: dict[int, tuple[bytes, dict[str, Any]]] = field(default_factory=dict)
    damaged: list[int] = field(default_factory=list)
    intact: bool = False


@dataclass
class Column:
    """One column of a table behind the first five."""

    name: str
    kind: str
    metric: str
    statistic: str | None


@dataclass
class Expected:
    """What a reader has to say of some journals."""

    records: list[tuple[Place, dict[str, Any]]]
    lost: list[tuple[int, int, int, int]]
    damaged: dict[str, list[int]]

    def points(self, view: str = "effective") -> list[tuple[Place, dict[str, Any]]]:
        """Return the metrics records of a view, in merge order."""
        cut: dict[int, int] = {}
        found = []
        for place, document in reversed(self.records):
            rank = place[1]
            if "rewind" in document:
                step = document["rewind"]["step"]
                cut[rank] = min(cut.get(rank, step), step)
            if "metrics" in document and not (
                view == "effective" and rank in cut and document["step"] >= cut[rank]
            ):
                found.append((place, document))
        return found[::-1]

    def metrics(self) -> list[str]:
        """Return all names in first-seen order."""
        names: dict[str, None] = {}
        for _, document in self.records:
            names |= dict.fromkeys(document.get("metrics", {}))
            names |= dict.fromkeys(document.get("ranks", {}))
        return list(names)

    def groups(self) -> dict[str, list[str]]:
        """Return the metrics of each group."""
        found: dict[str, list[str]] = {}
        for name in self.metrics():
            found.setdefault(group_of(name), []).append(name)
        return found

    def columns(self, group: str) -> list[Column]:
        """Return the columns of a table by BB-GRP-004 to BB-GRP-006."""
        metrics = self.groups()[group]
        plain = {name: column_of(name) for name in metrics}
        taken = set(plain.values())
        found = []
        for name in metrics:
            found.append(Column(plain[name], self._type(name, None) or "double", name, None))
            for statistic in STATISTICS:
                kind = self._type(name, statistic)
                if kind is None:
                    continue
                column = f"{plain[name]}/{statistic}"
                while column in taken:
                    column = f"{column.removesuffix(f'/{statistic}')}/ranks/{statistic}"
                taken.add(column)
                found.append(Column(column, kind, name, statistic))
        return found

    def rows(self, group: str, view: str = "effective") -> list[list[Any]]:
        """Return the rows of a table, the first five columns included."""
        columns = self.columns(group)
        found = []
        for (attempt, rank, seq), document in self.points(view):
            named = [*document["metrics"], *document.get("ranks", {})]
            if not any(group_of(name) == group for name in named):
                continue
            row = [document["step"], float(document["time"]), attempt, rank, seq]
            row += [_cell(value_of(document, each), each.kind) for each in columns]
            found.append(row)
        return found

    def _type(self, metric: str, statistic: str | None) -> str | None:
        column = Column("", "", metric, statistic)
        kinds = {
            type(value)
            for _, document in self.records
            if "metrics" in document and (value := value_of(document, column)) is not None
        }
        for kind, name in ((float, "double"), (int, "int64"), (bool, "bool")):
            if kind in kinds:
                return name
        return None


def expect(files: Files) -> Expected:
    """Return what the journals among some files say, by the steps of chapter merge."""
    journals = [each for name in files if (each := _read(name, files[name])) is not None]
    journals.sort(key=lambda each: (each.rank, each.ordinal))
    ids = [each.run_id for each in journals if each.intact]
    journals = [each for each in journals if not each.intact or each.run_id == ids[0]]
    previous: dict[int, Journal] = {}
    for each in journals:
        if not each.intact:
            _place(each, previous.get(each.rank))
        previous[each.rank] = each
    sessions: dict[tuple[int, int], list[Journal]] = {}
    for each in journals:
        sessions.setdefault((each.attempt, each.rank), []).append(each)
    records: list[tuple[Place, dict[str, Any]]] = []
    lost: list[tuple[int, int, int, int]] = []
    for (attempt, rank), session in sorted(sessions.items()):
        held: dict[int, dict[str, Any]] = {}
        for each in session:
            held |= {seq: document for seq, (_, document) in each.records.items()}
        count = max([*(seq + 1 for seq in held), *(each.first_seq for each in session)])
        missing = [seq for seq in range(count) if seq not in held]
        lost += [(attempt, rank, low, high) for low, high in ranges(missing)]
        records += [((attempt, rank, seq), held[seq]) for seq in sorted(held)]
    return Expected(records, lost, {each.name: each.damaged for each in journals})


def has_header(files: Files) -> bool:
    """Return whether a journal among some files has an intact header."""
    return any(each.intact for name in files if (each := _read(name, files[name])) is not None)


def _read(name: str, data: bytes) -> Journal | None:
    match = re.fullmatch(r"metrics(?:\.r([1-9][0-9]*))?(?:\.([1-9][0-9]*))?\.jsonl", name)
    lines = data.split(b"\n")[:-1]
    if match is None or not lines:
        return None
    journal = Journal(name, int(match[1] or 0), int(match[2] or 0))
    document = decode(lines[0])
    if document is not None and _schema("journal-header").is_valid(document):
        journal.intact = True
        journal.run_id = document["run"]["id"]
        journal.attempt, journal.first_seq = document["attempt"], document["first_seq"]
    else:
        journal.damaged.append(0)
    offset = len(lines[0]) + 1
    for each in lines[1:]:
        document = decode(each)
        if document is None or not (_is_simple(document) or is_record(document)):
            journal.damaged.append(offset)
        elif not journal.records or document["seq"] > max(journal.records):
            journal.records[document["seq"]] = (each, _values(document))
        offset += len(each) + 1
    return journal


def _place(journal: Journal, previous: Journal | None) -> None:
    """Give a journal with a damaged header its place."""
    first = next(iter(journal.records), None)
    if previous is None:
        journal.attempt, journal.first_seq = 0, 0
    elif any("end" in document for _, document in previous.records.values()):
        journal.attempt, journal.first_seq = previous.attempt + 1, 0
    elif (
        first is not None
        and (first > 0 or first in previous.records)
        and all(
            line == previous.records[seq][0]
            for seq, (line, _) in journal.records.items()
            if seq in previous.records
        )
    ):
        journal.attempt, journal.first_seq = previous.attempt, first
    else:
        journal.attempt, journal.first_seq = previous.attempt + 1, 0


def decode(data: bytes) -> dict[str, Any] | None:
    """Return the object in a line without its LF, or None if the line is damaged."""
    if len(data) >= 2**20 or not re.fullmatch(rb',"crc":"[0-9a-f]{8}"\}', data[-18:]):
        return None
    if b"%08x" % crc32(data[:-18]) != data[-10:-2]:
        return None
    try:
        document = json.loads(
            data.decode(),
            object_pairs_hook=_unique,
            parse_constant=_refuse,
            parse_float=_float,
        )
        json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def value_of(document: dict[str, Any], column: Column) -> Any:
    """Return what a record holds for a column, or None."""
    if column.statistic is None:
        return document["metrics"].get(column.metric)
    return document.get("ranks", {}).get(column.metric, {}).get(column.statistic)


def group_of(name: str) -> str:
    """Return the text before the first slash."""
    return name.split("/", 1)[0] if "/" in name else ""


def column_of(name: str) -> str:
    """Return the column of a metric."""
    short = name.split("/", 1)[1] if "/" in name else name
    return f"{short}_" if re.fullmatch(r"(step|time|attempt|rank|seq|draw)_*", short) else short


def variables_of(columns: list[str]) -> dict[str, str]:
    """Return the variable of each column by BB-GRP-007."""
    plain = [column.replace("/", ".") for column in columns]
    found = {}
    for column, name in zip(columns, plain, strict=True):
        good = plain.count(name) == 1 and "%" not in name and name.strip(" ") == name
        if good and not name.startswith("."):
            found[column] = name
            continue
        coded = "".join(
            chr(byte) if re.match(rb"[A-Za-z0-9_.-]", bytes([byte])) else f"%{byte:02X}"
            for byte in column.encode()
        )
        found[column] = re.sub(r"^\.", "%2E", coded)
    return found


def ranges(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Return ascending numbers as ranges, ends included."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def bits(value: Any) -> Any:
    """Return a value such that equality means the same type and the same bits; NaN is one."""
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else struct.pack("<d", value)
    return (type(value).__name__, value)


def number(value: Any) -> Any:
    """Return a value such that equality means the same number, whatever its type."""
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    return "-0" if value == 0 and math.copysign(1, value) < 0 else value


def _values(document: dict[str, Any]) -> dict[str, Any]:
    """Return a record with the floats that JSON has no number for."""
    if "metrics" not in document:
        return document
    document = document | {"metrics": _plain(document["metrics"])}
    if "ranks" in document:
        document["ranks"] = {name: _plain(values) for name, values in document["ranks"].items()}
    return document


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: NON_FINITE[value] if isinstance(value, str) else value
        for name, value in values.items()
    }


def _cell(value: Any, kind: str) -> Any:
    if value is None:
        return None
    return float(value) if kind == "double" else int(value) if kind == "int64" else value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError(pairs)
    return dict(pairs)


def _refuse(name: str) -> Any:
    raise ValueError(name)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def is_record(document: dict[str, Any]) -> bool:
    """Return whether a document is a record by the schema and by BB-JNL-008."""
    kinds = document.keys() - {"seq", "time", "step", "ranks", "crc"}
    return bool(kinds) and bool(_schema("journal-record").is_valid(document))


def _is_simple(document: dict[str, Any]) -> bool:
    """Tell of most records quickly what the schema would say."""
    if list(document) != ["seq", "step", "time", "metrics", "crc"]:
        return False
    return (
        type(document["seq"]) is type(document["step"]) is int
        and document["seq"] >= 0
        and type(document["time"]) is float
        and type(document["metrics"]) is dict
        and all(re.fullmatch(r"[a-z](/?[a-z0-9])*", name) for name in document["metrics"])
        and all(type(value) in (bool, int, float) for value in document["metrics"].values())
    )


@cache
def _schema(name: str) -> Any:
    folder = Path(__file__).resolve().parents[1] / "schemas" / "1.0"
    documents = [json.loads(path.read_bytes()) for path in folder.glob("*.json")]
    registry: Registry[Any] = Registry().with_resources(
        [(each["$id"], Resource.from_contents(each)) for each in documents]
    )
    own = next(each for each in documents if each["$id"].endswith(f"/{name}.schema.json"))
    # A schema sees 1.0 as an integer; the tokens of integers are looked at by type instead.
    kinds = Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_integer)
    return extend(Draft202012Validator, type_checker=kinds)(own, registry=registry)


def _is_integer(_: Any, value: Any) -> bool:
    return type(value) is int


# -- making histories

NAMES = [
    "loss",
    "loss/mean",
    "train/loss",
    "train/loss/mean",
    "train/loss/ranks/mean",
    "train/loss.mean",
    "train/step",
    "train/step_",
    "train/time",
    "train/draw",
    "step",
    "Train/loss",
    "TRAIN/rank",
    "metrics/a",
    "con/a",
    "été/ñ",
    "e\u0301te\u0301/x",
    "😀/😀",
    "g" * 70 + "/m",
    "a b/50%",
    "a b/.x",
    "a b/ y ",
    "..",
]
"""Names that collide with columns, with each other or with files."""

numbers = st.one_of(
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([2**63 - 1, -(2**63), 2**53 + 1, -(2**53) - 1]),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.sampled_from([-0.0, 5e-324, 1.7976931348623157e308, 9.969209968386869e36]),
)
"""Every value that a record can hold."""

statistics = st.dictionaries(st.sampled_from(STATISTICS), numbers, min_size=1, max_size=5).map(
    lambda found: found | ({"count": 4} if "count" in found else {})
)

steps = st.one_of(st.integers(-2, 6), st.sampled_from([-(2**63), 2**63 - 1]))


@st.composite
def record(draw: Any, seq: int, names: list[str]) -> bytes:
    """Draw a record that does not end its journal."""
    name = st.sampled_from(names)
    kind = draw(st.sampled_from(["point"] * 6 + ["ranks", "rewind", "gap", "describe", "later"]))
    if kind == "rewind":
        return event(seq, rewind={"step": draw(steps)})
    if kind == "gap":
        return event(seq, gap={"records": draw(st.integers(1, 9)), "reason": "disk full"})
    if kind == "describe":
        texts = st.fixed_dictionaries(
            {"metric": name}, optional={"unit": st.just("nat"), "description": st.text(max_size=4)}
        )
        return event(seq, describe=draw(texts))
    if kind == "later":
        other = {"org.example.kind": {"x": [1, {"y": None}]}}
        if draw(st.booleans()):
            return event(seq, **other)
        return point(seq, draw(st.dictionaries(name, numbers, max_size=2)), draw(steps), **other)
    ranks = draw(st.dictionaries(name, statistics, max_size=2)) if kind == "ranks" else None
    metrics = draw(st.dictionaries(name, numbers, max_size=4))
    return point(seq, metrics, draw(steps), ranks)


@st.composite
def histories(draw: Any, *, process: Mapping[str, Any] | None = None) -> Files:
    """Draw the journals of an undamaged run that has ended or crashed."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=6, unique=True))
    files: Files = {}
    for rank in draw(st.sampled_from([[0], [0], [0, 1], [0, 2, 7]])):
        ordinal = 0
        for attempt in range(draw(st.integers(1, 3))):
            count = draw(st.integers(0, 8))
            lines = [draw(record(seq, names)) for seq in range(count)]
            ended = draw(st.booleans())
            if ended:
                lines.append(end(count, draw(st.sampled_from(["completed", "interrupted"]))))
            for first, last in _shares(draw, len(lines)):
                name = (
                    "metrics" + (f".r{rank}" if rank else "") + (f".{ordinal}" if ordinal else "")
                )
                tail = b""
                if last < len(lines):
                    tail = draw(
                        st.sampled_from([b"", lines[last][:-1], lines[last][:9], b"\0" * 9])
                    )
                files[f"{name}.jsonl"] = (
                    header(rank, attempt, first, process=process)
                    + b"".join(lines[first:last])
                    + tail
                )
                ordinal += 1
    return files


def _shares(draw: Any, count: int) -> list[tuple[int, int]]:
    """Draw which records each journal of an attempt holds: the last goes to the end."""
    shares: list[tuple[int, int]] = []
    reached = 0
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        first = draw(st.integers(0, reached))
        last = draw(st.integers(first, count))
        if last == count:
            break
        shares.append((first, last))
        reached = max(reached, last)
    shares.append((draw(st.integers(0, reached)), count))
    return shares


@st.composite
def damaged(draw: Any) -> Files:
    """Draw the journals of a run to which anything may have happened."""
    files = draw(histories())
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(sorted(files)))
        lines = files[name].split(b"\n")
        at = draw(st.integers(0, len(lines) - 1))
        kind = draw(
            st.sampled_from(["flip", "flip", "drop", "blank", "again", "cut", "swap", "nul"])
        )
        if kind == "flip" and lines[at]:
            place = draw(st.integers(0, len(lines[at]) - 1))
            flipped = bytearray(lines[at])
            flipped[place] ^= 1 << draw(st.integers(0, 7))
            lines[at] = bytes(flipped)
        elif kind == "drop":
            del lines[at]
        elif kind == "blank":
            lines.insert(at, b"")
        elif kind == "again":
            lines.insert(draw(st.integers(0, len(lines) - 1)), lines[at])
        elif kind == "cut":
            files[name] = files[name][: draw(st.integers(0, len(files[name])))]
            continue
        elif kind == "swap":
            other = draw(st.integers(0, len(lines) - 1))
            lines[at], lines[other] = lines[other], lines[at]
        elif kind == "nul":
            lines[at] = b"\0" * len(lines[at])
        files[name] = b"\n".join(lines)
    return files
