"""The conformance corpus, run against a program in any language, this library included.

`fixtures/README.md` says what a case is and how to speak with an adapter. `case` reads and builds
cases, `compare` tells how an answer differs from what was expected, `adapter` speaks with a
program, `library` answers for this one.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from blackboxml.conformance.answer import AdapterError, Answerer, Operation
from blackboxml.conformance.case import Case, CorpusError, UnsuitedSystemError, choose
from blackboxml.conformance.compare import compare_read, compare_validate

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

__all__ = ["AdapterError", "Answerer", "Check", "CorpusError", "Outcome", "Result", "run_corpus"]

Outcome = Literal["passed", "failed", "not claimed", "left out"]
"""`not claimed`: the adapter does not say that it can. `left out`: this system cannot build it."""

OUTCOMES: Final = ("passed", "failed", "not claimed", "left out")


@dataclass(frozen=True, slots=True)
class Check:
    """One case and one operation, and what came of it.

    Attributes:
        case: Folder and name of the case, such as `invalid/crc-differs`.
        rule: The rule that the case is about.
        operation: What was asked for.
        outcome: What came of it.
        differences: How the answer differs, or why there is none.
    """

    case: str
    rule: str
    operation: Operation
    outcome: Outcome
    differences: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Result:
    """The checks of one corpus with one adapter.

    Attributes:
        hello: What the adapter said of itself.
        checks: In the order of the cases.
    """

    hello: dict[str, Any]
    checks: list[Check]

    @property
    def counts(self) -> dict[str, int]:
        """How many checks came out in each way."""
        found = Counter(check.outcome for check in self.checks)
        return {outcome: found[outcome] for outcome in OUTCOMES}

    @property
    def ok(self) -> bool:
        """Whether something was claimed, and all of that passed."""
        return bool(self.counts["passed"]) and not self.counts["failed"]


def run_corpus(
    corpus: str | os.PathLike[str],
    adapter: Answerer,
    only: str = "*",
    tell: Callable[[float], None] = lambda _: None,
) -> Result:
    """Run the cases of a corpus.

    Args:
        corpus: The folder with `bases` and `cases`.
        adapter: Answers the requests.
        only: Pattern of the cases that are wanted, such as `torn/*`.
        tell: Called with the share that is done.

    Raises:
        CorpusError: If the corpus cannot be used, or has no such case.
    """
    cases = choose(Path(corpus), only)
    checks: list[Check] = []
    for done, case in enumerate(cases):
        tell(done / len(cases))
        with tempfile.TemporaryDirectory(prefix="blackbox-conformance-") as folder:
            checks += _run_case(case, adapter, Path(folder) / "run")
    return Result(adapter.hello, checks)


def _run_case(case: Case, adapter: Answerer, place: Path) -> Iterator[Check]:
    """Yield the checks of one case."""
    built: str | None = None
    for operation in case.operations:
        claims = adapter.hello["claims"]
        if not case.wants(operation) <= set(claims):
            yield Check(case.name, case.rule, operation, "not claimed")
            continue
        if built is None:
            built = _build(case, place)
        if built:
            yield Check(case.name, case.rule, operation, "left out", [built])
            continue
        try:
            answer = adapter.ask(operation, place)
            differences = _COMPARE[operation](case.expect, answer)
        except AdapterError as error:
            differences = [str(error)]
        outcome: Outcome = "failed" if differences else "passed"
        yield Check(case.name, case.rule, operation, outcome, differences)


def _build(case: Case, place: Path) -> str:
    """Build the run of a case; return why that cannot be done here, empty if it was."""
    try:
        case.build(place)
    except UnsuitedSystemError as error:
        return str(error)
    return ""


_COMPARE: Final[dict[Operation, Callable[[dict[str, Any], dict[str, Any]], list[str]]]] = {
    "read": compare_read,
    "validate": compare_validate,
}
