"""One dataset: what it may hold at all, its variables, and every value against the journals."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import pyarrow as pa

from blackboxml import published
from blackboxml.errors import TableError
from blackboxml.journal.table import INDEX
from blackboxml.model import DATASET_FORMAT, VERSION
from blackboxml.seal.dataset import COORDINATES, DIMENSION, filled, variables
from blackboxml.seal.dataset_reader import Dataset
from blackboxml.validation.netcdf import (
    check_bounds,
    check_dimensions,
    check_labels,
    check_texts,
    plain_text,
)
from blackboxml.validation.series import Held, scan_chunks

if TYPE_CHECKING:
    import numpy.typing as npt

    from blackboxml.journal.table import GroupSchema, Key
    from blackboxml.seal import Spill
    from blackboxml.seal.sealed import GroupFiles
    from blackboxml.validation.subject import Subject

_VALUES: Final = ("BB-SEA-004", "BB-DAT-010")
_BATCH_ROWS: Final = 65_536
_VERSION: Final = re.compile("[0-9]+[.][0-9]+")
_COORDINATE_TYPES = {"step": "int64", "time": "float64", "rank": "int32", "attempt": "int32"}
_TYPES = {pa.float64(): "float64", pa.int64(): "int64", pa.bool_(): "int8"}
_ROOT = {"format": DATASET_FORMAT, "version": VERSION}


def check_dataset(
    subject: Subject, name: str, group: GroupSchema, files: GroupFiles, spill: Spill
) -> None:
    """Check a dataset.

    Args:
        subject: The run.
        name: The file.
        group: What its table holds.
        files: Tells which rows count.
        spill: The rows of the table, as the journals give them.
    """
    try:
        with (
            subject.directory.reading(name) as descriptor,
            Dataset(f"/dev/fd/{descriptor}", subject.limits) as dataset,
        ):
            _Check(subject, name, group, dataset).run(files, spill)
    except TableError as error:
        message = str(error).replace(f"/dev/fd/{descriptor}", name)
        subject.report(error.rule, message[:300], name, cure=subject.cure)


class _Check:
    """The check of one dataset that is safe to read."""

    def __init__(self, subject: Subject, name: str, group: GroupSchema, dataset: Dataset) -> None:
        """Prepare."""
        self._subject = subject
        self._name = name
        self._group = group
        self._dataset = dataset
        self._variables = variables(group)
        self._held = Held(subject, dataset, {*COORDINATES, *self._variables.values()})

    def run(self, files: GroupFiles, spill: Spill) -> None:
        """Look at the whole, then at each variable, then at the values."""
        if not self._check_version():
            return
        self._check_root()
        self._held.place(self._group.name, files, spill, self._report)
        series = self._held.variables
        axes: dict[str, tuple[str, ...]]
        axes = dict.fromkeys((*COORDINATES, *self._variables.values()), (DIMENSION,))
        axes |= {name: variable.dims for name, variable in series.items()}
        there = {name: dims for name, dims in axes.items() if name in self._dataset.variables}
        known = self._held.names | self._held.unknown
        check_dimensions(self._dataset, there, known, self._report)
        check_bounds(self._dataset.file, self._report)
        rows = sum(
            files.effective(table).num_rows for table in spill.tables(self._group, files.schema)
        )
        if not self._check_variables(rows):
            return
        sound = self._held.check(self._report)
        named = [*self._variables.values(), *(series if sound else ())]
        check_texts(self._dataset, named, self._report)
        fills = self._check_fills(files)
        if fills is not None and self._subject.asks(*_VALUES):
            self._compare(files, spill, fills)
            if sound:
                self._held.compare(self._report)
            scan_chunks(self._dataset, self._held.unknown, _BATCH_ROWS)
        elif self._subject.asks("BB-DAT-017"):
            scan_chunks(self._dataset, self._dataset.variables, _BATCH_ROWS)

    def _report(
        self,
        rule: str,
        message: str,
        variable: str | None = None,
        *,
        severity: Literal["error", "warning"] = "error",
    ) -> None:
        """Report about the file, or about a variable of it."""
        where = "" if variable is None else f"variable {variable!r:.80}: "
        cure = self._subject.cure
        self._subject.report(rule, where + message, self._name, severity=severity, cure=cure)

    def _check_version(self) -> bool:
        """Tell whether a dataset is of a version that may be judged."""
        version = plain_text(self._dataset.attributes.values.get("version"))
        if not isinstance(version, str) or not _VERSION.fullmatch(version):
            return True  # the root says what is wrong with it
        if version.partition(".")[0] != VERSION.partition(".")[0]:
            self._report("BB-VER-001", f"it is of version {version}, which is not known")
            return False
        if published.is_newer(version):
            message = f"it is of version {version}, newer than {published.newest()}"
            self._report("BB-VER-003", message, severity="warning")
        return True

    def _check_root(self) -> None:
        """Check what the file says of itself."""
        sealed = self._subject.sealed or {}
        wanted = {**_ROOT, "run_id": sealed["id"], "run_name": sealed["name"]}
        wanted["group"] = self._group.name
        found = self._dataset.attributes.values
        for key, text in wanted.items():
            if key == "version" and str(found.get(key, "")).startswith("1."):
                continue
            if plain_text(found.get(key)) != text:
                message = f"the attribute {key!r} is {found.get(key)!r:.80}, wanted {text!r:.80}"
                self._report("BB-DAT-003", message)

    def _check_variables(self, rows: int) -> bool:
        """Tell whether the variables are those of the table, along all rows that count."""
        names = [DIMENSION, *COORDINATES, *self._variables.values()]
        of_series = self._held.names | self._held.unknown
        there = self._dataset.variables
        found = [each for each in there if each in names or each not in of_series]
        if DIMENSION not in found:
            return False  # said already
        if missing := [name for name in COORDINATES if name not in found]:
            self._report("BB-DAT-005", f"there is no variable {', '.join(missing)}")
            return False
        if sorted(found) != sorted(names):
            others = sorted(set(found) ^ set(names))
            self._report("BB-DAT-006", f"not the variables of the table: {others!r:.200}")
            return False
        if [each for each in found if each not in COORDINATES] != [DIMENSION, *names[5:]]:
            self._report("BB-DAT-006", "its variables are not in the order of the columns")
        types = dict(_COORDINATE_TYPES)
        for key, name in self._variables.items():
            types[name] = _TYPES[self._group.type_of(key)]
        valid = True
        for name in found:
            shape, kind = there[name].shape, str(there[name].dtype)
            if shape != (rows,):
                self._report("BB-DAT-002", f"has the shape {shape}, wanted ({rows},)", name)
                valid = False
            if name in types and kind != types[name]:
                rule = "BB-DAT-005" if name in COORDINATES else "BB-DAT-007"
                self._report(rule, f"is {kind}, wanted {types[name]}", name)
                valid = False
        return valid

    def _check_fills(self, files: GroupFiles) -> dict[Key, Any] | None:
        """Return the value for "not logged" of each variable that has one; check its labels."""
        fills: dict[Key, Any] = {}
        said = files.entry()["metrics"]
        valid = True
        for key, name in self._variables.items():
            variable = self._dataset.variables[name]
            found = variable.attributes.values
            check_labels(name, key, found, said[key[0]], self._report)
            whole = self._group.type_of(key) == pa.bool_() and key not in files.fills
            if whole != (plain_text(found.get("dtype")) == "bool"):
                message = f"'dtype' is {found.get('dtype')!r:.80}, wanted 'bool' where it is one"
                self._report("BB-DAT-007", message, name)
            if "_FillValue" in found:
                fill = np.asarray(found["_FillValue"])
                if fill.size != 1 or fill.dtype != variable.dtype:
                    self._report("BB-DAT-010", f"_FillValue is {found['_FillValue']!r:.80}", name)
                    valid = False
                else:
                    fills[key] = fill.reshape(())[()]
        return fills if valid else None

    def _compare(self, files: GroupFiles, spill: Spill, fills: dict[Key, Any]) -> None:
        """Compare every value with the journals; the first difference of each is reported."""
        told: set[str] = set()
        gaps: set[Key] = set()
        start = 0
        for table in spill.tables(self._group, files.schema):
            rows = files.effective(table)
            where = slice(start, start + rows.num_rows)
            start = where.stop
            if not rows.num_rows:
                continue
            for name in COORDINATES:
                self._compare_values(name, where, rows.column(name).to_numpy(), told)
            for place, key in enumerate(self._group.keys, start=len(INDEX)):
                name, column = self._variables[key], rows.column(place)
                if column.null_count:
                    gaps.add(key)
                if column.null_count and key not in fills:
                    self._once("BB-DAT-010", "lacks values, but has no _FillValue", name, told)
                    continue
                if key in fills and _holds(column, fills[key]):
                    self._once("BB-DAT-010", "holds its _FillValue as a value", name, told)
                self._compare_values(name, where, filled(column, _plain(fills.get(key))), told)
        for key in fills.keys() - gaps:
            self._once(
                "BB-DAT-010", "has a _FillValue, but lacks no value", self._variables[key], told
            )

    def _compare_values(
        self, name: str, where: slice, wanted: npt.NDArray[Any], told: set[str]
    ) -> None:
        """Compare rows of one variable."""
        if name in told:
            return
        found = self._dataset.read(name, where)
        differs = found.view(f"u{found.itemsize}") != wanted.view(f"u{wanted.itemsize}")
        if found.dtype.kind == "f":
            differs &= ~(np.isnan(found) & np.isnan(wanted))
        if differs.any():
            row = int(np.flatnonzero(differs)[0])
            message = f"row {where.start + row}: {found[row]}, but the journals say {wanted[row]}"
            self._once("BB-SEA-004", message, name, told)

    def _once(self, rule: str, message: str, variable: str, told: set[str]) -> None:
        """Report the first difference of a variable."""
        if variable not in told:
            told.add(variable)
            self._report(rule, message, variable)


def _plain(value: Any) -> Any:
    """Return a number as Python has it."""
    return None if value is None else value.item()


def _holds(column: pa.ChunkedArray, fill: Any) -> bool:
    """Tell whether a column has a value that stands for "not logged"."""
    values = column.drop_null().to_numpy(zero_copy_only=False)
    if isinstance(fill, np.floating) and np.isnan(fill):
        return bool(np.isnan(values).any())
    return bool((values == fill).any())
