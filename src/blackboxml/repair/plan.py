"""What a repair does, keeps and loses, as data."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from blackboxml.errors import Problem

PLAN_FORMAT: Final = "blackbox-repair-plan"

KINDS: Final = ("records", "events", "values", "lines", "bytes", "files", "members")
"""What is counted, in the order in which it is told."""


@dataclass(frozen=True, slots=True)
class Action:
    """One thing that a repair does.

    Attributes:
        kind: What is done: `cut-tail`, `drop-lines`, `restore-records`, `restore-journal`,
            `mend-header`, `state-losses`, `set-aside`, `remove-entry`, `remove-scratch`,
            `mend-manifest`, `unpack`, `seal`, `sums` or `note`.
        file: The file it is done to, empty for the run as a whole.
        why: The rules that are broken, sorted.
        text: What is done, for a person.
        kept: How much stays or comes back by it, by kind.
        lost: How much is gone, by kind.
        lossy: Whether something of the run is gone, also where nobody knows how much.
        places: Line and byte offset of what is dropped; the first ones where there are many.
    """

    kind: str
    file: str = ""
    why: tuple[str, ...] = ()
    text: str = ""
    kept: dict[str, int] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    lossy: bool = False
    places: tuple[tuple[int, int], ...] = ()

    def document(self) -> dict[str, Any]:
        """Return the action as a JSON value."""
        found: dict[str, Any] = {"kind": self.kind}
        if self.file:
            found["file"] = self.file
        found |= {
            "why": list(self.why),
            "text": self.text,
            "kept": counts(self.kept),
            "lost": counts(self.lost),
            "lossy": self.lossy,
        }
        if self.places:
            found["places"] = [{"line": line, "offset": offset} for line, offset in self.places]
        return found


@dataclass(frozen=True, slots=True)
class Plan:
    """What a repair of a run would do.

    Attributes:
        path: The run.
        actions: What is done, in order; none where there is nothing to mend.
        kept: What the mended run holds, by kind; empty where there is nothing to mend.
    """

    path: Path
    actions: list[Action] = field(default_factory=list)
    kept: dict[str, int] = field(default_factory=dict)

    @property
    def lost(self) -> dict[str, int]:
        """What is gone, by kind, as far as it can be counted."""
        total: Counter[str] = Counter()
        for action in self.actions:
            total.update(action.lost)
        return counts(total)

    @property
    def lossy(self) -> bool:
        """Whether something of the run is gone for good."""
        return any(action.lossy for action in self.actions)

    def document(self) -> dict[str, Any]:
        """Return the plan as a JSON value, by `repair-plan.schema.json`."""
        return {
            "format": {"name": PLAN_FORMAT, "version": "1.0"},
            "path": str(self.path),
            "outcome": "nothing" if not self.actions else "lossy" if self.lossy else "clean",
            "actions": [action.document() for action in self.actions],
            "kept": counts(self.kept),
            "lost": self.lost,
        }

    def to_json(self) -> str:
        """Return the plan as a JSON document."""
        return json.dumps(self.document(), indent=2)


@dataclass(frozen=True, slots=True)
class RepairReport(Plan):
    """What a repair did.

    Attributes:
        output: Where the mended run is.
        changed: Whether a file differs from what was there; False where nothing was to be mended.
        aside: Files of the mended run that hold what was there before, and are no part of it.
        problems: What a validator still remarks on the mended run; none is an error.
    """

    output: Path = field(default_factory=Path)
    changed: bool = False
    aside: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """Return the report as a JSON value, by `repair-plan.schema.json`."""
        return super(RepairReport, self).document() | {
            "output": str(self.output),
            "changed": self.changed,
            "aside": self.aside,
            "remarks": [str(problem) for problem in self.problems],
        }


def counts(numbers: dict[str, int] | Counter[str]) -> dict[str, int]:
    """Return counts in the order of `KINDS`, without those that are 0."""
    return {kind: numbers[kind] for kind in KINDS if numbers.get(kind)}
