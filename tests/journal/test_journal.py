"""A line is read back as it was written, or its damage is told."""

from __future__ import annotations

import json
import os
import zlib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blackboxml.base.scalar import spell
from blackboxml.errors import JournalError, MetricError, UnsupportedVersionError
from blackboxml.journal import (
    SUFFIX_BYTES,
    check_format,
    check_sequence,
    decode,
    encode,
    parse,
    read_blocks,
    read_header,
    read_record,
    read_tail,
)
from blackboxml.model import LIMITS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

POINT = {"seq": 0, "step": 3, "time": 1.5, "metrics": {"train/loss": 0.1, "n": 2**62, "ok": True}}
HEADER = {
    "format": {"name": "blackbox-journal", "version": "1.0", "features": []},
    "run": {"id": "0" * 32, "name": "r"},
    "rank": 0,
    "attempt": 0,
    "first_seq": 0,
    "time": 1,
    "process": {"pid": 1},
}

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3)
    ),
    max_leaves=8,
)


def with_checksum(head: bytes) -> bytes:
    return b'%b,"crc":"%08x"}' % (head, zlib.crc32(head))


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), JSON, min_size=1))
def test_what_was_encoded_is_decoded(document: dict[str, Any]) -> None:
    document.pop("crc", None)
    document["seq"] = 0
    line = encode(document)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    found = decode(line[:-1])
    assert repr(found.pop("crc")) == repr(line[-11:-3].decode())
    assert repr(found) == repr(document)
    assert json.loads(line) == document | {"crc": line[-11:-3].decode()}


@given(st.floats())
@pytest.mark.rule("BB-JNL-014")
def test_a_float_reads_back_as_the_same_float(value: float) -> None:
    line = encode({"metrics": {"a": spell(value)}})
    metrics = decode(line[:-1])["metrics"]
    record = read_record({"seq": 0, "step": 0, "time": 0.0, "metrics": metrics}, 0, 0, LIMITS)
    found = record.metrics["a"]
    assert type(found) is float
    assert repr(found) == repr(value)
    token = line[line.index(b':{"a":') + 6 :].split(b"}")[0]
    assert any(mark in token.lower() for mark in (b".", b"e", b'"'))


@pytest.mark.parametrize("value", ["\ud800", {1}, 2**64, object()])
def test_what_is_no_json_is_not_encoded(value: object) -> None:
    with pytest.raises(MetricError):
        encode({"a": value})


def test_every_changed_byte_of_a_line_is_noticed() -> None:
    line = encode(POINT)[:-1]
    assert decode(line)["metrics"] == POINT["metrics"]
    for place in range(len(line)):
        for flip in (1, 2, 4, 8, 16, 32, 64, 128, 255):
            damaged = bytearray(line)
            damaged[place] ^= flip
            with pytest.raises(JournalError):
                decode(bytes(damaged))


def test_every_missing_or_added_byte_of_a_line_is_noticed() -> None:
    line = encode(POINT)[:-1]
    for place in range(len(line)):
        with pytest.raises(JournalError):
            decode(line[:place] + line[place + 1 :])
        with pytest.raises(JournalError):
            decode(line[:place] + b"0" + line[place:])
        with pytest.raises(JournalError):
            decode(line[:place])
        with pytest.raises(JournalError):
            decode(line[place + 1 :])
    with pytest.raises(JournalError):
        decode(b"")


def test_the_suffix_has_one_spelling() -> None:
    head = b'{"a":1'
    good = with_checksum(head)
    assert decode(good)["a"] == 1
    upper = good[:-10] + good[-10:-2].upper() + good[-2:]
    assert upper != good
    for wrong in (
        upper,
        good.replace(b',"crc"', b', "crc"'),
        good + b" ",
        good[:-1] + b" }",
        b" " + good,
    ):
        with pytest.raises(JournalError):
            decode(wrong)
    assert len(good) == len(head) + SUFFIX_BYTES


@pytest.mark.parametrize(
    "head",
    [
        b'{"a":1,"a":2',
        b'{"a":1,"\\u0061":2',
        b'{"m":{"x":1,"x":1}',
        b'{"m":[{"x":1,"x":1}]',
        b'{"a:b":1,"c":":","a:b":2',
        b'{"metrics":{"x":1.5,"x":2.5}',
        b'{"a":NaN',
        b'{"a":Infinity',
        b'{"a":-Infinity',
        b'{"a":01',
        b'{"a":+1',
        b'{"a":.5',
        b'{"a":1.',
        b"{\"a\":'b'",
        b'{"a":"\xff"',
        b'{"a":"\xed\xa0\x80"',
        b'{"a":"\\ud800"',
        b'{"a":"\t"',
        b'{"a":1,',
        b'{"a" 1',
        b'{"a":1 /* */',
        b'\xef\xbb\xbf{"a":1',
        b"[1",
        b'{"a":' + b"[" * 100_000,
    ],
)
def test_a_checksum_does_not_make_a_line_json(head: bytes) -> None:
    with pytest.raises(JournalError):
        decode(with_checksum(head))


@pytest.mark.parametrize(
    "number",
    [2**63 - 1, -(2**63), 2**63, 2**64, -(2**64), 10**30],
)
def test_an_integer_is_never_rounded_by_reading(number: int) -> None:
    found = parse(b'{"metrics":{"a":%d},"b":[%d],"c":%d}' % (number, number, number))
    assert found == {"metrics": {"a": number}, "b": [number], "c": number}
    assert {type(found["metrics"]["a"]), type(found["b"][0]), type(found["c"])} == {int}


@pytest.mark.parametrize(
    "value", [None, "0.5", "nan", "inf", [], {}, 2**63, -(2**63) - 1, "-NaN", "+Infinity"]
)
def test_a_value_that_is_no_number_damages_its_record(value: object) -> None:
    with pytest.raises(JournalError, match="'a'"):
        read_record(POINT | {"metrics": {"a": value}}, 0, 0, LIMITS)
    with pytest.raises(JournalError, match="'a'"):
        read_record(POINT | {"ranks": {"a": {"mean": value}}}, 0, 0, LIMITS)


@pytest.mark.parametrize(
    "change",
    [
        {"step": None},
        {"step": 1.0},
        {"step": True},
        {"step": 2**63},
        {"metrics": []},
        {"metrics": None},
        {"ranks": []},
        {"ranks": {"a": {}}},
        {"ranks": {"a": 5}},
        {"metrics": {str(number): 1 for number in range(10_001)}},
    ],
)
def test_a_point_with_a_wrong_member_is_damaged(change: dict[str, Any]) -> None:
    with pytest.raises(JournalError):
        read_record(POINT | change, 0, 0, LIMITS)


@pytest.mark.rule("BB-VER-008")
def test_a_statistic_of_a_later_version_is_left_out() -> None:
    record = read_record(POINT | {"ranks": {"a": {"mean": 1, "median": None}}}, 0, 0, LIMITS)
    assert record.ranks == {"a": {"mean": 1}}


@pytest.mark.parametrize(
    "change",
    [
        *({"seq": value} for value in (None, -1, 1.0, True, "1", 2**63)),
        *({"time": value} for value in (None, "1", True, 10**400, [])),
    ],
)
def test_a_record_without_its_place_or_time_is_damaged(change: dict[str, Any]) -> None:
    with pytest.raises(JournalError):
        check_sequence(POINT | change)


@pytest.mark.parametrize(
    "change",
    [
        {"run": None},
        {"run": {}},
        {"run": {"id": 1, "name": "r"}},
        {"run": {"id": "0", "name": None}},
        {"rank": -1},
        {"rank": True},
        {"rank": 2**31},
        {"attempt": 1.0},
        {"first_seq": -1},
        {"first_seq": 2**63},
        {"time": "now"},
        {"time": "1.5"},
        {"time": True},
        {"time": 10**400},
        {"run": {"id": "A" * 32, "name": "r"}},
        {"run": {"id": "0" * 33, "name": "r"}},
        {"run": {"id": "0" * 32 + "\n", "name": "r"}},
        {"run": {"id": "0" * 32, "name": ""}},
        {"run": {"id": "0" * 32, "name": "r" * 1025}},
        {"run": {"id": "0" * 32, "name": "a\nb"}},
        {"format": {"name": "blackbox-run", "version": "1.0"}},
        {"format": None},
    ],
)
def test_a_header_with_a_wrong_member_is_none(change: dict[str, Any]) -> None:
    with pytest.raises(JournalError):
        read_header(HEADER | change)


@pytest.mark.parametrize("change", [{"process": 5}, {"process": None}, {"writer": 5}, {"seq": 0}])
def test_what_else_is_wrong_with_a_header_costs_nothing(change: dict[str, Any]) -> None:
    header = read_header(HEADER | change)
    assert (header.run_name, header.rank) == ("r", 0)
    assert isinstance(header.process, dict)


def test_a_header_is_read() -> None:
    header = read_header(HEADER | {"later": 1})
    assert (header.run_name, header.rank, header.time) == ("r", 0, 1.0)
    assert header.document["later"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": "2.0"}, "version 2.0"),
        ({"version": "10.0"}, "version 10.0"),
        ({"version": 1}, "version 1"),
        ({"features": ["zstd", "more"]}, "more, zstd"),
    ],
)
def test_a_newer_format_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    document = HEADER | {"format": HEADER["format"] | change}
    with pytest.raises(UnsupportedVersionError, match=message):
        read_header(document)
    with pytest.raises(UnsupportedVersionError, match="pip install -U blackboxml"):
        check_format(document, "blackbox-journal")


@pytest.mark.rule("BB-VER-002")
def test_a_newer_minor_version_is_read() -> None:
    read_header(HEADER | {"format": HEADER["format"] | {"version": "1.7"}})


# -- reading parts of a file


@pytest.fixture
def write(tmp_path: Path) -> Iterator[Any]:
    opened = []

    def make(data: bytes) -> int:
        path = tmp_path / f"j{len(opened)}"
        path.write_bytes(data)
        opened.append(os.open(path, os.O_RDONLY))
        return opened[-1]

    yield make
    for descriptor in opened:
        os.close(descriptor)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 2**20])
def test_blocks_are_whole_lines_in_order(write: Any, size: int) -> None:
    data = b"".join(b"%d\n" % number for number in range(200)) + b"torn"
    blocks = list(read_blocks(write(data), size=size))
    assert b"".join(block.data for block in blocks) == data[:-4]
    offset = 0
    for block in blocks:
        assert block.offset == offset
        assert block.data.endswith(b"\n")
        offset += len(block.data)


@pytest.mark.parametrize("size", [3, 10, 100])
@pytest.mark.rule("BB-LIM-006", "BB-LIM-007")
def test_a_line_without_end_costs_no_memory_and_the_next_is_found(write: Any, size: int) -> None:
    data = b"a\n" + b"x" * 1000 + b"\nb\n"
    blocks = list(read_blocks(write(data), size=size, line_bytes=20))
    assert max(len(block.data) for block in blocks) <= max(20, size + 20)
    lines = b"".join(block.data for block in blocks if block.data.endswith(b"\n"))
    assert lines.startswith(b"a\n")
    assert lines.endswith(b"b\n")
    assert any(not block.data.endswith(b"\n") for block in blocks) or size > 20


@pytest.mark.parametrize("count", [0, 1, 2, 500, 3000])
@pytest.mark.parametrize("torn", [b"", b'{"seq":', b"\0" * 5000])
def test_the_last_records_come_newest_first(write: Any, count: int, torn: bytes) -> None:
    head = encode(HEADER)
    lines = [encode({"seq": seq, "pad": "x" * (seq % 200)}) for seq in range(count)]
    descriptor = write(head + b"".join(lines) + torn)
    found = [document["seq"] for document in read_tail(descriptor, len(head))]
    assert found == list(range(count))[::-1]


def test_damage_in_the_last_records_is_passed_over(write: Any) -> None:
    lines = [encode({"seq": seq}) for seq in range(5)]
    lines[4] = lines[4].replace(b"4", b"5", 1)
    lines[2] = b"\n"
    found = [document["seq"] for document in read_tail(write(b"".join(lines)), 0)]
    assert found == [3, 1, 0]


def test_a_record_that_crosses_the_pieces_is_found(write: Any) -> None:
    lines = [encode({"seq": seq, "pad": "x" * 300_000}) for seq in range(5)]
    found = [document["seq"] for document in read_tail(write(b"".join(lines)), 0)]
    assert found == [4, 3, 2, 1, 0]
