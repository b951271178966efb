"""Arrays and histograms in datasets: the same from there as from the media, or left out."""

from __future__ import annotations

import io
import resource
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import netCDF4
import numpy as np
import pytest
import xarray as xr

from blackboxml import Run, RunWriter, open_run, validate
from blackboxml.errors import SealError
from blackboxml.media.series import join
from blackboxml.seal import seal, sealed
from blackboxml.seal.pack import pack

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def sealed_dataset(tmp_path: Path, log: Any) -> xr.Dataset:
    """Log a run, and return its dataset: equal from media, sealed, packed and sealed again."""
    with Run("series", log_dir=tmp_path, environment=(), seal=False) as run:
        log(run)
    live = open_run(run.path).xarray("train")
    problems = seal(run.path).problems
    assert problems == []
    with xr.open_dataset(run.path / "train.h5") as file:
        dataset = file.load()
    xr.testing.assert_identical(dataset, live)
    xr.testing.assert_identical(dataset, open_run(run.path).xarray("train"))
    assert validate(run.path).problems == []
    pack(run.path)
    xr.testing.assert_identical(dataset, open_run(run.path).xarray("train"))
    assert validate(run.path).problems == []
    seal(run.path)
    with xr.open_dataset(run.path / "train.h5") as file:
        xr.testing.assert_identical(dataset, file.load())
    with netCDF4.Dataset(run.path / "train.h5") as other:
        assert set(other.variables) == set(dataset.variables)
        assert {name: len(each) for name, each in other.dimensions.items()} == dict(dataset.sizes)
    return dataset


def test_one_array_a_row_stands_along_draw(tmp_path: Path) -> None:
    def log(run: Run) -> None:
        for step in range(3):
            run.log({"train/loss": 0.5})
            run.log_array("train/draws", np.full((2, 3), step, "f4"), dims=["chain", "leapfrog"])
            run.log_histogram("train/w", [0.0, 1.0, step], bins=2)
            run.log_array("train/nested/mask", [True, False, step > 1])

    dataset = sealed_dataset(tmp_path, log)
    assert dataset["draws"].dims == ("draw", "chain", "leapfrog")
    assert dataset["draws"].dtype == np.float32
    assert dataset["draws"].attrs == {"medium": "train/draws"}
    assert dataset["draws"][:, 1, 2].values.tolist() == [0, 1, 2]
    assert set(dataset["draws"].coords) == {"step", "time", "rank", "attempt"}
    assert dataset["w.counts"].dims == ("draw", "bin")
    assert dataset["w.edges"].dims == ("draw", "bin_edge")
    assert dataset["w.counts"].values.sum() == 9
    assert dataset["nested.mask"].dtype == bool
    assert dataset["nested.mask"].dims == ("draw", "nested.mask.dim_0")
    assert dataset["nested.mask"][:, 2].values.tolist() == [False, False, True]


def test_arrays_at_other_steps_have_a_dimension_of_their_own(tmp_path: Path) -> None:
    def log(run: Run) -> None:
        for step in range(4):
            run.log({"train/loss": 0.5}, step=step)
            if step % 2:
                run.log_array("train/some", [step, 7], step=step)
        run.log_array("train/twice", 1.5, step=2)
        run.log_array("train/twice", 2.5, step=2)

    dataset = sealed_dataset(tmp_path, log)
    assert dataset["some"].dims == ("some.draw", "some.dim_0")
    assert dataset["some.step"].values.tolist() == [1, 3]
    assert set(dataset["some"].coords) == {"some.step", "some.time", "some.rank", "some.attempt"}
    assert dataset["twice"].dims == ("twice.draw",)
    assert dataset["twice"].values.tolist() == [1.5, 2.5]


def test_media_that_come_in_another_order_than_the_rows_are_put_in_theirs(tmp_path: Path) -> None:
    def log(run: Run) -> None:
        for step in range(4):
            run.log({"train/loss": step}, step=step)
        for step in (3, 0, 2, 1):
            run.log_array("train/a", [step], step=step)

    dataset = sealed_dataset(tmp_path, log)
    assert dataset["a"].dims == ("draw", "a.dim_0")
    assert dataset["a"][:, 0].values.tolist() == [0, 1, 2, 3]


def test_ranks_attempts_and_rewinds_are_told_apart(tmp_path: Path) -> None:
    first = RunWriter.create(tmp_path, "ranks")
    second = RunWriter.join(first.path, 1, 0)
    for step in range(3):
        for writer in (first, second):
            writer.log({"train/loss": step}, step=step)
            data = np.lib.format
            file = io.BytesIO()
            data.write_array(file, np.array([writer.rank, step]), (1, 0))
            writer.log_media("train/a", "array", step, data=file.getvalue())
    for writer in (first, second):
        writer.finish()
    with Run("ranks", resume=first.path, environment=()) as resumed:
        resumed.rewind(2)
        resumed.log({"train/loss": 9.0})
        resumed.log_array("train/a", [0, 9])
    dataset = open_run(first.path).xarray("train")
    assert dataset["a"].dims == ("draw", "a.dim_0")
    assert dataset["a"].values[:, 0].tolist() == dataset["rank"].values.tolist()
    assert dataset["a"].values[:, 1].tolist() == dataset["loss"].values.tolist()
    with xr.open_dataset(first.path / "train.h5") as file:
        xr.testing.assert_identical(dataset, file.load())
    assert validate(first.path).problems == []
    every = open_run(first.path).xarray("train", view="all")
    assert every["a"].sizes["draw"] == every.sizes["draw"] == 7


def test_names_that_are_taken_get_another_one(tmp_path: Path) -> None:
    def log(run: Run) -> None:
        run.log({"train/loss": 0.5, "train/h/counts": 1.0, "train/chain": 2.0})
        run.log_array("train/loss", [1, 2])
        run.log_array("train/step", [1, 2])
        run.log_array("train/a/b", [1, 2])
        run.log_array("train/a.b", [3, 4])
        run.log_array("train/my array", [1])
        run.log_array("train/.hidden%", [1])
        run.log_array("train/x", [[1, 2]], dims=["chain", "parameter"])
        run.log_array("train/y", [[1, 2, 3]], dims=["chain", "parameter"])
        run.log_array("train/z", [[1]], dims=["one", "same"])
        run.log_array("train/one", [7], dims=["same"])
        run.log_histogram("train/h", [1.0, 2.0], bins=2)
        run.log_histogram("train/g", [1.0, 2.0], bins=3)

    dataset = sealed_dataset(tmp_path, log)
    arrays = {name: each.dims for name, each in dataset.data_vars.items() if each.ndim > 1}
    assert arrays == {
        "loss_": ("draw", "loss_.dim_0"),
        "step_": ("draw", "step_.dim_0"),
        "a.b": ("draw", "a.b.dim_0"),
        "a.b_": ("draw", "a.b_.dim_0"),
        "my%20array": ("draw", "my%20array.dim_0"),
        "%2Ehidden%25": ("draw", "%2Ehidden%25.dim_0"),
        "x": ("draw", "x.chain", "x.parameter"),
        "y": ("draw", "y.chain", "y.parameter"),
        "z": ("draw", "one", "same"),
        "one_": ("draw", "same"),
        "h_.counts": ("draw", "h_.bin"),
        "h_.edges": ("draw", "h_.bin_edge"),
        "g.counts": ("draw", "g.bin"),
        "g.edges": ("draw", "g.bin_edge"),
    }
    assert dataset["a.b_"].attrs["medium"] == "train/a.b"


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ([np.array([1], "f2"), np.array([2], "f2")], "float32"),
        ([np.array([1], "u1"), np.array([2], "u1")], "uint8"),
        ([np.array([1], "i1"), np.array([200], "u1")], "int16"),
        ([np.array([1], ">i4"), np.array([0.5], "f4")], "float64"),
        ([np.array([1], "i2"), np.array([1], "u2"), np.array([0.5], "f4")], "float32"),
        ([np.array([True]), np.array([2], "i8")], "int64"),
        ([np.array([2**64 - 1], "u8"), np.array([2**63], "u8")], "uint64"),
        ([np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.ones((2, 3))], "float64"),
        ([np.array(np.nan), np.array(-np.inf)], "float64"),
    ],
)
def test_the_least_type_that_holds_all_is_taken(
    tmp_path: Path, arrays: list[Any], expected: str
) -> None:
    def log(run: Run) -> None:
        for array in arrays:
            run.log({"train/loss": 0.5})
            run.log_array("train/a", array)

    found = sealed_dataset(tmp_path, log)["a"]
    assert found.dtype == expected
    assert np.array_equal(found.values, np.stack(arrays), equal_nan=expected == "float64")


def write(run: Run, name: str, data: bytes) -> None:
    run.log_media(name, "array", data=data, media_type="application/x-npy")


def pickled(value: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.array([value]), (1, 0), allow_pickle=True)
    return file.getvalue()


OTHERS: dict[str, Callable[[Run], None]] = {
    "other shapes": lambda run: [run.log_array("train/a", np.zeros(n)) for n in (1, 2)],  # type: ignore[dict-item,func-returns-value]
    "types that no type holds": lambda run: [
        run.log_array("train/a", np.ones(1, kind))  # type: ignore[func-returns-value]
        for kind in ("i8", "f4")
    ],
    "complex numbers": lambda run: run.log_array("train/a", [1j]),
    "no element": lambda run: run.log_array("train/a", np.zeros((2, 0))),
    "too many dimensions": lambda run: run.log_array("train/a", np.zeros((1,) * 32)),
    "objects": lambda run: write(run, "train/a", pickled({})),
    "no array at all": lambda run: write(run, "train/a", b"x" * 200),
    "other numbers of bins": lambda run: [
        run.log_histogram("train/a", [1], n)  # type: ignore[func-returns-value]
        for n in (1, 2)
    ],
    "several kinds": lambda run: [run.log_array("train/a", [1]), run.log_text("train/a", "b")],  # type: ignore[func-returns-value,dict-item]
    "another group": lambda run: run.log_array("eval/a", [1]),
}


@pytest.mark.parametrize("what", OTHERS)
def test_what_does_not_fit_together_stays_in_its_files(tmp_path: Path, what: str) -> None:
    def log(run: Run) -> None:
        run.log({"train/loss": 0.5})
        OTHERS[what](run)
        run.log_array("train/kept", [1])

    dataset = sealed_dataset(tmp_path, log)
    assert set(dataset.data_vars) == {"loss", "kept"}


def test_a_run_of_media_alone_is_sealed_without_a_dataset(tmp_path: Path) -> None:
    with Run("alone", log_dir=tmp_path, environment=()) as run:
        run.log_array("train/a", [1])
    reader = open_run(run.path)
    assert (reader.sealed, reader.groups) == (True, [])
    assert validate(run.path).problems == []


def test_large_histograms_are_read_from_their_files(tmp_path: Path) -> None:
    def log(run: Run) -> None:
        run.log({"train/loss": 0.5})
        run.log_histogram("train/w", np.random.default_rng(0).normal(size=50_000), bins=5000)
        value = {"edges": [0, 1, float("inf")], "counts": [1, 0.5]}
        run.log_media("train/v", "histogram", value=value)

    dataset = sealed_dataset(tmp_path, log)
    assert dataset["w.counts"].sizes == {"draw": 1, "w.bin": 5000}
    assert dataset["w.counts"].dtype == np.int64
    assert dataset["w.counts"].values.sum() == 50_000
    assert dataset["v.counts"].dtype == np.float64
    assert dataset["v.edges"].values.tolist() == [[0, 1, np.inf]]


@pytest.mark.rule("BB-DAT-018")
def test_a_dataset_takes_no_more_than_it_has_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (sealed, sys.modules["blackboxml.reader.arrays"]):
        monkeypatch.setattr(module, "MOST_BYTES", 10_000)

    def log(run: Run) -> None:
        run.log({"train/loss": 0.5})
        run.log_array("train/first", np.zeros(1000))
        run.log_array("train/second", np.zeros(1000))
        run.log_array("train/third", np.zeros(10))

    assert set(sealed_dataset(tmp_path, log).data_vars) == {"loss", "first", "third"}


@pytest.mark.parametrize("harm", ["flipped", "cut", "gone"])
def test_a_damaged_file_costs_its_series_alone(tmp_path: Path, harm: str) -> None:
    with Run("damaged", log_dir=tmp_path, environment=(), seal=False) as run:
        for step in range(3):
            run.log({"train/loss": 0.5})
            run.log_array("train/a", [step])
            run.log_array("train/b", [step])
    file = run.path / "media" / "train_a-1.npy"
    data = file.read_bytes()
    if harm == "gone":
        file.unlink()
    else:
        file.write_bytes(data[:-1] if harm == "cut" else data[:-1] + b"\1")
    (problem,) = seal(run.path).problems
    assert problem.rule == "BB-MED-011"
    assert "'train/a' is left out" in problem.message
    with xr.open_dataset(run.path / "train.h5") as dataset:
        assert set(dataset.data_vars) == {"loss", "b"}
    assert len(list(open_run(run.path).media())) == 6
    file.write_bytes(data)
    reader = open_run(run.path)
    assert set(reader.xarray("train").data_vars) == {"loss", "a", "b"}


def test_a_file_that_changes_while_it_is_sealed_ends_the_sealing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Run("changing", log_dir=tmp_path, environment=(), seal=False) as run:
        run.log({"train/loss": 0.5})
        run.log_array("train/a", [1])
    genuine = sealed.write_series

    def meddle(*arguments: Any) -> None:
        genuine(*arguments)
        arguments[0].file["a"][0] = 7

    monkeypatch.setattr(sealed, "write_series", meddle)
    with pytest.raises(SealError, match="variable 'a' differs"):
        seal(run.path)
    monkeypatch.undo()
    assert not open_run(run.path).sealed
    seal(run.path)
    assert validate(run.path).problems == []


def test_arrays_larger_than_a_chunk_are_divided(tmp_path: Path) -> None:
    large = np.random.default_rng(0).normal(size=(3, 700, 200))

    def log(run: Run) -> None:
        for step in range(2):
            run.log({"train/loss": 0.5})
            run.log_array("train/a", large + step)

    assert np.array_equal(sealed_dataset(tmp_path, log)["a"][1], large + 1)


def test_sealing_many_arrays_takes_the_memory_of_one(tmp_path: Path) -> None:
    code = """
        import sys, resource
        import numpy as np
        import blackboxml.seal.sealed, blackboxml.reader.arrays, xarray
        from blackboxml import Run
        from blackboxml.seal import seal
        run = Run("many", log_dir=sys.argv[1], environment=(), seal=False).start()
        for step in range(int(sys.argv[2])):
            run.log({"train/loss": 0.5})
            run.log_array("train/a", np.full((128, 1024), step, "f8"))
        run.finish()
        seal(run.path)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    """

    def peak(count: int) -> int:
        command = [sys.executable, "-c", textwrap.dedent(code), tmp_path, str(count)]
        return int(subprocess.run(command, capture_output=True, check=True).stdout)

    assert resource.getpagesize()
    assert peak(96) - peak(8) < 32 * 1024  # KiB; 88 more arrays have 88 MiB


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [(["i8", "f8"], None), (["u8", "i8"], None), (["?"], "i1"), (["f2", "i1"], "f4")],
)
def test_types_are_joined_exactly_or_not_at_all(kinds: list[str], expected: str | None) -> None:
    wanted = None if expected is None else np.dtype(expected)
    assert join(np.dtype(kind) for kind in kinds) == wanted


@pytest.mark.rule("BB-MED-016")
def test_what_a_reference_names_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    with Run("refers", log_dir=tmp_path / "runs", environment=()) as run:
        run.log({"train/loss": 0.5})
        run.log_artifact("train/data", tmp_path / "secret", how="reference")
    opened: list[str] = []
    sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
    reader = open_run(run.path)
    (found,) = reader.media()
    with pytest.raises(ValueError, match="has no file"):
        reader.load(found)
    reader.xarray("train")
    assert validate(run.path).problems == []
    opened_until_now = list(opened)
    assert opened_until_now
    assert not any("secret" in name for name in opened_until_now)
