"""Reads records from tiers for the lane: neighbours in one read, each verified before it leaves.

Owns the merging of reads and its scratch memory. Blocks, so it runs on I/O threads; never touches
the store. Always holds: what it returns for a record is the verified page, or the reason why not.
What can be read without blocking is not read here but in direct_reads.py.
"""

import logging
from collections.abc import Mapping
from typing import Final, NamedTuple

from vswapfs.backing.scratch import Scratch
from vswapfs.core.homes import Fetched, RecordRead
from vswapfs.core.verify import lost, verify
from vswapfs.daemon.cipher import Cipher, DecryptError
from vswapfs.daemon.io_threads import TIER_IO_THREADS
from vswapfs.daemon.tier import Tier
from vswapfs.errors import LostPageError
from vswapfs.format.chunk import (
    BLOCK_BYTES,
    ENCRYPTED_CHUNK_BYTES,
    PLAIN_CHUNK_BYTES,
    blocks_bytes,
    place_in_slot,
)
from vswapfs.format.tier import slot_offset_bytes

MERGE_GAP_BYTES: Final = 32 << 10
"""Records nearer to each other than this are read in one go: a random read of 16 KiB takes 47 us
where one of 4 KiB takes 36 (measured)."""

RUN_MAX_BYTES: Final = 320 << 10
"""Of a segment. The kernel asks for 64 pages at most (host/loop.py), whose records are 257 KiB at
most; a run is read into memory that is kept for each thread."""
_RUN_BUFFER_BYTES: Final = RUN_MAX_BYTES + 4 * BLOCK_BYTES
"""Whole blocks, of which those of an encrypted tier hold a little less."""

_log = logging.getLogger(__name__)


class Run(NamedTuple):
    """Records of one slot that are near enough to be read together: blocks of the tier."""

    plans: list[RecordRead]
    offset: int
    length: int
    first_block: int
    """Of the slot."""
    chunk_bytes: int
    """What a block holds of the segment."""

    def place_of(self, plan: RecordRead) -> int:
        """Where a record begins, from ``offset`` on."""
        place = place_in_slot(plan.offset_bytes, self.chunk_bytes)
        return place - self.first_block * BLOCK_BYTES


def runs_of(plans: list[RecordRead], segment_bytes: int, chunk_bytes: int) -> list[Run]:
    """What to read for these records, in the order in which they lie there."""
    found: list[list[RecordRead]] = []
    for plan in sorted(plans, key=lambda plan: (plan.tier, plan.slot, plan.offset_bytes)):
        last = found[-1][-1] if found else None
        if (
            last
            and (last.tier, last.slot) == (plan.tier, plan.slot)
            and plan.offset_bytes - last.offset_bytes - last.length_bytes <= MERGE_GAP_BYTES
            and plan.offset_bytes + plan.length_bytes - found[-1][0].offset_bytes <= RUN_MAX_BYTES
        ):
            found[-1].append(plan)
        else:
            found.append([plan])
    return [_run(plans, segment_bytes, chunk_bytes) for plans in found]


def _run(plans: list[RecordRead], segment_bytes: int, chunk_bytes: int) -> Run:
    first = plans[0].offset_bytes // chunk_bytes
    start = first * BLOCK_BYTES
    length = blocks_bytes(plans[-1].offset_bytes + plans[-1].length_bytes, chunk_bytes) - start
    offset = slot_offset_bytes(plans[0].slot, segment_bytes) + start
    return Run(plans, offset, length, first, chunk_bytes)


def verify_run(
    run: Run, memory: memoryview, tier: Tier, cipher: Cipher | None, fetched: Fetched
) -> None:
    """Add the pages of what was read."""
    chunks: dict[int, bytes] = {}
    for plan in run.plans:
        at = run.place_of(plan)
        try:
            if cipher is None:
                found = memory[at : at + plan.length_bytes]
            else:
                found = _decrypt(run, plan, memory, cipher, chunks)
            fetched[plan.version] = verify(plan.page, plan.word, plan.sequence, found)
        except LostPageError as error:
            error.message += f"; tier {tier.path} at byte {run.offset + at}"
            fetched[plan.version] = error


def chunk_bytes_of(cipher: Cipher | None) -> int:
    """What a block of a tier holds of a segment."""
    return PLAIN_CHUNK_BYTES if cipher is None else ENCRYPTED_CHUNK_BYTES


def _decrypt(
    run: Run, plan: RecordRead, memory: memoryview, cipher: Cipher, chunks: dict[int, bytes]
) -> memoryview:
    """The record's bytes. ``chunks``: those of the run that were decrypted, by number; neighbours
    share them."""
    first, at = divmod(plan.offset_bytes, ENCRYPTED_CHUNK_BYTES)
    stop = (plan.offset_bytes + plan.length_bytes - 1) // ENCRYPTED_CHUNK_BYTES + 1
    for number in range(first, stop):
        if number not in chunks:
            start = (number - run.first_block) * BLOCK_BYTES
            block = memory[start : start + BLOCK_BYTES]
            try:
                chunks[number] = cipher.decrypt_chunk(plan.write_number, number, block)
            except DecryptError:
                reason = f"block {number} of its slot does not decrypt: it is not what was written"
                raise lost(plan.page, plan.word, reason) from None
    found = b"".join([chunks[number] for number in range(first, stop)])
    return memoryview(found)[at : at + plan.length_bytes]


class RecordReader:
    """Over the tiers by number, which the lane adds to and removes from."""

    def __init__(
        self, tiers: Mapping[int, Tier], segment_bytes: int, cipher: Cipher | None = None
    ) -> None:
        self._tiers = tiers
        self._segment_bytes = segment_bytes
        self._cipher = cipher
        self._chunk_bytes = chunk_bytes_of(cipher)
        self._scratch = Scratch(_RUN_BUFFER_BYTES)

    def prepare(self) -> None:
        """There is a tier."""
        self._scratch.keep(TIER_IO_THREADS)

    def read(self, plans: list[RecordRead]) -> Fetched:
        """On an I/O thread: neighbours in one read, each record verified."""
        fetched: Fetched = {}
        with self._scratch.buffer() as memory:
            for run in runs_of(plans, self._segment_bytes, self._chunk_bytes):
                self._read_run(run, memory, fetched)
        return fetched

    def _read_run(self, run: Run, memory: memoryview, fetched: Fetched) -> None:
        tier = self._tiers[run.plans[0].tier]
        tier.read_bytes += run.length
        try:
            tier.backing.read_into(run.offset, memory[: run.length])
        except OSError as error:
            tier.read_errors += 1
            if len(run.plans) > 1:
                # Perhaps only one of them lies on the bad block.
                for plan in run.plans:
                    run = _run([plan], self._segment_bytes, self._chunk_bytes)
                    self._read_run(run, memory, fetched)
            else:
                (plan,) = run.plans
                fetched[plan.version] = LostPageError(
                    plan.page,
                    f"page {plan.page} cannot be read from {tier.path} at byte "
                    f"{run.offset + run.place_of(plan)}: {error}",
                )
            return
        verify_run(run, memory, tier, self._cipher, fetched)


def all_lost(plans: list[RecordRead], error: BaseException) -> Fetched:
    _log.error("reading records failed: %r", error)
    return {plan.version: LostPageError(plan.page, f"page {plan.page}: {error}") for plan in plans}
