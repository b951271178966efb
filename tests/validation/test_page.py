"""The headers of pages are read as the library writes them."""

from __future__ import annotations

import itertools
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blackboxml.validation.page import Page, _Header, pages

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROWS = 50_000
TABLE = pa.table(
    {
        "a": list(range(ROWS)),
        "b": [None if at % 3 else at / 7 for at in range(ROWS)],
        "c": [at % 2 == 0 for at in range(ROWS)],
        "d": [f"{at % 100:0600}" for at in range(ROWS)],  # statistics make a long header
    }
)


def found(path: Path) -> list[Page]:
    with pq.ParquetFile(path) as file, opened(path) as descriptor:
        return list(pages(descriptor, file))


@contextmanager
def opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("dictionary", [True, False])
@pytest.mark.parametrize("checked", [True, False])
def test_every_page_is_found_and_whether_it_has_a_checksum(
    tmp_path: Path, version: str, dictionary: bool, checked: bool
) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(
        TABLE,
        path,
        row_group_size=20_000,
        data_page_size=50_000,
        data_page_version=version,
        use_dictionary=dictionary,
        write_page_checksum=checked,
        compression="zstd",
    )
    seen = found(path)
    assert {page.checked for page in seen} == {checked}
    assert len(seen) > 3 * TABLE.num_columns
    gaps = [after.offset - (page.offset + page.size) for page, after in itertools.pairwise(seen)]
    assert all(0 < gap < 4_000 for gap in gaps), "headers, and nothing else, stand between pages"


def test_one_page_without_a_checksum_is_told_from_the_others(tmp_path: Path) -> None:
    seen = []
    for at, checked in enumerate([True, False]):
        path = tmp_path / f"{at}.parquet"
        pq.write_table(TABLE.select(["a"]), path, write_page_checksum=checked)
        seen.append({page.checked for page in found(path)})
    assert seen == [{True}, {False}]


def test_what_is_no_page_is_said_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(TABLE, path)
    first = found(path)[0].offset
    with pq.ParquetFile(path) as file:
        data = bytearray(path.read_bytes())
        data[first : first + 600] = b"\x00" * 600
        path.write_bytes(data)
        with (
            opened(path) as descriptor,
            pytest.raises(ValueError, match=f"no page at offset {first}"),
        ):
            list(pages(descriptor, file))


@given(st.binary(max_size=400))
def test_no_bytes_make_the_header_hang_or_fail_in_another_way(data: bytes) -> None:
    header = _Header(data)
    try:
        header.struct(8)
    except (IndexError, ValueError):
        return
    assert header.place <= len(data)
