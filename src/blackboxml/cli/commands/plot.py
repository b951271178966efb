"""`blackbox plot`: curves in the terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from blackboxml.cli import output, places
from blackboxml.cli.arguments import add_run, positive
from blackboxml.cli.status import OK

if TYPE_CHECKING:
    import argparse

    from blackboxml.cli.arguments import Adder

_PIPED_WIDTH: Final = 80


def add_to(add: Adder) -> None:
    """Declare the arguments."""
    added = add(
        "plot",
        "plot metrics in the terminal",
        "blackbox plot resnet loss eval/accuracy",
        run,
    )
    add_run(added)
    added.add_argument(
        "metrics",
        nargs="*",
        metavar="METRIC",
        help="full names such as train/loss, or loss for all groups (default: the first four)",
    )
    added.add_argument("--width", type=positive, metavar="COLUMNS", help="width of the whole")
    added.add_argument("--height", type=positive, metavar="LINES", help="height of each plot")
    added.add_argument(
        "--x", choices=("step", "time"), default="step", help="horizontal axis (default: step)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Do the work and return the exit status."""
    from blackboxml.reader import open_run

    reader = open_run(places.find(arguments.run, arguments.log_dir))
    with output.Progress("reading the run"):
        from blackboxml.cli import chart

        chosen = chart.choose(reader, arguments.metrics)
        if not chosen:
            print("no metrics were logged.")
            return OK
        width = arguments.width or (output.console().width if sys.stdout.isatty() else _PIPED_WIDTH)
        drawn = chart.draw(reader, chosen, width=width, height=arguments.height, axis=arguments.x)
    output.show(drawn, width)
    return OK
