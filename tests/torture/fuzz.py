"""Feed parsers whatever finds a new path through them, and see that they raise what they say.

    python -m tests.torture.fuzz --target line --seed 1 --count 1000000
    python -m tests.torture.fuzz --target pickle --plain --count 20000

It needs `atheris`, which watches what Python code an input runs through; what pyarrow and HDF5 do
inside it does not see. With `--plain`, inputs are mutated at random instead, without it. An input
that lets a parser raise something else is printed, to be put into `FOUND`.
"""

from __future__ import annotations

import argparse
import base64
import os
import random
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from blackboxml.errors import BlackboxError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ROOT: Final = Path(__file__).resolve().parents[2]
BASES: Final = ROOT / "fixtures" / "bases"
DATA: Final = ROOT / "tests" / "converters" / "data"
SECONDS: Final = 20
"""How long a parser may take over one input."""
_MOST_BYTES: Final = 2**16

_scratch: list[tempfile.TemporaryDirectory[str]] = []


def _place(name: str, data: bytes) -> Path:
    """Put an input into a file, in a folder of its own."""
    if not _scratch:
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        _scratch.append(tempfile.TemporaryDirectory(prefix="fuzz-", dir=memory))
    folder = Path(_scratch[0].name, name.replace(".", "-"))
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_bytes(data)
    return path


# -- targets: each parses, and raises what it documents


def _line(data: bytes) -> None:
    from blackboxml import journal
    from blackboxml.model import LIMITS

    for take in (journal.parse, journal.decode):
        document = take(data)
        journal.check_sequence(document)
        if "metrics" in document:
            journal.read_record(document, 0, 0, LIMITS)


def _manifest(data: bytes) -> None:
    from blackboxml import open_run, validate

    path = _place("run.json", data).parent
    validate(path, level="structure")
    reader = open_run(path)
    assert reader.status
    assert reader.groups is not None


def _journal(data: bytes) -> None:
    from blackboxml import open_run

    reader = open_run(_place("metrics.jsonl", data).parent)
    assert [*reader.records("all")] or reader.summary() is not None


def _config(data: bytes) -> None:
    import orjson

    from blackboxml.config import decode_config

    decode_config(orjson.loads(data))


def _npy(data: bytes) -> None:
    from blackboxml.base import npy

    npy.read_array(data)


def _event(data: bytes) -> None:
    from blackboxml.foreign.tensorboard import messages

    view = memoryview(data)
    messages.read_event(view)
    for value, _ in messages.read_values(view):
        assert value is not None


def _pickle(data: bytes) -> None:
    from blackboxml.converters.blocks import pickles

    pickles.understand(pickles.load(data))


def _imported(form: str, name: str) -> Callable[[bytes], None]:
    """Return what reads a file as an importer does."""

    def take(data: bytes) -> None:
        from blackboxml import converters

        path = _place(name, data)
        module = converters.importer(form)
        if module.recognise(path):
            for run in module.read(path):
                assert run.source

    return take


def _files(*patterns: str, folder: Path = BASES) -> list[bytes]:
    paths = [path for each in patterns for path in sorted(folder.rglob(each)) if path.is_file()]
    return [path.read_bytes() for path in paths if path.stat().st_size <= 4 * _MOST_BYTES]


def _lines() -> list[bytes]:
    return [line for data in _files("*.jsonl") for line in data.split(b"\n")[:40] if line]


TARGETS: Final[dict[str, tuple[Callable[[bytes], None], Callable[[], list[bytes]]]]] = {
    "line": (_line, _lines),
    "manifest": (_manifest, lambda: _files("run.json")),
    "config": (_config, lambda: [b'{"a":{"tuple":[1]}}', *_files("config.json")]),
    "journal": (_journal, lambda: _files("metrics*.jsonl")),
    "npy": (_npy, lambda: _files("*.npy")),
    "event": (_event, lambda: [bytes.fromhex("090000000000f03f1001")]),
    "pickle": (_pickle, lambda: _files("*.pkl", folder=DATA)),
    "csv": (_imported("csv", "log.csv"), lambda: _files("*.csv", folder=DATA)),
    "sqlite": (_imported("simplegrad", "runs.db"), lambda: _files("*.db", folder=DATA)),
    "table": (_imported("parquet", "table.parquet"), lambda: _files("*.parquet")),
    "dataset": (_imported("netcdf", "data.nc"), lambda: _files("*.h5")),
}
"""By name: what parses, and what it is fed with first."""

FOUND: Final[dict[str, list[str]]] = {
    "pickle": [
        (  # a name of names, each of them twice: 140 bytes that were gigabytes
            "gAJjYmxvQ2tzLmxvZy5sb2cKVHJhaW5pbmdMb2cKcQApUnEBKEsAfXECKFgEAAAAY29zdHEDRz8pKSkp"
            "MCkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKSkpKZOTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OT"
            "aG51bXB5eQpkdHlwZQphaW5pbnE="
        ),
    ],
    "table": [
        (  # a column of a type that pyarrow does not know
            "UEFSMRUAFRwVLhWb2byMBRwVAhUKFQYVBhwYCAAAAAAAAACAGAgAAAAAAAgAAOBCasDaQRERAAAAKLUv/SAIQQAA"
            "AADgQmrA2kEVABUKFRwV0O2bnwkcFQIVChUGFQYcGAQAAAAAGAQAAAAAFgAoBAAAAAAYBAAAAAAREQAAACi1L/0g"
            "BSkAAIABBAEAFQAVChUcFdDtm58JHBUCFQoVBhUGHBgEAAAAABgEAAAAABYAKAQAAAAAGAQAAAAAEREAAAAotS/9"
            "IAUpAACAAQQBABUAFQoVHBWuwan0DBwVAhUKFQYVBhwYCBIAAAAAAAAAGAgSAAAAAAAAABYAKAgSAAAAAAAAABgI"
            "EgAAAAAAAAAREQAAACi1L/0gBSkAAIACBAEkFQAVFhUoFb6iyIsHHBUCFQoVBhUGHBgIAgAAAAAAAAAYCAIAAAAA"
            "AAAAFgAoCAIAAAAAAAAAGAgCAAAAAAAAABERAAAAKLUv/SALWQAAAgAAAAIBgAIEAQQVBBl8NQAYBnNjaGVtYRUM"
            "ABUEJQAYBHN0ZXAAFQolABgEdGltZQAVAiUAGAdhdHRlbXB0ABUCJQAYBHJhbmsAFQQlABgDc2VxABUEJQIYAXgA"
            "FgIZHBlsJgAcFQQZJQYKGRgEc3RlcBUMFgIWpgEWuAEmCDwYCAAAAAAAAACAGAgAAAAAAAAAgBYAKAgAAAAAAAAA"
            "gBgIAAAAAAAAAIAREQAZHBUAFQoVAgAAACYAHBUKGSUGEhkYBHRpbWUVDBYCFpgBFqoBJsABPBgIAADgQmrA2kEY"
            "CAAA4EJqwNpBFgAoCAAA4EJqwNpBGAgAAOBCasDaQRERABkcFQAVEhUCAAAAJgAcFQIZJQYKGRgHYXR0ZW1wdBUM"
            "FgIWdBaGASbqAjwYBAAAAAAYBAAAAAAWACgEAAAAABgEAAAAABERABkcFQAVChUCAAAAJgAcFQIZJQYKGRgEcmFu"
            "axUMFgIWdBaGASbwAzwYBAAAAAAYBAAAAAAWACgEAAAAABgEAAAAABERABkcFQAVChUCAAAAJgAcFQQZJQYKGRgD"
            "c2VxFQwWAhaUARamASb2BDwYCBIAAAAAAAAAGAgSAAAAAAAAABYAKAgSAAAAAAAAABgIEgAAAAAAAAAREQAZHBUA"
            "FQoVAgAAACYAHBUEGSUGChkYAXgVDBYCFqABFrIBJpwGPBgIAgAAAAAAAAAYCAIAAAAAAAAAFgAoCAIAAAAAAAAA"
            "GAgCAAAAAAAAABERABkcFQAVChUCADwpBhkmAAIAAAAW2gYWAiYIFsYHABksGAhibGFja2JveBiSAXsiZm9ybWF0"
            "Ijp7Im5hbWUiOiJibGFja2JveC10YWJsZSIsInZlcnNpb24iOiIxLjAiLCJmZWF0dXJlcyI6W119LCJydW4iOnsi"
            "aWQiOiJkYzVjMTUxYTM4OGMyYjBlZTIyNjc5N2UwZjZkNjIyNyIsIm5hbWUiOiJmZWF0dXJlcyJ9LCJncm91cCI6"
            "InZhbCJ9ABgMQVJST1c6c2NoZW1hGPgGLy8vLy81QUNBQUFRQUFBQUFBQUtBQTRBQmdBRkFBZ0FDZ0FBQUFBQkJB"
            "QVFBQUFBQUFBS0FBd0FBQUFFQUFnQUNnQUFBTVFBQUFBRUFBQUFBUUFBQUFRQUFBRHcvdi8vb0FBQUFBUUFBQUNT"
            "QUFBQWV5Sm1iM0p0WVhRaU9uc2libUZ0WlNJNkltSnNZV05yWW05NExYUmhZbXhsSWl3aWRtVnljMmx2YmlJNklq"
            "RXVNQ0lzSW1abFlYUjFjbVZ6SWpwYlhYMHNJbkoxYmlJNmV5SnBaQ0k2SW1Sak5XTXhOVEZoTXpnNFl6SmlNR1Zs"
            "TWpJMk56azNaVEJtTm1RMk1qSTNJaXdpYm1GdFpTSTZJbVpsWVhSMWNtVnpJbjBzSW1keWIzVndJam9pZG1Gc0lu"
            "MEFBQWdBQUFCaWJHRmphMUp2ZUFBQUFBQUdBQUFBWkFFQUFDQUJBQURzQUFBQXVBQUFBSWdBQUFBWUFBQUFBQUFT"
            "QUJnQUNBQUdBQWNBREFBQUFCQUFGQUFTQUFBQUFBQUJBaFFBQUFCVUFBQUFDQUFBQUJBQUFBQUFBQUFBQVFBQUFI"
            "Z0FBQUFCQUFBQURBQUFBQWdBREFBRUFBZ0FDQUFBQUJRQUFBQUVBQUFBQlFBQUFIWmhiQzk0QUFBQUR3QUFBR0pz"
            "WVdOclltOTRMbTFsZEhKcFl3QUUvLy8vQUFBQUFVQUFBQUJFLy8vL0FBQUFBaEFBQUFBVUFBQUFCQUFBQUFBQUFB"
            "QURBQUFBYzJWeEFERC8vLzhBQUFBQlFBQUFBSEQvLy84QUFBQUNFQUFBQUJnQUFBQUVBQUFBQUFBQUFBUUFBQUJ5"
            "WVc1ckFBQUFBR0QvLy84QUFBQUJJQUFBQUtELy8vOEFBQUFDRUFBQUFCZ0FBQUFFQUFBQUFBQUFBQWNBQUFCaGRI"
            "UmxiWEIwQUpELy8vOEFBQUFCSUFBM0FORC8vLzhBQUFBREVBQUFBQndBQUFBRUFBQUFBQUFBQUFRQUFBQjBhVzFs"
            "QUFBR0FBZ0FCZ0FHQUFBQUFBQUNBQkFBRkFBSUFBQUFCd0FNQUFBQUVBQVFBQUFBQUFBQUFoQUFBQUFnQUFBQUJB"
            "QUFBQUFBQUFBRUFBQUFjM1JsY0FBQUFBQUlBQXdBQ0FBSEFBZ0FBQUFBQUFBQlFBQUFBQT09ABggcGFycXVldC1j"
            "cHAtYXJyb3cgdmVyc2lvbiAyNi4wLjEZbBwAABwAABwAABwAABwAABwAAACuBgAAUEFSMQ=="
        ),
    ],
}
"""Inputs that once made a parser raise something else, in Base64, by target; each is mended."""

DOCUMENTED: Final = (BlackboxError, ValueError, OSError)
"""What parsers raise of bad input; a `KeyError`, `TypeError` or `RecursionError` is a fault."""


def careless() -> None:
    """Take what stands in a line for what it should be."""
    from blackboxml import journal

    genuine = journal.parse

    def parse(line: bytes) -> Any:
        document = genuine(line)
        return {**document, "seq": document["seq"] + 0}

    journal.parse = parse


VARIANTS: Final = {"careless": ("line", careless)}
"""Parsers that are known to be bad, and the target that shows it."""


class Hang(BaseException):
    """A parser takes too long; no `except Exception` stops it."""


def _hang(*_: Any) -> None:
    raise Hang


def attempt(target: str, data: bytes) -> str | None:
    """Return what a parser raised that it must not, or None."""
    signal.signal(signal.SIGALRM, _hang)
    signal.alarm(SECONDS)
    try:
        TARGETS[target][0](data)
    except DOCUMENTED:
        return None
    except (Exception, Hang):  # noqa: BLE001 - it is the finding
        return traceback.format_exc(-4)
    finally:
        signal.alarm(0)
    return None


def seeds(target: str) -> list[bytes]:
    """Return what a target is fed with first."""
    found = [base64.b64decode(text) for text in FOUND.get(target, [])]
    return [*TARGETS[target][1](), *found, b""]


def mutants(target: str, seed: int, count: int) -> Iterator[bytes]:
    """Yield inputs that are mutated at random."""
    from tests.torture.mutate import OPERATIONS

    first = seeds(target)
    for number in range(count):
        chance = random.Random(f"{seed}:{target}:{number}")
        data = chance.choice(first)
        for _ in range(chance.choice((1, 1, 2, 4))):
            _, operation = chance.choice(OPERATIONS)
            changed = operation(chance, "input", {"input": data, "other": chance.choice(first)})
            data = changed.get("input") or data
        yield data[: 4 * _MOST_BYTES]


def plain(target: str, seed: int, count: int) -> list[str]:
    """Feed a parser its seeds and mutants of them; return what it raised."""
    return [
        f"{target}: {base64.b64encode(data[:2000]).decode()}\n{what}"
        for data in (*seeds(target), *mutants(target, seed, count))
        if (what := attempt(target, data)) is not None
    ]


def guided(target: str, seed: int, count: int) -> None:
    """Let `atheris` look for inputs; it ends the process at the first that is a finding."""
    import atheris

    with atheris.instrument_imports(include=["blackboxml"]):
        for data in seeds(target):
            attempt(target, data)

    def one(data: bytes) -> None:
        if (what := attempt(target, data)) is not None:
            raise RuntimeError(f"{base64.b64encode(data).decode()}\n{what}")

    corpus = tempfile.mkdtemp(prefix="fuzz-")
    for number, data in enumerate(seeds(target)):
        Path(corpus, str(number)).write_bytes(data)
    options = [f"-runs={count}", f"-seed={seed}", f"-max_len={_MOST_BYTES}", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], corpus, *options, f"-artifact_prefix={corpus}/"], one)
    atheris.Fuzz()


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz one target, or all of them one after another without coverage."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture.fuzz")
    parser.add_argument("--target", choices=TARGETS, action="append")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--plain", action="store_true", help="mutate at random, without atheris")
    given = parser.parse_args(arguments)
    failures = 0
    for target in given.target or TARGETS:
        if not given.plain:
            guided(target, given.seed, given.count)
            continue
        found = plain(target, given.seed, given.count)
        print("\n".join([*found, f"{target}: {given.count:,} inputs, {len(found)} failures"]))
        failures += len(found)
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
