"""`blackbox convert`: from any format to any other, with every loss counted."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blackboxml import converters
from blackboxml.cli import output
from blackboxml.cli.arguments import add_json, positive
from blackboxml.cli.status import BAD, LOSSY, OK, USAGE
from blackboxml.errors import ConversionError

if TYPE_CHECKING:
    from blackboxml.cli.arguments import Adder
    from blackboxml.conversion import ConversionReport, RunReport


def add_to(add: Adder) -> None:
    """Declare the arguments."""
    formats = ["blackbox", *converters.FORMATS]
    listed = "\n".join(f"  {name:<20}{what}" for name, what in converters.FORMATS.items())
    added = add(
        "convert",
        "convert runs from and to other formats",
        "blackbox convert lightning_logs runs --verify",
        run,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    added.epilog = f"{added.epilog}\n\nformats:\n  {'blackbox':<20}run directories\n{listed}"
    added.add_argument("source", metavar="SRC", help="a file or a folder; runs are found in it")
    added.add_argument("target", metavar="DST", help="a folder of runs, or a file of the format")
    added.add_argument(
        "--from",
        dest="source_format",
        choices=formats,
        metavar="FORMAT",
        help="default: by content",
    )
    added.add_argument(
        "--to",
        dest="target_format",
        choices=formats,
        metavar="FORMAT",
        help="default: by the suffix of DST, else blackbox",
    )
    added.add_argument(
        "--verify", action="store_true", help="read the target back and compare every value"
    )
    added.add_argument(
        "--keep-source", action="store_true", help="copy the source's files into each run"
    )
    added.add_argument(
        "-O",
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of the target format; may be given again",
    )
    added.add_argument("--report", metavar="FILE", help="write the whole report as JSON")
    added.add_argument(
        "--jobs", type=positive, default=1, metavar="N", help="processes (default: 1)"
    )
    add_json(added)


def run(arguments: argparse.Namespace) -> int:
    """Do the work and return the exit status."""
    from blackboxml.conversion import convert

    options: dict[str, Any] = {}
    for text in arguments.option:
        key, equals, value = text.partition("=")
        if not equals:
            output.note(f"-O {text}: wanted KEY=VALUE")
            return USAGE
        options[key] = value
    try:
        with output.Progress("converting") as progress:
            report = convert(
                arguments.source,
                arguments.target,
                source_format=arguments.source_format,
                target_format=arguments.target_format,
                verify=arguments.verify,
                keep_source=arguments.keep_source,
                jobs=arguments.jobs,
                options=options,
                progress=progress.update,
            )
    except ConversionError as error:
        output.complain(error)
        return USAGE
    if arguments.report:
        Path(arguments.report).write_text(report.to_json() + "\n", encoding="utf-8")
    if arguments.json:
        print(report.to_json())
    else:
        _print(report)
    if not report.ok:
        return BAD
    return LOSSY if report.lossy else OK


def _print(report: ConversionReport) -> None:
    """Print what became of each run, and one line for all."""
    from blackboxml.cli import terminal

    for each in report.runs:
        _print_run(each)
    for source, why in report.unreadable.items():
        print(f"{terminal.safe(source)}: unreadable: {terminal.safe(why)}")
    outcomes = [
        f"{sum(each.outcome == outcome for each in report.runs):,} {outcome}"
        for outcome in ("converted", "unchanged", "failed")
        if any(each.outcome == outcome for each in report.runs)
    ]
    if report.unreadable:
        outcomes.append(f"{len(report.unreadable):,} unreadable")
    wrong = sum(not each.ok for each in report.runs if each.outcome != "failed")
    if wrong:
        outcomes.append(f"{wrong:,} with losses that no converter declares")
    print(f"{len(report.runs):,} run(s): {', '.join(outcomes)}")


def _print_run(each: RunReport) -> None:
    """Print what became of one run: the counts, and every remark."""
    from blackboxml.cli import terminal

    key = f" [{each.key}]" if each.key else ""
    head = f"{each.source}{key} ({each.source_format})"
    if each.outcome == "failed":
        print(f"{terminal.safe(head)}: failed: {terminal.safe(each.error)}")
        return
    print(f"{terminal.safe(head)} → {terminal.safe(each.target)}: {each.outcome}")
    counts = [
        f"{each.came_in[kind]:,} {kind}{'s' * (each.came_in[kind] != 1)}"
        for kind in ("scalar", "text", "image", "histogram", "artifact", "config", "tag")
        if each.came_in[kind]
    ]
    if counts:
        print(f"    {', '.join(counts)}")
    for remark, count in each.remarks.items():
        by = f", by up to {each.greatest[remark]:.3g}" if each.greatest.get(remark) else ""
        where = f" (first: {remark.where})" if remark.where else ""
        wrong = "" if remark.declared else "UNDECLARED "
        text = f"{wrong}{remark.effect}: {count:,} {remark.kind}: {remark.what}{by}{where}"
        print(f"    {terminal.safe(text)}")
    for difference in each.differences:
        print(f"    DIFFERENT: {terminal.safe(difference)}")
    if each.verified and not each.differences:
        print("    verified: the target reads back the same")
