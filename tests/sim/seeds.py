"""Machines drawn from a seed, from their start to their end, and the shortest way to a failure.

Each operation draws from a generator of its own, which is seeded with the machine's seed and the
operation's number. So an operation stays what it is when others are left out, and a list of numbers
is a trace that can be gone along again. Nothing here knows what an operation does.
"""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from itertools import chain
from typing import Final, NamedTuple

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

MODES: Final[dict[str, Rates]] = {
    "no-faults": NO_FAULTS,
    "honest-writes": HONEST_WRITES,
    "bad-reads": BAD_READS,
    "lying-writes": LYING_WRITES,
    "everything": EVERYTHING,
}
BUDGET_EVERY: Final = 4
"""Every fourth seed of a mode has a write budget."""
ENCRYPT_EVERY: Final = 3

KILL_SHARES: Final = (0.0, 1 / 1000, 1 / 50)
"""How many of the operations the worker is killed in; by seed."""

CHECK_EVERY: Final = 500
TIERS_MAX: Final = 240
TIER_SLOTS_MAX: Final = 40

_WATCHED: Final = 1000
_HANG_S: Final = 120
"""So many operations take less than that, or one of them does not end."""

_LAST: Final = (1 << 32) - 1
"""The number of the end of a machine, when everything is settled and verified."""


class Life(NamedTuple):
    """How it went with one machine."""

    operations: int
    """So many of the numbers: until the machine was worn, or something went wrong."""
    tally: Tally
    error: str
    """Empty if all went well."""

    @property
    def failure(self) -> str:
        """The error without place and figures: what two traces have in common that fail alike."""
        return re.sub(r"\d+", "#", self.error.partition(": ")[2])


def mode_of(seed: int) -> str:
    return list(MODES)[seed % len(MODES)]


def live(
    seed: int,
    numbers: Sequence[int],
    *,
    check_every: int = CHECK_EVERY,
    story: list[str] | None = None,
) -> Life:
    """Go along these operations with a new machine, to the end or until it has had so many tiers
    that it can have no more, and verify all of it."""
    kill_share = KILL_SHARES[seed % len(KILL_SHARES)]
    has_budget = seed // len(MODES) % BUDGET_EVERY == BUDGET_EVERY - 1
    with pytest.MonkeyPatch.context() as monkeypatch:
        simulation = Simulation(
            monkeypatch,
            seed,
            MODES[mode_of(seed)],
            budget_bytes_per_day=4000 * SEGMENT_BYTES if has_budget else None,
            encrypt=seed // len(KILL_SHARES) % ENCRYPT_EVERY == 0,
        )
        simulation.story = story
        done = 0
        try:
            while done < len(numbers) and not _is_worn(simulation):
                with deadline(_HANG_S):
                    for number in numbers[done : done + _WATCHED]:
                        done += 1
                        _operate(simulation, number, kill_share)
                        if number % check_every == 0:
                            simulation.check()
            with deadline(_HANG_S):
                _begin(simulation, _LAST)
                simulation.settle()
                _nothing_is_lost_without_a_fault(simulation)
        except Exception as error:
            where = "the end" if simulation.number == _LAST else f"operation {simulation.number}"
            said = f"{type(error).__name__}: {error}".splitlines()[0]
            return Life(done, simulation.tally, f"seed {seed}, {where}: {said}")
        return Life(done, simulation.tally, "")


def _is_worn(simulation: Simulation) -> bool:
    """Numbers of tiers and of their slots are not used again."""
    room = simulation.geometry.segment_capacity - simulation.store.segments.count
    return room < 4 * TIER_SLOTS_MAX or len(simulation.disks) > TIERS_MAX


def _begin(simulation: Simulation, number: int) -> None:
    simulation.number = number
    simulation.rng.seed(simulation.seed << 32 | number)


def _operate(simulation: Simulation, number: int, kill_share: float) -> None:
    _begin(simulation, number)
    if simulation.rng.random() < kill_share:
        # Some steps take a few lines, and those that clean or recount thousands.
        simulation.step_and_be_killed(int(10 ** simulation.rng.uniform(0, 3.5)))
    else:
        simulation.step()


def _nothing_is_lost_without_a_fault(simulation: Simulation) -> None:
    if mode_of(simulation.seed) in ("no-faults", "honest-writes"):
        assert simulation.tally.lost == 0, "a page is lost, and no read was bad"
        assert simulation.store.checksum_errors == 0
        assert simulation.store.cleaner.damaged_total == 0


def add(total: Tally, other: Tally) -> None:
    """Count the other's events, too."""
    for counter in fields(Tally):
        setattr(total, counter.name, getattr(total, counter.name) + getattr(other, counter.name))


# -- the shortest way to a failure -------------------------------------------------------------


def shorten(
    trace: Sequence[int], fails: Callable[[Sequence[int]], bool], stop_s: float
) -> list[int]:
    """Leave out what the failure does not need, halves first, then ever smaller parts: until no
    single operation can be left out, or the monotonic clock shows ``stop_s``.

    ``fails``: whether a trace still fails in the same way. It is taken for granted of ``trace``.
    """
    kept, parts = list(trace), 2
    while len(kept) > 1:
        size = -(-len(kept) // parts)
        for start in range(0, len(kept), size):
            if time.monotonic() >= stop_s:
                return kept
            rest = list(chain(kept[:start], kept[start + size :]))
            if rest and fails(rest):
                kept, parts = rest, max(2, parts - 1)
                break
        else:
            if size == 1:
                break
            parts = min(len(kept), parts * 2)
    return kept


def shortest_trace(seed: int, numbers: Sequence[int], failure: str, stop_s: float) -> list[int]:
    """Of the operations that led to a Life with this failure."""

    def fails(trace: Sequence[int]) -> bool:
        return live(seed, trace).failure == failure

    return shorten(numbers, fails, stop_s)


def story_of(seed: int, numbers: Sequence[int]) -> list[str]:
    """What the operations are, in words; the last line is the error."""
    story: list[str] = []
    life = live(seed, numbers, story=story)
    return [*story, life.error or "nothing goes wrong"]
