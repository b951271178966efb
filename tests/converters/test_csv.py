"""Delimited text: any dialect in, exact text out, and back without a loss."""

from __future__ import annotations

import csv
import json
import math
import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blackboxml import Run, open_run, validate
from blackboxml.conversion import convert
from blackboxml.converters import csv as converter
from blackboxml.writer import RunWriter

if TYPE_CHECKING:
    from pathlib import Path

    from blackboxml.conversion import RunReport
    from blackboxml.reader import RunReader


def bring(path: Path, text: str, **open_as: Any) -> tuple[RunReport, RunReader]:
    """Import a text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, **{"encoding": "utf-8", "newline": "", **open_as})
    (report,) = convert(path, path.parent / "runs", verify=True).runs
    assert report.source_format == "csv"
    assert report.ok, report.to_dict()
    run = open_run(report.target)
    assert validate(run.path).problems == []
    return report, run


def make(folder: Path, name: str = "demo") -> Path:
    """Record a run of two groups with everything that a table can hold."""
    config = {"lr": 0.1, "pair": (1, 2)}
    with Run(name, log_dir=folder, tags=["a", "b,c"], config=config) as run:
        writer = RunWriter.join(run.path, 1, 0)
        writer.log_media("note", "text", 3, value="hello")
        writer.describe("train/loss", unit="nat", description="mean of a batch")
        writer.finish()
        run.log({"train/loss": 0.1, "train/n": 2**63 - 1, "flag": True}, step=0)
        run.log({"train/loss": math.nan, "flag": False, "=cmd()": -1.5}, step=5)
        run.log({"train/loss": -0.0, "train/lr": 5e-324, "val/acc": math.inf}, step=5)
        run.log({"step": 7, "train/loss/mean": 1e22, "  odd ": -math.inf, "NA": 1}, step=9)
    return run.path


def test_a_wide_table(tmp_path: Path) -> None:
    text = (
        "\ufeffEpoch;global_step;Time;loss;ok;note;big\r\n"
        '1;10;2024-01-01T00:00:00Z;0,5;true;"two\r\nlines; ""q""";1\r\n'
        "1;20;1704067201.5;nan;False;;99999999999999999999\r\n"
        "2;30;;;;;\r\n"
        "2;x;;1;;;\r\n"
        "2;40;soon;1;;;9;9\r\n"
        "2;50;soon;1e-3;;=1+1;-9223372036854775808\r\n"
    )
    report, run = bring(tmp_path / "a.csv", text)
    assert [(each.step, each.metrics) for each in run.records()][::3] == [
        (10, {"Epoch": 1, "loss": 0.5, "ok": True, "big": 1}),
        (50, {"Epoch": 2, "loss": 0.001, "big": -(2**63)}),
    ]
    assert [each.time for each in run.records()][:2] == [1704067200, 1704067201.5]
    assert [(each.name, each.step, each.value) for each in run.media()] == [
        ("note", 10, 'two\r\nlines; "q"'),
        ("big", 20, "99999999999999999999"),
        ("note", 50, "=1+1"),
    ]
    assert report.total("unreadable", "step") == 2
    assert report.total("unreadable", "time") == 1
    places = {remark.what: remark.where for remark in report.remarks}
    assert places["a row has no global_step that is an integer"].endswith("a.csv:6")
    assert places["a row has another number of cells than the header"].endswith("a.csv:7")


def test_a_long_table(tmp_path: Path) -> None:
    text = (
        "metric\tstep\tvalue\ttimestamp\tunit\na\t0\t1\t5\t\n"
        "b\t0\t2.5\t5\tm\na\t0\t3\t5\t\n\t1\t1\t5\t\n"
    )
    report, run = bring(tmp_path / "a.tsv", text)
    assert [(each.step, each.time, each.metrics) for each in run.records()] == [
        (0, 5, {"a": 1, "b": 2.5}),
        (0, 5, {"a": 3}),
    ]
    assert report.total("lost", "field") == 1
    assert report.total("unreadable", "scalar") == 1


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_dialects(tmp_path: Path, separator: str) -> None:
    rows = ['"loss, train"', "step", "loss"], ["0.5", "3", '"a""b"'], ["", "4", "2"]
    text = "\n".join(separator.join(row) for row in rows)
    _, run = bring(tmp_path / "a.csv", text)
    assert [each.metrics for each in run.records()] == [{"loss, train": 0.5}, {"loss": 2}]
    assert [each.value for each in run.media()] == ['a"b']


def test_columns_of_one_name_and_an_index_without_one(tmp_path: Path) -> None:
    report, run = bring(tmp_path / "a.csv", ",loss,loss\n0,1,2\n1,3,4\n")
    assert [(each.step, each.metrics) for each in run.records()] == [
        (0, {"loss": 1, "loss_2": 2}),
        (1, {"loss": 3, "loss_2": 4}),
    ]
    assert report.total("changed", "field") == 1


@pytest.mark.parametrize(
    "text", ["a,b\n1,2\n", "step\n1\n", "step,1\n2,3\n", "step,a", "\0\0,step\n1,2\n", ""]
)
def test_what_is_no_table_of_steps_is_left_alone(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    assert not converter.recognise(tmp_path / "a.csv")


def test_files_of_others_stay_theirs(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "version_0").mkdir(parents=True)
    (folder / "version_0" / "metrics.csv").write_text("epoch,step,loss\n0,1,2\n")
    (folder / "keras.csv").write_text("epoch,loss\n0,1\n")
    make(folder)
    forms = [each.source_format for each in convert(folder, tmp_path / "out").runs]
    assert sorted(forms) == ["keras", "lightning"]


def test_noise_gives_a_run_or_nothing(tmp_path: Path) -> None:
    chance = random.Random(7)
    good = b"step,time,loss,name\n" + b"".join(b"%d,%d,0.5,a\n" % (i, i) for i in range(40))
    for number in range(40):
        data = bytearray(good)
        for _ in range(6):
            data[chance.randrange(20, len(data))] = chance.randrange(256)
        path = tmp_path / f"{number}.csv"
        path.write_bytes(data)
        (report,) = convert(path, tmp_path / "runs").runs
        assert report.ok, report.to_dict()


@pytest.mark.parametrize("layout", ["wide", "long"])
@pytest.mark.parametrize("target", ["out", "out.csv", "out.tsv"])
def test_a_run_goes_out_and_comes_back(tmp_path: Path, layout: str, target: str) -> None:
    source = make(tmp_path / "runs")
    for _ in range(2):  # the second time replaces what the first one wrote
        report = convert(
            source,
            tmp_path / target,
            target_format="csv",
            verify=True,
            options={"layout": layout},
        )
        (each,) = report.runs
        assert each.ok, each.to_dict()
        assert not each.lossy
        assert each.total("lost") == each.total("lost", "text") == 1
        assert each.went_out["scalar"] == each.came_in["scalar"] == 13
    assert len(list((tmp_path / "out").iterdir())) <= 2 if target == "out" else True
    (inward,) = convert(each.target, tmp_path / "back").runs
    run, again = open_run(source), open_run(inward.target)
    assert (again.name, again.tags, again.config) == (run.name, run.tags, run.config)
    assert (again.status, again.start, again.end) == (run.status, run.start, run.end)
    assert again.descriptions == run.descriptions
    assert sorted(again.metrics) == sorted(run.metrics)
    assert math.copysign(1, next(again.pieces("train"))["loss"][2].as_py()) == -1


def test_the_files_that_are_written(tmp_path: Path) -> None:
    with Run("demo", log_dir=tmp_path / "runs") as run:
        run.log({"a/x": 0.1, "a/=y": -1, "a/on": True, "@z": -2}, step=-3)
        run.log({"a/x": math.nan}, step=4)
    (each,) = convert(run.path, tmp_path / "out", target_format="csv", verify=True).runs
    assert each.ok, each.to_dict()
    folder = tmp_path / "out" / run.path.name
    assert sorted(file.name for file in folder.iterdir()) == [
        "a.wide.csv",
        "about.json",
        "metrics.wide.csv",
    ]
    with (folder / "a.wide.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["step", "time", "a/x", "a/=y", "a/on"]
    assert [row[0:1] + row[2:] for row in rows] == [
        ["-3", "0.1", "-1", "true"],
        ["4", "nan", "", ""],
    ]
    assert (folder / "metrics.wide.csv").read_text().startswith("step,time,'@z\n-3,")
    about = json.loads((folder / "about.json").read_text())
    assert about["columns"]["'@z"] == ["@z", None]
    assert about["run"]["id"] == open_run(run.path).id
    assert convert(folder, tmp_path / "back", verify=True).ok


def test_ranks_and_their_statistics(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, "ranks")
    other = RunWriter.join(writer.path, 1, 0)
    for step in range(3):
        ranks = {"train/loss": {"mean": 0.5, "std": 0.25, "count": 2}}
        writer.log({"train/loss": 0.5}, step, ranks)
        other.log({"train/loss": 0.25}, step)
    other.finish()
    writer.finish()
    for layout in ("wide", "long"):
        out = tmp_path / f"{layout}.csv"
        (each,) = convert(writer.path, out, verify=True, options={"layout": layout}).runs
        assert each.ok, each.to_dict()
        assert "train/loss/mean" in out.read_text()
        (inward,) = convert(out, tmp_path / f"back-{layout}").runs
        found = [(each.step, each.rank, each.ranks) for each in open_run(inward.target).records()]
        wanted = [(each.step, each.rank, each.ranks) for each in open_run(writer.path).records()]
        assert sorted(found, key=str) == sorted(wanted, key=str)


def test_a_file_of_something_else_is_not_overwritten(tmp_path: Path) -> None:
    source = make(tmp_path / "runs")
    (tmp_path / "out.csv").write_text("mine")
    (each,) = convert(source, tmp_path / "out.csv").runs
    assert "holds something else" in (each.error or "")
    assert (tmp_path / "out.csv").read_text() == "mine"
    (each,) = convert(source, tmp_path / "o", target_format="csv", options={"layout": "x"}).runs
    assert "wide, long" in (each.error or "")


@pytest.mark.parametrize(
    "about", [b"{", b"[]", b'{"format": {"name": "blackbox-table"}}', b"[" * 10**5]
)
def test_a_damaged_about_is_not_believed(tmp_path: Path, about: bytes) -> None:
    (tmp_path / "a.csv.about.json").write_bytes(about)
    _, run = bring(tmp_path / "a.csv", "step,a\n1,2\n")
    assert run.metrics == ["a"]


VALUES = st.one_of(st.floats(), st.integers(-(2**63), 2**63 - 1), st.booleans())
NAMES = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=8).filter(
    lambda name: not name.startswith("/") and not name.endswith("/")
)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(-5, 5), st.dictionaries(NAMES, VALUES, min_size=1, max_size=3)),
        max_size=6,
    ),
    st.sampled_from(["wide", "long"]),
    st.sampled_from(["out", "out.csv"]),
)
def test_any_run_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    points: list[tuple[int, dict[str, Any]]],
    layout: str,
    target: str,
) -> None:
    folder = tmp_path_factory.mktemp("any")
    with Run("any", log_dir=folder / "runs") as run:
        for step, metrics in points:
            run.log(metrics, step=step)
    options = {"layout": layout}
    (each,) = convert(
        run.path, folder / target, target_format="csv", verify=True, options=options
    ).runs
    assert each.ok, each.to_dict()
    assert not each.lossy
