"""A process that is killed at any instant loses nothing that `log` has acknowledged."""

from __future__ import annotations

import os
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from blackboxml import Run, open_run, validate
from blackboxml.errors import NotARunError
from blackboxml.seal import seal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def kill_many(folder: str, kills: int, sync: str) -> list[list[Any]]:
    """Kill writers at random instants; return the path, or None, and the records acknowledged."""
    import os
    import random
    import signal
    import time

    from blackboxml import Run

    random.seed(20_261_121)
    found = []
    for number in range(kills):
        log_dir = f"{folder}/{number}"
        source, sink = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                run = Run("killed", log_dir=log_dir, environment=(), seal=False, sync=sync).start()
                os.write(sink, b"!")
                for step in range(2_000):
                    run.log({"train/loss": step / 3, "step": step, "big": 2**60 + step})
                    os.write(sink, b".")
            finally:
                os._exit(1)
        os.close(sink)
        wanted = random.choice([0, 0, 1, 2, random.randrange(400)])
        said = b""
        while len(said) < wanted:
            said += os.read(source, wanted - len(said))
        until = time.perf_counter() + random.choice([0, random.random() * 2e-3])
        while time.perf_counter() < until:
            pass
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        while more := os.read(source, 65_536):
            said += more
        os.close(source)
        names = os.listdir(log_dir) if os.path.isdir(log_dir) else []
        assert len(names) <= 1
        found.append([f"{log_dir}/{names[0]}" if names else None, said.count(b".")])
    return found


@pytest.mark.parametrize(("kills", "sync"), [(300, "interval"), (60, "record")])
@pytest.mark.rule("BB-JNL-018")
def test_nothing_acknowledged_is_lost_by_a_kill(
    in_process: Callable[..., Any], tmp_path: Path, kills: int, sync: str
) -> None:
    for number, (place, acknowledged) in enumerate(in_process(kill_many, tmp_path, kills, sync)):
        if place is None or not any("metrics" in name for name in os.listdir(place)):
            assert acknowledged == 0
            continue
        try:
            reader = open_run(place)
        except NotARunError:  # killed before the header of the first journal
            assert acknowledged == 0
            continue
        records = list(reader.records())
        assert len(records) >= acknowledged
        assert [record.seq for record in records] == list(range(len(records)))
        assert [record.metrics for record in records] == [
            {"train/loss": step / 3, "step": step, "big": 2**60 + step}
            for step in range(len(records))
        ]
        assert not [problem for problem in reader.problems if problem.file != "run.json"]
        assert reader.status == "crashed"
        if number % 30 == 0:
            go_on_and_seal(place, len(records))


def go_on_and_seal(place: str, records: int) -> None:
    with Run("killed", resume=place) as run:
        assert run.attempt == 1
        run.log({"train/loss": 0.0})
    reader = open_run(run.path)
    assert reader.status == "completed"
    assert reader.sealed
    steps = [record.step for record in reader.records()]
    assert steps == list(range(records + 1))
    statuses = [attempt["status"] for attempt in reader.manifest["attempts"]]
    assert statuses == ["interrupted", "completed"]
    assert validate(run.path).ok


def test_a_killed_run_can_be_sealed_as_it_is(
    in_process: Callable[..., Any], tmp_path: Path
) -> None:
    for place, acknowledged in in_process(kill_many, tmp_path, 12, "interval"):
        if acknowledged:
            count = len(list(open_run(place).records()))
            seal(place)
            reader = open_run(place)
            assert reader.status == "interrupted"
            assert reader.arrow("train").num_rows == count
            assert validate(place).ok


def kill_and_resume(folder: str, kills: int) -> list[Any]:
    """Kill the attempts of one run one after another; return its path and the acknowledged."""
    import os
    import random
    import signal

    from blackboxml import Run

    random.seed(7)
    acknowledged = []
    for number in range(kills):
        source, sink = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                run = Run("often", log_dir=folder, resume=True, environment=(), seal=False).start()
                for value in range(10_000):
                    run.log({"attempt": number, "value": value})
                    os.write(sink, b".")
            finally:
                os._exit(1)
        os.close(sink)
        wanted = random.randrange(60)
        said = b""
        while len(said) < wanted:
            said += os.read(source, 4096)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        while more := os.read(source, 65_536):
            said += more
        os.close(source)
        acknowledged.append(len(said))
    (name,) = os.listdir(folder)
    return [f"{folder}/{name}", acknowledged]


def test_a_run_that_is_killed_and_resumed_again_and_again_keeps_every_attempt(
    in_process: Callable[..., Any], tmp_path: Path
) -> None:
    place, acknowledged = in_process(kill_and_resume, tmp_path, 40)
    reader = open_run(place)
    found: dict[int, list[int]] = {}
    for record in reader.records():
        found.setdefault(int(record.metrics["attempt"]), []).append(int(record.metrics["value"]))
    for number, count in enumerate(acknowledged):
        values = found.get(number, [])
        assert len(values) >= count
        assert values == list(range(len(values)))
    steps = [record.step for record in reader.records()]
    assert steps == list(range(len(steps)))
    attempts = [record.attempt for record in reader.records()]
    assert attempts == sorted(attempts)
    seal(place)
    assert validate(place).ok


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    with Run("cut", tags=["a"], log_dir=tmp_path, environment=(), seal=False) as run:
        run.describe("loss", unit="nat", description='emoji 🙂, "quotes" and 🧪')
        for step in range(5):
            run.log({"loss": float("nan") if step == 3 else step / 3, "train/é": step})
        run.rewind(3)
        run.log({"loss": 0.0})
    return run.path / "metrics.jsonl"


@pytest.mark.parametrize("zeros", [0, 3, 5000])
@pytest.mark.rule("BB-JNL-024")
def test_a_journal_cut_at_any_byte_gives_exactly_what_is_committed(
    journal: Path, zeros: int
) -> None:
    data = journal.read_bytes()
    whole = list(open_run(journal.parent).records("all"))
    lines = data.splitlines(keepends=True)
    ends = [sum(map(len, lines[: count + 1])) for count in range(len(lines))]
    points = [b'"metrics":' in line for line in lines]
    for cut in range(len(data), -1, -1):
        os.truncate(journal, cut)
        if zeros:
            os.truncate(journal, cut + zeros)
        reader = open_run(journal.parent)
        committed = sum(end <= cut and point for end, point in zip(ends, points, strict=True))
        assert repr(list(reader.records("all"))) == repr(whole[:committed])
        assert reader.problems == []
        assert reader.status in {"running", "completed"}


def test_a_cut_journal_alone_is_a_run_as_soon_as_its_header_is_whole(journal: Path) -> None:
    (journal.parent / "run.json").unlink()
    data = journal.read_bytes()
    header = data.index(b"\n") + 1
    for cut in (len(data), header + 1, header):
        os.truncate(journal, cut)
        assert open_run(journal.parent).name == "cut"
    for cut in range(header - 1, -1, -1):
        os.truncate(journal, cut)
        with pytest.raises(NotARunError):
            open_run(journal.parent)


def test_a_run_with_a_torn_tail_is_resumed_and_sealed(journal: Path) -> None:
    data = journal.read_bytes()
    last = data.rindex(b"\n", 0, -1)  # the end record goes, and half of the one before
    os.truncate(journal, last - 20)
    (journal.parent / "run.json").unlink()
    edit_process(journal.parent)
    with Run("cut", resume=journal.parent) as run:
        run.log({"loss": 1.0})
    reader = open_run(run.path)
    assert [record.step for record in reader.records()] == [0, 1, 2, 3]
    assert [record.step for record in reader.records("all")] == [0, 1, 2, 3, 4, 3]
    assert validate(run.path).ok


def edit_process(place: Path) -> None:
    """Make a journal say that another process wrote it, so that it may be resumed here."""
    from blackboxml.journal import decode, encode

    journal = place / "metrics.jsonl"
    header, _, rest = journal.read_bytes().partition(b"\n")
    document = decode(header)
    document.pop("crc")
    document["process"] |= {"pid": 2**22 - 1, "started": 1}
    journal.write_bytes(encode(document) + rest)


def test_attempts_are_in_order_of_their_journals(journal: Path) -> None:
    for _ in range(3):
        with Run("cut", resume=journal.parent, seal=False) as run:
            run.log({"loss": 1.0})
    attempts = [record.attempt for record in open_run(journal.parent).records()]
    assert all(earlier <= later for earlier, later in pairwise(attempts))
    assert set(attempts) == {0, 1, 2, 3}
