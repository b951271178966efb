"""What makes an HDF5 file a dataset for netCDF readers: its dimension, its texts and its labels.

The lists by which HDF5 attaches a scale hold references. They are compared with the addresses of
the variables as they stand: following one that somebody made up is what the library was not made
for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import h5py
import numpy as np

from blackboxml.seal.dataset import COORDINATES, DIMENSION
from blackboxml.seal.dataset_reader import (
    DIMENSION_LIST,
    NAME,
    REFERENCE_LIST,
    ROOT_TEXTS,
    TEXTS,
    is_text,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from blackboxml.journal.table import Key
    from blackboxml.seal.dataset_reader import Attributes, Dataset, Stored


class Report(Protocol):
    """Takes a rule, what was found, and the variable or None for the file."""

    def __call__(
        self,
        rule: str,
        message: str,
        variable: str | None,
        *,
        severity: Literal["error", "warning"] = "error",
    ) -> None:
        """Keep a finding."""


_NO_VARIABLE: Final = b"This is a netCDF dimension but not a netCDF variable."
_LONGEST: Final = 2**24
_ENTRY_BYTES: Final = 16
_AXIS_OFFSET: Final = 8
_AXIS_BYTES: Final = 4
_LATEST_SUPERBLOCK: Final = 2


def check_dimensions(
    dataset: Dataset, axes: Mapping[str, Sequence[str]], known: Collection[str], report: Report
) -> None:
    """Check that the dimensions are what they should be, and that each axis is attached to its own.

    Args:
        dataset: The dataset.
        axes: Names of the dimensions of each variable.
        known: Dimensions that may be there besides.
        report: Takes what is found.
    """
    if DIMENSION not in dataset.variables:
        report("BB-DAT-004", f"there is no dimension {DIMENSION}", None)
        return
    wanted = {DIMENSION, *(dimension for dims in axes.values() for dimension in dims)}
    scales = {name: each for name, each in dataset.variables.items() if each.is_scale}
    if not wanted <= scales.keys() <= wanted | set(known):
        found, said = ", ".join(sorted(scales)), ", ".join(sorted(wanted))
        report("BB-DAT-004", f"the dimension scales are {found:.200}, wanted {said:.200}", None)
        return
    attached = {}
    for name, scale in scales.items():
        if not _label(scale).startswith(_NO_VARIABLE):
            report("BB-DAT-004", "is a dimension with values of its own", name)
        attached[name] = _attached(scale)
    for name, variable in dataset.variables.items():
        if name in scales:
            continue
        for axis in range(len(variable.shape)):
            allowed: Collection[str] = scales
            if name in axes:
                allowed = axes[name][axis : axis + 1]
            listed = [attached[dimension] for dimension in allowed]
            there = any(each is None or (variable.address, axis) in each for each in listed)
            if not there or DIMENSION_LIST not in variable.attributes.attachments:
                where = ", ".join(sorted(allowed))
                report("BB-DAT-004", f"is not attached to {where:.200}", name)


def _label(scale: Stored) -> bytes:
    """Return what a scale says that it is; nothing unless that is one text of fixed length."""
    if NAME not in scale.attributes.attachments:
        return b""
    label = h5py.h5a.open(scale.id, NAME)
    if not is_text(label.get_type()) or label.shape or label.get_storage_size() > _LONGEST:
        return b""
    value = np.empty((), label.dtype)
    label.read(value)
    return bytes(value[()])


def _attached(scale: Stored) -> set[tuple[int, int]] | None:
    """Return the axes that are attached to a scale; None if they are listed otherwise.

    An entry is the address of a variable, of 8 bytes, then the number of the dimension, of 4.
    """
    if REFERENCE_LIST not in scale.attributes.attachments:
        return set()
    entries = h5py.h5a.open(scale.id, REFERENCE_LIST)
    kind = entries.get_type()
    plain = isinstance(kind, h5py.h5t.TypeCompoundID) and kind.get_nmembers() > 1
    if not plain or kind.get_size() != _ENTRY_BYTES or kind.get_member_offset(0) != 0:
        return None
    first = kind.get_member_type(0)
    if not isinstance(first, h5py.h5t.TypeReferenceID) or not first.equal(h5py.h5t.STD_REF_OBJ):
        return None
    if (
        kind.get_member_offset(1) != _AXIS_OFFSET
        or kind.get_member_type(1).get_size() != _AXIS_BYTES
    ):
        return None
    if len(entries.shape) != 1 or entries.shape[0] * _ENTRY_BYTES > _LONGEST:
        return None
    raw = np.empty(entries.shape, f"V{_ENTRY_BYTES}")
    entries.read(raw, mtype=kind)
    addresses, axes = raw.view("=u8")[::2].tolist(), raw.view("=u4")[2::4].tolist()
    return set(zip(addresses, axes, strict=True))


def check_bounds(file: h5py.File, report: Report) -> None:
    """Check how the file was written."""
    superblock, *_ = file.id.get_create_plist().get_version()
    if superblock < _LATEST_SUPERBLOCK:
        message = "not written with the library version bounds `latest`"
        report("BB-DAT-013", message, None, severity="warning")
    order = file["/"].id.get_create_plist().get_link_creation_order()
    if not order & h5py.h5p.CRT_ORDER_TRACKED:
        message = "the order in which variables were created is not tracked"
        report("BB-DAT-013", message, None, severity="warning")


def check_texts(dataset: Dataset, names: Iterable[str], report: Report) -> None:
    """Check that texts are scalar, of fixed length and marked as UTF-8."""
    variables = dataset.variables
    places: list[tuple[str | None, Attributes, frozenset[str]]]
    places = [(None, dataset.attributes, ROOT_TEXTS)]
    places += [(name, variables[name].attributes, TEXTS) for name in names]
    for name, found, texts in places:
        for key in found.values.keys() & texts - found.texts:
            message = f"{key!r} is not one text of fixed length in UTF-8"
            report("BB-DAT-014", message, name)


def check_labels(
    name: str, key: Key, found: Mapping[str, Any], said: Mapping[str, Any], report: Report
) -> None:
    """Check what a variable of a metric or statistic says of itself.

    Args:
        name: The variable.
        key: Metric and statistic.
        found: Its attributes.
        said: What the journals say of the metric: `unit` and `description`, if anything.
        report: Takes what is found.
    """
    metric, statistic = key
    wanted: list[tuple[str, str, str | None]] = [
        ("BB-DAT-008", "metric", metric),
        ("BB-DAT-008", "coordinates", " ".join(COORDINATES)),
        ("BB-DAT-008", "statistic", statistic),
    ]
    if statistic == "count":
        wanted.append(("BB-DAT-009", "units", None))
    elif "unit" in said:
        wanted.append(("BB-DAT-009", "units", said["unit"]))
    if "description" in said:
        wanted.append(("BB-DAT-009", "long_name", said["description"]))
    for rule, attribute, text in wanted:
        value = plain_text(found.get(attribute))
        if value != text:
            report(rule, f"{attribute!r} is {value!r:.80}, wanted {text!r:.80}", name)


def plain_text(value: Any) -> Any:
    """Return a text without the NUL that stands for an empty one."""
    return value.rstrip("\0") if isinstance(value, str) else value
