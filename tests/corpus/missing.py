"""Rules that files can prove, without an invalid case or without a valid neighbour.

`python -m tests.corpus.missing` lists them; there should be none.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from blackboxml.conformance.case import load
from blackboxml.validation.catalogue import rules
from tests.corpus.bases import FIXTURES

if TYPE_CHECKING:
    from blackboxml.conformance.case import Case

STAND_FOR: Final = {"BB-MED-001": ("BB-JNL-", "BB-MRG-")}
"""Rules that say only that others hold elsewhere: a breach is told by one of those."""


def missing() -> list[str]:
    """Return what lacks, a line each."""
    cases: dict[str, list[Case]] = {}
    for case in load(FIXTURES):
        for each in (case.rule, *case.document.get("also", [])):
            cases.setdefault(each, []).append(case)
    lacking = []
    for rule in rules():
        if rule.checked == "behaviour":
            continue
        own = cases.get(rule.id, [])
        if not any(breaks(case, rule.id) for case in own):
            lacking.append(f"{rule.id} {rule.slug}: no case that breaks it")
        if not any(keeps(case, rule.id) for case in own):
            lacking.append(f"{rule.id} {rule.slug}: no valid neighbour")
    return lacking


def breaks(case: Case, rule: str) -> bool:
    """Tell whether a case has to be found to break a rule."""
    wanted = STAND_FOR.get(rule, (rule,))
    return any(finding["rule"].startswith(wanted) for finding in case.expect.get("findings", []))


def keeps(case: Case, rule: str) -> bool:
    """Tell whether a case keeps a rule."""
    fine = case.expect.get("verdict") in {"valid", "incomplete"}
    return fine and not breaks(case, rule)


if __name__ == "__main__":
    lines = missing()
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.exit(bool(lines))
