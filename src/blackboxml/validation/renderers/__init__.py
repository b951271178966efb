"""Reports in the forms that other programs read; each carries the same findings.

A renderer is one module with one function, `render(reports, base)`, and one line of the table here.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blackboxml.errors import Problem
    from blackboxml.validation.report import Report

RENDERERS: Final = ("json", "sarif", "junit", "github")
"""The forms, by the name of the module."""


def render(form: str, reports: Sequence[Report], base: str | os.PathLike[str] = ".") -> str:
    """Return reports in one of the forms, as text that ends with LF, or empty.

    Args:
        form: One of `RENDERERS`.
        reports: The reports.
        base: The directory from which paths are told, such as the root of a repository.

    Raises:
        ValueError: If there is no such form.
    """
    if form not in RENDERERS:
        message = f"there is no form {form!r}; the forms are {', '.join(RENDERERS)}"
        raise ValueError(message)
    module = importlib.import_module(f"{__name__}.{form}")
    text: str = module.render(reports, Path(os.path.abspath(base)))
    return text


def run_path(report: Report, base: Path) -> str:
    """Return the path of a run, `/`-separated, relative to the base if it lies below it."""
    path = Path(os.path.abspath(report.path))
    return (path.relative_to(base) if path.is_relative_to(base) else path).as_posix()


def file_path(report: Report, problem: Problem, base: Path) -> str:
    """Return the path of the file that a finding is about, or of the run."""
    run = run_path(report, base)
    if not problem.file:
        return run
    return problem.file if run == "." else f"{run}/{problem.file}"


def place(problem: Problem) -> str:
    """Return where in its file a finding is, as `line 3, byte 120` or `at /groups/train`."""
    parts = []
    if problem.line is not None:
        parts.append(f"line {problem.line}")
    if problem.offset is not None:
        parts.append(f"byte {problem.offset}")
    if problem.pointer:
        parts.append(f"at {problem.pointer}")
    return ", ".join(parts)
