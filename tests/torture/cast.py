"""Several processes at one run at once: each plays a part, and notes what it was told."""

from __future__ import annotations

import json
import os
import select
import signal
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from blackboxml import open_run, validate
from blackboxml.errors import (
    BlackboxError,
    LimitError,
    ManifestError,
    NotARunError,
    TableError,
    UnsupportedVersionError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from blackboxml.model import Record
    from blackboxml.reader import RunReader

Session = tuple[int, int, str]
"""Attempt, rank, and the metric that counts there."""

SECONDS: Final = 90.0
"""How long all of them may take before it counts as a hang."""

REFUSALS: Final = (NotARunError, ManifestError, UnsupportedVersionError, TableError, LimitError)
"""What `open_run` and the methods of a reader say that they raise."""


class HangError(Exception):
    """A process does not come to its end."""


class Note:
    """What one process says, in files of its own that survive it."""

    def __init__(self, folder: Path, name: str) -> None:
        """Begin with nothing."""
        self._folder = folder
        self._name = name

    def say(self, **members: Any) -> None:
        """Note something."""
        with (self._folder / f"{self._name}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(members) + "\n")

    def counter(self, attempt: int, rank: int, metric: str) -> Callable[[], None]:
        """Return what notes that the next record of a session was acknowledged."""
        name = f"{attempt}.{rank}.{metric.replace('/', '+')}.{self._name}.acknowledged"
        descriptor = os.open(self._folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return lambda: os.write(descriptor, b".") and None


class Stage:
    """What the processes share: a folder, and who of them is through.

    Attributes:
        folder: Where they work.
    """

    def __init__(self, folder: Path, acts: int) -> None:
        """Make a pipe for each act; it ends when the act does."""
        self.folder = folder
        self.notes = folder / "notes"
        self.notes.mkdir(parents=True)
        self._pipes = [os.pipe() for _ in range(acts)]

    def over(self, act: int, seconds: float = 0.0) -> bool:
        """Wait for the end of an act for so long; tell whether it came."""
        return bool(select.select([self._pipes[act][0]], [], [], seconds)[0])

    def leave(self) -> None:
        """Keep no act from its end, in a process that plays a part."""
        for _, sink in self._pipes:
            os.close(sink)

    def end(self, act: int) -> None:
        """Say that an act is over."""
        os.close(self._pipes[act][1])

    def close(self) -> None:
        """Close all that is left."""
        for source, _ in self._pipes:
            os.close(source)

    def run(self) -> Path:
        """Return the run directory, as soon as there is one that has a header."""
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            for path in sorted((self.folder / "runs").glob("*/metrics.jsonl")):
                if b"\n" in path.read_bytes():
                    return path.parent
            time.sleep(0.002)
        raise HangError("no run is there")


@dataclass(frozen=True, slots=True)
class Part:
    """One process.

    Attributes:
        name: Whose notes they are.
        play: What it does.
        act: In which act; those of a later one go on until those of the earlier ones are through.
    """

    name: str
    play: Callable[[Stage, Note], None]
    act: int = 0


@dataclass(slots=True)
class Told:
    """What all of them noted.

    Attributes:
        lines: By part.
        acknowledged: Records by session.
        killed: Parts that were killed.
        faults: What came out of one that must not.
    """

    lines: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    acknowledged: Counter[Session] = field(default_factory=Counter)
    killed: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def all(self, key: str) -> list[Any]:
        """Return what was noted under a name, by whomever."""
        return [line[key] for lines in self.lines.values() for line in lines if key in line]


def play(stage: Stage, parts: list[Part], acts: int) -> Told:
    """Let processes do their parts at once, and return what they noted.

    Raises:
        HangError: If they do not come to their ends.
    """
    begin, gate = os.pipe()
    children: dict[int, Part] = {}
    for part in parts:
        if (child := os.fork()) == 0:
            os.close(gate)
            stage.leave()
            os.read(begin, 1)
            _perform(part, stage)
        children[child] = part
    os.close(begin)
    os.close(gate)
    told = Told()
    until = time.monotonic() + SECONDS
    for act in range(acts):
        left = {child for child, part in children.items() if part.act == act}
        while left:
            left -= _reap(left, children, told)
            if left and time.monotonic() > until:
                for child in children:
                    _kill(child)
                raise HangError(", ".join(children[child].name for child in left))
            time.sleep(0.002)
        stage.end(act)
    stage.close()
    return _gather(stage, told)


def _reap(left: set[int], children: dict[int, Part], told: Told) -> set[int]:
    """Return those that have ended."""
    ended = set()
    for child in left:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            ended.add(child)
            code = os.waitstatus_to_exitcode(status)
            if code == -signal.SIGKILL:
                told.killed.append(children[child].name)
            elif code:
                told.faults.append(f"{children[child].name} ends with {code}")
    return ended


def _kill(child: int) -> None:
    try:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    except (ProcessLookupError, ChildProcessError):
        return


def _perform(part: Part, stage: Stage) -> None:
    """Play a part in this process, and end it."""
    note = Note(stage.notes, part.name)
    try:
        part.play(stage, note)
    except BaseException:  # noqa: BLE001 - it is the finding
        note.say(fault=traceback.format_exc())
        os._exit(1)
    os._exit(0)


def _gather(stage: Stage, told: Told) -> Told:
    """Add what stands in the notes."""
    for path in sorted(stage.notes.iterdir()):
        if path.suffix == ".acknowledged":
            attempt, rank, metric = path.name.split(".")[:3]
            session = (int(attempt), int(rank), metric.replace("+", "/"))
            told.acknowledged[session] += path.stat().st_size
        else:
            lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
            told.lines[path.stem] = lines
            told.faults += [f"{path.stem}: {line['fault']}" for line in lines if "fault" in line]
    return told


def aside(work: Callable[[], tuple[list[str], Counter[str]]]) -> tuple[list[str], dict[str, int]]:
    """Do something in a process of its own: what starts threads must not fork later.

    Returns:
        What is wrong, and what was counted.
    """
    source, sink = os.pipe()
    if (child := os.fork()) == 0:
        os.close(source)
        try:
            said: Any = work()
        except Exception:  # noqa: BLE001 - it is the finding
            said = [f"it raised {traceback.format_exc()}"], {}
        with os.fdopen(sink, "w") as file:
            json.dump(said, file)
        os._exit(0)
    os.close(sink)
    with os.fdopen(source) as file:
        text = file.read()
    status = os.waitpid(child, 0)[1]
    if not text:
        return [f"the process ends with {os.waitstatus_to_exitcode(status)}"], {}
    found, counts = json.loads(text)
    return found, counts


# -- what is counted


def count_up(records: Iterable[Record]) -> dict[Session, int]:
    """Return how far each metric `own` counts in each session.

    Raises:
        AssertionError: If one leaves out a number, or says one twice.
    """
    found: dict[Session, int] = {}
    last: dict[tuple[int, int], int] = {}
    for record in records:
        place = (record.attempt, record.rank)
        if record.seq <= last.get(place, -1):
            message = f"seq {record.seq} comes after {last[place]} in {place}"
            raise AssertionError(message)
        last[place] = record.seq
        for name, value in record.metrics.items():
            if name.endswith("own"):
                session = (*place, name)
                if value != found.get(session, 0):
                    message = f"{session} says {value} after {found.get(session, 0)} records"
                    raise AssertionError(message)
                found[session] = int(value) + 1
    return found


def lost(path: Path, told: Told) -> str | None:
    """Say what was acknowledged and is not there, or is not in order."""
    try:
        found = count_up(open_run(path).records("all"))
    except AssertionError as error:
        return str(error)
    for session, count in told.acknowledged.items():
        if found.get(session, 0) < count:
            return f"{count} records of {session} were acknowledged, {found.get(session)} are there"
    return None


# -- watchers


def follow(stage: Stage, note: Note) -> None:
    """Follow a run from its start to its end, and say how far each session came."""
    path = stage.run()
    count = 0

    def seen() -> Iterable[Record]:
        nonlocal count
        for record in open_run(path).follow(from_start=True, poll=0.003):
            count += 1
            yield record

    found = count_up(seen())
    note.say(followed=[[*session, value] for session, value in found.items()], records=count)


def read(stage: Stage, note: Note) -> None:
    """Read all of a run again and again; each answer counts up, each refusal is one of ours.

    When all others are done there is no reason left to refuse.
    """
    path = stage.run()
    answers = refusals = 0
    kept, ending = None, False
    while True:
        for fresh in (True, False):
            try:
                if fresh or kept is None:
                    kept = open_run(path)
                _ask(kept)
                answers += 1
            except (*REFUSALS, KeyError) as error:
                if ending:
                    note.say(damaged=f"it is refused in the end: {error!r}")
                refusals += 1
                note.say(refused=f"{type(error).__name__}: {error}")
        if ending:
            break
        ending = stage.over(0, 0.004)
    note.say(answers=answers, refusals=refusals)


def _ask(reader: RunReader) -> None:
    """Ask a reader for all there is."""
    assert reader.status in {"running", "completed", "interrupted", "crashed", "stale"}
    count_up(reader.records("all"))
    for group in reader.groups:
        reader.arrow(group)
    reader.summary()
    list(reader.media())
    list(reader.follow(timeout=0))


def check(stage: Stage, note: Note) -> None:
    """Validate a run again and again; it is never said to be damaged, but may be in motion."""
    path = stage.run()
    count, ending = 0, False
    while True:
        try:
            report = validate(path)
        except BlackboxError as error:
            note.say(refused=f"{type(error).__name__}: {error}")
        else:
            count += 1
            if report.verdict not in {"valid", "incomplete", "unreadable"}:
                said = "; ".join(str(problem) for problem in report.problems[:3])
                note.say(damaged=f"{report.verdict}: {said}")
        if ending:
            break
        ending = stage.over(0, 0.004)
    note.say(checked=count)
