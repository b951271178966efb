"""Where exported tables lie: one file, or a folder with a file for each group of a run.

A place is written anew only where it holds an export of the same run, and whole or not at all.
"""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from blackboxml.base.files import raise_refusal
from blackboxml.base.naming import distinct, file_stems
from blackboxml.errors import ConversionError
from blackboxml.model import SCRATCH

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from pathlib import Path

    from blackboxml.foreign.tabular import Plan
    from blackboxml.reader import RunReader


def tables(path: Path, suffixes: Collection[str]) -> list[Path]:
    """Return the files of a folder that have one of the suffixes, in byte order; of a file itself.

    Links are left out.
    """
    if not path.is_dir():
        return [path]
    found = (each for each in path.iterdir() if each.suffix in suffixes and not each.is_symlink())
    return sorted(each for each in found if each.is_file())


def write(
    run: RunReader,
    target: Path,
    suffixes: Sequence[str],
    plan: Plan,
    write_table: Callable[[Path, list[str]], None],
) -> Path:
    """Write the one file that a target names, or a folder in it; return which.

    Args:
        run: The run.
        target: What the user gave.
        suffixes: Those of a file; a new one gets the first.
        plan: Told where its table is one of several.
        write_table: Writes a table of some groups.

    Raises:
        ConversionError: If the target is a file and holds something else.
    """
    path = place(run, target, suffixes, "")
    if path == target and path.suffix in suffixes:
        new = scratch(path)
        write_table(new, list(run.groups))
        new.replace(path)
        return path
    plan.about["folder"] = True
    with renewed(path) as folder:
        for stem, groups in files(run).items():
            write_table(folder / f"{stem}{suffixes[0]}", groups)
    return path


def files(run: RunReader) -> dict[str, list[str]]:
    """Return the groups of each file of a folder, by its name without a suffix; at least one."""
    return {stem: [group] for group, stem in file_stems(run.groups).items()} or {"metrics": []}


@contextmanager
def renewed(path: Path) -> Iterator[Path]:
    """Give an empty folder, which takes the place of another when it is whole."""
    new = scratch(path)
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    yield new
    shutil.rmtree(path, ignore_errors=True)
    new.rename(path)


def place(run: RunReader, target: Path, suffixes: Collection[str], suffix: str) -> Path:
    """Return where a run goes: the target if it has a suffix, else a place of its own in it.

    Args:
        run: The run.
        target: What the user gave.
        suffixes: Those of a file.
        suffix: Of the place in a folder; empty for a folder.

    Raises:
        ConversionError: If the target is a file and holds something else.
    """
    if target.suffix in suffixes:
        if target.exists() and not holds(run, target):
            raise ConversionError(f"{target} holds something else; give another name, or a folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        return target
    target.mkdir(parents=True, exist_ok=True)

    def is_taken(name: str) -> bool:
        path = target / f"{name}{suffix}"
        return path.exists() and not holds(run, path)

    return target / f"{distinct(run.path.name, is_taken)}{suffix}"


def beside(path: Path) -> Path:
    """Return where the `about` of a file or folder is that cannot hold it itself."""
    return path / "about.json" if path.is_dir() else path.with_name(f"{path.name}.about.json")


def holds(run: RunReader, path: Path) -> bool:
    """Tell whether a place holds an export of a run: its id stands in an `about`."""
    below = path.iterdir() if path.is_dir() else [beside(path)]
    return any(run.id in _head(each) for each in (path, *below))


def _head(path: Path) -> str:
    """Return the beginning and the end of a file as text; empty if it is none."""
    try:
        with path.open("rb") as file:
            data = file.read(2**16)
            file.seek(max(0, path.stat().st_size - 2**20))
            return (data + file.read()).decode("latin-1")
    except OSError as error:
        raise_refusal(error)
        return ""


def scratch(path: Path) -> Path:
    """Return where something is written that is renamed when it is whole."""
    return path.with_name(f"{SCRATCH}{path.name}")
