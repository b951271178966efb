"""Arguments that several commands take."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Final

Adder = Callable[..., argparse.ArgumentParser]
"""Adds a command: name, what it does, an example, `run` for what does it, options of argparse."""

LOG_DIR: Final = "blackboxml_logs"

RUN: Final = "a run directory, or the name of a run in --log-dir (the newest one)"


def add_run(added: argparse.ArgumentParser) -> None:
    """Take one run."""
    added.add_argument("run", metavar="RUN", help=RUN)
    add_log_dir(added)


def add_root(added: argparse.ArgumentParser) -> None:
    """Take a folder of runs."""
    added.add_argument(
        "root", nargs="?", metavar="ROOT", help="folder of runs instead of --log-dir"
    )
    add_log_dir(added)


def add_log_dir(added: argparse.ArgumentParser) -> None:
    """Take the folder in which runs are looked for."""
    added.add_argument(
        "--log-dir",
        default=LOG_DIR,
        metavar="DIR",
        help="folder of runs (default: %(default)s)",
    )


def add_json(added: argparse.ArgumentParser, what: str = "print one JSON document") -> None:
    """Let the results be for programs."""
    added.add_argument("--json", action="store_true", help=what)


def natural(text: str) -> int:
    """Return a number from 0 for argparse."""
    number = int(text)
    if number < 0:
        raise ValueError(text)
    return number


def positive(text: str) -> int:
    """Return a number from 1 for argparse."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


# What argparse calls them where it refuses a value.
natural.__name__ = "number"
positive.__name__ = "number"
