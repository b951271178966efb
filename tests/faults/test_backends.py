"""A disk that is full costs a live tracker nothing that it could have kept, and no training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def log_csv(disk: Any, said: list[str]) -> Any:
    import csv
    import os

    from blackboxml.backends.csv import rows as module
    from blackboxml.tracker import setup_tracker

    module.RETRY = 0.0
    out = os.path.join(disk.path, "out")
    tracker = setup_tracker(backends="csv", config={"lr": 0.1}, outdir=out, rank=0)
    for step in range(10):
        tracker.log({"loss": step / 3}, step)
    disk.fill()
    for step in range(10, 200):
        tracker.log({"loss": step / 3, "text": "x" * 300}, step)
    tracker.log_config({"seed": 1})
    assert len(said) == 2, said
    assert "csv.log() failed: OSError" in said[0]
    assert "csv.log_config() failed: OSError" in said[1]
    with open(os.path.join(out, "metrics.csv"), newline="") as file:
        during = len(list(csv.DictReader(file)))
    disk.free()
    for step in range(200, 210):
        tracker.log({"loss": step / 3}, step)
    tracker.finish()
    with open(os.path.join(out, "metrics.csv"), newline="") as file:
        found = list(csv.DictReader(file))
    left = [name for name in os.listdir(out) if name not in ("metrics.csv", "config.json")]
    return [
        during,
        [row["step"] for row in found],
        [float(row["loss"]) for row in found],
        left,
        said,
    ]


def test_rows_wait_for_room_and_one_warning_is_given(with_full_disk: Callable[..., Any]) -> None:
    during, steps, losses, left, said = with_full_disk(log_csv)
    assert during == 10
    assert steps == [str(step) for step in range(210)]
    assert losses == [step / 3 for step in range(210)]
    assert not left
    assert len(said) == 3
    assert "csv.log() failed 190 times" in said[2]


def lose_rows(disk: Any, said: list[str]) -> Any:
    import os

    from blackboxml.backends.csv import rows as module
    from blackboxml.tracker import setup_tracker

    module.MOST_HELD = 100
    tracker = setup_tracker(backends="csv", outdir=os.path.join(disk.path, "out"), rank=0)
    tracker.log({"loss": 0.5})
    disk.fill()
    for _ in range(300):
        tracker.log({"text": "x" * 3000})
    tracker.finish()
    return said


def test_rows_that_are_lost_are_counted(with_full_disk: Callable[..., Any]) -> None:
    said = with_full_disk(lose_rows)
    assert "csv.log() failed: OSError" in said[0]
    assert "csv.finish() failed: OSError" in said[1]
    assert "300 rows" in said[1]


def log_events(disk: Any, said: list[str]) -> Any:
    import os

    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    from blackboxml.tracker import setup_tracker

    tracker = setup_tracker(backends="tensorboard", outdir=disk.path, rank=0)
    path = str(tracker.get_backend("tensorboard").path)
    for step in range(10):
        tracker.log({"loss": step / 3}, step)
    disk.fill()
    for step in range(10, 300):
        tracker.log({"loss": step / 3, "text": "x" * 300}, step)
    disk.free()
    for step in range(300, 310):
        tracker.log({"loss": step / 3}, step)
    tracker.finish()
    steps = [event.step for event in EventFileLoader(path).Load() if event.HasField("summary")]
    return [steps, os.listdir(os.path.dirname(path)), said]


def test_an_event_file_stays_whole(with_full_disk: Callable[..., Any]) -> None:
    steps, files, said = with_full_disk(log_events)
    assert steps[:10] == list(range(10))
    assert steps[-11:-1] == list(range(300, 310))
    assert steps == [*sorted(steps[:-1]), 0]  # the last says how the run ended
    assert len(files) == 1
    assert len(said) == 2
    assert "tensorboard.log() failed: OSError" in said[0]
