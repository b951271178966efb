"""Chunks that are written past HDF5's filters, read with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blackboxml.seal.chunks import Chunks, encode, fletcher32

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

FILTERS: dict[str, Any] = {
    "compression": "gzip",
    "compression_opts": 1,
    "shuffle": True,
    "fletcher32": True,
}
CHUNK = 1000
RANDOM = np.random.default_rng(0)
COLUMNS: dict[str, npt.NDArray[Any]] = {
    "float64": RANDOM.standard_normal(2 * CHUNK + 1),
    "nan": np.full(3 * CHUNK, np.nan),
    "int64": RANDOM.integers(-(2**63), 2**63 - 1, 5 * CHUNK),
    "int32": np.arange(CHUNK - 1, dtype=np.int32),
    "int8": RANDOM.integers(-1, 2, 4 * CHUNK + 999).astype(np.int8),
    "zeros": np.zeros(1),
}


def create(file: h5py.File, values: npt.NDArray[Any]) -> h5py.Dataset:
    chunks = (min(CHUNK, len(values)),)
    return file.create_dataset("x", values.shape, values.dtype, chunks=chunks, **FILTERS)


@pytest.mark.parametrize("values", COLUMNS.values(), ids=COLUMNS)
@pytest.mark.parametrize("pieces", [1, 2, 7])
def test_hdf5_reads_what_was_written_in_any_pieces(
    tmp_path: Path, values: npt.NDArray[Any], pieces: int
) -> None:
    with h5py.File(tmp_path / "x.h5", "w", libver="latest") as file:
        chunks = Chunks(create(file, values))
        for piece in np.array_split(values, pieces):
            chunks.append(piece)
        chunks.finish()
    with h5py.File(tmp_path / "x.h5") as file:
        assert file["x"][:].tobytes() == values.tobytes()


@pytest.mark.parametrize("values", COLUMNS.values(), ids=COLUMNS)
def test_a_checksum_is_what_hdf5_writes(tmp_path: Path, values: npt.NDArray[Any]) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        create(file, values)[:] = values
    with h5py.File(tmp_path / "x.h5") as file:
        for start in range(0, len(values), CHUNK):
            skipped, data = file["x"].id.read_direct_chunk((start,))
            assert not skipped
            assert fletcher32(data[:-4]) == int.from_bytes(data[-4:], "little")


def test_hdf5_refuses_a_chunk_with_a_bit_flipped(tmp_path: Path) -> None:
    values = COLUMNS["float64"][:CHUNK]
    data = bytearray(encode(values))
    data[len(data) // 2] ^= 1
    with h5py.File(tmp_path / "x.h5", "w") as file:
        create(file, values).id.write_direct_chunk((0,), bytes(data))
    with h5py.File(tmp_path / "x.h5") as file, pytest.raises(OSError, match="filter returned"):
        file["x"][:]


def slowly(data: bytes) -> int:
    """The checksum as H5_checksum_fletcher32 computes it, word by word."""
    first = second = 0
    for at in range(0, len(data), 2):
        first += int.from_bytes(data[at : at + 2].ljust(2, b"\0"), "big")
        first = (first & 0xFFFF) + (first >> 16)
        second += first
        second = (second & 0xFFFF) + (second >> 16)
    return second << 16 | first


@given(st.one_of(st.binary(), st.lists(st.sampled_from([b"\xff\xff", b"\0\0"])).map(b"".join)))
def test_a_checksum_folds_as_ones_complement(data: bytes) -> None:
    assert fletcher32(data) == slowly(data)
