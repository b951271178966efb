"""Repair: a damaged run made valid again, with nothing invented and every loss stated.

Strategy: the run is looked at (`case`), what its journals will hold is worked out (`history`, by
way of `lines` and `tables`), and that is a plan. The mended run is then built as a directory of its
own (`build`), validated as a whole, and only then renamed to its final name, or put in place of the
damaged one file by file (`place`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from blackboxml.base.files import Directory
from blackboxml.errors import RepairError
from blackboxml.model import LIMITS, MANIFEST, SCRATCH, Limits
from blackboxml.repair.plan import Action, Plan, RepairReport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from blackboxml.repair.case import Case

__all__ = ["Action", "Plan", "RepairReport", "plan", "repair"]


def plan(path: str | os.PathLike[str], *, force: bool = False, limits: Limits = LIMITS) -> Plan:
    """Say what a repair of a run would do, keep and lose; nothing is changed.

    Args:
        path: A run directory, or its `run.json`.
        force: Take it for granted that the run has ended, where nothing proves it.
        limits: What a reader accepts.

    Raises:
        NotARunError: If there is no run at `path`.
        ManifestError: If nothing is left that tells which run it is.
        RunIsLiveError: If the run is being written, or may be.
        UnsupportedVersionError: If it needs a newer version of this library.
        RepairError: If the run is damaged in a way that cannot be mended.

    >>> import tempfile
    >>> from blackboxml import Run
    >>> with Run("demo", log_dir=tempfile.mkdtemp()) as run:
    ...     run.log({"train/loss": 0.5})
    >>> plan(run.path).actions
    []
    """
    with _diagnosed(_folder(path), limits, force=force) as (case, _):
        return Plan(case.path, case.actions, _kept(case))


def repair(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
    *,
    in_place: bool = False,
    force: bool = False,
    limits: Limits = LIMITS,
    progress: Callable[[float], None] | None = None,
) -> RepairReport:
    """Mend a run: write a new directory, or replace what is damaged.

    A run with nothing to mend is copied byte for byte, or left as it is.

    Args:
        path: A run directory, or its `run.json`.
        output: The directory to write; it must not exist.
        in_place: Mend the run where it is. What changes is kept in its folder `repair`.
        force: Take it for granted that the run has ended, where nothing proves it.
        limits: What a reader accepts.
        progress: Called with the share of the work that is done.

    Raises:
        NotARunError: If there is no run at `path`.
        ManifestError: If nothing is left that tells which run it is.
        RunIsLiveError: If the run is being written, or may be.
        UnsupportedVersionError: If it needs a newer version of this library.
        RepairError: If the mended run would not be valid; the run is as it was.
        SealError: If what was sealed does not read back the same; the run is as it was.
        FileExistsError: If there is something at `output`.
        OSError: If the file system refuses.
    """
    if (output is None) != in_place:
        message = "say either where the mended run is to be written, or in_place=True"
        raise ValueError(message)
    place = _folder(path)
    if output is not None and os.path.lexists(output):
        raise FileExistsError(errno.EEXIST, "there is something already", str(output))
    with _diagnosed(place, limits, force=force) as (case, mode):
        if in_place:
            return _in_place(case, mode, progress)
        return _anew(case, mode, Path(os.fspath(output or "")), progress)


def _folder(path: str | os.PathLike[str]) -> Path:
    place = Path(path)
    return place.parent if place.name == MANIFEST else place


@contextlib.contextmanager
def _diagnosed(path: Path, limits: Limits, *, force: bool) -> Iterator[tuple[Case, str]]:
    """Look at a run, and say what has to be done."""
    from blackboxml.repair.case import open_case
    from blackboxml.repair.diagnose import diagnose, spill_file

    with Directory(path) as directory, spill_file() as spill, spill_file() as media:
        case = open_case(directory, limits, force=force)
        mode = diagnose(case, spill.fileno(), media.fileno())
        if case.errors and not case.actions:
            shown = "\n".join(f"  {problem}" for problem in case.errors[:10])
            message = f"{path} is damaged in a way that cannot be mended:\n{shown}"
            raise RepairError(message)
        yield case, mode


def _kept(case: Case) -> dict[str, int]:
    """Return what the mended run holds; nothing where there is nothing to mend."""
    from blackboxml.repair.lines import contents
    from blackboxml.repair.tables import merged

    total: Counter[str] = Counter()
    if not case.actions:
        return {}
    for history in (case.metrics, case.media):
        total.update(history.kept if history is not None else {})
    if case.metrics is None:  # a packed run that stays so
        for _, record, _ in merged(case.known.tables, case.known.events):
            total.update(contents(record))
    return {kind: total[kind] for kind in ("records", "events", "values")}


def _in_place(case: Case, mode: str, progress: Callable[[float], None] | None) -> RepairReport:
    """Mend a run where it is."""
    if not case.actions:
        problems = case.report.problems
        return RepairReport(case.path, output=case.path, problems=problems)
    from blackboxml.repair.build import Build
    from blackboxml.repair.place import put_in_place

    place = case.path / f"{SCRATCH}repair-{secrets.token_hex(4)}"
    place.mkdir(mode=0o700)
    try:
        build = Build(case, mode, place, in_place=True)
        report = build.run(progress)
        put_in_place(case.directory, place)
    finally:
        with contextlib.suppress(OSError):
            case.directory.remove(place.name)
    return RepairReport(
        *(case.path, case.actions, _kept(case)),
        output=case.path,
        changed=True,
        aside=build.aside,
        problems=report.problems,
    )


def _anew(
    case: Case, mode: str, output: Path, progress: Callable[[float], None] | None
) -> RepairReport:
    """Write a mended run as a new directory."""
    from blackboxml.repair.build import Build

    parent = output.absolute().parent
    if parent.resolve().is_relative_to(case.path.resolve()):
        message = f"{output} lies inside the run that is to be mended"
        raise RepairError(message)
    parent.mkdir(parents=True, exist_ok=True)
    name = f"{SCRATCH}repair-{secrets.token_hex(4)}"
    place = parent / name
    place.mkdir()
    with Directory(parent) as folder:
        try:
            build = Build(case, mode, place, in_place=False)
            report = build.run(progress)
            if os.path.lexists(output):
                raise FileExistsError(errno.EEXIST, "there is something already", str(output))
            folder.rename(name, output.name)
            folder.sync()
        except BaseException:
            with contextlib.suppress(OSError):
                folder.remove(name)
            raise
    return RepairReport(
        *(case.path, case.actions, _kept(case)),
        output=output,
        changed=bool(case.actions),
        aside=build.aside,
        problems=report.problems,
    )
