"""Arrays in files: read as they were written, and looked at before anything is allocated."""

from __future__ import annotations

import io
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from blackboxml.base import npy

if TYPE_CHECKING:
    from pathlib import Path


def spelled(array: Any, version: tuple[int, int] = (1, 0), *, pickled: bool = False) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version, allow_pickle=pickled)
    return file.getvalue()


def header(text: str, data: bytes = b"") -> bytes:
    body = text.encode("latin1").ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body + data


PLAIN = "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }"
NUMBERS = (
    hnp.boolean_dtypes()
    | hnp.integer_dtypes(endianness="?")
    | hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64))
    | hnp.complex_number_dtypes(endianness="?", sizes=(64, 128))
)
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


@given(hnp.arrays(NUMBERS, SHAPES), st.booleans())
def test_an_array_is_read_as_it_was_written(array: Any, columns_first: bool) -> None:
    array = np.asfortranarray(array) if columns_first else array
    found = npy.read_array(spelled(array))
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert found.tobytes() == array.tobytes()


@given(st.binary(max_size=300) | st.binary(max_size=200).map(lambda data: header("", data)))
def test_bytes_of_any_kind_give_an_array_or_an_error(data: bytes) -> None:
    with suppress(ValueError):
        npy.read_array(data)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", "no .npy file"),
        (spelled(np.zeros(2), (2, 0)), "no .npy file of version 1.0"),
        (spelled(np.array([{}]), pickled=True), "nothing of numbers"),
        (spelled(np.zeros(2, "U3")), "nothing of numbers"),
        (spelled(np.zeros(2, [("a", "f4")])), "nothing of numbers"),
        (spelled(np.zeros(2, "M8[s]")), "nothing of numbers"),
        (spelled(np.zeros(2))[:-1], "declares 16 bytes of numbers and has 15"),
        (spelled(np.zeros(2)) + b"x", "has 17"),
        (header(PLAIN % ("<f8", "1099511627776,")), "declares 8,796,093,022,208 bytes"),
        (header(PLAIN % ("<f8", "-1,")), "nothing of numbers"),
        (header(PLAIN % ("<f8", "1.5,")), "nothing of numbers"),
        (header(PLAIN % ("<f7", "1,")), "'<f7', which is no type"),
        (header(PLAIN % ("|b1", "1, " * 65)), "its shape is"),
        (header(PLAIN % ("|b1", "1" * 300)), "its shape is"),
        (header(PLAIN % ("|b1", "1 1")), "its shape is"),
        (header("{'descr': '<f8'}"), "nothing of numbers"),
        (header("__import__('os').abort()"), "nothing of numbers"),
        (header("(" * 90), "nothing of numbers"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused(data: bytes, error: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=error):
        npy.read_array(data)
    (tmp_path / "a.npy").write_bytes(data)
    with (tmp_path / "a.npy").open("rb") as file, pytest.raises(ValueError, match=error):
        npy.read_header(file.fileno())


def test_a_header_that_is_too_long_is_not_read() -> None:
    body = b"{'descr': '<f8', 'fortran_order': False, 'shape': (0,), }".ljust(60_000) + b"\n"
    with pytest.raises(ValueError, match="nothing of numbers"):
        npy.read_array(b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body)
