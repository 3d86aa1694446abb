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


@pytest.mark.parametrize(
    ("family", "number"), [*(("environments", seed) for seed in range(3)), ("kills", 1), ("streams", 0), ("limits", 0)]
)
def test_a_case_survives(family: str, number: int, store: Store) -> None:
    FAMILIES[family][0](random.Random(f"{family}:{number}"), store)
