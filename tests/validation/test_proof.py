"""A plain run is proved valid at once, and never one in which the checks find anything."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blackboxml import Run, RunWriter, validate
from blackboxml.base import schema
from blackboxml.base.files import Directory
from blackboxml.seal import seal
from blackboxml.validation import proof, single
from tests.validation import runs

if TYPE_CHECKING:
    from collections.abc import Hashable
    from pathlib import Path

SMALL = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


def prove(path: Path) -> Hashable | None:
    with Directory(path) as directory:
        return proof.prove(directory)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two groups, all types, a description and a configuration."""
    folder = tmp_path_factory.mktemp("plain")
    with Run("plain", log_dir=folder, config={"lr": 0.1, "layers": [64, 64]}, tags=["x"]) as run:
        run.describe("train/loss", unit="nat", description="cross entropy")
        for step in range(12):
            run.log({"train/loss": 1 / (step + 1), "train/n": step, "train/ok": step < 4, "lr": 1})
    return run.path


def test_a_plain_run_is_proved(plain: Path) -> None:
    assert prove(plain) is not None
    assert validate(plain).verdict == "valid"


@pytest.mark.parametrize("metrics", [{"a": 1.5}, {"é/ü": 2, "50%/.x": True}, {"val/x": -0.0}])
def test_runs_of_odd_names_are_proved(tmp_path: Path, metrics: dict[str, float]) -> None:
    with Run("été ✓", log_dir=tmp_path) as run:
        run.log(metrics, step=-5)
    assert prove(run.path) is not None


def test_a_run_of_many_metrics_is_proved(tmp_path: Path) -> None:
    """More links and attributes than the header of an HDF5 object holds."""
    with Run("wide", log_dir=tmp_path) as run:
        for step in range(3):
            run.log({f"train/metric_{number:02}": number + step / 8 for number in range(40)})
    assert prove(run.path) is not None


def test_runs_that_are_not_plain_are_left_to_the_checks(recorded: dict[str, Path]) -> None:
    for path in recorded.values():
        assert prove(path) is None
        assert validate(path).verdict == "valid"


def test_a_run_that_goes_on_is_not_proved(tmp_path: Path) -> None:
    writer = RunWriter.create(tmp_path, "live")
    writer.log({"train/loss": 0.5})
    assert prove(writer.path) is None
    writer.finish()
    assert prove(writer.path) is None
    seal(writer.path)
    assert prove(writer.path) is not None


def test_the_second_run_of_a_kind_has_the_same_report_as_by_the_checks(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(plain, tmp_path / "copy")
    first = validate(plain)
    monkeypatch.setattr(single, "_validate", None)  # nothing is left to it
    second = validate(copy)
    monkeypatch.undo()
    monkeypatch.setattr(single, "_prove", lambda *_: None)
    third = validate(copy)
    assert first.outcomes == second.outcomes == third.outcomes
    assert (second.path, second.verdict, second.problems) == (copy, third.verdict, third.problems)


def test_a_rule_that_is_ignored_is_so_in_every_run(plain: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(plain, tmp_path / "copy")
    for path in (plain, copy):
        assert validate(path).outcomes["BB-JNL-004"].state == "passed"
        ignored = validate(path, ignore=["BB-JNL-004"])
        assert ignored.outcomes["BB-JNL-004"].why == "ignored on request"


@pytest.mark.parametrize("vouched", [True, False])
@given(data=st.data())
@settings(max_examples=150, **SMALL)
def test_nothing_is_proved_in_which_the_checks_find_anything(
    plain: Path, tmp_path: Path, vouched: bool, data: st.DataObject
) -> None:
    path = shutil.copytree(plain, tmp_path / plain.name)
    try:
        name = data.draw(st.sampled_from(sorted(os.listdir(path))))
        whole = (path / name).read_bytes()
        at = data.draw(st.integers(0, len(whole) - 1))
        new = data.draw(st.binary(max_size=8))
        kept = data.draw(st.integers(0, 8))
        (path / name).write_bytes(whole[:at] + new + whole[at + kept :])
        if vouched and name == "run.json":
            runs.write_sums(path)
        elif vouched and name != "SHA256SUMS":
            runs.vouch(path)
        if prove(path) is not None:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(single, "_prove", lambda *_: None)
                report = validate(path)
            assert (report.verdict, report.problems) == ("valid", [])
    finally:
        shutil.rmtree(path)


def test_a_file_that_is_there_besides_is_not_proved(plain: Path, tmp_path: Path) -> None:
    for name in ("extra.txt", "metrics.1.jsonl", "media.jsonl", ".tmp-x", "TRAIN.h5"):
        path = shutil.copytree(plain, tmp_path / name)
        (path / name).touch()
        assert prove(path) is None
    path = shutil.copytree(plain, tmp_path / "link")
    (path / "console.log").symlink_to("config.json")
    assert prove(path) is None
    path = shutil.copytree(plain, tmp_path / "folder")
    (path / "artifacts").mkdir()
    assert prove(path) is None


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(document=ANY, name=st.sampled_from(schema.names()))
@settings(max_examples=300, deadline=None)
def test_whatever_is_valid_at_once_is_valid_with_reasons(document: object, name: str) -> None:
    assert not schema.is_valid(name, document) or schema.validator(name).is_valid(document)


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_both_validators_agree_on_documents_with_one_change(
    plain: Path, data: st.DataObject
) -> None:
    document = runs.manifest(plain)
    holder = document
    while True:
        key = data.draw(st.sampled_from(sorted(holder) if isinstance(holder, dict) else [0]))
        inner = holder[key]
        if isinstance(inner, dict | list) and inner and data.draw(st.booleans()):
            holder = inner
            continue
        break
    holder[key] = data.draw(ANY)
    assert schema.is_valid("manifest", document) == schema.validator("manifest").is_valid(document)
