"""The arguments of the command line: what each command is called, takes and says of itself."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, Final

from blackboxml.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Adder = Callable[..., argparse.ArgumentParser]

LOG_DIR: Final = "blackboxml_logs"

STATUSES: Final = (
    *("running", "completed", "failed", "interrupted", "crashed", "stale"),
    "unreadable",
)
"""What `list --status` takes."""

_RUN: Final = "a run directory, or the name of a run in --log-dir (the newest one)"


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the arguments, among them `command`, the name of the one that is meant.

    Args:
        argv: The arguments as texts, None for those of the process.

    Raises:
        SystemExit: After help or version was printed, and with status 2 on wrong usage.
    """
    parser = _make_parser()
    arguments, rest = parser.parse_known_args(argv)
    # argparse does not see that words behind an option go on with those before it.
    if rest and arguments.command == "plot" and not any(word.startswith("-") for word in rest):
        arguments.metrics += rest
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return arguments


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="blackbox",
        description="Look at training runs in the blackbox format; seal, validate and plot them.",
        epilog="example: blackbox list, then: blackbox show NAME",
    )
    parser.add_argument("--version", action="version", version=f"blackbox {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, text: str, example: str, **options: Any) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name, help=text, description=f"{text}.", epilog=f"example: {example}", **options
        )
        added.set_defaults(command=name)
        return added

    _add_list(add)
    _add_show(add)
    _add_tail(add)
    _add_plot(add)
    _add_seal_and_pack(add)
    _add_validate(add)
    _add_clean(add)
    return parser


def _add_list(add: Adder) -> None:
    added = add(
        "list",
        "list the runs below a folder, newest first",
        "blackbox list --status failed",
        aliases=["runs"],
    )
    _add_root(added)
    added.add_argument("--status", choices=STATUSES, help="only runs of this status")
    added.add_argument(
        "--tag", action="append", default=[], help="only runs with this tag; may be given again"
    )
    _add_json(added)


def _add_show(add: Adder) -> None:
    added = add(
        "show",
        "show what one run is and the statistics of its metrics",
        "blackbox show resnet",
    )
    _add_run(added)
    _add_json(added)


def _add_tail(add: Adder) -> None:
    added = add("tail", "print the points that were logged last", "blackbox tail -f resnet")
    _add_run(added)
    added.add_argument(
        "-n", "--number", type=_natural, default=10, metavar="N", help="how many (default: 10)"
    )
    added.add_argument(
        "-f", "--follow", action="store_true", help="go on with new points until the run ends"
    )
    added.add_argument("--poll", type=float, default=0.5, help=argparse.SUPPRESS)
    _add_json(added, "print one JSON object a line")


def _add_plot(add: Adder) -> None:
    added = add(
        "plot",
        "plot metrics in the terminal",
        "blackbox plot resnet loss eval/accuracy",
    )
    _add_run(added)
    added.add_argument(
        "metrics",
        nargs="*",
        metavar="METRIC",
        help="full names such as train/loss, or loss for all groups (default: the first four)",
    )
    added.add_argument("--width", type=_positive, metavar="COLUMNS", help="width of the whole")
    added.add_argument("--height", type=_positive, metavar="LINES", help="height of each plot")
    added.add_argument(
        "--x", choices=("step", "time"), default="step", help="horizontal axis (default: step)"
    )


def _add_seal_and_pack(add: Adder) -> None:
    for added in (
        add(
            "seal",
            "write tables, datasets and checksums of runs that have ended",
            "blackbox seal blackboxml_logs/resnet_*",
        ),
        add(
            "pack",
            "keep tables only, to save room; `seal` makes the rest again",
            "blackbox pack resnet",
        ),
    ):
        added.add_argument("runs", nargs="+", metavar="RUN", help=_RUN)
        _add_log_dir(added)
        _add_json(added)


def _add_validate(add: Adder) -> None:
    added = add(
        "validate",
        "check runs against the specification",
        "blackbox validate blackboxml_logs",
    )
    added.add_argument(
        "paths", nargs="+", metavar="PATH", help="a run, or a folder to look for runs in"
    )
    _add_json(added)


def _add_clean(add: Adder) -> None:
    added = add(
        "clean",
        "delete the runs below a folder, after asking",
        "blackbox clean --dry-run",
    )
    _add_root(added)
    added.add_argument("-y", "--yes", action="store_true", help="do not ask")
    added.add_argument("--dry-run", action="store_true", help="only say what would be deleted")


def _add_run(added: argparse.ArgumentParser) -> None:
    added.add_argument("run", metavar="RUN", help=_RUN)
    _add_log_dir(added)


def _add_root(added: argparse.ArgumentParser) -> None:
    added.add_argument(
        "root", nargs="?", metavar="ROOT", help="folder of runs instead of --log-dir"
    )
    _add_log_dir(added)


def _add_log_dir(added: argparse.ArgumentParser) -> None:
    added.add_argument(
        "--log-dir",
        default=LOG_DIR,
        metavar="DIR",
        help="folder of runs (default: %(default)s)",
    )


def _add_json(added: argparse.ArgumentParser, what: str = "print one JSON document") -> None:
    added.add_argument("--json", action="store_true", help=what)


def _natural(text: str) -> int:
    """Return a number from 0 for argparse."""
    number = int(text)
    if number < 0:
        raise ValueError(text)
    return number


def _positive(text: str) -> int:
    """Return a number from 1 for argparse."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


# What argparse calls them where it refuses a value.
_natural.__name__ = "number"
_positive.__name__ = "number"
