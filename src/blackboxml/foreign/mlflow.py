"""What MLflow takes: how long, how many, and under which names."""

from __future__ import annotations

import hashlib
import posixpath
import re
from typing import Final

MOST_METRICS: Final = 1000
"""Values in one request."""

MOST_PARAMS: Final = 100
"""Parameters in one request."""

LONGEST_PARAM: Final = 6000
"""Characters of a parameter."""

LONGEST_NAME: Final = 250
"""Characters of the name of a metric, a parameter or a run."""


def mend(name: str) -> str:
    """Return a name as MLflow takes it: a path of word characters, `.`, `-`, `:` and spaces."""
    text = re.sub(r"[^/\w.\- :]", "_", name)
    if posixpath.normpath(text) != text or text.startswith(("/", "..")) or text == ".":
        parts = [part for part in text.split("/") if part]
        text = "/".join("_" * len(part) if set(part) <= {"."} else part for part in parts)
    if len(text) > LONGEST_NAME:
        digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:8]
        text = f"{text[: LONGEST_NAME - 20].rstrip('/')}-{digest}"
    return text or "unnamed"
