"""`blackbox show`: one run, the statistics of its metrics, and its media."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from blackboxml.cli import output, places
from blackboxml.cli.arguments import add_json, add_run
from blackboxml.cli.status import OK
from blackboxml.errors import ManifestError, NotARunError

if TYPE_CHECKING:
    import argparse

    from blackboxml.cli.arguments import Adder
    from blackboxml.reader import RunReader


def add_to(add: Adder) -> None:
    """Declare the arguments."""
    added = add(
        "show",
        "show what one run is, the statistics of its metrics, and its media",
        "blackbox show resnet --media",
        run,
    )
    add_run(added)
    added.add_argument(
        "--media",
        nargs="?",
        const="",
        metavar="NAME",
        help="show media: texts, tables and histograms here, other files by their paths; those of "
        "one name at every step, without NAME the last ones of all",
    )
    add_json(added)


def run(arguments: argparse.Namespace) -> int:
    """Do the work and return the exit status."""
    from blackboxml.cli import gallery, terminal
    from blackboxml.frontends.store import load_run
    from blackboxml.reader import open_run

    path = places.find(arguments.run, arguments.log_dir)
    try:
        reader = open_run(path)
    except (NotARunError, ManifestError):
        output.print_json(load_run(path))  # of blackboxml 0.5, or the same error again
        return OK
    if arguments.media is not None:
        return _show_media(reader, arguments.media, as_json=arguments.json)
    with output.Progress("reading the run"):
        summary, media = reader.summary(), gallery.overview(reader.media())
    verdict = reader.verdict
    config = reader.config
    if arguments.json:
        output.print_json(
            {
                "path": reader.path,
                "status": verdict.status,
                "reason": verdict.reason,
                "manifest": reader.manifest,
                "config": config,
                "summary": summary,
                "media": media,
                "problems": reader.problems,
            }
        )
        return OK
    output.show(terminal.run_header(reader, datetime.now(UTC)))
    print()
    if summary:
        units = terminal.units(reader.manifest["groups"]) if reader.sealed else {}
        output.show(terminal.metrics_table(summary, units))
    else:
        print("no metrics were logged.")
    if media:
        print()
        output.show(gallery.media_table(media))
    _print_problems(reader)
    return OK


def _show_media(reader: RunReader, name: str, *, as_json: bool) -> int:
    """Show the media of a name, or the last of each name."""
    from blackboxml.cli import gallery

    media = gallery.choose(reader, name)
    if as_json:
        found = [gallery.describe(each) for each in media]
        output.print_json({"path": reader.path, "media": found, "problems": reader.problems})
        return OK
    for place, record in enumerate(media):
        if place:
            print()
        output.show(gallery.heading(record))
        drawn = gallery.draw(reader, record, whole=bool(name), ascii_only=output.is_ascii())
        for part in drawn:
            output.show(part)
    if not media:
        print("no media were logged.")
    _print_problems(reader)
    return OK


def _print_problems(reader: RunReader) -> None:
    """Print what is wrong with a run, if anything is."""
    if reader.problems:
        print()
        output.print_problems(reader.problems)
