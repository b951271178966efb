"""Which runs the arguments of a command mean."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from blackboxml.errors import NotARunError
from blackboxml.model import MANIFEST

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def find(text: str, log_dir: str) -> Path:
    """Return the run that is meant: a path, a directory's name, or a run's name.

    Raises:
        NotARunError: Saying where was looked.
    """
    from blackboxml.cli.overview import newest_legacy_run
    from blackboxml.collection import looks_like_run, newest_run

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


def runs_at(paths: Sequence[str]) -> Iterator[Path]:
    """Yield each path, or the runs below it if it is none itself."""
    from blackboxml.collection import find_runs, looks_like_run

    for text in paths:
        path = Path(text).parent if Path(text).name == MANIFEST else Path(text)
        below = [] if looks_like_run(path) else list(find_runs(path))
        yield from below or [path]


def bytes_below(path: Path) -> int:
    """Return how much room the files of a run take."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total
