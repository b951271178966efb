"""The second process that looks at runs: it says what the first one would find."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest

from blackboxml import Run
from blackboxml.collection import fingerprint, scout
from blackboxml.collection import state as states
from blackboxml.collection.catalogue import Catalogue
from blackboxml.collection.scout import Scout
from blackboxml.model import CONFIG, MANIFEST

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ["a", "b", "b b", "c\udcff", "d\nd", "é"]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of sealed runs, for which a process is worth it."""
    monkeypatch.setattr(scout, "WORTH_IT", 1)
    monkeypatch.setattr(scout, "_can_start", lambda: True)
    with Run("one", log_dir=tmp_path / "first", config={"lr": 0.1}, environment=()) as run:
        run.log({"loss": 0.5})
    for name in NAMES:
        shutil.copytree(run.path, tmp_path / "runs" / name)
        for each in (tmp_path / "runs" / name, *(tmp_path / "runs" / name).iterdir()):
            os.utime(each, (1, 1))
    return tmp_path / "runs"


def known(root: Path, places: list[str]) -> list[str]:
    found = (states.look(f"{root}/{place}") for place in places)
    return [look.sealed() if look is not None else "?" for look in found]


def heard(each: Scout, count: int) -> None:
    """Wait until the process has told so many numbers."""
    until = time.monotonic() + 60
    while len(each._found) < count and time.monotonic() < until:
        each._hear()
        time.sleep(0.005)
    assert len(each._found) == count


def test_it_finds_what_this_process_would(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = sorted(os.listdir(root))
    before = known(root, places)
    shutil.rmtree(root / "b")
    (root / "a" / CONFIG).write_bytes(b"{}")
    os.utime(root / "d\nd", (2, 2))
    with Scout(str(root), places) as each:
        heard(each, len(places))
        monkeypatch.setattr(states, "is_unchanged", None)  # nothing is looked at again
        same = [
            place
            for row, place in enumerate(places)
            if each.is_unchanged(row, f"{root}/{place}", before[row])
        ]
    assert same == [place for place in places if place not in {"a", "b", "d\nd"}]


def test_states_of_other_kinds_are_looked_at_here(root: Path) -> None:
    (root / "a" / CONFIG).unlink()
    look = states.look(f"{root}/a")
    assert look is not None
    with Scout(str(root), ["a"]) as each:
        heard(each, 1)
        assert each._found[0] == fingerprint.GONE
        assert each.is_unchanged(0, f"{root}/a", look.sealed())
        assert each.is_unchanged(0, f"{root}/a", look.state())
        assert not each.is_unchanged(0, f"{root}/a", states.UNSETTLED + look.state())


def test_without_it_all_is_looked_at_here(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = sorted(os.listdir(root))
    before = known(root, places)
    with Scout(str(root), places) as each:
        assert each._process is not None
        each._process.send_signal(signal.SIGKILL)
        each._process.wait()
        each._hear()
        assert all(
            each.is_unchanged(row, f"{root}/{place}", before[row])
            for row, place in enumerate(places)
        )
    monkeypatch.setattr(sys, "executable", str(root / "python-that-is-gone"))
    with Scout(str(root), places) as each:
        assert each._process is None
        assert each.is_unchanged(0, f"{root}/{places[0]}", before[0])


def test_it_goes_when_it_is_called_back(root: Path) -> None:
    with Scout(str(root), ["a"] * 100_000) as each:
        process = each._process
    assert process is not None
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("executable", "processors", "wanted"),
    [
        ("/usr/bin/python3.11", {0, 1}, True),
        ("/usr/bin/python3.11", {0}, False),
        ("/opt/blender/blender", {0, 1}, False),
        ("", {0, 1}, False),
    ],
)
def test_it_needs_a_processor_and_an_interpreter(
    monkeypatch: pytest.MonkeyPatch, executable: str, processors: set[int], wanted: bool
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: processors)
    assert scout._can_start() is wanted


def test_a_catalogue_with_it_sees_every_change(root: Path) -> None:
    catalogue = Catalogue(root)
    assert [entry.place for entry in catalogue.runs()] == sorted(NAMES)
    again = Catalogue(root)
    assert [entry.place for entry in again.runs()] == sorted(NAMES)
    shutil.rmtree(root / "b")
    shutil.copytree(root / "a", root / "new")
    manifest = root / "é" / MANIFEST
    manifest.write_bytes(manifest.read_bytes().replace(b'"one"', b'"two"'))  # in place
    found = {entry.place: entry.name for entry in again.runs()}
    assert found == dict.fromkeys({*NAMES, "new"} - {"b"}, "one") | {"é": "two"}


def test_the_files_are_those_of_a_run() -> None:
    assert (f"/{MANIFEST}", f"/{CONFIG}") == (fingerprint._MANIFEST, fingerprint._CONFIG)
