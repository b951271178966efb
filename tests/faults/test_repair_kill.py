"""A repair in place is killed at every step; the next one brings the run to the same end.

This file is also the program of the child. It imports everything once, and forks a process for each
step: that one mends a copy of the run and kills itself before its k-th call that changes the file
system.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.faults.killing import die_before


def sweep(template: str, folder: str, output: str) -> None:
    """Kill a process at every step; print how many there are."""
    from blackboxml.repair import repair

    def act(place: str) -> None:
        if output:
            repair(place, f"{place}.{output}")
        else:
            repair(place, in_place=True)

    act(shutil.copytree(template, f"{folder}/warm"))
    for step in range(1, 10_000):
        place = shutil.copytree(template, f"{folder}/{step}/run")
        if (child := os.fork()) == 0:
            die_before(step)
            act(place)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) == 0:
            print(step)  # noqa: T201 - the test reads it
            return


if __name__ == "__main__":
    import h5py  # noqa: F401
    import pyarrow.parquet  # noqa: F401

    import blackboxml.repair.build
    import blackboxml.repair.diagnose
    import blackboxml.repair.place
    import blackboxml.seal.sealed  # noqa: F401

    sweep(*json.loads(sys.argv[1]))
    sys.exit()

import pytest  # noqa: E402 - the child needs none of these

from blackboxml import validate  # noqa: E402
from blackboxml.repair import repair  # noqa: E402
from blackboxml.seal import seal  # noqa: E402
from blackboxml.seal.pack import pack  # noqa: E402
from tests.histories import end, event, header, point, write  # noqa: E402
from tests.repair.test_repair import assert_part_of, content, said  # noqa: E402

FILES = {
    "metrics.jsonl": header()
    + point(0, {"a/x": 1, "b/y": 0.5})
    + event(1, rewind={"step": 0})
    + point(2, {"a/x": 2}, step=0)
    + point(3, {"a/x": 3, "b/y": 1.5})
    + end(4),
    "metrics.r1.jsonl": header(1) + point(0, {"b/y": 7.5}) + end(1),
}


def ended(path: Path) -> None:
    """A damaged line, a torn tail, a foreign journal and a manifest that is gone."""
    data = FILES["metrics.jsonl"].replace(b'"a/x":2', b'"a/x":5')
    write(path, FILES | {"metrics.jsonl": data + b"torn"})
    foreign = header(run_id="f" * 32) + point(0, {"x": 1})
    (path / "metrics.1.jsonl").write_bytes(foreign)


def sealed(path: Path) -> None:
    """A damaged line that a table has, and one that no table has any more."""
    write(path, FILES)
    seal(path)
    data = FILES["metrics.jsonl"].replace(b'"a/x":2', b'"a/x":5').replace(b'"a/x":3', b'"a/x":7')
    (path / "metrics.jsonl").write_bytes(data)
    (path / "a.parquet").unlink()


def packed(path: Path) -> None:
    """A packed run without one of its tables."""
    write(path, FILES)
    pack(path)
    (path / "a.parquet").unlink()


def state(path: Path) -> list[Any]:
    """What has to be the same however often a repair was killed."""
    manifest = json.loads((path / "run.json").read_bytes())
    headers = [each.read_bytes().splitlines()[0] for each in sorted(path.glob("metrics*.jsonl"))]
    report = validate(path)
    assert report.verdict == "valid", report.problems
    members = ("id", "name", "tags", "status", "start", "end", "attempts", "groups", "journals")
    return [
        said(path),
        headers,
        [manifest.get(key) for key in members],
        sorted((each.rule, each.file, each.message) for each in report.problems),
        sorted(each.name for each in path.iterdir() if each.name != "repair"),
    ]


def child(template: Path, folder: Path, output: str) -> int:
    root = Path(__file__).resolve().parents[2]
    paths = [str(root), str(root / "src"), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, __file__, json.dumps([template, folder, output], default=str)],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.parametrize("make", [ended, sealed, packed])
@pytest.mark.rule("BB-REP-011")
def test_a_repair_in_place_may_be_killed_at_any_step(make: Any, tmp_path: Path) -> None:
    template = tmp_path / "template"
    make(template)
    before = content(template)
    (tmp_path / "killed").mkdir()
    steps = child(template, tmp_path / "killed", "")
    assert steps > 12
    wanted = state(tmp_path / "killed" / "warm")
    for step in range(1, steps + 1):
        path = tmp_path / "killed" / str(step) / "run"
        there = content(path)
        kept = {data for name, data in there.items() if name.startswith("repair/")}
        for name, data in before.items():
            assert there.get(name) == data or data in kept, (step, name)
        repair(path, in_place=True)
        assert state(path) == wanted, step
        assert not list(path.glob(".tmp-*"))
        shutil.rmtree(path)


def test_a_repair_that_is_killed_leaves_the_original_and_scratch(tmp_path: Path) -> None:
    template = tmp_path / "template"
    sealed(template)
    before = content(template)
    (tmp_path / "killed").mkdir()
    steps = child(template, tmp_path / "killed", "new")
    wanted = state(tmp_path / "killed" / "warm.new")
    for step in range(1, steps + 1):
        folder = tmp_path / "killed" / str(step)
        assert content(folder / "run") == before
        new = folder / "run.new"
        others = {each.name for each in folder.iterdir()} - {"run", "run.new"}
        assert all(name.startswith(".tmp-") for name in others)
        if new.exists():
            assert state(new) == wanted
    assert_part_of(said(tmp_path / "killed" / "warm.new"), said(write(tmp_path / "whole", FILES)))
