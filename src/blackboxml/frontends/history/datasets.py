"""Values in memory as xarray: one variable a metric, along `draw` with the coordinate `step`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from blackboxml.frontends.history.values import array as to_array

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt
    import xarray as xr

    from blackboxml.frontends.history.columns import Columns

DRAW: Final = "draw"
INNER: Final = ("chain", "leapfrog")
"""Dimensions of what is logged as a vector, or as a matrix, at each step."""

_NUMBERS: Final = (bool, int, float)
_COMPRESSED: Final = {"zlib": True, "complevel": 1, "shuffle": True, "fletcher32": True}


def to_data_array(values: Any, warmup: float | None = 0.0) -> xr.DataArray:
    """Return values of all steps as an array of the dimensions (chain, leapfrog, draw), last ones.

    Args:
        values: A list, array or tensor; the first axis is the steps.
        warmup: How many of the first steps to leave out; a float is their fraction.

    Raises:
        ValueError: If the values are no numbers, are of unequal shapes, or have more than two
            axes besides the steps.
    """
    import xarray as xr

    found = to_array(values) if len(values) else np.zeros(0)
    if found is None:
        found = to_array([to_array(each) for each in values])
    if found is None:
        raise ValueError("the values are no numbers, or of unequal shapes")
    if found.ndim > 1 + len(INNER):
        raise ValueError(f"the values have the shape {found.shape[1:]}, wanted two axes at most")
    found = found[dropped(len(found), warmup) :].T
    dims = (*INNER[: found.ndim - 1], DRAW)
    return xr.DataArray(found, dims=dims, coords=[np.arange(size) for size in found.shape])


def dropped(length: int, warmup: float | None) -> int:
    """Return how many of the first steps are left out.

    >>> dropped(20, 0.05), dropped(20, 5), dropped(20, 1.0), dropped(20, 1), dropped(20, -1)
    (1, 5, 20, 1, 0)
    """
    if warmup is None or warmup <= 0:
        return 0
    return min(length, warmup if isinstance(warmup, int) else int(warmup * length))


def grouped(
    columns: Columns,
    warmup: float | None,
    left: dict[str, str],
    described: Mapping[str, Mapping[str, str]],
) -> dict[str, xr.Dataset]:
    """Return one dataset for each group, with variables named without it.

    Args:
        columns: What was logged.
        warmup: What to leave out of each group; see `to_data_array`.
        left: Told what does not fit, and why, by metric.
        described: `unit` and `description` by metric.
    """
    found = {}
    for group, own in columns.groups.items():
        names = _names(own)
        metrics = {names[short]: f"{group}/{short}" if group else short for short in own}
        dataset = _dataset(columns, group, metrics, left, described)
        if dataset.sizes.get(DRAW):
            first = dropped(dataset.sizes[DRAW], warmup)
            found[group] = dataset.isel({DRAW: slice(first, None)})
    return found


def flat(
    columns: Columns,
    warmup: float | None,
    left: dict[str, str],
    described: Mapping[str, Mapping[str, str]],
) -> xr.Dataset:
    """Return one dataset of all groups, its variables named as `train_loss`.

    A group of fewer rows than the longest is filled up; only where there is one group is there the
    coordinate `step`.
    """
    import xarray as xr

    parts = grouped(columns, warmup, left, described)
    keys = {group: columns.groups[group] for group in parts}
    names = _names(
        [f"{group}/{short}" if group else short for group in keys for short in keys[group]]
    )
    renamed = []
    for part in parts.values():
        own = {
            old: names[part[old].attrs["metric"]]
            for old in part.data_vars
            if names[part[old].attrs["metric"]] != old
        }
        renamed.append(part.rename(own))
    if len(renamed) == 1:
        return renamed[0]
    longest = max((part.sizes[DRAW] for part in renamed), default=0)
    bare = [part.drop_vars(["step", "time"]) for part in renamed]
    widened = [
        part.pad({DRAW: (0, longest - part.sizes[DRAW])}) if part.sizes[DRAW] < longest else part
        for part in bare
    ]
    return xr.merge(widened, compat="override", join="outer") if widened else xr.Dataset()


def save(dataset: xr.Dataset, path: Path) -> None:
    """Write a dataset as netCDF-4/HDF5, which `xarray.open_dataset` opens as it is.

    Raises:
        OSError: If the file system refuses.
    """
    encoding = {
        name: dict(_COMPRESSED)
        for name in dataset.variables
        if dataset[name].size and dataset[name].dtype.kind in "bif"
    }
    dataset.to_netcdf(path, engine="h5netcdf", encoding=encoding)


def _dataset(
    columns: Columns,
    group: str,
    metrics: Mapping[str, str],
    left: dict[str, str],
    described: Mapping[str, Mapping[str, str]],
) -> xr.Dataset:
    """Return the dataset of one group."""
    import xarray as xr

    rows = columns.rows.get(group)
    size = len(rows.steps) if rows is not None else 0
    variables: dict[str, Any] = {}
    inner: dict[str, int] = {}
    for name, key in metrics.items():
        try:
            values = _spread(columns.flat[key], columns.positions(key), size)
        except ValueError as error:
            left[key] = str(error)
            continue
        said = described.get(key, {})
        attributes = {"metric": key}
        attributes |= {"units": said["unit"]} if "unit" in said else {}
        attributes |= {"long_name": said["description"]} if "description" in said else {}
        dims = (*_inner(values.shape[:-1], name, inner), DRAW)
        variables[name] = (dims, values, attributes)
    coordinates: dict[str, Any] = {}
    if rows is not None:
        coordinates = {
            "step": (DRAW, np.array(rows.steps, dtype=np.int64)),
            "time": (DRAW, np.array(rows.times, dtype=np.float64)),
        }
    return xr.Dataset(variables, coordinates, {"group": group})


def _spread(values: Sequence[Any], positions: npt.NDArray[np.int64], size: int) -> npt.NDArray[Any]:
    """Return values on their rows, the rows last; gaps make numbers float64, with NaN there.

    Raises:
        ValueError: Saying why the values make no variable.
    """
    there = [at for at, value in enumerate(values) if value is not None]
    kept = [values[at] for at in there]
    if not kept:
        raise ValueError("it never had a value")
    numbers = all(isinstance(each, _NUMBERS) for each in kept)
    found = _numbers(kept) if numbers else _stacked(kept)
    at = positions[there]
    if len(at) == size and found.ndim == 1:
        return found
    kind = found.dtype if len(at) == size else np.promote_types(found.dtype, np.float64)
    spread = np.full((size, *found.shape[1:]), np.nan if len(at) < size else 0, dtype=kind)
    spread[at] = found
    return spread.T


def _numbers(values: Sequence[Any]) -> npt.NDArray[Any]:
    """Return numbers as bool, int64 or float64, whichever holds them all."""
    kinds = {type(each) for each in values}
    if kinds == {bool}:
        return np.array(values, dtype=bool)
    return np.array(values, dtype=np.int64 if kinds <= {bool, int} else np.float64)


def _stacked(values: Sequence[Any]) -> npt.NDArray[Any]:
    """Return the arrays of all steps as one, the steps first.

    Raises:
        ValueError: If they are no numbers, or of unequal shapes.
    """
    found = [to_array(each) if not isinstance(each, (str, bytes)) else None for each in values]
    arrays = [each for each in found if each is not None]
    if len(arrays) < len(found):
        kinds = sorted({type(each).__name__ for each in values})
        raise ValueError(f"its values are not all numbers: {', '.join(kinds)}")
    shapes = sorted({each.shape for each in arrays})
    if len(shapes) > 1:
        shown = ", ".join(map(str, shapes[:3]))
        raise ValueError(f"its values have {len(shapes)} shapes: {shown}")
    if len(shapes[0]) > len(INNER):
        raise ValueError(f"its values have the shape {shapes[0]}, wanted two axes at most")
    stacked = np.stack(arrays)
    wide = {"b": np.bool_, "i": np.int64, "u": np.int64, "f": np.float64}.get(stacked.dtype.kind)
    return stacked.real.astype(np.float64) if wide is None else stacked.astype(wide)


def _inner(shape: tuple[int, ...], name: str, known: dict[str, int]) -> tuple[str, ...]:
    """Return the dimensions of a vector or matrix; one of another length gets its own.

    `shape` is reversed as it lies: (leapfrog, chain) logged becomes (chain, leapfrog, draw).
    """
    dims = []
    for dimension, size in zip(INNER, shape, strict=False):
        own = dimension if known.setdefault(dimension, size) == size else f"{name}_{dimension}"
        known[own] = size
        dims.append(own)
    return tuple(dims)


def _names(keys: Any) -> dict[str, str]:
    """Return the variable of each metric: `/` becomes `_`, and no two are equal."""
    found: dict[str, str] = {}
    taken = {"step", "time", DRAW, *INNER}
    for key in keys:
        name = key.replace("/", "_") or "_"
        while name in taken:
            name += "_"
        taken.add(name)
        found[key] = name
    return found
