"""Conversion: any format to any other, by way of a run, with every loss counted.

    foreign files → importer → run directory → exporter → foreign files

`convert` finds the runs in a source, by content; imports, exports or both; counts what went in and
what came out; and, if asked, reads the target back and compares it value by value.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, Final, NamedTuple, ParamSpec
from urllib.parse import urlsplit, urlunsplit

from blackboxml import converters
from blackboxml import manifest as manifests
from blackboxml.base.files import Directory, is_hidden, raise_refusal
from blackboxml.collection import looks_like_run
from blackboxml.conversion.comparing import Difference, compare, count_superseded, tally
from blackboxml.conversion.importing import Imported, identity, import_run, imported
from blackboxml.conversion.report import ConversionReport, RunReport
from blackboxml.errors import BlackboxError, ConversionError, UnsupportedVersionError
from blackboxml.foreign.interchange import MEDIA_KINDS, Ledger, Remark
from blackboxml.model import SCRATCH
from blackboxml.reader import open_run

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterator, Mapping

    from blackboxml.foreign.interchange import ForeignRun, Kind
    from blackboxml.reader import RunReader

__all__ = ["ConversionReport", "RunReport", "convert"]

logger = logging.getLogger("blackboxml")

P = ParamSpec("P")

OWN: Final = "blackbox"
"""The name of this format among the others."""


class _Job(NamedTuple):
    """One path with runs of one format, and what is to be done with them."""

    form: str
    path: Path | str
    target: Path | str
    target_format: str
    verify: bool
    keep_source: bool
    options: dict[str, Any]


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    source_format: str | None = None,
    target_format: str | None = None,
    verify: bool = False,
    keep_source: bool = False,
    jobs: int = 1,
    options: Mapping[str, Any] | None = None,
    progress: Callable[[float], None] | None = None,
) -> ConversionReport:
    """Convert one run, many runs or a whole tree.

    Converting again does nothing for a run whose source has not changed, and replaces one whose
    source has; so an interrupted conversion is simply begun again.

    What is damaged is left out and counted. What the file system refuses to show (it fails, or the
    user may not read it) is said, and the report is not `ok`; the next conversion reads it again,
    whether or not the source has changed.

    Args:
        source: A file or a folder, or a URI of a server for a format that takes one.
        target: A folder of runs, or what the target format calls for, such as a URI.
        source_format: A name of `converters.FORMATS`, or `blackbox`; by default recognised by
            content.
        target_format: The same; by default told from the suffix of `target`, else `blackbox`.
        verify: Read the target back and compare it value by value.
        keep_source: Copy the files of the source into each imported run.
        jobs: Processes that work at once.
        options: What the exporter takes, by name.
        progress: Called with the share of the paths that are done.

    Raises:
        ConversionError: If there is nothing to convert, or no such format.

    >>> import tempfile
    >>> from blackboxml import Run
    >>> folder = tempfile.mkdtemp()
    >>> with Run("demo", log_dir=folder) as run:
    ...     run.log({"train/loss": 0.5})
    >>> report = convert(run.path, folder + "/out", target_format="jsonl", verify=True)
    >>> report.ok, report.runs[0].went_out["scalar"]
    (True, 1)
    """
    origin, place = _origin(source), _place(target)
    if isinstance(origin, Path) and not origin.exists():
        message = f"{origin} is not there; give a file or a folder"
        raise ConversionError(message)
    wanted = target_format or _format_of_target(place)
    for name in (source_format, wanted):
        _check_format(name)
    _check_scheme(place, wanted)
    if wanted != OWN and converters.exporter(wanted) is None:
        message = (
            f"{wanted} can be read and not written; formats to write: {_names(exporting=True)}"
        )
        raise ConversionError(message)
    report = ConversionReport()
    found: list[tuple[str, Path | str]]
    if isinstance(origin, str):
        found = [(_format_of_source(origin, source_format), origin)]
    else:
        without = place if isinstance(place, Path) and place != origin else None
        found = list(_find(origin, source_format, without, report.unreadable))
    work = [
        _Job(form, path, place, wanted, verify, keep_source, dict(options or {}))
        for form, path in found
        if not (form == OWN and wanted == OWN)
    ]
    if not work:
        raise _nothing(origin, source_format, wanted, report.unreadable)
    known: dict[str, Imported] = {}
    if wanted == OWN and isinstance(place, Path):
        known = imported(place)  # once: a target may hold thousands of runs
    results = zip(work, _run(work, jobs, known), strict=True)
    for done, (job, result) in enumerate(results, start=1):
        if isinstance(result, str):
            report.unreadable[without_credentials(job.path)] = result
        else:
            report.runs += result
        if progress is not None:
            progress(done / len(work))
    return report


def _nothing(
    origin: Path | str, form: str | None, wanted: str, unreadable: Mapping[str, str]
) -> ConversionError:
    """Return why there is nothing to convert."""
    named = f" of the format {form}" if form else ""
    message = (
        f"{origin} holds nothing{named} to convert into {wanted}; "
        f"formats that are recognised: {_names(exporting=False)}"
    )
    if unreadable:
        message += f"; not looked at: {'; '.join(unreadable.values())}"
    return ConversionError(message)


def _run(
    work: list[_Job], jobs: int, known: dict[str, Imported]
) -> Iterator[list[RunReport] | str]:
    """Yield what became of each job, in order."""
    if jobs <= 1 or len(work) == 1:
        yield from (_convert(job, known) for job in work)
        return
    # Spawned, not forked: the threads of other libraries would not survive a fork.
    processes, context = min(jobs, len(work)), get_context("spawn")
    with ProcessPoolExecutor(processes, context, _known.update, (known,)) as pool:
        yield from pool.map(_convert_in_child, work)


_known: dict[str, Imported] = {}
"""In a process that converts for another: the runs that the target held in the beginning."""


def _convert_in_child(job: _Job) -> list[RunReport] | str:
    """Convert the runs at one path in a process of a pool."""
    return _convert(job, _known)


# -- finding


def _find(
    path: Path, form: str | None, without: Path | None, missed: dict[str, str]
) -> Iterator[tuple[str, Path | str]]:
    """Yield format and path of everything that can be converted, in byte order.

    Args:
        path: Where to look; a link is not followed, and a pipe or a device not opened.
        form: The format that is wanted; None for any.
        without: A folder to leave out.
        missed: Receives files and folders that the file system does not show, and why.
    """
    if path == without or path.name.startswith(SCRATCH) or path.is_symlink():
        return
    name, taken = None, set[str]()
    try:
        name, taken = _look(path, form)
    except OSError as error:
        missed[str(path)] = f"{type(error).__name__}: {error}"
        if is_hidden(error):  # what lies in it may be the parts of one run, another time
            return
    if name is not None:
        yield name, path
    if not path.is_dir():
        return
    try:
        reader = None if name in (None, OWN) else converters.importer(str(name))
        taken |= set() if reader is None else reader.members(path)
        entries = [] if "*" in taken else sorted(os.listdir(path))
    except OSError as error:
        missed[str(path)] = f"{type(error).__name__}: {error}"
        return
    for entry in entries:
        if entry not in taken:
            yield from _find(path / entry, form, without, missed)


def _look(path: Path, form: str | None) -> tuple[str | None, set[str]]:
    """Return the format of what is at a path, or None, and the names in it that are a run's.

    Raises:
        OSError: If the file system refuses to show it.
    """
    if path.is_dir() and looks_like_run(path) and _is_own(path):
        return OWN if form in (None, OWN) else None, {"*"}
    return _recognise(path, form) if path.is_dir() or path.is_file() else None, set()


def _is_own(path: Path) -> bool:
    """Tell whether a directory is a run of this format, and not one of an earlier system.

    Raises:
        OSError: If the file system refuses to show it.
    """
    try:
        with Directory(path) as directory:
            manifests.read(directory)
    except UnsupportedVersionError:
        return True  # it is opened later, which says so
    except (BlackboxError, OSError) as error:
        raise_refusal(error)
        return _opens(path)
    return True


def _opens(path: Path) -> bool:
    """Tell whether a directory without a good manifest is a run by its journals."""
    try:
        open_run(path)
    except (BlackboxError, OSError) as error:
        raise_refusal(error)
        return False
    return True


def _recognise(path: Path, form: str | None) -> str | None:
    """Return the format of a file or folder, or None.

    Raises:
        OSError: If the file system refuses to show it.
    """
    for name in converters.FORMATS if form is None else [form] if form != OWN else []:
        reader = converters.importer(name)
        if reader is None:
            continue
        try:
            if reader.recognise(path):
                return name
        except Exception as error:
            raise_refusal(error)
            logger.debug("%s could not look at %s", name, path, exc_info=True)
    return None


def _place(given: str | os.PathLike[str]) -> Path | str:
    """Return a path, or a URI as it stands."""
    text = os.fspath(given)
    return text if "://" in text else Path(text)


def _origin(given: str | os.PathLike[str]) -> Path | str:
    """Return a source; a link that is named is meant, those within a source lead nowhere."""
    place = _place(given)
    return place.resolve() if isinstance(place, Path) and place.is_symlink() else place


def without_credentials(place: Path | str) -> str:
    """Return a path or a URI as it may be shown to others."""
    if isinstance(place, Path):
        return str(place)
    split = urlsplit(place)
    return urlunsplit((split.scheme, split.netloc.rpartition("@")[2], split.path, "", ""))


def _takes(name: str, uri: str) -> bool:
    """Tell whether a format takes a URI."""
    module = converters.importer(name) or converters.exporter(name)
    return uri.partition("://")[0] in getattr(module, "SCHEMES", ())


def _check_scheme(target: Path | str, wanted: str) -> None:
    """Refuse a URI for a format that has none."""
    if isinstance(target, str) and (wanted == OWN or not _takes(wanted, target)):
        message = (
            f"{wanted} cannot be written to {without_credentials(target)}; "
            "give a path, or name a format that takes such a URI"
        )
        raise ConversionError(message)


def _format_of_source(uri: str, form: str | None) -> str:
    """Return the format of a source that is a URI."""
    named = [name for name in converters.FORMATS if _takes(name, uri) and form in (None, name)]
    if len(named) != 1:
        message = (
            f"{without_credentials(uri)} can be of {', '.join(named) or 'no format'}; name one"
        )
        raise ConversionError(message)
    return named[0]


def _format_of_target(target: Path | str) -> str:
    """Return the format that the suffix of a target, or the scheme of a URI, stands for."""
    if isinstance(target, str):
        named = [name for name in converters.FORMATS if _takes(name, target)]
        return named[0] if len(named) == 1 else OWN
    if target.suffix:
        for name in converters.FORMATS:
            writer = converters.exporter(name)
            if target.suffix in getattr(writer, "SUFFIXES", ()):
                return name
    return OWN


def _check_format(name: str | None) -> None:
    """Refuse a name that is none of a format."""
    if name not in (None, OWN, *converters.FORMATS):
        message = (
            f"no format is called {name!r}; there are: {', '.join((OWN, *converters.FORMATS))}"
        )
        raise ConversionError(message)


def _names(*, exporting: bool) -> str:
    """Return the names of the formats that can be written, or read."""
    able = converters.exporter if exporting else converters.importer
    return ", ".join((OWN, *(name for name in converters.FORMATS if able(name) is not None)))


# -- converting


def _convert(job: _Job, known: Mapping[str, Imported]) -> list[RunReport] | str:
    """Convert the runs at one path; return why if the path cannot be read."""
    try:
        if job.form == OWN:
            report = RunReport(str(job.path), "", OWN, target_format=job.target_format)
            _attempt(report, _export_at, job.path, job)
            return [report]
        reader = converters.importer(job.form)
        if reader is None:
            return f"{job.form} can be written and not read"
        reports = []
        for foreign in reader.read(job.path):
            report = RunReport(
                foreign.source, foreign.key, job.form, target_format=job.target_format
            )
            earlier = known.get(identity(job.form, foreign))
            if earlier is not None and earlier.fingerprint == foreign.fingerprint:
                report.outcome, report.target = "unchanged", str(earlier.path)
            elif job.target_format == OWN:
                _attempt(report, _import, foreign, job, Path(job.target), earlier)
            else:
                _attempt(report, _through, foreign, job)
            reports.append(report)
    except (BlackboxError, OSError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return reports


def _attempt(
    report: RunReport,
    work: Callable[Concatenate[RunReport, P], None],
    *given: P.args,
    **more: P.kwargs,
) -> None:
    """Do the work for one run; a failure is that of this run alone."""
    try:
        work(report, *given, **more)
    except Exception as error:
        logger.debug("%s could not be converted", report.source, exc_info=True)
        report.outcome = "failed"
        report.error = f"{type(error).__name__}: {error}"


def _import(  # noqa: PLR0917 - called through `_attempt`
    report: RunReport,
    foreign: ForeignRun,
    job: _Job,
    folder: Path,
    earlier: Imported | None = None,
    run_id: str | None = None,
) -> None:
    """Import one run into a folder, in place of an earlier import, and count."""
    ledger = Ledger()
    path, came_in = import_run(
        job.form,
        foreign,
        folder,
        ledger,
        keep_source=job.keep_source,
        earlier=earlier,
        run_id=run_id,
    )
    run = open_run(path)
    report.target, report.came_in, report.went_out = str(path), came_in, tally(run, "all")
    for kind in ("time", "status", "field"):
        report.went_out[kind] = came_in[kind] - ledger.total("lost", kind)
    if job.keep_source:
        report.went_out["artifact"] -= len(foreign.files)
    report.enter(ledger)
    _balance(report)
    if job.verify:
        with tempfile.TemporaryDirectory(prefix="blackbox-verify-") as scratch:
            again, _ = import_run(
                job.form, foreign, Path(scratch), Ledger(), keep_source=job.keep_source
            )
            report.verified = True
            _judge(report, compare(open_run(again), run), Ledger())


def _through(report: RunReport, foreign: ForeignRun, job: _Job) -> None:
    """Take one run from a foreign format into another."""
    with tempfile.TemporaryDirectory(prefix="blackbox-convert-") as scratch:
        # The same id each time: a target that knows it does not take the run twice.
        same = identity(job.form, foreign)
        _import(report, foreign, job._replace(verify=False), Path(scratch), run_id=same)
        came_in = report.came_in
        _export(open_run(report.target), job, report, Ledger())
        report.came_in = came_in


def _export_at(report: RunReport, path: Path | str, job: _Job) -> None:
    """Export the run at a path."""
    _export(open_run(path), job, report, Ledger())


def _export(run: RunReader, job: _Job, report: RunReport, ledger: Ledger) -> None:
    """Export one run, and count; `came_in` is what the run holds."""
    writer = converters.exporter(job.target_format)
    if writer is None:
        message = f"{job.target_format} cannot be written"
        raise ConversionError(message)
    report.came_in = tally(run, "effective")
    superseded = count_superseded(run)
    if superseded:
        ledger.lost("scalar", "superseded by a rewind; the effective history goes out", superseded)
        report.came_in["scalar"] += superseded
    target = writer.write(run, job.target, ledger, job.options)
    report.target = without_credentials(target)
    report.enter(ledger)
    report.went_out = _less(report.came_in, ledger)
    if job.verify:
        _verify(run, target, job, report, ledger)


def _less(came_in: Counter[Kind], ledger: Ledger) -> Counter[Kind]:
    """Return what is left of some counts without what was lost."""
    left = came_in.copy()
    for kind in came_in:
        left[kind] -= ledger.total("lost", kind)
    return left


def _verify(
    run: RunReader, target: Path | str, job: _Job, report: RunReport, ledger: Ledger
) -> None:
    """Read a target back through its own importer, and compare."""
    reader = converters.importer(job.target_format)
    if reader is None:
        report.differences.append(f"{job.target_format} cannot be read back")
        return
    back: list[ForeignRun] = []
    strangers: list[ForeignRun] = []
    for foreign in reader.read(target):
        known = foreign.extra.get("blackbox_id")
        if known == run.id:
            back.append(foreign)
        elif known is None and len(strangers) <= 1:
            strangers.append(foreign)
    back = back or strangers
    report.verified = True
    if len(back) != 1:
        report.differences.append(f"{target} holds the run {len(back)} times")
        return
    scratch = Path(tempfile.mkdtemp(prefix="blackbox-verify-"))
    try:
        found = Ledger()
        path, _ = import_run(job.target_format, back[0], scratch, found)
        again = open_run(path)
        _judge(report, compare(run, again), ledger)
        if found.total("unreadable", "scalar"):
            report.differences.append("a part of the target cannot be read back")
        report.went_out = tally(again, "effective")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _balance(report: RunReport) -> None:
    """Enter what is missing in the target, or too much, without a word of the converter."""
    for kind in report.came_in.keys() | report.went_out.keys():
        missing = report.came_in[kind] - report.total("lost", kind) - report.went_out[kind]
        if missing:
            what = (
                "missing in the target" if missing > 0 else "in the target, but not in the source"
            )
            report.remarks[Remark("lost", kind, what, declared=False)] = abs(missing)


def _judge(report: RunReport, found: Difference, ledger: Ledger) -> None:
    """Hold what a comparison found against what the converter said."""
    excused = True
    for kind in found.lost.keys() | found.extra.keys() | found.changed.keys():
        lost, changed = found.lost[kind], found.changed[kind]
        if kind in MEDIA_KINDS:  # one that was altered is missed here and new there
            lost -= min(lost, ledger.total("changed", kind))
        # A time that the target does not keep is made up when it is read back.
        made = kind == "time" and (ledger.total("made", kind) or ledger.total("lost", kind))
        if lost > ledger.total("lost", kind):
            excused = False
            report.differences.append(f"{kind}: {lost} are missing in the target")
        if found.extra[kind] > ledger.total("made", kind) + ledger.total("changed", kind):
            excused = False
            report.differences.append(f"{kind}: {found.extra[kind]} are in the target alone")
        if changed > ledger.total("changed", kind) and not made:
            excused = False
            report.differences.append(f"{kind}: {changed} have another value in the target")
        limit = max(
            (by for remark, by in ledger.greatest.items() if remark.kind == kind), default=0.0
        )
        if changed and found.greatest.get(kind, 0.0) > limit > 0.0:
            excused = False
            by = found.greatest[kind]
            report.differences.append(
                f"{kind}: changed by up to {by:.3g}, declared was {limit:.3g}"
            )
    if not excused:
        report.differences += found.places
