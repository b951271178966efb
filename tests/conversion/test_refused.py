"""Files of a source that the file system refuses for once: nothing is left out unsaid, or for good.

The refusals are made here; in the campaign of `tests/torture/calls.py` the system makes them.
"""

from __future__ import annotations

import errno
import os
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from blackboxml import Run, open_run
from blackboxml.conversion import convert, importing
from blackboxml.errors import ConversionError
from blackboxml.foreign import delimited

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROWS = 5


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a folder with a table, and another one in a folder of its own."""
    rows = "".join(f"{step},{step / 4}\n" for step in range(ROWS))
    for name in ("one.csv", "deeper/two.csv"):
        place = tmp_path / "in" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"step,loss\n{rows}", "utf-8")
    return tmp_path / "in"


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[str]]:
    """Let the n-th opening of a table be refused; the list receives which ones are opened."""

    def refuse(which: int) -> list[str]:
        opened: list[str] = []
        genuine = delimited.open_plain

        def open_plain(path: Path) -> Any:
            opened.append(path.name)
            if len(opened) == which:
                raise OSError(errno.EIO, "the disk fails", str(path))
            return genuine(path)

        monkeypatch.setattr(delimited, "open_plain", open_plain)
        return opened

    return refuse


def whole(folder: Path) -> dict[str, int]:
    """Return the number of rows of each run by name."""
    runs = [open_run(path) for path in folder.iterdir() if path.is_dir()]
    assert len({run.name for run in runs}) == len(runs)
    return {run.name: len(list(run.records())) for run in runs}


def test_wherever_a_table_is_refused_it_is_said_and_converted_the_next_time(
    source: Path, tmp_path: Path, refused: Callable[[int], list[str]]
) -> None:
    opened = refused(0)
    assert convert(source, tmp_path / "all").ok
    times = len(opened)
    assert times > 3
    for which in range(1, times + 1):
        opened, target = refused(which), tmp_path / str(which)
        report = convert(source, target)
        broken = opened[which - 1]
        failed = {each.source for each in report.runs if each.outcome == "failed"}
        assert not report.ok
        assert [place.rpartition("/")[2] for place in {*report.unreadable, *failed}] == [broken]
        (said,) = {*report.unreadable.values(), *(each.error for each in report.runs if each.error)}
        assert "the disk fails" in said
        assert whole(target) == {name: ROWS for name in ("one", "two") if f"{name}.csv" != broken}
        assert convert(source, target).ok
        assert whole(target) == {"one": ROWS, "two": ROWS}


def test_where_all_is_refused_the_reason_is_said(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_plain(path: Path) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(delimited, "open_plain", open_plain)
    with pytest.raises(ConversionError, match="Permission denied"):
        convert(source, tmp_path / "runs")


def test_a_part_that_is_refused_is_counted_and_read_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensorboardx = pytest.importorskip("tensorboardX")
    from blackboxml.converters.tensorboard import items

    for number in range(2):
        with tensorboardx.SummaryWriter(str(tmp_path / "in"), filename_suffix=str(number)) as file:
            file.add_scalar("loss", 0.5, number)
    genuine = items._Stream.read

    def read(self: Any, path: Path) -> Any:
        if str(path).endswith("1"):
            raise OSError(errno.ESTALE, "Stale file handle", str(path))
        return genuine(self, path)

    with monkeypatch.context() as patched:
        patched.setattr(items._Stream, "read", read)
        (first,) = convert(tmp_path / "in", tmp_path / "runs").runs
    assert [remark.what for remark in first.remarks if remark.effect == "unreadable"] == [
        "the system refuses: Stale file handle"
    ]
    (again,) = convert(tmp_path / "in", tmp_path / "runs").runs
    assert (first.outcome, again.outcome) == ("converted", "converted")
    assert (first.ok, again.ok) == (False, True)
    assert whole(tmp_path / "runs") == {"in": 2}
    (third,) = convert(tmp_path / "in", tmp_path / "runs").runs
    assert third.outcome == "unchanged"


def test_a_folder_that_a_user_may_not_list_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensorboardx = pytest.importorskip("tensorboardX")
    for name in "abc":
        with tensorboardx.SummaryWriter(str(tmp_path / "in" / name)) as file:
            file.add_scalar("loss", 0.5, 0)
    number = errno.EACCES

    def refuse(genuine: Callable[[Any], Any], path: Any = ".") -> Any:
        if str(path).endswith("/b"):
            raise OSError(number, os.strerror(number), str(path))
        return genuine(path)

    for name in ("scandir", "listdir"):
        monkeypatch.setattr(os, name, partial(refuse, getattr(os, name)))
    report = convert(tmp_path / "in", tmp_path / "runs")
    assert not report.ok
    assert any(place.endswith("/b") for place in report.unreadable)
    assert whole(tmp_path / "runs") == {"a": 1, "c": 1}
    number = errno.EIO  # another time it may be there, and all of it one run
    with pytest.raises(ConversionError, match="Input/output error"):
        convert(tmp_path / "in", tmp_path / "others")


@pytest.mark.filterwarnings("ignore")  # of what MLflow depends on
@pytest.mark.parametrize(
    ("form", "target"),
    [("tensorboard", "logs"), ("mlflow", "store.db"), ("simplegrad", "tracks.db")],
)
def test_a_medium_that_is_refused_is_not_exported_as_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, target: str
) -> None:
    with Run("pictures", log_dir=tmp_path / "runs", environment=()) as run:
        run.log({"loss": 0.5}, step=0)
        run.log_image("digit", np.zeros((4, 4), np.uint8), step=0)
    genuine = os.open

    def refuse(place: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if str(place).endswith(".png"):
            raise OSError(errno.EIO, "the disk fails", place)
        return genuine(place, flags, *arguments, **options)

    place = tmp_path / target if form != "mlflow" else f"sqlite:///{tmp_path / target}"
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        report = convert(run.path, place, target_format=form)
    assert not report.ok
    assert "the disk fails" in str(report.runs[0].error)
    assert convert(run.path, place, target_format=form).ok


def test_a_link_is_not_read_again_and_again(tmp_path: Path) -> None:
    tensorboardx = pytest.importorskip("tensorboardX")
    with tensorboardx.SummaryWriter(str(tmp_path / "in")) as file:
        file.add_scalar("loss", 0.5, 0)
    (tmp_path / "in" / "events.out.tfevents.9.x").symlink_to(tmp_path / "elsewhere")
    outcomes = [convert(tmp_path / "in", tmp_path / "runs").runs[0].outcome for _ in range(2)]
    assert outcomes == ["converted", "unchanged"]


def test_a_run_that_cannot_be_read_is_not_imported_twice(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(source, tmp_path / "runs")

    def read(directory: Any) -> Any:
        raise OSError(errno.EMFILE, "too many open files", str(directory.path))

    with monkeypatch.context() as patched:
        patched.setattr(importing.manifests, "read", read)
        with pytest.raises(ConversionError, match="it might be imported twice"):
            convert(source, tmp_path / "runs")
    assert whole(tmp_path / "runs") == {"one": ROWS, "two": ROWS}
