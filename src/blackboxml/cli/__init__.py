"""The commands `blackbox` and `bbml`; the one folder that prints.

A command is one file in `commands` and one line of the table here.

Exit status: 0 good, 1 a run that is bad or not there, 2 wrong usage, 3 undecided, 130 Ctrl-C, 141
closed pipe.
Heavy libraries are imported by the commands that need them, so that help and `list` come at once.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
from typing import TYPE_CHECKING, Any, Final

from blackboxml.cli import output
from blackboxml.cli.commands import (
    clean,
    conformance,
    convert,
    plot,
    query,
    repair,
    rules,
    seal,
    show,
    tail,
    validate,
)
from blackboxml.cli.commands import list as list_
from blackboxml.cli.status import BAD, CLOSED_PIPE, INTERRUPTED
from blackboxml.errors import BlackboxError
from blackboxml.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

COMMANDS: Final = (
    *(list_, show, tail, plot, query, seal, validate, repair),
    *(rules, convert, clean, conformance),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    Args:
        argv: The arguments, None for those of the process.
    """
    try:
        arguments = _parse(argv)
    except SystemExit as done:  # help, version, wrong usage
        return int(done.code or 0)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    with output.warnings_shown():
        try:
            status: int = arguments.execute(arguments)
            sys.stdout.flush()
        except BrokenPipeError:
            # Whoever read us has left. Python would complain once more when it flushes at exit.
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return CLOSED_PIPE
        except KeyboardInterrupt:
            return INTERRUPTED
        except (BlackboxError, OSError) as error:
            output.complain(error)
            return BAD
    return status


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
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

    def add(
        name: str,
        text: str,
        example: str,
        run: Callable[[argparse.Namespace], int],
        **options: Any,
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name, help=text, description=f"{text}.", epilog=f"example: {example}", **options
        )
        added.set_defaults(command=name, execute=run)
        return added

    for command in COMMANDS:
        command.add_to(add)
    return parser
