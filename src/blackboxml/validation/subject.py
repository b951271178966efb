"""The run that is looked at, and what the checks before found out about it."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from blackboxml.errors import Findings, Problem
from blackboxml.files import Directory
from blackboxml.seal import digest

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable

    from blackboxml.manifest import Manifest
    from blackboxml.model import JournalFile, Limits
    from blackboxml.scan import Scan
    from blackboxml.seal import Spill
    from blackboxml.table import GroupSchema


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

    @property
    def sealed(self) -> Manifest | None:
        """The manifest, if it is valid and says that the run is sealed."""
        return self.manifest if self.manifest is not None and "sealed" in self.manifest else None

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


def checks(*rules: str) -> Callable[[Check], Check]:
    """Name the rules that a check looks after; the first is that of a failure of the check."""

    def name(check: Check) -> Check:
        RULES[check] = rules
        return check

    return name


if TYPE_CHECKING:
    Check = Callable[[Subject], bool]
    """Reports what it finds; returns False if there was nothing to look at."""

RULES: dict[Any, tuple[str, ...]] = {}
"""The rules of each check."""
