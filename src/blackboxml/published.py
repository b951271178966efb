"""What the specification publishes for readers in any language: schemas and the catalogue of rules.

It stands at the root of the repository and ships inside the package; an editable install finds the
one, a wheel the other. Each minor version has a folder of its own: `schemas/1.0`, `spec/1.0`.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from blackboxml.errors import BlackboxError

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION: Final = "1.0"
"""Version of the specification: the one that is written, and the newest that is read."""

_HERE: Final = Path(__file__).resolve()
_roots: Final = [_HERE.parent, _HERE.parents[2]]
_known: Final = [VERSION]
"""Minor versions of one major version, oldest first; a later one is added, with its folders."""


def newest() -> str:
    """Return the newest version that readers and validators know."""
    return _known[-1]


def judge_of(version: object) -> str:
    """Return the version by which a document of some version is judged.

    That is its own: what a later one says of a new member must not make an old run invalid. A
    version that is not known is judged by the newest that is.
    """
    return str(version) if version in _known else newest()


def is_newer(version: str) -> bool:
    """Tell whether a version has the major number of those known and a greater minor one.

    >>> is_newer("1.0"), is_newer("1.10"), is_newer("2.0")
    (False, True, False)
    """
    major, _, minor = version.partition(".")
    own, _, most = newest().partition(".")
    return major == own and minor.isdecimal() and int(minor) > int(most)


def folder(name: str, version: str | None = None) -> Path:
    """Return the folder of `schemas` or `spec` of a version.

    Args:
        name: Which one.
        version: The version, None for the newest that is known.

    Raises:
        BlackboxError: The installation lacks it.
    """
    return _folder(name, version or newest())


@cache
def _folder(name: str, version: str) -> Path:
    for parent in _roots:
        candidate = parent / name / version
        if candidate.is_dir():
            return candidate
    raise BlackboxError(
        f"{_HERE.parent}: the {name} of version {version} are not installed; "
        "mend it with: pip install --force-reinstall blackboxml"
    )


@contextmanager
def _draft(version: str, root: Path) -> Iterator[None]:
    """Know a version that is not published yet, with its folders below a root; nothing writes it.

    The tests of a later minor version begin here.
    """
    _known.append(version)
    _roots.append(root)
    try:
        yield
    finally:
        _known.remove(version)
        _roots.remove(root)
        _folder.cache_clear()
