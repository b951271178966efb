"""Which runs the arguments of a command mean."""

from __future__ import annotations

import contextlib
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from blackboxml.errors import BlackboxError, NotARunError
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
    """Yield the runs that paths mean, each once.

    A run means itself, another folder the runs below it, and a file the run that holds it. A path
    that means none is yielded as it stands.
    """
    from blackboxml.collection import find_runs, looks_like_run

    found: dict[Path, None] = {}
    for text in paths:
        path = Path(text)
        if path.is_dir():
            below = [] if looks_like_run(path) else list(find_runs(path))
        else:
            below = list(holders(path))[:1]
        for run in below or [path]:
            if run not in found:
                found[run] = None
                yield run


def runs_containing(paths: Sequence[str]) -> Iterator[Path]:
    """Yield the runs that hold files, each once; files outside of runs mean none."""
    found: dict[Path, None] = {}
    for text in paths:
        for run in holders(Path(text)):
            if run not in found:
                found[run] = None
                yield run


def holders(path: Path) -> Iterator[Path]:
    """Yield the runs that a file is in, the innermost first."""
    from blackboxml.collection import looks_like_run

    for folder in path.parents:
        if looks_like_run(folder) and _is_run(folder):
            yield folder


@cache
def _is_run(folder: Path) -> bool:
    """Tell whether the content of a folder shows that it is a run, be it a damaged one.

    Other tools write files with the names of ours.
    """
    from blackboxml.reader import open_run

    try:
        open_run(folder)
    except NotARunError:
        return False
    except (BlackboxError, OSError):
        return True
    return True


def bytes_below(path: Path) -> int:
    """Return how much room the files of a run take."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total
