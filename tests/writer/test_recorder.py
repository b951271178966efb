"""What `log` takes, what it refuses, and in what state an interrupt leaves it."""

from __future__ import annotations

import contextlib
import decimal
import enum
import errno
import fractions
import gc
import logging
import math
import os
import sys
import types
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blackboxml import Run, open_run
from blackboxml.base.files import Directory
from blackboxml.base.process import identify
from blackboxml.errors import MetricError, RunStateError
from blackboxml.journal import decode, encode
from blackboxml.seal import seal
from blackboxml.seal.pack import pack
from blackboxml.writer import recorder
from blackboxml.writer.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def header(directory: Directory, ordinal: int, first_seq: int) -> dict[str, Any]:
    return {
        "format": {"name": "blackbox-journal", "version": "1.0", "features": []},
        "run": {"id": "0" * 32, "name": "r"},
        "rank": 0,
        "attempt": 0,
        "first_seq": first_seq,
        "time": 1.0,
        "process": identify(),
        "writer": {"name": "test", "version": "1"},
    }


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Recorder]]:
    made = []

    def begin(**options: Any) -> Recorder:
        directory = Directory(tmp_path)
        new = Recorder("the run", 0, lambda: directory, header, **options)
        new.begin()
        made.append(new)
        return new

    yield begin
    for each in made:
        each.close()


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the records of all journals, the later copy of each, by `seq`."""
    found: dict[int, dict[str, Any]] = {}
    for file in sorted(path.glob("metrics*.jsonl"), key=lambda file: (len(file.name), file.name)):
        if not (data := file.read_bytes()):
            continue  # the process was interrupted before it could write the header
        head, *records = [decode(line) for line in data.split(b"\n")[:-1]]
        expected = head["first_seq"]
        for record in records:
            assert record["seq"] == expected
            expected += 1
            earlier = found.get(record["seq"], record)
            assert earlier == record, "a copy differs"
            found[record["seq"]] = record
    assert sorted(found) == list(range(len(found)))
    return [found[seq] for seq in sorted(found)]


def metrics(path: Path) -> list[dict[str, Any]]:
    return [record["metrics"] for record in lines(path) if "metrics" in record]


def problems(path: Path) -> list[Any]:
    """Return what a reader finds, but for the manifest, which a recorder does not write."""
    reader = open_run(path)
    assert len(list(reader.records("all"))) == len(metrics(path))
    return [problem for problem in reader.problems if problem.file != "run.json"]


# -- values


class Colour(enum.IntEnum):
    RED = 3


class Ratio(float, enum.Enum):
    HALF = 0.5


class Odd(int):
    def __repr__(self) -> str:
        return "odd"


EXACT = [
    (0.1, 0.1),
    (-0.0, -0.0),
    (5e-324, 5e-324),
    (1.7976931348623157e308, 1.7976931348623157e308),
    (1e16, 1e16),
    (123456789012345680.0, 123456789012345680.0),
    (7, 7),
    (2**53 + 1, 2**53 + 1),
    (2**63 - 1, 2**63 - 1),
    (-(2**63), -(2**63)),
    (True, True),
    (False, False),
    (math.inf, math.inf),
    (-math.inf, -math.inf),
    (Colour.RED, 3),
    (Ratio.HALF, 0.5),
    (Odd(5), 5),
    (np.float16(0.1), 0.0999755859375),
    (np.float32(0.1), 0.10000000149011612),
    (np.float64(0.1), 0.1),
    (np.float64("-inf"), -math.inf),
    (np.longdouble(0.5), 0.5),
    (np.int8(-128), -128),
    (np.uint8(255), 255),
    (np.int64(2**63 - 1), 2**63 - 1),
    (np.uint64(2**63 - 1), 2**63 - 1),
    (np.bool_(True), True),
    (np.array(3.5), 3.5),
    (np.array(3, dtype=np.int16), 3),
    (np.array(True), True),
    (torch.tensor(0.25), 0.25),
    (torch.tensor(0.1, dtype=torch.float16), 0.0999755859375),
    (torch.tensor(0.5, dtype=torch.bfloat16), 0.5),
    (torch.tensor(2**60), 2**60),
    (torch.tensor(True), True),
    (torch.tensor(0.5, requires_grad=True), 0.5),
    (torch.tensor(2.0, requires_grad=True) * 3, 6.0),
    (torch.nn.Parameter(torch.tensor(1.5)), 1.5),
]


@pytest.mark.parametrize(("value", "stored"), EXACT, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("known", [False, True])
def test_a_number_of_any_origin_is_stored_exactly_with_its_type(
    make: Callable[..., Recorder], tmp_path: Path, value: Any, stored: Any, known: bool
) -> None:
    log = make().log
    if known:  # the second time, the short way is tried first
        log({"a": 0.0, "b": 1})
    log({"a": value, "b": 1})
    log({"a": 1.0, "b": 2})
    records = list(open_run(tmp_path).records())
    assert len(records) == 2 + known
    found = records[known].metrics["a"]
    assert (found, type(found)) == (stored, type(stored))
    assert math.copysign(1, found) == math.copysign(1, stored)
    assert records[known].metrics["b"] == 1


def test_nan_is_stored_as_nan(make: Callable[..., Recorder], tmp_path: Path) -> None:
    log = make().log
    for value in (math.nan, np.float32("nan"), torch.tensor(math.nan), np.array(math.nan)):
        log({"a": value, "b": 1.0})
    assert metrics(tmp_path) == [{"a": "NaN", "b": 1.0}] * 4
    assert all(math.isnan(record.metrics["a"]) for record in open_run(tmp_path).records())


REFUSED = [
    "0.5",
    b"0.5",
    None,
    1 + 2j,
    [1.0],
    (1.0,),
    {"a": 1.0},
    {1.0},
    object(),
    len,
    float,
    2**63,
    -(2**63) - 1,
    10**400,
    decimal.Decimal("0.5"),
    fractions.Fraction(1, 2),
    np.uint64(2**63),
    np.array([1.0]),
    np.array([1.0, 2.0]),
    np.array("text"),
    np.datetime64("2026-11-21"),
    np.timedelta64(1, "s"),
    np.complex64(1),
    torch.tensor([1.0]),
    torch.tensor(1j),
    types.SimpleNamespace(item=lambda: 1.0),
    np.ma.masked,
]


@pytest.mark.parametrize("value", REFUSED, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.rule("BB-JNL-015")
def test_what_cannot_be_stored_is_refused_by_name_and_harms_nothing(
    make: Callable[..., Recorder], tmp_path: Path, value: Any, known: bool
) -> None:
    log = make().log
    if known:
        log({"good": 0.5, "bad": 0.5})
    for _ in range(2):
        with pytest.raises(MetricError, match="'bad'"):
            log({"good": 0.5, "bad": value})
    log({"good": 1.5})
    records = lines(tmp_path)
    assert [record["seq"] for record in records] == list(range(1 + known))
    assert records[-1]["metrics"] == {"good": 1.5}
    assert records[-1]["step"] == known


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "empty"),
        (1, "no text"),
        (None, "no text"),
        (("a", "b"), "no text"),
        (b"a", "no text"),
        ("a\x00b", "U\\+0000"),
        ("a\nb", "U\\+000A"),
        ("a\x9fb", "U\\+009F"),
        ("\ud800", "U\\+D800"),
        ("/a", "begins or ends"),
        ("a/", "begins or ends"),
        ("/", "begins or ends"),
        ("x" * 10_000, "10000 bytes"),
        ("é" * 513, "1026 bytes"),
    ],
)
@pytest.mark.rule("BB-JNL-015")
def test_a_name_that_cannot_be_stored_is_refused(
    make: Callable[..., Recorder], tmp_path: Path, name: Any, reason: str
) -> None:
    log = make().log
    for _ in range(2):
        with pytest.raises(MetricError, match=reason):
            log({"good": 1.0, name: 1.0})
    log({"good": 2.0})
    assert metrics(tmp_path) == [{"good": 2.0}]


NAMES = [
    "🙂",
    "..",
    "../../etc/passwd",
    "a//b",
    "a b",
    " a ",
    "x" * 1024,
    "é" * 512,
    "%s",
    '"quoted"',
    "back\\slash",
    ":,{}[]",
    "NaN",
    "step",
    "\u2028",
    "\ufeff",
    "e\u0301",
]


@pytest.mark.parametrize("name", NAMES)
def test_any_other_name_comes_back_as_it_was(
    make: Callable[..., Recorder], tmp_path: Path, name: str
) -> None:
    log = make().log
    log({name: 1.0})
    log({name: 2})
    assert [record.metrics for record in open_run(tmp_path).records()] == [{name: 1.0}, {name: 2}]


@pytest.mark.parametrize("given", [None, 5, "loss", [("loss", 1.0)], {1.0}, object()])
def test_what_is_no_mapping_is_refused(
    make: Callable[..., Recorder], tmp_path: Path, given: Any
) -> None:
    log = make().log
    with pytest.raises(MetricError, match="takes a mapping"):
        log(given)
    log({})
    assert metrics(tmp_path) == [{}]


def test_a_mapping_that_is_no_dict_is_taken(make: Callable[..., Recorder], tmp_path: Path) -> None:
    class Own(dict[str, float]):
        pass

    log = make().log
    for _ in range(2):
        log(types.MappingProxyType({"a": 1.0}))
        log(Own(a=2.0))
    assert metrics(tmp_path) == [{"a": 1.0}, {"a": 2.0}] * 2


def test_a_record_with_too_many_metrics_is_refused_by_each_path(
    make: Callable[..., Recorder], tmp_path: Path
) -> None:
    log = make().log
    first = {f"a{number}": number for number in range(6000)}
    second = {f"b{number}": number for number in range(6000)}
    with pytest.raises(MetricError, match="limit of 10,000"):
        log({str(number): 1.0 for number in range(100_000)})
    log(first)
    log(second)
    with pytest.raises(MetricError, match="limit of 10,000"):
        log(first | second)  # all names are known by now
    log({"a1": 0.5})
    assert [len(each) for each in metrics(tmp_path)] == [6000, 6000, 1]
    assert len(list(open_run(tmp_path).records())) == 3


def test_a_record_longer_than_a_line_may_be_is_refused(
    make: Callable[..., Recorder], tmp_path: Path
) -> None:
    log = make().log
    half = [{f"{side}{number}" + "x" * 200: 1.0 for number in range(3000)} for side in "ab"]
    log(half[0])
    log(half[1])
    with pytest.raises(MetricError, match="1,048,576"):
        log(half[0] | half[1])
    log({"a": 1.0})
    assert len(list(open_run(tmp_path).records())) == 3


def test_a_run_has_a_bounded_number_of_names(
    make: Callable[..., Recorder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from blackboxml.journal import metric
    from blackboxml.model import Limits

    monkeypatch.setattr(metric, "LIMITS", Limits(metric_names=3))
    log = make().log
    log({"a": 1, "b": 1, "c": 1})
    with pytest.raises(MetricError, match="put what varies into the step"):
        log({"a": 1, "d": 1})
    log({"a": 2})
    assert metrics(tmp_path) == [{"a": 1, "b": 1, "c": 1}, {"a": 2}]


def test_a_dict_that_changes_later_changes_nothing(
    make: Callable[..., Recorder], tmp_path: Path
) -> None:
    log = make().log
    values: dict[str, Any] = {"a": 1.0, "t": torch.zeros(()), "n": np.array(0.0)}
    for number in range(3):
        values["a"] = number
        values["t"] += 1
        values["n"] += 1
        log(values)
    values.clear()
    assert metrics(tmp_path) == [{"a": n, "t": n + 1.0, "n": n + 1.0} for n in range(3)]


def test_nothing_of_the_caller_is_kept_alive(make: Callable[..., Recorder]) -> None:
    log = make().log
    log({"loss": 1.0})
    loss = (torch.ones((), requires_grad=True) * 2).exp()
    seen = weakref.ref(loss)
    log({"loss": loss})
    del loss
    gc.collect()
    assert seen() is None


def test_ranks_are_checked_like_metrics(make: Callable[..., Recorder], tmp_path: Path) -> None:
    log = make().log
    log({"a": 1.0}, ranks={"a": {"mean": np.float32(0.5), "max": math.inf, "count": 4}})
    wrong: list[Any] = [{"a": {}}, {"a": {"median": 1}}, {"a": {"mean": "x"}}, {"a": 5}, 5]
    for ranks in wrong:
        with pytest.raises(MetricError, match="ranks"):
            log({"a": 1.0}, ranks=ranks)
    (record,) = open_run(tmp_path).records()
    assert record.ranks == {"a": {"mean": 0.5, "max": math.inf, "count": 4}}


# -- steps


@pytest.mark.rule("BB-MRG-013")
def test_an_automatic_step_goes_on_after_the_last(
    make: Callable[..., Recorder], tmp_path: Path
) -> None:
    log = make().log
    log({"a": 1.0})
    log({"a": 1.0}, 10)
    log({"a": 1.0})
    log({"a": 1.0}, step=np.int32(5))
    log({"a": math.nan})
    log({"a": 1.0}, -7)
    log({"a": 1.0})
    assert [record["step"] for record in lines(tmp_path)] == [0, 10, 11, 5, 6, -7, -6]


@pytest.mark.parametrize("step", [1.0, 1.5, True, "1", 2**63, -(2**63) - 1, np.float32(1)])
def test_a_step_that_is_no_step_is_refused(
    make: Callable[..., Recorder], tmp_path: Path, step: Any
) -> None:
    log = make().log
    log({"a": 0.0})
    with pytest.raises(MetricError, match="step"):
        log({"a": 1.0}, step)
    log({"a": 2.0})
    assert [record["step"] for record in lines(tmp_path)] == [0, 1]


def test_there_is_no_automatic_step_beyond_int64(
    make: Callable[..., Recorder], tmp_path: Path
) -> None:
    log = make().log
    log({"a": 0.0}, 2**53 - 1)
    log({"a": 0.0})
    log({"a": 0.0})
    log({"a": 0.0}, 2**63 - 2)
    log({"a": 0.0})
    for value in (0.5, math.nan):
        with pytest.raises(MetricError, match="give the step"):
            log({"a": value})
    log({"a": 1.0}, 3)
    steps = [record.step for record in open_run(tmp_path).records()]
    assert steps == [2**53 - 1, 2**53, 2**53 + 1, 2**63 - 2, 2**63 - 1, 3]


# -- round trip

VALUES = (
    st.floats(allow_nan=True, allow_infinity=True)
    | st.integers(-(2**63), 2**63 - 1)
    | st.booleans()
    | st.floats(width=32).map(np.float32)
    | st.integers(-128, 127).map(np.int8)
)
KEYS = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=12).filter(
    lambda name: not name.startswith("/") and not name.endswith("/")
)


def plain(value: Any) -> tuple[type, str]:
    number = value.item() if isinstance(value, np.generic) else value
    return type(number), repr(number)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.dictionaries(KEYS, VALUES, max_size=6), max_size=6))
def test_whatever_is_logged_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, given_: list[dict[str, Any]]
) -> None:
    with Run(
        "round", log_dir=tmp_path_factory.mktemp("r"), environment=(), sync="none", seal=False
    ) as run:
        for each in given_:
            run.log(each)
    wanted = [{name: plain(value) for name, value in each.items()} for each in given_]

    def found() -> list[dict[str, Any]]:
        return [
            {name: plain(value) for name, value in record.metrics.items()}
            for record in open_run(run.path).records()
        ]

    assert found() == wanted
    seal(run.path)
    assert found() == wanted
    assert open_run(run.path).problems == []
    pack(run.path)
    # A table has one type for a metric, so of a mixed one the number remains and not the type.
    packed = [record.metrics for record in open_run(run.path).records()]
    assert [floats(each) for each in packed] == [floats(each) for each in given_]


def floats(values: dict[str, Any]) -> dict[str, str]:
    return {name: repr(float(value)) for name, value in values.items()}


# -- interrupts


class Interrupter:
    """Does something after the nth call that a recorder makes, as a signal may have it done.

    CPython runs the handlers of signals after calls, and nowhere else in straight code. A signal
    that is sent comes at an instant that no test can choose, so its effect is put there.
    """

    NAMES = ("_dumps", "_now", "_write", "_datasync", "crc32", "encode", "write_all", "read_last")
    OS = ("write", "fstat", "pread", "dup", "close", "fsync", "open", "listdir")

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        self.at = -1
        self.act: Callable[[], None] = lambda: None
        self.broken: set[str] = set()
        for name in self.NAMES:
            monkeypatch.setattr(recorder, name, self._wrap(name, getattr(recorder, name)))
        double = types.SimpleNamespace(**vars(os))
        for name in self.OS:
            setattr(double, name, self._wrap(name, getattr(os, name)))
        monkeypatch.setattr(recorder, "os", double)
        monkeypatch.setattr(recorder, "RETRY_SECONDS", 0.0)

    def _wrap(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            if name in self.broken:
                self.broken.discard(name)
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            result = function(*arguments, **options)
            self.calls += 1
            if self.calls == self.at:
                self.at = -1
                self.act()
            return result

        return wrapped


def scenario(
    log: Callable[[dict[str, Any]], None], new: Recorder, interrupter: Interrupter
) -> None:
    """Take a recorder through every kind of trouble."""
    for number in range(3):
        log({"n": number, "f": 0.5})
    log({"n": 3, "f": math.nan})
    new.sync()
    interrupter.broken.add("_write")
    log({"n": 4, "f": 0.5})
    log({"n": 5, "f": 0.5})
    interrupter.broken.update(["_write", "write"])
    log({"n": 6, "f": math.nan})
    log({"n": 7, "f": 0.5})
    new.event({"describe": {"metric": "n", "unit": "1"}})
    interrupter.broken.add("_datasync")
    new.sync()
    new.tick()
    log({"n": 8, "f": 0.5})
    interrupter.broken.update(["fsync", "_write", "write_all"])
    log({"n": 9, "f": 0.5})
    new.sync()


def calls_of_the_scenario(make: Callable[..., Recorder], monkeypatch: pytest.MonkeyPatch) -> int:
    with monkeypatch.context() as patch:
        interrupter = Interrupter(patch)
        new = make(sync="none")
        interrupter.calls = 0
        scenario(new.log, new, interrupter)
        return interrupter.calls


PARTS = 4


@pytest.mark.parametrize("part", range(PARTS))
def test_an_interrupt_after_any_call_loses_nothing_and_doubles_nothing(
    make: Callable[..., Recorder],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    part: int,
) -> None:
    total = calls_of_the_scenario(make, monkeypatch)
    assert total > 60
    for at in range(1 + part, total + 1, PARTS):
        path = tmp_path_factory.mktemp("i")
        with monkeypatch.context() as patch:
            interrupter = Interrupter(patch)
            directory = Directory(path)
            new = Recorder("the run", 0, lambda d=directory: d, header, sync="none")
            new.begin()
            acknowledged = []

            def interrupt() -> None:
                raise KeyboardInterrupt

            def log(values: dict[str, Any], new: Recorder = new, done: Any = acknowledged) -> None:
                new.log(values)
                done.append(values["n"])

            interrupter.calls, interrupter.at, interrupter.act = 0, at, interrupt
            with contextlib.suppress(KeyboardInterrupt):
                scenario(log, new, interrupter)
            interrupter.broken.clear()
            log({"n": 100, "f": 0.5})
            log({"n": 101, "f": math.nan})
            new.event({"end": {"status": "completed"}})
            new.close()
        assert new.complete
        assert new.lost == 0
        numbers = [each["n"] for each in metrics(path)]
        assert numbers == sorted(set(numbers)), at
        assert set(acknowledged) <= set(numbers), at
        assert lines(path)[-1]["end"] == {"status": "completed"}
        assert problems(path) == []


@pytest.mark.parametrize("part", range(PARTS))
def test_a_signal_handler_that_logs_after_any_call_gets_a_place_of_its_own(
    make: Callable[..., Recorder],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    part: int,
) -> None:
    total = calls_of_the_scenario(make, monkeypatch)
    for at in range(1 + part, total + 1, PARTS):
        path = tmp_path_factory.mktemp("h")
        with monkeypatch.context() as patch:
            interrupter = Interrupter(patch)
            directory = Directory(path)
            new = Recorder("the run", 0, lambda d=directory: d, header, sync="none")
            new.begin()

            def handle(new: Recorder = new) -> None:
                new.log({"h": 1, "f": 0.5})
                new.sync()
                new.log({"h": 2, "f": math.nan})

            interrupter.calls, interrupter.at, interrupter.act = 0, at, handle
            scenario(new.log, new, interrupter)
            interrupter.broken.clear()
            new.event({"end": {"status": "completed"}})
            new.close()
        assert new.complete
        numbers = [each["n"] for each in metrics(path) if "n" in each]
        assert numbers == list(range(10)), at
        assert [each["h"] for each in metrics(path) if "h" in each] == [1, 2], at
        assert problems(path) == []


def test_a_line_that_an_interrupt_tore_is_written_again_elsewhere(
    make: Callable[..., Recorder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = make(sync="none")
    new.log({"n": 0})

    def tear(descriptor: int, line: bytes) -> int:
        os.write(descriptor, line[:30])
        raise KeyboardInterrupt

    monkeypatch.setattr(recorder, "_write", tear)
    with pytest.raises(KeyboardInterrupt):
        new.log({"n": 1})
    monkeypatch.setattr(recorder, "_write", os.write)
    new.log({"n": 2})
    assert [each["n"] for each in metrics(tmp_path)] == [0, 1, 2]
    assert (tmp_path / "metrics.jsonl").read_bytes().count(b"\n") == 2


# -- durability


def test_each_record_is_synced_before_log_returns_if_that_is_wanted(
    make: Callable[..., Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    real = recorder._datasync

    def count(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_size)
        real(descriptor)

    monkeypatch.setattr(recorder, "_datasync", count)
    new = make(sync="record")
    for number in range(3):
        new.log({"n": number})
        new.log({"n": math.nan})
    new.event({"describe": {"metric": "n"}})
    assert len(synced) == 7
    assert synced == sorted(set(synced))
    assert synced[-1] == os.fstat(new._fd).st_size
    assert new._unsynced == []


def test_a_sync_covers_what_was_logged_before_and_costs_nothing_twice(
    make: Callable[..., Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(recorder, "_datasync", calls.append)
    new = make()
    for number in range(10):
        new.log({"n": number})
    assert calls == []
    assert len(new._unsynced) == 10
    assert new.tick()
    assert len(calls) == 1
    assert new._unsynced == new._syncing == []
    assert not new.tick()
    assert len(calls) == 1


def test_a_sync_mode_that_there_is_not_is_refused(make: Callable[..., Recorder]) -> None:
    with pytest.raises(ValueError, match='wanted "interval"'):
        make(sync="always")


def test_memory_stays_bounded_where_nothing_is_synced(
    make: Callable[..., Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "BACKLOG_BYTES", 100_000)
    new = make(sync="none")
    for _ in range(20_000):
        new.log({"loss": 0.5})
    new.tick()
    assert sum(map(len, new._unsynced)) <= 200_000


def test_a_heartbeat_is_the_time_of_the_journal(
    make: Callable[..., Recorder], tmp_path: Path
) -> None:
    new = make()
    journal = tmp_path / "metrics.jsonl"
    os.utime(journal, (1, 1))
    new.touch()
    assert journal.stat().st_mtime > 1


# -- end


def test_nothing_is_recorded_after_the_end(make: Callable[..., Recorder], tmp_path: Path) -> None:
    new = make()
    new.log({"n": 0})
    new.event({"end": {"status": "completed"}})
    new.event({"end": {"status": "failed"}})  # the first word counts
    for late in (
        lambda: new.log({"n": 1}),
        lambda: new.log({"n": math.nan}),
        lambda: new.event({"rewind": {"step": 0}}),
    ):
        with pytest.raises(RunStateError, match="has ended"):
            late()
    new.close()
    with pytest.raises(RunStateError, match="has ended"):
        new.log({"n": 1})
    new.sync()
    new.tick()
    new.touch()
    new.close()
    assert [record.get("end") for record in lines(tmp_path)] == [None, {"status": "completed"}]


def test_the_end_is_kept_where_its_journal_fails(
    make: Callable[..., Recorder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = make(sync="none")
    new.log({"n": 0})
    new.event({"end": {"status": "completed"}})

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(recorder, "_datasync", fail)
        new.sync()
    with pytest.raises(RunStateError, match="has ended"):
        new.log({"n": 1})
    new.close()
    assert new.complete
    assert [record.get("end") for record in lines(tmp_path)] == [None, {"status": "completed"}]
    assert (tmp_path / "metrics.1.jsonl").exists()
    assert open_run(tmp_path).status == "completed"


@pytest.mark.rule("BB-JNL-017")
def test_a_journal_name_that_is_taken_is_left_alone(
    make: Callable[..., Recorder], tmp_path: Path
) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b"")
    (tmp_path / "metrics.3.jsonl").write_bytes(encode({"a": 1}))
    make().log({"n": 0})
    assert (tmp_path / "metrics.jsonl").read_bytes() == b""
    assert (tmp_path / "metrics.4.jsonl").read_bytes().count(b"\n") == 2


def test_a_warning_comes_once_for_a_trouble_and_again_for_the_next(
    make: Callable[..., Recorder], tmp_path: Path, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(recorder, "RETRY_SECONDS", 0.0)
    new = make(sync="none")
    for _ in range(2):
        with monkeypatch.context() as patch:

            def fail(*_: object, **__: object) -> int:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            patch.setattr(recorder, "_write", fail)
            patch.setattr(recorder, "write_all", fail)
            for number in range(10):
                new.log({"n": number})
            assert new.degraded
        new.log({"n": 10})
        assert not new.degraded
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert len(metrics(tmp_path)) == 22


def test_a_file_system_that_counts_no_links_is_not_taken_for_deleted(
    make: Callable[..., Recorder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fstat

    def without_links(descriptor: int) -> Any:
        status = real(descriptor)
        return types.SimpleNamespace(st_nlink=0, st_size=status.st_size)

    double = types.SimpleNamespace(**vars(os))
    double.fstat = without_links
    monkeypatch.setattr(recorder, "os", double)
    new = make(sync="none")
    new.log({"n": 0})
    new.sync()
    new.tick()
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_logging_costs_the_same_after_a_hundred_thousand_steps(
    make: Callable[..., Recorder],
) -> None:
    """The work of a call, counted in Python calls and not in time, does not grow."""
    new = make(sync="none")

    def calls() -> int:
        count = 0

        def profile(*_: object) -> None:
            nonlocal count
            count += 1

        sys.setprofile(profile)
        try:
            new.log({"loss": 0.5})
        finally:
            sys.setprofile(None)
        return count

    new.log({"loss": 0.5})
    young = calls()
    for _ in range(100_000):
        new.log({"loss": 0.5})
    assert calls() == young
