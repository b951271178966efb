"""Importers that are known to be weak: what a campaign of spoiled sources has to find out."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from blackboxml import conversion
from blackboxml.conversion import importing
from blackboxml.converters import blocks

if TYPE_CHECKING:
    from collections.abc import Callable


def _trusting() -> None:
    """Unpickle whatever comes."""

    def read(path: Path) -> Any:
        pickle.loads(Path(path).read_bytes())
        return iter(())

    blocks.recognise = lambda path: path.suffix == ".pkl"
    blocks.read = read


def _raising() -> None:
    """Let what is wrong with one run end the conversion."""

    def attempt(report: Any, job: Any, *given: Any) -> None:
        job(report, *given)
        raise KeyError(report.source)

    conversion._attempt = attempt


def _leaving() -> None:
    """Leave unfinished work where it lies."""
    importing.shutil = type("Shutil", (), {"rmtree": staticmethod(lambda *_, **__: None)})
    assert shutil.rmtree is not importing.shutil.rmtree


def _writing() -> None:
    """Write beside the source."""
    identity = importing.identity

    def write(form: str, run: Any) -> str:
        Path(run.source).absolute().parent.joinpath("converted").write_text("")
        return identity(form, run)

    conversion.identity = write


WEAKNESSES: Final[dict[str, Callable[[], None]]] = {
    "trusting": _trusting,
    "raising": _raising,
    "leaving": _leaving,
    "writing": _writing,
}
