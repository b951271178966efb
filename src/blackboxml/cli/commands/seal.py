"""`blackbox seal` and `blackbox pack`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blackboxml.cli import output, places
from blackboxml.cli.arguments import RUN, add_json, add_log_dir
from blackboxml.cli.status import BAD, OK
from blackboxml.errors import BlackboxError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from blackboxml.cli.arguments import Adder
    from blackboxml.seal import SealReport


def add_to(add: Adder) -> None:
    """Declare the arguments."""
    for added in (
        add(
            "seal",
            "write tables, datasets and checksums of runs that have ended",
            "blackbox seal blackboxml_logs/resnet_*",
            _seal,
        ),
        add(
            "pack",
            "keep tables only, to save room; `seal` makes the rest again",
            "blackbox pack resnet",
            _pack,
        ),
    ):
        added.add_argument("runs", nargs="+", metavar="RUN", help=RUN)
        added.add_argument(
            "--force",
            action="store_true",
            help="take your word that the run has ended, where nothing proves it",
        )
        add_log_dir(added)
        add_json(added)


def _seal(arguments: argparse.Namespace) -> int:
    from blackboxml.seal import seal

    return _each_run(arguments, "seal", seal)


def _pack(arguments: argparse.Namespace) -> int:
    from blackboxml.seal.pack import pack

    return _each_run(arguments, "pack", pack)


def _each_run(arguments: argparse.Namespace, verb: str, work: Callable[..., SealReport]) -> int:
    """Seal or pack runs, going on where one cannot be."""
    from blackboxml.cli import terminal
    from blackboxml.cli.overview import reason

    told: list[dict[str, Any]] = []
    for text in arguments.runs:
        entry: dict[str, Any] = {"path": text}
        told.append(entry)
        try:
            path = places.find(text, arguments.log_dir)
            entry["path"] = path
            before = places.bytes_below(path)
            with output.Progress(f"{verb}ing {path.name}") as progress:
                report = work(path, progress=progress.update, force=arguments.force)
        except (BlackboxError, OSError) as error:
            entry["error"] = reason(error)
            output.complain(error)
            continue
        after = places.bytes_below(path)
        entry |= {
            "changed": report.changed,
            "rows": report.rows,
            "bytes_before": before,
            "bytes_after": after,
            "problems": report.problems,
        }
        if not arguments.json:
            done = f"{verb}ed" if report.changed else f"was {verb}ed already"
            sizes = f"{terminal.size(before)} → {terminal.size(after)}" * report.changed
            rows = ", ".join(
                f"{terminal.safe(name or 'metrics')} {number:,}"
                for name, number in report.rows.items()
            )
            facts = "; ".join(filter(None, (f"rows: {rows}" if rows else "no metrics", sizes)))
            print(f"{terminal.safe(path)}: {done} ({facts})", flush=True)
            output.print_problems(report.problems)
    if arguments.json:
        output.print_json(told)
    return BAD if any("error" in entry for entry in told) else OK
