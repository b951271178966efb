"""`python -m blackboxml` is the command `blackbox`."""

from __future__ import annotations

import sys

from blackboxml.cli import main

if __name__ == "__main__":
    sys.exit(main())
