"""From what was asked for to a geometry; every rule on sizes is here.

Owns the defaults that depend on the machine. Raises UsageError: nothing was started yet.
"""

from typing import Final

from vswapfs.core.buffers import HEAD_COUNT, RESERVE_SEGMENTS, Geometry
from vswapfs.core.descriptor import SEGMENT_MAX_BYTES
from vswapfs.errors import UsageError
from vswapfs.format.message import Config
from vswapfs.format.record import PAGE_NONE
from vswapfs.host import memory
from vswapfs.units import PAGE_BYTES, format_size

SIZE_MIN_BYTES: Final = 1 << 20
SEGMENT_BYTES: Final = SEGMENT_MAX_BYTES
SEGMENT_CAPACITY: Final = 1 << 22
"""Segments that pool and tiers may have together: 4 TiB of them. The table is sparse."""
POOL_MIN_SEGMENTS: Final = HEAD_COUNT + RESERVE_SEGMENTS + 1


def make_geometry(config: Config) -> Geometry:
    """Check the sizes and the watermarks, and return the store's geometry."""
    check_watermarks(config.writeback_start_pct, config.writeback_stop_pct)
    size_bytes = config.size_bytes
    if size_bytes % PAGE_BYTES:
        down = size_bytes // PAGE_BYTES * PAGE_BYTES
        raise UsageError(
            f"--size {size_bytes}: must be a multiple of the page size, {PAGE_BYTES} bytes",
            remedy=f"--size {down or PAGE_BYTES}",
        )
    if size_bytes < SIZE_MIN_BYTES:
        raise UsageError(
            f"--size {size_bytes} is too small: at least {format_size(SIZE_MIN_BYTES)}",
            remedy="for example --size 2G",
        )
    if size_bytes // PAGE_BYTES >= PAGE_NONE:
        raise UsageError(
            f"--size {format_size(size_bytes)} is too large: record headers hold 32-bit page "
            f"numbers, so an area has less than {format_size(PAGE_NONE * PAGE_BYTES)}",
            remedy="use several instances",
        )
    limit_bytes = config.pool_limit_bytes
    if limit_bytes == "auto":
        # The mapping is sparse: it costs nothing to be able to grow.
        limit_bytes = memory.largest_pool_bytes()
    if limit_bytes is None:
        limit_bytes = _default_limit_bytes(size_bytes)
    slot_count = check_pool_limit(limit_bytes)
    return Geometry(size_bytes // PAGE_BYTES, slot_count, SEGMENT_BYTES, SEGMENT_CAPACITY)


def _default_limit_bytes(size_bytes: int) -> int:
    return max(min(size_bytes, memory.default_pool_bytes()), POOL_MIN_SEGMENTS * SEGMENT_BYTES)


def auto_limit_least(geometry: Geometry) -> int:
    """Segments: where the automatic limit begins, and what it does not fall below. While the whole
    machine swaps, nothing is available, and a pool that shrinks then would only add to that."""
    limit_bytes = _default_limit_bytes(geometry.page_count * PAGE_BYTES)
    return min(geometry.slot_count, limit_bytes // SEGMENT_BYTES)


def check_pool_limit(limit_bytes: int) -> int:
    """The segments of a pool limit. Raises UsageError if it is too small, or for this machine too
    large."""
    slot_count = limit_bytes // SEGMENT_BYTES
    if slot_count < POOL_MIN_SEGMENTS:
        least = format_size(POOL_MIN_SEGMENTS * SEGMENT_BYTES)
        raise UsageError(
            f"--pool-limit {limit_bytes} is too small: at least {least}, one segment for each log "
            f"head, the cleaner's reserve and one to spare",
            remedy=f"--pool-limit {least} or more",
        )
    largest_bytes = memory.largest_pool_bytes()
    if limit_bytes > largest_bytes:
        raise UsageError(
            f"--pool-limit {format_size(limit_bytes)} is too large: this machine has "
            f"{format_size(memory.total_bytes())} of memory, of which an eighth (at least "
            f"{format_size(memory.RESERVE_MIN_BYTES)}) is left to it",
            remedy=f"--pool-limit {largest_bytes >> 20}M or less",
        )
    return slot_count


def check_watermarks(start_pct: int, stop_pct: int) -> None:
    """Raises UsageError."""
    if start_pct <= stop_pct:
        raise UsageError(
            f"writeback cannot start at {start_pct} % of the pool limit and stop at {stop_pct} %: "
            "it has to stop at less than where it starts",
            remedy="for example writeback-start 90 and writeback-stop 80",
        )
