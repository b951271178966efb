"""Sorted, disjoint ranges of `seq`, ends included."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Range = tuple[int, int]

MOST: Final = 4096
"""Ranges that one header states; more are stated as fewer that cover them."""


def add(ranges: list[Range], seq: int) -> None:
    """Add a number that is greater than all before."""
    if ranges and seq == ranges[-1][1] + 1:
        ranges[-1] = (ranges[-1][0], seq)
    else:
        ranges.append((seq, seq))


def union(*lists: Iterable[Range]) -> list[Range]:
    """Return what is in any of several lists, in any order."""
    joined: list[Range] = []
    for low, high in sorted(each for ranges in lists for each in ranges):
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(high, joined[-1][1]))
        else:
            joined.append((low, high))
    return joined


def subtract(ranges: Iterable[Range], taken: Sequence[Range]) -> list[Range]:
    """Return what is left of sorted ranges without the sorted ones that are taken."""
    left = []
    for low, high in ranges:
        begin = low
        place = bisect_right(taken, (low, low)) - 1
        place = max(place, 0)
        while place < len(taken) and taken[place][0] <= high:
            first, last = taken[place]
            if first > begin:
                left.append((begin, first - 1))
            begin = max(begin, last + 1)
            place += 1
        if begin <= high:
            left.append((begin, high))
    return left


def intersect(ranges: Sequence[Range], others: Sequence[Range]) -> list[Range]:
    """Return what is in both."""
    return subtract(ranges, subtract(ranges, others))


def count(ranges: Iterable[Range]) -> int:
    """Return how many numbers there are."""
    return sum(high - low + 1 for low, high in ranges)


def holds(ranges: Sequence[Range], seq: int) -> bool:
    """Tell whether a number is in a range."""
    place = bisect_right(ranges, seq, key=lambda each: each[0]) - 1
    return place >= 0 and seq <= ranges[place][1]


def cover(ranges: Sequence[Range], most: int = MOST) -> list[Range]:
    """Return at most so many ranges that hold all of these; the narrowest gaps are closed."""
    if len(ranges) <= most:
        return list(ranges)
    gaps = sorted(ranges[at + 1][0] - ranges[at][1] for at in range(len(ranges) - 1))
    widest = gaps[len(ranges) - most - 1]
    joined: list[Range] = []
    for low, high in ranges:
        if joined and low - joined[-1][1] <= widest:
            joined[-1] = (joined[-1][0], high)
        else:
            joined.append((low, high))
    return joined
