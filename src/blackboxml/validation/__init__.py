"""Validation: which rules of the specification a run breaks, where, and what mends it.

A check looks after a few rules of one chapter and stands in the module of that name; `rules` lists
them in order. Nothing in the run is changed, no link is followed, and nothing outside is read.
"""

from __future__ import annotations

from blackboxml.validation.batch import validate_all
from blackboxml.validation.report import LEVELS, Outcome, Report, Verdict
from blackboxml.validation.single import validate

__all__ = ["LEVELS", "Outcome", "Report", "Verdict", "validate", "validate_all"]
