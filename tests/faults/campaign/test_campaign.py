"""A short campaign with a seed of its own; `make campaign` tries as much as there is time for."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.faults.campaign.families import FAMILIES, Store


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    made = Store()
    yield made
    made.close()


LONGER = [("environments", 2), ("limits", 0), ("kills", 2), ("streams", 1), ("links", 0)]


@pytest.mark.parametrize(
    ("family", "number"),
    [
        *(("environments", 0), ("environments", 1), ("kills", 1), ("streams", 0)),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in LONGER),
    ],
)
def test_a_case_survives(family: str, number: int, store: Store) -> None:
    FAMILIES[family][0](random.Random(f"{family}:{number}"), store)
