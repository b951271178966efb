"""The version of the library, as the package metadata and every file it writes state it."""

from typing import Final

__version__: Final = "1.0.0.dev0"
