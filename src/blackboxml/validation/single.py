"""One run: all checks in order, and the report of what they found."""

from __future__ import annotations

import contextlib
import difflib
import errno
import logging
import re
import shlex
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from blackboxml import manifest as manifests
from blackboxml import published
from blackboxml.base import naming
from blackboxml.base.files import Directory, is_refusal
from blackboxml.errors import NotARunError, UnsafePathError
from blackboxml.model import LIMITS, MANIFEST, Limits
from blackboxml.validation.report import CHECKED, LEVELS, Level, Outcome, Report, Verdict

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Hashable, Iterable, Mapping

    from blackboxml.errors import Problem
    from blackboxml.validation.subject import Subject

logger = logging.getLogger("blackboxml")

UNSUPPORTED: Final = frozenset(["BB-VER-001", "BB-VER-006"])
"""Rules whose breach says that a newer reader is needed, not that anything is wrong."""

_TRIES: Final = 5
"""How often a run is looked at that changes meanwhile."""

_SHAPE: Final = re.compile("(?:BB)?[^A-Z0-9]?([A-Z]{3})[^A-Z0-9]?([0-9]{1,3})")
"""How a person may spell the identifier of a rule."""

_PASSED: Final = Outcome("passed")
_FAILED: Final = Outcome("failed")
_NOT_APPLICABLE: Final = Outcome("not_applicable")


def validate(
    path: str | os.PathLike[str],
    limits: Limits = LIMITS,
    *,
    level: Level = "full",
    ignore: Iterable[str] = (),
    progress: Callable[[float], None] | None = None,
) -> Report:
    """Check a run against the specification, whatever its state: live, crashed, sealed or packed.

    What the directory holds never makes this raise. A run that a writer goes on with is looked at
    as it stands: a torn tail or a missing seal is no fault.

    Args:
        path: A run directory, or its `run.json`.
        limits: What to accept from a file before refusing to look further.
        level: How much to look at: `schema` JSON documents and lines by themselves, `structure`
            also names, sequence, references and what tables and datasets say of themselves,
            `integrity` also sizes and digests, `full` also every value of every encoding.
        ignore: Identifiers of rules that are left out; they are `skipped`.
        progress: Called with the share of the work that is done.

    Returns:
        A report; `report.ok` tells whether anything is wrong, `report.verdict` says it in a word.

    Raises:
        NotARunError: If there is no run at `path`.
        ValueError: If there is no such level or rule.

    >>> import tempfile
    >>> from blackboxml import Run, validate
    >>> with Run("demo", log_dir=tempfile.mkdtemp()) as run:
    ...     run.log({"train/loss": 0.5})
    >>> validate(run.path).verdict
    'valid'
    """
    left_out = choose(level, tuple(map(find_rule, ignore)))
    place = Path(path)
    place = place.parent if place.name == MANIFEST else place
    try:
        directory = Directory(place)
    except NotARunError:
        raise
    except OSError as error:
        return unreadable(place, level, error.strerror or str(error))
    with directory:
        kind = _prove(directory, limits, level)
        known = _OUTCOMES.get((kind, tuple(left_out))) if kind is not None else None
        if known is not None:
            return Report(directory.path, level, outcomes=known)
        report = Report(directory.path)
        for _ in range(_TRIES):
            before = _state(directory)
            try:
                report = _validate(directory, limits, level, left_out, progress)
            except NotARunError:
                raise
            except OSError as error:
                return unreadable(directory.path, level, error.strerror or str(error))
            settled = report.verdict != "unreadable" and not report.problems
            if settled or (_state(directory) == before and _lists_all(directory)):
                break
        else:
            if report.verdict == "invalid":  # of files that never lay there together
                reason = "it is written, sealed or packed meanwhile; look again"
                return unreadable(directory.path, level, reason)
        if kind is not None and report.verdict == "valid" and not report.problems:
            _OUTCOMES[kind, tuple(left_out)] = report.outcomes
        return report


_OUTCOMES: Final[dict[tuple[Hashable, tuple[str, ...]], Mapping[str, Outcome]]] = {}
"""What the checks have said of plain runs, by what kind they are and which rules are left out."""


def _prove(directory: Directory, limits: Limits, level: Level) -> Hashable | None:
    """Return what kind of plain run this is if it is proved to be a valid one."""
    from blackboxml.validation.proof import prove

    # What is proved are the rules of the version that is written.
    plain = level == "full" and limits == LIMITS and published.newest() == published.VERSION
    return prove(directory) if plain else None


def unreadable(path: Path, level: Level, reason: str) -> Report:
    """Return the report of a run that could not be looked at."""
    why = f"the run cannot be read: {reason}"
    outcomes = {rule: Outcome("skipped", why) for rule in checkable()}
    return Report(path, level, "unreadable", reason, [], outcomes)


def checkable() -> Mapping[str, str]:
    """Return the rules that can be decided from the files of a run, and how each is checked."""
    return _checkable(published.newest())


@cache
def _checkable(_: str) -> Mapping[str, str]:
    from blackboxml.validation.catalogue import rules

    return {rule.id: rule.checked for rule in rules() if rule.checked in CHECKED}


def choose(level: Level, ignore: tuple[str, ...]) -> Mapping[str, Outcome]:
    """Return the rules that are not asked for, and what is said of them.

    Raises:
        ValueError: If there is no such level or rule; it names the nearest.
    """
    return _choose(level, ignore, published.newest())


@cache
def _choose(level: Level, ignore: tuple[str, ...], _: str) -> Mapping[str, Outcome]:
    if level not in LEVELS:
        message = f"there is no level {level!r}; the levels are {', '.join(LEVELS)}"
        raise ValueError(message)
    most = LEVELS.index(level)
    left_out: dict[str, Outcome] = {}
    for rule, checked in checkable().items():
        if rule in ignore:
            left_out[rule] = Outcome("skipped", "ignored on request")
        elif (needs := CHECKED.index(checked)) > most:
            left_out[rule] = Outcome("skipped", f"looked at from level {LEVELS[needs]} on")
    return left_out


def find_rule(name: str) -> str:
    """Return the identifier of a rule that is named by it or by its slug.

    Raises:
        ValueError: Naming the nearest one.
    """
    from blackboxml.validation.catalogue import rules

    slugs = {each.id: each.slug for each in rules()}
    names = {**{each: each for each in slugs}, **{slug: each for each, slug in slugs.items()}}
    if name in names:
        return names[name]
    shaped = name.strip().lower()
    if shape := _SHAPE.fullmatch(name.strip().upper()):
        shaped = f"BB-{shape[1]}-{int(shape[2]):03}"
    meant = names[difflib.get_close_matches(shaped, names, 1, 0.0)[0]]
    message = f"there is no rule {name!r:.80}; did you mean {meant} ({slugs[meant]})?"
    raise ValueError(message)


def _validate(
    directory: Directory,
    limits: Limits,
    level: Level,
    left_out: Mapping[str, Outcome],
    progress: Callable[[float], None] | None,
) -> Report:
    """Run the checks once."""
    from blackboxml.validation.rules import BASE, CHECKS
    from blackboxml.validation.subject import RULES, Subject

    active = frozenset(checkable().keys() - left_out.keys())
    with contextlib.ExitStack() as stack:
        deeper = any(checkable()[rule] != CHECKED[0] for rule in active)
        subject = Subject(directory, limits, stack, active=active, deeper=deeper)
        if progress is not None:
            subject.progress = progress
        for check in CHECKS:
            if check not in BASE and active.isdisjoint(RULES[check]):
                continue
            if subject.unsupported:
                subject.skip(f"{MANIFEST} needs a newer version of this library", *RULES[check])
                continue
            _run(check, subject)
            if check is CHECKS[0]:
                _require_run(subject)
        subject.progress(1.0)
        problems = [
            _with_cure(each, directory.path)
            for each in subject.problems.whole()
            if each.rule in active
        ]
        verdict, reason = _judge(subject, problems)
        outcomes = _outcomes(subject, problems, left_out)
        return Report(directory.path, level, verdict, reason, problems, outcomes)


def _run(check: Callable[[Subject], None], subject: Subject) -> None:
    """Run one check; its own failure is a finding, and what it did not decide is skipped."""
    from blackboxml.validation.subject import LISTING, RULES

    try:
        check(subject)
    except Exception as error:
        name = getattr(check, "__name__", "check")
        logger.debug("%s of %s failed", name, subject.directory.path, exc_info=True)
        found = f"{type(error).__name__}: {error}"[:300]
        rules = RULES[check]
        subject.skip(f"what is there could not be checked: {found}", *rules)
        if is_refusal(error):
            subject.refuse(error.filename if isinstance(error.filename, str) else LISTING, error)
            return
        message = f"what is there could not be checked: {found}"
        first = next((rule for rule in rules if rule in subject.active), None)
        if first is None:  # the one that no rule speaks of
            subject.life = f"unknown: {message}"
            return
        subject.report(first, message, cure="restore it from a backup")


def _with_cure(problem: Problem, path: Path) -> Problem:
    """Return a finding with the command that mends it, if a repairer can."""
    from blackboxml.validation.catalogue import rule

    if rule(problem.rule).mended:
        quoted, new = (shlex.quote(str(each)) for each in (path, f"{path}.repaired"))
        return replace(problem, cure=f"blackbox repair {quoted} -o {new}")
    return problem


def _judge(subject: Subject, problems: list[Problem]) -> tuple[Verdict, str | None]:
    """Return what is said of the run as a whole, and why."""
    errors = {each.rule for each in problems if each.severity == "error"}
    if errors - UNSUPPORTED:
        return "invalid", None
    newer = [each for each in subject.problems if each.rule in UNSUPPORTED]
    if newer:
        return "unsupported", f"{newer[0].file}: {newer[0].message}"
    if subject.refusals:
        name, said = next(iter(subject.refusals.items()))
        more = f", and {len(subject.refusals) - 1} more" if len(subject.refusals) > 1 else ""
        return "unreadable", f"{name}: {said}{more}"
    if subject.life is not None:
        return "incomplete", subject.life
    return "valid", None


def _outcomes(
    subject: Subject, problems: list[Problem], left_out: Mapping[str, Outcome]
) -> dict[str, Outcome]:
    """Return what came of each rule: what failed, then what was not decided, then what was."""
    found = dict.fromkeys(checkable(), _NOT_APPLICABLE)
    for rule in subject.looked & found.keys():
        found[rule] = _PASSED
    for rule in subject.skipped.keys() & found.keys():
        found[rule] = Outcome("skipped", subject.skipped[rule])
    for rule in {each.rule for each in problems} & found.keys():
        found[rule] = _FAILED
    found.update(left_out)
    return found


def _require_run(subject: Subject) -> None:
    """Refuse a directory that nothing shows to be a run.

    Raises:
        NotARunError: If there is neither a manifest, be it damaged, nor a journal with a header.
    """
    from blackboxml.validation.integrity import differs_from_sums
    from blackboxml.validation.journal import read_first_line

    directory = subject.directory
    if subject.manifest is not None or subject.unsupported or MANIFEST in subject.refusals:
        return
    if _is_damaged(subject) or differs_from_sums(subject):
        return
    for name in directory.names():
        if naming.parse_journal_name(name) is None:
            continue
        header = read_first_line(subject, name)
        form = None if header is None else header.get("format")
        if isinstance(form, dict) and form.get("name") == "blackbox-journal":
            return
    if subject.refusals:
        return  # what the system does not let us read may be one
    message = f"{directory.path} holds neither the manifest nor a journal of a run"
    raise NotARunError(errno.ENOENT, message, str(directory.path))


def _is_damaged(subject: Subject) -> bool:
    """Tell whether there is a manifest that names this format, or that damage made unreadable."""
    from blackboxml.validation.document import parse

    try:
        data = subject.directory.read(MANIFEST, subject.limits.manifest_bytes)
        document = parse(data, subject.limits.depth)
    except FileNotFoundError:
        return False
    except (OSError, UnsafePathError, ValueError):
        return True
    form = document.get("format") if isinstance(document, dict) else None
    return isinstance(form, dict) and form.get("name") == "blackbox-run"


def _lists_all(directory: Directory) -> bool:
    """Tell whether no journal is there by name that the directory does not list.

    A client of NFS may show the names that were there a while ago.
    """
    last = {0: -1}
    for name in directory.names():
        if (place := naming.parse_journal_name(name)) is not None:
            last[place[0]] = max(last.get(place[0], -1), place[1])
    following = (naming.journal_name(rank, ordinal + 1) for rank, ordinal in last.items())
    return all(directory.size(name) is None for name in following)


def _state(directory: Directory) -> tuple[object, ...]:
    """Return what differs once a writer or a sealer has replaced or added a file."""
    return manifests.stamp(directory), directory.names()
