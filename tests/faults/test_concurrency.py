"""Threads, forks, signals and other processes: one journal has one writer, and it stays whole."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from blackboxml import Run, open_run, validate

if TYPE_CHECKING:
    from collections.abc import Callable


def steps(path: os.PathLike[str] | str) -> list[int]:
    return [record.step for record in open_run(path).records()]


# -- threads


def test_eight_threads_that_log_at_once_lose_nothing(tmp_path: Path) -> None:
    gate = threading.Barrier(9)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with Run("threads", log_dir=tmp_path, environment=()) as run:

            def work(number: int) -> None:
                gate.wait()
                for value in range(500):
                    # Every other record takes the careful path.
                    run.log({f"t{number}/value": value, "nan": float("nan") if value % 2 else 0.0})

            threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
            for thread in threads:
                thread.start()
            gate.wait()
            for _ in range(20):
                run.sync()
                run.log_config({threading.current_thread().name: 1})
            for thread in threads:
                thread.join()
    finally:
        sys.setswitchinterval(interval)
    records = list(open_run(run.path).records())
    assert [record.seq for record in records] == list(range(4000))
    assert sorted(record.step for record in records) == list(range(4000))
    for number in range(8):
        name = f"t{number}/value"
        values = [record.metrics[name] for record in records if name in record.metrics]
        assert values == list(range(500))
    assert validate(run.path).ok


def test_threads_that_add_hyper_parameters_at_once_lose_none(tmp_path: Path) -> None:
    gate = threading.Barrier(8)
    with Run("threads", log_dir=tmp_path, environment=(), seal=False) as run:

        def work(number: int) -> None:
            gate.wait()
            for value in range(10):
                run.log_config({f"{number}.{value}": value})

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(open_run(run.path).config) == 80


def test_a_thread_that_still_logs_when_the_run_ends_gets_an_error_and_no_record_after_the_end(
    tmp_path: Path,
) -> None:
    run = Run("late", log_dir=tmp_path, environment=(), seal=False).start()
    begun = threading.Event()
    refused = []

    def work() -> None:
        try:
            while True:
                run.log({"loss": 0.5})
                begun.set()
        except RuntimeError as error:
            refused.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    begun.wait()
    run.finish()
    for thread in threads:
        thread.join()
    assert len(refused) == 3
    reader = open_run(run.path)
    seqs = [record.seq for record in reader.records()]
    assert seqs == list(range(len(seqs)))
    assert reader.problems == []
    assert reader.status == "completed"


# -- processes


@pytest.mark.rule("BB-LAY-002")
def test_twenty_processes_with_one_name_in_one_second_get_twenty_directories(
    in_process: Callable[..., Any], tmp_path: Path
) -> None:
    assert in_process(start_twenty, tmp_path) == 0
    found = sorted(path for path in tmp_path.iterdir() if path.is_dir())
    assert len(found) == 20
    assert {open_run(path).metrics[0] for path in found} == {"loss"}
    assert sorted(next(open_run(path).records()).metrics["loss"] for path in found) == list(
        range(20)
    )
    assert len({open_run(path).id for path in found}) == 20


def start_twenty(folder: str) -> int:
    import os
    import time

    from blackboxml import Run

    moment = time.time()
    time.time = lambda: moment  # one second for all, whatever the machine's speed
    source, sink = os.pipe()
    children = []
    for number in range(20):
        if (pid := os.fork()) == 0:
            os.close(sink)
            os.read(source, 1)  # ends when the parent lets go
            with Run("same", log_dir=folder, environment=(), seal=False) as run:
                run.log({"loss": number})
            os._exit(0)
        children.append(pid)
    os.close(source)
    os.close(sink)
    return sum(os.waitpid(pid, 0)[1] for pid in children)


def resume_at_once(path: str, count: int) -> list[int]:
    import os

    from blackboxml.base import process
    from blackboxml.errors import RunIsLiveError
    from blackboxml.writer import RunWriter

    process.liveness = lambda *_: "unknown"  # as between two machines
    source, sink = os.pipe()
    answers, answer = os.pipe()
    children = []
    for number in range(count):
        if (pid := os.fork()) == 0:
            code = 1
            try:
                os.close(sink)
                os.read(source, 1)
                writer = RunWriter.resume(path)
                writer.log({"number": number})
                writer.finish()
                os.write(answer, bytes([writer.attempt]))
                code = 0
            except RunIsLiveError:
                code = 2
            finally:
                os._exit(code)
        children.append(pid)
    os.close(source)
    os.close(sink)
    os.close(answer)
    codes = [os.waitpid(pid, 0)[1] for pid in children]
    assert codes == [0] * count, codes
    return list(os.read(answers, 1000))


@pytest.mark.parametrize("round_", range(4))
def test_processes_that_resume_one_run_at_once_are_attempts_of_their_own(
    in_process: Callable[..., Any], tmp_path: Path, round_: int
) -> None:
    with Run("first", log_dir=tmp_path, environment=(), seal=False) as run:
        run.log({"number": -1})
    attempts = in_process(resume_at_once, run.path, 4)
    assert len(set(attempts)) == 4
    records = list(open_run(run.path).records())
    assert sorted(record.metrics["number"] for record in records) == [-1, 0, 1, 2, 3]
    assert len({record.attempt for record in records}) == 5


def test_a_reader_sees_every_record_of_a_live_writer_and_does_not_disturb_it(
    tmp_path: Path,
) -> None:
    run = Run("live", log_dir=tmp_path, environment=(), seal=False).start()
    seen: list[int] = []

    def read() -> None:
        seen.extend(record.step for record in open_run(run.path).follow(from_start=True, poll=0.01))

    thread = threading.Thread(target=read)
    thread.start()
    for step in range(3000):
        run.log({"loss": step / 3})
    run.finish()
    thread.join()
    assert seen == list(range(3000))


# -- fork


def fork_in_the_middle(said: list[str], folder: str, how: str) -> list[Any]:
    import json
    import os
    import sys

    from blackboxml import Run

    run = Run("forked", log_dir=folder, environment=(), config={"lr": 1}).start()
    run.log({"loss": 0.0})
    sys.stdout.flush()
    source, sink = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            before = os.stat(f"{run.path}/metrics.jsonl").st_size
            for _ in range(3):
                run.log({"loss": 9.0})
            run.log({"loss": float("nan")})
            run.rewind(0)
            run.describe("loss", unit="nat")
            run.log_config(lr=2)
            run.sync()
            run._writer._recorder.tick()
            run._writer._recorder.touch()
            if how == "finish":
                run.finish("failed")
            elif how == "with":
                run.__exit__(None, None, None)
            assert os.stat(f"{run.path}/metrics.jsonl").st_size == before
            os.write(sink, json.dumps(said).encode())
        except BaseException as error:
            os.write(sink, json.dumps([repr(error)]).encode())
            raise
        finally:
            if how != "sys.exit":
                os._exit(0)
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - the answer is the parent's
        sys.exit(0)
    os.close(sink)
    texts = b""
    while more := os.read(source, 65_536):
        texts += more
    run.log({"loss": 1.0})
    _, status = os.waitpid(pid, 0)
    run.log({"loss": 2.0})
    run.finish()
    return [str(run.path), json.loads(texts), status]


@pytest.mark.parametrize("how", ["os._exit", "finish", "with", "sys.exit"])
def test_a_forked_process_can_do_nothing_to_the_run_of_its_parent(
    in_process: Callable[..., Any], tmp_path: Path, how: str
) -> None:
    path, texts, status = in_process(fork_in_the_middle, tmp_path, how)
    assert len(texts) == 1, texts
    assert "begin a run of its own" in texts[0]
    assert status == 0
    reader = open_run(path)
    assert [record.metrics["loss"] for record in reader.records()] == [0.0, 1.0, 2.0]
    assert reader.status == "completed"
    assert reader.config == {"lr": 1}
    assert reader.manifest["generation"] == open_run(path).manifest["generation"]
    assert validate(path).ok


def fork_while_threads_log(folder: str) -> list[Any]:
    import os
    import threading

    from blackboxml import Run

    run = Run("forked", log_dir=folder, environment=(), seal=False).start()
    over = threading.Event()
    counts = [0, 0]

    def work(number: int) -> None:
        while not over.is_set():
            run.log({"loss": 0.5})
            counts[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    codes = []
    for _ in range(20):
        pid = os.fork()
        if pid == 0:
            run.log({"loss": 1.0})  # would wait for ever for a lock that a thread held
            run.sync()
            run.finish()
            own = Run("own", log_dir=f"{folder}/own", environment=(), seal=False).start()
            own.log({"loss": 2.0})
            own.finish()
            os._exit(0)
        codes.append(os.waitpid(pid, 0)[1])
    over.set()
    for thread in threads:
        thread.join()
    run.finish()
    return [str(run.path), sum(counts), codes]


def test_a_fork_beside_threads_that_log_locks_nothing_up(
    in_process: Callable[..., Any], tmp_path: Path
) -> None:
    path, count, codes = in_process(fork_while_threads_log, tmp_path)
    assert codes == [0] * 20
    assert steps(path) == list(range(count))
    assert len(list((tmp_path / "own").iterdir())) == 20


def work_with_processes(folder: str) -> list[Any]:
    import multiprocessing
    import os
    import signal

    from blackboxml import Run

    context = multiprocessing.get_context("fork")

    def load(queue: Any, run: Run) -> None:
        for item in range(3):
            run.log({"item": item})
            queue.put(item)

    def wait_for_ever(queue: Any) -> None:
        queue.put("ready")
        signal.pause()

    with Run("loader", log_dir=folder, environment=(), seal=False) as run:
        queue: Any = context.SimpleQueue()
        run.log({"loss": 0.0})
        loaders = [context.Process(target=load, args=(queue, run)) for _ in range(2)]
        for loader in loaders:
            loader.start()
        for _ in range(6):
            queue.get()
            run.log({"loss": 1.0})
        for loader in loaders:
            loader.join()
        waiting = context.Process(target=wait_for_ever, args=(queue,))
        waiting.start()
        queue.get()
        waiting.terminate()
        waiting.join()
        run.log({"loss": 2.0})
    return [str(run.path), [loader.exitcode for loader in loaders], waiting.exitcode, os.getpid()]


def test_workers_of_a_data_loader_come_and_go_and_are_terminated(
    in_process: Callable[..., Any], tmp_path: Path
) -> None:
    path, codes, terminated, _ = in_process(work_with_processes, tmp_path)
    assert codes == [0, 0]
    assert terminated == -signal.SIGTERM
    assert steps(path) == list(range(8))
    assert open_run(path).status == "completed"


# -- signals and exits

TRAIN = """\
import os, signal, sys
from blackboxml import Run
def main():
    {how}
    print("after", flush=True)
def wait():
    print(run.path, flush=True)
    signal.pause()
"""


def start(how: str, folder: Path) -> subprocess.Popen[str]:
    lines = how.strip().splitlines()
    body = "\n    ".join(["global run", *lines])
    return subprocess.Popen(
        [sys.executable, "-c", TRAIN.format(how=body) + "main()\n", os.fspath(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


WITH = """
with Run("s", log_dir=sys.argv[1], environment=()) as run:
    run.log({"loss": 0.5})
    wait()
"""
START = """
run = Run("s", log_dir=sys.argv[1], environment=()).start()
run.log({"loss": 0.5})
wait()
"""
FORGOTTEN = """
run = Run("s", log_dir=sys.argv[1], environment=()).start()
run.log({"loss": 0.5})
path, run = run.path, Run("other", log_dir=sys.argv[1], environment=())
print(path, flush=True)
signal.pause()
"""
TWO = """
first = Run("first", log_dir=sys.argv[1], environment=()).start()
run = Run("second", log_dir=sys.argv[1], environment=()).start()
first.finish()
wait()
"""


@pytest.mark.parametrize(
    ("how", "sealed"), [(WITH, True), (START, False), (FORGOTTEN, False), (TWO, False)]
)
def test_sigterm_ends_the_run_as_interrupted_and_the_process_with_143(
    tmp_path: Path, how: str, sealed: bool
) -> None:
    with start(how, tmp_path) as child:
        path = child.stdout.readline().strip()
        child.terminate()
        out, errors = child.communicate()
    assert (child.returncode, out, errors) == (143, "", "")
    reader = open_run(path)
    assert reader.status == "interrupted"
    assert reader.sealed is sealed
    assert reader.manifest["status"] == "interrupted"


def test_a_handler_of_the_user_stays_and_may_log_and_finish(tmp_path: Path) -> None:
    how = """
def handler(number, frame):
    run.log({"loss": 2.0})
    run.sync()
    run.finish("interrupted")
    os._exit(7)
signal.signal(signal.SIGTERM, handler)
with Run("s", log_dir=sys.argv[1], environment=()) as run:
    run.log({"loss": 0.5})
    wait()
"""
    with start(how, tmp_path) as child:
        path = child.stdout.readline().strip()
        child.terminate()
        child.communicate()
    assert child.returncode == 7
    assert open_run(path).status == "interrupted"
    assert steps(path) == [0, 1]


def test_the_handler_of_sigterm_is_given_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with (
        Run("outer", log_dir=tmp_path, environment=(), seal=False),
        Run("inner", log_dir=tmp_path, environment=(), seal=False),
    ):
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("ending", "status", "code"),
    [
        ("raise KeyboardInterrupt", "interrupted", -signal.SIGINT),
        ("sys.exit(0)", "completed", 0),
        ("sys.exit()", "completed", 0),
        ("sys.exit(3)", "failed", 3),
        ("raise ValueError('bad batch')", "failed", 1),
        ("os._exit(0)", "crashed", 0),
        ("os.kill(os.getpid(), signal.SIGKILL)", "crashed", -signal.SIGKILL),
        ("os.abort()", "crashed", -signal.SIGABRT),
    ],
)
def test_every_end_of_a_process_is_told_apart(
    tmp_path: Path, ending: str, status: str, code: int
) -> None:
    how = f"""
with Run("s", log_dir=sys.argv[1], environment=()) as run:
    print(run.path, flush=True)
    run.log({{"loss": 0.5}})
    {ending}
"""
    with start(how, tmp_path) as child:
        path = child.stdout.readline().strip()
        out, _ = child.communicate()
    assert (child.returncode, out) == (code, "")
    reader = open_run(path)
    assert reader.status == status
    assert steps(path) == [0]
    if status == "failed":
        assert reader.manifest["exception"]["type"] in {"SystemExit", "ValueError"}
    else:
        assert "exception" not in reader.manifest


def test_a_run_that_the_script_left_open_ends_as_interrupted(tmp_path: Path) -> None:
    how = """
run = Run("s", log_dir=sys.argv[1], environment=()).start()
print(run.path, flush=True)
run.log({"loss": 0.5})
run = None
"""
    with start(how, tmp_path) as child:
        path = child.stdout.readline().strip()
        _, errors = child.communicate()
    assert (child.returncode, errors) == (0, "")
    assert open_run(path).status == "interrupted"
    assert not open_run(path).sealed  # the interpreter cannot load the libraries any more


def storm(folder: str, interrupts: int, seed: int) -> list[Any]:
    """Interrupt a loop that logs, at random instants; every record has a number of its own."""
    import random
    import signal

    from blackboxml import Run

    random.seed(seed)
    run = Run("storm", log_dir=folder, environment=(), seal=False).start()
    writes = run._writer._recorder
    acknowledged = []
    number = came = 0
    armed = False

    def handler(*_: object) -> None:
        nonlocal came
        if armed:
            came += 1
            raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, handler)
    while came < interrupts:
        try:
            armed = True
            signal.setitimer(signal.ITIMER_REAL, random.random() * 1e-3 + 1e-6)
            while True:
                number += 1
                if number % 50 == 0:
                    writes._fail(OSError(5, "made up"))
                run.log({"number": number, "nan": float("nan") if number % 3 == 0 else 1.0})
                acknowledged.append(number)
                if number % 40 == 0:
                    run.sync()
        except KeyboardInterrupt:
            armed = False
    signal.setitimer(signal.ITIMER_REAL, 0)
    run.log({"number": number + 1, "nan": 0.0})
    run.finish()
    return [str(run.path), acknowledged, number + 1]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.rule("BB-JNL-020")
def test_interrupts_at_any_instant_lose_nothing_and_double_nothing(
    in_process: Callable[..., Any], tmp_path: Path, seed: int
) -> None:
    path, acknowledged, last = in_process(storm, tmp_path, 300, seed)
    reader = open_run(path)
    records = list(reader.records())
    assert [record.seq for record in records] == list(range(len(records)))
    numbers = [record.metrics["number"] for record in records]
    assert numbers == sorted(set(numbers))
    assert set(acknowledged) <= set(numbers)
    assert numbers[-1] == last
    assert reader.status == "completed"
    assert reader.problems == []


def log_in_handlers(folder: str, signals: int) -> list[Any]:
    """Log, sync and go on failing in the handler of a signal that comes while `log` runs."""
    import random
    import signal

    from blackboxml import Run

    random.seed(3)
    run = Run("handler", log_dir=folder, environment=(), seal=False).start()
    numbers = iter(range(10**9))
    came = 0

    def handler(*_: object) -> None:
        nonlocal came
        came += 1
        run.log({"handler": next(numbers)})
        if came % 7 == 0:
            run.sync()
        if came % 11 == 0:
            run._writer._recorder._fail(OSError(5, "made up"))
        signal.setitimer(signal.ITIMER_REAL, random.random() * 5e-4 + 1e-6)

    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 1e-4)
    count = 0
    while came < signals:
        run.log({"loop": count, "nan": float("nan") if count % 3 == 0 else 1.0})
        count += 1
        if count % 50 == 0:
            run.sync()
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    run.finish()
    return [str(run.path), count, next(numbers)]


def test_the_handler_of_a_signal_may_log_while_log_runs(
    in_process: Callable[..., Any], tmp_path: Path
) -> None:
    path, count, handled = in_process(log_in_handlers, tmp_path, 500)
    reader = open_run(path)
    records = list(reader.records())
    assert [record.seq for record in records] == list(range(count + handled))
    loop = [record.metrics["loop"] for record in records if "loop" in record.metrics]
    inside = [record.metrics["handler"] for record in records if "handler" in record.metrics]
    assert loop == list(range(count))
    assert inside == list(range(handled))
    assert reader.problems == []


def test_a_run_ended_by_a_second_interrupt_says_how_the_first_ended_it(tmp_path: Path) -> None:
    how = """
from blackboxml.base import files
sync = files.Directory.sync
def interrupted(self):
    files.Directory.sync = sync
    raise KeyboardInterrupt
with Run("s", log_dir=sys.argv[1], environment=()) as run:
    print(run.path, flush=True)
    run.log({"loss": 0.5})
    files.Directory.sync = interrupted
"""
    with start(how, tmp_path) as child:
        path = child.stdout.readline().strip()
        _, errors = child.communicate()
    assert child.returncode == -signal.SIGINT, errors
    reader = open_run(path)
    assert reader.status == "completed"
    assert json.loads((Path(path) / "run.json").read_text())["status"] == "completed"
    assert reader.problems == []
