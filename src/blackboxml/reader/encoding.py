"""From which files of a run a reader takes its answers, and whether they have changed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from blackboxml.journal.merge import journal_sizes
from blackboxml.model import MANIFEST

if TYPE_CHECKING:
    from blackboxml.base.files import Directory
    from blackboxml.manifest import Manifest


def tables_are_better(directory: Directory, manifest: Manifest) -> bool:
    """Tell whether a sealed journal was damaged since, is gone or refused, and no table is."""
    from blackboxml.seal.sums import is_unchanged

    def is_whole(name: str) -> bool:
        try:
            return is_unchanged(directory, name, manifest["files"])
        except OSError:
            return False

    journals = [entry["file"] for entry in manifest["journals"]]
    tables = [group["table"] for group in manifest["groups"].values()]
    return not all(map(is_whole, journals)) and all(map(is_whole, tables))


def state_of(directory: Directory) -> tuple[Any, ...]:
    """Return what changes when a run changes: its manifest, and the sizes of its journals."""
    try:
        manifest = os.stat(MANIFEST, dir_fd=directory.fd, follow_symlinks=False)
        stamp = (manifest.st_ino, manifest.st_size, manifest.st_mtime_ns)
    except OSError:
        stamp = (0, 0, 0)
    return stamp, journal_sizes(directory)
