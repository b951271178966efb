"""The exit statuses."""

from __future__ import annotations

from typing import Final

OK: Final = 0
BAD: Final = 1
"""A run that is bad or not there."""
USAGE: Final = 2
UNDECIDED: Final = 3
"""A run of which nobody can say yet, or here, that it is valid."""
LOSSY: Final = 3
"""Done, but a part of what there was could not be read."""
INTERRUPTED: Final = 130
CLOSED_PIPE: Final = 141
