"""What a validation found, as data; every output is a rendering of it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from blackboxml.errors import Problem

Level = Literal["schema", "structure", "integrity", "full"]
"""How much is looked at; each level includes those before it."""

LEVELS: Final[tuple[Level, ...]] = get_args(Level)

CHECKED: Final = ("schema", "structure", "integrity", "data")
"""How a rule is checked, in the order of the levels at which that is done."""

Verdict = Literal["valid", "invalid", "incomplete", "unsupported", "unreadable"]
"""What is said of a run as a whole."""

VERDICTS: Final[tuple[Verdict, ...]] = get_args(Verdict)

State = Literal["passed", "failed", "skipped", "not_applicable"]
"""What is said of one rule in one run."""

STATES: Final[tuple[State, ...]] = get_args(State)

REPORT_FORMAT: Final = "blackbox-validation-report"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one rule.

    Attributes:
        state: `passed` where all there was to look at keeps the rule, `failed` where something does
            not, `skipped` where it was not looked at or not all of it, `not_applicable` where the
            run has nothing that the rule speaks of.
        why: The reason for `skipped`.
    """

    state: State
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of one validation.

    Attributes:
        path: The run directory.
        level: How much was looked at.
        verdict: What is said of the run as a whole.
        reason: Why the verdict is neither `valid` nor `invalid`, for a person.
        problems: What was found: errors and warnings, in the order of the checks. At most 1,000 of
            one rule and file are listed, and a last one says how many more there are.
        outcomes: What came of each rule that can be decided from the files of a run, in the order
            of the specification.
    """

    path: Path
    level: Level = "full"
    verdict: Verdict = "valid"
    reason: str | None = None
    problems: list[Problem] = field(default_factory=list)
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing was found to be wrong: no problem is an error, and the run was read.

        A run that is still written, or that was killed, is `ok` and not `valid`.
        """
        return self.verdict in {"valid", "incomplete"}

    @property
    def checked(self) -> list[str]:
        """Identifiers of the rules that were looked at: passed and failed ones."""
        return [rule for rule, each in self.outcomes.items() if each.state in {"passed", "failed"}]

    @property
    def counts(self) -> dict[str, int]:
        """How many errors and warnings there are, and how many rules came out in each way."""
        severities = Counter(problem.severity for problem in self.problems)
        states = Counter(outcome.state for outcome in self.outcomes.values())
        return {
            "errors": severities["error"],
            "warnings": severities["warning"],
            **{state: states[state] for state in STATES},
        }

    def document(self) -> dict[str, Any]:
        """Return the report as a JSON value, by `validation-report.schema.json`."""
        return {
            "format": {"name": REPORT_FORMAT, "version": "1.0"},
            "path": str(self.path),
            "level": self.level,
            "verdict": self.verdict,
            "ok": self.ok,
            **({} if self.reason is None else {"reason": self.reason}),
            "counts": self.counts,
            "problems": [finding(problem) for problem in self.problems],
            "outcomes": {
                rule: {"state": each.state, **({} if each.why is None else {"why": each.why})}
                for rule, each in self.outcomes.items()
            },
            "checked": self.checked,
        }

    def to_json(self) -> str:
        """Return the report as a JSON document."""
        return json.dumps(self.document(), indent=2)


def finding(problem: Problem) -> dict[str, Any]:
    """Return a problem as a JSON value, with the name and the text of its rule."""
    from blackboxml.validation.catalogue import rule

    known = rule(problem.rule)
    members = {
        "rule": problem.rule,
        "slug": known.slug,
        "severity": problem.severity,
        "file": problem.file or None,
        "line": problem.line,
        "offset": problem.offset,
        "pointer": problem.pointer,
        "message": problem.message,
        "wanted": known.text,
        "cure": problem.cure,
    }
    return {key: value for key, value in members.items() if value is not None}
