"""Each operation of a short fixed scenario goes wrong in turn, in each way, until a run is past the
last."""

from collections.abc import Mapping
from random import Random

import pytest
from regions import deadline, make_page
from sim.simulation import Command, Simulation

from vswapfs.backing.faulty import Fault
from vswapfs.core.buffers import Geometry

GEOMETRY = Geometry(120, 12, 1 << 14, 64)


def run(simulation: Simulation, command: Command) -> None:
    for _ in command:
        simulation.threads.work(simulation.rng)
        simulation.between_requests()
    simulation.finish_io()


def scenario(monkeypatch: pytest.MonkeyPatch, plan: Mapping[int, Fault]) -> Simulation:
    """Writes, reads, cleans and removes a tier; another one takes what RAM cannot."""
    simulation = Simulation(monkeypatch, 5, geometry=GEOMETRY, plan={})
    simulation.plan = plan
    simulation.add_tier(17)
    simulation.plan = {}
    simulation.add_tier(17)
    rng = Random(5)
    for page in [*range(50), *range(0, 50, 3)]:
        if not simulation.waits(page):
            simulation.put(page, make_page(rng, ("text", "random")[page % 2]))
        simulation.threads.work(simulation.rng)
        simulation.between_requests()
        simulation.clock.now_s += 1
        simulation.tiering.tick()
    simulation.finish_io()
    run(simulation, simulation.write_back(4))
    for first in (0, 20, 33):
        simulation.get(first, 8)
    simulation.finish_io()
    simulation.discard(10, 9)
    simulation.store.clean(100)
    simulation.finish_io()
    if 1 in simulation.tiering.tiers:
        run(simulation, simulation.remove_tier(simulation.tiering.tiers[1]))
    simulation.tally.lost = 0  # from here on only what is lost for good
    simulation.settle()
    return simulation


@pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.value)
def test_each_operation_goes_wrong_in_turn(monkeypatch: pytest.MonkeyPatch, fault: Fault) -> None:
    with deadline(60):
        number = 0
        while True:
            simulation = scenario(monkeypatch, {number: fault})
            disk = simulation.disks[0]
            assert simulation.tally.tiers_removed == 1, f"fault at operation {number}"
            if not disk.faulty.injected and disk.faulty.operation_count <= number:
                break
            if fault in (Fault.ERROR, Fault.SHORT):
                assert simulation.tally.lost == 0, f"fault at operation {number}"
            number += 1
    assert number > 20, "the scenario does not use the tier"
    assert simulation.tally.lost == 0
