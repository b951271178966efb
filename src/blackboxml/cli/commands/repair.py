"""`blackbox repair`: a damaged run made valid again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from blackboxml.cli import output, places
from blackboxml.cli.arguments import add_json, add_run
from blackboxml.cli.status import LOSSY, OK, USAGE
from blackboxml.errors import NotARunError

if TYPE_CHECKING:
    import argparse

    from blackboxml.cli.arguments import Adder
    from blackboxml.repair import Plan, RepairReport

_EXIT_STATUS: Final = (
    "Exit status: 0 nothing lost, 1 cannot be mended, 2 wrong usage, "
    "3 something of the run is lost."
)


def add_to(add: Adder) -> None:
    """Declare the arguments."""
    added = add(
        "repair",
        "mend a damaged run, and say what was kept and what is lost",
        "blackbox repair resnet -o resnet_mended",
        run,
    )
    added.description = f"{added.description} {_EXIT_STATUS}"
    add_run(added)
    how = added.add_mutually_exclusive_group(required=True)
    how.add_argument("--plan", action="store_true", help="print as JSON what would be done")
    how.add_argument("-o", "--output", metavar="DIR", help="write the mended run to a new folder")
    how.add_argument(
        "--in-place",
        action="store_true",
        help="mend the run where it is; what changes is kept in its folder `repair`",
    )
    added.add_argument(
        "--force",
        action="store_true",
        help="take your word that the run has ended, where nothing proves it",
    )
    add_json(added)


def run(arguments: argparse.Namespace) -> int:
    """Do the work and return the exit status."""
    from blackboxml.repair import plan, repair

    path = Path(arguments.run)
    if not path.is_dir():
        try:
            path = places.find(arguments.run, arguments.log_dir)
        except NotARunError as error:
            output.complain(error)
            return USAGE
    if arguments.plan:
        found = plan(path, force=arguments.force)
        output.print_json(found.document())
        return LOSSY if found.lossy else OK
    try:
        with output.Progress(f"repairing {path.name}") as progress:
            report = repair(
                path,
                arguments.output,
                in_place=arguments.in_place,
                force=arguments.force,
                progress=progress.update,
            )
    except FileExistsError as error:
        output.note(f"error: {error.filename}: {error.strerror}; give another folder to -o")
        return USAGE
    if arguments.json:
        output.print_json(report.document())
    else:
        _show(report)
    return LOSSY if report.lossy else OK


def _show(report: RepairReport) -> None:
    """Print what was done."""
    from rich.table import Table

    from blackboxml.cli import terminal

    if not report.actions:
        print(f"{terminal.safe(report.path)}: nothing to mend{_copied(report)}")
        return
    grid = Table.grid(padding=(0, 2))
    for _ in range(4):
        grid.add_column(overflow="fold")
    for action in report.actions:
        mark = "lost" if action.lossy else ""
        why = " ".join(action.why)
        file = terminal.safe(action.file)
        text = terminal.safe(action.text) + (f" ({why})" if why else "")
        grid.add_row(mark, action.kind, file, text)
    output.show(grid)
    if report.kept:
        print(f"kept: {_counted(report.document()['kept'])}")
    if report.lossy:
        print(f"lost: {_counted(report.lost)}")
    aside = f"; what was there before is in {len(report.aside)} files of repair/"
    where = "in place" if report.output == report.path else f"as {terminal.safe(report.output)}"
    verdict = "LOSSY" if report.lossy else "clean"
    print(f"{terminal.safe(report.path)}: mended {where}, {verdict}{aside * bool(report.aside)}")


def _copied(report: Plan) -> str:
    """Return where the copy of a good run is."""
    from blackboxml.cli import terminal

    where = getattr(report, "output", report.path)
    return "" if where == report.path else f"; copied byte for byte as {terminal.safe(where)}"


def _counted(numbers: dict[str, int]) -> str:
    """Return counts in words."""
    texts = (
        f"{number:,} {kind.removesuffix('s') if number == 1 else kind}"
        for kind, number in numbers.items()
    )
    return ", ".join(texts) or "nobody knows how much"
