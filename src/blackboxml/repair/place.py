"""A mended run put in place of the damaged one, file by file, safe to be killed at any instant.

What changes is kept aside first. Journals come next, as they are the truth; what goes is removed;
then come the manifest, what is made from journals, and the checksums. A repair that is killed in
between leaves a run that the next repair brings to the same end: no step takes away what a later
one needs.
"""

from __future__ import annotations

import os
import stat
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from blackboxml.base.naming import parse_journal_name
from blackboxml.errors import RepairError
from blackboxml.model import MANIFEST, SUMS
from blackboxml.repair.build import ASIDE
from blackboxml.repair.case import entries_below, scratch_below

if TYPE_CHECKING:
    from pathlib import Path

    from blackboxml.base.files import Directory


def put_in_place(directory: Directory, place: Path) -> list[str]:
    """Bring the files of a mended run into the damaged one; return those that differ.

    Args:
        directory: The damaged run.
        place: The mended one, a scratch folder inside it.
    """
    from blackboxml.base.files import Directory as Opened

    with Opened(place) as mended:
        entries = dict(entries_below(mended))
        files = [name for name, mode in entries.items() if stat.S_ISREG(mode)]
        new = [name for name in files if not _is_same(directory.path / name, place / name)]
        kept = [name for name in new if name.startswith(f"{ASIDE}/")]
        moved = sorted(set(new) - set(kept), key=_order)
        _refuse_links(directory, new)
        for name in kept:
            _move(directory, place, name)
        _sync_folders(directory, kept)
        gone = [name for name, mode in entries_below(directory) if name not in entries]
        journals = [name for name in moved if _order(name) < _order(MANIFEST)]
        for name in journals:
            _move(directory, place, name)
        directory.sync()
        for name in gone:
            if not _is_folder(directory.path / name):
                os.unlink(directory.path / name)
        directory.sync()
        for name in moved[len(journals) :]:
            if name != SUMS:
                _move(directory, place, name)
                _sync_folders(directory, [name])
        if SUMS in moved:
            _move(directory, place, SUMS)
            directory.sync()
    for name in list(scratch_below(directory)):
        directory.remove(name)
    directory.sync()
    return moved + gone


def _refuse_links(directory: Directory, names: list[str]) -> None:
    """Refuse to write into a folder that is a link, or no folder: nothing outside is changed.

    Raises:
        RepairError: Naming it.
    """
    folders = {parent for name in names for parent in PurePosixPath(name).parents}
    for folder in sorted(folders - {PurePosixPath()}):
        place = directory.path / folder
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            message = f"{place} is in the way: rename it, it is to be a folder"
            raise RepairError(message)


def _order(name: str) -> tuple[int, str]:
    """Return the place of a file in the order of replacement."""
    if parse_journal_name(name) is not None:
        return 0, name
    if parse_journal_name(name, "media") is not None:
        return 1, name
    return 2 + (name != MANIFEST), "" if name == MANIFEST else name


def _move(directory: Directory, place: Path, name: str) -> None:
    """Bring one file to its place."""
    target = directory.path / name
    if "/" in name:
        target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(place / name, target)


def _sync_folders(directory: Directory, names: list[str]) -> None:
    """Make the names of files durable."""
    folders = {str(parent) for name in names for parent in PurePosixPath(name).parents} - {"."}
    for folder in sorted(folders, reverse=True):
        descriptor = os.open(directory.path / folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    directory.sync()


def _is_folder(path: Path) -> bool:
    return stat.S_ISDIR(os.lstat(path).st_mode)


def _is_same(old: Path, new: Path) -> bool:
    """Tell whether two files are one, or hold the same."""
    try:
        left, right = os.lstat(old), os.lstat(new)
    except FileNotFoundError:
        return False
    if os.path.samestat(left, right):
        return True
    if not stat.S_ISREG(left.st_mode) or left.st_size != right.st_size:
        return False
    with old.open("rb") as one, new.open("rb") as other:
        while part := one.read(2**20):
            if part != other.read(2**20):
                return False
    return True
