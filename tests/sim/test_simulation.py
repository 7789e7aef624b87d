"""The simulation, over seeds and with kills of the worker between: never wrong bytes, nothing lost
without a fault that explains it. A thousand seeds at length: tools/stress simulate."""

import pytest
from sim.seeds import live, mode_of

SEEDS = range(50)
OPERATIONS = 2_000
LONG_SEEDS = range(1000, 1040)
LONG_OPERATIONS = 25_000


def name_of(seed: int) -> str:
    return f"{seed}-{mode_of(seed)}"


@pytest.mark.parametrize("seed", SEEDS, ids=name_of)
def test_pages_come_back(seed: int) -> None:
    life = live(seed, range(OPERATIONS), check_every=50)
    assert not life.error
    assert life.operations == OPERATIONS
    assert life.tally.tier_loads > 10, life.tally


@pytest.mark.long
@pytest.mark.parametrize("seed", LONG_SEEDS, ids=name_of)
def test_pages_come_back_in_the_long_run(seed: int) -> None:
    life = live(seed, range(LONG_OPERATIONS), check_every=50)
    assert not life.error
    assert life.operations == LONG_OPERATIONS
    assert life.tally.tiers_removed > 0, life.tally
