"""Whether the run has ended in order: the one thing that is asked of the process table too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blackboxml.manifest.status import ENDED, determine
from blackboxml.validation.subject import checks

if TYPE_CHECKING:
    from blackboxml.validation.subject import Subject


@checks("schema")
def check_life(subject: Subject) -> None:
    """Find out why the run has not ended in order; no rule is broken by that."""
    manifest = subject.manifest
    if subject.sealed is not None:
        return
    stated = {"status": "running", "attempts": []} if manifest is None else manifest
    if not subject.journals and stated["status"] in ENDED:
        return
    found = determine(subject.directory, stated, subject.journals)
    if found.status not in ENDED:
        subject.life = f"{found.status}: {found.reason}"
