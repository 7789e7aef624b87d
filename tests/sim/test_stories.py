"""What the simulation found out, each as a short deterministic story: races, and media that lie."""

from random import Random

import pytest
from regions import make_page
from sim.simulation import SEGMENT_BYTES, Simulation

from vswapfs.backing.faulty import Fault
from vswapfs.core.buffers import Geometry
from vswapfs.daemon.tier import Tier

SMALL = Geometry(120, 24, SEGMENT_BYTES, 256)
RAW_PAGES = 3
"""Incompressible pages that fill a segment."""


class Story:
    """A simulation whose threads and plan are moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, budget: int | None = None) -> None:
        self.plan: dict[int, Fault] = {}
        self.simulation = Simulation(
            monkeypatch, 1, geometry=SMALL, budget_bytes_per_day=budget, plan=self.plan
        )
        self.store = self.simulation.store
        self.tiering = self.simulation.tiering
        self.rng = Random(1)
        self.ended: list[bool] = []

    def add_tier(self, slot_count: int = 20) -> Tier:
        return self.simulation.add_tier(slot_count)

    def put(self, first: int, count: int = RAW_PAGES + 1) -> None:
        """The page after the last whole segment seals it."""
        for page in range(first, first + count):
            assert self.simulation.put(page, make_page(self.rng, "random"))

    def write(self, segment: int) -> None:
        assert self.tiering.write(segment, self.ended.append)

    def finish(self) -> None:
        while self.simulation.threads.pending_count:
            self.simulation.threads.work(self.rng)
            self.simulation.threads.deliver()

    def next_operation(self, fault: Fault) -> None:
        (disk,) = self.simulation.disks
        self.plan[disk.faulty.operation_count] = fault


@pytest.fixture
def story(monkeypatch: pytest.MonkeyPatch) -> Story:
    return Story(monkeypatch)


# -- a tier is taken away while something is still on its way to it -----------------------------


def test_a_tier_that_is_being_written_is_not_forgotten(story: Story) -> None:
    tier = story.add_tier()
    story.put(0)
    (segment,) = story.tiering.candidates(False, None)
    story.write(segment)
    story.tiering.leave(tier, leaving=True)
    assert not story.tiering.forget(tier)
    story.finish()
    assert story.ended == [True]
    story.simulation.get(0, 4)
    story.finish()


def test_a_tier_that_is_being_trimmed_is_not_forgotten(story: Story) -> None:
    tier = story.add_tier()
    story.put(0)
    story.write(story.tiering.candidates(False, None)[0])
    story.finish()
    story.simulation.discard(0, 4)
    story.tiering.leave(tier, leaving=True)
    story.tiering.tick()  # trims
    assert story.simulation.threads.pending_count == 1
    assert not story.tiering.forget(tier)
    story.finish()
    assert story.tiering.forget(tier)


def test_a_tier_whose_superblock_is_being_written_is_not_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    story = Story(monkeypatch, budget=1 << 30)
    tier = story.add_tier()
    story.tiering.save_superblocks()
    forgotten = story.tiering.forget(tier)
    if forgotten:
        tier.backing.close()  # as TierCommands.remove does after it
    story.finish()
    assert not forgotten


# -- between the list of segments and the moment at which one is moved --------------------------


def test_a_segment_that_died_is_not_fetched(story: Story) -> None:
    tier = story.add_tier()
    story.put(0)
    story.write(story.tiering.candidates(False, None)[0])
    story.finish()
    (segment,) = story.tiering.segments_on(tier)
    story.simulation.discard(0, 4)
    free = story.store.segments.free_count
    assert not story.tiering.fetch(segment, story.ended.append)
    assert story.store.segments.free_count == free


@pytest.mark.parametrize("what", ["died", "moved", "victim"])
def test_a_segment_that_may_not_leave_any_more_is_not_written(story: Story, what: str) -> None:
    story.add_tier()
    story.put(0)
    (segment,) = story.tiering.candidates(False, None)
    assert story.tiering.may_leave(segment)
    if what == "died":
        story.simulation.discard(0, 4)
    elif what == "moved":
        story.write(segment)
        story.finish()
    else:
        story.simulation.discard(0, 2)
        story.store.clean(1)
        assert story.store.cleaner.victim == segment
    assert not story.tiering.write(segment, story.ended.append)


def test_the_cleaner_leaves_a_segment_that_went_away_during_its_scan(story: Story) -> None:
    story.add_tier()
    story.put(0, 17 * RAW_PAGES + 1)
    segment = story.tiering.candidates(False, None)[-1]
    story.simulation.discard(16 * RAW_PAGES, 2)
    story.store.clean(1)  # 16 of the 17, from the last on: it is the best so far
    assert story.store.cleaner.victim < 0
    story.write(segment)
    story.store.clean(2)
    assert story.store.cleaner.victim != segment
    story.finish()
    story.simulation.get(16 * RAW_PAGES + 2, RAW_PAGES - 2)
    story.finish()


# -- the budget ------------------------------------------------------------------------------


def test_while_the_budget_is_spent_nothing_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was, and refused, each time that the lane looked after its tiers: and soon the whole
    table was looked through each time."""
    story = Story(monkeypatch, budget=SMALL.segment_bytes)
    story.add_tier()
    homes = story.store.homes
    story.put(0, 21 * RAW_PAGES + 1)
    story.tiering.pump()  # writes one, and not a second one
    story.finish()
    assert story.tiering.budget_spent
    assert homes.writeback_due()
    written = homes.written_segments_total
    choose = homes.choose
    monkeypatch.setattr(homes, "choose", None)
    story.tiering.pump()
    monkeypatch.setattr(homes, "choose", choose)
    story.simulation.clock.now_s += 90_000
    story.tiering.pump()
    story.finish()
    assert homes.written_segments_total > written


def test_superblocks_are_written_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two saves on two threads: the older must not end up on the medium."""

    class LastFirst(Random):
        def choice(self, seq):  # type: ignore[no-untyped-def]
            return seq[-1]

    story = Story(monkeypatch, budget=1 << 30)
    tier = story.add_tier()
    story.tiering.save_superblocks()
    story.tiering.save_superblocks()
    story.rng = LastFirst()
    story.finish()
    block = memoryview(bytearray(4096))
    tier.backing.read_into(0, block)
    # Segments of this size are refused by unpack; the generation is at byte 24.
    assert int.from_bytes(block[24:32], "little") == tier.superblock.generation


def test_a_cut_between_copy_and_superblock_leaves_them_one_generation_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where several changes of the budget went into one write: more is told as damage."""
    story = Story(monkeypatch, budget=1 << 30)
    tier = story.add_tier()
    (disk,) = story.simulation.disks
    apart = []

    def generation_at(offset: int) -> int:
        block = memoryview(bytearray(4096))
        disk.memory.read_into(offset, block)
        return int.from_bytes(block[24:32], "little")

    def look() -> None:
        apart.append(generation_at(4096) - generation_at(0))  # the copy lies there in this test
        flush()

    flush, disk.memory.flush = disk.memory.flush, look  # type: ignore[method-assign]
    story.tiering.save_superblocks()
    story.finish()
    apart.clear()
    for _ in range(4):
        story.tiering.save_superblocks()
    story.finish()
    assert apart == [1, 0, 1, 0]
    assert tier.superblock.generation == generation_at(0)


def test_a_write_that_no_tier_takes_costs_no_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    story = Story(monkeypatch, budget=8 * SEGMENT_BYTES)
    tier = story.add_tier()
    story.put(0)
    story.tiering.leave(tier, leaving=True)
    budget = story.tiering.budget
    assert budget
    before = budget.left_bytes(int(story.simulation.clock.now_s))
    assert not story.tiering.write(story.tiering.candidates(False, None)[0], story.ended.append)
    assert budget.left_bytes(int(story.simulation.clock.now_s)) == before


def test_what_a_failed_write_gives_back_does_not_outlive_its_window(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    story = Story(monkeypatch, budget=8 * SEGMENT_BYTES)
    story.add_tier()
    story.put(0)
    story.finish()
    story.next_operation(Fault.SHORT)
    story.write(story.tiering.candidates(False, None)[0])
    story.simulation.clock.now_s += 90_000
    budget = story.tiering.budget
    assert budget
    assert budget.left_bytes(int(story.simulation.clock.now_s)) == 8 * SEGMENT_BYTES
    story.finish()
    assert budget.left_bytes(int(story.simulation.clock.now_s)) <= 8 * SEGMENT_BYTES


def test_a_spent_budget_leaves_the_cleaner_and_the_slots_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The lane asks again and again; nothing may look as if something had changed."""
    story = Story(monkeypatch, budget=SEGMENT_BYTES // 2)
    tier = story.add_tier()
    story.put(0)
    segment = story.tiering.candidates(False, None)[0]
    before = story.store.segments.change_count
    assert not story.tiering.write(segment, story.ended.append)
    assert story.store.segments.change_count == before
    assert story.store.segments.tiers[tier.number].untrimmed_count == 0


@pytest.mark.parametrize("set_by_s", [-4_000_000, -3600, 90_000, 2_000_000_000])
def test_a_clock_that_is_set_renews_no_budget(
    monkeypatch: pytest.MonkeyPatch, set_by_s: int
) -> None:
    story = Story(monkeypatch, budget=SEGMENT_BYTES)
    story.add_tier()
    story.put(0)
    story.put(10)
    first, second = story.tiering.candidates(False, None)[:2]
    story.write(first)
    story.finish()
    story.simulation.clock.set_by_s = set_by_s
    assert not story.tiering.write(second, story.ended.append)
    assert story.tiering.answer().write_budget_left_bytes == 0
    story.simulation.clock.now_s += 86_401
    story.write(second)
    story.finish()
    assert story.ended == [True, True]


# -- a segment that dies on its way -----------------------------------------------------------


def test_a_segment_that_dies_while_it_is_written_is_no_fault_of_its_tier(story: Story) -> None:
    """Its memory is given back, so it is not what was written any more."""
    tier = story.add_tier()
    story.put(0)
    story.write(story.tiering.candidates(False, None)[0])
    story.simulation.interrupt = lambda: story.simulation.discard(0, 4)
    story.finish()
    assert story.ended == [False]
    assert not tier.failing
    assert tier.write_errors == 0


# -- media that lie --------------------------------------------------------------------------


def test_a_lost_write_never_brings_an_earlier_version_back(story: Story) -> None:
    story.add_tier(1)
    for fault in (None, Fault.LOST):
        story.put(0)
        if fault:
            story.next_operation(fault)
        story.write(story.tiering.candidates(False, None)[-1])
        story.finish()
        if not fault:
            story.simulation.discard(0, 4)
            story.put(100, 2)  # to the end of the segment: the next one begins with page 0
    story.simulation.get(0, RAW_PAGES)
    story.finish()


@pytest.mark.parametrize("fault", [Fault.FLIP, Fault.MISPLACED])
def test_one_bad_read_of_a_fetch_costs_no_page_for_good(story: Story, fault: Fault) -> None:
    """What lies on the tier is whole; reading it again would bring it."""
    tier = story.add_tier()
    story.put(0)
    story.write(story.tiering.candidates(False, None)[0])
    story.finish()
    story.next_operation(fault)
    story.tiering.fetch(story.tiering.segments_on(tier)[0], story.ended.append)
    story.finish()
    story.simulation.get(0, RAW_PAGES)
    story.finish()
    assert story.simulation.tally.lost == 0
