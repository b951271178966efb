"""netCDF: files of xarray and netCDF4 in, whole runs out, which xarray opens, and back."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import netCDF4
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from blackboxml import Run, open_run, validate
from blackboxml.conversion import convert
from blackboxml.converters import netcdf as converter
from blackboxml.writer import RunWriter

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("form", ["NETCDF4", "NETCDF3_64BIT"])
def test_a_file_of_xarray(tmp_path: Path, form: Any) -> None:
    when = np.array(["2024-01-01T00:00:00", "2024-01-01T00:00:01.5"], "datetime64[ns]")
    data = xr.Dataset(
        {
            "loss": ("step", np.array([0.1, np.nan], "f4"), {"units": "nat", "long_name": "loss"}),
            "n": ("step", np.array([1, 2], "i4")),
            "ok": ("step", np.array([True, False])),
            "note": ("step", np.array(["a", "bc"])),
            "weights": (("step", "layer"), np.arange(6.0).reshape(2, 3)),
            "other": ("layer", np.arange(3.0)),
        },
        {"step": [10, 20], "time": ("step", when)},
    )
    data.to_netcdf(tmp_path / "a.nc", format=form)
    (report,) = convert(tmp_path / "a.nc", tmp_path / "runs", verify=True).runs
    assert (report.source_format, report.ok) == ("netcdf", True), report.to_dict()
    run = open_run(report.target)
    assert validate(run.path).problems == []
    first, second = run.records()
    assert (first.step, first.time) == (10, 1704067200)
    assert (second.step, second.time) == (20, 1704067201.5)
    assert first.metrics == {"loss": float(np.float32(0.1)), "n": 1, "ok": True}
    assert math.isnan(second.metrics["loss"])
    assert run.descriptions == {"loss": {"unit": "nat", "description": "loss"}}
    assert [each.value for each in run.media() if each.name == "note"] == ["a", "bc"]
    assert [each.kind for each in run.media() if each.name == "weights"] == ["array"] * 2
    assert report.total("lost", "field") == 1


def test_a_file_of_netcdf4_with_packed_and_missing_values(tmp_path: Path) -> None:
    with netCDF4.Dataset(tmp_path / "a.nc", "w") as file:
        file.createDimension("t", None)
        file.createVariable("global_step", "i8", ("t",))[:] = [1, 2, 3]
        file.createVariable("x", "i8", ("t",), fill_value=-7)[:] = [2**63 - 1, -7, 0]
        packed = file.createVariable("y", "i2", ("t",), fill_value=-1)
        packed.scale_factor, packed.add_offset = 0.5, 10.0
        packed.set_auto_maskandscale(False)
        packed[:] = [1, -1, 3]
    (report,) = convert(tmp_path / "a.nc", tmp_path / "runs", verify=True).runs
    assert report.ok, report.to_dict()
    records = list(open_run(report.target).records())
    assert [each.metrics for each in records] == [{"x": 2**63 - 1, "y": 10.5}, {"x": 0, "y": 11.5}]


def test_what_has_no_steps_or_is_damaged_is_left_alone(tmp_path: Path) -> None:
    xr.Dataset({"a": ("row", [1.0])}).to_netcdf(tmp_path / "a.nc")
    assert not converter.recognise(tmp_path / "a.nc")
    (tmp_path / "b.nc").write_bytes(b"\x89HDF\r\n\x1a\n" + b"x" * 100)
    (tmp_path / "c.nc").write_bytes(b"CDF\x01 and no more")
    with Run("demo", log_dir=tmp_path / "runs") as run:
        run.log({"a/b": 1})
    assert convert(run.path, tmp_path / "good.nc").ok
    reports = convert(tmp_path, tmp_path / "out").runs
    assert [(each.source_format, each.ok) for each in reports] == [("netcdf", True)]


def test_a_run_goes_out_and_comes_back(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path / "runs", "demo", tags=["a"])
    other = RunWriter.join(writer.path, 1, 0)
    writer.describe("a/x", unit="m", description="length")
    writer.log({"a/x": math.nan, "step": -0.0, "n": 2**63 - 1}, 3, {"a/x": {"mean": 0.1}})
    writer.log({"a/x": math.inf, "on": False, "n": -(2**63)}, 4)
    writer.log({"a/y": 9.969209968386869e36}, 4)
    writer.log({"a/y": np.nextafter(9.969209968386869e36, np.inf), "on": True}, 5)
    other.log({"a/x": 5e-324}, 3)
    other.log_media("note", "text", 3, value="hello")
    other.finish()
    writer.finish()
    for target in ("out", "out", "one.nc", "one.nc"):
        (each,) = convert(writer.path, tmp_path / target, target_format="netcdf", verify=True).runs
        assert each.ok, each.to_dict()
        assert each.total("lost") == each.total("lost", "text") == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == [writer.path.name]
    with xr.open_dataset(tmp_path / "out" / writer.path.name / "a.nc") as data:
        assert set(data.coords) == {"step", "time", "rank"}
        assert data["time"].dtype == "datetime64[ns]"
        assert (data["a.x"].attrs["units"], data["a.x"].attrs["long_name"]) == ("m", "length")
        assert float(data["a.x.mean"].sum()) == 0.1
        assert data["step"].values.tolist().count(3) == 2
    with netCDF4.Dataset(tmp_path / "one.nc") as file:
        assert file.title == "demo"
    (inward,) = convert(tmp_path / "out", tmp_path / "back", verify=True).runs
    run, again = open_run(writer.path), open_run(inward.target)
    assert (again.name, again.tags, again.status) == (run.name, run.tags, run.status)
    assert (again.start, again.end, again.descriptions) == (run.start, run.end, run.descriptions)
    assert [each.metrics["on"] for each in again.records() if "on" in each.metrics] == [False, True]


def test_a_large_configuration_is_kept(tmp_path: Path) -> None:
    with Run("demo", log_dir=tmp_path / "runs", config={"text": "x" * 200_000}) as run:
        run.log({"a": 1})
    for _ in range(2):
        assert convert(run.path, tmp_path / "out.nc", verify=True).ok


def test_files_of_two_runs_in_one_folder_stay_apart(tmp_path: Path) -> None:
    for name in ("x", "y"):
        with Run(name, log_dir=tmp_path / "runs") as run:
            run.log({"a/b": 1, "c": 2})
        for copy in "12":
            assert convert(run.path, tmp_path / "out" / f"{name}{copy}.nc").ok
    reports = convert(tmp_path / "out", tmp_path / "back").runs
    assert [(each.went_out["scalar"], each.source_format) for each in reports] == [
        (2, "netcdf")
    ] * 4


VALUES = st.one_of(st.floats(), st.integers(-(2**63), 2**63 - 1), st.booleans())
NAMES = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=8).filter(
    lambda name: not name.startswith("/") and not name.endswith("/")
)
POINTS = st.tuples(st.integers(-5, 5), st.dictionaries(NAMES, VALUES, min_size=1, max_size=3))


@settings(max_examples=8, deadline=None)
@given(st.lists(POINTS, max_size=6), st.sampled_from(["out", "out.nc"]))
def test_any_run_comes_back(
    tmp_path_factory: pytest.TempPathFactory, points: list[tuple[int, dict[str, Any]]], target: str
) -> None:
    folder = tmp_path_factory.mktemp("any")
    with Run("any", log_dir=folder / "runs") as run:
        for step, metrics in points:
            run.log(metrics, step=step)
    (each,) = convert(run.path, folder / target, target_format="netcdf", verify=True).runs
    assert each.ok, each.to_dict()
    assert not each.lossy
