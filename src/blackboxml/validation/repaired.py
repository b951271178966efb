"""What journals state as lost since a repair."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blackboxml.base import naming
from blackboxml.errors import JournalError, UnsupportedVersionError
from blackboxml.journal import read_header
from blackboxml.model import JOURNAL_FORMAT, MEDIA_FORMAT
from blackboxml.validation.journal import read_first_line
from blackboxml.validation.subject import checks

if TYPE_CHECKING:
    from blackboxml.model import Losses
    from blackboxml.validation.subject import Subject


@checks("structure", "BB-REP-007")
def check_repaired(subject: Subject) -> None:
    """Report each journal that states a loss."""
    for name in subject.files:
        if naming.parse_journal_name(name) is not None:
            form = JOURNAL_FORMAT
        elif naming.parse_journal_name(name, "media") is not None:
            form = MEDIA_FORMAT
        else:
            continue
        document = None if name in subject.hidden else read_first_line(subject, name)
        if document is None:
            continue
        try:
            losses = read_header(document, name=form).losses
        except (JournalError, UnsupportedVersionError):
            continue
        subject.look("BB-REP-007")
        if losses:
            message = f"a repair has stated as lost: {_describe(losses)}"
            subject.report("BB-REP-007", message, name, severity="warning", line=1, offset=0)


def _describe(losses: Losses) -> str:
    """Return losses in words."""
    parts = []
    if losses.lost:
        number = sum(last - first + 1 for first, last in losses.lost)
        parts.append(f"{number:,} record{'s' * (number != 1)} from seq {losses.lost[0][0]} on")
    if losses.lost_from is not None:
        parts.append(f"whatever came from seq {losses.lost_from} on")
    if losses.partial:
        parts.append(f"values of records from seq {losses.partial[0][0]} on")
    if losses.damaged:
        parts.append(f"{len(losses.damaged):,} files")
    if losses.assumed:
        parts.append(f"{', '.join(losses.assumed)} of the header")
    return "; ".join(parts)
