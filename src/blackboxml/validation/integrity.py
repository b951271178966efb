"""Sizes and digests: those of `SHA256SUMS`, and those of `files` in the manifest."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

from blackboxml.base.files import check_relative
from blackboxml.errors import UnsafePathError
from blackboxml.model import MANIFEST, SUMS
from blackboxml.validation.subject import checks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blackboxml.validation.subject import Subject

_LINE = re.compile(rb"([0-9a-f]{64})  ([^\n]+)")
_BLOCK: Final = 2**20
_LONGEST: Final = 2**14


@checks("integrity", "BB-INT-009")
def check_files(subject: Subject) -> None:
    """Compare every size and digest of the manifest with its file."""
    sealed = subject.sealed
    if sealed is None:
        if subject.manifest is None and MANIFEST in subject.files:
            subject.skip(f"{MANIFEST} is not valid", "BB-INT-009")
        return
    subject.look("BB-INT-009")
    for name, entry in sealed["files"].items():
        found = _look(subject, name, MANIFEST)
        if found is None:
            continue
        size, digest = found
        if size != entry["bytes"]:
            message = f"it has {size:,} bytes, {MANIFEST} says {entry['bytes']:,}"
        elif entry.get("sha256", digest) != digest:
            message = f"its SHA-256 is {digest}, {MANIFEST} says {entry['sha256']}"
        else:
            continue
        subject.changed.add(name)
        subject.report("BB-INT-009", message, name, cure=subject.cure)


_SUMS = ("BB-INT-001", "BB-INT-002", "BB-INT-003", "BB-INT-010")


@checks("integrity", "BB-INT-009")
@checks("structure", *_SUMS, "BB-LAY-006", "BB-MAN-006")
def check_sums(subject: Subject) -> None:
    """Check the form of `SHA256SUMS`, and every digest in it."""
    sealed = subject.sealed
    if sealed is not None:
        subject.look("BB-INT-003", "BB-INT-010")
    elif subject.manifest is None and MANIFEST in subject.files:
        subject.skip(f"{MANIFEST} is not valid", "BB-INT-003", "BB-INT-010")
    if SUMS not in subject.files:
        if sealed is not None and SUMS not in subject.directory.names():
            message = "it is missing, though the run is sealed"
            subject.report("BB-INT-003", message, SUMS, cure=subject.cure)
            subject.skip(f"{SUMS} is missing", "BB-INT-010")
        return
    if subject.manifest is not None and sealed is None:
        return  # of before a resume: it no longer counts
    subject.look("BB-INT-001", "BB-INT-002", "BB-INT-009")
    try:
        listed = _check_lines(subject)
    except PermissionError as error:
        subject.skip(subject.refuse(SUMS, error), *_SUMS)
        return
    if sealed is None:
        return
    _compare_lists(subject, sealed["files"].keys() | {MANIFEST}, listed)


def _compare_lists(subject: Subject, files: set[str], listed: set[str]) -> None:
    """Compare what the sums list with what the manifest lists, and with what is there."""
    for name in sorted(files - listed):
        subject.report("BB-INT-003", f"{name} is not listed", SUMS, cure=subject.cure)
    for name in sorted(listed - files):
        message = f"{name} is listed here, but not among `files` of {MANIFEST}"
        subject.report("BB-MAN-006", message, SUMS, cure=subject.cure)
    for name in sorted(subject.files.keys() - listed - files - {SUMS}):
        message = f"{SUMS} does not list it: it came after sealing, and nothing vouches for it"
        subject.report("BB-INT-010", message, name, severity="warning")


def differs_from_sums(subject: Subject) -> bool:
    """Tell whether there is a `run.json` that is not the one that `SHA256SUMS` lists.

    In a packed run nothing else is left to show that it was a manifest.
    """
    try:
        found = subject.digest(MANIFEST)[1]
        for line in _lines(subject):
            match = _LINE.fullmatch(line.removesuffix(b"\n"))
            if match is not None and match[2] == MANIFEST.encode():
                return match[1] != found.encode()
    except (OSError, UnsafePathError):
        return False
    return False


def _check_lines(subject: Subject) -> set[str]:
    """Check each line; return the paths."""
    listed: set[str] = set()
    previous = ""
    for number, line in enumerate(_lines(subject), start=1):
        match = _LINE.fullmatch(line.removesuffix(b"\n"))
        if match is None or not line.endswith(b"\n"):
            message = "not a line of 64 hexadecimal digits, two spaces, a path and LF"
            subject.report("BB-INT-001", message, SUMS, line=number, cure=subject.cure)
            continue
        stated = match[1].decode()
        name = match[2].decode(errors="backslashreplace")
        try:
            check_relative(name)
        except UnsafePathError as error:
            subject.report("BB-LAY-006", str(error), SUMS, line=number)
            continue
        if name <= previous:
            message = f"{name} comes after {previous}; wanted by path, each once"
            subject.report("BB-INT-002", message, SUMS, line=number, cure=subject.cure)
        previous = name
        listed.add(name)
        if not subject.asks("BB-INT-009"):
            continue
        found = _look(subject, name, SUMS)
        if found is not None and found[1] != stated and name not in subject.changed:
            message = f"its SHA-256 is {found[1]}, {SUMS} says {stated}"
            subject.report("BB-INT-009", message, name, cure=subject.cure)
            subject.changed.add(name)
    return listed


def _look(subject: Subject, name: str, source: str) -> tuple[int, str] | None:
    """Return size and SHA-256 of a file; None, and a report, if there is none to read."""
    if name in subject.changed:
        return None
    try:
        return subject.digest(name)
    except FileNotFoundError:
        message = f"it is missing, {source} lists it"
    except UnsafePathError as error:
        message = f"it cannot be read: {error}"
    except OSError as error:
        subject.skip(subject.refuse(name, error), "BB-INT-009")
        return None
    subject.changed.add(name)
    subject.report("BB-INT-009", message, name, cure=subject.cure)
    return None


def _lines(subject: Subject) -> Iterator[bytes]:
    """Yield the lines of `SHA256SUMS` with their LF; one that is too long comes in pieces."""
    rest = b""
    with subject.directory.reading(SUMS) as descriptor:
        while part := os.read(descriptor, _BLOCK):
            *lines, rest = (rest + part).split(b"\n")
            yield from (line + b"\n" for line in lines)
            while len(rest) > _LONGEST:
                yield rest[:_LONGEST]
                rest = rest[_LONGEST:]
    if rest:
        yield rest
