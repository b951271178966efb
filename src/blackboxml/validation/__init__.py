"""Validation: which rules of the specification a run breaks, where, and what mends it.

A check looks after a few rules of one chapter and stands in the module of that name; `rules` lists
them in order. Nothing in the run is changed, no link is followed, and nothing outside is read.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from blackboxml import naming
from blackboxml.errors import NotARunError, UnsafePathError
from blackboxml.files import Directory
from blackboxml.model import LIMITS, MANIFEST, Limits
from blackboxml.validation.report import Report

if TYPE_CHECKING:
    from blackboxml.validation.subject import Subject

__all__ = ["Report", "validate"]

logger = logging.getLogger("blackboxml")

_TRIES = 3
"""How often a run is looked at that changes meanwhile."""


def validate(path: str | os.PathLike[str], limits: Limits = LIMITS) -> Report:
    """Check a run against the specification, whatever its state: live, crashed, sealed or packed.

    What the directory holds never makes this raise. A run that a writer goes on with is looked at
    as it stands: a torn tail or a missing seal is no fault.

    Args:
        path: A run directory, or its `run.json`.
        limits: What to accept from a file before refusing to look further.

    Returns:
        A report; `report.ok` tells whether the run is valid.

    Raises:
        NotARunError: If there is no run at `path`.

    >>> import tempfile
    >>> from blackboxml import Run, validate
    >>> with Run("demo", log_dir=tempfile.mkdtemp()) as run:
    ...     run.log({"train/loss": 0.5})
    >>> validate(run.path).ok
    True
    """
    place = Path(path)
    with Directory(place.parent if place.name == MANIFEST else place) as directory:
        report = Report(directory.path)
        for _ in range(_TRIES):
            before = _state(directory)
            report = _validate(directory, limits)
            if not report.problems or _state(directory) == before:
                break
        return report


def _validate(directory: Directory, limits: Limits) -> Report:
    """Run all checks once."""
    from blackboxml.validation.rules import CHECKS
    from blackboxml.validation.subject import RULES, Subject

    checked: set[str] = set()
    with contextlib.ExitStack() as stack:
        subject = Subject(directory, limits, stack)
        for check in CHECKS:
            try:
                looked = check(subject)
            except Exception as error:
                logger.debug("%s of %s failed", check.__name__, directory.path, exc_info=True)
                message = f"what is there could not be checked: {type(error).__name__}: {error}"
                subject.report(RULES[check][0], message[:300], cure="restore it from a backup")
                looked = True
            if looked:
                checked.update(RULES[check])
            if check is CHECKS[0]:
                _require_run(subject)
                if any(each.rule in ("BB-VER-001", "BB-VER-006") for each in subject.problems):
                    break  # a manifest that is refused refuses the run
        return Report(directory.path, subject.problems.whole(), sorted(checked))


def _require_run(subject: Subject) -> None:
    """Refuse a directory that nothing shows to be a run.

    Raises:
        NotARunError: If there is neither a manifest, be it damaged, nor a journal with a header.
    """
    from blackboxml.validation.integrity import differs_from_sums
    from blackboxml.validation.journal import read_first_line

    directory = subject.directory
    if subject.manifest is not None or _is_damaged(subject) or differs_from_sums(subject):
        return
    for name in directory.names():
        if naming.parse_journal_name(name) is None:
            continue
        header = read_first_line(subject, name)
        form = None if header is None else header.get("format")
        if isinstance(form, dict) and form.get("name") == "blackbox-journal":
            return
    message = f"{directory.path} holds neither the manifest nor a journal of a run"
    raise NotARunError(errno.ENOENT, message, str(directory.path))


def _is_damaged(subject: Subject) -> bool:
    """Tell whether there is a manifest that names this format, or that damage made unreadable."""
    from blackboxml.validation.document import parse

    try:
        data = subject.directory.read(MANIFEST, subject.limits.manifest_bytes)
        document = parse(data, subject.limits.depth)
    except FileNotFoundError:
        return False
    except (OSError, UnsafePathError, ValueError):
        return True
    form = document.get("format") if isinstance(document, dict) else None
    return isinstance(form, dict) and form.get("name") == "blackbox-run"


def _state(directory: Directory) -> tuple[object, ...]:
    """Return what differs once a writer or a sealer has replaced or added a file."""
    try:
        found = os.stat(MANIFEST, dir_fd=directory.fd, follow_symlinks=False)
    except OSError:
        return (directory.names(),)
    return found.st_ino, found.st_mtime_ns, directory.names()
