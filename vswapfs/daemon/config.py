"""From what was asked for to a geometry; every rule on sizes is here.

Owns the defaults that depend on the machine. Raises UsageError: nothing was started yet.
"""

from typing import Final

from vswapfs.core.buffers import HEAD_COUNT, RESERVE_SEGMENTS, Geometry
from vswapfs.core.descriptor import SEGMENT_MAX_BYTES
from vswapfs.core.segment import TIER_MAX_COUNT
from vswapfs.errors import UsageError
from vswapfs.format.chunk import ENCRYPTED_CHUNK_BYTES, PLAIN_CHUNK_BYTES
from vswapfs.format.message import Config
from vswapfs.format.record import PAGE_NONE
from vswapfs.host import memory
from vswapfs.units import PAGE_BYTES, format_size

SIZE_MIN_BYTES: Final = 1 << 20
SEGMENT_BYTES: Final = SEGMENT_MAX_BYTES
SEGMENT_CAPACITY: Final = 1 << 22
"""Segments that pool and tiers may have together: 4 TiB of them. The table is sparse."""
WRITE_BUDGET_MAX_BYTES: Final = 1 << 50
"""Of a day. Superblocks hold 64 bits of what was spent; no medium writes that much."""
POOL_MIN_SEGMENTS: Final = HEAD_COUNT + RESERVE_SEGMENTS + 1


def make_geometry(config: Config) -> Geometry:
    """Check the sizes, the watermarks and the budget, and return the store's geometry."""
    check_watermarks(config.writeback_start_pct, config.writeback_stop_pct)
    if config.write_budget_bytes_per_day is not None:
        check_write_budget(config.write_budget_bytes_per_day)
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
    _check_tiers(config, slot_count)
    return geometry_of(config, slot_count)


def geometry_of(config: Config, slot_count: int) -> Geometry:
    """Of sizes that were checked."""
    return Geometry(
        config.size_bytes // PAGE_BYTES, slot_count, SEGMENT_BYTES, SEGMENT_CAPACITY,
        ENCRYPTED_CHUNK_BYTES if config.encrypt else PLAIN_CHUNK_BYTES,
    )  # fmt: skip


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
            f"a pool limit of {limit_bytes} bytes is too small: at least {least}, one segment for "
            "each log head, the cleaner's reserve and one to spare",
            remedy=f"a pool limit of {least} or more",
        )
    largest_bytes = memory.largest_pool_bytes()
    if limit_bytes > largest_bytes:
        raise UsageError(
            f"a pool limit of {format_size(limit_bytes)} is too large: this machine has "
            f"{format_size(memory.total_bytes())} of memory, of which an eighth (at least "
            f"{format_size(memory.RESERVE_MIN_BYTES)}) is left to it",
            remedy=f"a pool limit of {largest_bytes >> 20}M or less",
        )
    return slot_count


def _check_tiers(config: Config, slot_count: int) -> None:
    if len(config.tiers) > TIER_MAX_COUNT:
        raise UsageError(
            f"{len(config.tiers)} tiers are too many: at most {TIER_MAX_COUNT}",
            remedy="use fewer and larger ones",
        )
    tiers_bytes = sum(tier.size_bytes for tier in config.tiers)
    room_bytes = (SEGMENT_CAPACITY - slot_count) * SEGMENT_BYTES
    if tiers_bytes > room_bytes:
        raise UsageError(
            f"tiers of {format_size(tiers_bytes)} are too large: beside the pool the segment "
            f"table has room for {format_size(room_bytes)}",
            remedy="use smaller tiers, or several instances",
        )


def check_watermarks(start_pct: int, stop_pct: int) -> None:
    """Raises UsageError."""
    if start_pct <= stop_pct:
        raise UsageError(
            f"writeback cannot start at {start_pct} % of the pool limit and stop at {stop_pct} %: "
            "it has to stop at less than where it starts",
            remedy="for example writeback-start 90 and writeback-stop 80",
        )


def check_write_budget(bytes_per_day: int) -> None:
    """Raises UsageError."""
    if not 0 < bytes_per_day <= WRITE_BUDGET_MAX_BYTES:
        raise UsageError(
            f"a write budget of {bytes_per_day} bytes a day: more than 0, and at most "
            f"{WRITE_BUDGET_MAX_BYTES}",
            remedy="for example 20G/day, or none",
        )
