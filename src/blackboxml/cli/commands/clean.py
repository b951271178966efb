"""`blackbox clean`: delete runs, after asking."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

from blackboxml.cli import output
from blackboxml.cli.arguments import add_root
from blackboxml.cli.status import OK, USAGE

if TYPE_CHECKING:
    import argparse

    from blackboxml.cli.arguments import Adder


def add_to(add: Adder) -> None:
    """Declare the arguments."""
    added = add(
        "clean",
        "delete the runs below a folder, after asking",
        "blackbox clean --dry-run",
        run,
    )
    add_root(added)
    added.add_argument("-y", "--yes", action="store_true", help="do not ask")
    added.add_argument("--dry-run", action="store_true", help="only say what would be deleted")


def run(arguments: argparse.Namespace) -> int:  # noqa: C901 - a sequence of ways out
    """Do the work and return the exit status."""
    from blackboxml.cli import terminal
    from blackboxml.collection import find_runs
    from blackboxml.frontends.store import reason_to_keep

    root = arguments.root or arguments.log_dir
    with output.Progress("reading runs"):
        reasons = {path: reason_to_keep(path) for path in find_runs(root)}
    for path, reason in reasons.items():
        if reason is not None:
            print(f"{terminal.safe(path)} stays: {terminal.safe(reason)}")
    doomed = [path for path, reason in reasons.items() if reason is None]
    if not doomed:
        print("no runs to delete.")
        return OK
    if arguments.dry_run:
        for path in doomed:
            print(f"would delete {terminal.safe(path)}")
        return OK
    if not arguments.yes:
        if not sys.stdin.isatty():
            output.note(
                f"{len(doomed)} run(s) would be deleted; say so with -y, or look with --dry-run"
            )
            return USAGE
        question = f"delete {len(doomed)} run(s) below {terminal.safe(root)}? [y/N]: "
        if not _agreed(question):
            print("nothing was deleted.")
            return OK
    deleted = 0
    for path in doomed:
        if reason_to_keep(path) is None:  # it may have been resumed since
            shutil.rmtree(path)
            deleted += 1
    print(f"deleted {deleted} run(s).")
    return OK


def _agreed(question: str) -> bool:
    """Ask a person; the end of the input is a no."""
    try:
        return input(question).strip().lower() in {"y", "yes"}
    except EOFError:
        print()
        return False
