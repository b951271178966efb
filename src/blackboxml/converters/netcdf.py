"""netCDF, as xarray reads it: `.nc`, `.nc4`, `.cdf`.

Import. The rows run over the dimension of the variable that is the step by its name: see
`tabular.STEPS`, and `tabular.TIMES` for the time, whose units may be those of CF (`seconds since
1970-01-01`). A variable over that dimension alone is a metric, a text variable gives texts, one
over further dimensions behind it gives arrays; any other is lost and counted. A fill value was not
logged, unless it is NaN, which cannot be told from a NaN that was. `units` and `long_name` become
the unit and the description of a metric.
Source: https://cfconventions.org/cf-conventions/cf-conventions.html

Export. A folder `<target>/<run>/` with one file a group, or the one file that the target names with
its suffix; then each row holds what one group logged. The dimension is `row`; its coordinates are
step and time, and rank and attempt where they are not all 0. What was not logged is a `_FillValue`
that the variable does not hold otherwise. A bool is a byte with the flags `false true`. The full
name of a metric, or its description, is its `long_name`. What the table has no place for is JSON in
the attribute `blackbox_export`. Media are lost.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from blackboxml.base.extras import require
from blackboxml.base.files import raise_hdf5_refusal, raise_refusal
from blackboxml.base.naming import variable_names
from blackboxml.foreign import layout, tabular
from blackboxml.foreign.interchange import Description

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import numpy.typing as npt
    import xarray as xr

    from blackboxml.foreign.interchange import ForeignRun, Item, Ledger
    from blackboxml.foreign.tabular import Plan
    from blackboxml.reader import RunReader

EXTRA: Final = "netcdf"
"""To read files of netCDF 3; those of netCDF 4 need no more than this package does."""

SUFFIXES: Final = (".nc", ".nc4", ".cdf")
_KEY: Final = "blackbox_export"
_FLAGS: Final = "false true"
_EPOCH: Final = "seconds since 1970-01-01"
_CLASSIC: Final = b"CDF"
_BATCH: Final = 2**14
_BROKEN: Final = (OSError, RuntimeError, KeyError, ValueError)
"""What the libraries raise over a file that is damaged, or that the system refuses."""


def recognise(path: Path) -> bool:
    """Tell whether a file has a variable of steps, or a folder was exported."""
    if path.is_dir():
        return tabular.is_folder([_about(table) for table in layout.tables(path, SUFFIXES)])
    if path.suffix.lower() not in SUFFIXES or not path.is_file():
        return False
    with _open(path) as data:
        return _steps(data) is not None or _parse(data) is not None


def members(path: Path) -> set[str]:
    """Return the tables of an exported folder."""
    return {table.name for table in layout.tables(path, SUFFIXES)}


def read(path: Path) -> Iterator[ForeignRun]:
    """Yield the one run of a file or folder."""
    tables = layout.tables(path, SUFFIXES)
    about = next(filter(None, map(_about, tables)), None)
    yield tabular.foreign_run(path, tables, about, _items)


def _open(path: Path) -> xr.Dataset:
    """Open a file without reading its values.

    Raises:
        OSError: If the file system refuses to show it.
        ValueError: If it is damaged.
    """
    import h5py
    import xarray as xr

    engine = "h5netcdf"  # its errors tell damage from what the system refuses
    with path.open("rb") as file:
        if file.read(3) == _CLASSIC:
            require("netCDF4", EXTRA)
            engine = "netcdf4"
    try:
        if engine == "h5netcdf":
            with h5py.File(path, "r") as plain:
                plain.attrs.get("_nc3_strict")  # if that fails in h5netcdf, its `close` fails too
        return xr.open_dataset(
            path, engine=engine, mask_and_scale=False, decode_times=False, decode_coords=False
        )
    except _BROKEN as error:
        raise_hdf5_refusal(error, str(path))
        raise ValueError(f"{path} is damaged: {error}") from None


def _about(path: Path) -> dict[str, Any] | None:
    """Return what an export kept in the attributes of a file."""
    try:
        with _open(path) as data:
            return _parse(data)
    except (OSError, ValueError) as error:
        raise_refusal(error)
        return None


def _parse(data: xr.Dataset) -> dict[str, Any] | None:
    """Return what an export kept in the attributes."""
    try:
        return tabular.check_about(json.loads(data.attrs[_KEY]))
    except (KeyError, TypeError, ValueError, RecursionError):
        return None


def _names(data: xr.Dataset) -> list[str]:
    """Return the names of all variables."""
    return [str(name) for name in data.variables]


def _steps(data: xr.Dataset) -> str | None:
    """Return the variable of steps, if it runs over one dimension."""
    name = tabular.roles(_names(data)).step
    return name if name is not None and data.variables[name].ndim == 1 else None


def _items(path: Path, about: dict[str, Any] | None, ledger: Ledger) -> Iterator[Item]:
    """Yield the items of one file."""
    try:
        data = _open(path)
    except (OSError, ValueError) as error:
        raise_refusal(error)
        ledger.unreadable("step", "a table cannot be read", where=str(error)[:300])
        return
    with data:
        names = _names(data)
        found = tabular.roles(names, about)
        if found.step not in names:
            ledger.unreadable("step", "a file has no steps", where=str(path))
            return
        row = data.variables[found.step].dims[0]
        rows = tabular.Rows(ledger, found, about)
        used = []
        for name in names:
            if data.variables[name].dims[:1] == (row,):
                used.append(name)
            else:
                what = "a variable does not run over the rows"
                ledger.lost("field", what, where=f"{path}: {name}")
        for first in range(0, data.sizes[row], _BATCH):
            part = slice(first, min(first + _BATCH, data.sizes[row]))
            columns = {}
            for name in used:
                try:
                    columns[name] = _cells(data.variables[name][part], timed=name == found.time)
                except _BROKEN as error:
                    raise_hdf5_refusal(error, str(path))
                    count, where = part.stop - first, f"{path}: {name}: row {first}: {error}"[:300]
                    ledger.unreadable("scalar", "values cannot be read", count, where=where)
            for place, values in enumerate(zip(*columns.values(), strict=True), start=first):
                cells = {n: v for n, v in zip(columns, values, strict=True) if v is not None}
                yield from rows.take(cells, f"{path}: row {place}")
        yield from rows.finish()
        if about is None:
            yield from _descriptions(data, used, rows)


def _descriptions(data: xr.Dataset, used: list[str], rows: tabular.Rows) -> Iterator[Item]:
    """Yield what is said of the metrics of a file that was not exported."""
    for name in used:
        said = data.variables[name].attrs
        unit, text = (
            each if isinstance(each := said.get(key), str) and each else None
            for key in ("units", "long_name")
        )
        metric = rows.metric(name)
        if metric is not None and (unit or text):
            yield Description(metric, unit, text)


def _cells(variable: xr.Variable, *, timed: bool) -> list[Any]:
    """Return the values of a variable by row, None where a fill value stands."""
    import numpy as np
    import xarray as xr

    said = variable.attrs
    values = variable.values
    if values.dtype.kind not in "biuf":
        return [each if isinstance(each, np.ndarray) else _text(each) for each in values]
    fills = [said[key] for key in ("_FillValue", "missing_value") if key in said]
    missing = np.isin(values, np.ravel(fills)) if fills else np.zeros(values.shape, np.bool_)
    units = str(said.get("units", ""))
    if timed and " since " in units and not units.startswith(_EPOCH):
        values = xr.conventions.decode_cf_variable("time", variable).values
        values = (values - np.datetime64(0, "s")) / np.timedelta64(1, "s")
    elif said.get("flag_meanings") == _FLAGS:
        values = values.astype(np.bool_)
    if "scale_factor" in said or "add_offset" in said:
        values = values * np.float64(said.get("scale_factor", 1)) + said.get("add_offset", 0)
    if values.ndim > 1:
        return list(values)
    cells: list[Any] = values.tolist()
    for place in np.flatnonzero(missing):
        cells[place] = None
    return cells


def _text(value: object) -> object:
    """Return a text; bytes are taken as UTF-8, an empty one was not logged."""
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return text or None


# -- export


def write(run: RunReader, target: Path, ledger: Ledger, options: Mapping[str, Any]) -> Path:
    """Write the effective history of a run; see the head of this module.

    Raises:
        ConversionError: If the target file holds something else.
    """
    del options
    plan = tabular.plan(run, ledger)
    labels = [each.label for columns in plan.columns.values() for each in columns]
    names = variable_names([*plan.keys, *labels])
    plan.about["columns"] = {names[label]: said for label, said in plan.about["columns"].items()}

    def write_table(path: Path, groups: list[str]) -> None:
        _write(path, run, plan, names, groups)

    return layout.write(run, target, SUFFIXES, plan, write_table)


def _write(
    path: Path, run: RunReader, plan: Plan, names: Mapping[str, str], groups: list[str]
) -> None:
    """Write the rows of some groups, one column in memory at a time."""
    import h5netcdf
    import numpy as np

    counts = [len(run.arrow(group, "effective", ["step"])) for group in groups]
    total = sum(counts)
    with h5netcdf.File(path, "w") as file:
        file.attrs["blackbox_id"] = run.id
        file.attrs["Conventions"] = "CF-1.11"
        file.attrs["title"] = run.name
        file.attrs[_KEY] = json.dumps(plan.about)
        file.dimensions = {"row": total}
        packed: dict[str, Any] = {"compression": "gzip", "shuffle": True} if total else {}
        for key in plan.keys:
            kind = {"step": "i8", "time": "f8"}.get(key, "i4")
            parts = [run.arrow(group, "effective", [key]).column(0).to_numpy() for group in groups]
            variable = file.create_variable(key, ("row",), kind, **packed)
            if total:
                variable[:] = np.concatenate(parts)
            variable.attrs["long_name"] = key
            if key == "time":
                variable.attrs["standard_name"] = "time"
                variable.attrs["units"] = f"{_EPOCH} 00:00:00"
                variable.attrs["calendar"] = "standard"
        first = 0
        for group, count in zip(groups, counts, strict=True):
            for each in plan.columns[group]:
                column = run.arrow(group, "effective", [each.column]).column(0)
                present = column.is_valid().to_numpy(zero_copy_only=False).astype(np.bool_)
                kind = {"bool": "i1", "int64": "i8"}.get(each.type, "f8")
                own = column.drop_null().to_numpy(zero_copy_only=False).astype(kind)
                fill = _fill(own) if len(own) < total else None
                values = np.full(total, 0 if fill is None else fill, kind)
                values[first : first + count][present] = own
                variable = file.create_variable(
                    names[each.label], ("row",), kind, fillvalue=fill, **packed
                )
                if total:
                    variable[:] = values
                said = plan.about["descriptions"].get(each.metric, {})
                title = said.get("description") if each.statistic is None else None
                variable.attrs["long_name"] = title or each.label
                variable.attrs["coordinates"] = " ".join(plan.keys)
                if "unit" in said and each.statistic != "count":
                    variable.attrs["units"] = said["unit"]
                if each.type == "bool":
                    variable.attrs["flag_values"] = np.array([0, 1], "i1")
                    variable.attrs["flag_meanings"] = _FLAGS
            first += count


def _fill(values: npt.NDArray[Any]) -> Any:
    """Return a number of the same type that is none of the values."""
    import numpy as np

    kind = values.dtype
    if kind.kind == "f":
        fill = kind.type(9.969209968386869e36)
        while fill in values:
            fill = np.nextafter(fill, np.inf)
        return fill
    number = -1 if kind.itemsize == 1 else -(2**63)
    while kind.type(number) in values:
        number += 1
    return kind.type(number)
