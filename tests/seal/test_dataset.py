"""A sealed group as HDF5: what plain readers see, and what is refused before it is read."""

from __future__ import annotations

import os
import queue
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import netCDF4
import numpy as np
import pytest
import xarray as xr

from blackboxml import open_run
from blackboxml.errors import TableError
from blackboxml.model import Limits
from blackboxml.seal import seal
from blackboxml.seal.dataset_reader import Dataset
from tests import histories
from tests.histories import bits, event, header, point, write
from tests.reader.test_reader import rich, xarray_answer

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    path = write(tmp_path / "run", rich())
    seal(path)
    return path


ODD = {
    "g/" + name: value
    for value, name in enumerate(
        [
            "step",
            "draw",
            "a",
            "a.b",
            "a/b",
            ".a",
            " a",
            "a ",
            "50%",
            "é",
            "日本",
            "a b",
            "+x",
            "x" * 200,
        ]
    )
}


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    lines = [
        point(0, ODD | {"g/gaps": 2**63 - 1, "g/some": True, "g/all": True, "g/nan": float("nan")}),
        point(1, ODD | {"g/gaps": -(2**63), "g/all": False, "g/none": 9.969209968386869e36}),
        event(2, describe={"metric": "g/a", "unit": "m/s²", "description": "x" * 100_000}),
        event(3, describe={"metric": "g/all", "unit": "seconds since 2000-01-01"}),
        point(4, {"g/gone": 5}, 7, ranks={"g/a": {"mean": 1, "count": 3}}),
        event(5, rewind={"step": 7}),
    ]
    path = write(tmp_path / "odd", {"metrics.jsonl": header() + b"".join(lines)})
    seal(path)
    return path


def open_plainly(path: Path, **options: Any) -> xr.Dataset:
    with xr.open_dataset(path, **options) as dataset:
        return dataset.load()


@pytest.mark.parametrize("engine", ["h5netcdf", "netcdf4"])
def test_xarray_opens_each_dataset_plainly_and_sees_what_the_reader_gives(
    sealed: Path, engine: str
) -> None:
    reader = open_run(sealed)
    assert len(list(sealed.glob("*.h5"))) == len(reader.groups)
    for group, said in reader.manifest["groups"].items():
        plain = open_plainly(sealed / said["dataset"], engine=engine)
        assert xarray_answer(plain) == xarray_answer(reader.xarray(group))
        assert set(plain.coords) == {"step", "time", "rank", "attempt"}
        assert dict(plain.sizes) == {"draw": reader.arrow(group).num_rows}


@pytest.mark.parametrize("engine", ["h5netcdf", "netcdf4"])
def test_odd_names_values_and_descriptions_are_seen_too(odd: Path, engine: str) -> None:
    plain = open_plainly(odd / "g.h5", engine=engine, decode_times=False)
    assert xarray_answer(plain) == xarray_answer(open_run(odd).xarray("g"))
    assert len(plain.data_vars["a"].attrs["long_name"]) == 100_000
    assert plain["all"].dtype == bool
    assert plain["some"].dtype == np.float32
    assert list(map(bits, plain["none"].values.tolist())) == ["NaN", bits(9.969209968386869e36)]


def test_the_netcdf_library_lists_every_variable(odd: Path) -> None:
    with netCDF4.Dataset(odd / "g.h5") as dataset:
        assert list(dataset.dimensions) == ["draw"]
        assert dataset.data_model == "NETCDF4"
        names = list(dataset.variables)
        assert names[:4] == ["step", "time", "rank", "attempt"]
        columns = open_run(odd).arrow("g").column_names[5:]
        assert names[4:] == list(histories.variables_of(columns).values())
        for variable in dataset.variables.values():
            assert variable.dimensions == ("draw",)
            assert variable.filters()["fletcher32"]
            variable.set_auto_maskandscale(False)
            assert len(variable[:]) == 2


def test_an_integer_with_gaps_is_exact_for_who_reads_it_masked(tmp_path: Path) -> None:
    values = [2**63 - 1, None, -(2**63), 2**53 + 1]
    lines = [
        point(seq, {"b": True} | ({} if value is None else {"a": value}))
        for seq, value in enumerate(values)
    ]
    path = write(tmp_path / "run", {"metrics.jsonl": header() + b"".join(lines)})
    seal(path)
    with netCDF4.Dataset(path / "metrics.h5") as dataset:
        # The least int64 is a value here, so another one stands for "not logged".
        assert dataset["a"][:].tolist() == values
        assert "_FillValue" not in dataset["b"].ncattrs()
    assert xarray_answer(open_plainly(path / "metrics.h5")) == xarray_answer(
        open_run(path).xarray()
    )


def test_nothing_in_a_dataset_is_of_variable_length(odd: Path) -> None:
    with h5py.File(odd / "g.h5", "r") as file:
        assert list(file)[:5] == ["draw", "step", "time", "rank", "attempt"]
        for name, each in [("/", file), *file.items()]:
            for key in each.attrs:
                if key in {"DIMENSION_LIST", "REFERENCE_LIST"}:
                    continue
                kind = each.attrs.get_id(key).get_type()
                if isinstance(kind, h5py.h5t.TypeStringID):
                    assert not kind.is_variable_str(), (name, key)
                    assert kind.get_cset() == h5py.h5t.CSET_UTF8 or key in {"CLASS", "NAME"}
                    assert each.attrs.get_id(key).shape == ()
        for variable in file.values():
            assert variable.chunks
            assert (variable.compression, variable.shuffle, variable.fletcher32) == (
                "gzip",
                True,
                True,
            )


def test_a_group_of_superseded_rows_alone_has_no_dataset(tmp_path: Path) -> None:
    data = header() + point(0, {"a": 1, "b/c": 2}) + event(1, rewind={"step": 0})
    path = write(tmp_path / "run", {"metrics.jsonl": data + point(2, {"b/c": 3})})
    seal(path)
    assert sorted(each.name for each in path.glob("*.h5")) == ["b.h5"]
    groups = open_run(path).manifest["groups"]
    assert "dataset" not in groups[""]
    assert "variable" not in groups[""]["metrics"]["a"]
    assert open_run(path).xarray("").sizes == {"draw": 0}


def test_a_gap_in_superseded_rows_alone_needs_no_fill_value(tmp_path: Path) -> None:
    lines = [point(0, {"a": 1}), event(1, rewind={"step": 0}), point(2, {"a": 1, "b": 2})]
    path = write(tmp_path / "run", {"metrics.jsonl": header() + b"".join(lines)})
    seal(path)
    assert open_plainly(path / "metrics.h5")["b"].dtype == np.int64
    assert xarray_answer(open_plainly(path / "metrics.h5")) == xarray_answer(
        open_run(path).xarray()
    )


def test_a_column_that_uses_the_fill_value_gets_another(tmp_path: Path) -> None:
    values = [float("nan"), 9.969209968386869e36, -9.969209968386869e36, -0.0]
    lines = [point(seq, {"a": value}) for seq, value in enumerate(values)] + [point(4, {"b": -1})]
    path = write(tmp_path / "run", {"metrics.jsonl": header() + b"".join(lines)})
    seal(path)
    plain = open_plainly(path / "metrics.h5")
    assert list(map(bits, plain["a"].values.tolist())) == [*map(bits, values), "NaN"]


# -- hostile files


def good(file: Any) -> Any:
    """Make a variable that a dataset may hold, and return its file."""
    file.create_dataset("x", data=np.arange(9.0), chunks=(9,), compression="gzip", **FILTERS)
    return file


FILTERS: dict[str, Any] = {"shuffle": True, "fletcher32": True}
CHUNKED: dict[str, Any] = {"chunks": (4,), "compression": "gzip", **FILTERS}


def soft_link(file: Any) -> None:
    file["link"] = h5py.SoftLink("/x")


def dangling_link(file: Any) -> None:
    file["link"] = h5py.SoftLink("/nothing")


def external_link(file: Any) -> None:
    file["link"] = h5py.ExternalLink("/etc/passwd", "/x")


def external_link_to_a_fifo(file: Any) -> None:
    fifo = str(file.filename) + ".fifo"
    os.mkfifo(fifo)
    file["link"] = h5py.ExternalLink(fifo, "/x")


def external_storage(file: Any) -> None:
    file.create_dataset("y", (4,), "f8", external=[("/etc/passwd", 0, 32)])


def virtual(file: Any) -> None:
    layout = h5py.VirtualLayout((4,), "f8")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4,))
    file.create_virtual_dataset("y", layout)


def virtual_without_end(file: Any) -> None:
    fifo = str(file.filename) + ".fifo"
    os.mkfifo(fifo)
    layout = h5py.VirtualLayout((4,), "f8", maxshape=(None,))
    source = h5py.VirtualSource(fifo, "x", (4,), maxshape=(None,))
    layout[: h5py.h5s.UNLIMITED] = source[: h5py.h5s.UNLIMITED]
    file.create_virtual_dataset("y", layout)


def variable_text(file: Any) -> None:
    file.create_dataset("y", data=["a", "b"], dtype=h5py.string_dtype(), chunks=(2,))


def variable_array(file: Any) -> None:
    file.create_dataset("y", (4,), dtype=h5py.vlen_dtype("f8"), chunks=(4,))


def fixed_text(file: Any) -> None:
    file.create_dataset("y", data=np.array([b"a"] * 4), **CHUNKED)


def reference(file: Any) -> None:
    file.create_dataset("y", (4,), dtype=h5py.ref_dtype, chunks=(4,))


def compound(file: Any) -> None:
    file.create_dataset("y", (4,), dtype=[("a", "f8")], **CHUNKED)


def committed_type(file: Any) -> None:
    file["type"] = np.dtype("f8")


def group(file: Any) -> None:
    good(file.create_group("inner"))


def contiguous(file: Any) -> None:
    file.create_dataset("y", data=np.arange(4.0))


def other_filter(file: Any) -> None:
    file.create_dataset("y", (4,), "f8", chunks=(4,), compression="lzf", **FILTERS)


def scale_offset(file: Any) -> None:
    file.create_dataset("y", (4,), "i8", chunks=(4,), scaleoffset=0)


def no_checksum(file: Any) -> None:
    file.create_dataset("y", (4,), "f8", chunks=(4,), compression="gzip", shuffle=True)


def no_filter(file: Any) -> None:
    file.create_dataset("y", (4,), "f8", chunks=(4,))


def huge(file: Any) -> None:
    file.create_dataset("y", (2**40,), "f8", chunks=(2**16,), compression="gzip", **FILTERS)


def huge_together(file: Any) -> None:
    for number in range(9):
        shape = (2**26,)
        file.create_dataset(
            f"y{number}", shape, "f8", chunks=(2**16,), compression="gzip", **FILTERS
        )


def huge_chunk(file: Any) -> None:
    shape = (2**28,)
    file.create_dataset(
        "y", (4,), "f8", maxshape=(None,), chunks=shape, compression="gzip", **FILTERS
    )


def wide_shape(file: Any) -> None:
    shape = (2**16, 2**16)
    file.create_dataset("y", shape, "f8", chunks=(2, 4), compression="gzip", **FILTERS)


def scalar(file: Any) -> None:
    file["y"] = 1.5


def other_type(file: Any) -> None:
    file.create_dataset("y", (4,), "f2", **CHUNKED)


def variable_attribute(file: Any) -> None:
    file["x"].attrs["note"] = "of variable length"


def variable_root_attribute(file: Any) -> None:
    file.attrs["format"] = "of variable length"


def reference_attribute(file: Any) -> None:
    file["x"].attrs["other"] = file["x"].ref


def many(file: Any) -> None:
    for number in range(60):
        file.create_dataset(f"y{number}", (4,), "f8", **CHUNKED)


HOSTILE: list[Callable[[Any], None]] = [
    *(soft_link, dangling_link, external_link, external_link_to_a_fifo, external_storage),
    *(virtual, virtual_without_end, variable_text, variable_array, fixed_text, reference),
    *(compound, committed_type, group, contiguous, other_filter, scale_offset, no_checksum),
    *(no_filter, huge, huge_together, huge_chunk, wide_shape, scalar, other_type),
    *(variable_attribute, variable_root_attribute, reference_attribute, many),
]


@pytest.mark.parametrize("harm", HOSTILE, ids=lambda harm: harm.__name__)
@pytest.mark.rule("BB-DAT-015", "BB-SEC-006")
def test_what_could_do_harm_is_refused_before_a_value_is_read(
    tmp_path: Path, harm: Callable[[Any], None]
) -> None:
    path = str(tmp_path / "x.h5")
    with h5py.File(path, "w", libver="latest") as file:
        harm(good(file))
    answers: queue.Queue[BaseException | None] = queue.Queue()

    def look() -> None:
        try:
            Dataset(path, Limits(metric_names=50))
        except BaseException as error:  # noqa: BLE001 - it is looked at below
            answers.put(error)
        answers.put(None)

    threading.Thread(target=look, daemon=True).start()
    assert isinstance(answers.get(timeout=60), TableError)


def test_a_good_file_is_not_refused(tmp_path: Path, sealed: Path, odd: Path) -> None:
    path = str(tmp_path / "x.h5")
    with h5py.File(path, "w", libver="latest") as file:
        good(file)
    for place in [path, *map(str, sealed.glob("*.h5")), *map(str, odd.glob("*.h5"))]:
        with Dataset(place) as dataset:
            for name in dataset.variables:
                dataset.read(name, slice(0, 2))


@pytest.mark.parametrize("data", [b"", b"x" * 5000, b"\x89HDF\r\n\x1a\n" + b"\0" * 4000])
def test_what_is_no_hdf5_is_called_so(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.h5"
    path.write_bytes(data)
    with pytest.raises(TableError, match=r"not readable|damaged"):
        Dataset(str(path))


@pytest.mark.rule("BB-INT-011")
def test_a_damaged_chunk_is_found(tmp_path: Path) -> None:
    path = str(tmp_path / "x.h5")
    values = np.random.default_rng(3).random(4000)
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset("x", data=values, chunks=(4000,), compression="gzip", **FILTERS)
        place = file["x"].id.get_chunk_info(0).byte_offset
    with Path(path).open("r+b") as raw:
        raw.seek(place + 5000)
        byte = raw.read(1)
        raw.seek(place + 5000)
        raw.write(bytes([byte[0] ^ 1]))
    with Dataset(path) as dataset, pytest.raises(TableError, match="damaged"):
        dataset.read("x", slice(0, 4))


def test_a_file_that_cannot_be_closed_is_an_error_of_the_file_system(
    sealed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = h5py.File.close

    def fail(file: h5py.File) -> None:
        genuine(file)
        raise RuntimeError("Can't decrement id ref count (unable to close file)")  # as h5py does

    with pytest.raises(OSError, match="unable to close"), Dataset(str(sealed / "train.h5")):
        monkeypatch.setattr(h5py.File, "close", fail)


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "x.h5")
    with h5py.File(path, "w", libver="latest") as file:
        good(file)
        file.move("x", b"\xff")
    with pytest.raises(TableError, match="damaged"):
        Dataset(path)
