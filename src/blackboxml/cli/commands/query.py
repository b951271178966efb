"""`blackbox query`: SQL over all runs below a folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from blackboxml.cli import output
from blackboxml.cli.arguments import add_root
from blackboxml.cli.status import OK, USAGE
from blackboxml.errors import QueryError

if TYPE_CHECKING:
    import argparse

    import polars as pl

    from blackboxml.cli.arguments import Adder
    from blackboxml.collection.sql import Database

_FORMS: Final = ("table", "csv", "json", "jsonl", "markdown", "parquet")
_MOST_NAMED: Final = 40
_TABLES: Final = (
    "Tables: runs, with the columns of its config and of the last values of its metrics, such as "
    '"config.lr" and "last.train/loss"; and one for each group of metrics, such as train; metrics '
    "without a prefix are in the table metrics. A name with a dot or a slash stands in double "
    "quotes."
)


def add_to(add: Adder) -> None:
    """Declare the arguments."""
    added = add(
        "query",
        "ask all runs below a folder in SQL",
        """blackbox query 'SELECT name, "last.train/loss" FROM runs ORDER BY 2 LIMIT 10'""",
        run,
    )
    added.description = f"{added.description} {_TABLES}"
    add_root(added)
    added.add_argument("sql", metavar="SQL", help="one or more statements; - reads standard input")
    added.add_argument(
        "--format",
        choices=_FORMS,
        help="form of the result (default: by the suffix of FILE, else table)",
    )
    added.add_argument(
        "--json",
        action="store_const",
        const="json",
        dest="format",
        help="the same as --format json",
    )
    added.add_argument("-o", "--output", metavar="FILE", help="write the result to a file")
    added.add_argument(
        "--no-refresh",
        action="store_false",
        dest="refresh",
        help="take runs and last values from the last look, without looking at files",
    )


def run(arguments: argparse.Namespace) -> int:
    """Do the work and return the exit status."""
    from blackboxml.cli import result
    from blackboxml.collection.sql import Database

    suffix = Path(arguments.output or "").suffix
    form = arguments.format or result.SUFFIXES.get(suffix, "table")
    if form == "parquet" and arguments.output is None:
        output.note("error: --format parquet: name a file with --output")
        return USAGE
    text = sys.stdin.read() if arguments.sql == "-" else arguments.sql
    with output.Progress("reading runs"):
        database = Database(arguments.root or arguments.log_dir, refresh=arguments.refresh)
        try:
            found = database.query(text)
        except QueryError as error:
            for line in f"error: {error}".splitlines():
                output.note(line)
            _print_tables(database)
            return USAGE
    if arguments.output is None:
        _print(found, form)
    else:
        _write(found, form, Path(arguments.output))
    return OK


def _print(found: pl.DataFrame, form: str) -> None:
    """Print a result."""
    from blackboxml.cli import result

    if form == "table":
        output.show(result.table(found))
    elif form == "json":
        output.print_json(found.to_dicts())
    else:
        for line in result.lines(found, form, ascii_only=output.is_ascii()):
            print(line)


def _write(found: pl.DataFrame, form: str, path: Path) -> None:
    """Write a result to a file."""
    from blackboxml.cli import result

    if form == "parquet":
        found.write_parquet(path)
        return
    with path.open("w", encoding="utf-8", newline="\n") as file:
        if form == "table":
            file.write(f"{output.plain_text(result.table(found))}\n")
        else:
            file.writelines(f"{line}\n" for line in result.lines(found, form))


def _print_tables(database: Database) -> None:
    """Say what may be asked, on standard error."""
    tables = database.tables()
    for name, columns in list(tables.items())[:_MOST_NAMED]:
        said = [f"{column} ({kind.base_type()})" for column, kind in columns.items()]
        output.note(f"table {name}: {_some(said)}")
    if len(tables) > _MOST_NAMED:
        output.note(f"and {len(tables) - _MOST_NAMED:,} more tables")


def _some(names: list[str]) -> str:
    """Return the first of many names."""
    more = f", and {len(names) - _MOST_NAMED:,} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more
