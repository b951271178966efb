"""Files and folders as artifacts: which files there are, and references to what stays outside."""

from __future__ import annotations

import hashlib
import mimetypes
import os
import re
from pathlib import Path
from typing import Any, Final

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")


def list_files(source: str | os.PathLike[str]) -> list[tuple[str | None, Path]]:
    """Return a file, or all files of a folder, each with its path in that or None.

    Links to files stand for the files. The order is that of the paths.

    Raises:
        ValueError: If there is nothing, or a part of the folder is neither file nor folder, or is a
            link to a folder, which might lead back into itself.
        OSError: If a folder cannot be read.
    """
    place = Path(source)
    if place.is_file():
        return [(None, place)]
    if not place.is_dir():
        raise ValueError(f"there is no file and no folder {os.fspath(place)!r:.200}")
    found: list[tuple[str | None, Path]] = []
    for folder, folders, names in os.walk(place, onerror=_raise):
        folders.sort()
        links = [each for each in folders if Path(folder, each).is_symlink()]
        for name in sorted(names + links):
            path = Path(folder, name)
            if not path.is_file():
                what = "a link to a folder" if path.is_dir() else "neither a file nor a folder"
                raise ValueError(f"{os.fspath(path)!r:.200} is {what}; leave it out")
            found.append((path.relative_to(place).as_posix(), path))
    if not found:
        raise ValueError(f"the folder {os.fspath(place)!r:.200} is empty")
    return found


def _raise(error: OSError) -> None:
    """Let a folder that cannot be read be an error."""
    raise error


def media_type_of(path: str | os.PathLike[str]) -> str:
    """Return the media type of a file by its name."""
    return mimetypes.guess_type(os.fspath(path))[0] or "application/octet-stream"


def is_uri(source: object) -> bool:
    """Tell whether an artifact is named by a URI rather than by a path."""
    return isinstance(source, str) and _SCHEME.match(source) is not None


def refer_to(path: Path, *, digest: bool = True) -> dict[str, Any]:
    """Return a reference to a file.

    Args:
        path: The file.
        digest: Compute its SHA-256, which reads all of it.

    Raises:
        OSError: If it cannot be read.
    """
    place = path.absolute()
    with place.open("rb") as file:
        found: dict[str, Any] = {"uri": place.as_uri(), "bytes": os.fstat(file.fileno()).st_size}
        if digest:
            found["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    return found
