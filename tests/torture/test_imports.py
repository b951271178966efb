"""A slice of the spoiled sources of `make torture-sources`, and proof that weakness is found."""

from __future__ import annotations

import pytest

from blackboxml import converters
from tests.torture.imports import campaign
from tests.torture.weaknesses import WEAKNESSES

SEED = 20261121
SLICE = 10


@pytest.mark.parametrize("form", converters.FORMATS)
def test_a_spoiled_source_harms_nothing_but_itself(form: str) -> None:
    failures = campaign(form, SEED, range(SLICE))
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("weakness", WEAKNESSES)
def test_a_weak_importer_is_found_out(weakness: str) -> None:
    said = {
        "trusting": "it does os.system",
        "raising": "convert raised",
        "leaving": "it leaves",
        "writing": "it does open",
    }
    failures = campaign("blocks", SEED, range(40 if weakness == "trusting" else 3), weakness)
    assert any(said[weakness] in each for each in failures), failures
