"""A failure is told with the fewest operations that lead to it."""

import sys
import time

import pytest
from machine import ROOT, run
from sim.seeds import live, shorten, shortest_trace, story_of

from vswapfs.core.store import Store


def test_what_a_failure_does_not_need_is_left_out() -> None:
    needed = {3, 500, 501, 999}
    found = shorten(range(1000), needed.issubset, time.monotonic() + 60)
    assert found == sorted(needed)


def test_a_defect_is_told_in_the_two_operations_that_it_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    discard = Store.discard

    def forgetful(self: Store, first: int, count: int) -> None:
        if count < 8:
            discard(self, first, count)

    monkeypatch.setattr(Store, "discard", forgetful)
    life = live(0, range(3000))
    assert "has wrong bytes" in life.error
    trace = shortest_trace(0, range(life.operations), life.failure, time.monotonic() + 60)
    store, discarded, error = story_of(0, trace)
    assert "store page" in store
    assert "discard page" in discarded
    assert "has wrong bytes" in error


def test_the_command_tells_seeds_and_figures() -> None:
    done = run(
        sys.executable, ROOT / "tools/stress.py", "simulate", "--seeds", "3-4", "--operations",
        "300",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "3 lying-writes" in done.stdout
    assert "4 everything" in done.stdout
    assert "2 seeds of 300 operations: 600 operations" in done.stdout
    assert "0 failed" in done.stdout
