"""The commands `blackbox` and `bbml`; the one module that prints.

Exit status: 0 good, 1 a run that is bad or not there, 2 wrong usage, 130 Ctrl-C, 141 closed pipe.
Heavy libraries are imported by the commands that need them, so that help and `list` come at once.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import shutil
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from blackboxml.arguments import parse
from blackboxml.errors import BlackboxError, ManifestError, NotARunError
from blackboxml.model import MANIFEST

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import TracebackType

    from rich.console import RenderableType
    from rich.progress import Progress, TaskID

    from blackboxml.errors import Problem
    from blackboxml.overview import Overview
    from blackboxml.reader import RunReader
    from blackboxml.seal import SealReport
    from blackboxml.validation import Report

OK, BAD, USAGE, INTERRUPTED, CLOSED_PIPE = 0, 1, 2, 130, 141

_BAR_AFTER_SECONDS = 2.0
_WIDE = 10_000
_PIPED_WIDTH = 80


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    Args:
        argv: The arguments, None for those of the process.
    """
    try:
        arguments = parse(argv)
    except SystemExit as done:  # help, version, wrong usage
        return int(done.code or 0)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    with _warnings_shown():
        try:
            status = _COMMANDS[arguments.command](arguments)
            sys.stdout.flush()
        except BrokenPipeError:
            # Whoever read us has left. Python would complain once more when it flushes at exit.
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return CLOSED_PIPE
        except KeyboardInterrupt:
            return INTERRUPTED
        except (BlackboxError, OSError) as error:
            _complain(error)
            return BAD
    return status


# -- the commands


def _list(arguments: argparse.Namespace) -> int:
    from blackboxml import terminal
    from blackboxml.collection import find_runs
    from blackboxml.overview import describe

    root = arguments.root or arguments.log_dir
    rows: list[Overview] = []
    with _Progress("reading runs") as progress:
        paths = list(find_runs(root))
        for done, path in enumerate(paths):
            rows.append(describe(path))
            progress.update(done / len(paths))
    rows = [row for row in rows if _wanted(row, arguments)]
    oldest = datetime.min.replace(tzinfo=UTC)
    rows.sort(key=lambda row: (row.start or oldest, str(row.path)), reverse=True)
    if arguments.json:
        _print_json(rows)
    elif rows:
        _show(terminal.runs_table(rows, datetime.now(UTC), _console().width))
    else:
        print("no runs found.")
    return OK


def _wanted(row: Overview, arguments: argparse.Namespace) -> bool:
    """Tell whether a run passes the filters."""
    return (arguments.status is None or row.status == arguments.status) and all(
        tag in row.tags for tag in arguments.tag
    )


def _show_run(arguments: argparse.Namespace) -> int:
    from blackboxml import terminal
    from blackboxml.frontends.store import load_run

    path = _find(arguments.run, arguments.log_dir)
    try:
        reader = _open(path)
    except (NotARunError, ManifestError):
        _print_json(load_run(path))  # of blackboxml 0.5, or the same error again
        return OK
    with _Progress("reading the run"):
        summary = reader.summary()
    verdict = reader.verdict
    config = reader.config
    if arguments.json:
        _print_json(
            {
                "path": reader.path,
                "status": verdict.status,
                "reason": verdict.reason,
                "manifest": reader.manifest,
                "config": config,
                "summary": summary,
                "problems": reader.problems,
            }
        )
        return OK
    _show(terminal.run_header(reader, datetime.now(UTC)))
    print()
    if summary:
        units = terminal.units(reader.manifest["groups"]) if reader.sealed else {}
        _show(terminal.metrics_table(summary, units))
    else:
        print("no metrics were logged.")
    if reader.problems:
        print()
        _print_problems(reader.problems)
    return OK


def _seal(arguments: argparse.Namespace) -> int:
    from blackboxml.seal import seal

    return _each_run(arguments, "seal", seal)


def _pack(arguments: argparse.Namespace) -> int:
    from blackboxml.pack import pack

    return _each_run(arguments, "pack", pack)


def _each_run(arguments: argparse.Namespace, verb: str, work: Callable[..., SealReport]) -> int:
    """Seal or pack runs, going on where one cannot be."""
    from blackboxml import terminal
    from blackboxml.overview import reason

    told: list[dict[str, Any]] = []
    for text in arguments.runs:
        entry: dict[str, Any] = {"path": text}
        told.append(entry)
        try:
            path = _find(text, arguments.log_dir)
            entry["path"] = path
            before = _bytes_below(path)
            with _Progress(f"{verb}ing {path.name}") as progress:
                report = work(path, progress=progress.update)
        except (BlackboxError, OSError) as error:
            entry["error"] = reason(error)
            _complain(error)
            continue
        after = _bytes_below(path)
        entry |= {
            "changed": report.changed,
            "rows": report.rows,
            "bytes_before": before,
            "bytes_after": after,
            "problems": report.problems,
        }
        if not arguments.json:
            done = f"{verb}ed" if report.changed else f"was {verb}ed already"
            sizes = f"{terminal.size(before)} → {terminal.size(after)}" * report.changed
            rows = ", ".join(
                f"{terminal.safe(name or 'metrics')} {number:,}"
                for name, number in report.rows.items()
            )
            facts = "; ".join(filter(None, (f"rows: {rows}" if rows else "no metrics", sizes)))
            print(f"{terminal.safe(path)}: {done} ({facts})", flush=True)
            _print_problems(report.problems)
    if arguments.json:
        _print_json(told)
    return BAD if any("error" in entry for entry in told) else OK


def _tail(arguments: argparse.Namespace) -> int:
    from blackboxml import overview

    reader = _open(_find(arguments.run, arguments.log_dir))
    if not arguments.follow:
        if arguments.number:
            with _Progress("reading the run"):
                points = overview.in_order(overview.last_points(reader, arguments.number))
            _print_points(points[-arguments.number :], arguments)
        return OK
    _print_points(overview.follow(reader, arguments.number, arguments.poll), arguments)
    verdict = reader.verdict
    _note(f"{reader.path}: the run is over: {verdict.status} ({verdict.reason})")
    return OK


def _print_points(points: Iterable[Any], arguments: argparse.Namespace) -> None:
    """Print points as they come, a line each."""
    from blackboxml import terminal

    ranks = False
    for record in points:
        ranks = ranks or record.rank > 0
        if arguments.json:
            line = terminal.dumps(record, indent=None, ascii_only=_is_ascii())
        else:
            line = terminal.record_line(record, rank=ranks)
        print(line, flush=arguments.follow)


def _plot(arguments: argparse.Namespace) -> int:
    reader = _open(_find(arguments.run, arguments.log_dir))
    with _Progress("reading the run"):
        from blackboxml import plot

        chosen = plot.choose(reader, arguments.metrics)
        if not chosen:
            print("no metrics were logged.")
            return OK
        width = arguments.width or (_console().width if sys.stdout.isatty() else _PIPED_WIDTH)
        drawn = plot.draw(reader, chosen, width=width, height=arguments.height, axis=arguments.x)
    _show(drawn, width)
    return OK


def _clean(arguments: argparse.Namespace) -> int:  # noqa: C901 - a sequence of ways out
    from blackboxml import terminal
    from blackboxml.collection import find_runs
    from blackboxml.frontends.store import reason_to_keep

    root = arguments.root or arguments.log_dir
    with _Progress("reading runs"):
        reasons = {path: reason_to_keep(path) for path in find_runs(root)}
    for path, reason in reasons.items():
        if reason is not None:
            print(f"{terminal.safe(path)} stays: {terminal.safe(reason)}")
    doomed = [path for path, reason in reasons.items() if reason is None]
    if not doomed:
        print("no runs to delete.")
        return OK
    if arguments.dry_run:
        for path in doomed:
            print(f"would delete {terminal.safe(path)}")
        return OK
    if not arguments.yes:
        if not sys.stdin.isatty():
            _note(f"{len(doomed)} run(s) would be deleted; say so with -y, or look with --dry-run")
            return USAGE
        question = f"delete {len(doomed)} run(s) below {terminal.safe(root)}? [y/N]: "
        if not _agreed(question):
            print("nothing was deleted.")
            return OK
    deleted = 0
    for path in doomed:
        if reason_to_keep(path) is None:  # it may have been resumed since
            shutil.rmtree(path)
            deleted += 1
    print(f"deleted {deleted} run(s).")
    return OK


def _agreed(question: str) -> bool:
    """Ask a person; the end of the input is a no."""
    try:
        return input(question).strip().lower() in {"y", "yes"}
    except EOFError:
        print()
        return False


def _validate(arguments: argparse.Namespace) -> int:
    from blackboxml.overview import reason
    from blackboxml.validation import validate

    told: list[dict[str, Any]] = []
    for path in _runs_at(arguments.paths):
        try:
            with _Progress(f"validating {path.name}"):
                report = validate(path)
        except (BlackboxError, OSError) as error:
            told.append({"path": path, "ok": False, "error": reason(error)})
            _complain(error)
            continue
        members = {"problems": report.problems, "checked": report.checked}
        told.append({"path": path, "ok": report.ok, **members})
        if not arguments.json:
            _print_problems(report.problems)
            _print_verdict(path, report)
    if arguments.json:
        _print_json(told)
    return OK if all(entry["ok"] for entry in told) else BAD


def _print_verdict(path: Path, report: Report) -> None:
    """Print the last line of a validation."""
    from blackboxml import terminal

    errors = sum(problem.severity == "error" for problem in report.problems)
    found = [
        f"{number} {what}{'s' * (number != 1)}"
        for number, what in ((errors, "error"), (len(report.problems) - errors, "warning"))
        if number
    ]
    verdict = ": ".join(filter(None, ("valid" if report.ok else "invalid", ", ".join(found))))
    print(f"{terminal.safe(path)}: {verdict}", flush=True)


def _runs_at(paths: Sequence[str]) -> Iterator[Path]:
    """Yield each path, or the runs below it if it is none itself."""
    from blackboxml.collection import find_runs, looks_like_run

    for text in paths:
        path = Path(text).parent if Path(text).name == MANIFEST else Path(text)
        below = [] if looks_like_run(path) else list(find_runs(path))
        yield from below or [path]


_COMMANDS: Final[dict[str, Callable[[argparse.Namespace], int]]] = {
    "list": _list,
    "show": _show_run,
    "tail": _tail,
    "plot": _plot,
    "seal": _seal,
    "pack": _pack,
    "validate": _validate,
    "clean": _clean,
}


# -- runs


def _find(text: str, log_dir: str) -> Path:
    """Return the run that is meant: a path, a directory's name, or a run's name.

    Raises:
        NotARunError: Saying where was looked.
    """
    from blackboxml.collection import looks_like_run, newest_run
    from blackboxml.overview import newest_legacy_run

    path = Path(text)
    if path.name == MANIFEST and path.is_file():
        path = path.parent
    for place in (path, Path(log_dir, text)):
        if looks_like_run(place):
            return place
    newest = newest_run(log_dir, text) or newest_legacy_run(log_dir, text)
    if newest is not None:
        return newest
    message = (
        f"run not found: {text!r} is neither a run directory nor the name of a run in {log_dir}; "
        "`blackbox list` shows the runs there, --log-dir names another folder"
    )
    raise NotARunError(message)


def _open(path: Path) -> RunReader:
    """Open a run."""
    from blackboxml.reader import open_run

    return open_run(path)


def _bytes_below(path: Path) -> int:
    """Return how much room the files of a run take."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total


# -- printing


def _console(width: int | None = None) -> Any:
    """Return a console for standard output; into a pipe nothing is cut or wrapped."""
    from rich.console import Console

    if width is None and not sys.stdout.isatty():
        width = _WIDE
    return Console(
        file=sys.stdout, width=width, markup=False, emoji=False, highlight=False, soft_wrap=False
    )


def _show(renderable: RenderableType, width: int | None = None) -> None:
    """Print a table or a plot without the blanks at the ends of its lines."""
    console = _console(width)
    with console.capture() as captured:
        console.print(renderable)
    print("\n".join(line.rstrip() for line in captured.get().split("\n")).rstrip("\n"))


def _print_json(document: Any) -> None:
    """Print one JSON document, coloured on a terminal."""
    from blackboxml import terminal

    text = terminal.dumps(document, ascii_only=_is_ascii())
    if sys.stdout.isatty():
        from rich.highlighter import JSONHighlighter

        console = _console()
        with console.capture() as captured:
            console.print(JSONHighlighter()(text), soft_wrap=True)
        text = captured.get().rstrip("\n")
    print(text)


def _print_problems(problems: Iterable[Problem]) -> None:
    """Print findings, each with its cure."""
    from blackboxml import terminal

    for problem in problems:
        print(terminal.safe(problem))
        if problem.cure:
            print(f"    cure: {terminal.safe(problem.cure)}")


def _complain(error: Exception) -> None:
    """Print an error."""
    from blackboxml.overview import reason

    _note(f"error: {reason(error)}")


def _note(text: str) -> None:
    """Print a remark that is not a result."""
    from blackboxml import terminal

    print(f"blackbox: {terminal.safe(text)}", file=sys.stderr)


def _is_ascii() -> bool:
    """Tell whether standard output cannot take all characters."""
    return "utf" not in (sys.stdout.encoding or "utf-8").lower()


@contextlib.contextmanager
def _warnings_shown() -> Iterator[None]:
    """Print what the library warns of."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            _note(f"{record.levelname.lower()}: {record.getMessage()}")

    logger = logging.getLogger("blackboxml")
    handler = Handler(logging.WARNING)
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


class _Progress:
    """A bar on the terminal for work that takes longer than two seconds, and nothing elsewhere."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._lock = threading.Lock()
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._share: float | None = None
        self._over = False
        self._timer = threading.Timer(_BAR_AFTER_SECONDS, self._start)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._timer.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        with self._lock:
            self._over = True
            if self._progress is not None:
                self._progress.stop()

    def update(self, share: float) -> None:
        """Say how much is done, from 0 to 1."""
        with self._lock:
            self._share = share
            if self._progress is not None and self._task is not None:
                self._progress.update(self._task, total=1.0, completed=share)

    def _start(self) -> None:
        """Show the bar; without a share it only says that something is going on."""
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
        )

        with self._lock:
            if self._over:
                return
            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TaskProgressColumn(),
                TimeElapsedColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            total = None if self._share is None else 1.0
            self._task = self._progress.add_task(self._text, total=total)
            self._progress.update(self._task, completed=self._share or 0.0)
            self._progress.start()
