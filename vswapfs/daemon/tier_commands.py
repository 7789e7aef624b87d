"""Commands on tiers that take a while: add, remove, writeback, drain, scrub, lost.

Owns their progress. Never touches the store but on the lane, a segment at a time, so that swap
goes on meanwhile. A command whose client is gone is given up at the next line it would send.
"""

import contextlib
import functools
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import trio

from vswapfs.backing.file import FileBacking
from vswapfs.core.homes import Fetched
from vswapfs.core.segment import TIER_MAX_COUNT
from vswapfs.core.store import Store
from vswapfs.daemon.ask import ask
from vswapfs.daemon.control import Send
from vswapfs.daemon.medium import erase, open_tier
from vswapfs.daemon.tier import Tier
from vswapfs.daemon.tiering import Tiering
from vswapfs.errors import HostError, LostPageError, UsageError
from vswapfs.format.codec import checksum
from vswapfs.format.message import Descriptor, LostPage, Progress, TierConfig
from vswapfs.format.record import CODEC_LZ4, CODEC_NAMES, CODEC_RAW
from vswapfs.fuse.lane import Lane
from vswapfs.units import PAGE_BYTES, format_size

PROGRESS_INTERVAL_S: Final = 0.5
POLL_S: Final = 0.02
STUCK_S: Final = 30.0
READ_ATTEMPTS: Final = 3


class ProgressReporter:
    """Sends Progress lines, not too often, and one with the exact figures at the end."""

    def __init__(self, send: Send, interval_s: float = PROGRESS_INTERVAL_S) -> None:
        self._send = send
        self._interval_s = interval_s
        self._last_s = trio.current_time()

    async def at(self, done_bytes: int, total_bytes: int, *, end: bool = False) -> None:
        if end or trio.current_time() - self._last_s > self._interval_s:
            self._last_s = trio.current_time()
            await self._send(Progress(done_bytes, max(done_bytes, total_bytes)))


class TierCommands:
    """The asynchronous side of Tiering."""

    def __init__(self, store: Store, lane: Lane, tiering: Tiering, instance: str) -> None:
        self._store = store
        self._lane = lane
        self._tiering = tiering
        self._instance = instance
        self._segment_bytes = store.geometry.segment_bytes

    async def add(self, config: TierConfig) -> None:
        """Raises UsageError and HostError; nothing has changed then."""
        if self._tiering.find(config.path):
            raise UsageError(
                f"{config.path} is a tier of {self._instance} already",
                remedy="give another file or device",
            )
        segments = self._store.segments
        if segments.tier_numbers == TIER_MAX_COUNT:
            raise UsageError(
                f"{self._instance} has had {TIER_MAX_COUNT} tiers, and their numbers are not used "
                "again",
                remedy="vswapctl off, then on",
            )
        slot_count = config.size_bytes // self._segment_bytes
        if segments.count + slot_count > self._store.geometry.segment_capacity:
            room = self._store.geometry.segment_capacity - segments.count
            raise UsageError(
                f"a tier of {format_size(config.size_bytes)}: the segment table has room for "
                f"{format_size(room * self._segment_bytes)} more"
            )
        open_this = functools.partial(
            open_tier,
            config,
            self._instance,
            self._segment_bytes,
            encrypt=self._tiering.cipher is not None,
        )
        backing, superblock = await trio.to_thread.run_sync(open_this)
        await ask(self._lane, lambda: self._tiering.add(config.path, backing, superblock))

    async def remove(self, path: str, send: Send) -> None:
        """Move everything off, then let go of the medium."""
        tier = self._find(path)
        if tier.is_leaving:
            raise UsageError(f"{path} is being removed already", remedy="vswapctl tier list")
        report = ProgressReporter(send)
        await ask(self._lane, lambda: self._tiering.leave(tier, leaving=True))
        try:
            await self._check_room(tier)
            total, progressed_s = 0, trio.current_time()
            while not await ask(self._lane, lambda: self._tiering.forget(tier)):
                # A write that was on its way there may have come meanwhile.
                if moved_bytes := await self._fetch_all(tier, report):
                    total, progressed_s = total + moved_bytes, trio.current_time()
                elif trio.current_time() - progressed_s > STUCK_S:
                    raise HostError(
                        f"remove {path}", "requests to it do not end", remedy="try again"
                    )
                await trio.sleep(POLL_S)
        except BaseException:
            with trio.CancelScope(shield=True):
                if tier.number in self._tiering.tiers:
                    await ask(self._lane, lambda: self._tiering.leave(tier, leaving=False))
            raise
        await trio.to_thread.run_sync(erase, tier.backing)  # first: the client may have gone
        await report.at(total, total, end=True)

    async def check_paths(self) -> None:
        """Raises HostError if a successor could not open a tier again that works now."""
        for tier in list(self._tiering.tiers.values()):
            backing = tier.backing
            if isinstance(backing, FileBacking) and not await trio.to_thread.run_sync(
                backing.is_at, tier.path
            ):
                raise HostError(
                    "restart",
                    f"{tier.path} is not the tier any more that has been opened there: a fresh "
                    "worker would not find it",
                    remedy=f"put it back, or vswapctl tier remove {tier.path}",
                )

    def _find(self, path: str) -> Tier:
        tier = self._tiering.find(path)
        if tier is None:
            there = ", ".join(t.path for t in self._tiering.tiers.values()) or "none"
            raise UsageError(
                f"{path} is not a tier of {self._instance}", remedy=f"its tiers: {there}"
            )
        return tier

    async def _check_room(self, tier: Tier) -> None:
        def room() -> tuple[int, int]:
            segments = self._store.segments
            others = sum(
                segments.tiers[other.number].free_count
                for other in self._tiering.tiers.values()
                if other is not tier and not other.failing and not other.is_leaving
            )
            # In RAM sparse segments are packed, so live bytes count there.
            needed = -(-segments.tier_live_bytes[tier.number] // self._segment_bytes)
            return needed, others + max(0, segments.free_count - 2)

        needed, there = await ask(self._lane, room)
        if needed > there:
            raise HostError(
                f"remove {tier.path}",
                f"it holds {format_size(needed * self._segment_bytes)}, and RAM and other tiers "
                f"have room for {format_size(there * self._segment_bytes)}",
                remedy="add another tier first",
            )

    async def _fetch_all(self, tier: Tier, report: ProgressReporter) -> int:
        """Fetch every segment of the tier, in the order they lie; returns the bytes moved."""
        done_bytes = 0
        progressed_s = trio.current_time()
        failures: Counter[int] = Counter()
        while True:
            segments = await ask(self._lane, lambda: self._tiering.segments_on(tier))
            if not segments:
                return done_bytes
            moved = 0
            for segment in segments:
                salvage = failures[segment] >= READ_ATTEMPTS
                fetch = functools.partial(self._tiering.fetch, segment, salvage=salvage)
                ended = await self._one(fetch)
                if ended is False:
                    failures[segment] += 1
                moved += bool(ended)
                await report.at(
                    done_bytes + moved * self._segment_bytes,
                    done_bytes + len(segments) * self._segment_bytes,
                )
            done_bytes += moved * self._segment_bytes
            if moved:
                progressed_s = trio.current_time()
            elif trio.current_time() - progressed_s > STUCK_S:
                raise HostError(
                    f"empty {tier.path}",
                    f"{len(segments)} segments are left and the pool is full",
                    remedy="add a tier, or give swap less to do",
                )
            else:
                # The pool is full: pack it, or wait for writeback to other tiers.
                await ask(self._lane, self._make_room)
                await trio.sleep(POLL_S)

    def _make_room(self) -> None:
        self._store.cleaner.run_victim()
        self._tiering.pump()

    async def _one(self, start: Callable[[Callable[[bool], None]], bool]) -> bool | None:
        """Start one transfer on the lane and wait for its end: whether the segment has moved.
        None if it did not start."""
        token = trio.lowlevel.current_trio_token()
        ended = trio.Event()
        outcome: list[bool] = []

        def done(moved: bool) -> None:
            outcome.append(moved)
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(ended.set)

        if not await ask(self._lane, lambda: start(done)):
            return None
        await ended.wait()
        return outcome[0]

    async def drain(self, report: ProgressReporter) -> None:
        """Fetch what fits RAM, tier by tier in the order it lies there.

        Raises HostError if a read hangs, or in the end if some failed; what was fetched stays in
        RAM.
        """
        work = []
        for tier in list(self._tiering.tiers.values()):
            work += await ask(self._lane, functools.partial(self._tiering.segments_on, tier))
        done = failed = 0
        for segment in work:
            if not await ask(self._lane, self._tiering.has_room_to_drain):
                break
            with trio.move_on_after(STUCK_S) as patience:
                moved = await self._one(functools.partial(self._tiering.fetch, segment))
                done, failed = done + bool(moved), failed + (moved is False)
            if patience.cancelled_caught:
                raise HostError("drain", f"a read takes longer than {STUCK_S:.0f} s")
            await report.at(done * self._segment_bytes, len(work) * self._segment_bytes)
        await report.at(done * self._segment_bytes, len(work) * self._segment_bytes, end=True)
        if failed:
            raise HostError(
                "drain", f"{failed} segments could not be read", remedy="vswapctl tier list, scrub"
            )

    async def writeback(
        self, *, idle_s: float, incompressible: bool, max_bytes: int | None, send: Send
    ) -> None:
        """Write sealed segments out now, in the order of `Homes.candidates`, and so many that
        ``max_bytes`` are reached. Raises HostError if no tier takes them."""
        if not self._tiering.tiers:
            raise UsageError(f"{self._instance} has no tier", remedy="vswapctl tier add PATH:SIZE")
        report = ProgressReporter(send)
        since_s = int(time.monotonic() - idle_s) if idle_s else None
        segments = await ask(self._lane, lambda: self._tiering.candidates(incompressible, since_s))
        if max_bytes is not None:
            segments = segments[: -(-max_bytes // self._segment_bytes)]
        done = 0
        for segment in segments:
            if await self._still(segment):
                moved = await self._one(functools.partial(self._tiering.write, segment))
                if moved is None and await self._still(segment):
                    raise HostError("writeback", await ask(self._lane, self._tiering.why_not))
                done += bool(moved)
            await report.at(done * self._segment_bytes, len(segments) * self._segment_bytes)
        await report.at(done * self._segment_bytes, done * self._segment_bytes, end=True)

    async def _still(self, segment: int) -> bool:
        """Whether the segment can be written out; it may die at any time."""
        return await ask(self._lane, functools.partial(self._tiering.may_leave, segment))

    async def complete(self, rows: list[Descriptor]) -> None:
        """Fill in what only the record tells of pages on tiers: neighbours, in their order."""
        first, last = (rows[index].offset // PAGE_BYTES for index in (0, -1))
        pages = await self._look_up(first, last + 1)
        for row in rows:
            page = pages.get(row.offset // PAGE_BYTES)
            if row.state != "disk" or page is None:
                continue
            if isinstance(page, bytes):
                row.verified = True
                row.codec = CODEC_NAMES[CODEC_RAW if row.stored_bytes == PAGE_BYTES else CODEC_LZ4]
                row.checksum = f"{checksum(page):016x}"
            else:
                row.verified, row.error = False, page.message

    async def _look_up(self, start: int, stop: int) -> dict[int, bytes | LostPageError]:
        """Read those of the pages [start, stop) that are on tiers: verified, or why not."""
        token = trio.lowlevel.current_trio_token()
        ended = trio.Event()
        found: dict[int, bytes | LostPageError] = {}

        def begin() -> bool:
            plans = self._store.missing(start, stop)

            def done(fetched: Fetched) -> None:
                for plan in plans:
                    self._store.homes.end_read(plan)
                    found[plan.page] = fetched[plan.version]
                with contextlib.suppress(trio.RunFinishedError):
                    token.run_sync_soon(ended.set)

            if plans:
                self._tiering.read(plans, done)
            return bool(plans)

        if await ask(self._lane, begin):
            await ended.wait()
        return found

    async def lost(self) -> list[LostPage]:
        """Pages that could not be verified and were not stored again since."""

        still = await ask(self._lane, self._lane.lost.still)
        return [
            LostPage(page * PAGE_BYTES, reason) for page, (_word, reason) in sorted(still.items())
        ]
