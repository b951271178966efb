"""What a validation found, as data."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from blackboxml.errors import Problem


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
