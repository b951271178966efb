"""A group's table as an xarray Dataset, and as statistics: what needs numpy rather than Arrow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from blackboxml.base import naming
from blackboxml.journal.table import INDEX, read_keys
from blackboxml.media.placement import COORDINATES, DRAW, Rows, place_series
from blackboxml.media.series import MOST_BYTES, decoded_size, select
from blackboxml.model import DATASET_FORMAT, VERSION, Summary

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import numpy.typing as npt
    import xarray as xr

    from blackboxml.media.placement import Placed
    from blackboxml.media.series import Series


def to_dataset(
    table: pa.Table,
    described: Mapping[str, Mapping[str, str]],
    run: Mapping[str, str],
    group: str,
    series: Sequence[Series] = (),
) -> xr.Dataset:
    """Return a table as a Dataset with the names and attributes of the sealed HDF5 file.

    Args:
        table: A group.
        described: `unit` and `description` by metric.
        run: `id` and `name` of the run.
        group: The group's name.
        series: Its arrays and histograms; those for which the file would have no room are left out.
    """
    import xarray as xr

    keys = read_keys(table.schema)
    names = naming.variable_names(table.column_names[len(INDEX) :])
    coordinates: dict[str, Any] = {
        name: (DRAW, table.column(name).to_numpy()) for name in COORDINATES
    }
    variables: dict[str, Any] = {}
    for column, (metric, statistic) in zip(table.column_names[len(INDEX) :], keys, strict=True):
        attributes = {"metric": metric}
        said = described.get(metric, {})
        if statistic is not None:
            attributes["statistic"] = statistic
        if "unit" in said and statistic != "count":
            attributes["units"] = said["unit"]
        if "description" in said:
            attributes["long_name"] = said["description"]
        variables[names[column]] = (DRAW, _values(table.column(column)), attributes)
    taken = select(series, decoded_size(table.num_rows, len(names)), MOST_BYTES)
    if table.num_rows and taken:
        rows = Rows(*(table.column(name).to_numpy() for name in Rows._fields))
        for placed in place_series(taken, names.values(), rows):
            for each in placed.coordinates:
                about = {"medium": placed.series.name}
                coordinates[each.name] = (each.dims, placed.coordinate(each), about)
            for each, values in zip(placed.variables, _stacked(placed), strict=True):
                variables[each.name] = (each.dims, values, {"medium": placed.series.name})
    about = {
        "format": DATASET_FORMAT,
        "version": VERSION,
        "run_id": run["id"],
        "run_name": run["name"],
        "group": group,
    }
    return xr.Dataset(variables, coordinates, about)


def _stacked(placed: Placed) -> Iterator[npt.NDArray[Any]]:
    """Yield the values of each variable of a series as xarray decodes them."""
    filled = [np.empty(each.shape, each.dtype) for each in placed.variables]
    for at, medium in enumerate(placed.order):
        for target, values in zip(filled, placed.series.read(int(medium)), strict=True):
            target[at] = values
    for part, values in zip(placed.series.parts, filled, strict=True):
        yield values.astype(bool) if part.is_bool else values


def summarise(pieces: Iterable[pa.Table]) -> dict[str, Summary]:
    """Return the statistics of each metric that has a value, group by group; see `Summary`.

    Args:
        pieces: The tables of groups, in pieces; those of one group have the same columns.
    """
    found: dict[str, Summary] = {}
    for table in pieces:
        steps = table.column("step").to_numpy()
        for place, (metric, statistic) in enumerate(read_keys(table.schema), start=len(INDEX)):
            column = table.column(place)
            if statistic is None and len(column) > column.null_count:
                said = _summary(column, steps)
                found[metric] = _joined(found[metric], said) if metric in found else said
    groups: dict[str, dict[str, Summary]] = {}
    for metric, said in found.items():
        groups.setdefault(naming.group_of(metric), {})[metric] = said
    return {metric: said for each in groups.values() for metric, said in each.items()}


def _joined(one: Summary, more: Summary) -> Summary:
    """Return the statistics of values and of those that come after them.

    Means and deviations are joined as by Chan, Golub and LeVeque (1979), "Updating formulae and a
    pairwise algorithm for computing sample variances".
    """
    first, second = (each.n - each.nonfinite for each in (one, more))
    mean, std = one.mean, one.std
    if one.mean is None or one.std is None:
        mean, std = more.mean, more.std
    elif more.mean is not None and more.std is not None:
        with np.errstate(over="ignore", invalid="ignore"):
            total = first + second
            share, apart = second / total, np.float64(more.mean) - one.mean
            mean = float(one.mean + apart * share)
            within = (first * np.square(one.std) + second * np.square(more.std)) / total
            std = float(np.sqrt(within + np.square(apart) * share * (1 - share)))
    later = more if more.last_step >= one.last_step else one
    lows = [each.min for each in (one, more) if each.min is not None]
    highs = [each.max for each in (one, more) if each.max is not None]
    return Summary(
        min=min(lows, default=None),
        max=max(highs, default=None),
        mean=mean,
        std=std,
        last=later.last,
        n=one.n + more.n,
        first_step=min(one.first_step, more.first_step),
        last_step=later.last_step,
        nonfinite=one.nonfinite + more.nonfinite,
    )


def _summary(column: pa.ChunkedArray, steps: npt.NDArray[np.int64]) -> Summary:
    """Return the statistics of one column."""
    there = np.ones(len(column), dtype=bool)
    if column.null_count:
        there = column.is_valid().to_numpy()
    values = column.drop_null().to_numpy()
    own = steps[there]
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    last = len(own) - 1 - int(np.argmax(own[::-1]))
    wide = finite.astype(np.float64)
    # NaN and infinities are left out, but a sum of huge finite values may still overflow.
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float(wide.mean()) if len(wide) else None
        std = float(wide.std()) if len(wide) else None
    return Summary(
        min=finite.min().item() if len(finite) else None,
        max=finite.max().item() if len(finite) else None,
        mean=mean,
        std=std,
        last=values[last].item(),
        n=len(values),
        first_step=int(own.min()),
        last_step=int(own.max()),
        nonfinite=len(values) - len(finite),
    )


def _values(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """Return a column as xarray decodes it: with gaps, int64 becomes float64, bool float32."""
    if column.null_count and column.type == pa.bool_():
        column = column.cast(pa.int8()).cast(pa.float32())
    elif column.null_count and column.type == pa.int64():
        column = column.cast(pa.float64(), safe=False)
    array: npt.NDArray[Any] = column.to_numpy()
    return array
