"""Looking into an instance: pages, figures and status, for commands and stats.json.

Owns how they are put together. Never changes anything; asks the lane, in pieces small enough that
page I/O hardly waits.
"""

import functools
import os
import time
from collections.abc import Callable
from typing import Final

import trio

from vswapfs import __version__
from vswapfs.core.describe import describe_range
from vswapfs.core.figures import derived_bytes, figures
from vswapfs.core.store import Store
from vswapfs.core.tables import copy_segments, copy_words, segments_of, used_clusters
from vswapfs.daemon import remains
from vswapfs.daemon.ask import ask
from vswapfs.daemon.control import Send
from vswapfs.daemon.succession import Succession
from vswapfs.daemon.tier_commands import TierCommands
from vswapfs.daemon.tiering import Tiering
from vswapfs.errors import UsageError
from vswapfs.format import message
from vswapfs.format.chunk import place_in_slot
from vswapfs.format.histogram import percentile_us
from vswapfs.format.message import Config
from vswapfs.format.swaps import SwapArea
from vswapfs.format.table import Area, AskTable, Segments, TierPlace
from vswapfs.format.tier import slot_offset_bytes
from vswapfs.fuse.lane import Lane
from vswapfs.host import hardening, memory, swap
from vswapfs.units import PAGE_BYTES, PAGE_SHIFT

DESC_PAGES_AT_ONCE: Final = 64
"""Pages described in one call of the lane: about 0.3 ms with their checksums verified."""

CLUSTERS_AT_ONCE: Final = 64
"""Clusters copied in one call of the lane, and sent as a line: about 0.1 ms, 350 KB."""
SEGMENTS_A_LINE: Final = 4096
PERCENTILES: Final = (50, 90, 99)


class Inspector:
    """``tables_bytes``: what the tables take of RAM. ``internal_errors``: outside of the lane."""

    def __init__(
        self,
        config: Config,
        store: Store,
        lane: Lane,
        tiering: Tiering,
        tier_commands: TierCommands,
        succession: Succession,
        tables_bytes: Callable[[], int],
        internal_errors: Callable[[], int],
    ) -> None:
        self._config = config
        self._size_bytes = config.size_bytes
        self._store = store
        self._lane = lane
        self._tiering = tiering
        self._tier_commands = tier_commands
        self._succession = succession
        self._tables_bytes = tables_bytes
        self._internal_errors = internal_errors

    async def describe(self, request: message.AskDescriptors, send: Send) -> None:
        start_bytes, end_bytes = request.start_bytes, request.end_bytes
        if not 0 <= start_bytes < end_bytes:
            raise UsageError(
                f"range {start_bytes}-{end_bytes}: the end is not behind the start",
                remedy="for example 0-1M",
            )
        if start_bytes >= self._size_bytes:
            raise UsageError(
                f"offset {start_bytes:#x} is beyond the area, which ends at {self._size_bytes:#x}",
                remedy=f"an offset below {self._size_bytes:#x}",
            )
        if request.state is not None and request.state not in message.STATES:
            raise UsageError(
                f"{request.state!r} is not a state", remedy=f"one of {', '.join(message.STATES)}"
            )
        stop = -(-min(end_bytes, self._size_bytes) // PAGE_BYTES)
        last_sent_s = trio.current_time()
        for start in range(start_bytes >> PAGE_SHIFT, stop, DESC_PAGES_AT_ONCE):
            work = functools.partial(
                self._describe_some, start, min(start + DESC_PAGES_AT_ONCE, stop), request.state
            )
            found = await ask(self._lane, work)
            if any(page.state == "disk" for page in found):
                await self._tier_commands.complete(found)
            # Also an empty list now and then, so that a long search is seen to be alive.
            if found or trio.current_time() > last_sent_s + 1:
                await send(message.Descriptors(found))
                last_sent_s = trio.current_time()
        await send(message.Done())

    def _describe_some(self, start: int, stop: int, state: str | None) -> list[message.Descriptor]:
        """The pages [start, stop), and where on which tier their records are. On the lane."""
        segments = self._store.segments
        found = describe_range(self._store, start, stop, state)
        for page in found:
            if page.state == "disk" and page.segment is not None:
                page.tier = self._tiering.tiers[segments.tier_of(page.segment)].path
                geometry, slot = self._store.geometry, segments.slot_of(page.segment)
                in_slot = place_in_slot(page.segment_offset or 0, geometry.chunk_bytes)
                page.tier_offset = slot_offset_bytes(slot, geometry.segment_bytes) + in_slot
        return found

    async def table(self, request: AskTable, send: Send) -> None:
        store, segments = self._store, self._store.segments

        def begin() -> Area:
            tiers = [
                TierPlace(number, tier.path, segments.tiers[number].slot_count)
                for number, tier in sorted(self._tiering.tiers.items())
            ]
            geometry = store.geometry
            return Area(
                geometry.page_count, geometry.segment_bytes, segments.ram.limit, tiers,
                geometry.chunk_bytes,
            )  # fmt: skip

        await send(await ask(self._lane, begin))
        copy = await ask(self._lane, functools.partial(copy_segments, store))
        found = segments_of(copy, int(time.monotonic()))
        for start in range(0, len(found), SEGMENTS_A_LINE):
            await send(Segments(found[start : start + SEGMENTS_A_LINE]))
        if request.words:
            used = await ask(self._lane, functools.partial(used_clusters, store))
            for start in range(0, len(used), CLUSTERS_AT_ONCE):
                clusters = used[start : start + CLUSTERS_AT_ONCE]
                await send(await ask(self._lane, functools.partial(copy_words, store, clusters)))
        await send(message.Done())

    async def stats(self) -> message.Stats:
        return await self._stats(self._area()[1])

    async def _stats(self, area: SwapArea | None) -> message.Stats:
        found = await ask(self._lane, self._collect)
        found.values |= self._succession.figures() | memory.figures()
        if area is not None:
            found.values["area.swap_used_bytes"] = area.used_bytes
        return found

    def _collect(self) -> message.Stats:
        """The figures that the lane has to be asked for."""
        self._store.finish_count()
        values = figures(self._store) | self._lane.stats()
        values["internal_errors"] += self._internal_errors()
        tables_bytes = self._tables_bytes() + derived_bytes(self._store)
        values["metadata_bytes"] = tables_bytes + values["pool.header_bytes"]
        values["saved_bytes"] = values["area.used_bytes"] - values["pool.used_bytes"] - tables_bytes
        told = self._tiering.answer()
        for key, value in (
            ("budget.per_day_bytes", told.write_budget_bytes_per_day),
            ("budget.left_bytes", told.write_budget_left_bytes),
        ):
            if value is not None:
                values[key] = value
        histograms = self._lane.histograms()
        for key, histogram in histograms.items():
            for percent in PERCENTILES:
                found_us = percentile_us(histogram.counts, percent)
                if found_us is not None:
                    values[f"{key}_p{percent}_us"] = round(found_us, 1)
        return message.Stats(values, histograms)

    def _area(self) -> tuple[str | None, SwapArea | None]:
        """The loop device, and the kernel's line about it, if it swaps there."""
        devices = remains.find(self._config.name).devices
        return (devices[0], swap.active_areas().get(devices[0])) if devices else (None, None)

    async def sample(self, outcomes: list[hardening.Outcome]) -> message.Sample:
        device, area = self._area()
        stats = await self._stats(area)
        values = stats.values
        status = message.Status(
            name=self._config.name,
            pid=os.getpid(),
            version=__version__,
            uptime_s=values["uptime_s"],
            mountpoint=self._config.mountpoint,
            size_bytes=self._size_bytes,
            used_bytes=int(values["area.used_bytes"]),
            loop_device=device,
            swap_used_bytes=area.used_bytes if area else None,
            swap_priority=area.priority if area else None,
            pages={state: int(values[f"pages.{state}"]) for state in message.STATES},
            ratio=values.get("pool.ratio"),
            saved_bytes=int(values["saved_bytes"]),
            pool_limit_bytes=int(values["pool.limit_bytes"]),
            pool_used_bytes=int(values["pool.used_bytes"]),
            refused_writes=int(values["refusals.pool_full"]),
            same_filled=self._config.same_filled,
            hardening=[message.Outcome(*outcome) for outcome in outcomes],
            tiers=await ask(self._lane, self._tiering.status),
            **self._succession.status(),
        )
        return message.Sample(time.time(), status, stats)

    async def status(self, outcomes: list[hardening.Outcome]) -> message.Status:
        return (await self.sample(outcomes)).status
