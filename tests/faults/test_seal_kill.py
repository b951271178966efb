"""Sealing, packing and unpacking are killed, or run out of room, at every step.

This file is also the program of the child. It imports everything once, and forks a process for each
step: that one does the work on a copy of the run and kills itself before its k-th call that changes
the file system.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.faults.killing import die_before


def act(what: str, path: str) -> None:
    """Do what is killed."""
    from blackboxml.seal import seal
    from blackboxml.seal.pack import pack

    (pack if what == "pack" else seal)(path)


def sweep(what: str, template: str, folder: str) -> None:
    """Kill a process at every step; print how many there are."""
    act(what, shutil.copytree(template, f"{folder}/warm"))
    for step in range(1, 10_000):
        place = shutil.copytree(template, f"{folder}/{step}")
        if (child := os.fork()) == 0:
            die_before(step)
            act(what, place)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) == 0:
            print(step)  # noqa: T201 - the test reads it
            return


def strike(what: str, template: str, folder: str, seed: int, times: int) -> None:
    """Kill a process at random instants of its life."""
    chance = random.Random(seed)
    started = time.monotonic()
    act(what, shutil.copytree(template, f"{folder}/warm"))
    span = time.monotonic() - started
    for number in range(times):
        place = shutil.copytree(template, f"{folder}/{number}")
        if (child := os.fork()) == 0:
            act(what, place)
            os._exit(0)
        time.sleep(chance.random() * span)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def fill(what: str, template: str, folder: str) -> None:
    """Let the file system refuse at growing sizes of a file; print the errors."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    act(what, shutil.copytree(template, f"{folder}/warm"))
    size = 0
    while True:
        place = shutil.copytree(template, f"{folder}/{size}")
        if (child := os.fork()) == 0:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
            try:
                act(what, place)
            except OSError:
                os._exit(3)
            except BaseException as error:  # noqa: BLE001 - the exit status tells the test
                os.write(2, repr(error).encode())
                os._exit(4)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(size, code)  # noqa: T201 - the test reads it
        if code != 3:
            return
        size += 512 if size < 2048 else size // 3


if __name__ == "__main__":
    import h5py  # noqa: F401
    import pyarrow.parquet  # noqa: F401

    import blackboxml.seal.pack
    import blackboxml.seal.sealed  # noqa: F401

    {"sweep": sweep, "strike": strike, "fill": fill}[sys.argv[1]](*json.loads(sys.argv[2]))
    sys.exit()

import pytest  # noqa: E402 - the child needs none of these

from blackboxml import open_run  # noqa: E402
from blackboxml.seal import seal  # noqa: E402
from blackboxml.seal.pack import pack  # noqa: E402
from tests.histories import end, event, header, point, write  # noqa: E402
from tests.reader.test_reader import record_answer, table_answer  # noqa: E402
from tests.seal.test_seal import check_sums  # noqa: E402

FILES = {
    "metrics.jsonl": header()
    + point(0, {"a/x": 1, "b/y": 0.5})
    + event(1, rewind={"step": 0})
    + point(2, {"a/x": 2}, ranks={"a/x": {"mean": 0.5}})
    + end(3),
    "metrics.r1.jsonl": header(1) + point(0, {"b/y": float("nan"), "b/z": 2**53 + 1}),
}


def said(path: Path) -> list[Any]:
    reader = open_run(path)
    return [
        reader.groups,
        reader.metrics,
        reader.status,
        *(table_answer(reader, group, "all") for group in reader.groups),
        *([record_answer(each) for each in reader.records(view)] for view in ("all", "effective")),
    ]


@pytest.fixture(params=["seal", "pack", "unpack", "again"])
def job(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """Return what is done, and the run to which it is done."""
    path = write(tmp_path / "run", FILES)
    if request.param == "unpack":
        pack(path)
    if request.param == "again":  # tables of an earlier seal lie about
        seal(path)
        manifest = json.loads((path / "run.json").read_bytes())
        for key in ("sealed", "groups", "journals", "files"):
            del manifest[key]
        (path / "run.json").write_text(json.dumps(manifest), "utf-8")
        (path / "a.h5").write_bytes(b"old")
    return request.param, path


def child(function: str, *arguments: object) -> str:
    root = Path(__file__).resolve().parents[2]
    paths = [str(root), str(root / "src"), os.environ.get("PYTHONPATH", "")]
    ended = subprocess.run(
        [sys.executable, __file__, function, json.dumps(arguments, default=str)],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def assert_whole(path: Path, wanted: list[Any], what: str) -> None:
    """A run that was left anywhere says the same, and the next try ends the work."""
    before = sorted(each.name for each in path.iterdir())
    assert said(path) == wanted
    assert sorted(each.name for each in path.iterdir()) == before
    (pack if what == "pack" else seal)(path)
    assert said(path) == wanted
    assert open_run(path).packed == (what == "pack")
    assert open_run(path).sealed
    assert open_run(path).problems == []
    assert not list(path.glob(".tmp-*"))
    check_sums(path)
    shutil.rmtree(path)


@pytest.mark.rule("BB-SEA-003", "BB-SEA-011")
def test_a_kill_at_any_step_leaves_the_old_state_or_the_new_one(
    job: tuple[str, Path], tmp_path: Path
) -> None:
    what, path = job
    wanted = said(path)
    folder = tmp_path / "killed"
    folder.mkdir()
    steps = int(child("sweep", what, path, folder))
    assert steps > 12
    for step in range(1, steps + 1):
        assert_whole(folder / str(step), wanted, what)


def test_a_kill_at_any_instant_leaves_the_old_state_or_the_new_one(
    job: tuple[str, Path], tmp_path: Path
) -> None:
    what, path = job
    wanted = said(path)
    folder = tmp_path / "killed"
    folder.mkdir()
    child("strike", what, path, folder, 7, 8)
    for number in range(8):
        assert_whole(folder / str(number), wanted, what)


def test_a_full_disk_leaves_the_run_as_it_was(job: tuple[str, Path], tmp_path: Path) -> None:
    what, path = job
    wanted = said(path)
    folder = tmp_path / "full"
    folder.mkdir()
    tries = [line.split() for line in child("fill", what, path, folder).splitlines()]
    assert [code for _, code in tries[:-1]] == ["3"] * (len(tries) - 1)
    assert tries[-1][1] == "0"
    assert len(tries) > 4
    for size, _ in tries:
        place = folder / size
        assert not list(place.glob(".tmp-*"))
        assert_whole(place, wanted, what)
