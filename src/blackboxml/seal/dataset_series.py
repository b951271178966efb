"""Arrays and histograms in a dataset: written medium by medium, compared, bounded in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from blackboxml.media.placement import dimensions
from blackboxml.seal.dataset import STORED, set_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import h5py
    import numpy.typing as npt

    from blackboxml.media.placement import Placed, Variable
    from blackboxml.seal.dataset import DatasetWriter
    from blackboxml.seal.dataset_reader import Dataset

_CHUNK_BYTES: Final = 2**20
_BATCH_BYTES: Final = 2**22

Batch = tuple[slice, tuple["npt.NDArray[Any]", ...]]
"""Places along the first dimension, and the values there of each variable."""


def write_series(dataset: DatasetWriter, placed: Sequence[Placed]) -> None:
    """Write series into a dataset that has its rows.

    Args:
        dataset: The dataset.
        placed: Where they stand.

    Raises:
        FormatError: If a file of a medium has changed since it was looked at.
        OSError: If the file system refuses.
    """
    for name, length in dimensions(placed).items():
        dataset.dimensions.create(name, length)
    for each in placed:
        for variable in each.coordinates:
            _create(dataset, variable)[:] = each.coordinate(variable)
        targets = [_create(dataset, variable) for variable in each.variables]
        for where, values in batches(each):
            for target, part in zip(targets, values, strict=True):
                target[where] = part
            dataset.check()


def compare_series(dataset: Dataset, placed: Sequence[Placed]) -> str | None:
    """Return the first variable of series that does not hold what their media say, or None.

    Raises:
        FormatError: If a file of a medium has changed since it was looked at.
        TableError: If a checksum of the dataset is wrong.
    """
    for each in placed:
        for variable in each.coordinates:
            found = dataset.read(variable.name, slice(None))
            if differing(found, each.coordinate(variable)) is not None:
                return variable.name
        for where, values in batches(each):
            for variable, wanted in zip(each.variables, values, strict=True):
                if differing(dataset.read(variable.name, where), wanted) is not None:
                    return variable.name
    return None


def differing(found: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> int | None:
    """Return the first place along the first dimension where values differ, None if none does.

    They are compared bit by bit, but a NaN is equal to any other.
    """
    kind = f"u{wanted.itemsize}"
    differs = np.ascontiguousarray(found).view(kind) != np.ascontiguousarray(wanted).view(kind)
    if wanted.dtype.kind == "f":
        differs &= ~(np.isnan(found) & np.isnan(wanted))
    if not differs.any():
        return None
    return int(np.flatnonzero(differs.reshape(len(differs), -1).any(axis=1))[0])


def batches(placed: Placed) -> Iterator[Batch]:
    """Yield the values of a series in the order of its first dimension, some megabytes at a time.

    Raises:
        FormatError: If a file of a medium has changed since it was looked at.
    """
    size = sum(_size(variable) for variable in placed.variables)
    count = max(1, _BATCH_BYTES // size)
    for start in range(0, len(placed.order), count):
        media = [placed.series.read(int(at)) for at in placed.order[start : start + count]]
        yield (
            slice(start, start + len(media)),
            tuple(np.stack(values) for values in zip(*media, strict=True)),
        )


def _create(dataset: DatasetWriter, variable: Variable) -> h5py.Dataset:
    """Create a variable with its attributes, attached to its dimensions."""
    created = dataset.file.create_dataset(
        variable.name,
        shape=variable.shape,
        dtype=variable.dtype,
        chunks=_chunks(variable),
        **STORED,
    )
    for name, text in variable.attributes.items():
        set_text(created, name, text)
    dataset.dimensions.attach(created, variable.dims)
    return created


def _chunks(variable: Variable) -> tuple[int, ...]:
    """Return the shape of a chunk: whole media, or a part of one that is large."""
    chunks = list(variable.shape)
    for axis in range(len(chunks)):
        rest = int(np.prod(chunks[axis + 1 :])) * variable.dtype.itemsize
        chunks[axis] = max(1, min(chunks[axis], _CHUNK_BYTES // rest))
    return tuple(chunks)


def _size(variable: Variable) -> int:
    """Return how many bytes one medium of a variable takes."""
    return int(np.prod(variable.shape[1:])) * variable.dtype.itemsize
