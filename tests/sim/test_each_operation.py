"""Each operation of a short fixed scenario goes wrong in turn, in each way, until a run is past the
last; and whatever lies on the medium after each write, a power cut leaves nothing that cannot be
told from damage."""

from collections.abc import Mapping
from random import Random
from typing import Literal

import pytest
from regions import deadline, make_page
from sim.simulation import Command, Simulation

from vswapfs.backing.faulty import Fault
from vswapfs.backing.memory import MemoryBacking
from vswapfs.core.buffers import Geometry
from vswapfs.daemon.medium import write_superblock
from vswapfs.errors import TierFormatError
from vswapfs.format import tier as tier_format
from vswapfs.format.tier import SUPERBLOCK_BYTES, SUPERBLOCK_COPY_OFFSET, slot_offset_bytes
from vswapfs.format.tier_walk import DAMAGED, EMPTY, VALID, walk_segment

MIB = 1 << 20
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


# -- power cuts ------------------------------------------------------------------------------


class Recorded(MemoryBacking):
    """Keeps a clone after each write, as several power cuts could leave it."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__(size_bytes)
        self.count = 0
        self.states: list[str] = []

    def _look(self) -> None:
        self.count += 1
        kept: tuple[Random | Literal["none", "all"], ...]
        kept = ("none", "all", Random(self.count), Random(-self.count))
        for how in kept:
            self.states += look(self.crash_clone(how))

    def write(self, offset: int, buffer: memoryview) -> None:
        super().write(offset, buffer)
        self._look()

    def trim(self, offset: int, length: int) -> None:
        super().trim(offset, length)
        self._look()


def read(backing: MemoryBacking, offset: int, length: int) -> memoryview:
    into = memoryview(bytearray(length))
    backing.read_into(offset, into)
    return into


def look(clone: MemoryBacking) -> list[str]:
    """What log check would find; raises what it would raise."""
    try:
        superblock, _findings = tier_format.choose(
            read(clone, 0, SUPERBLOCK_BYTES), read(clone, SUPERBLOCK_COPY_OFFSET, SUPERBLOCK_BYTES)
        )
    except TierFormatError:
        return ["no superblock"]
    size = superblock.segment_bytes
    states = []
    for slot in range(superblock.slot_count):
        data = read(clone, slot_offset_bytes(slot, size), size)
        found = walk_segment(data, superblock, slot)
        states.append(found.state)
        if found.state == VALID:
            assert found.header is not None
            assert found.header.slot == slot
            ends = [record.byte_offset for record in found.records]
            assert ends == sorted(ends)
            assert all(record.error is None for record in found.records)
    return states


def test_whatever_a_power_cut_leaves_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Recorded] = []

    def recorded(size_bytes: int) -> MemoryBacking:
        made.append(Recorded(size_bytes))
        return made[-1]

    monkeypatch.setattr("sim.simulation.MemoryBacking", recorded)
    simulation = Simulation(
        monkeypatch,
        1,
        geometry=Geometry(2000, 5, MIB, 64),
        budget_bytes_per_day=300 * MIB,
        plan={},
    )
    with deadline(60):
        tier = simulation.add_tier(4)
        write_superblock(tier.backing, tier.superblock)
        rng = Random(1)
        for turn in range(3):
            for page in range(turn * 100, 1000 + turn * 100):
                if not simulation.waits(page):
                    simulation.put(page, make_page(rng, ("random", "text")[page % 5 == 0]))
                simulation.threads.work(simulation.rng)
                simulation.between_requests()
            simulation.finish_io()
            simulation.clock.now_s += 2
            simulation.tiering.tick()
            simulation.finish_io()
            simulation.discard(turn * 300, 300)
        simulation.settle()
    (backing,) = made
    assert backing.count > 10
    assert {"no superblock", EMPTY, VALID, DAMAGED} <= set(backing.states)
