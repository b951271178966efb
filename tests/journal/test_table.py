"""Journals to Arrow: the fast path and the record reader give the same rows."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blackboxml.base.files import Directory
from blackboxml.journal import Block, read_blocks
from blackboxml.journal import scan as scans
from blackboxml.journal import table as tables
from blackboxml.journal.merge import find_journals
from blackboxml.journal.scan import Scan
from blackboxml.journal.table import INDEX, GroupSchema, Tabulator
from blackboxml.model import LIMITS, JournalFile
from tests import histories
from tests.histories import bits, event, header, point, seal_line, spell, write

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from blackboxml.errors import Problem

RUN = {"id": histories.RUN_ID, "name": "x"}
SLOW = settings(deadline=None, suppress_health_check=list(HealthCheck))


class Given(Scan):
    """A scan of blocks that are given."""

    given: Iterable[Block] = ()

    def blocks(self, _: Directory) -> Iterator[Block]:
        yield from self.given


class Counting(Tabulator):
    """Counts the blocks that went the fast way."""

    took_fast = 0

    def _fast(self, *arguments: Any) -> Any:
        found = super()._fast(*arguments)
        self.took_fast += found is not None
        return found


class Read:
    """The tables, events and problems of some blocks of lines."""

    def __init__(self, blocks: Iterable[Block], *, fast: bool) -> None:
        self.problems: list[Problem] = []
        journal = JournalFile("metrics.jsonl", 0, 0, 0, 0, 0, None, 0, 0, None)
        scan = Given(journal, set(), self.problems)
        scan.given = blocks
        tabulator = Counting()
        groups: dict[str, GroupSchema] = {}
        parts: dict[str, list[Any]] = {}
        with pytest.MonkeyPatch.context() as patch, Directory(".") as directory:
            patch.setattr(tables, "_SMALL_BYTES", 1 if fast else 2**60)
            for part in tabulator.parts(scan, directory):
                groups.setdefault(part.group, GroupSchema(part.group)).add(part)
                parts.setdefault(part.group, []).append(part)
        self.took_fast = tabulator.took_fast
        self.tables = {
            name: pa.Table.from_batches(
                [group.conform(part, group.schema(RUN)) for part in parts[name]],
                group.schema(RUN),
            )
            for name, group in groups.items()
        }
        self.inexact = {name: group.inexact for name, group in groups.items()}
        self.counts = {name: group.counts for name, group in groups.items()}
        self.events = scan.events
        self.state = (scan.line, scan.offset, scan.expected, scan.records, scan.last_time)

    def answers(self) -> list[Any]:
        rows = {
            name: [list(map(bits, column.to_pylist())) for column in table.columns]
            for name, table in self.tables.items()
        }
        schemas = {name: repr(table.schema) for name, table in self.tables.items()}
        return [
            *(list(rows.items()), schemas, self.inexact, self.counts),
            *(self.state, self.problems, [sorted(each.items()) for each in self.events]),
        ]


def assert_same(lines: list[bytes], warm: list[bytes] | None = None) -> Read:
    """Read lines both ways, after others from which the fast way learns the names."""
    first = b"".join(warm or [])
    blocks = [Block(0, first), Block(len(first), b"".join(lines))]
    slow, fast = Read(blocks, fast=False), Read(blocks, fast=True)
    assert fast.answers() == slow.answers()
    return fast


def warm(*values: Any) -> list[bytes]:
    return [point(seq, {"a": value, "b/c": value}) for seq, value in enumerate(values)]


def text(metrics: str, seq: int = 1, more: str = "") -> bytes:
    return seal_line(f'{{"seq":{seq},"step":{seq},"time":{seq}.5,"metrics":{metrics}{more}')


PLAIN = {
    "float": '{"a":0.5}',
    "nothing": "{}",
    "whitespace": ' { "a" : 0.5 , "b/c" : 1e5 } ',
    "escaped name": '{"\\u0061":0.5}',
    "exponents": '{"a":5e-324,"b/c":1.7976931348623157e308}',
    "minus zero": '{"a":-0.0}',
    "minus zero as an integer": '{"a":-0,"b/c":-0}',
    "minus zero as an integer, spaced": '{"a":-0 ,"b/c": -0}',
    "integer": '{"a":3}',
    "2**53": '{"a":9007199254740992}',
    "2**53 + 1": '{"a":9007199254740993}',
    "2**53 + 1, spaced": '{"a": 9007199254740993 }',
    "-2**63": '{"a":-9223372036854775808}',
    "2**63 - 1": '{"a":9223372036854775807}',
    "2**63": '{"a":9223372036854775808}',
    "2**64": '{"a":18446744073709551616}',
    "twenty digits": '{"a":12345678901234567890}',
    "large float": '{"a":9.007199254740993e15}',
    "beyond float64": '{"a":1e400}',
    "under float64": '{"a":1e-400}',
    "many digits": '{"a":0.1000000000000000055511151231257827}',
    "halfway": '{"a":9007199254740993.0}',
    "halfway and a bit": '{"a":9007199254740993.00000000000000000000000000000001}',
    "NaN literal": '{"a":NaN}',
    "Infinity literal": '{"a":Infinity}',
    "inf literal": '{"a":-inf}',
    "NaN": '{"a":"NaN"}',
    "-Infinity": '{"a":"-Infinity"}',
    "a number as text": '{"a":"1.5"}',
    "null": '{"a":null}',
    "null in a name": '{"null":1}',
    "true": '{"a":true}',
    "array": '{"a":[1.0]}',
    "object": '{"a":{"x":1}}',
    "twice": '{"a":1.0,"a":2.0}',
    "twice, escaped": '{"a":1.0,"\\u0061":2.0}',
    "new name": '{"a":1.0,"new/x":2}',
    "invalid name": '{"a/":1.0}',
    "leading zero": '{"a":01.0}',
    "plus": '{"a":+1.0}',
    "no digit before the point": '{"a":.5}',
    "no digit behind the point": '{"a":5.}',
    "hexadecimal": '{"a":0x10}',
    "trailing comma": '{"a":1.0,}',
    "comment": '{"a":1.0/*x*/}',
    "list": "[]",
    "null metrics": "null",
}


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize(
    "known", [0.25, 7, 2**53 + 1, True, math.nan], ids=["float", "int", "long", "bool", "nan"]
)
def test_both_ways_read_a_value_the_same(name: str, known: Any) -> None:
    lines = [text('{"a":1.5,"b/c":2.5}'), text(PLAIN[name], 2), text('{"b/c":3.5}', 3)]
    assert_same(lines, warm(known))
    assert_same([text(PLAIN[name], 1)], warm(known))


MORE = {
    "ranks": ',"ranks":{"a":{"mean":0.5,"count":4}}',
    "ranks with minus zero": ',"ranks":{"a":{"mean":-0,"count":4}}',
    "empty ranks": ',"ranks":{}',
    "empty ranks of a name": ',"ranks":{"a":{}}',
    "ranks of another name": ',"ranks":{"z/z":{"max":true}}',
    "another statistic": ',"ranks":{"a":{"median":1.0}}',
    "count as a float": ',"ranks":{"a":{"count":4.0}}',
    "count below 0": ',"ranks":{"a":{"count":-4}}',
    "long integer": ',"ranks":{"a":{"mean":9007199254740993}}',
    "ranks twice": ',"ranks":{"a":{"mean":0.5}},"ranks":{"a":{"mean":0.5}}',
    "ranks null": ',"ranks":null',
    "unknown member": ',"org.example":1',
    "unknown null": ',"org.example":null',
    "second kind": ',"rewind":{"step":0}',
    "crc twice": ',"crc":"00000000"',
    "step twice": ',"step":1',
    "object behind": '}{"x":1',
}


@pytest.mark.parametrize("name", MORE)
def test_both_ways_read_a_member_the_same(name: str) -> None:
    start = [
        point(0, {"a": 0.5}, ranks={"a": {"mean": 0.5, "count": 4}, "b": {"max": 1}}),
    ]
    assert_same([text('{"a":1.5}', 1, MORE[name]), text('{"a":2.5}', 2)], start)
    assert_same([text("{}", 1, MORE[name]), text('{"a":2.5}', 2)], start)


BROKEN = {
    "blank": lambda line: b"\n" + line,
    "blank with spaces": lambda line: b"   \n" + line,
    "torn": lambda line: line[:-30] + b"\n",
    "glued": lambda line: line[:-1] + line,
    "flipped": lambda line: line.replace(b"1.5", b"1.6"),
    "upper case": lambda line: line[:-11] + line[-11:-3].upper() + line[-3:],
    "no hexadecimal digits": lambda line: line[:-11] + b"0x12 +_1" + line[-3:],
    "arabic digits": lambda line: line[:-11] + "١٢٣٤".encode() + line[-3:],
    "nul": lambda line: b"\0" * 40 + b"\n" + line,
    "nul before": lambda line: b"\0" + line,
    "space before": lambda line: seal_line(b" " + line[:-19]),
    "byte order mark": lambda line: b"\xef\xbb\xbf" + line,
    "byte order mark with a checksum": lambda line: seal_line(b"\xef\xbb\xbf" + line[:-19]),
    "carriage return": lambda line: line[:-1] + b"\r\n",
    "carriage return inside": lambda line: seal_line(
        line[:-19].replace(b',"metrics', b'\r,"metrics')
    ),
    "too long": lambda line: seal_line(line[:-19] + b" " * 2**20),
    "nearly too long": lambda line: seal_line(line[:-19] + b" " * (2**20 - 1 - len(line))),
    "event": lambda line: event(1, rewind={"step": 0}),
    "end": lambda line: event(1, end={"status": "completed"}),
    "again": lambda line: line + line,
    "gone": lambda line: b"",
    "late": lambda line: point(0, {"a": 1.5}),
    "not UTF-8": lambda line: seal_line(line[:-19].replace(b'"a"', b'"\xff"')),
    "time an integer": lambda line: seal_line(line[:-19].replace(b"1.5,", b"1,", 1)),
    "time a text": lambda line: seal_line(line[:-19].replace(b"1.5,", b'"1.5",', 1)),
    "time infinite": lambda line: seal_line(line[:-19].replace(b"1.5,", b"1e999,", 1)),
    "time of many digits": lambda line: seal_line(
        line[:-19].replace(b"1.5,", b"9007199254740993,", 1)
    ),
    "step a float": lambda line: seal_line(line[:-19].replace(b'"step":1', b'"step":1.0')),
    "step minus zero": lambda line: seal_line(line[:-19].replace(b'"step":1', b'"step":-0')),
    "step too long": lambda line: seal_line(
        line[:-19].replace(b'"step":1', b'"step":1' + b"0" * 19)
    ),
    "no step": lambda line: seal_line(line[:-19].replace(b'"step":1,', b"")),
    "seq of exponent form": lambda line: seal_line(line[:-19].replace(b'"seq":1', b'"seq":1e0')),
    "seq twice": lambda line: seal_line(line[:-19].replace(b'"seq":1', b'"seq":1,"seq":1')),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("at", [1, 2, 3])
def test_both_ways_read_damage_the_same(name: str, at: int) -> None:
    lines = [text('{"a":1.5}', 1), text('{"a":1.5,"b/c":0.5}', 2), text('{"b/c":0.5}', 3)]
    lines[at - 1] = BROKEN[name](text('{"a":1.5}', at))
    assert_same(lines, warm(0.5))


def test_plain_records_do_take_the_fast_way() -> None:
    lines = [point(seq, {"a": seq / 7, "b/c": 3.0, "n": seq}) for seq in range(1, 50)]
    assert assert_same(lines, [point(0, {"a": 0.5, "b/c": 0.5, "n": 2})]).took_fast == 1
    sparse = [point(seq, {"a" if seq % 3 else "b/c": seq / 7}) for seq in range(1, 50)]
    assert assert_same(sparse, warm(0.5)).took_fast == 1
    ranks = [
        point(seq, {"a": seq / 7}, ranks={"a": {"mean": 0.5, "count": 4}} if seq % 2 else None)
        for seq in range(1, 50)
    ]
    start = [point(0, {"a": 0.5}, ranks={"a": {"mean": 0.5, "count": 4}})]
    assert assert_same(ranks, start).took_fast == 1


@SLOW
@given(histories.histories(), st.integers(1, 700))
def test_both_ways_read_a_history_the_same_however_it_is_cut(
    files: histories.Files, size: int
) -> None:
    data = files["metrics.jsonl"]
    _assert_same_in_blocks(data[data.index(b"\n") + 1 :], size)


@SLOW
@given(histories.damaged(), st.integers(1, 700))
def test_both_ways_read_damage_of_any_kind_the_same(files: histories.Files, size: int) -> None:
    data = files["metrics.jsonl"]
    _assert_same_in_blocks(data[data.find(b"\n") + 1 :], size)


def _assert_same_in_blocks(data: bytes, size: int) -> None:
    blocks = list(_cut(data, size))
    slow, fast = Read(blocks, fast=False), Read(blocks, fast=True)
    assert fast.answers() == slow.answers()
    assert slow.answers()[0] == Read(list(_cut(data, 10**9)), fast=False).answers()[0]


def _cut(data: bytes, size: int) -> Iterator[Block]:
    start = 0
    while end := data.find(b"\n", start + size) + 1:
        yield Block(start, data[start:end])
        start = end
    if end := data.rfind(b"\n") + 1:
        yield Block(start, data[start:end])


BIG = 900


def big(kind: str) -> list[bytes]:  # noqa: C901, PLR0912 - one branch for each kind
    """Return lines of a large journal of some kind."""
    lines = []
    for seq in range(BIG):
        metrics: dict[str, Any] = {"train/loss": seq / 7, "train/n": seq, "ok": bool(seq % 2)}
        if kind == "sparse" and seq % 5:
            metrics = {"val/acc": seq / 3}
        if kind == "new names" and seq > BIG // 2:
            metrics[f"late/m{seq // 150}"] = seq
        if kind == "wider" and seq > BIG // 2:
            metrics |= {"train/n": seq + 0.5, "ok": 2**60 + 1 if seq == BIG - 2 else 3}
        if kind == "long integers":
            metrics |= {"train/loss": 2**53 + 1 if seq % 197 == 0 else 0.5}
        if kind == "non-finite" and seq % 101 == 0:
            metrics["train/loss"] = math.nan
        if kind == "no values" and seq % 11 == 0:
            metrics = {}
        line = point(seq, metrics)
        if kind == "events" and seq % 120 == 0:
            line = event(seq, rewind={"step": seq - 3})
        if kind == "torn" and seq == BIG // 2:
            line = line[:50] + b"\n"
        if kind == "flipped" and seq == BIG // 2:
            line = line.replace(b'"seq"', b'"sEq"')
        if kind == "long" and seq == BIG // 2:
            line = seal_line(line[:-19] + b" " * 600_000)
        if kind == "too long" and seq == BIG // 2:
            line = seal_line(line[:-19] + b" " * 5 * 2**20)
        if kind == "end in the middle" and seq == BIG // 2:
            line = event(seq, end={"status": "completed"})
        lines.append(line)
    return lines


KINDS = [
    *("plain", "sparse", "new names", "wider", "long integers", "non-finite", "no values"),
    *("events", "torn", "flipped", "long", "too long", "end in the middle"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_journal_reads_as_the_specification_says(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = header() + b"".join(big(kind))
    expected = histories.expect({"metrics.jsonl": data})
    monkeypatch.setattr(tables, "_SMALL_BYTES", 2**13)
    monkeypatch.setattr(tables, "_LEARN_BYTES", 2**11)
    monkeypatch.setattr(scans, "read_blocks", functools.partial(_small_blocks, 2**14))
    with Directory(write(tmp_path / "run", {"metrics.jsonl": data})) as directory:
        problems: list[Problem] = []
        scan = Scan(find_journals(directory)[0], set(), problems)
        tabulator = Tabulator()
        groups: dict[str, GroupSchema] = {}
        parts = []
        for part in tabulator.parts(scan, directory):
            groups.setdefault(part.group, GroupSchema(part.group)).add(part)
            parts.append(part)
    assert list(groups) == list(expected.groups())
    for name, group in groups.items():
        schema = group.schema(RUN)
        found = pa.Table.from_batches(
            [group.conform(part, schema) for part in parts if part.group == name], schema
        )
        columns = expected.columns(name)
        assert found.schema.names == [*INDEX, *(each.name for each in columns)]
        assert [str(kind) for kind in found.schema.types[5:]] == [each.kind for each in columns]
        rows = zip(*(column.to_pylist() for column in found.columns), strict=True)
        wanted = expected.rows(name, "all")
        assert [list(map(bits, row)) for row in rows] == [list(map(bits, row)) for row in wanted]
    assert [each.offset for each in problems if each.rule != "BB-JNL-009"] == (
        [] if kind == "end in the middle" else expected.damaged["metrics.jsonl"]
    ) or kind == "end in the middle"
    assert scan.line == data.count(b"\n") + 1


def _small_blocks(
    size: int, descriptor: int, offset: int = 0, _size: int = 0, line_bytes: int = 2**20
) -> Iterator[Block]:
    return read_blocks(descriptor, offset, size, line_bytes)


def test_an_integer_that_a_float_column_rounds_is_known(tmp_path: Path) -> None:
    lines = [
        point(0, {"a": 2**53 + 1, "b": 2**53}),
        point(1, {"a": 0.5, "b": 1.0}),
        point(2, {"a": -(2**63) + 1, "b": 2**63 - 1}),
    ]
    read = assert_same(lines[1:], lines[:1])
    assert read.inexact == {"": {(0, 0, 0), (0, 0, 2)}}
    assert read.tables[""].column("a").to_pylist() == [2.0**53, 0.5, -(2.0**63)]


def test_a_bool_column_that_meets_numbers_becomes_numbers() -> None:
    for values, kind, wanted in [
        ([True, 3], "int64", [1, 3]),
        ([False, 0.5], "double", [0.0, 0.5]),
        ([True, False], "bool", [True, False]),
        ([2, True, -0.0], "double", [2.0, 1.0, -0.0]),
    ]:
        lines = [point(seq, {"a": value}) for seq, value in enumerate(values)]
        column = assert_same(lines[1:], lines[:1]).tables[""].column("a")
        assert str(column.type) == kind
        assert list(map(bits, column.to_pylist())) == list(map(bits, wanted))


def test_a_metric_known_only_by_its_ranks_has_an_empty_column_of_float64() -> None:
    lines = [point(0, {}, ranks={"a": {"count": 2}, "a/count": {"max": True}})]
    found = assert_same([], lines).tables
    assert found[""].schema.names[5:] == ["a", "a/count"]
    assert found["a"].schema.names[5:] == ["count", "count/max"]
    assert str(found[""].schema.field("a").type) == "double"
    assert found[""].column("a").null_count == 1


@pytest.mark.parametrize("count", [1, 10_000, 10_001])
def test_the_limit_of_metrics_in_a_record_holds_both_ways(count: int) -> None:
    names = [f"m{number}" for number in range(10_001)]
    start = [point(0, dict.fromkeys(names[:6000], 0.5)), point(1, dict.fromkeys(names[6000:], 0.5))]
    assert_same([point(2, dict.fromkeys(names[:count], 0.5))], start)


def test_a_value_is_spelled_as_it_is_read() -> None:
    for value in (0.1, -0.0, 5e-324, 2**63 - 1, True, math.inf):
        column = assert_same([], [point(0, {"a": value})]).tables[""].column("a")
        assert bits(column[0].as_py()) == bits(value)
        assert spell(value) is not None
    assert LIMITS.metrics_per_record == 10_000
