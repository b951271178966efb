"""What the specification publishes for readers in any language: schemas and the catalogue of rules.

It stands at the root of the repository and ships inside the package; an editable install finds the
one, a wheel the other.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

from blackboxml.errors import BlackboxError

VERSION: Final = "1.0"
"""Version of the specification."""


@cache
def folder(name: str) -> Path:
    """Return the folder of this version of `schemas` or `spec`.

    Raises:
        BlackboxError: The installation lacks it.
    """
    here = Path(__file__).resolve()
    for parent in (here.parent, here.parents[2]):
        candidate = parent / name / VERSION
        if candidate.is_dir():
            return candidate
    raise BlackboxError(
        f"{here.parent}: the {name} of version {VERSION} are not installed; "
        "mend it with: pip install --force-reinstall blackboxml"
    )
