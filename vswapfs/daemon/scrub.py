"""Scrub: reads segments on tiers and verifies every record, by hand or slowly in the background.

Owns the order and the rate. Changes nothing: a damaged page stays where it is and is EIO when it is
loaded; one that nobody needs any more is left out.
"""

import contextlib
import logging
from array import array
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from vswapfs.backing.scratch import scratch
from vswapfs.core.descriptor import stored
from vswapfs.core.store import Store
from vswapfs.daemon.ask import ask
from vswapfs.daemon.control import Send, send_list
from vswapfs.daemon.tier import Tier
from vswapfs.daemon.tier_commands import ProgressReporter
from vswapfs.daemon.tiering import Tiering
from vswapfs.errors import UnmountedError
from vswapfs.format.chunk import offset_in_segment
from vswapfs.format.message import AskScrub, Scrubbed, ScrubFinding, ScrubFindings
from vswapfs.format.record import HEADER_BYTES
from vswapfs.format.tier import slot_offset_bytes
from vswapfs.format.tier_walk import SegmentFound, walk_segment
from vswapfs.fuse.lane import Lane
from vswapfs.host import memory
from vswapfs.units import PAGE_BYTES

BACKGROUND_INTERVAL_S: Final = 10.0
"""A segment of each tier in that time: 8 GB a day."""

_TRIES: Final = 64
"""Of segments that may have left: each has the lane look, 30 us."""

_log = logging.getLogger(__name__)


class Scrubber:
    """Verifies tiers a segment at a time."""

    def __init__(self, store: Store, lane: Lane, tiering: Tiering) -> None:
        self._store = store
        self._lane = lane
        self._tiering = tiering
        self._segment_bytes = store.geometry.segment_bytes
        self._memory = memory.Watch()
        self._to_verify: dict[int, array[int]] = {}
        """By tier: the segments of this round that the background still has before it, the next
        one last."""

    async def answer(self, request: AskScrub, send: Send) -> None:
        """Verify all there is on tiers, telling how far it is."""
        report = ProgressReporter(send)
        records, size_bytes, found = await self.all(request.rate_bytes_per_s, report.at)
        await report.at(size_bytes, size_bytes, end=True)
        await send_list(send, ScrubFindings, found)
        await send(Scrubbed(records, size_bytes))

    async def segment(self, tier: Tier, segment: int) -> tuple[int, list[ScrubFinding]]:
        """Verify one segment: how many records, and the bad ones; none if it has left the tier
        meanwhile."""
        place = await ask(self._lane, lambda: self._tiering.pin(tier, segment))
        if place is None:
            return 0, []
        slot, used_bytes, write_number = place
        try:
            found, reason = await trio.to_thread.run_sync(
                self._read, tier, slot, used_bytes, write_number
            )
            findings = await ask(
                self._lane, lambda: self._judge(tier, segment, slot, found, reason)
            )
            return len(found.records) if found else 0, findings
        finally:
            with trio.CancelScope(shield=True):
                await ask(self._lane, lambda: self._tiering.unpin(tier, slot))

    def _read(
        self, tier: Tier, slot: int, used_bytes: int, write_number: int
    ) -> tuple[SegmentFound | None, str]:
        blocks = scratch(used_bytes)
        try:
            tier.backing.read_into(slot_offset_bytes(slot, self._segment_bytes), blocks)
        except OSError as error:
            return None, str(error)

        def decrypt(encrypted: memoryview) -> tuple[memoryview, list[int]]:
            cipher = self._tiering.cipher
            assert cipher
            segment = scratch(self._segment_bytes)
            return segment, cipher.decrypt(write_number, encrypted, segment)

        return walk_segment(blocks, tier.superblock, slot, decrypt), ""

    def _judge(
        self, tier: Tier, segment: int, slot: int, found: SegmentFound | None, reason: str
    ) -> list[ScrubFinding]:
        """On the lane: only what a page still needs is a finding."""
        segments = self._store.segments
        base = slot_offset_bytes(slot, self._segment_bytes)
        if segments.tier_of(segment) != tier.number or segments.slot_of(segment) != slot:
            return []  # it died or left meanwhile
        if found is None:
            tier.read_errors += 1
            return [ScrubFinding(tier.path, base, None, f"cannot be read: {reason}")]
        findings = []
        if found.header and found.header.sequence != segments.sequence(segment):
            expected = segments.sequence(segment)
            reason = f"an earlier segment: sequence {found.header.sequence}, not {expected}"
            findings.append(ScrubFinding(tier.path, base, None, reason))
        missing_bytes = segments.live_bytes[segment]
        for record in found.records:
            page = record.page_offset // PAGE_BYTES
            length_bytes = HEADER_BYTES + record.stored_bytes
            offset = offset_in_segment(record.byte_offset - base, tier.superblock.chunk_bytes)
            word = stored(segment, offset, length_bytes)
            if page < self._store.geometry.page_count and self._store.words[page] == word:
                missing_bytes -= length_bytes
                if record.error:
                    self._lane.lost.remember(page, record.error)
                    findings.append(
                        ScrubFinding(
                            tier.path, record.byte_offset, record.page_offset, record.error
                        )
                    )
        if missing_bytes:
            findings += [
                ScrubFinding(tier.path, finding.byte_offset, None, finding.reason)
                for finding in found.findings
                if finding.page_offset is None
            ]
            reason = (
                f"{missing_bytes} live bytes of slot {slot} have no record that names their page"
            )
            findings.append(ScrubFinding(tier.path, base, None, reason))
        return findings

    async def all(
        self, rate_bytes_per_s: int | None, progress: Callable[[int, int], Awaitable[None]]
    ) -> tuple[int, int, list[ScrubFinding]]:
        """Verify all tiers; returns records, bytes and findings."""
        work = []
        for tier in list(self._tiering.tiers.values()):
            segments = await self._segments_on(tier)
            work += [(tier, segment) for segment in segments]
        records, findings = 0, list[ScrubFinding]()
        started_s = trio.current_time()
        for done, (tier, segment) in enumerate(work, 1):
            verified, found = await self.segment(tier, segment)
            records, findings = records + verified, findings + found
            scrubbed_bytes = done * self._segment_bytes
            await progress(scrubbed_bytes, len(work) * self._segment_bytes)
            if rate_bytes_per_s:
                await trio.sleep_until(started_s + scrubbed_bytes / rate_bytes_per_s)
        return records, len(work) * self._segment_bytes, findings

    async def _segments_on(self, tier: Tier) -> list[int]:
        return await ask(self._lane, lambda: self._tiering.segments_on(tier))

    async def background(self) -> None:
        """Until it is unmounted: the next segment of each tier, now and then; findings go to the
        log.

        Not before all is counted: what is found of a segment is compared with that. And not while
        memory is short: it takes some, for a segment and all its records, and would wait for it
        with the interpreter in its hands, and so would the lane.
        """
        with contextlib.suppress(UnmountedError):
            while True:
                await trio.sleep(BACKGROUND_INTERVAL_S)
                if self._store.recount is None and self._memory.can_spare_some():
                    try:
                        for tier in list(self._tiering.tiers.values()):
                            await self._next_of(tier)
                    except (OSError, MemoryError, RuntimeError) as error:
                        # No thread, or no memory for a segment, is to be had: page I/O needs none,
                        # and an end of this task would be one of the worker.
                        _log.warning("scrub: %s", error)

    async def _next_of(self, tier: Tier) -> None:
        """Verify the next one that is still there. Listed once a round: that takes the lane 3.5 ms
        for 16 384 segments."""
        waiting = self._to_verify.get(tier.number)
        if not waiting:
            waiting = array("I", reversed(await self._segments_on(tier)))
            self._to_verify[tier.number] = waiting
        for _ in range(min(len(waiting), _TRIES)):
            records, found = await self.segment(tier, waiting.pop())
            for finding in found:
                _log.error("scrub: %s byte %d: %s", tier.path, finding.byte_offset, finding.reason)
            if records or found:
                return
