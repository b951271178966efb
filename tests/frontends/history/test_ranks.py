"""Four ranks as processes, over gloo: their values together, and what one of them may do wrong."""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blackboxml import open_run, validate
from blackboxml.frontends.history.channel import QUESTIONS, UPDATES, Receiver, Sender
from blackboxml.frontends.history.statistics import combine
from blackboxml.frontends.history.team import MOST_RANKS, Job, Team, _Mpi

PROGRAM = Path(__file__).with_name("rank.py")
WORLD = 4
SECONDS = 120


def launch(folder: Path, scenarios: str, awaited: range = range(WORLD)) -> dict[str, list[Any]]:
    """Run the scenarios; return what the awaited ranks say, None of the others."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    kept = {key: each for key, each in os.environ.items() if not key.startswith("EZPZ_")}
    variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(WORLD)}
    processes = [
        subprocess.Popen(
            [sys.executable, PROGRAM, scenarios, folder],
            env=kept | variables | {"RANK": str(rank), "OMP_NUM_THREADS": "1"},
        )
        for rank in range(WORLD)
    ]
    deadline = time.monotonic() + SECONDS
    try:
        for rank in awaited:
            processes[rank].wait(max(1.0, deadline - time.monotonic()))
    finally:
        for process in processes:
            process.kill()
            process.wait()
    found = {}
    for scenario in scenarios.split(","):
        files = [folder / f"{scenario}.{rank}.json" for rank in range(WORLD)]
        found[scenario] = [
            json.loads(each.read_text()) if each.exists() else None for each in files
        ]
    return found


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[Any]]]:
    folder = tmp_path_factory.mktemp("job")
    return folder, launch(folder, "names,unequal,batched,journals,off,absent")


def rows(said: dict[str, Any], group: str) -> list[dict[str, Any]]:
    return open_run(said["path"]).polars(group).to_dicts()


def test_hi09_statistics_are_those_of_the_population(job: Any) -> None:
    (row,) = rows(job[1]["names"][0], "")
    values = [123880.0, 123920.0, 123870.0, 123890.0]
    assert row["tps/mean"] == statistics.mean(values)
    assert row["tps/std"] == pytest.approx(statistics.pstdev(values), abs=1e-9)
    assert (row["tps/min"], row["tps/max"], row["tps/count"]) == (123870.0, 123920.0, 4)
    history = job[1]["names"][0]["history"]
    assert {f"tps/{each}" for each in ("mean", "max", "min", "std")} <= set(history)


def test_hi10_metrics_are_matched_by_name(job: Any) -> None:
    said = job[1]["names"][0]
    (row,) = rows(said, "train")
    assert (row["b/mean"], row["b/min"], row["b/max"], row["b/count"]) == (100.0, 100.0, 100.0, 3)
    assert (row["more"], row["more/mean"], row["more/count"]) == (None, 7.0, 1)
    assert all(math.isnan(row[f"a/{each}"]) for each in ("mean", "min", "max", "std"))
    assert row["a/count"] == 4
    assert said["line"].startswith("train/a=1.000000(±   nan) train/b=100.000000  ")
    assert [each["warned"] for each in job[1]["names"][1:]] == [[], [], []]


def test_hi12_it_can_be_switched_off(job: Any) -> None:
    for said in job[1]["off"]:
        assert said["auto"]["together"] is True
        assert said["option"]["together"] is said["environment"]["together"] is False
    assert "loss/mean" in job[1]["off"][0]["auto"]["history"]
    assert list(job[1]["off"][0]["environment"]["history"]) == ["loss"]


@pytest.mark.parametrize(
    ("world", "wanted", "together"),
    [(MOST_RANKS, None, True), (MOST_RANKS + 1, None, False), (MOST_RANKS + 1, True, True)],
)
def test_hi12_above_384_ranks_it_is_asked_for(
    world: int, wanted: bool | None, together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Meeting:
        def say(self, message: bytes) -> None:
            pass

    class Recording:
        run_id, path, attempt = "0" * 32, Path("/x"), 0

    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    team = Team.meet(Job(0, world, Meeting()), Recording(), wanted=wanted, every=1, wait=0.01)
    assert team.together is together
    team.finish()
    assert Team.meet(Job(0, 1), Recording(), wanted=True, every=1, wait=1.0) is None


def test_hi13_other_ranks_have_their_own_values_and_write_no_run(job: Any) -> None:
    for rank, said in enumerate(job[1]["names"]):
        assert said["history"]["n"] == [str(rank)]
        assert ("n/mean" in said["history"]) is (rank == 0)
    folder = job[0]
    assert sorted(each.name for each in (folder / "final").iterdir()) == [
        *("config.json", "eval.h5", "metrics.h5", "metrics.jsonl", "report.md", "run_info.json"),
        "train.h5",
    ]


def test_hi14_each_rank_has_its_own_lines(job: Any) -> None:
    said = job[1]["names"][0]
    for rank in range(WORLD):
        suffix = f".r{rank}" if rank else ""
        text = (job[0] / f"{said['id']}{suffix}.jsonl").read_text()
        lines = [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]
        assert {each["rank"] for each in lines} == {rank}
        assert ("aggregated" in lines[1]) is (rank == 0)
    first = json.loads((job[0] / f"{said['id']}.jsonl").read_text().splitlines()[0])
    assert first["aggregated"]["train/a/mean"] == first["metrics"]["train/a/mean"] == "NaN"


def test_hi39_all_ranks_know_the_run(job: Any) -> None:
    for scenario in ("names", "unequal", "batched", "journals"):
        assert len({said["id"] for said in job[1][scenario]}) == 1
        assert validate(job[1][scenario][0]["path"]).ok
    assert len({job[1][each][0]["id"] for each in ("names", "unequal", "batched")}) == 3


def test_a_rank_that_misses_updates_is_not_counted_in_them(job: Any) -> None:
    said = job[1]["unequal"][0]
    counts = {row["step"]: row["loss/count"] for row in rows(said, "train")}
    assert counts == {step: 3 if step % 3 == 0 else 4 for step in range(30)}
    for row in rows(said, "train"):
        wanted = [0.0, 1.0, 2.0] + ([3.0] if row["step"] % 3 else [])
        assert row["loss/mean"] == pytest.approx(statistics.mean(wanted))
    assert [row["loss/count"] for row in rows(said, "eval")] == [1, 1, 1]
    assert said["seconds"] < 10
    assert len([each for each in said["warned"] if "partial" in each]) == 1


def test_statistics_of_several_updates_at_once_are_of_their_steps(job: Any) -> None:
    said = job[1]["batched"][0]
    found = {
        row["step"]: row["loss/mean"] for row in rows(said, "train") if row["loss/mean"] is not None
    }
    assert found == {step: step + 1.5 for step in range(10)}
    assert [row["loss"] for row in rows(said, "train") if row["loss"] is not None] == list(
        range(10)
    )
    assert list(map(float, said["history"]["train/loss/mean"])) == [
        step + 1.5 for step in range(10)
    ]
    import xarray as xr

    with xr.open_dataset(job[0] / "batched/train.h5") as dataset:
        assert dataset["step"].to_numpy().tolist() == list(range(10))
        np.testing.assert_array_equal(dataset["loss_mean"], dataset["loss"] + 1.5)


def test_ranks_may_keep_journals_of_their_own(job: Any) -> None:
    said = job[1]["journals"]
    found = {row["rank"]: row["loss"] for row in rows(said[0], "")}
    assert found == {0: 0.0, 1: 1.0, 2: 2.0, 3: 3.0}
    assert said[0]["differing"] == {
        "loss/mean": 1.5,
        "loss/min": 0.0,
        "loss/max": 3.0,
        "loss/std": pytest.approx(math.sqrt(1.25)),
    }


def test_a_rank_that_never_comes_is_waited_for_once(job: Any) -> None:
    said = job[1]["absent"][0]
    assert {row["loss/count"] for row in rows(said, "")} == {3}
    assert said["seconds"] < 10
    assert len([each for each in said["warned"] if "missing: 3" in each]) == 1


def test_hi11_ranks_that_are_killed_or_stopped_hold_up_nobody(tmp_path: Path) -> None:
    said = launch(tmp_path, "killed", range(1))["killed"]
    assert said[2] is said[1] is None
    assert said[0]["seconds"] < 20
    counts = {row["step"]: row["loss/count"] for row in rows(said[0], "")}
    assert [counts[step] for step in (0, 9, 11, 19, 29)] == [4, 4, 3, 3, 2]
    assert len([each for each in said[0]["warned"] if "partial" in each]) == 1
    assert open_run(said[0]["path"]).status == "completed"


def test_hi11_ranks_go_on_without_rank_0(tmp_path: Path) -> None:
    said = launch(tmp_path, "headless", range(1, WORLD))["headless"]
    for rank in (1, 2, 3):
        assert said[rank]["seconds"] < 30
        assert len(said[rank]["history"]["loss"]) == 200
        assert len([each for each in said[rank]["warned"] if "lost rank 0" in each]) == 1
    run = open_run(said[1]["path"])
    assert len(list(run.records())) == 10
    assert run.status == "crashed"


# -- the channel by itself


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with contextlib.ExitStack() as stack:
        receiver = Receiver(2, 0.2, b"k" * 32)
        stack.callback(receiver.close)
        sender = Sender(receiver.place, 1, 5.0)
        stack.callback(sender.close, 0.1)
        yield receiver, sender


def test_values_that_come_early_wait_and_old_ones_are_forgotten(pair: Any) -> None:
    receiver, sender = pair
    for step in range(5):
        sender.put(UPDATES, (step, 0), {"a": float(step)})
    sender.put(QUESTIONS, (0, 0), {"a": 9.0})
    sender.send()
    assert receiver.gather(QUESTIONS, (0, 0), ("a",), [1.0])["a"]["mean"] == 5.0
    assert receiver.gather(UPDATES, (3, 0), ("a",), [1.0])["a"]["mean"] == 2.0
    assert receiver.gather(UPDATES, (4, 0), ("a",), [0.0])["a"]["mean"] == 2.0


def test_a_stranger_and_rubbish_are_not_listened_to(pair: Any) -> None:
    receiver, sender = pair
    sender.close(0.1)
    with socket.create_connection(("127.0.0.1", receiver.place["port"])) as stranger:
        stranger.sendall(b"x" * 36)
        stranger.shutdown(socket.SHUT_WR)
        assert receiver.gather(UPDATES, (0, 0), ("a",), [1.0])["a"]["count"] == 1
    place = receiver.place
    rubbish = Receiver(2, 0.2, b"k" * 32)
    with socket.create_connection(("127.0.0.1", rubbish.place["port"])) as other:
        other.sendall(b"k" * 32 + (1).to_bytes(4, "little") + b"\xff" * 64)
        assert rubbish.gather(UPDATES, (0, 0), ("a",), [1.0])["a"]["count"] == 1
    rubbish.close()
    assert place["port"] != rubbish.place["port"]


def test_a_sender_never_waits_for_rank_0_to_read(pair: Any) -> None:
    _, sender = pair
    many = {f"m{each}": 1.0 for each in range(1000)}
    started = time.monotonic()
    for step in range(3000):
        sender.put(UPDATES, (step, 0), many)
        sender.send()
    assert time.monotonic() - started < 20
    assert len(sender._unsent) < 2**23


def test_what_rank_0_alone_logs_is_waited_for_once(pair: Any) -> None:
    receiver, sender = pair
    started = time.monotonic()
    for step in range(20):
        assert receiver.gather(UPDATES, (step, 0), ("eval",), [1.0])["eval"]["count"] == 1
    assert 0.2 <= time.monotonic() - started < 2
    for each in range(20):
        receiver.gather(UPDATES, (20 + each, 0), (f"m{each}",), [1.0])
    assert time.monotonic() - started < 5
    sender.put(UPDATES, (50, 0), {"a": 3.0})
    sender.send()
    deadline = time.monotonic() + 10
    while receiver.gather(UPDATES, (50, 0), ("a",), [1.0])["a"]["count"] == 1:
        assert time.monotonic() < deadline


def test_ranks_of_mpi_meet_by_its_messages() -> None:
    """MPI needs a launcher, which a test has not: two ends of a queue stand for it."""
    boxes: dict[int, list[Any]] = {1: []}

    class Communicator:
        def Get_size(self) -> int:  # noqa: N802 - the name of mpi4py
            return 2

        def isend(self, message: bytes, dest: int, tag: int) -> None:
            boxes[dest].append(message)

        def iprobe(self, source: int, tag: int) -> bool:
            return bool(boxes[1])

        def recv(self, source: int, tag: int) -> bytes:
            return boxes[1].pop()

    assert _Mpi(Communicator()).hear(0.02) is None
    _Mpi(Communicator()).say(b"here")
    assert _Mpi(Communicator()).hear(1.0) == b"here"


def test_statistics_of_values_far_from_zero_are_exact() -> None:
    values = [123880.0, 123920.0, 123870.0, 123890.0, 123900.0, 123860.0]
    found = combine([(("a",), np.array([each])) for each in values])["a"]
    assert found["std"] == pytest.approx(statistics.pstdev(values), abs=1e-9)
    same = combine([(("a",), np.array([0.1])) for _ in range(3)])["a"]
    assert (same["mean"], same["std"]) == (0.1, 0.0)
    huge = combine([(("a",), np.array([1e308])) for _ in range(4)])["a"]
    assert (huge["mean"], huge["min"], huge["max"]) == (1e308, 1e308, 1e308)
