"""What the command line prints, and how: results to standard output, remarks to standard error."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import TracebackType

    from rich.console import RenderableType
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from blackboxml.errors import Problem

_BAR_AFTER_SECONDS = 2.0
_WIDE = 10_000


def console(width: int | None = None) -> Any:
    """Return a console for standard output; into a pipe nothing is cut or wrapped."""
    from rich.console import Console

    if width is None and not sys.stdout.isatty():
        width = _WIDE
    return Console(
        file=sys.stdout, width=width, markup=False, emoji=False, highlight=False, soft_wrap=False
    )


def show(renderable: RenderableType, width: int | None = None) -> None:
    """Print a table or a plot without the blanks at the ends of its lines."""
    screen = console(width)
    with screen.capture() as captured:
        screen.print(renderable)
    print("\n".join(line.rstrip() for line in captured.get().split("\n")).rstrip("\n"))


def plain_text(renderable: RenderableType) -> str:
    """Return a table or a plot as a file holds it: without colours, nothing cut or wrapped."""
    from rich.console import Console

    screen = Console(width=_WIDE, markup=False, emoji=False, highlight=False, color_system=None)
    with screen.capture() as captured:
        screen.print(renderable)
    return "\n".join(line.rstrip() for line in captured.get().split("\n")).rstrip("\n")


def print_json(document: Any) -> None:
    """Print one JSON document, coloured on a terminal."""
    from blackboxml.cli import terminal

    text = terminal.dumps(document, ascii_only=is_ascii())
    if sys.stdout.isatty():
        from rich.highlighter import JSONHighlighter

        screen = console()
        with screen.capture() as captured:
            screen.print(JSONHighlighter()(text), soft_wrap=True)
        text = captured.get().rstrip("\n")
    print(text)


def print_problems(problems: Iterable[Problem]) -> None:
    """Print findings, each with its cure."""
    from blackboxml.cli import terminal

    for problem in problems:
        print(terminal.safe(problem))
        if problem.cure:
            print(f"    cure: {terminal.safe(problem.cure)}")


def complain(error: Exception) -> None:
    """Print an error."""
    from blackboxml.cli.overview import reason

    note(f"error: {reason(error)}")


def note(text: str) -> None:
    """Print a remark that is not a result."""
    from blackboxml.cli import terminal

    print(f"blackbox: {terminal.safe(text)}", file=sys.stderr)


def is_ascii() -> bool:
    """Tell whether standard output cannot take all characters."""
    return "utf" not in (sys.stdout.encoding or "utf-8").lower()


@contextlib.contextmanager
def warnings_shown() -> Iterator[None]:
    """Print what the library warns of."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            note(f"{record.levelname.lower()}: {record.getMessage()}")

    logger = logging.getLogger("blackboxml")
    handler = Handler(logging.WARNING)
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


class Progress:
    """A bar on the terminal for work that takes longer than two seconds, and nothing elsewhere."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._lock = threading.Lock()
        self._progress: Bar | None = None
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

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Let something else be printed: the bar goes away meanwhile."""
        with self._lock:
            if self._progress is not None:
                self._progress.stop()
            try:
                yield
            finally:
                if self._progress is not None:
                    self._progress.start()

    def _start(self) -> None:
        """Show the bar; without a share it only says that something is going on."""
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
        )
        from rich.progress import Progress as Bar

        with self._lock:
            if self._over:
                return
            self._progress = Bar(
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
