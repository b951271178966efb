"""From the names people give to the names that files, tables and datasets can carry.

Every mapping here is injective: two metrics of a group never share a column or a variable, and two
groups never share a file, not even on a file system that ignores case. A reader need not know these
rules. It takes the names of files from the manifest, and those of metrics from the tables.
"""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC
from hashlib import sha256
from itertools import count, filterfalse
from string import ascii_letters, ascii_lowercase, ascii_uppercase, digits
from typing import TYPE_CHECKING, Final, Literal

from blackboxml.errors import MetricError

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Sequence
    from datetime import datetime

JournalStem = Literal["metrics", "media"]
"""What a journal holds, and what its name begins with."""

MAX_NAME_BYTES: Final = 1024
"""Length of a metric's name in UTF-8."""

MAX_DIRECTORY_STEM: Final = 100
"""Characters that a run's name may take in the name of its directory."""

MAX_ORDINAL: Final = 2**31 - 1
"""Greatest rank, and greatest ordinal of a journal: the columns of a table are int32."""

_RESERVED_COLUMN = re.compile(r"(?:step|time|attempt|rank|seq|draw)_*")
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_JOURNAL = re.compile(r"(metrics|media)(?:\.r([1-9][0-9]{0,9}))?(?:\.([1-9][0-9]{0,9}))?\.jsonl")
_OWN_STEM = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}")
_ENDS_LIKE_A_DIGEST = re.compile(r".*-[0-9A-Fa-f]{8}")
_TAKEN_STEMS = frozenset(
    ["metrics", "media", "run", "config", "con", "prn", "aux", "nul"]
    + [f"{device}{digit}" for device in ("com", "lpt") for digit in range(10)],
)
_SAFE_BYTES = frozenset(f"{ascii_letters}{digits}_.-".encode())
_ASCII_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)


def sanitise(name: str) -> str:
    """Return `name` as part of a file's name: `[A-Za-z0-9_-]`, at most 100 characters.

    Every other character becomes `_`, and so does a `-` at the beginning, which a command would
    take for an option. Different names may give the same text; an empty one stays empty.

    >>> sanitise("my run/with spaces!")
    'my_run_with_spaces_'
    """
    clean = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:MAX_DIRECTORY_STEM]
    return "_" + clean[1:] if clean.startswith("-") else clean


def run_directory_name(name: str, when: datetime) -> str:
    """Return `<sanitised name>_<YYYYMMDD_HHMMSS>`, the moment being given in UTC.

    Raises:
        ValueError: `when` has no time zone, so its moment is not known.
    """
    if when.tzinfo is None:
        raise ValueError(f"{when!r} has no time zone; use datetime.now(UTC)")
    return f"{sanitise(name)}_{when.astimezone(UTC):%Y%m%d_%H%M%S}"


def check_run_name(name: object) -> str:
    """Return the name of a run if it can be stored: one line of at most 1,024 bytes.

    Raises:
        ValueError: If not, saying why.
    """
    text = _text("name", name)
    size = len(text.encode())
    if size > MAX_NAME_BYTES or _CONTROL.search(text):
        found = f"has {size:,} bytes" if size > MAX_NAME_BYTES else "has control characters"
        message = (
            f"the name of the run {text!r:.80} {found}; "
            f"wanted one line of at most {MAX_NAME_BYTES:,} bytes"
        )
        raise ValueError(message)
    return text


def check_tags(tags: Iterable[str] | None) -> list[str]:
    """Return tags as a list of texts.

    Raises:
        ValueError: If one cannot be stored.
    """
    if isinstance(tags, str):
        message = f"tags is the text {tags!r:.80}, wanted a list of texts"
        raise ValueError(message)  # noqa: TRY004 - one kind of error for all arguments
    return [_text("tag", tag) for tag in tags or []]


def check_metric_name(name: str) -> None:
    """Refuse a metric's name that the format cannot carry.

    A name is 1 to 1,024 bytes of UTF-8 without control characters, and does not begin or end
    with `/`.

    Raises:
        MetricError: Says which name, what is wrong with it, and how to mend it.
    """
    if not isinstance(name, str):
        found, cure = f"is of type {type(name).__name__}", "name metrics by text, e.g. str(key)"
    elif not name:
        found, cure = "is empty", "give the metric a name"
    elif (character := _FORBIDDEN.search(name)) is not None:
        found = f"has the character U+{ord(character[0]):04X}"
        cure = "leave out control characters and surrogates"
    elif name.startswith("/") or name.endswith("/"):
        found, cure = "begins or ends with '/'", "write group/metric, or the metric alone"
    elif len(name) > MAX_NAME_BYTES or len(name.encode()) > MAX_NAME_BYTES:
        found = f"has {len(name.encode())} bytes of UTF-8"
        cure = f"shorten it to {MAX_NAME_BYTES}"
    else:
        return
    raise MetricError(f"the metric name {_shorten(name)} {found}; {cure}")


def group_of(name: str) -> str:
    """Return the text before the first `/` of a metric's name; empty for the unnamed group."""
    group, slash, _ = name.partition("/")
    return group if slash else ""


def short_name(name: str) -> str:
    """Return a metric's name inside its group: the text after the first `/`, or all of it."""
    group, slash, rest = name.partition("/")
    return rest if slash else group


def column_names(metrics: Sequence[str]) -> dict[str, str]:
    """Return the table column of each metric of one group.

    It is the short name. One that reads like a column of the format (`step`, `time`, `attempt`,
    `rank`, `seq`, `draw`, with any number of `_` after it) is given one `_` more.

    Args:
        metrics: Full names, all of the same group.
    """
    columns = {}
    for metric in metrics:
        short = short_name(metric)
        columns[metric] = f"{short}_" if _RESERVED_COLUMN.fullmatch(short) else short
    return columns


def statistic_column(column: str, statistic: str, taken: Container[str]) -> str:
    """Return the table column of a statistic across ranks, such as `loss/mean`.

    Where that is taken it becomes `loss/ranks/mean`, then `loss/ranks/ranks/mean`, and so on.

    Args:
        column: The metric's own column.
        statistic: `mean`, `min`, `max`, `std` or `count`.
        taken: The columns of all metrics of the group and those given to statistics so far.
            Without the latter, `a/mean` logged beside `a` and `a/ranks` would bring two
            statistics to `a/ranks/mean`.
    """
    while (candidate := f"{column}/{statistic}") in taken:
        column += "/ranks"
    return candidate


def variable_names(columns: Iterable[str]) -> dict[str, str]:
    """Return the HDF5 variable of each column of one table.

    HDF5 reads `/` as a path, so it becomes `.`. Where that is not unique, or the result has a `%`,
    begins with `.`, or begins or ends with a space, every byte of the column's name outside
    `[A-Za-z0-9_.-]`, and a `.` at the beginning, is written `%XX` instead.
    """
    dotted = {column: column.replace("/", ".") for column in columns}
    uses = Counter(dotted.values())
    return {
        column: name if uses[name] == 1 and _is_variable(name) else percent_encode(column)
        for column, name in dotted.items()
    }


def file_stems(groups: Iterable[str]) -> dict[str, str]:
    """Return the name, without extension, of the sealed files of each group of one run.

    The unnamed group gives `metrics`. A group whose name is a safe file name on every system, and
    that no other group's name equals when case is ignored, gives its own name. Any other gives at
    most 32 characters of it, `-`, and the first 8 hexadecimal digits of the SHA-256 of the name.
    Should two of those be equal, both take all 64 digits.
    """
    folded = {name: name.translate(_ASCII_LOWER) for name in groups}
    uses = Counter(folded.values())
    stems = {
        name: name if uses[fold] == 1 and _is_own_stem(name) else _digest_stem(name, 8)
        for name, fold in folded.items()
    }
    clashes = Counter(stem.lower() for stem in stems.values())
    for name, stem in stems.items():
        if clashes[stem.lower()] > 1:
            stems[name] = _digest_stem(name, 64)
    if "" in stems:
        stems[""] = "metrics"
    return stems


def distinct(name: str, is_taken: Callable[[str], bool], stem: str | None = None) -> str:
    """Return a name that is not taken: the name itself, or with `_2`, `_3` … behind it.

    >>> distinct("a", ["a", "a_2"].__contains__)
    'a_3'

    Args:
        name: The name to begin with.
        is_taken: Tells whether a name is.
        stem: What the number stands behind, where the name would become too long.
    """
    if not is_taken(name):
        return name
    stem = name if stem is None else stem
    return next(filterfalse(is_taken, (f"{stem}_{number}" for number in count(2))))


def journal_name(rank: int, ordinal: int, stem: JournalStem = "metrics") -> str:
    """Return the file name of a journal, such as `metrics.r3.1.jsonl`.

    Args:
        rank: Rank of the writer, from 0; rank 0 is left out of the name.
        ordinal: Which journal of that rank, from 0; 0 is left out of the name.
        stem: What the journal holds.

    Raises:
        ValueError: `rank` or `ordinal` is not in 0 … 2^31 - 1.
    """
    for what, number in (("rank", rank), ("ordinal", ordinal)):
        if not 0 <= number <= MAX_ORDINAL:
            raise ValueError(f"the {what} of a journal is 0 to {MAX_ORDINAL}, not {number}")
    return f"{stem}{f'.r{rank}' if rank else ''}{f'.{ordinal}' if ordinal else ''}.jsonl"


def parse_journal_name(filename: str, stem: JournalStem = "metrics") -> tuple[int, int] | None:
    """Return rank and ordinal of the journal of that name, or None where it names none.

    Args:
        filename: Name of the file, without its directory.
        stem: What the journal holds.
    """
    found = _JOURNAL.fullmatch(filename)
    if found is None or found[1] != stem:
        return None
    rank, ordinal = int(found[2] or 0), int(found[3] or 0)
    return (rank, ordinal) if max(rank, ordinal) <= MAX_ORDINAL else None


def _shorten(name: object, limit: int = 80) -> str:
    text = repr(name[:limit] if isinstance(name, str) else name)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _is_variable(name: str) -> bool:
    return "%" not in name and not name.startswith((".", " ")) and not name.endswith(" ")


def _is_own_stem(name: str) -> bool:
    return (
        _OWN_STEM.fullmatch(name) is not None
        and name.lower() not in _TAKEN_STEMS
        and _ENDS_LIKE_A_DIGEST.fullmatch(name) is None
    )


def _digest_stem(name: str, length: int) -> str:
    digest = sha256(name.encode(errors="surrogatepass")).hexdigest()
    return f"{sanitise(name)[:32]}-{digest[:length]}"


def percent_encode(column: str) -> str:
    """Return a name with `%XX` for each byte that cannot stand in that of any variable."""
    encoded = "".join(
        chr(byte) if byte in _SAFE_BYTES else f"%{byte:02X}"
        for byte in column.encode(errors="surrogatepass")
    )
    return "%2E" + encoded[1:] if encoded.startswith(".") else encoded


def _text(what: str, text: object) -> str:
    """Return a name or a tag if it can be stored."""
    if not isinstance(text, str) or not text:
        message = f"the {what} of a run is {text!r:.80}, wanted text that is not empty"
        raise ValueError(message)
    try:
        text.encode()
    except UnicodeEncodeError:
        message = f"the {what} {text!r:.80} is not valid Unicode"
        raise ValueError(message) from None
    return text
