"""Many media journals as one history: what the merge of metrics journals asks for, of media."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blackboxml.base import naming
from blackboxml.errors import UnsupportedVersionError
from blackboxml.journal.merge import find_journals
from blackboxml.validation.merge import check_copies, check_ordinals, check_process
from blackboxml.validation.subject import Visible, checks

if TYPE_CHECKING:
    from blackboxml.errors import Problem
    from blackboxml.model import JournalFile
    from blackboxml.validation.subject import Subject

_SEVERAL = ("BB-MRG-004", "BB-MRG-005")
_LOSSES = frozenset(["BB-MRG-001", "BB-REP-007"])
"""What is said of the sequence of an attempt; what a journal says by itself was said before."""


@checks("structure", "BB-MRG-001", "BB-MRG-002", *_SEVERAL)
def check_media_history(subject: Subject) -> None:
    """Check the media journals of each rank against each other."""
    names = [name for name in subject.files if naming.parse_journal_name(name, "media") is not None]
    if not names:
        return
    hidden = {name: why for name, why in subject.hidden.items() if name in names}
    for why in hidden.values():
        subject.skip(why, "BB-MRG-001", "BB-MRG-002", *_SEVERAL)
    subject.look("BB-MRG-001", "BB-MRG-002")
    check_ordinals(subject, "media")
    stated = None if subject.manifest is None else subject.manifest["id"]
    visible = subject.stack.enter_context(Visible(subject.directory, set(hidden)))
    found: list[Problem] = []
    try:
        journals = find_journals(visible, subject.limits, found, stated, stem="media")
    except UnsupportedVersionError:
        return  # said with the headers
    for problem in found:
        if problem.rule in _LOSSES and not hidden:
            subject.problems.append(problem)
    sessions: dict[tuple[int, int], dict[str, JournalFile]] = {}
    for journal in journals:
        sessions.setdefault((journal.attempt, journal.rank), {})[journal.name] = journal
    for session in sessions.values():
        if len(session) > 1:
            subject.look(*_SEVERAL)
            in_order = sorted(session.values(), key=lambda each: each.ordinal)
            check_process(subject, in_order)
            check_copies(subject, in_order)
