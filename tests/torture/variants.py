"""Validators that are known to be bad: what a campaign has to find out."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from blackboxml import journal
from blackboxml.journal import block, scan
from blackboxml.seal import sums
from blackboxml.validation import proof, single

if TYPE_CHECKING:
    from collections.abc import Callable


def _replace(old: Any, new: Any) -> None:
    """Put a function in the place of another, wherever it was imported."""
    for name, module in list(sys.modules.items()):
        if name.startswith(("blackboxml", "tests.torture")):
            for key, value in list(vars(module).items()):
                if value is old:
                    setattr(module, key, new)


def _without_shortcut() -> None:
    """Let each run go through the checks one by one."""
    _replace(proof.prove, lambda *_: None)


def _without_crc() -> None:
    """Take every line for good, whatever its checksum."""
    _without_shortcut()
    _replace(journal.decode, journal.parse)
    _replace(block.check_lines, lambda data, _: data.count(b"\n"))


def _without_sequence() -> None:
    """Take records in any order, and do not miss one."""
    _without_shortcut()

    def take(self: scan.Scan, seq: int, _: int) -> bool:
        self.expected = seq + 1
        return True

    scan.Scan._is_next = take


def _without_digests() -> None:
    """Say of every file that it has the digest it had."""
    _without_shortcut()
    digest = sums.digest
    known: dict[tuple[str, str], tuple[int, str]] = {}

    def first(directory: Any, name: str) -> tuple[int, str]:
        # The bases are looked at before the mutants.
        return known.setdefault((str(directory.path), name), digest(directory, name))

    _replace(digest, first)


def _raising() -> None:
    """Stumble over a manifest without `tags`."""
    validate = single.validate

    def raising(path: Any, *rest: Any, **options: Any) -> Any:
        report = validate(path, *rest, **options)
        if any(problem.file == "run.json" for problem in report.problems):
            raise KeyError("tags")
        return report

    _replace(validate, raising)


def _dying() -> None:
    """End the process over a torn tail."""
    import os

    validate = single.validate

    def dying(path: Any, *rest: Any, **options: Any) -> Any:
        report = validate(path, *rest, **options)
        if any(problem.rule == "BB-JNL-004" for problem in report.problems):
            os._exit(70)
        return report

    _replace(validate, dying)


VARIANTS: Final[dict[str, Callable[[], None]]] = {
    "no-crc": _without_crc,
    "no-sequence": _without_sequence,
    "no-digests": _without_digests,
    "raising": _raising,
    "dying": _dying,
}
