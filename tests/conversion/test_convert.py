"""The hub: runs are found by content, come over whole and once, and every loss is counted."""

from __future__ import annotations

import json
import math
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

import blackboxml.conversion
from blackboxml import Run, converters, open_run, validate
from blackboxml.cli import main
from blackboxml.conversion import ConversionReport, RunReport, convert
from blackboxml.errors import ConversionError
from blackboxml.foreign.interchange import Ledger
from tests.conversion import toy

if TYPE_CHECKING:
    from pathlib import Path

PLAIN: dict[str, Any] = {
    "name": "plain",
    "tags": ["a"],
    "config": {"lr": 0.1, "model": {"layers": 2}},
    "status": "completed",
    "start": 1000.0,
    "end": 1010.5,
    "items": [
        {"step": 0, "time": 1001.0, "metrics": {"train/loss": 1.5, "lr": 1}},
        {"step": 5, "time": 1002.25, "metrics": {"train/loss": "nan", "best": True}},
        {"name": "note", "kind": "text", "step": 5, "time": 1003.0, "value": "ä"},
        {"step": 5, "time": 1004.0, "metrics": {"train/loss": 2**62 + 1}},
    ],
}


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `toy` be a format."""
    monkeypatch.setitem(sys.modules, "blackboxml.converters.toy", toy)
    monkeypatch.setitem(converters.FORMATS, "toy", "for tests")


def make(path: Path, **runs: dict[str, Any]) -> Path:
    """Write a toy file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('{"toy"' + json.dumps({"": runs})[3:])
    return path


def test_a_run_comes_over_as_it_was(tmp_path: Path) -> None:
    source = make(tmp_path / "in" / "a.toy", one=PLAIN)
    report = convert(source, tmp_path / "runs", verify=True)
    assert report.ok
    assert not report.lossy
    (each,) = report.runs
    assert (each.source_format, each.target_format, each.outcome) == (
        "toy",
        "blackbox",
        "converted",
    )
    assert each.differences == []
    assert each.came_in == each.went_out
    wanted = {"scalar": 5, "step": 5, "time": 4, "config": 2, "tag": 1, "text": 1, "status": 1}
    assert {kind: count for kind, count in each.went_out.items() if count} == wanted

    run = open_run(each.target)
    assert validate(run.path).problems == []
    assert os.listdir(tmp_path / "runs") == ["plain_19700101_001640"]
    assert (run.name, run.tags, run.status, run.config) == (
        "plain",
        ["a"],
        "completed",
        {"lr": 0.1, "model": {"layers": 2}},
    )
    assert run.start.timestamp() == 1000.0
    assert run.duration_seconds == 10.5
    records = list(run.records())
    assert [(record.step, record.time) for record in records] == [
        (0, 1001),
        (5, 1002.25),
        (5, 1004),
    ]
    assert records[0].metrics == {"train/loss": 1.5, "lr": 1}
    assert math.isnan(records[1].metrics["train/loss"])
    assert records[1].metrics["best"] is True
    assert records[2].metrics == {"train/loss": 2**62 + 1}
    assert [(each.name, each.value, each.time) for each in run.media()] == [("note", "ä", 1003)]
    said = run.manifest["extensions"]["org.blackboxml.source"]
    assert (said["format"], said["source"], said["key"]) == ("toy", str(source), "one")


def test_converting_again_makes_no_duplicates_and_takes_up_what_changed(tmp_path: Path) -> None:
    source = make(tmp_path / "in" / "a.toy", one=PLAIN, two=PLAIN)
    first = convert(tmp_path / "in", tmp_path / "runs")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*")}
    second = convert(tmp_path / "in", tmp_path / "runs")
    assert [each.outcome for each in second.runs] == ["unchanged"] * 2
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*")} == before

    changed = PLAIN | {"items": PLAIN["items"][:1]}
    make(source, one=changed, two=PLAIN)
    ids = [open_run(each.target).id for each in first.runs]
    third = convert(tmp_path / "in", tmp_path / "runs")
    assert [each.outcome for each in third.runs] == ["converted", "unchanged"]
    assert [each.target for each in third.runs] == [each.target for each in first.runs]
    assert [open_run(each.target).id for each in third.runs] == ids
    assert len(list(open_run(third.runs[0].target).records())) == 1
    assert len(os.listdir(tmp_path / "runs")) == 2


def test_an_interrupted_conversion_leaves_whole_runs_and_is_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "in" / "a.toy", one=PLAIN)
    make(tmp_path / "in" / "b.toy", one=PLAIN)
    calls = []

    def interrupted(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return seal(*arguments, **options)

    seal = blackboxml.conversion.importing.seal
    with monkeypatch.context() as patch:
        patch.setattr(blackboxml.conversion.importing, "seal", interrupted)
        with pytest.raises(KeyboardInterrupt):
            convert(tmp_path / "in", tmp_path / "runs")
    assert len(os.listdir(tmp_path / "runs")) == 1
    report = convert(tmp_path / "in", tmp_path / "runs")
    assert [each.outcome for each in report.runs] == ["unchanged", "converted"]


def test_what_the_source_does_not_say_is_made_and_counted(tmp_path: Path) -> None:
    source = make(
        tmp_path / "a.toy",
        x={"name": "x\n", "items": [{"step": 0, "time": None, "metrics": {"a": 1}}]},
    )
    (each,) = convert(source, tmp_path / "runs").runs
    assert each.ok
    assert each.total("made", "time") == 3
    assert each.total("made", "status") == 1
    assert each.total("changed", "field") == 1
    assert open_run(each.target).status == "interrupted"


def test_a_damaged_source_gives_what_is_good_and_says_so(tmp_path: Path) -> None:
    damaged = PLAIN | {"items": [{"damaged": 1}, *PLAIN["items"]]}
    broken = PLAIN | {"items": [*PLAIN["items"], {"explode": 1}]}
    source = make(tmp_path / "a.toy", one=damaged, two=broken, three=PLAIN)
    report = convert(source, tmp_path / "runs")
    assert [each.outcome for each in report.runs] == ["converted", "failed", "converted"]
    assert report.lossy
    assert not report.ok
    assert report.runs[0].total("unreadable", "scalar") == 1
    assert "the disk is bad" in (report.runs[1].error or "")
    assert len(os.listdir(tmp_path / "runs")) == 2


def test_values_that_the_format_cannot_hold_are_counted_and_the_others_kept(tmp_path: Path) -> None:
    odd = {"a": 1, "/b": 2, "c": 2**70}
    source = make(
        tmp_path / "a.toy", one=PLAIN | {"items": [{"step": 0, "time": 1.0, "metrics": odd}]}
    )
    (each,) = convert(source, tmp_path / "runs").runs
    assert each.total("lost", "scalar") == 2
    assert each.ok
    assert open_run(each.target).metrics == ["a"]


def test_a_restart_supersedes_and_ranks_keep_apart(tmp_path: Path) -> None:
    entries = [
        {"step": step, "time": 1.0 + step, "metrics": {"a": step}, "rank": rank}
        for step in range(4)
        for rank in (0, 2)
    ]
    entries += [{"restart": 2}, {"step": 2, "time": 9.0, "metrics": {"a": -1}}]
    source = make(tmp_path / "a.toy", one=PLAIN | {"items": entries})
    (each,) = convert(source, tmp_path / "runs", verify=True).runs
    assert each.ok
    run = open_run(each.target)
    assert [(record.rank, record.step) for record in run.records()] == [
        *[(0, 0), (0, 1), (0, 2)],
        *[(2, 0), (2, 1)],
    ]
    assert len(list(run.records("all"))) == 9
    assert validate(run.path).problems == []


def test_a_run_goes_out_and_comes_back(tmp_path: Path) -> None:
    source = make(tmp_path / "a.toy", one=PLAIN)
    (inward,) = convert(source, tmp_path / "runs").runs
    (outward,) = convert(inward.target, tmp_path / "out.toy", verify=True).runs
    assert outward.target_format == "toy"
    assert outward.ok, outward.to_dict()
    assert outward.verified
    written = []
    for _ in range(2):
        through = convert(source, tmp_path / "again.toy", target_format="toy", verify=True)
        assert through.ok, through.to_json()
        written.append((tmp_path / "again.toy").read_text())
    assert written[0] == written[1]


def test_a_change_without_bounds_is_strict_json(tmp_path: Path) -> None:
    report = RunReport("a", "", "toy")
    ledger = Ledger()
    ledger.changed("scalar", "too large", by=math.inf)
    report.enter(ledger)

    def refuse(token: str) -> None:
        raise ValueError(token)

    document = json.loads(ConversionReport([report]).to_json(), parse_constant=refuse)
    assert document["runs"][0]["remarks"][0]["by"] == "Infinity"


@pytest.mark.parametrize(
    ("options", "verdict", "says"),
    [
        ({"forget": "lr"}, True, "toys cannot hold it"),
        ({"forget": "lr", "quietly": "1"}, False, "metric lr: it is missing"),
        ({"round": "1"}, True, "one digit"),
    ],
)
def test_losses_are_declared_or_found(
    tmp_path: Path, options: dict[str, str], verdict: bool, says: str
) -> None:
    (inward,) = convert(make(tmp_path / "a.toy", one=PLAIN), tmp_path / "runs").runs
    report = convert(inward.target, tmp_path / "out.toy", verify=True, options=options)
    assert report.ok is verdict
    assert says in report.to_json()


def test_superseded_points_do_not_go_out_and_are_counted(tmp_path: Path) -> None:
    with Run("back", log_dir=tmp_path) as run:
        for step in range(4):
            run.log({"a": step})
        run.rewind(1)
    (each,) = convert(run.path, tmp_path / "out.toy", verify=True).runs
    assert each.ok
    assert each.total("lost", "scalar") == 3
    assert each.went_out["scalar"] == 1


def test_a_whole_tree_is_converted_by_several_processes(tmp_path: Path) -> None:
    for number in range(4):
        folder = tmp_path / "in" / str(number)
        folder.mkdir(parents=True)
        (folder / f"log{number}.csv").write_text("epoch,loss\n0,1\n1,0.5\n")
    (tmp_path / "in" / "notes.txt").write_text("not a run")
    done: list[float] = []
    report = convert(tmp_path / "in", tmp_path / "runs", jobs=2, progress=done.append)
    assert [each.source for each in report.runs] == [
        str(tmp_path / "in" / str(number) / f"log{number}.csv") for number in range(4)
    ]
    assert report.ok
    assert done[-1] == 1
    names = {path.split("_")[0] for path in os.listdir(tmp_path / "runs")}
    assert names == {"log0", "log1", "log2", "log3"}


def test_keep_source_copies_the_files(tmp_path: Path) -> None:
    source = make(tmp_path / "a.toy", one=PLAIN)
    (each,) = convert(source, tmp_path / "runs", keep_source=True, verify=True).runs
    run = open_run(each.target)
    (kept,) = [medium for medium in run.media() if medium.kind == "artifact"]
    assert run.load(kept) == source.read_bytes()
    assert each.ok, each.to_dict()


def test_what_cannot_be_converted_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="is not there"):
        convert(tmp_path / "nothing", tmp_path / "runs")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ConversionError, match="holds nothing to convert"):
        convert(tmp_path / "notes.txt", tmp_path / "runs")
    with pytest.raises(ConversionError, match="no format is called 'toys'"):
        convert(tmp_path / "notes.txt", tmp_path / "runs", source_format="toys")


def test_a_target_inside_the_source_is_not_converted_again(tmp_path: Path) -> None:
    make(tmp_path / "a.toy", one=PLAIN)
    for outcome in ("converted", "unchanged"):
        report = convert(tmp_path, tmp_path / "runs")
        assert [each.outcome for each in report.runs] == [outcome]


def test_the_command_says_what_became_of_each_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make(tmp_path / "a.toy", one=PLAIN, two=PLAIN | {"items": [{"damaged": 1}]})
    arguments = ["convert", str(source), str(tmp_path / "runs"), "--verify"]
    assert main([*arguments, "--report", str(tmp_path / "report.json")]) == 3
    printed = capsys.readouterr().out
    assert "5 scalars, 1 text, 2 configs, 1 tag" in printed
    assert "verified" in printed
    assert "unreadable: 1 scalar: the entry is damaged (first: entry)" in printed
    assert printed.splitlines()[-1] == "2 run(s): 2 converted"
    document = json.loads((tmp_path / "report.json").read_text())
    assert document["runs"][0]["counts"]["scalar"] == {
        "in": 5,
        "out": 5,
        "changed": 0,
        "lost": 0,
        "unreadable": 0,
    }
    assert main([*arguments[:-1], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["runs"][0]["outcome"] == "unchanged"
    assert main(["convert", str(tmp_path / "x"), str(tmp_path / "y")]) == 2
    target = document["runs"][0]["target"]
    out = [target, str(tmp_path / "o.toy"), "-O", "forget=lr", "-O", "quietly=1", "--verify"]
    assert main(["convert", *out]) == 1
    assert "DIFFERENT: metric lr: it is missing" in capsys.readouterr().out
    assert main(["convert", *out[:2], "-O", "forget"]) == 2
