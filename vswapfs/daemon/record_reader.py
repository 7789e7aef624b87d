"""Reads records from tiers for the lane: neighbours in one read, each verified before it leaves.

Owns the merging of reads and its scratch memory. Runs on I/O threads; never touches the store.
Always holds: what it returns for a record is the verified page, or the reason why not.
"""

import logging
from collections.abc import Mapping
from typing import Final

from vswapfs.core.homes import Fetched, RecordRead
from vswapfs.core.verify import verify
from vswapfs.daemon.medium import scratch
from vswapfs.daemon.tier import Tier
from vswapfs.errors import LostPageError
from vswapfs.format.tier import slot_offset_bytes
from vswapfs.units import PAGE_BYTES

MERGE_GAP_BYTES: Final = 32 << 10
"""Records nearer to each other than this are read in one go: a random read of 16 KiB takes 47 us
where one of 4 KiB takes 36 (measured)."""

_log = logging.getLogger(__name__)


class RecordReader:
    """Over the tiers by number, which the lane adds to and removes from."""

    def __init__(self, tiers: Mapping[int, Tier], segment_bytes: int) -> None:
        self._tiers = tiers
        self._segment_bytes = segment_bytes
        self._scratch = [scratch(2 * segment_bytes)]

    def read(self, plans: list[RecordRead]) -> Fetched:
        """On an I/O thread: neighbours in one read, each record verified."""
        fetched: Fetched = {}
        plans = sorted(plans, key=lambda plan: (plan.tier, plan.slot, plan.offset_bytes))
        memory = self._scratch.pop() if self._scratch else scratch(2 * self._segment_bytes)
        try:
            for run in _runs(plans):
                self._read_run(run, memory, fetched)
        finally:
            self._scratch.append(memory)
        return fetched

    def _read_run(self, run: list[RecordRead], memory: memoryview, fetched: Fetched) -> None:
        tier = self._tiers[run[0].tier]
        start = run[0].offset_bytes // PAGE_BYTES * PAGE_BYTES
        end = run[-1].offset_bytes + run[-1].length_bytes
        length = -(-(end - start) // PAGE_BYTES) * PAGE_BYTES
        base = slot_offset_bytes(run[0].slot, self._segment_bytes)
        tier.read_bytes += length
        try:
            tier.backing.read_into(base + start, memory[:length])
        except OSError as error:
            tier.read_errors += 1
            if len(run) > 1:
                # Perhaps only one of them lies on the bad block.
                for plan in run:
                    self._read_run([plan], memory, fetched)
            else:
                fetched[run[0].version] = LostPageError(
                    run[0].page,
                    f"page {run[0].page} cannot be read from {tier.path} at byte "
                    f"{base + run[0].offset_bytes}: {error}",
                )
            return
        for plan in run:
            at = plan.offset_bytes - start
            try:
                fetched[plan.version] = verify(
                    plan.page, plan.word, plan.sequence, memory[at : at + plan.length_bytes]
                )
            except LostPageError as lost:
                lost.message += f"; tier {tier.path} at byte {base + plan.offset_bytes}"
                fetched[plan.version] = lost


def _runs(plans: list[RecordRead]) -> list[list[RecordRead]]:
    """Records of one slot that are near enough to be read together."""
    runs: list[list[RecordRead]] = []
    for plan in plans:
        last = runs[-1][-1] if runs else None
        if (
            last
            and (last.tier, last.slot) == (plan.tier, plan.slot)
            and plan.offset_bytes - last.offset_bytes - last.length_bytes <= MERGE_GAP_BYTES
        ):
            runs[-1].append(plan)
        else:
            runs.append([plan])
    return runs


def all_lost(plans: list[RecordRead], error: BaseException) -> Fetched:
    _log.error("reading records failed: %r", error)
    return {plan.version: LostPageError(plan.page, f"page {plan.page}: {error}") for plan in plans}
