"""blackboxml 0.5 and 0.2: every run that they left, whole or cut, and back."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blackboxml import open_run
from blackboxml.conversion import convert
from blackboxml.converters import blackboxml_legacy
from blackboxml.errors import FormatError
from blackboxml.foreign.interchange import Ledger, Medium, Point
from blackboxml.foreign.legacy import MEMBERS, scan_legacy
from blackboxml.frontends.store import load_run
from blackboxml.writer import RunWriter

DATA = Path(__file__).parent / "data" / "blackboxml_legacy"
EXPECTED = json.loads((DATA / "expected.json").read_text())


def read(path: Path) -> tuple[Any, list[Any], Ledger]:
    [run] = blackboxml_legacy.read(path)
    ledger = Ledger()
    return run, list(run.items(ledger)), ledger


def steps_of(items: list[Any]) -> list[dict[str, Any]]:
    """The steps of 0.5 as the items say them."""
    steps: dict[int, dict[str, Any]] = {}
    for item in items:
        own = steps.setdefault(item.step, {})
        if isinstance(item, Point):
            own.update(item.metrics)
        elif item.kind == "text":
            own[item.name] = item.value
        else:
            own[item.name] = item.value["value"]
    return [steps[step] for step in sorted(steps)]


def alike(left: Any, right: Any) -> bool:
    """Equal, NaN to itself, and of the same types."""
    return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)


@pytest.mark.parametrize("place", EXPECTED)
def test_each_sample_holds_what_is_expected(place: str) -> None:
    expected, path = EXPECTED[place], DATA / place
    assert blackboxml_legacy.recognise(path)
    assert blackboxml_legacy.recognise(path.parent)
    assert blackboxml_legacy.members(path.parent) == {"run.json"}
    run, items, ledger = read(path.parent)
    if not expected["readable"]:
        assert run.name == "mask_exc"
        assert ledger.total("unreadable", "step") == 1
        assert not items
        return
    steps = steps_of(items)
    assert not ledger.total("unreadable", "step")
    assert (run.name, run.tags, len(steps)) == (
        expected["name"],
        expected["tags"],
        expected["n_steps"],
    )
    keys = list(
        dict.fromkeys(key for step in json.loads(path.read_text())["steps"] for key in step)
    )
    assert keys == expected["keys"]
    assert {key for step in steps for key in step} == set(keys)
    last = expected["last_step"]
    if last is not None:
        spelled = {"-inf": -math.inf}
        assert steps[-1] == {key: spelled.get(str(value), value) for key, value in last.items()}
    assert alike(steps, json.loads(path.read_text())["steps"])
    assert run.environment.get("git_commit", "<absent>") == expected["git_commit"]
    assert run.environment.get("git_dirty", "<absent>") == expected["git_dirty"]
    assert ("model" in run.extra) == expected["keras"] == (run.status == "completed")
    assert (ledger.total("changed", "time") == 0) == expected["start_has_offset"]
    assert load_run(path)["steps"] == json.loads(path.read_text())["steps"] or "nan" in place


def test_a_tree_of_runs_is_imported_at_once_and_only_once(tmp_path: Path) -> None:
    report = convert(DATA, tmp_path / "out", verify=True)
    assert [run.source_format for run in report.runs] == ["blackboxml_legacy"] * 19
    assert report.ok
    assert report.lossy  # one of them was cut by the exception that it hid
    names = Counter(open_run(run.target).name for run in report.runs)
    assert names == Counter(
        [each["name"] for each in EXPECTED.values() if each["readable"]]
        + ["mask_exc", "mnist_cnn", "metrics_20250702_235629"]
    )
    again = convert(DATA, tmp_path / "out")
    assert {run.outcome for run in again.runs} == {"unchanged"}


def test_the_history_of_0_2_is_a_step_for_each_epoch() -> None:
    path = DATA / "older" / "metrics_20250702_235629.json"
    run, items, _ = read(path)
    document = json.loads(path.read_text())
    assert [item.metrics for item in items] == [
        {key: values[step] for key, values in document.items()} for step in range(2)
    ]
    assert run.end == 1751500589.0


def test_the_last_values_of_0_2_are_one_step() -> None:
    path = DATA / "older" / "metrics_20250702_230138.json"
    run, [point], ledger = read(path)
    assert point.metrics == json.loads(path.read_text())["final_logs"]
    assert (run.name, run.tags) == ("mnist_cnn", ["keras", "mnist", "cnn"])
    assert ledger.total("made", "step") == 1


@pytest.mark.parametrize("cut", range(1, 600, 7))
def test_every_whole_step_before_a_cut_is_there(cut: int, tmp_path: Path) -> None:
    steps = [{"loss": 1 / (at + 1), "deep": {"x": [1, {"y": at}]}} for at in range(5)]
    text = json.dumps(document(steps), indent=2)
    path = tmp_path / "run.json"
    path.write_text(text[: -cut or None])
    whole = path.read_text().count("\n    }")
    _, items, ledger = read(path)
    assert alike(steps_of(items), steps[:whole])
    assert ledger.total("unreadable", "step") + ledger.total("unreadable", "field") >= (cut > 2)


def test_steps_behind_damage_are_there_in_their_places(tmp_path: Path) -> None:
    steps = [{"loss": float(at), "note": f"no. {at}"} for at in range(2000)]
    text = json.dumps(document(steps), indent=2)
    for at, (old, new) in {
        7: ('"loss"', '"loss'),
        900: ("900.0", "9o0.0"),
        1500: ("{", ""),
    }.items():
        place = text.index(f'"note": "no. {at}"')
        start = text.rindex("\n    {", 0, place)
        text = text[:start] + text[start:].replace(old, new, 1)
    path = tmp_path / "run.json"
    path.write_text(text)
    _, items, ledger = read(path)
    found = {item.step: item.value for item in items if isinstance(item, Medium)}
    for step, value in found.items():
        assert value == f"no. {step}"
    assert set(range(2000)) - found.keys() == {7, 900, 1500}
    assert 1 <= ledger.total("unreadable", "step") <= 3


def test_damage_is_told_with_its_offset(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps(document([{"a": 1}, {"b": 2}]), indent=2).replace('"b"', "b"))
    _, _, ledger = read(path)
    [remark] = [each for each in ledger.counts if each.effect == "unreadable"]
    offset = path.read_text().index("{\n      b")
    assert f"byte {offset}" in remark.where


@pytest.mark.parametrize("indent", [2, None])
def test_a_large_run_goes_by_a_piece_at_a_time(indent: int | None, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    steps = [{"loss": at / 3, "big": list(range(at % 50))} for at in range(20_000)]
    path.write_text(json.dumps(document(steps), indent=indent))
    _, items, ledger = read(path)
    assert alike(steps_of(items), steps)
    assert not ledger.counts


@given(st.binary(max_size=400))
def test_any_bytes_end_and_tell_no_lies(data: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.json"
        path.write_bytes(b'{\n  "name": "x",\n  "tags": [],\n  "steps": [\n    ' + data)
        for piece in scan_legacy(path):
            assert piece.offset <= path.stat().st_size


def document(steps: list[Any], **more: Any) -> dict[str, Any]:
    return {
        "name": "by hand",
        "tags": ["a"],
        "environment": {"python": "3.11.7", "git_commit": None},
        "start": "2026-11-21T03:56:05.130329+00:00",
        "end": "2026-11-21T03:56:06.133941+00:00",
        "duration_seconds": 1.003612,
        "steps": steps,
        **more,
    }


@pytest.mark.parametrize("place", [each for each in EXPECTED if EXPECTED[each]["readable"]])
def test_a_run_goes_back_byte_by_byte(place: str, tmp_path: Path) -> None:
    source = DATA / place
    imported = convert(source, tmp_path / "runs").runs[0].target
    [back] = convert(imported, tmp_path / "back", target_format="blackboxml_legacy").runs
    assert back.ok
    assert Path(back.target).parent.name.startswith(Path(place).parent.name[:8])
    found, wanted = json.loads(Path(back.target).read_text()), json.loads(source.read_text())
    for step in found["steps"]:  # texts and others stand behind the numbers
        step |= {key: step.pop(key) for key in [*step] if key in ("note", "none", "nested")}
    assert json.dumps(found, indent=2) == json.dumps(wanted, indent=2) or place.startswith(
        "runs/ragged"
    )
    assert alike(found, wanted)
    keys = [*MEMBERS]
    if "model" in wanted:
        keys.insert(3, "model")
    assert list(found) == keys


def test_an_export_is_written_as_0_5_writes_it(tmp_path: Path) -> None:
    source = DATA / "runs" / "ctx_val_epoch_20261121_035605" / "run.json"
    imported = convert(source, tmp_path / "runs").runs[0].target
    back = convert(imported, tmp_path / "back", target_format="blackboxml_legacy").runs[0].target
    assert Path(back).read_bytes() == source.read_bytes()


def test_what_0_5_has_no_place_for_is_declared(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path / "runs", "full", tags=["t"])
    writer.write_config(
        b'{"format": {"name": "blackbox-config", "version": "1.0", "features": []},'
        b' "config": {"lr": 0.1}}'
    )
    writer.log({"loss": 1.5, "n": 2**62}, 3, {"loss": {"mean": 1.0, "std": 0.5}})
    writer.log({"loss": math.nan}, 10)
    writer.log({"_step": 1.0, "loss": 2.0}, 20)
    writer.log_media("note", "text", 10, value="hello")
    writer.log_media("alone", "event", 30, value={"value": [1, None]})
    writer.log_media("h", "histogram", 3, value={"edges": [0.0, 1.0], "counts": [3]})
    writer.finish("failed", {"type": "ValueError", "message": "no"})
    [report] = convert(
        writer.path, tmp_path / "old", target_format="blackboxml_legacy", verify=True
    ).runs
    steps = json.loads(Path(report.target).read_text())["steps"]
    assert steps[0] == {"_step": 3, "loss": 1.5, "n": 2**62, "loss/mean": 1.0, "loss/std": 0.5}
    assert alike(steps[1], {"_step": 10, "loss": math.nan, "note": "hello"})
    assert steps[2:] == [{"_step": 20, "loss": 2.0}, {"_step": 30, "alone": [1, None]}]
    lost = {(remark.effect, remark.kind): count for remark, count in report.remarks.items()}
    assert lost[("lost", "config")] == lost[("lost", "scalar")] == lost[("lost", "histogram")] == 1
    assert ("lost", "status") in lost
    assert ("lost", "field") in lost
    assert report.ok, report.differences


def test_an_export_replaces_the_one_before_and_no_other_run(tmp_path: Path) -> None:
    ids = []
    for value in (1.0, 2.0):
        writer = RunWriter.create(tmp_path / "runs", "same", start=1795270921.25 + value / 4)
        writer.log({"loss": value})
        writer.finish("completed")
        ids.append(writer.path)
    for _ in range(2):
        for path in ids:
            convert(path, tmp_path / "old", target_format="blackboxml_legacy")
    found = sorted((tmp_path / "old").glob("*/run.json"))
    assert [path.parent.name for path in found] == [
        "same_20261121_142201",
        "same_20261121_142201_1",
    ]
    assert [load_run(path)["steps"] for path in found] == [[{"loss": 1.0}], [{"loss": 2.0}]]


def test_other_files_are_not_taken_for_runs(tmp_path: Path) -> None:
    for name, text in {
        "package.json": '{"name": "x", "version": "1"}',
        "run.json": '{"format": {"name": "blackbox-run"}, "name": "x", "steps": []}',
        "metrics_1.json": '{"loss": [1.0]}',
        "empty.json": "",
        "shown.txt": json.dumps(document([{"loss": 1.0}]), indent=2),
    }.items():
        (tmp_path / name).write_text(text)
        assert not blackboxml_legacy.recognise(tmp_path / name)
    with pytest.raises(FormatError, match=r"no run of blackboxml 0\.5"):
        list(blackboxml_legacy.read(tmp_path / "package.json"))


def test_odd_members_do_not_lose_the_run(tmp_path: Path) -> None:
    deep: Any = []
    for _ in range(90):
        deep = [deep]
    (tmp_path / "run.json").write_text(
        json.dumps(
            document(
                [
                    {
                        "": 1.0,
                        "\n": 2.0,
                        "/a/": 3.0,
                        "deep": deep,
                        "big": 2**80,
                        "\ud800": "\ud800",
                    },
                    5,
                ],
                tags=["", "\ud800", None, "ok"],
                environment={"deep": deep, "nan": math.nan},
                start="soon",
                more={"x": [math.inf]},
            )
        )
    )
    report = convert(tmp_path / "run.json", tmp_path / "out", verify=True)
    assert report.ok, (report.unreadable, report.runs)
    run = open_run(report.runs[0].target)
    assert run.tags == ["\\ud800", "null", "ok"]
    assert next(run.records()).metrics == {"unnamed": 1.0, "_": 2.0, "a": 3.0}
    kinds = {record.name: record.kind for record in run.media()}
    assert kinds == {"deep": "event", "big": "event", "__2": "text", "step": "event"}


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=True)
    | st.text(st.characters(blacklist_categories=["Cs"]), max_size=8),
    lambda inside: (
        st.lists(inside, max_size=3) | st.dictionaries(st.text("ab$", max_size=3), inside)
    ),
    max_leaves=6,
)
NAMES = st.text("abc/é", min_size=1, max_size=6).filter(
    lambda name: not name.startswith("/") and not name.endswith("/")
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=st.lists(st.dictionaries(NAMES, VALUES, max_size=4), max_size=6))
def test_any_run_comes_back_as_it_was(
    steps: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("round")
    path = folder / "run.json"
    path.write_text(json.dumps(document(steps), indent=2))
    imported = convert(path, folder / "runs")
    assert imported.ok
    back = convert(imported.runs[0].target, folder / "back", target_format="blackboxml_legacy")
    assert back.ok
    assert alike(json.loads(Path(back.runs[0].target).read_text()), document(steps))
