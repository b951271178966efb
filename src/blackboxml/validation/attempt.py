"""What the manifest says of the run, against what it says of its attempts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from blackboxml.manifest import seconds
from blackboxml.model import MANIFEST
from blackboxml.validation.document import equal, pointer
from blackboxml.validation.subject import checks

if TYPE_CHECKING:
    from blackboxml.manifest import Manifest
    from blackboxml.validation.subject import Subject

_RULES = ("BB-MAN-018", "BB-MAN-019", "BB-MAN-020")
_TOLERANCE: Final = 0.001
"""Seconds by which a duration may differ: times are rounded."""


@checks("structure", *_RULES)
def check_attempts(subject: Subject) -> None:
    """Check that the run begins and ends with its attempts."""
    manifest = subject.manifest
    if manifest is None:
        if MANIFEST in subject.files:
            subject.skip(f"{MANIFEST} is not valid", *_RULES)
        return
    _check_duration(subject, manifest)
    attempts = manifest["attempts"]
    if not attempts:
        return
    subject.look("BB-MAN-018", "BB-MAN-020")
    for key, entry in (
        ("start", attempts[0]),
        ("status", attempts[-1]),
        ("end", attempts[-1]),
        ("exception", attempts[-1]),
    ):
        found, wanted = manifest.get(key), entry.get(key)
        if not equal(found, wanted):
            message = f"{found!r:.80}, but attempt {entry['attempt']} has {wanted!r:.80}"
            where = pointer([key])
            subject.report("BB-MAN-018", message, MANIFEST, pointer=where, cure=subject.cure)
    for at in range(1, len(attempts)):
        before, number = attempts[at - 1]["attempt"], attempts[at]["attempt"]
        if number <= before:
            message = f"attempt {number} follows attempt {before}"
            where = pointer(["attempts", at, "attempt"])
            subject.report("BB-MAN-020", message, MANIFEST, pointer=where, cure=subject.cure)


def _check_duration(subject: Subject, manifest: Manifest) -> None:
    """Check that the duration is that from start to end."""
    if "duration_seconds" not in manifest or "end" not in manifest:
        return
    subject.look("BB-MAN-019")
    try:
        wanted = max(0.0, seconds(manifest["end"]) - seconds(manifest["start"]))
    except (ValueError, OverflowError):
        return  # said with the times
    found = manifest["duration_seconds"]
    if abs(found - wanted) > _TOLERANCE:
        message = f"{found}, but from `start` to `end` are {wanted:.6f}"
        where = "/duration_seconds"
        subject.report("BB-MAN-019", message, MANIFEST, pointer=where, cure=subject.cure)
