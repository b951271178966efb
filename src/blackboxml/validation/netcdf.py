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

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from blackboxml.journal.table import Key


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
_LIST: Final = "REFERENCE_LIST"
_ATTACHED: Final = "DIMENSION_LIST"
_LONGEST: Final = 2**24
_ENTRY_BYTES: Final = 16
_AXIS_OFFSET: Final = 8
_AXIS_BYTES: Final = 4
_LATEST_SUPERBLOCK: Final = 2
_TEXTS: Final = ("metric", "statistic", "coordinates", "units", "long_name", "dtype", "medium")
_ROOT_TEXTS: Final = ("format", "version", "run_id", "run_name", "group")


def check_dimensions(
    file: h5py.File, axes: Mapping[str, Sequence[str]], known: Collection[str], report: Report
) -> None:
    """Check that the dimensions are what they should be, and that each axis is attached to its own.

    Args:
        file: The dataset.
        axes: Names of the dimensions of each variable.
        known: Dimensions that may be there besides.
        report: Takes what is found.
    """
    if DIMENSION not in file:
        report("BB-DAT-004", f"there is no dimension {DIMENSION}", None)
        return
    wanted = {DIMENSION, *(dimension for dims in axes.values() for dimension in dims)}
    objects = {name: file[name] for name in file}
    scales = {name for name, each in objects.items() if h5py.h5ds.is_scale(each.id)}
    if not wanted <= scales <= wanted | set(known):
        found, said = ", ".join(sorted(scales)), ", ".join(sorted(wanted))
        report("BB-DAT-004", f"the dimension scales are {found:.200}, wanted {said:.200}", None)
        return
    attached = {}
    for name in scales:
        label = objects[name].attrs.get("NAME", b"")
        if not (isinstance(label, bytes) and label.startswith(_NO_VARIABLE)):
            report("BB-DAT-004", "is a dimension with values of its own", name)
        attached[name] = _attached(objects[name])
    for name, variable in objects.items():
        if name in scales:
            continue
        address = h5py.h5o.get_info(variable.id).addr
        for axis in range(variable.ndim):
            allowed: Collection[str] = scales
            if name in axes:
                allowed = axes[name][axis : axis + 1]
            listed = [attached[dimension] for dimension in allowed]
            there = any(each is None or (address, axis) in each for each in listed)
            if not there or _ATTACHED not in variable.attrs:
                where = ", ".join(sorted(allowed))
                report("BB-DAT-004", f"is not attached to {where:.200}", name)


def _attached(scale: h5py.Dataset) -> set[tuple[int, int]] | None:
    """Return the axes that are attached to a scale; None if they are listed otherwise.

    An entry is the address of a variable, of 8 bytes, then the number of the dimension, of 4.
    """
    if _LIST not in scale.attrs:
        return set()
    entries = scale.attrs.get_id(_LIST)
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


def check_texts(file: h5py.File, names: Iterable[str], report: Report) -> None:
    """Check that texts are scalar, of fixed length and marked as UTF-8."""
    places = [(None, file, _ROOT_TEXTS), *((name, file[name], _TEXTS) for name in names)]
    for name, target, texts in places:
        for key in target.attrs:
            if key not in texts:
                continue
            attribute = target.attrs.get_id(key)
            kind = attribute.get_type()
            if not (
                isinstance(kind, h5py.h5t.TypeStringID)
                and not kind.is_variable_str()
                and kind.get_cset() == h5py.h5t.CSET_UTF8
                and attribute.get_space().get_simple_extent_type() == h5py.h5s.SCALAR
            ):
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
