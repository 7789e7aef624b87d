"""The worker is killed after any line of the store or of tiering, again and again: the successor
finds every page, with writes, reads, cleaning and tiers on their way at that moment."""

import pytest
from regions import deadline
from sim.simulation import HONEST_WRITES, NO_FAULTS, Simulation, SimulationError

SEEDS = range(6)
RESTARTS = 60
LONG_SEEDS = range(100, 140)
LONG_RESTARTS = 250
QUIET_STEPS = 12
"""On average, between two kills."""


def kill_again_and_again(
    monkeypatch: pytest.MonkeyPatch, seed: int, restarts: int, *, encrypt: bool = False
) -> Simulation:
    rates = (NO_FAULTS, HONEST_WRITES)[seed % 2]
    simulation = Simulation(monkeypatch, seed, rates, encrypt=encrypt)
    rng = simulation.rng
    try:
        simulation.add_tier(24)
        while simulation.tally.restarts < restarts:
            for _ in range(rng.randrange(2 * QUIET_STEPS)):
                simulation.number += 1
                simulation.step()
            # Some steps take a few lines, and those that clean or recount thousands.
            simulation.step_and_be_killed(int(10 ** rng.uniform(0, 3.5)))
            if simulation.tally.restarts % 10 == 0:
                simulation.check()
        simulation.settle()
    except Exception as error:
        raise SimulationError(
            f"seed {seed}, operation {simulation.number}, restart {simulation.tally.restarts}: "
            f"{type(error).__name__}: {error}"
        ) from error
    assert simulation.tally.lost == 0
    return simulation


@pytest.mark.parametrize("seed", SEEDS)
def test_pages_survive_kills_at_any_line(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    with deadline(60):
        tally = kill_again_and_again(monkeypatch, seed, RESTARTS).tally
    assert tally.tier_loads > 10, tally


@pytest.mark.parametrize("seed", [30, 31])
def test_no_nonce_is_used_again_whoever_is_killed(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """And what one worker encrypted, the next decrypts."""
    with deadline(60):
        simulation = kill_again_and_again(monkeypatch, seed, RESTARTS, encrypt=True)
    assert simulation.tally.tier_loads > 10
    assert simulation.cipher
    assert simulation.cipher.count > 5


@pytest.mark.long
@pytest.mark.parametrize("encrypt", [False, True])
@pytest.mark.parametrize("seed", LONG_SEEDS)
def test_pages_survive_ten_thousand_kills(
    monkeypatch: pytest.MonkeyPatch, seed: int, encrypt: bool
) -> None:
    with deadline(900):
        tally = kill_again_and_again(monkeypatch, seed, LONG_RESTARTS, encrypt=encrypt).tally
    assert tally.restarts >= LONG_RESTARTS
