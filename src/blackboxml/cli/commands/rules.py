"""`blackbox rules`: what the specification asks for."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from blackboxml.cli import output
from blackboxml.cli.arguments import add_json
from blackboxml.cli.status import OK, USAGE

if TYPE_CHECKING:
    import argparse

    from blackboxml.cli.arguments import Adder


def add_to(add: Adder) -> None:
    """Declare the arguments."""
    added = add("rules", "explain the rules of the format", "blackbox rules BB-JNL-004", run)
    added.add_argument(
        "rules", nargs="*", metavar="ID", help="a rule, as BB-JNL-004 or crc-matches; none for all"
    )
    add_json(added)


def run(arguments: argparse.Namespace) -> int:
    """Do the work and return the exit status."""
    from blackboxml.cli import findings
    from blackboxml.validation import catalogue
    from blackboxml.validation.single import find_rule

    try:
        chosen = [catalogue.rule(find_rule(name)) for name in arguments.rules]
    except ValueError as error:
        output.note(f"error: {error}")
        return USAGE
    if arguments.json:
        output.print_json([dataclasses.asdict(each) for each in chosen or catalogue.rules()])
    elif chosen:
        for place, each in enumerate(chosen):
            if place:
                print()
            output.show(findings.rule_text(each))
    else:
        output.show(findings.rules_table(catalogue.rules()))
    return OK
