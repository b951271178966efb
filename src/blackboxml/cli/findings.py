"""Reports of validations for people; nothing here prints."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from blackboxml.cli.terminal import safe
from blackboxml.validation.catalogue import rule
from blackboxml.validation.renderers import place, run_path
from blackboxml.validation.report import LEVELS, VERDICTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from rich.console import RenderableType

    from blackboxml.errors import Problem
    from blackboxml.validation.catalogue import Rule
    from blackboxml.validation.report import Report

STYLES: Final = {
    "valid": "green",
    "invalid": "bold red",
    "incomplete": "yellow",
    "unsupported": "magenta",
    "unreadable": "red",
    "error": "bold red",
    "warning": "yellow",
}
_MARKS: Final = {
    "valid": ("✓", "ok"),
    "invalid": ("✗", "no"),
    "incomplete": ("…", ".."),
    "unsupported": ("?", "??"),
    "unreadable": ("!", "!!"),
}
_MOST_RULES: Final = 12
_WIDEST_TEXT: Final = 100


def run_text(report: Report, base: Path, *, ascii_only: bool = False) -> RenderableType:
    """Return a run: its verdict on one line, then each finding.

    Args:
        report: The report.
        base: The directory from which its path is told.
        ascii_only: Use no other characters for marks.
    """
    head = Text.assemble(
        (f"{_MARKS[report.verdict][ascii_only]} ", STYLES[report.verdict]),
        (safe(run_path(report, base)), "bold"),
        ": ",
        (report.verdict, STYLES[report.verdict]),
    )
    if counted := _counted(report.problems):
        head.append(f": {counted}")
    if report.reason is not None and not report.problems:
        head.append(f": {safe(report.reason)}", "dim")
    parts: list[RenderableType] = [head]
    told: set[str] = set()
    for problem in report.problems:
        parts += ["", Padding(_finding(problem, told), (0, 0, 0, 2))]
    if report.problems:
        parts.append("")
    return Group(*parts)


def _finding(problem: Problem, told: set[str]) -> RenderableType:
    """Return a finding: its place and its rule, then what was found, wanted and mends it."""
    known = rule(problem.rule)
    head = Text()
    head.append(safe(problem.file or "the run as a whole"), "bold cyan")
    if where := place(problem):
        head.append(f" {safe(where)}", "cyan")
    head.append("\n")
    head.append(problem.severity, STYLES[problem.severity])
    head.append(f" {problem.rule} ", "bold")
    head.append(known.slug, "dim")
    facts = _facts()
    facts.add_row("found", Text(safe(problem.message)))
    if problem.rule not in told:  # once for each rule of a run says enough
        facts.add_row("wanted", Text(_flowing(known.text.partition("\n")[0]), "dim"))
    told.add(problem.rule)
    if problem.cure:
        facts.add_row("mend", Text(safe(problem.cure), "green"))
    return Group(head, Padding(facts, (0, 0, 0, 2)))


def summary(reports: Sequence[Report], seconds: float) -> RenderableType:
    """Return what came of many runs: how many of each verdict, and what was found most.

    Args:
        reports: The reports.
        seconds: How long it took.
    """
    verdicts = Counter(report.verdict for report in reports)
    line = Text(f"{len(reports):,} run{'s' * (len(reports) != 1)}: ", "bold")
    parts = [(f"{verdicts[each]:,} {each}", STYLES[each]) for each in VERDICTS if verdicts[each]]
    line.append_text(Text(", ").join(Text(text, style) for text, style in parts))
    counted = _counted([problem for report in reports for problem in report.problems])
    line.append(f"; {counted or 'no findings'} ({seconds:.1f} s)", "dim")
    if not counted:
        return line
    return Group(_rules_table(reports), "", line)


def _rules_table(reports: Sequence[Report]) -> Table:
    """Return the rules that are broken most, and in how many runs."""
    found: Counter[tuple[str, str]] = Counter()
    runs: Counter[tuple[str, str]] = Counter()
    for report in reports:
        own = Counter((problem.rule, problem.severity) for problem in report.problems)
        found.update(own)
        runs.update(own.keys())
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for title in ("RULE", "", "SEVERITY"):
        table.add_column(title, no_wrap=True)
    for title in ("FINDINGS", "RUNS"):
        table.add_column(title, justify="right", no_wrap=True)
    ranked = sorted(found, key=lambda key: (-runs[key], -found[key], key))
    for name, severity in ranked[:_MOST_RULES]:
        number, places = found[name, severity], runs[name, severity]
        table.add_row(
            name,
            Text(rule(name).slug, "dim"),
            Text(severity, STYLES[severity]),
            f"{number:,}",
            f"{places:,}",
        )
    if len(ranked) > _MOST_RULES:
        table.add_row("…", Text(f"{len(ranked) - _MOST_RULES} more", "dim"), "", "", "")
    return table


def rule_text(known: Rule) -> RenderableType:
    """Return what there is to say of a rule."""
    head = Text.assemble((known.id, "bold"), " ", (known.slug, "bold cyan"))
    facts = _facts()
    facts.add_row("level", Text(known.level, "red" if known.absolute else "yellow"))
    facts.add_row("chapter", f"spec/1.0/{known.chapter}.md")
    facts.add_row("of", known.applies_to)
    facts.add_row("checked", _checked(known))
    if known.checked != "behaviour":
        severity = "error: the run is invalid" if known.absolute else "warning"
        facts.add_row("if broken", severity)
        facts.add_row("mended", "by `blackbox repair`" if known.mended else "not by a program")
    text = Text(_flowing(known.text))
    return Group(head, "", Padding(text, (0, 0, 0, 2)), "", Padding(facts, (0, 0, 0, 2)))


def rules_table(known: Sequence[Rule]) -> Table:
    """Return rules, a line each."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for title in ("ID", "RULE", "LEVEL", "OF", "CHECKED", "MENDED"):
        table.add_column(title, no_wrap=True)
    for _, chapter in itertools.groupby(known, key=lambda each: each.chapter):
        for each in chapter:
            table.add_row(
                each.id,
                each.slug,
                Text(each.level, "red" if each.absolute else "yellow"),
                each.applies_to,
                Text(each.checked, "dim" if each.checked == "behaviour" else ""),
                "yes" if each.mended else "",
            )
    return table


def _checked(known: Rule) -> str:
    """Say how a rule is checked."""
    if known.checked == "behaviour":
        return "not in files: it speaks of what a program does"
    level = "full" if known.checked == "data" else known.checked
    later = LEVELS[LEVELS.index(level) :]
    return f"{known.checked}; looked at by --level {', '.join(later)}"


def _facts() -> Table:
    """Return an empty table of names and texts."""
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold", max_width=_WIDEST_TEXT)
    return table


def _counted(problems: Sequence[Problem]) -> str:
    """Return how many errors and warnings there are, empty for none."""
    counts = Counter(problem.severity for problem in problems)

    def words() -> Iterator[str]:
        for severity in ("error", "warning"):
            if number := counts[severity]:
                yield f"{number:,} {severity}{'s' * (number != 1)}"

    return ", ".join(words())


def _flowing(text: str) -> str:
    """Return a paragraph of the specification without its marks for code."""
    return text.replace("`", "")
