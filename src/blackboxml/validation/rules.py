"""All checks, in the order in which they build on each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from blackboxml.validation.attempt import check_attempts
from blackboxml.validation.config import check_config
from blackboxml.validation.integrity import check_files, check_sums
from blackboxml.validation.journal import check_headers, check_lines, check_tails
from blackboxml.validation.layout import check_entries as check_layout
from blackboxml.validation.layout import check_journal_names
from blackboxml.validation.life import check_life
from blackboxml.validation.manifest import check_manifest
from blackboxml.validation.media import check_media
from blackboxml.validation.media_history import check_media_history
from blackboxml.validation.merge import check_history, check_sessions
from blackboxml.validation.repaired import check_repaired
from blackboxml.validation.sealing import check_entries, check_groups, check_listed, check_packed

if TYPE_CHECKING:
    from blackboxml.validation.subject import Check

CHECKS: Final[tuple[Check, ...]] = (
    check_manifest,
    check_layout,
    check_journal_names,
    check_config,
    check_headers,
    check_lines,
    check_life,
    check_tails,
    check_sessions,
    check_attempts,
    check_history,
    check_media,
    check_media_history,
    check_repaired,
    check_files,
    check_sums,
    check_listed,
    check_groups,
    check_entries,
    check_packed,
)

BASE: Final = frozenset(CHECKS[:7])
"""Checks that find out what the others go by; they run at every level."""
