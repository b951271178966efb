"""The pytest plugin: a fixture that holds runs to the specification.

It is there once the package is installed. A test asks for it by name.

    def test_training_leaves_a_valid_run(tmp_path, assert_valid_run):
        path = train(log_dir=tmp_path)
        assert_valid_run(path)

Nothing is imported before a test calls it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator

    from blackboxml.errors import Problem
    from blackboxml.validation.report import Level, Report


class AssertValidRun(Protocol):
    """What the fixture `assert_valid_run` is."""

    def __call__(
        self,
        path: str | os.PathLike[str],
        *,
        level: Level = "full",
        ignore: Iterable[str] = (),
        allow_warnings: bool = True,
        accept_incomplete: bool = False,
    ) -> Report:
        """Check a run against the specification.

        Args:
            path: A run directory, or its `run.json`.
            level: How much to look at: `schema`, `structure`, `integrity` or `full`.
            ignore: Identifiers of rules that are left out.
            allow_warnings: Whether a run with warnings alone will do.
            accept_incomplete: Whether a run that has not ended in order will do.

        Returns:
            The report, for a closer look.

        Raises:
            AssertionError: If the run is not valid; the message says where, what was found, what
                was wanted and what mends it.
            ValueError: If there is no such level or rule.
        """


@pytest.fixture(scope="session")
def assert_valid_run() -> AssertValidRun:
    """Check a run against the specification: `assert_valid_run(path)`."""
    return _assert_valid_run


def _assert_valid_run(
    path: str | os.PathLike[str],
    *,
    level: Level = "full",
    ignore: Iterable[str] = (),
    allow_warnings: bool = True,
    accept_incomplete: bool = False,
) -> Report:
    __tracebackhide__ = True  # a failure is shown where the test calls it
    from blackboxml.errors import NotARunError
    from blackboxml.validation import validate

    try:
        report = validate(path, level=level, ignore=ignore)
    except NotARunError as error:
        raise AssertionError(f"not a run: {error.strerror or error}") from None
    accepted = {"valid", "incomplete"} if accept_incomplete else {"valid"}
    if report.verdict not in accepted or (report.problems and not allow_warnings):
        raise AssertionError("\n".join(_explain(report)))
    return report


def _explain(report: Report) -> Iterator[str]:
    """Yield the lines of a message: the verdict, then each finding."""
    counts = report.counts
    told = f"{counts['errors']} errors, {counts['warnings']} warnings"
    yield f"{report.path} is {report.verdict} at level {report.level}: {report.reason or told}"
    for problem in report.problems:
        yield from _describe(problem)


def _describe(problem: Problem) -> Iterator[str]:
    """Yield the lines of one finding."""
    from blackboxml.validation.catalogue import rule

    known = rule(problem.rule)
    place = problem.file or "the run"
    place += f", line {problem.line}" if problem.line is not None else ""
    place += f", byte {problem.offset}" if problem.offset is not None else ""
    place += f", at {problem.pointer}" if problem.pointer else ""
    yield f"  {problem.severity} {problem.rule} {known.slug}: {place}"
    yield f"    found:  {problem.message}"
    yield f"    wanted: {known.text}"
    if problem.cure:
        yield f"    cure:   {problem.cure}"
