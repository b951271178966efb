"""What a validation found, as data."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from blackboxml.errors import Problem

if TYPE_CHECKING:
    from pathlib import Path

MOST_OF_A_KIND: Final = 1000
"""Findings of one rule in one file that are kept; the rest are counted."""


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of one validation.

    Attributes:
        path: The run directory.
        problems: What was found: errors and warnings, in the order of the checks. At most 1,000 of
            one rule and file are listed, and a last one says how many more there are.
        checked: Identifiers of the rules that were checked, sorted. One that is not there had
            nothing to look at in this run, or cannot be proved from files.
    """

    path: Path
    problems: list[Problem] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether the run is valid: no problem is an error."""
        return all(problem.severity != "error" for problem in self.problems)

    def to_json(self) -> str:
        """Return the report as a JSON document: `path`, `ok`, `problems`, `checked`.

        A problem has the members of `Problem` that have a value.
        """
        problems = [
            {
                key: value
                for key, value in dataclasses.asdict(problem).items()
                if value is not None and (key != "file" or value)
            }
            for problem in self.problems
        ]
        document = {
            "path": str(self.path),
            "ok": self.ok,
            "problems": problems,
            "checked": self.checked,
        }
        return json.dumps(document, indent=2)


class Findings(list[Problem]):
    """Problems without repetition, and bounded: a file of damage alone does not fill the memory."""

    def __init__(self) -> None:
        """Begin with none."""
        super().__init__()
        self._seen: set[Problem] = set()
        self._counts: Counter[tuple[str, str, str]] = Counter()

    def __contains__(self, problem: object) -> bool:
        """Tell whether a problem was found already, in constant time."""
        return problem in self._seen

    def append(self, problem: Problem) -> None:
        """Keep a problem, unless it is known or there are too many of its kind."""
        if problem in self._seen:
            return
        kind = (problem.file, problem.rule, problem.severity)
        self._counts[kind] += 1
        if self._counts[kind] <= MOST_OF_A_KIND:
            self._seen.add(problem)
            super().append(problem)

    def whole(self) -> list[Problem]:
        """Return the problems, and how many more there are of each kind."""
        more = [
            Problem(
                rule,
                "warning" if severity == "warning" else "error",
                f"this was found {count - MOST_OF_A_KIND:,} times more",
                file,
            )
            for (file, rule, severity), count in self._counts.items()
            if count > MOST_OF_A_KIND
        ]
        return [*self, *more]
