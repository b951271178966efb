"""The code of a run: what differs from the last commit, and the sources that were loaded.

Both become artifacts with digests, and secrets in them are hidden. They are taken when the run
starts: a module that is imported later is only in the commit, or in the difference to it.
"""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from blackboxml.base.environment import ask_git, read_git

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MOST_DIFF_BYTES: Final = 4 * 2**20
"""A larger difference is left out: cut, it could not be applied."""

MOST_SOURCE_BYTES: Final = 2**20
MOST_SOURCES: Final = 1000
MOST_TOTAL_BYTES: Final = 16 * 2**20
"""Bounds of one source, of their number and of all together; what exceeds them is left out."""

_TIME: Final = (1980, 1, 1, 0, 0, 0)
"""Equal sources make equal archives."""


def difference(mask: Callable[[str], str], cwd: Path, seconds: float) -> bytes | None:
    """Return the patch from the last commit to the work tree around `cwd`, untracked files not.

    Returns:
        The patch; nothing if there is no difference; None if git does not tell, or it is too large.
    """
    found = read_git(["diff", "HEAD", "--no-color", "--no-ext-diff"], cwd, seconds, MOST_DIFF_BYTES)
    return None if found is None else _masked(found, mask)


def sources(mask: Callable[[str], str], cwd: Path, seconds: float) -> bytes:
    """Return a zip archive of the program and the modules that it has loaded from its work tree.

    The work tree is that of git around the program, or else the folder of the program. Packages
    that are installed are left out. There is nothing of a prompt or a notebook.
    """
    archive = io.BytesIO()
    room = MOST_TOTAL_BYTES
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for name, path in sorted(set(_loaded(cwd, seconds)))[:MOST_SOURCES]:
            try:
                data = path.read_bytes() if path.stat().st_size <= MOST_SOURCE_BYTES else None
            except OSError:
                continue
            if data is not None and len(data) <= room:
                room -= len(data)
                entry = zipfile.ZipInfo(name, _TIME)
                entry.compress_type = zipfile.ZIP_DEFLATED
                file.writestr(entry, _masked(data, mask))
        kept = file.namelist()
    return archive.getvalue() if kept else b""


def _loaded(cwd: Path, seconds: float) -> Iterator[tuple[str, Path]]:
    """Yield the names in the work tree and the places of the sources that were loaded."""
    program = getattr(sys.modules.get("__main__"), "__file__", None)
    if program is None:
        return
    folder = Path(cwd, program).resolve().parent
    top = ask_git(["rev-parse", "--show-toplevel"], folder, seconds)
    root = Path(top).resolve() if top else folder
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if not isinstance(file, str) or not file.endswith(".py"):
            continue
        path = Path(cwd, file).resolve()
        if path.is_relative_to(root) and not {"site-packages", "dist-packages"} & set(path.parts):
            yield path.relative_to(root).as_posix(), path


def _masked(data: bytes, mask: Callable[[str], str]) -> bytes:
    """Return text without secrets; bytes that are no UTF-8 stay as they are."""
    return mask(data.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
