"""Slow backends: a thread of their own, a bounded queue, and an end that comes in time."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from blackboxml import backends
from blackboxml.backends import Logged, TrackerBackend
from blackboxml.tracker import NullTracker, Tracker, register_backend, setup, setup_tracker
from blackboxml.tracker.lane import QUEUE, QueuedLane


class Gated(TrackerBackend):
    """Waits at every call until it is let through."""

    name = "gated"
    slow = True

    def __init__(self, **_: Any) -> None:
        self.gate = threading.Event()
        self.arrived = threading.Event()
        self.book: list[Any] = []
        self.threads: set[int] = set()

    def _pass(self, *call: Any) -> None:
        self.threads.add(threading.get_ident())
        self.arrived.set()
        self.gate.wait()
        self.book.append(call)

    def log(self, metrics, step=None, *, commit=True):
        self._pass("log", metrics, step, commit)

    def log_config(self, config):
        self._pass("log_config", config)

    def log_image(self, key, image_path, caption=None):
        self._pass("log_image", key, Path(image_path).read_bytes(), caption)

    def watch(self, model, **kwargs):
        self.book.append(("watch", threading.get_ident()))

    def finish(self):
        self._pass("finish")


class Open(Gated):
    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.gate.set()


def tracker_of(backend: TrackerBackend, limit: int = QUEUE, **options: Any) -> Tracker:
    return Tracker([QueuedLane(backend.name, lambda: backend, limit)], **options)


def test_training_never_waits_and_the_order_is_kept():
    backend = Gated()
    tracker = Tracker([backend])
    for step in range(100):
        tracker.log({"a": step}, step)
    tracker.log_config({"lr": 0.1})
    tracker.log({"a": 100}, 100)
    assert backend.book == []  # it stands at its gate, and the calls have returned
    backend.gate.set()
    tracker.finish()
    wanted = [("log", {"a": step}, step, True) for step in range(100)]
    wanted += [("log_config", {"lr": 0.1}), ("log", {"a": 100}, 100, True), ("finish",)]
    assert backend.book == wanted
    assert len(backend.threads) == 1
    assert threading.get_ident() not in backend.threads


def test_what_waits_is_what_was_logged():
    backend = Gated()
    tracker = Tracker([backend])
    metrics, config = {"a": 1}, {"layers": [1]}
    tracker.log(metrics)
    tracker.log_config(config)
    metrics["a"] = 2
    config["layers"].append(2)
    backend.gate.set()
    tracker.finish()
    assert backend.book[:2] == [("log", {"a": 1}, None, True), ("log_config", {"layers": [1]})]


def test_an_image_may_be_written_over_at_once(tmp_path):
    backend = Gated()
    tracker = Tracker([backend])
    path = tmp_path / "sample.png"
    for content in (b"first", b"second"):
        path.write_bytes(content)
        tracker.log_image("i", path)
    path.unlink()
    backend.gate.set()
    tracker.finish()
    assert [call[2] for call in backend.book[:2]] == [b"first", b"second"]


def test_an_image_that_is_not_there_is_said(tmp_path, caplog):
    tracker = Tracker([Open()])
    tracker.log_image("i", tmp_path / "none.png")
    tracker.finish()
    assert "gated.log_image() failed: FileNotFoundError" in caplog.text


def test_the_oldest_points_go_when_too_many_wait_and_are_counted(caplog):
    backend = Gated()
    tracker = tracker_of(backend, limit=10)
    tracker.log({"first": 0})
    assert backend.arrived.wait(30)  # the first is under way
    tracker.log_config({"lr": 0.1})
    for step in range(30):
        tracker.log({"a": step}, step)
    backend.gate.set()
    tracker.finish()
    kept = [call[2] for call in backend.book if call[0] == "log" and call[2] is not None]
    assert kept == list(range(22, 30))  # ten waited: the configuration, the end, and these
    assert ("log_config", {"lr": 0.1}) in backend.book
    assert backend.book[-1] == ("finish",)
    assert [record.getMessage() for record in caplog.records] == [
        "Tracker backend gated is 10 calls behind; from now on the oldest points are dropped",
        "Tracker backend gated was not given 22 points",
    ]


def test_a_queue_full_of_other_calls_takes_no_more(caplog):
    backend = Gated()
    tracker = tracker_of(backend, limit=3)
    for number in range(9):
        tracker.log_config({"n": number})
    backend.gate.set()
    tracker.finish()
    assert backend.book[-1] == ("finish",)
    assert len(backend.book) < 9
    assert "gated.log_config() failed: OverflowError: too many calls wait" in caplog.text


def test_finishing_ends_at_its_deadline_and_says_what_is_left(caplog):
    backend = Gated()
    tracker = Tracker([backend], timeout=0.2)
    for step in range(3):
        tracker.log({"a": step}, step)
    tracker.log_config({})
    started = time.monotonic()
    tracker.finish()
    assert 0.2 <= time.monotonic() - started < 30
    assert [record.getMessage() for record in caplog.records] == [
        (
            "Tracker backend gated has not taken all within 0.2 s: 3 × log, 1 × log_config, "
            "1 × finish left, and lost if the process ends before it does"
        )
    ]
    backend.gate.set()  # and goes on while the process lives
    (thread,) = [each for each in threading.enumerate() if each.name == "blackboxml gated"]
    thread.join(30)
    assert backend.book[-1] == ("finish",)


def test_several_blocked_backends_share_one_deadline():
    blocked = [Gated() for _ in range(5)]
    tracker = Tracker(blocked)
    started = time.monotonic()
    tracker.finish(timeout=0.3)
    assert time.monotonic() - started < 0.3 * 5
    for backend in blocked:
        backend.gate.set()


def test_a_backend_that_fails_on_its_thread_is_said_once_and_counted(caplog):
    class Failing(Open):
        def log(self, metrics, step=None, *, commit=True):
            raise SystemExit("in the thread")

    backend = Failing()
    tracker = Tracker([backend])
    for _ in range(50):
        tracker.log({"a": 1})
    tracker.finish()
    assert backend.book == [("finish",)]
    assert [record.getMessage() for record in caplog.records] == [
        "Tracker backend gated.log() failed: SystemExit: in the thread",
        "Tracker backend gated.log() failed 50 times",
    ]


def test_points_that_piled_up_go_at_once_where_a_backend_takes_them():
    class Batched(Gated):
        batch = 4

        def log_many(self, points):
            self._pass(*points)

    backend = Batched()
    tracker = Tracker([backend])
    before = time.time()
    tracker.log({"a": 0}, 0)
    assert backend.arrived.wait(30)
    for step in range(1, 7):
        tracker.log({"a": step}, step)
    tracker.log_config({})
    tracker.log({"a": 7}, 7)
    after = time.time()
    backend.gate.set()
    tracker.finish()
    points = [call for call in backend.book if isinstance(call[0], Logged)]
    assert [[point.step for point in call] for call in points] == [[0], [1, 2, 3, 4], [5, 6], [7]]
    assert all(before <= point.time <= after for call in points for point in call)


def test_watching_happens_in_the_thread_of_the_model(caplog):
    backend = Open()
    lane = QueuedLane("gated", lambda: backend)
    assert lane.wait(time.monotonic() + 30)
    tracker = Tracker([lane])
    tracker.watch("model")
    tracker.finish()
    assert backend.book[0] == ("watch", threading.get_ident())
    gate = threading.Event()

    def make():
        gate.wait()
        return Open()

    tracker = Tracker([QueuedLane("late", make)])
    tracker.watch("model")
    assert "late.watch() failed: ConnectionError: it is not connected yet" in caplog.text
    gate.set()
    tracker.finish()


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(backends, "_registered", {})


def test_connecting_is_waited_for_and_then_goes_on_alone(registry, monkeypatch, caplog):
    gate = threading.Event()

    class Late(Open):
        def __init__(self, **given: Any) -> None:
            gate.wait()
            super().__init__(**given)

    register_backend("late", Late)
    monkeypatch.setattr(setup, "CONNECTING", 0.1)
    tracker = setup_tracker(backends="late", rank=0)
    assert tracker.get_backend("gated") is None
    tracker.log({"a": 1}, 1)
    gate.set()
    tracker.finish()
    assert tracker.get_backend("gated").book == [("log", {"a": 1}, 1, True), ("finish",)]
    assert [record.getMessage() for record in caplog.records] == [
        "Tracker backend late is not connected after 0.1 s; what is logged waits for it"
    ]


def test_a_slow_backend_that_cannot_be_made_is_left_out(registry, caplog):
    class Broken(Open):
        def __init__(self, **_: Any) -> None:
            raise ConnectionRefusedError("nobody listens")

    register_backend("broken", Broken)
    assert isinstance(setup_tracker(backends="broken", rank=0), NullTracker)
    assert [record.getMessage() for record in caplog.records] == [
        "Tracker backend broken is left out: ConnectionRefusedError: nobody listens"
    ]


def test_a_backend_that_fails_late_takes_nothing_more(caplog):
    gate = threading.Event()

    def make() -> None:
        gate.wait()
        raise ConnectionRefusedError("at last")

    tracker = Tracker([QueuedLane("late", make)])
    tracker.log({"a": 1})
    gate.set()
    tracker.finish()
    assert "Tracker backend late is left out: ConnectionRefusedError: at last" in caplog.text


def test_a_signal_handler_may_log_while_the_program_does():
    script = """
import signal
from blackboxml.tracker import Tracker, TrackerBackend

class Taken(TrackerBackend):
    slow = True
    taken = 0
    def log(self, metrics, step=None, commit=True):
        Taken.taken += 1
    def log_config(self, config):
        pass
    def finish(self):
        pass

tracker = Tracker([Taken()])
signalled = 0
def handle(*_):
    global signalled
    signalled += 1
    tracker.log({"b": 1})
signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)
logged = 0
while signalled < 300:
    tracker.log({"a": 1})
    logged += 1
signal.setitimer(signal.ITIMER_REAL, 0)
tracker.finish()
assert Taken.taken <= logged + signalled, (Taken.taken, logged, signalled)
print("done")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "done\n"


def test_a_backend_that_blocks_for_ever_does_not_hold_the_end_of_the_process():
    script = """
import threading
from blackboxml.tracker import Tracker, TrackerBackend

class Stuck(TrackerBackend):
    name = "stuck"
    slow = True
    def log(self, metrics, step=None, commit=True):
        threading.Event().wait()
    def log_config(self, config):
        pass
    def finish(self):
        pass

tracker = Tracker([Stuck()], timeout=0.2)
tracker.log({"a": 1})
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert "stuck has not taken all within 0.2 s: 1 × log, 1 × finish left" in done.stderr
