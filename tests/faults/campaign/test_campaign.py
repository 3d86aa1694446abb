"""A short campaign with seeds of its own; `make campaign` tries as much as there is time for."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.faults.campaign import bad_env
from tests.faults.campaign.server import adopting
from tests.faults.campaign.store import Store
from tests.faults.campaign.work import try_case

SHORT = [
    *(("lives", 1), ("lives", 2), ("lives", 5), ("environments", 2), ("kills", 4), ("streams", 0), ("limits", 3)),
    *(("mutations", 1), ("mutations", 2), ("mutations", 6), ("damages", 1), ("configs", 0), ("links", 1), ("paths", 0)),
]
LONGER = [
    ("environments", 3),
    ("kills", 2),
    ("kills", 5),
    ("streams", 1),
    ("limits", 1),
    ("sweeps", 0),
    ("commands", 0),
]


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    made = Store()
    with adopting():
        yield made
    made.close()


@pytest.mark.parametrize(
    ("family", "seed"), [*SHORT, *(pytest.param(*case, marks=pytest.mark.slow) for case in LONGER)]
)
def test_a_case_survives(family: str, seed: int, store: Store) -> None:
    row = try_case(family, seed, store)
    assert row["survived"], row["what"]


def test_a_case_is_what_its_family_and_seed_say() -> None:
    for make in (bad_env.draw,):
        one, other = (make(random.Random("lives:7")) for _ in range(2))
        assert one == other
    faults = {str(bad_env.draw(random.Random(seed))) for seed in range(300)}
    assert len(faults) > 200
