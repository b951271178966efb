"""`from blackboxml.callback import BlackBoxCallback`: where scripts look for the Keras callback."""

from __future__ import annotations

from blackboxml.frontends.keras import BlackBoxCallback

__all__ = ["BlackBoxCallback"]
