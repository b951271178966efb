"""Many runs: what lies below a folder."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from blackboxml import manifest as manifests
from blackboxml.base import naming
from blackboxml.errors import BlackboxError
from blackboxml.model import MANIFEST, SCRATCH
from blackboxml.reader import open_run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blackboxml.reader import RunReader


def find_runs(root: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield the directories below a folder that look like runs, in byte order, links not followed.

    A run is not searched for further runs. Whether it is readable is for `open_run` to say.
    """
    try:
        entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    for entry in entries:
        if entry.name.startswith(SCRATCH) or not entry.is_dir(follow_symlinks=False):
            continue
        if looks_like_run(entry.path):
            yield Path(entry.path)
        else:
            yield from find_runs(entry.path)


def open_runs(
    root: str | os.PathLike[str],
) -> Iterator[tuple[Path, RunReader | BlackboxError | OSError]]:
    """Yield every run below a folder, or why it cannot be read."""
    for path in find_runs(root):
        try:
            yield path, open_run(path)
        except (BlackboxError, OSError) as error:
            yield path, error


def newest_run(root: str | os.PathLike[str], name: str) -> Path | None:
    """Return the run of a name that began last, or None if there is none.

    Args:
        root: Folder of runs.
        name: The name as it was given, not the name of the directory.
    """
    found: list[tuple[float, Path]] = []
    for path, reader in open_runs(root):
        if not isinstance(reader, BlackboxError | OSError) and reader.name == name:
            with suppress(ValueError):  # a damaged manifest must not hide the other runs
                found.append((manifests.seconds(reader.manifest["start"]), path))
    return max(found)[1] if found else None


def looks_like_run(path: str | os.PathLike[str]) -> bool:
    """Tell whether a directory has a manifest or a journal."""
    try:
        names = os.listdir(path)
    except OSError:
        return False
    return MANIFEST in names or any(naming.parse_journal_name(name) for name in names)
