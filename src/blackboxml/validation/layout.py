"""Names, links and special files. No link is followed and nothing special is opened."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from blackboxml.base import naming
from blackboxml.base.files import check_relative
from blackboxml.errors import JournalError, UnsafePathError
from blackboxml.journal import decode
from blackboxml.model import JOURNAL_FORMAT, SCRATCH
from blackboxml.validation.subject import checks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blackboxml.base.files import Directory
    from blackboxml.validation.subject import Subject

_DEVICES = frozenset(
    ["con", "prn", "aux", "nul"]
    + [f"{device}{digit}" for device in ("com", "lpt") for digit in range(10)]
)
_JOURNAL_FORMATS = (JOURNAL_FORMAT, "blackbox-media")


_ENTRIES = ("BB-LAY-009", "BB-LAY-006", "BB-LAY-007", "BB-LAY-008", "BB-LAY-013", "BB-LIM-005")


@checks("structure", *_ENTRIES)
def check_entries(subject: Subject) -> None:
    """Look at every entry, and list the regular files."""
    subject.look(*_ENTRIES)
    folded: dict[str, str] = {}
    for name, mode in _walk(subject):
        if stat.S_ISDIR(mode):
            continue
        if not stat.S_ISREG(mode):
            kind = "a symbolic link" if stat.S_ISLNK(mode) else "a special file"
            message = f"{kind}, wanted a regular file; it is not followed or opened"
            subject.report("BB-LAY-009", message, name, cure="put a copy of the file in its place")
            continue
        size = subject.directory.size(name) if "/" not in name else _size(subject.directory, name)
        if size is None:
            continue  # it went away in the meantime
        subject.files[name] = size
        other = folded.setdefault(name.lower(), name)
        if other != name:
            message = f"the same as {other} where case is ignored"
            subject.report("BB-LAY-008", message, name, severity="warning")
        if _DEVICES.intersection(part.partition(".")[0].lower() for part in name.split("/")):
            message = "named like a device of Windows"
            subject.report("BB-LAY-007", message, name, severity="warning")


@checks("structure", "BB-LAY-005")
def check_journal_names(subject: Subject) -> None:
    """Find journals whose name hides them from readers."""
    for name, size in subject.files.items():
        if "/" in name or not name.endswith(".jsonl"):
            continue
        subject.look("BB-LAY-005")
        if _names_journal(name) or not size:
            continue
        try:
            with subject.directory.reading(name) as descriptor:
                head = os.pread(descriptor, subject.limits.line_bytes, 0)
        except OSError as error:
            subject.skip(subject.refuse(name, error), "BB-LAY-005")
            continue
        line, newline, _ = head.partition(b"\n")
        try:
            form = decode(line).get("format") if newline else None
        except JournalError:
            continue
        if isinstance(form, dict) and form.get("name") in _JOURNAL_FORMATS:
            message = (
                "a journal, but its name is not metrics[.r<rank>][.<n>].jsonl, or media so, "
                "without zeros in front; no reader finds it"
            )
            subject.report("BB-LAY-005", message, name, cure="rename it by rank and ordinal")


def _names_journal(name: str) -> bool:
    """Tell whether a name is that of a journal."""
    return any(naming.parse_journal_name(name, stem) is not None for stem in ("metrics", "media"))


def _walk(subject: Subject) -> Iterator[tuple[str, int]]:
    """Yield path and mode of every entry but scratch, folder by folder, in byte order."""
    waiting = [""]
    count = 0
    while waiting:
        folder = waiting.pop()
        for name, mode in _entries(subject, folder):
            count += 1
            if count > subject.limits.files:
                message = (
                    f"more than {subject.limits.files:,} files; further ones are not looked at"
                )
                subject.report("BB-LIM-005", message, name)
                return
            if name.startswith(SCRATCH):
                _report_scratch(subject, name)
                continue
            try:
                check_relative(name)
            except UnsafePathError:
                message = "not part of the run: a segment must match [A-Za-z0-9_][A-Za-z0-9._-]*"
                subject.report("BB-LAY-006", message, _shown(name), severity="warning")
                continue
            if stat.S_ISDIR(mode):
                if name.count("/") >= subject.limits.folders:
                    message = f"deeper than {subject.limits.folders} folders; it is not looked at"
                    subject.report("BB-LIM-005", message, name)
                    continue
                waiting.append(name)
            yield name, mode


def _entries(subject: Subject, folder: str) -> list[tuple[str, int]]:
    """Return path and mode of the entries of one folder, in byte order."""
    try:
        descriptor = _open_folder(subject.directory, folder)
    except PermissionError as error:
        subject.skip(subject.refuse(folder, error), *_ENTRIES)
        return []
    if descriptor is None:
        return []
    found = []
    try:
        with os.scandir(descriptor) as entries:
            for entry in entries:
                name = f"{folder}/{entry.name}" if folder else entry.name
                try:
                    found.append((name, entry.stat(follow_symlinks=False).st_mode))
                except OSError:
                    continue  # it went away in the meantime
    finally:
        os.close(descriptor)
    return sorted(found)


def _open_folder(directory: Directory, folder: str) -> int | None:
    """Return a descriptor of a folder of the run, or None if it is one no more."""
    descriptor = os.dup(directory.fd)
    for part in folder.split("/") if folder else ["."]:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            inner = os.open(part, flags, dir_fd=descriptor)
        except PermissionError:
            raise
        except OSError:
            return None
        finally:
            os.close(descriptor)
        descriptor = inner
    return descriptor


def _size(directory: Directory, name: str) -> int | None:
    """Return the size of a file in a folder of the run, or None if it is one no more."""
    try:
        with directory.reading(name) as descriptor:
            return os.fstat(descriptor).st_size
    except (OSError, UnsafePathError):
        return None


def _report_scratch(subject: Subject, name: str) -> None:
    """Report what a sealer left behind; in a run that goes on it is work in progress."""
    if subject.sealed is not None:
        message = "left by a writer or sealer that was killed; readers ignore it"
        subject.report("BB-LAY-013", message, name, severity="warning", cure="remove it")


def _shown(name: str) -> str:
    """Return a name as text that can be shown."""
    return name.encode("utf-8", "backslashreplace").decode()
