"""The simulation, over seeds: never wrong bytes, nothing lost without a fault that explains it."""

import pytest
from regions import deadline
from sim.simulation import (
    BAD_READS,
    EVERYTHING,
    HONEST_WRITES,
    LYING_WRITES,
    NO_FAULTS,
    SEGMENT_BYTES,
    Rates,
    Simulation,
    Tally,
)

MODES = {
    "no-faults": NO_FAULTS,
    "honest-writes": HONEST_WRITES,
    "bad-reads": BAD_READS,
    "lying-writes": LYING_WRITES,
    "everything": EVERYTHING,
}
SEEDS = range(20)
OPERATIONS = 5_000
LONG_SEEDS = range(1000, 1040)
LONG_OPERATIONS = 25_000
BUDGET_EVERY = 4
"""Every fourth seed of a mode has a write budget."""
ENCRYPT_EVERY = 3


def mode_of(seed: int) -> tuple[str, Rates]:
    return list(MODES.items())[seed % len(MODES)]


def simulate(monkeypatch: pytest.MonkeyPatch, seed: int, operations: int) -> Tally:
    name, rates = mode_of(seed)
    has_budget = seed // len(MODES) % BUDGET_EVERY == BUDGET_EVERY - 1
    simulation = Simulation(
        monkeypatch,
        seed,
        rates,
        budget_bytes_per_day=4000 * SEGMENT_BYTES if has_budget else None,
        encrypt=seed % ENCRYPT_EVERY == 0,
    )
    simulation.run(operations)
    if name in ("no-faults", "honest-writes"):
        assert simulation.tally.lost == 0
        assert simulation.store.checksum_errors == 0
        assert simulation.store.cleaner.damaged_total == 0
    return simulation.tally


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: f"{seed}-{mode_of(seed)[0]}")
def test_pages_come_back(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    with deadline(20):
        tally = simulate(monkeypatch, seed, OPERATIONS)
    assert tally.tier_loads > 50, tally
    assert tally.tiers_added > 1, tally


@pytest.mark.long
@pytest.mark.parametrize("seed", LONG_SEEDS, ids=lambda seed: f"{seed}-{mode_of(seed)[0]}")
def test_pages_come_back_in_the_long_run(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    with deadline(600):
        tally = simulate(monkeypatch, seed, LONG_OPERATIONS)
    assert tally.tiers_removed > 0, tally
