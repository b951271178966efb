"""The run that is looked at, and what the checks before found out about it."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from blackboxml.base.files import Directory
from blackboxml.errors import Findings, Problem
from blackboxml.seal.sums import digest

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable

    from blackboxml.journal.scan import Scan
    from blackboxml.journal.table import GroupSchema
    from blackboxml.manifest import Manifest
    from blackboxml.model import JournalFile, Limits
    from blackboxml.seal import Spill


def _silent(share: float) -> None:
    """Tell nobody."""


LISTING: Final = "the directory"
"""Stands for a file among those that are refused where nobody knows which one it is."""

TABLE: Final = (
    *("BB-TAB-003", "BB-TAB-005", "BB-TAB-006", "BB-TAB-007", "BB-TAB-009", "BB-TAB-010"),
    *("BB-TAB-013", "BB-TAB-014", "BB-TAB-015", "BB-TAB-016"),
)
"""The rules of what a table says of itself."""


@dataclass(slots=True)
class Subject:
    """One run while it is validated.

    Attributes:
        directory: The run.
        limits: What a reader accepts.
        stack: Closes what checks have opened, in the end.
        problems: What was found so far.
        files: Size in bytes of each regular file, by path, scratch left out.
        manifest: What `run.json` says if it is valid, else None.
        refused: Journals that need a newer reader.
        journals: The journals in merge order.
        scans: The journals as they were read.
        groups: What the journals hold, by group, as their tables have to.
        spill: The rows of the journals of a sealed run.
        changed: Files whose size or digest is not the recorded one, or that are missing.
        refusals: What the system said of files that it did not let us read, by path.
        active: The rules that are asked for.
        deeper: Whether they are more than those of documents and lines by themselves.
        unsupported: Whether the manifest needs a newer reader, and with it the run.
        life: Why the run has not ended in order, None if it has.
        progress: Is told the share of the work that is done.
        looked: The rules for which there was something to look at.
        skipped: Why a rule could not be decided, or not for all that there is.
    """

    directory: Directory
    limits: Limits
    stack: contextlib.ExitStack
    problems: Findings = field(default_factory=Findings)
    files: dict[str, int] = field(default_factory=dict)
    manifest: Manifest | None = None
    refused: set[str] = field(default_factory=set)
    journals: list[JournalFile] = field(default_factory=list)
    scans: list[Scan] = field(default_factory=list)
    groups: dict[str, GroupSchema] = field(default_factory=dict)
    spill: Spill | None = None
    changed: set[str] = field(default_factory=set)
    refusals: dict[str, str] = field(default_factory=dict)
    active: frozenset[str] = frozenset()
    deeper: bool = True
    unsupported: bool = False
    life: str | None = None
    progress: Callable[[float], None] = _silent
    looked: set[str] = field(default_factory=set)
    skipped: dict[str, str] = field(default_factory=dict)
    _digests: dict[str, tuple[int, str]] = field(default_factory=dict)

    def report(
        self,
        rule: str,
        message: str,
        file: str = "",
        *,
        severity: Literal["error", "warning"] = "error",
        line: int | None = None,
        offset: int | None = None,
        pointer: str | None = None,
        cure: str | None = None,
    ) -> None:
        """Keep a finding; the members are those of `Problem`."""
        self.problems.append(Problem(rule, severity, message, file, line, offset, pointer, cure))

    def look(self, *rules: str) -> None:
        """Note that there is something to look at for these rules, and that it is looked at."""
        self.looked.update(rules)

    def skip(self, why: str, *rules: str) -> None:
        """Note that these rules cannot be decided for something; the first reason stays."""
        for rule in rules:
            self.skipped.setdefault(rule, why)

    def refuse(self, name: str, error: OSError) -> str:
        """Note that the system did not let us read a file; return a reason to skip rules."""
        said = error.strerror or type(error).__name__
        self.refusals.setdefault(name, said)
        return f"{name} cannot be read: {said}"

    def asks(self, *rules: str) -> bool:
        """Tell whether any of these rules is asked for."""
        return not self.active.isdisjoint(rules)

    @property
    def sealed(self) -> Manifest | None:
        """The manifest, if it is valid and says that the run is sealed."""
        return self.manifest if self.manifest is not None and "sealed" in self.manifest else None

    @property
    def hidden(self) -> dict[str, str]:
        """Files that are there and are not read, each with why."""
        why = "needs a newer version of this library"
        refused = {name: f"{name} {why}" for name in sorted(self.refused)}
        return refused | {name: f"{name}: {said}" for name, said in self.refusals.items()}

    @property
    def packed(self) -> bool:
        """Whether the run is packed."""
        sealed = self.sealed
        return sealed is not None and bool(sealed["sealed"]["packed"])

    @property
    def cure(self) -> str:
        """The command that makes tables, manifest and checksums anew from the journals."""
        return f"blackbox seal {self.directory.path}"

    def digest(self, name: str) -> tuple[int, str]:
        """Return size and SHA-256 of a file; each is read once."""
        if name not in self._digests:
            self._digests[name] = digest(self.directory, name)
        return self._digests[name]

    def is_sound(self, name: str, *rules: str) -> bool:
        """Tell whether a sealed file may be opened: it is there, and it is the one that was sealed.

        What is missing or another was reported with the files. If the digests are not asked for
        they are compared all the same: what somebody damaged is not given to a library.

        Args:
            name: The file.
            rules: Those for which it is looked at if it may be opened, and skipped otherwise.
        """
        entry = (self.sealed or {"files": {}})["files"].get(name, {})
        sound = name in self.files and name not in self.changed
        if name in self.refusals:
            self.skip(f"{name} cannot be read: {self.refusals[name]}", *rules)
            return False
        if sound and "BB-INT-009" not in self.active:
            size, digest = self.digest(name)
            sound = size == entry.get("bytes") and digest == entry.get("sha256", digest)
        if sound:
            self.look(*rules)
        else:
            self.skip(f"{name} is not the file that was sealed", *rules)
        return sound

    def scratch(self) -> Directory:
        """Return a directory outside the run for what does not fit into memory."""
        place = self.stack.enter_context(tempfile.TemporaryDirectory(prefix="blackbox-validate-"))
        return self.stack.enter_context(Directory(place))


class Visible(Directory):
    """A run without some of its files: those that need a newer reader."""

    def __init__(self, directory: Directory, hidden: set[str]) -> None:
        """Show a directory that is open already."""
        self.path = directory.path
        self.fd = os.dup(directory.fd)
        self._hidden = hidden

    def names(self) -> list[str]:
        """Return the entries that are neither scratch nor hidden, in byte order."""
        return [name for name in super().names() if name not in self._hidden]


def checks(level: str, *rules: str) -> Callable[[Check], Check]:
    """Name rules that a check looks after, and how it checks them: as the specification says.

    A check whose rules are checked in several ways is decorated once for each. The first rule of
    the topmost is reported if the check itself fails.
    """

    def name(check: Check) -> Check:
        RULES[check] = {**dict.fromkeys(rules, level), **RULES.get(check, {})}
        return check

    return name


if TYPE_CHECKING:
    Check = Callable[[Subject], None]
    """Reports what it finds, and notes for which rules there was something to look at."""

RULES: dict[Any, dict[str, str]] = {}
"""The rules of each check, and how each is checked."""
