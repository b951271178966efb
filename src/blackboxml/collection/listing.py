"""What lies in a folder, where runs are looked for: links are not followed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from blackboxml.base.files import is_hidden
from blackboxml.model import SCRATCH

if TYPE_CHECKING:
    from collections.abc import Callable

    Folder = str | os.PathLike[str]


def names_in(path: Folder) -> list[str]:
    """Return all names in a folder; none where there is no folder, or this user may not list it.

    Raises:
        OSError: If the file system refuses to list it for another reason.
    """
    return _listed(os.listdir, path)


def folders_in(path: Folder) -> list[str]:
    """Return the names of the folders in which runs may be, in byte order, as `names_in` does."""
    return sorted(_listed(_folders, path))


def _folders(path: Folder) -> list[str]:
    with os.scandir(path) as found:
        return [
            entry.name
            for entry in found
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(SCRATCH)
        ]


def _listed(names: Callable[[Folder], list[str]], path: Folder) -> list[str]:
    try:
        return names(path)
    except OSError as error:
        if is_hidden(error):
            raise
        return []
