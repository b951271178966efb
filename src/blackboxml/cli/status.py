"""The exit statuses."""

from __future__ import annotations

from typing import Final

OK: Final = 0
BAD: Final = 1
"""A run that is bad or not there."""
USAGE: Final = 2
INTERRUPTED: Final = 130
CLOSED_PIPE: Final = 141
