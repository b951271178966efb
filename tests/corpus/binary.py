"""Operations on tables and datasets. Their bytes differ between versions of the libraries."""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING, Any, Final

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Op = dict[str, Any]

VERSIONS: Final = {
    "parquet": {"pyarrow": importlib.metadata.version("pyarrow")},
    "hdf5": {"h5py": importlib.metadata.version("h5py"), "hdf5": h5py.version.hdf5_version},
    "repack": {"h5py": importlib.metadata.version("h5py"), "hdf5": h5py.version.hdf5_version},
}
"""What the bytes of a result depend on, by operation."""


TIMED: Final = frozenset(["virtual", "committed"])
"""Edits after which HDF5 notes the time of day in the file."""


# -- Parquet


def parquet(run: Path, op: Op) -> None:
    """Read a table, edit it, and write it with the options of a sealer or others."""
    table = pq.read_table(run / op["file"])
    for edit in op["edits"]:
        table = _TABLE_EDITS[edit["edit"]](table, edit)
    options = {"compression": "zstd", "write_page_checksum": True} | op.get("options", {})
    pq.write_table(table, run / op["file"], **options)


def _value(table: pa.Table, edit: Op) -> pa.Table:
    at = table.column_names.index(edit["column"])
    field = table.schema.field(at)
    values = table.column(at).to_pylist()
    values[edit["row"]] = _number(edit["value"])
    if edit["value"] is None:
        field = field.with_nullable(nullable=True)
    return table.set_column(at, field, pa.array(values, field.type))


def _take(table: pa.Table, edit: Op) -> pa.Table:
    return table.take(edit["rows"])


def _rename(table: pa.Table, edit: Op) -> pa.Table:
    names = [edit["to"] if each == edit["column"] else each for each in table.column_names]
    return table.rename_columns(names).replace_schema_metadata(table.schema.metadata)


def _cast(table: pa.Table, edit: Op) -> pa.Table:
    at = table.column_names.index(edit["column"])
    field = table.schema.field(at).with_type(getattr(pa, edit["type"])())
    return table.set_column(at, field, table.column(at).cast(field.type, safe=False))


def _select(table: pa.Table, edit: Op) -> pa.Table:
    return table.select(edit["columns"])


def _nested(table: pa.Table, edit: Op) -> pa.Table:
    return table.append_column(edit["column"], pa.array([[1]] * table.num_rows))


def _repeat(table: pa.Table, edit: Op) -> pa.Table:
    """Write the rows again and again, up to a number of rows."""
    times = -(-edit["rows"] // table.num_rows)
    return pa.concat_tables([table] * times).slice(0, edit["rows"]).combine_chunks()


def _label(table: pa.Table, edit: Op) -> pa.Table:
    """Set or remove a label of a field."""
    at = table.column_names.index(edit["column"])
    field = table.schema.field(at)
    labels = dict(field.metadata or {})
    _put(labels, edit["key"].encode(), edit["value"])
    return table.set_column(at, field.with_metadata(labels), table.column(at))


def _metadata(table: pa.Table, edit: Op) -> pa.Table:
    """Set or remove the document of a table, or put one text of it in place of another."""
    labels = dict(table.schema.metadata)
    if "old" in edit:
        found = labels[b"blackbox"]
        assert found.count(edit["old"].encode()) == 1
        labels[b"blackbox"] = found.replace(edit["old"].encode(), edit["new"].encode())
    else:
        _put(labels, b"blackbox", edit["value"])
    return table.replace_schema_metadata(labels)


def _put(labels: dict[bytes, bytes], key: bytes, value: str | None) -> None:
    if value is None:
        del labels[key]
    else:
        labels[key] = value.encode()


_TABLE_EDITS: Final[dict[str, Callable[[pa.Table, Op], pa.Table]]] = {
    "value": _value,
    "take": _take,
    "rename": _rename,
    "cast": _cast,
    "select": _select,
    "nested": _nested,
    "repeat": _repeat,
    "label": _label,
    "metadata": _metadata,
}


# -- HDF5


def hdf5(run: Path, op: Op) -> None:
    """Edit a dataset in place, as nobody should."""
    with h5py.File(run / op["file"], "r+", libver="latest") as file:
        for edit in op["edits"]:
            _DATASET_EDITS[edit["edit"]](file, edit)


def _set(file: h5py.File, edit: Op) -> None:
    file[edit["variable"]][edit["row"]] = _number(edit["value"])


def _drop(file: h5py.File, edit: Op) -> None:
    del file[edit["variable"]]


def _duplicate(file: h5py.File, edit: Op) -> None:
    file.copy(edit["variable"], edit["to"])
    del file[edit["to"]].attrs["DIMENSION_LIST"]
    file[edit["to"]].dims[0].attach_scale(file["draw"])


def _move(file: h5py.File, edit: Op) -> None:
    file.move(edit["variable"], edit["to"])


def _attribute(file: h5py.File, edit: Op) -> None:
    """Set or remove an attribute: a text of fixed length, or a number of a type."""
    attributes = (file[edit["variable"]] if "variable" in edit else file).attrs
    name, value = edit["name"], edit["value"]
    if value is None:
        del attributes[name]
    elif isinstance(value, str) and "type" not in edit:
        text = value.encode()
        kind = h5py.string_dtype(edit.get("encoding", "utf-8"), max(1, len(text)))
        attributes.create(name, text, dtype=kind)
    elif edit.get("type") == "variable-length":
        attributes.create(name, value, dtype=h5py.string_dtype())
    else:
        attributes.create(name, np.asarray(_number(value), edit["type"]))


def repack(run: Path, op: Op) -> None:
    """Write a dataset anew with other settings of the file."""
    place, new = run / op["file"], run / ".tmp-repack"
    settings = {"libver": op["libver"], "track_order": op["track_order"]}
    with h5py.File(place) as old, h5py.File(new, "w", **settings) as file:
        _copy_labels(old, file)
        draw = _create(file, "draw", old["draw"][:], {})
        draw.make_scale(old["draw"].attrs["NAME"])
        for name in (each for each in old if each != "draw"):
            made = _create(file, name, old[name][:], {})
            _copy_labels(old[name], made)
            made.dims[0].attach_scale(draw)
    new.replace(place)


def _create(file: h5py.File, name: str, values: Any, options: Op) -> h5py.Dataset:
    """Make a variable as a sealer makes it, or with other options."""
    usual = {"chunks": (len(values),), "compression": "gzip", "shuffle": True, "fletcher32": True}
    merged = usual | options
    if isinstance(merged["chunks"], list):
        merged["chunks"] = tuple(merged["chunks"])
    return file.create_dataset(name, data=values, **merged)


def _copy_labels(source: h5py.Group | h5py.Dataset, target: h5py.Group | h5py.Dataset) -> None:
    """Copy all attributes but those of dimensions."""
    for key, value in source.attrs.items():
        if key in {"DIMENSION_LIST", "REFERENCE_LIST", "CLASS", "NAME"}:
            continue
        kind = None
        if isinstance(value, bytes):
            kind = h5py.string_dtype("utf-8", max(1, len(value)))
        target.attrs.create(key, value, dtype=kind)


def _rewrite(file: h5py.File, edit: Op) -> None:
    """Make a variable again with other options; its labels and dimensions stay."""
    name = edit["variable"]
    old = file[name]
    scales = [dimension[0] for dimension in old.dims if len(dimension)]
    del file[name]
    values = old[:]
    if "rows" in edit:
        values = np.resize(values, edit["rows"])
    made = _create(file, name, values, edit["options"])
    _copy_labels(old, made)
    if edit.get("attach", True):
        for axis, dimension in enumerate(scales):
            made.dims[axis].attach_scale(dimension)


def _link(file: h5py.File, edit: Op) -> None:
    """Make a link to somewhere else."""
    target = edit.get("target", "/loss")
    file[edit["name"]] = (
        h5py.ExternalLink(edit["file"], target) if "file" in edit else h5py.SoftLink(target)
    )


def _group(file: h5py.File, edit: Op) -> None:
    file.create_group(edit["name"])


def _virtual(file: h5py.File, edit: Op) -> None:
    """Make a variable whose values are in another file."""
    layout = h5py.VirtualLayout(shape=(3,), dtype="f8")
    layout[:] = h5py.VirtualSource(edit["file"], "loss", shape=(3,))
    del file[edit["variable"]]
    file.create_virtual_dataset(edit["variable"], layout)


def _external(file: h5py.File, edit: Op) -> None:
    """Make a variable whose bytes are in another file."""
    del file[edit["variable"]]
    file.create_dataset(
        edit["variable"], (3,), "f8", external=[(edit["file"], 0, h5py.h5f.UNLIMITED)]
    )


def _huge(file: h5py.File, edit: Op) -> None:
    """Make a variable that declares more than is there."""
    del file[edit["variable"]]
    file.create_dataset(
        edit["variable"],
        (edit["rows"],),
        "f8",
        chunks=(edit["chunk"],),
        compression="gzip",
        shuffle=True,
        fletcher32=True,
    )


def _committed(file: h5py.File, edit: Op) -> None:
    """Give a type a name."""
    file[edit["name"]] = np.dtype("f8")


def _typed(file: h5py.File, edit: Op) -> None:
    """Make something of a type that a dataset must not hold."""
    kind = edit["type"]
    if kind == "compound":
        _create(file, edit["name"], np.zeros(3, [("a", "f8"), ("b", "i8")]), {})
    elif kind == "reference":
        _create(file, edit["name"], [file["loss"].ref] * 3, {"dtype": h5py.ref_dtype})


_DATASET_EDITS: Final[dict[str, Callable[[h5py.File, Op], None]]] = {
    "set": _set,
    "drop": _drop,
    "duplicate": _duplicate,
    "move": _move,
    "attribute": _attribute,
    "rewrite": _rewrite,
    "link": _link,
    "group": _group,
    "virtual": _virtual,
    "external": _external,
    "huge": _huge,
    "typed": _typed,
    "committed": _committed,
}


def _number(value: Any) -> Any:
    """Return a value of a case as Python has it."""
    names = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
    return names.get(value, value) if isinstance(value, str) else value
