"""Looking again where the files of a run are packed away, or made again, between two looks."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Concatenate, Final, ParamSpec, TypeVar

from blackboxml.errors import NotARunError

if TYPE_CHECKING:
    from collections.abc import Callable

Reader = TypeVar("Reader")
Given = ParamSpec("Given")
Answer = TypeVar("Answer")

_TRIES: Final = 5
"""How often a question is asked of a run whose files come and go."""


def settled(
    ask: Callable[Concatenate[Reader, Given], Answer],
) -> Callable[Concatenate[Reader, Given], Answer]:
    """Ask once more where a file is gone that was there: the run was packed meanwhile."""

    def again(reader: Reader, /, *given: Given.args, **options: Given.kwargs) -> Answer:
        for _ in range(_TRIES):
            try:
                return ask(reader, *given, **options)
            except NotARunError:
                raise
            except FileNotFoundError:
                continue
        return ask(reader, *given, **options)

    functools.update_wrapper(again, ask)
    return again
