"""What a process is at when it is killed, or the file system fails it, and what must hold then.

A scenario has three parts. `prepare` makes the folder that each trial begins with. `act` works in
it, in a process that may be killed at any instant, and says through a pipe what was acknowledged to
it. `check` looks at what is left, in another process, and returns what is wrong, or None.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from blackboxml import Run, open_run, validate
from blackboxml.base import npy
from blackboxml.errors import BlackboxError, NotARunError
from blackboxml.validation import Report
from tests.torture import catalogues, foreign

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Say = Callable[[bytes], None]

RECORD: Final = b"."
"""A record was acknowledged as written."""
MEDIUM: Final = b"m"
"""A medium was acknowledged as written."""
DONE: Final = b"D"
"""The whole work was acknowledged."""

NAME: Final = "tortured"
RECORDS: Final = 80
"""How many records a process logs that nothing stops."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a process was told before its end.

    Attributes:
        records: Records that were acknowledged.
        media: Media that were acknowledged.
        done: Whether all of the work was.
        warned: Whether the library warned.
        raised: What came out of the library, or an empty text.
        failing: Whether the file system failed, if only once.
        lasting: Whether it went on failing to the end.
    """

    records: int = 0
    media: int = 0
    done: bool = False
    warned: bool = False
    raised: str = ""
    failing: bool = False
    lasting: bool = False


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of work.

    Attributes:
        prepare: Makes what is there before.
        act: Does the work in a folder, and says what was acknowledged.
        check: Says what is wrong with a folder, given what was said.
        trains: Whether this is a training, out of which nothing may be raised.
    """

    prepare: Callable[[Path], None]
    act: Callable[[Path, Say], None]
    check: Callable[[Path, Said], str | None]
    trains: bool = False


# -- what is logged


def point(step: int) -> dict[str, Any]:
    """Return the metrics of a step: two groups, all types, values that are no numbers."""
    metrics: dict[str, Any] = {"train/loss": step / 3, "big": 2**60 + step}
    if step % 7 == 0:
        metrics["train/loss"] = math.nan if step % 2 else math.inf
    if step % 5 == 0:
        metrics["eval/ok"] = step % 2 == 0
    return metrics


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tell whether metrics are equal in name, type and value; NaN equals NaN."""
    return {key: (type(value), repr(value)) for key, value in one.items()} == {
        key: (type(value), repr(value)) for key, value in other.items()
    }


def log_some(run: Run, count: int, say: Say, first: int = 0) -> None:
    """Log records, and say of each that `log` has returned."""
    for step in range(first, first + count):
        run.log(point(step), step=step)
        say(RECORD)


def start(folder: Path, **options: Any) -> Run:
    """Start a run in a folder; none of what it says of the machine is asked for."""
    return Run(NAME, log_dir=folder / "runs", environment=(), **options).start()


def the_run(folder: Path) -> Path | None:
    """Return the only run of a folder, or None if there is none."""
    place = folder / "runs"
    found = sorted(path for path in place.iterdir() if path.is_dir()) if place.is_dir() else []
    if len(found) > 1:
        message = f"{len(found)} directories where one run was written"
        raise AssertionError(message)
    return found[0] if found else None


# -- what must hold


def check_readable(path: Path, least: int, *, first: int = 0, gaps: bool = False) -> str | None:
    """Say what is wrong with the records of a run: too few, others, or not in order."""
    records = list(open_run(path).records())
    if len(records) < least:
        return f"{least} records were acknowledged, {len(records)} are there"
    for place, record in enumerate(records, first):
        step = record.step if gaps else place
        if record.step != step or not same(record.metrics, point(step)):
            return f"record {place} is step {record.step} with {record.metrics}"
    return None


def check_verdict(path: Path, *allowed: str) -> str | None:
    """Say what is wrong with what the validator makes of a run."""
    report = validate(path)
    if isinstance(report, Report) and report.verdict in allowed:
        return None
    return f"found {report.verdict}, wanted {' or '.join(allowed)}: " + "; ".join(
        str(problem) for problem in report.problems[:3]
    )


def check_sealable(path: Path) -> str | None:
    """Seal a run that was left as it is, and say what is wrong with it then."""
    from blackboxml.seal import seal

    before = [(record.step, repr(record.metrics)) for record in open_run(path).records()]
    seal(path)
    after = [(record.step, repr(record.metrics)) for record in open_run(path).records()]
    if before != after:
        return f"sealing made {len(after)} records of {len(before)}"
    return check_verdict(path, "valid")


def first_fault(*checks: Callable[[], str | None]) -> str | None:
    """Return what the first check that finds something says."""
    return next((fault for check in checks if (fault := check()) is not None), None)


def check_training(folder: Path, said: Said, least: int, *, first: int = 0) -> str | None:
    """Check a run that was being written: all that was acknowledged is there, and it can be sealed.

    Where the file system goes on failing, what was acknowledged may be lost with the process, but
    not without a warning, and not in a run that says that it is whole.
    """
    path = the_run(folder)
    lossy = said.lasting and said.warned
    try:
        reader = open_run(path) if path is not None else None
    except NotARunError:  # not one line was written whole
        reader = None
    if path is None or reader is None:
        return "the run is gone" if least and not lossy else None
    if reader.status not in {"crashed", "interrupted", "completed"}:
        return f"the status is {reader.status}"
    if lossy and reader.status == "completed" and check_readable(path, least, first=first):
        return "a run that lost records says that it is completed"
    return first_fault(
        lambda: check_readable(path, 0 if lossy else least, first=first, gaps=lossy),
        lambda: check_verdict(path, "valid", "incomplete"),
        lambda: check_sealable(path),
    )


def nothing(folder: Path) -> None:
    """Prepare nothing."""
    folder.mkdir(parents=True, exist_ok=True)


# -- training


def act_log(folder: Path, say: Say) -> None:
    """Log into a run that is not sealed."""
    run = start(folder, seal=False, config={"lr": 0.1})
    log_some(run, RECORDS, say)
    run.finish()


def act_finish(folder: Path, say: Say) -> None:
    """Log a little, and seal."""
    run = start(folder)
    log_some(run, 12, say)
    run.finish()
    say(DONE)


def act_rotate(folder: Path, say: Say) -> None:
    """Log while every third sync fails, so that one journal after another is left."""
    from blackboxml.writer import recorder

    genuine, calls = recorder._sync_data, [0]

    def fail(descriptor: int) -> None:
        calls[0] += 1
        if calls[0] % 3 == 0:
            raise OSError(5, "the disk fails")
        genuine(descriptor)

    recorder._sync_data = fail
    run = start(folder, seal=False)
    for first in range(0, RECORDS, 10):
        log_some(run, 10, say, first)
        run.sync()
    run.finish()


GIVEN: Final = {"lr": 0.1}
"""The configuration of a run that is gone on with."""


def prepare_resume(folder: Path) -> None:
    """Leave a run that was interrupted after forty records."""
    run = start(folder, seal=False, config=GIVEN)
    log_some(run, 40, bytes)
    run.finish("interrupted")


def prepare_resume_sealed(folder: Path) -> None:
    """Leave a sealed run of forty records."""
    run = start(folder, config=GIVEN)
    log_some(run, 40, bytes)
    run.finish("interrupted")


def act_resume(folder: Path, say: Say) -> None:
    """Go on with the run, and seal it."""
    try:
        run = Run(NAME, resume=_only(folder), environment=()).start()
    except (BlackboxError, OSError):
        return  # what cannot be read cannot be gone on with
    run.log_config(seed=1)
    log_some(run, 60, say, first=40)
    run.finish()
    say(DONE)


def check_resumed(folder: Path, said: Said) -> str | None:
    """Check a run that was gone on with, and that its configuration was added to."""
    if (fault := check_training(folder, said, 40 + said.records)) is not None:
        return fault
    config = open_run(_only(folder)).config
    wanted = GIVEN | ({"seed": 1} if said.done and not said.warned else {})
    return None if config.items() >= wanted.items() else f"the configuration is {config}"


def log_series(run: Run) -> None:
    """Log three arrays, which are a variable of a sealed run's dataset."""
    for step in range(3):
        run.log_array("train/weights", np.full(4, step), step=step)


def check_series(path: Path) -> str | None:
    """Check that the arrays are in the record, and in the dataset of a run that has one."""
    import h5py

    reader = open_run(path)
    found = [npy.read_array(reader.load(medium))[0] for medium in reader.media()]
    if found != [0, 1, 2]:
        return f"the arrays are {found}"
    if not reader.sealed or reader.packed:
        return None
    with h5py.File(path / "train.h5") as file:
        return None if "weights" in file else "the arrays are not in the dataset"


def act_media(folder: Path, say: Say) -> None:
    """Log media in files and in the record."""
    from blackboxml.writer import RunWriter

    writer = RunWriter.create(folder / "runs", NAME)
    for step in range(40):
        writer.log(point(step), step)
        say(RECORD)
        writer.log_media("train/text", "text", step, value=f"step {step}")
        say(MEDIUM)
        writer.log_media("train/blob", "artifact", step, data=bytes([step]) * 10_000)
        say(MEDIUM)
    writer.finish("completed")


def check_media(folder: Path, said: Said) -> str | None:
    """Check the metrics, and that each medium that was acknowledged is there and whole.

    One whose file could not be written is left out with a warning.
    """
    path = the_run(folder)
    found = 0
    with contextlib.suppress(NotARunError):
        reader = open_run(path) if path is not None else None
        for record in reader.media() if reader is not None else ():
            assert reader is not None
            text = record.kind == "text"
            given = record.value if text else reader.load(record)
            if given != (f"step {record.step}" if text else bytes([record.step]) * 10_000):
                return f"the {record.kind} of step {record.step} is not what was logged"
            found += 1
    if found < said.media and not said.warned:
        return f"{said.media} media were acknowledged, {found} are there"
    return check_training(folder, said, said.records)


# -- tools


def prepare_sealing(folder: Path) -> None:
    """Leave a run that was completed and not sealed."""
    run = start(folder, seal=False, config={"lr": 0.1})
    log_some(run, 60, bytes)
    log_series(run)
    run.finish()


def prepare_packing(folder: Path) -> None:
    """Leave a sealed run."""
    run = start(folder, config={"lr": 0.1})
    log_some(run, 60, bytes)
    log_series(run)
    run.finish()


def prepare_unpacking(folder: Path) -> None:
    """Leave a packed run."""
    prepare_packing(folder)
    act_pack(folder, bytes)


def act_seal(folder: Path, say: Say) -> None:
    """Seal, or unpack, the run."""
    from blackboxml.seal import seal

    seal(_only(folder))
    say(DONE)


def act_pack(folder: Path, say: Say) -> None:
    """Pack the run."""
    from blackboxml.seal.pack import pack

    pack(_only(folder))
    say(DONE)


def check_kept(folder: Path, said: Said) -> str | None:
    """Check that a run has all its records, and can be sealed."""
    path = _only(folder)
    wanted = ("valid",) if said.done else ("valid", "incomplete")
    return first_fault(
        lambda: check_readable(path, 60),
        lambda: check_series(path),
        lambda: check_verdict(path, *wanted),
        lambda: check_sealable(path),
    )


DAMAGED: Final = (20, 21)
"""Steps of the records that `prepare_repair` damages."""


def prepare_repair(folder: Path) -> None:
    """Leave a run with two damaged lines, a torn tail and no manifest."""
    prepare_sealing(folder)
    path = _only(folder)
    journal = path / "metrics.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    for step in DAMAGED:
        lines[step + 1] = lines[step + 1].replace(b'"step"', b'"stop"')
    journal.write_bytes(b"".join(lines) + b'{"seq":62,')
    (path / "run.json").unlink()


def act_repair(folder: Path, say: Say) -> None:
    """Mend the run in place."""
    from blackboxml.repair import repair

    repair(_only(folder), in_place=True)
    say(DONE)


def act_repair_anew(folder: Path, say: Say) -> None:
    """Mend the run into a new directory."""
    from blackboxml.repair import repair

    repair(_only(folder), folder / "mended")
    say(DONE)


def _mended(path: Path) -> str | None:
    """Say what is wrong with a mended run."""
    left = [step for step in range(60) if step not in DAMAGED]
    steps = [record.step for record in open_run(path).records()]
    if steps != left:
        return f"the mended run has the steps {steps}"
    return first_fault(
        lambda: check_readable(path, len(left), gaps=True), lambda: check_verdict(path, "valid")
    )


def check_repair(folder: Path, said: Said) -> str | None:
    """Check that the run is mended, or can be."""
    from blackboxml.repair import repair

    if not said.done:
        repair(_only(folder), in_place=True)
    return _mended(_only(folder))


def check_repair_anew(folder: Path, said: Said) -> str | None:
    """Check that there is a whole mended run, or none, and that the damaged one is as it was."""
    from blackboxml.repair import repair

    mended = folder / "mended"
    if said.done and not mended.is_dir():
        return "the mended run is gone"
    if mended.is_dir() and (fault := _mended(mended)) is not None:
        return fault
    if not mended.is_dir():
        repair(_only(folder), mended)
        if (fault := _mended(mended)) is not None:
            return fault
    if len((_only(folder) / "metrics.jsonl").read_bytes().splitlines()) != 63:
        return "the damaged run was changed"
    return None


def prepare_restoring(folder: Path) -> None:
    """Leave a sealed run with a medium, and two damaged lines that its tables have."""
    from blackboxml.seal import seal
    from blackboxml.writer import RunWriter

    writer = RunWriter.create(folder / "runs", NAME)
    for step in range(60):
        writer.log(point(step), step)
    writer.log_media("train/blob", "artifact", 0, data=bytes(10_000))
    writer.finish("completed")
    path = _only(folder)
    seal(path)
    journal = path / "metrics.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    for step in DAMAGED:
        lines[step + 1] = lines[step + 1].replace(b'"step"', b'"stop"')
    journal.write_bytes(b"".join(lines))


def check_restored(folder: Path, said: Said) -> str | None:
    """Check that the run is mended, or can be, and that nothing of it is taken for lost."""
    from blackboxml.repair import repair

    path = _only(folder)
    if not said.done:
        repair(path, in_place=True)
    if (fault := check_readable(path, 60) or check_verdict(path, "valid")) is not None:
        return fault
    stated = [problem for problem in open_run(path).problems if problem.rule == "BB-MRG-009"]
    return f"something is stated as lost: {stated[0]}" if stated else None


def prepare_import(folder: Path) -> None:
    """Leave two sources, one in a folder of its own."""
    rows = "".join(f"{step},{step / 3!r}\n" for step in range(50))
    for name in ("one.csv", "deeper/two.csv"):
        place = folder / "sources" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"step,loss\n{rows}", "utf-8")


def act_import(folder: Path, say: Say) -> None:
    """Convert all sources into run directories."""
    from blackboxml.conversion import convert

    report = convert(folder / "sources", folder / "runs")
    say(DONE if report.ok else b"-")


def check_import(folder: Path, said: Said) -> str | None:
    """Check that no run is there in part, and that converting again makes what is missing, once."""
    from blackboxml.collection import find_runs
    from blackboxml.conversion import convert

    place = folder / "runs"
    found = list(find_runs(place)) if place.is_dir() else []
    if said.done and len(found) != 2:
        return f"{len(found)} runs are there of two that were converted"
    for path in found:
        if (fault := check_verdict(path, "valid")) is not None:
            return f"{path.name}: {fault}"
    report = convert(folder / "sources", place)
    runs = list(find_runs(place))
    if not report.ok or len(runs) != 2:
        return f"converting again left {len(runs)} runs"
    for path in runs:
        values = [record.metrics["loss"] for record in open_run(path).records()]
        if values != [step / 3 for step in range(50)]:
            return f"{path.name} has other values"
        if (fault := check_verdict(path, "valid")) is not None:
            return f"{path.name}: {fault}"
    return None


def act_export(folder: Path, say: Say) -> None:
    """Convert the run into Parquet files."""
    from blackboxml.conversion import convert

    report = convert(_only(folder), folder / "out.parquet")
    say(DONE if report.ok else b"-")


def check_export(folder: Path, said: Said) -> str | None:
    """Check that what has the target's name is whole, or can be made again."""
    import pyarrow.parquet as pq

    from blackboxml.conversion import convert

    target = folder / "out.parquet"
    if said.done and not target.exists():
        return "what was converted is gone"
    if not target.exists():
        convert(_only(folder), target)
    files = [target] if target.is_file() else sorted(target.rglob("*.parquet"))
    rows = sum(pq.read_table(file).num_rows for file in files)
    if not rows:
        return "nothing was converted"
    again = folder / "again.parquet"
    convert(_only(folder), again)
    wanted = [again] if again.is_file() else sorted(again.rglob("*.parquet"))
    if rows != sum(pq.read_table(file).num_rows for file in wanted):
        return f"{rows} rows are there, and more are in the run"
    return check_kept(folder, Said())


def prepare_deletion(folder: Path) -> None:
    """Leave three runs, one of them packed."""
    for number in range(3):
        prepare_packing(folder / str(number))
    act_pack(folder / "1", bytes)


def act_delete(folder: Path, say: Say) -> None:
    """Delete all runs."""
    from blackboxml import delete_runs

    gone = sum(delete_runs(folder / str(number) / "runs") for number in range(3))
    say(DONE if gone == 3 else b"-")


def check_deletion(folder: Path, said: Said) -> str | None:
    """Check that each run is whole, or does not look so."""
    for number in range(3):
        path = the_run(folder / str(number))
        if path is None:
            continue
        if said.done:
            return f"run {number} is still there"
        try:
            report = validate(path)
        except NotARunError:
            continue
        if report.verdict == "valid" and (fault := check_readable(path, 60)) is not None:
            return f"run {number}: {fault}"
    return None


def prepare_reading(folder: Path) -> None:
    """Leave a run that is sealed, one that is packed, and one that is neither."""
    prepare_packing(folder / "sealed")
    prepare_unpacking(folder / "packed")
    prepare_sealing(folder / "ended")


def act_read(folder: Path, say: Say) -> None:
    """Validate each run, and read it in each way; what is refused is neither damaged nor absent.

    Raises:
        OSError: If that is what stops the reading.
        AssertionError: If anything else comes of it.
    """
    for path in map(_only, sorted(folder.iterdir())):
        if (wrong := check_verdict(path, "valid", "unreadable")) is not None:
            raise AssertionError(wrong)
        try:
            wrong = _read_all(path)
        except BlackboxError as error:
            wrong = f"reading said {type(error).__name__}: {error}"
        if wrong is not None:
            raise AssertionError(f"{path.parents[1].name}: {wrong}")
    say(DONE)


def _read_all(path: Path) -> str | None:
    """Read a whole run of sixty records in each way, and say what is wrong with what it says."""
    reader = open_run(path)
    table = reader.arrow("train", columns=["loss"])
    found = [{"train/loss": loss} for loss in table.column("loss").to_pylist()]
    if len(found) != 60 or not all(
        same(each, {"train/loss": point(step)["train/loss"]}) for step, each in enumerate(found)
    ):
        return f"the losses are {found}"
    if (last := reader.summary()["big"].last) != 2**60 + 59:
        return f"the last value is {last}"
    if reader.config != {"lr": 0.1}:
        return f"the configuration is {reader.config}"
    if (fault := check_readable(path, 60)) is not None:
        return fault
    return f"a problem is reported: {reader.problems[0]}" if reader.problems else None


def check_reading(folder: Path, said: Said) -> str | None:
    """Check that nothing was changed."""
    places = sorted(folder.iterdir())
    return first_fault(*(functools.partial(check_kept, place, said) for place in places))


def _only(folder: Path) -> Path:
    path = the_run(folder)
    if path is None:
        raise NotARunError(f"the run of {folder} is gone")
    return path


SCENARIOS: Final[dict[str, Scenario]] = {
    "log": Scenario(nothing, act_log, lambda f, s: check_training(f, s, s.records), True),
    "finish": Scenario(nothing, act_finish, lambda f, s: check_training(f, s, s.records), True),
    "rotate": Scenario(nothing, act_rotate, lambda f, s: check_training(f, s, s.records), True),
    "resume": Scenario(prepare_resume, act_resume, check_resumed, True),
    "resume-sealed": Scenario(prepare_resume_sealed, act_resume, check_resumed, True),
    "media": Scenario(nothing, act_media, check_media, True),
    "seal": Scenario(prepare_sealing, act_seal, check_kept),
    "pack": Scenario(prepare_packing, act_pack, check_kept),
    "unpack": Scenario(prepare_unpacking, act_seal, check_kept),
    "repair": Scenario(prepare_repair, act_repair, check_repair),
    "repair-anew": Scenario(prepare_repair, act_repair_anew, check_repair_anew),
    "repair-sealed": Scenario(prepare_restoring, act_repair, check_restored),
    "import": Scenario(prepare_import, act_import, check_import),
    "export": Scenario(prepare_packing, act_export, check_export),
    "delete": Scenario(prepare_deletion, act_delete, check_deletion),
    "read": Scenario(prepare_reading, act_read, check_reading),
    "catalogue": Scenario(catalogues.prepare, catalogues.act, catalogues.check),
}

WORK: Final = tuple(SCENARIOS)
"""What is done to runs; importing is done to a table."""

SCENARIOS |= {
    f"import-{form}": Scenario(functools.partial(foreign.prepare, form), act_import, foreign.check)
    for form in foreign.FORMS
}


def check(name: str, folder: Path, said: Said) -> str | None:
    """Return what is wrong with a folder, whatever it is, or None."""
    scenario = SCENARIOS[name]
    expected = said.failing and not scenario.trains and said.raised.startswith("documented ")
    if said.raised and not expected:
        return f"{said.raised} came out"
    try:
        return scenario.check(folder, said)
    except Exception as error:  # noqa: BLE001 - it is the finding
        return f"looking at it raised {type(error).__name__}: {error}"


def documented(error: BaseException) -> bool:
    """Tell whether a tool may raise that: an error of this library, or of the file system."""
    return isinstance(error, (BlackboxError, OSError))


def copy(source: Path, target: Path) -> None:
    """Lay out what a trial begins with; digests and times stay as they are."""
    shutil.copytree(source, target, symlinks=True)


def prepared(name: str, place: Path) -> Path:
    """Return the folder that the trials of a scenario begin with, made on first use."""
    folder = place / name
    if not folder.exists():
        scratch = place / f"{name}.{os.getpid()}"
        scratch.mkdir(parents=True)
        SCENARIOS[name].prepare(scratch)
        scratch.rename(folder)
    return folder
