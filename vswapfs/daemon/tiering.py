"""Tiers at work: carries out the plans of core/homes.py and decides when to make them.

Owns the tiers' media, their state and their counters. All of it runs on the lane, except the jobs
on I/O threads, which touch only media and buffers. Always holds: a tier that failed gets no more
segments until a retry, with back-off, has worked; what it holds can still be read.
"""

import functools
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from vswapfs.backing.absent import AbsentBacking
from vswapfs.backing.api import Backing
from vswapfs.core.budget import Budget
from vswapfs.core.homes import Fetched, RecordRead, Transfer, Trim
from vswapfs.core.store import Store
from vswapfs.daemon.cipher import Cipher
from vswapfs.daemon.date import SteadyDate
from vswapfs.daemon.direct_reads import DirectReads
from vswapfs.daemon.io_threads import TIER_IO_THREADS, IoThreads
from vswapfs.daemon.medium import Encryption, read_segment, write_segment, write_superblock
from vswapfs.daemon.record_reader import RecordReader, all_lost
from vswapfs.daemon.tier import BACKOFF_FIRST_S, Tier, status_of
from vswapfs.format.chunk import blocks_bytes
from vswapfs.format.message import Tiers, TierStatus
from vswapfs.format.session import Session, TierEntry
from vswapfs.format.tier import SegmentHeader, Superblock, slot_offset_bytes
from vswapfs.fuse.lane import Lane

WRITES_IN_FLIGHT_MAX: Final = 2
TRIM_BATCH_SLOTS: Final = 16
BACKOFF_MAX_S: Final = 60.0
_log = logging.getLogger(__name__)


class Tiering:
    """The lane's TierIo, and what commands need of the tiers. Called on the lane only."""

    def __init__(
        self,
        store: Store,
        lane: Lane,
        session: Session,
        budget_bytes_per_day: int | None,
        cipher: Cipher | None = None,
    ) -> None:
        """``session``: where a successor finds which tiers there are. ``cipher``: of all tiers."""
        self._session = session
        self._store = store
        self._homes = store.homes
        self._lane = lane
        self._date = SteadyDate()
        self._threads = IoThreads(lane.submit, TIER_IO_THREADS, "tier-io")
        self._segment_bytes = store.geometry.segment_bytes
        self._chunk_bytes = store.geometry.chunk_bytes
        self.cipher = cipher
        self.tiers: dict[int, Tier] = {}
        self._reader = RecordReader(self.tiers, self._segment_bytes, cipher)
        self._direct_reads = DirectReads(
            self.tiers, self._segment_bytes, lane.event_fd, self._read_by_thread, cipher
        )
        self._writes_in_flight = 0
        self._trims_in_flight = 0
        self.is_draining = False
        """No writeback by watermark: pages are on their way in."""
        self._cleaning = False
        self._unreadable_until_s = 0.0
        self.budget = Budget(budget_bytes_per_day, 0, 0) if budget_bytes_per_day else None
        self.budget_spent = False

    def start(self) -> None:
        self._threads.start()

    def stop(self) -> None:
        """After the lane has ended: end the threads, let go of the media."""
        self._direct_reads.stop()
        self._threads.stop()
        for tier in self.tiers.values():
            tier.backing.close()

    # -- which tiers there are ---------------------------------------------------------------

    def add(self, path: str, backing: Backing, superblock: Superblock) -> Tier:
        """Take a tier whose superblock has been written."""
        number = self._store.segments.add_tier(superblock.slot_count)
        slots, size_bytes = superblock.slot_count, backing.size_bytes
        self._session.keep_tier(TierEntry(number, True, slots, size_bytes, superblock.uuid, path))
        return self.restore(number, path, backing, superblock)

    def restore(self, number: int, path: str, backing: Backing, superblock: Superblock) -> Tier:
        """Go on with a tier that the segment table and the session know."""
        tier = Tier(number, path, backing, superblock)
        self.tiers[number] = tier
        self._reader.prepare()
        if backing.direct_fd >= 0:
            self._direct_reads.prepare()
        if isinstance(backing, AbsentBacking):
            self._fails(tier, backing.reason)
        if self.budget and superblock.budget_bytes_per_day:
            saved = superblock.budget_window_start_unix_s, superblock.budget_spent_bytes
            if saved > (self.budget.window_start_s, self.budget.spent_bytes):
                self.budget.window_start_s, self.budget.spent_bytes = saved
        self.pump()
        return tier

    def find(self, path: str) -> Tier | None:
        return next((tier for tier in self.tiers.values() if tier.path == path), None)

    def forget(self, tier: Tier) -> bool:
        """Drop a tier that holds nothing any more; False while something still uses it."""
        slots = self._store.segments.tiers[tier.number]
        # Slots that are being written or trimmed are not free either.
        in_use = slots.free_count < slots.slot_count or slots.is_any_pinned()
        if in_use or tier.superblock_is_being_written:
            return False
        self._store.segments.remove_tier(tier.number)
        self._session.drop_tier(tier.number)
        del self.tiers[tier.number]
        return True

    def leave(self, tier: Tier, *, leaving: bool) -> None:
        """Send no more segments there, or again."""
        tier.is_leaving = leaving
        self._set_closed(tier)

    def _set_closed(self, tier: Tier) -> None:
        if tier.is_leaving or tier.failing:
            self._homes.closed_tiers.add(tier.number)
        else:
            self._homes.closed_tiers.discard(tier.number)

    # -- TierIo ------------------------------------------------------------------------------

    def pump(self) -> None:
        """Start what is due by the watermarks; trim; fetch what is to be cleaned."""
        if self._store.recount is not None:
            return
        self._store.segments.now_s = int(time.monotonic())
        while (
            self._writes_in_flight < WRITES_IN_FLIGHT_MAX
            and not self.is_draining
            and not self._budget_waits()
            and self._homes.writeback_due()
        ):
            segment = self._homes.choose(leave=self._store.cleaner.victim)
            if segment is None or not self.write(segment, lambda _: None):
                break
        if trim := self._homes.plan_trim(TRIM_BATCH_SLOTS):
            self._trim(trim)
        self._clean_tiers()

    def room_is_coming(self) -> bool:
        self.pump()
        # A slot of a tier is room, too: what is fetched to be cleaned leaves one, what is being
        # trimmed is one.
        moving = self._writes_in_flight > 0 or self._cleaning or self._trims_in_flight > 0
        return moving or self._store.segments.ram.will_be_warm

    def read(self, plans: list[RecordRead], done: Callable[[Fetched], None]) -> None:
        self._direct_reads.read(plans, done)

    def reap(self) -> None:
        self._direct_reads.reap()

    def _read_by_thread(self, plans: list[RecordRead], done: Callable[[Fetched], None]) -> None:
        job = functools.partial(self._reader.read, plans)
        self._threads.do(
            job, lambda fetched, error: done(fetched if error is None else all_lost(plans, error))
        )

    # -- writing -----------------------------------------------------------------------------

    def write(self, segment: int, done: Callable[[bool], None]) -> bool:
        """Write a segment to the first tier that takes it; False if none does, or the budget is
        spent. ``done(moved)`` follows."""
        if not self.may_leave(segment) or self._homes.open_tier() is None:
            return False
        fill_bytes = self._store.segments.fill_bytes(segment)
        length_bytes = blocks_bytes(fill_bytes, self._chunk_bytes)
        if self.budget and not self._allowed(length_bytes):
            return False
        plan = self._homes.plan_write(segment)
        assert plan is not None
        window_start_s = self.budget.window_start_s if self.budget else 0
        tier = self.tiers[plan.tier]
        self._writes_in_flight += 1
        self._threads.do(
            functools.partial(write_segment, *self._transfer(plan, tier)),
            lambda _, error: self._write_ended(plan, tier, window_start_s, error, done),
        )
        return True

    def _transfer(
        self, plan: Transfer, tier: Tier
    ) -> tuple[Backing, int, memoryview, SegmentHeader, Encryption | None]:
        """What medium.write_segment and read_segment need: from, to, and what has to be there."""
        return (
            tier.backing,
            slot_offset_bytes(plan.slot, self._segment_bytes),
            self._store.pool[plan.ram_start : plan.ram_start + plan.ram_bytes],
            SegmentHeader(plan.sequence, plan.slot, plan.fill_bytes, tier.superblock.uuid, 0),
            Encryption(self.cipher, plan.write_number) if self.cipher else None,
        )

    def _write_ended(
        self,
        plan: Transfer,
        tier: Tier,
        window_start_s: int,
        error: BaseException | None,
        done: Callable[[bool], None],
    ) -> None:
        self._writes_in_flight -= 1
        if error is None:
            tier.written_bytes += plan.length_bytes
            self._works(tier)
        else:
            tier.write_errors += 1
            if self.budget:
                self.budget.refund(plan.length_bytes, window_start_s)
            self._fails(tier, f"write of {plan.length_bytes} bytes to slot {plan.slot}: {error}")
        done(self._homes.end_write(plan, ok=error is None))
        self._lane.serve_parked()
        self.pump()

    def _allowed(self, length_bytes: int) -> bool:
        assert self.budget
        before = self.budget.spent_bytes
        allowed = self.budget.charge(length_bytes, self._date.now_s())
        if self.budget_spent == allowed:
            self.budget_spent = not allowed
            _log.warning("the write budget is %s", "spent" if not allowed else "renewed")
        if allowed and self.budget.spent_bytes != before:
            self.save_superblocks()
        return allowed

    def _budget_waits(self) -> bool:
        """Not even to choose a segment: another would be chosen each time, and refused."""
        spent = self.budget if self.budget_spent else None
        return spent is not None and not spent.may_allow(self._segment_bytes, self._date.now_s())

    def save_superblocks(self) -> None:
        """Keep the charge of the write budget on every tier."""
        for tier in self.tiers.values():
            tier.superblock = replace(
                tier.superblock,
                budget_bytes_per_day=self.budget.bytes_per_day if self.budget else 0,
                budget_window_start_unix_s=self.budget.window_start_s if self.budget else 0,
                budget_spent_bytes=self.budget.spent_bytes if self.budget else 0,
            )
            tier.superblock_changed = True
            self._write_superblock(tier)

    def _write_superblock(self, tier: Tier) -> None:
        """One write at a time, so that an older generation never lands on a newer one."""
        if tier.superblock_is_being_written or not tier.superblock_changed:
            return
        tier.superblock_is_being_written, tier.superblock_changed = True, False
        # Not with each change: more than one between copy and original is told as damage.
        tier.superblock = replace(tier.superblock, generation=tier.superblock.generation + 1)
        self._threads.do(
            functools.partial(write_superblock, tier.backing, tier.superblock),
            functools.partial(self._superblock_written, tier),
        )

    def _superblock_written(self, tier: Tier, _: Any, error: BaseException | None) -> None:
        tier.superblock_is_being_written = False
        if error is not None:
            tier.write_errors += 1
            self._fails(tier, f"write of the superblock: {error}")
        self._write_superblock(tier)

    def candidates(self, incompressible: bool, idle_since_s: int | None) -> list[int]:
        """Segments that writeback by hand would write, in order."""
        return self._homes.candidates(incompressible=incompressible, idle_since_s=idle_since_s)

    def may_leave(self, segment: int) -> bool:
        return self._homes.may_leave(segment) and segment != self._store.cleaner.victim

    def segments_on(self, tier: Tier) -> list[int]:
        return self._homes.on_tier(tier.number)

    def pin(self, tier: Tier, segment: int) -> tuple[int, int, int] | None:
        """Keep a segment's slot as it is until ``unpin``; returns slot, bytes used of it, and the
        number of the write that filled it; or None if the segment is not on the tier."""
        segments = self._store.segments
        if tier.number not in self.tiers or segments.tier_of(segment) != tier.number:
            return None
        slot = segments.slot_of(segment)
        segments.tiers[tier.number].pin(slot)
        used_bytes = blocks_bytes(segments.fill_bytes(segment), self._chunk_bytes)
        return slot, used_bytes, segments.write_number(segment)

    def unpin(self, tier: Tier, slot: int) -> None:
        self._store.segments.tiers[tier.number].unpin(slot)

    def has_room_to_drain(self) -> bool:
        """Whether a segment more can be in RAM without being written out again at once."""
        ram = self._store.segments.ram
        return self.is_draining or not self._homes.would_write_back(ram.used_count + 1)

    def why_not(self) -> str:
        """Why a segment could not be written."""
        if self.budget_spent:
            return "the write budget is spent"
        failing = [f"{tier.path}: {tier.failing}" for tier in self.tiers.values() if tier.failing]
        return "; ".join(failing) or "no tier has a free slot"

    # -- failing tiers -----------------------------------------------------------------------

    def _fails(self, tier: Tier, why: str) -> None:
        if not tier.failing:
            _log.error("tier %s is failing: %s", tier.path, why)
        tier.failing = why
        tier.retry_at_s = time.monotonic() + tier.backoff_s
        tier.backoff_s = min(tier.backoff_s * 2, BACKOFF_MAX_S)
        self._set_closed(tier)

    def _works(self, tier: Tier) -> None:
        if tier.failing:
            _log.warning("tier %s works again", tier.path)
        tier.failing, tier.backoff_s = "", BACKOFF_FIRST_S
        self._set_closed(tier)

    def tick(self) -> None:
        """Once a second: try failing tiers again, whose back-off is over; renew the budget."""
        if time.monotonic() >= self._unreadable_until_s:
            self._homes.unreadable.clear()
        for tier in self.tiers.values():
            if tier.failing and time.monotonic() >= tier.retry_at_s and not tier.is_leaving:
                # Open to one write: it closes again if that fails.
                tier.retry_at_s = time.monotonic() + tier.backoff_s
                self._homes.closed_tiers.discard(tier.number)
        if self._store.recount is None and (trim := self._homes.plan_trim(1)):
            self._trim(trim)
        self.pump()

    # -- reading -----------------------------------------------------------------------------

    def fetch(
        self,
        segment: int,
        done: Callable[[bool], None],
        *,
        salvage: bool = False,
        to_clean: bool = False,
    ) -> bool:
        """Read a segment into RAM; False if there is no room now. ``done(moved)`` follows.

        With ``salvage`` also one that cannot be read whole: what cannot be read is lost for good
        then, where otherwise it stays on the tier and may be readable later.
        """
        plan = self._homes.plan_fetch(segment, to_clean=to_clean)
        if plan is None:
            return False
        tier = self.tiers[plan.tier]
        self._threads.do(
            functools.partial(read_segment, *self._transfer(plan, tier), salvage=salvage),
            lambda _, error: self._fetch_ended(plan, tier, error, done),
        )
        return True

    def _fetch_ended(
        self, plan: Transfer, tier: Tier, error: BaseException | None, done: Callable[[bool], None]
    ) -> None:
        if error is None:
            tier.read_bytes += plan.length_bytes
        else:
            tier.read_errors += 1
            self._homes.unreadable.add(plan.sequence)
            self._unreadable_until_s = time.monotonic() + BACKOFF_MAX_S
            _log.error("tier %s: slot %d cannot be read: %s", tier.path, plan.slot, error)
        done(self._homes.end_fetch(plan, ok=error is None))
        self._lane.serve_parked()

    def _clean_tiers(self) -> None:
        """Fetch the sparsest segment of a tier that is short of slots; the RAM cleaner does the
        rest, and its survivors are written out again with others."""
        if self._cleaning:
            return
        for tier in self.tiers.values():
            if not tier.is_leaving and self._homes.tier_short(tier.number):
                segment = self._homes.sparsest(tier.number)
                if segment is not None and self.fetch(
                    segment, functools.partial(self._fetched_to_clean, segment), to_clean=True
                ):
                    self._cleaning = True
                    return

    def _fetched_to_clean(self, segment: int, moved: bool) -> None:
        self._cleaning = False
        if moved:
            cleaner = self._store.cleaner
            cleaner.wanted.append(segment)
            # Perhaps another victim was begun; that one first.
            while cleaner.wanted and cleaner.run_victim():
                pass

    # -- trims and figures -------------------------------------------------------------------

    def _trim(self, plan: Trim) -> None:
        tier = self.tiers[plan.tier]

        def job() -> int:
            done = 0
            for first, count in _neighbours(plan.slots):
                offset = slot_offset_bytes(first, self._segment_bytes)
                if tier.backing.trim(offset, count * self._segment_bytes):
                    done += count * self._segment_bytes
            return done

        def ended(trimmed_bytes: int | None, error: BaseException | None) -> None:
            self._trims_in_flight -= 1
            tier.trimmed_bytes += trimmed_bytes or 0
            if error is not None:
                _log.warning("tier %s: trim: %s", tier.path, error)
            self._homes.end_trim(plan)
            self._lane.serve_parked()

        self._trims_in_flight += 1
        self._threads.do(job, ended)

    def answer(self) -> Tiers:
        if not (budget := self.budget):
            return Tiers(self.status(), None, None)
        left_bytes = budget.left_bytes(self._date.now_s())
        return Tiers(self.status(), budget.bytes_per_day, left_bytes)

    def status(self) -> list[TierStatus]:
        waits = "waits: the write budget is spent" if self.budget_spent else ""
        segments = self._store.segments
        return [
            status_of(tier, segments.tiers[number], segments.tier_live_bytes[number], waits)
            for number, tier in self.tiers.items()
        ]


def _neighbours(slots: list[int]) -> list[tuple[int, int]]:
    """Ascending slots as (first, count) of consecutive ones."""
    found: list[tuple[int, int]] = []
    for slot in slots:
        if found and slot == sum(found[-1]):
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((slot, 1))
    return found
