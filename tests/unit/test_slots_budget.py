"""Slots, pins and trims; the write budget; when and in which order segments are written out."""

import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from regions import make_buffers, make_page

from vswapfs.core import policy
from vswapfs.core.budget import CHUNK_BYTES, DAY_S, Budget
from vswapfs.core.buffers import RESERVE_SEGMENTS, Geometry
from vswapfs.core.check import check
from vswapfs.core.figures import figures
from vswapfs.core.loghead import INCOMPRESSIBLE
from vswapfs.core.recount import pages_in
from vswapfs.core.segment import SEALED
from vswapfs.core.slots import WARM_MAX, RamSlots, Slots, TierSlots
from vswapfs.core.store import Store
from vswapfs.errors import PoolFullError
from vswapfs.format.record import RECORD_MAX_BYTES
from vswapfs.format.tier import SEGMENT_HEADER_BYTES

MIB = 1 << 20

# -- slots -----------------------------------------------------------------------------------


def taken(slots: RamSlots | TierSlots, count: int) -> list[int]:
    return [slots.take() for _ in range(count)]


def test_tier_slots_are_taken_in_ascending_order() -> None:
    assert taken(TierSlots(5, ()), 5) == [0, 1, 2, 3, 4]


def test_tier_slots_go_round_before_a_freed_one_is_used_again() -> None:
    slots = TierSlots(4, ())
    assert taken(slots, 2) == [0, 1]
    slots.give_back(0)
    assert taken(slots, 2) == [2, 3]
    assert slots.take() == 0
    with pytest.raises(IndexError):
        slots.take()
    assert slots.free_count == 0


def test_tier_slots_that_were_used_are_left_out() -> None:
    slots = TierSlots(6, (0, 3))
    assert slots.free_count == 4
    assert slots.used_slots() == [0, 3]
    assert taken(slots, 4) == [1, 2, 4, 5]


def ram_slots(count: int) -> RamSlots:
    return RamSlots(count, (), lambda _slot: None)


def warmed(slots: RamSlots) -> Iterator[int]:
    """Slots of which the warming can begin, until one ends: one at most."""
    while (slot := slots.begin_warming()) is not None:
        yield slot


def tier_slots(count: int) -> TierSlots:
    return TierSlots(count, ())


def test_ram_slots_take_the_warm_one_first() -> None:
    released: list[int] = []
    slots = RamSlots(4, (1,), released.append)
    assert taken(slots, 3) == [0, 2, 3]
    slots.give_back(2)
    slots.pin(0)
    slots.give_back(0)
    assert slots.warm_count == 1, "I/O still reads from the other"
    slots.unpin(0)
    assert slots.warm_count == 2
    assert taken(slots, 2) == [0, 2]
    assert released == []
    with pytest.raises(IndexError):
        slots.take()


def test_ram_slots_keep_few_warm_and_none_when_idle() -> None:
    released: list[int] = []
    slots = RamSlots(WARM_MAX + 3, (), released.append)
    order = taken(slots, slots.slot_count)
    for slot in order:
        slots.give_back(slot)
    assert (released, slots.warm_count) == (order[:3], WARM_MAX)
    assert slots.unused_count == slots.slot_count
    slots.cool()
    assert (released, slots.warm_count) == (order, 0)
    assert sorted(slots.free_slots()) == sorted(order)


def test_ram_slots_that_have_been_released_are_not_warm() -> None:
    """After a count: whatever a predecessor left of their memory is given back."""
    released: list[int] = []
    slots = RamSlots(4, (1,), released.append)
    slots.give_back(slots.take())
    slots.release_free()
    assert (sorted(released), slots.warm_count) == ([0, 2, 3], 0)
    assert sorted(slots.free_slots()) == [0, 2, 3]


def test_ram_slots_beyond_the_limit_do_not_stay_warm() -> None:
    released: list[int] = []
    slots = RamSlots(4, (), released.append)
    taken(slots, 4)
    slots.limit = 3
    for slot in range(2):
        slots.give_back(slot)
    assert (released, slots.warm_count) == ([0], 1)


def test_ram_slots_that_are_kept_warm_are_not_cooled() -> None:
    released: list[int] = []
    slots = RamSlots(WARM_MAX + 3, (), released.append)
    slots.kept_warm = 2
    order = taken(slots, slots.slot_count)
    for slot in order:
        slots.give_back(slot)
    assert slots.has_excess
    slots.cool()
    assert (released, slots.warm_count, slots.has_excess) == (order[:-2], 2, False)
    slots.limit = 1
    slots.cool()
    assert slots.warm_count == 1, "more than the limit allows"


def test_a_slot_that_gets_its_memory_now_is_worth_waiting_for() -> None:
    slots = ram_slots(6)
    slots.kept_warm = 2
    seen = [slots.will_be_warm]
    slot = next(warmed(slots))
    seen.append(slots.will_be_warm)
    slots.is_starved = True
    seen.append(slots.will_be_warm)
    slots.is_starved = False
    slots.end_warming(slot, ok=True)
    seen.append(slots.will_be_warm)
    assert seen == [False, True, False, False], "starved: it may take for ever"


def test_a_machine_without_memory_gives_no_cold_slot() -> None:
    slots = ram_slots(4)
    slots.warm_up = lambda _slot: False
    assert not slots.has_memory(0)
    slot = taken(slots, 1)[0]
    slots.give_back(slot)
    assert slots.has_memory(0)
    assert not slots.has_memory(1), "the only warm one is for the cleaner"
    asked: list[int] = []

    def warm_up(slot: int) -> bool:
        asked.append(slot)
        return True

    slots.warm_up = warm_up
    assert slots.has_memory(2)
    assert slots.warm_count == 3
    assert sorted(taken(slots, 3)) == sorted([slot, *asked])


def test_a_slot_that_is_being_warmed_is_unused_but_cannot_be_taken() -> None:
    released: list[int] = []
    slots = RamSlots(WARM_MAX + 2, (), released.append)
    assert not list(warmed(slots)), "none is to be kept warm"
    slots.kept_warm = 1
    (warming,) = warmed(slots)
    assert slots.unused_count == slots.slot_count
    order = taken(slots, slots.slot_count - 1)
    assert warming not in order
    slots.give_back(order[0])
    slots.give_back(order[1])
    slots.cool()
    assert released == [], "to give memory back would wait for the thread that takes some"
    slots.end_warming(warming, ok=True)
    slots.cool()
    assert (released, slots.warm_count) == (order[:2], 1)
    assert taken(slots, 1) == [warming]


def test_the_last_few_slots_are_not_warmed() -> None:
    slots = ram_slots(WARM_MAX + 2)
    slots.kept_warm = 4
    taken(slots, 2)
    assert not list(warmed(slots))


def test_ram_slots_beyond_the_limit_are_not_free_but_unused() -> None:
    slots = ram_slots(4)
    taken(slots, 2)
    slots.limit = 1
    assert (slots.used_count, slots.free_count, slots.unused_count) == (2, 0, 2)
    slots.limit = 3
    assert (slots.used_count, slots.free_count, slots.unused_count) == (2, 1, 2)


@pytest.mark.parametrize("make", [ram_slots, tier_slots])
def test_a_pinned_slot_is_free_only_when_the_last_pin_is_gone(
    make: Callable[[int], RamSlots | TierSlots],
) -> None:
    slots = make(1)
    slot = slots.take()
    slots.pin(slot)
    slots.pin(slot)
    slots.give_back(slot)
    assert slots.free_count == 0
    slots.unpin(slot)
    assert slots.is_any_pinned()
    assert slots.free_count == 0
    slots.unpin(slot)
    assert not slots.is_any_pinned()
    assert slots.free_count == 1
    assert slots.take() == slot


@pytest.mark.parametrize("make", [ram_slots, tier_slots])
def test_a_pin_alone_frees_nothing(make: Callable[[int], RamSlots | TierSlots]) -> None:
    slots = make(2)
    slot = slots.take()
    slots.pin(slot)
    slots.unpin(slot)
    assert slots.free_count == 1
    slots.give_back(slot)
    assert slots.free_count == 2


def test_slots_say_what_they_do_not_do() -> None:
    with pytest.raises(NotImplementedError):
        Slots(1).give_back(0)


def test_freed_slots_are_trimmed_once_ascending_and_not_taken_meanwhile() -> None:
    slots = TierSlots(4, ())
    taken(slots, 4)
    for slot in (3, 0, 2):
        slots.give_back(slot)
    assert slots.untrimmed_count == 3
    assert slots.take_for_trim() == [0, 2, 3]
    assert (slots.free_count, slots.untrimmed_count) == (0, 0)
    with pytest.raises(IndexError):
        slots.take()
    slots.trimmed([0, 2, 3])
    assert slots.free_count == 3
    assert slots.take_for_trim() == []
    assert taken(slots, 3) == [0, 2, 3]


def test_a_slot_taken_again_needs_no_trim_and_a_pinned_one_waits() -> None:
    slots = TierSlots(2, ())
    taken(slots, 2)
    slots.pin(0)
    slots.give_back(0)
    slots.give_back(1)
    assert slots.untrimmed_count == 1
    assert slots.take() == 1
    assert slots.take_for_trim() == []
    slots.unpin(0)
    assert slots.take_for_trim() == [0]


@pytest.mark.parametrize("seed", range(8))
def test_tier_slots_match_a_model(seed: int) -> None:
    """Any order of taking, freeing, pinning and trimming: each slot is in one place."""
    rng = random.Random(seed)
    slots = TierSlots(9, ())
    used: list[int] = []
    pins: list[int] = []
    dead: set[int] = set()  # freed while pinned
    trims: list[list[int]] = []
    for _ in range(3000):
        draw = rng.random()
        if draw < 0.3:
            away = {*used, *dead, *(slot for trim in trims for slot in trim)}
            assert slots.free_count == 9 - len(away)
            if slots.free_count:
                slot = slots.take()
                assert slot not in away
                used.append(slot)
        elif draw < 0.55 and used:
            slot = used.pop(rng.randrange(len(used)))
            slots.give_back(slot)
            if slot in pins:
                dead.add(slot)
        elif draw < 0.7 and used:
            pins.append(rng.choice(used))
            slots.pin(pins[-1])
        elif draw < 0.85 and pins:
            slot = pins.pop(rng.randrange(len(pins)))
            slots.unpin(slot)
            if slot not in pins:
                dead.discard(slot)
        elif draw < 0.92:
            trims.append(slots.take_for_trim())
            assert trims[-1] == sorted(trims[-1])
            assert not {*used, *dead}.intersection(trims[-1])
        elif trims:
            slots.trimmed(trims.pop(rng.randrange(len(trims))))
        assert slots.is_any_pinned() == bool(pins)


# -- the budget ------------------------------------------------------------------------------


def restarted(budget: Budget) -> Budget:
    """What a successor knows: what is saved."""
    return Budget(budget.bytes_per_day, budget.window_start_s, budget.spent_bytes)


def test_a_budget_lasts_a_window_and_then_is_renewed() -> None:
    budget = Budget(10 * MIB, 0, 0)
    now = 5 * DAY_S
    assert [budget.charge(MIB, now + n) for n in range(12)] == [True] * 10 + [False] * 2
    assert budget.left_bytes(now + DAY_S - 1) == 0
    assert not budget.charge(1, now + DAY_S - 1)
    assert budget.left_bytes(now + DAY_S) == 10 * MIB
    assert budget.charge(10 * MIB, now + DAY_S)


def test_a_write_larger_than_what_is_left_changes_nothing() -> None:
    budget = Budget(3 * MIB, 0, 0)
    assert budget.charge(2 * MIB, 0)
    before = replace(budget)
    assert not budget.charge(2 * MIB, 0)
    assert budget == before
    assert budget.charge(MIB, 0)


def test_the_charge_is_ahead_of_the_writes_a_chunk_at_a_time() -> None:
    budget = Budget(10 * CHUNK_BYTES, 0, 0)
    saved = []
    for _ in range(2 * CHUNK_BYTES // MIB):
        assert budget.charge(MIB, 0)
        saved.append(budget.spent_bytes)
    assert set(saved) == {CHUNK_BYTES, 2 * CHUNK_BYTES}
    assert budget.charge(3 * CHUNK_BYTES, 0)  # larger than a chunk


@pytest.mark.parametrize("size_bytes", [1, 4096, MIB, 3 * MIB, 64 * MIB, 65 * MIB])
@pytest.mark.parametrize("bytes_per_day", [1, MIB, 63 * MIB, 64 * MIB, 65 * MIB, 200 * MIB + 7])
def test_a_restart_at_any_point_never_allows_more_in_a_window(
    size_bytes: int, bytes_per_day: int
) -> None:
    """Restarts before the first, second, third, ... write; and before every one."""
    size_bytes = max(size_bytes, bytes_per_day // 500)
    for restart_at in [*range(bytes_per_day // size_bytes + 3), None]:
        budget = Budget(bytes_per_day, DAY_S, 0)
        written = 0
        for number in range(bytes_per_day // size_bytes + 3):
            if restart_at in (number, None):
                budget = restarted(budget)
            if budget.charge(size_bytes, DAY_S + number):
                written += size_bytes
            assert written <= budget.spent_bytes <= bytes_per_day
        if restart_at == 0:
            assert written == bytes_per_day // size_bytes * size_bytes


@pytest.mark.parametrize("seed", range(10))
def test_random_writes_restarts_and_days(seed: int) -> None:
    rng = random.Random(seed)
    budget = Budget(rng.choice((5 * MIB, 100 * MIB, 1000 * MIB)), 0, 0)
    now, written = DAY_S, 0
    for _ in range(5000):
        now += rng.choice((0, 1, 60, 3600))
        if rng.random() < 0.05:
            budget = restarted(budget)
        window = budget.window_start_s
        left = budget.left_bytes(now)
        if budget.window_start_s != window:
            assert not window <= now < window + DAY_S
            written = 0
        size = rng.choice((4096, MIB, 7 * MIB))
        allowed = budget.charge(size, now)
        assert allowed == (size <= left)
        written += size * allowed
        assert written <= budget.spent_bytes <= budget.bytes_per_day
        assert budget.charged_ahead_bytes >= 0


def test_a_clock_set_back_begins_a_new_window_now() -> None:
    budget = Budget(MIB, 10 * DAY_S, MIB)
    assert not budget.charge(1, 10 * DAY_S)
    assert budget.charge(MIB, 9 * DAY_S)
    assert budget.window_start_s == 9 * DAY_S
    assert not budget.charge(1, 9 * DAY_S + 5)


def test_a_budget_made_smaller_than_what_was_spent_allows_nothing() -> None:
    budget = Budget(MIB, DAY_S, 5 * MIB)
    assert budget.left_bytes(DAY_S) == 0
    assert not budget.charge(1, DAY_S)
    assert budget.spent_bytes == 5 * MIB
    assert budget.charge(MIB, 2 * DAY_S)


# -- policy ----------------------------------------------------------------------------------


@pytest.mark.parametrize("slot_count", [20, 100, 1000])
def test_writeback_starts_high_and_stops_low(slot_count: int) -> None:
    due, changes = False, []
    for used in [*range(slot_count + 1), *range(slot_count, -1, -1)]:
        now = policy.writeback_due(used, slot_count, RESERVE_SEGMENTS, share=0.8 if due else 0.9)
        if now != due:
            changes.append(used)
        due = now
    start, stop = changes
    assert start == min(slot_count * 9 // 10, slot_count - RESERVE_SEGMENTS - 2) + 1
    assert stop == slot_count * 8 // 10
    assert not due


@pytest.mark.parametrize("slot_count", range(4, 20))
def test_a_small_pool_writes_back_before_stores_are_refused(slot_count: int) -> None:
    full = slot_count - RESERVE_SEGMENTS
    assert policy.writeback_due(full, slot_count, RESERVE_SEGMENTS, share=0.9)
    assert not policy.writeback_due(0, slot_count, RESERVE_SEGMENTS, share=0.8)


def test_a_tier_is_short_below_its_share() -> None:
    assert policy.tier_short(0, 4)
    assert not policy.tier_short(1, 4)
    assert policy.tier_short(3, 48)
    assert not policy.tier_short(4, 48)
    assert policy.tier_short(4, 10_000)
    assert not policy.tier_short(5, 10_000)


# -- what is written first -------------------------------------------------------------------


def filled_store() -> Store:
    rng = random.Random(3)
    store = Store(Geometry(400, 24, 1 << 14, 64), make_buffers(Geometry(400, 24, 1 << 14, 64)))
    for page in range(60):
        store.segments.now_s = page
        store.store(page, make_page(rng, "random" if page % 5 == 4 else "text"))
    return store


def test_incompressible_segments_go_first_then_the_oldest() -> None:
    store = filled_store()
    segments = store.segments
    order = store.homes.candidates()
    raw = [n for n in order if segments.head_of(n) == INCOMPRESSIBLE]
    rest = order[len(raw) :]
    assert raw
    assert rest
    assert order[: len(raw)] == raw
    for part in (raw, rest):
        sequences = [segments.sequence(n) for n in part]
        assert sequences == sorted(sequences)
    assert store.homes.candidates(incompressible=True) == raw
    assert sorted(order) == [n for n in range(segments.count) if segments.state(n) == SEALED]


def is_recompressing(store: Store) -> bool:
    return store.cleaner.recompressing


def test_cold_pages_are_recompressed_in_idle_time_only() -> None:
    rng = random.Random(4)
    geometry = Geometry(400, 24, 1 << 14, 0)
    store = Store(geometry, make_buffers(geometry))
    pages = [make_page(rng, "words") for _ in range(60)]
    store.segments.now_s = 100
    for number, data in enumerate(pages):
        store.store(number, data)
    before_bytes = figures(store)["pool.live_bytes"]
    store.recompress_cold(100 + policy.COLD_S)
    assert not is_recompressing(store), "there were stores since the last call"
    store.recompress_cold(99 + policy.COLD_S)
    assert not is_recompressing(store), "not cold yet"
    for _ in range(geometry.slot_count):
        store.recompress_cold(100 + policy.COLD_S)
        while is_recompressing(store):
            store.clean(1, idle=True)
    after = figures(store)
    saved_bytes = after["cleaner.recompression_saved_bytes_total"]
    assert after["pool.live_bytes"] == before_bytes - saved_bytes < before_bytes
    assert 0 < after["cleaner.recompressed_pages_total"] <= 60
    assert [store.load(number) for number in range(60)] == pages
    assert check(store) == []


def test_a_store_does_not_wait_for_recompression() -> None:
    store = filled_store()
    store.cleaner.recompress(sealed_before_s=100)
    assert is_recompressing(store)
    store.clean(1)
    assert not is_recompressing(store)


def test_idle_segments_are_those_sealed_by_then() -> None:
    store = filled_store()
    sealed_at = store.segments.sealed_at_s
    everything = store.homes.candidates()
    middle = sorted(sealed_at[n] for n in everything)[len(everything) // 2]
    idle = store.homes.candidates(idle_since_s=middle)
    assert idle == [n for n in everything if sealed_at[n] <= middle]
    assert 0 < len(idle) < len(everything)
    assert store.homes.candidates(idle_since_s=-1) == []


def test_choosing_leaves_the_victim_and_what_is_on_its_way() -> None:
    store = filled_store()
    store.segments.add_tier(20)
    order = store.homes.candidates()
    live_bytes, shift = store.segments.live_bytes, store.segments.shift
    order.sort(key=lambda n: -policy.density_class(live_bytes[n], shift))
    assert store.homes.choose(leave=order[0]) == order[1]
    plan = store.homes.plan_write(order[0])
    assert plan is not None
    assert store.homes.choose(leave=order[1]) == order[2]
    assert order[0] not in store.homes.candidates()
    assert not store.homes.end_write(plan, ok=False)
    assert order[0] in store.homes.candidates()


def test_the_densest_segments_are_written_first() -> None:
    store = filled_store()
    store.segments.add_tier(20)
    sparse = store.homes.choose(leave=-1)
    assert sparse is not None
    for page in list(pages_in(store, sparse))[1:]:
        store.discard(page, 1)
    count = len(store.homes.candidates())
    found = []
    while (segment := store.homes.choose(leave=-1)) is not None:
        assert store.homes.plan_write(segment)
        found.append(segment)
    assert found[-1] == sparse
    assert len(set(found)) == count


def test_stores_leave_a_slot_to_fetch_into_where_there_are_tiers() -> None:
    store = filled_store()
    rng = random.Random(4)

    def fill() -> None:
        for page in range(100, 400):
            store.store(page, make_page(rng, "random"))

    assert store.segments.kept_count == RESERVE_SEGMENTS
    tier = store.segments.add_tier(20)
    plan = store.homes.plan_write(store.homes.candidates()[0])
    assert plan is not None
    assert store.homes.end_write(plan, ok=True)
    with pytest.raises(PoolFullError):
        fill()
    fetch = store.homes.plan_fetch(store.homes.on_tier(tier)[0], to_clean=True)
    assert fetch is not None
    assert store.segments.free_count == RESERVE_SEGMENTS
    assert store.homes.end_fetch(fetch, ok=True)
    store.segments.remove_tier(tier)
    assert store.segments.kept_count == RESERVE_SEGMENTS


@pytest.mark.parametrize("warming", [False, True])
def test_a_slot_that_was_fetched_into_in_vain_is_not_taken_for_one_with_memory(
    warming: bool,
) -> None:
    """The lane would touch it page by page, and wait for each when the machine has none left."""
    store = filled_store()
    ram = store.segments.ram
    tier = store.segments.add_tier(20)
    plan = store.homes.plan_write(store.homes.candidates()[0])
    assert plan is not None
    assert store.homes.end_write(plan, ok=True)
    ram.cool()
    assert ram.warm_count == 0
    fetch = store.homes.plan_fetch(store.homes.on_tier(tier)[0], to_clean=True)
    assert fetch is not None
    if warming:
        ram.kept_warm = 1
        assert ram.begin_warming() is not None
    free = ram.unused_count
    assert not store.homes.end_fetch(fetch, ok=False)
    assert ram.unused_count == free + 1
    asked = list[int]()

    def none_to_spare(slot: int) -> bool:
        asked.append(slot)
        return False

    ram.warm_up = none_to_spare
    assert not ram.has_memory(0)
    assert asked == [fetch.ram_slot]


def test_what_the_cleaner_packed_is_not_cleaned_again() -> None:
    for segment_bytes in (1 << 14, 1 << 20):
        packed_bytes = segment_bytes - SEGMENT_HEADER_BYTES - RECORD_MAX_BYTES + 1
        assert packed_bytes >= policy.tier_clean_below(segment_bytes)
        assert policy.tier_clean_below(segment_bytes) > segment_bytes / 2


def test_a_failed_write_tells_the_cleaner_that_it_may_have_the_segment() -> None:
    store = filled_store()
    store.segments.add_tier(20)
    segment = store.homes.candidates()[-1]
    for page in list(pages_in(store, segment))[1:]:
        store.discard(page, 1)  # worth cleaning
    plan = store.homes.plan_write(segment)
    assert plan is not None
    while store.clean(100):
        pass
    assert store.segments.is_sealed_in_ram(segment)
    store.homes.end_write(plan, ok=False)
    assert not store.cleaner.exhausted()
    while store.clean(100):
        pass
    assert not store.segments.is_sealed_in_ram(segment)


def test_a_fetch_of_a_segment_that_is_not_on_a_tier_is_refused() -> None:
    store = filled_store()
    tier = store.segments.add_tier(20)
    segment = store.homes.candidates()[0]
    free = store.segments.free_count
    assert store.homes.plan_fetch(segment) is None
    plan = store.homes.plan_write(segment)
    assert plan is not None
    assert store.homes.end_write(plan, ok=True)
    listed = store.homes.on_tier(tier)
    store.discard(0, 60)  # it died between the list and the fetch
    assert store.homes.plan_fetch(listed[0]) is None
    assert store.segments.free_count >= free


def test_a_machine_without_memory_has_segments_written_back_below_the_watermark() -> None:
    geometry = Geometry(page_count=512, slot_count=16, segment_bytes=8192, segment_capacity=32)
    store = Store(geometry, make_buffers(geometry))
    homes = store.homes
    store.segments.ram.is_starved = True
    assert not homes.writeback_due(), "there is no tier"
    store.segments.add_tier(8)
    assert homes.writeback_due()
    store.segments.ram.is_starved = False
    assert not homes.writeback_due()


def test_a_store_takes_no_memory_that_is_not_there() -> None:
    geometry = Geometry(page_count=512, slot_count=16, segment_bytes=8192, segment_capacity=16)
    store = Store(geometry, make_buffers(geometry))
    store.store(0, random.Random(1).randbytes(4096))
    used = store.segments.ram.used_count
    store.segments.ram.warm_up = lambda _slot: False
    data = random.Random(1).randbytes(4096 * 63)
    with pytest.raises(PoolFullError, match="no memory"):
        store.store(1, data)
    assert store.segments.ram.used_count == used
    assert store.load(0) == random.Random(1).randbytes(4096)
    assert list(check(store)) == []


def test_a_cleaner_takes_no_memory_that_is_not_there() -> None:
    store = filled_store()
    for page in range(0, 60, 2):
        store.discard(page, 1)
    ram = store.segments.ram
    ram.cool()
    ram.warm_up = lambda _slot: False
    assert (store.clean(1000), store.cleaner.run_victim()) == (False, False)
    assert store.cleaner.moved_pages_total == 0
    ram.warm_up = lambda _slot: True
    while store.clean(1000):
        pass
    assert store.cleaner.moved_pages_total > 0
    assert list(check(store)) == []
