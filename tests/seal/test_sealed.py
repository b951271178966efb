"""The tables of a sealed run: what plain readers see, and what is refused."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blackboxml import open_run
from blackboxml.base.files import Directory
from blackboxml.errors import BlackboxError, LimitError, TableError, UnsafePathError
from blackboxml.journal import table as tables
from blackboxml.model import Limits
from blackboxml.seal import seal
from blackboxml.seal.sealed import iterate_table, read_table
from tests import histories
from tests.histories import bits, header, point, write
from tests.reader.test_reader import rich

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    path = write(tmp_path / "run", rich())
    seal(path)
    return path


def test_a_table_is_what_the_specification_says(sealed: Path) -> None:
    expected = histories.expect(rich())
    groups = json.loads((sealed / "run.json").read_bytes())["groups"]
    assert list(groups) == list(expected.groups())
    for group, said in groups.items():
        file = pq.ParquetFile(sealed / said["table"])
        columns = expected.columns(group)
        found = pq.read_table(sealed / said["table"])
        assert file.schema_arrow.names == [*tables.INDEX, *(each.name for each in columns)]
        rows = [list(map(bits, row.values())) for row in found.to_pylist()]
        assert rows == [list(map(bits, row)) for row in expected.rows(group, "all")]
        assert said["rows"] == len(rows)
        assert said["superseded"] == len(rows) - len(expected.rows(group))
        document = json.loads(file.metadata.metadata[b"blackbox"])
        assert document["group"] == group
        assert document["run"] == {"id": histories.RUN_ID, "name": histories.RUN_NAME}
        for field, column in zip(list(file.schema_arrow)[5:], columns, strict=True):
            wanted = {b"blackbox.metric": column.metric.encode()}
            if column.statistic is not None:
                wanted[b"blackbox.statistic"] = column.statistic.encode()
            assert {
                key: value for key, value in field.metadata.items() if b"PARQUET" not in key
            } == (wanted)
        for name, metric in said["metrics"].items():
            place = [(each.metric, each.statistic) for each in columns].index((name, None))
            assert metric["column"] == columns[place].name
            following = columns[place + 1 : place + 1 + len(metric.get("statistics", ()))]
            assert [each.statistic for each in following] == metric.get("statistics", [])


def test_pages_are_compressed_and_have_checksums(sealed: Path) -> None:
    for table in sealed.glob("*.parquet"):
        metadata = pq.ParquetFile(table).metadata
        for group in range(metadata.num_row_groups):
            assert metadata.row_group(group).num_rows <= 2**20
            for place in range(metadata.num_columns):
                column = metadata.row_group(group).column(place)
                assert column.compression == "ZSTD"
                _assert_page_has_checksum(table, column)


def _assert_page_has_checksum(table: Path, column: Any) -> None:
    """Flip a bit behind the header of the page: a reader that verifies finds it."""
    data = bytearray(table.read_bytes())
    data[column.data_page_offset + column.total_compressed_size - 1] ^= 1
    with pytest.raises(OSError, match=r"could not verify page integrity|CRC"):
        pq.ParquetFile(pa.BufferReader(bytes(data)), page_checksum_verification=True).read()


def test_polars_pandas_and_sql_read_a_table_plainly(sealed: Path) -> None:
    wanted = open_run(sealed).arrow("train", "all").select(["step", "loss", "ok"]).to_pydict()
    frame = pl.read_parquet(sealed / "train.parquet")
    assert list(map(bits, frame["loss"].to_list())) == list(map(bits, wanted["loss"]))
    found = pl.SQLContext(t=frame).execute("SELECT step, ok FROM t ORDER BY attempt, rank, seq")
    assert found.collect()["step"].to_list() == wanted["step"]
    assert found.collect()["ok"].to_list() == wanted["ok"]
    assert pd.read_parquet(sealed / "train.parquet")["step"].tolist() == wanted["step"]


def test_row_groups_join_to_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [point(seq, {"a": seq} if seq % 3 else {"a": seq, "b": 0.5}) for seq in range(2500)]
    monkeypatch.setattr("blackboxml.seal._ROW_GROUP_ROWS", 1)
    path = write(tmp_path / "run", {"metrics.jsonl": header() + b"".join(lines)})
    seal(path)
    file = pq.ParquetFile(path / "metrics.parquet")
    assert [file.metadata.row_group(at).num_rows for at in range(3)] == [1024, 1024, 452]
    assert open_run(path).arrow()["a"].to_pylist() == list(range(2500))


# -- hostile tables


def replaced(path: Path, table: Path | bytes) -> Directory:
    """Return a run directory in which another table stands."""
    data = table if isinstance(table, bytes) else table.read_bytes()
    (path / "train.parquet").write_bytes(data)
    return Directory(path)


def parquet(table: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **options)
    return bytes(sink.getvalue().to_pybytes())


def index(rows: int = 1) -> dict[str, Any]:
    kinds = tables.INDEX.items()
    return {name: pa.array([0] * rows, pa.int64()).cast(kind) for name, kind in kinds}


FOREIGN = {
    "text": pa.table(index() | {"a": ["x"]}),
    "list": pa.table(index() | {"a": [[1.0]]}),
    "struct": pa.table(index() | {"a": [{"x": 1.0}]}),
    "dictionary": pa.table(index() | {"a": pa.array(["x"]).dictionary_encode()}),
    "timestamp": pa.table(index() | {"a": pa.array([0], pa.timestamp("us"))}),
    "decimal": pa.table(index() | {"a": pa.array([1], pa.decimal128(38, 0))}),
    "float32": pa.table(index() | {"a": pa.array([1], pa.float32())}),
    "unsigned": pa.table(index() | {"a": pa.array([1], pa.uint64())}),
    "null": pa.table(index() | {"a": pa.nulls(1)}),
    "no index": pa.table({"a": [1.0]}),
    "no column": pa.table({}),
    "index of other types": pa.table(index() | {"step": ["x"]}),
    "other order": pa.table(dict(reversed(index().items()))),
    "null in the index": pa.table(index() | {"step": pa.nulls(1, pa.int64())}),
    "column twice": pa.Table.from_arrays(
        [*index().values(), pa.array([1.0]), pa.array([2.0])], names=[*index(), "a", "a"]
    ),
    "metadata that is no text": pa.table(
        index() | {"a": [1.0]},
        pa.schema(
            [
                *(pa.field(name, kind) for name, kind in tables.INDEX.items()),
                pa.field("a", pa.float64(), metadata={b"blackbox.metric": b"\xff\xfe"}),
            ]
        ),
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_table_of_another_form_is_refused(sealed: Path, name: str) -> None:
    with replaced(sealed, parquet(FOREIGN[name])) as directory:
        for read in (read_table, lambda *args: list(iterate_table(*args))):
            with pytest.raises(TableError, match=r"train\.parquet"):
                read(directory, "train.parquet", Limits())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PAR1",
        b"PAR1PAR1",
        b"PAR1" + b"\xff" * 100 + b"d\x00\x00\x00PAR1",
        b"x" * 4096,
        b"PAR1\xff\xff\xff\x7fPAR1",
        b"PAR1" + b"\x00" * 50 + b"*\x00\x00\x00PARE",
    ],
)
def test_what_is_no_table_is_called_so(sealed: Path, data: bytes) -> None:
    with replaced(sealed, data) as directory, pytest.raises(TableError):
        read_table(directory, "train.parquet", Limits())


def test_any_damage_to_a_table_gives_an_error_of_its_own_or_the_same_values(sealed: Path) -> None:
    good = (sealed / "train.parquet").read_bytes()
    with Directory(sealed) as directory:
        wanted = read_table(directory, "train.parquet", Limits())
    values = [list(map(bits, column.to_pylist())) for column in wanted.columns]
    footer = len(good) - 8 - struct.unpack("<I", good[-8:-4])[0]
    for place in [*range(0, footer, 7), *range(footer, len(good), 3)]:
        damaged = good[:place] + bytes([good[place] ^ 0x21]) + good[place + 1 :]
        with replaced(sealed, damaged) as directory:
            try:
                found = read_table(directory, "train.parquet", Limits(table_bytes=2**24))
            except (TableError, LimitError):
                continue
            if place < footer:
                assert [list(map(bits, column.to_pylist())) for column in found.columns] == values


def test_damage_that_the_library_does_not_survive_is_an_error_like_any_other(sealed: Path) -> None:
    """Asked how many values the first metric has, it would end the process."""
    file = sealed / "train.parquet"
    good = file.read_bytes()
    footer = len(good) - 8 - struct.unpack("<I", good[-8:-4])[0]
    # An optional column becomes one of a repetition that there is not.
    damaged = good[footer:].replace(b"\x25\x02\x18", b"\x25\x06\x18", 1)
    assert damaged != good[footer:]
    file.write_bytes(good[:footer] + damaged)
    code = (
        "import sys\n"
        "from blackboxml.errors import TableError\n"
        "from blackboxml.base.files import Directory\n"
        "from blackboxml.seal.sealed import LIMITS, read_table\n"
        "try: read_table(Directory(sys.argv[1]), 'train.parquet', LIMITS)\n"
        "except TableError: sys.exit(7)\n"
    )
    command = [sys.executable, "-c", code, sealed]
    assert subprocess.run(command, check=False).returncode == 7


@pytest.mark.rule("BB-LIM-004", "BB-SEC-008")
def test_a_small_file_that_declares_many_rows_is_refused(sealed: Path) -> None:
    rows = 2**20
    zeros = {name: pa.repeat(pa.scalar(0, kind), rows) for name, kind in tables.INDEX.items()}
    bomb = parquet(pa.table(zeros), compression="zstd")
    assert len(bomb) < 2**15
    with replaced(sealed, bomb) as directory:
        with pytest.raises(LimitError, match="table_bytes"):
            read_table(directory, "train.parquet", Limits(table_bytes=2**24))
        assert read_table(directory, "train.parquet", Limits()).num_rows == rows


def test_a_file_that_lies_about_its_rows_is_refused(sealed: Path) -> None:
    rows = 2**20
    zeros = {name: pa.repeat(pa.scalar(0, kind), rows) for name, kind in tables.INDEX.items()}
    data = parquet(pa.table(zeros))
    true = _varint(rows)
    lie = _varint(1, len(true))
    footer = len(data) - 8 - struct.unpack("<I", data[-8:-4])[0]
    places = [at for at in range(footer, len(data)) if data.startswith(true, at)]
    assert len(places) >= 1 + 1 + len(tables.INDEX)  # file, row group, each column
    lies = 0
    for which in [*([place] for place in places), places]:
        changed = bytearray(data)
        for place in which:
            changed[place : place + len(true)] = lie
        with replaced(sealed, bytes(changed)) as directory:
            try:
                found = read_table(directory, "train.parquet", Limits(table_bytes=2**20))
            except BlackboxError:
                lies += 1
            else:
                assert found.num_rows == 1
    assert lies >= len(places)


def _varint(value: int, length: int = 1) -> bytes:
    """Return a number as Thrift's compact protocol spells it, padded to a length."""
    value <<= 1
    found = bytearray()
    while value > 0x7F or len(found) < length - 1:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


@pytest.mark.parametrize(
    "make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/etc/passwd", path)]
)
def test_a_table_that_is_no_regular_file_is_not_opened(sealed: Path, make: Any) -> None:
    (sealed / "train.parquet").unlink()
    make(sealed / "train.parquet")
    with Directory(sealed) as directory, pytest.raises(UnsafePathError):
        read_table(directory, "train.parquet", Limits())


@pytest.mark.parametrize("name", ["../train.parquet", "/etc/passwd", "a//b", ".x", "", "a/../b"])
def test_a_path_that_leaves_the_run_is_refused(sealed: Path, name: str) -> None:
    with Directory(sealed) as directory, pytest.raises(UnsafePathError):
        read_table(directory, name, Limits())


def test_a_missing_table_names_its_cure(sealed: Path) -> None:
    with Directory(sealed) as directory, pytest.raises(TableError, match="blackbox seal"):
        read_table(directory, "nothing.parquet", Limits())
