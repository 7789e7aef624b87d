"""The store's figures, by the keys of the field table in stats.py.

Owns how they follow from the store's state. Never changes anything.
"""

import sys

from vswapfs.core.samefill import ZERO
from vswapfs.core.store import Store
from vswapfs.format.record import HEADER_BYTES
from vswapfs.units import PAGE_BYTES


def derived_bytes(store: Store) -> int:
    """Memory of the derived arrays, which are not in the flat buffers."""
    segments = store.segments
    columns = (store.cluster_pages, segments.live_bytes, segments.live_pages, segments.sealed_at_s)
    return sum(map(sys.getsizeof, columns))


def figures(store: Store) -> dict[str, int | float]:
    """The store's share of the field table."""
    geometry, segments, cleaner = store.geometry, store.segments, store.cleaner
    zero_pages = store.patterns.pages(ZERO)
    filled_pages = store.patterns.page_count
    used_pages = sum(store.cluster_pages)
    stored_pages = used_pages - filled_pages
    disk_pages = sum(segments.tier_live_pages[1:])
    disk_bytes = sum(segments.tier_live_bytes[1:])
    pool_pages, pool_bytes = stored_pages - disk_pages, sum(segments.live_bytes) - disk_bytes
    used_bytes = store.used_bytes()
    found: dict[str, int | float] = {
        "area.size_bytes": geometry.page_count * PAGE_BYTES,
        "area.used_bytes": used_pages * PAGE_BYTES,
        "pages.empty": geometry.page_count - used_pages,
        "pages.zero": zero_pages,
        "pages.same": filled_pages - zero_pages,
        "pages.pool": pool_pages,
        "pages.disk": disk_pages,
        "pages.incompressible": store.incompressible_pages,
        "pages.stored_total": store.stored_total,
        "pages.loaded_total": store.loaded_total,
        "pages.discarded_total": store.discarded_total,
        "pool.limit_bytes": segments.ram.limit * geometry.segment_bytes,
        "pool.used_bytes": used_bytes,
        "pool.in_hand_bytes": segments.ram.warm_count * geometry.segment_bytes,
        "pool.live_bytes": pool_bytes,
        "pool.header_bytes": pool_pages * HEADER_BYTES,
        "pool.original_bytes": pool_pages * PAGE_BYTES,
        "pool.segments": segments.ram.used_count,
        "pool.segments_free": segments.free_count,
        "pool.patterns": store.patterns.distinct_count,
        "disk.live_bytes": disk_bytes,
        "disk.writing_back": int(store.homes.writing_back),
        "disk.segments_moving": len(store.homes.busy),
        "disk.segments_written_total": store.homes.written_segments_total,
        "disk.segments_fetched_total": store.homes.fetched_segments_total,
        "refusals.patterns_full": store.patterns_full_total,
        "checksum_errors": store.checksum_errors,
        "damaged_descriptors": store.damaged_descriptors,
        "cleaner.segments_total": cleaner.cleaned_total,
        "cleaner.moved_pages_total": cleaner.moved_pages_total,
        "cleaner.moved_bytes_total": cleaner.moved_bytes_total,
        "cleaner.recompressed_pages_total": cleaner.recompressed_pages_total,
        "cleaner.recompression_saved_bytes_total": cleaner.recompression_saved_bytes_total,
        "cleaner.damaged_segments_total": cleaner.damaged_total,
    }
    if pool_bytes:
        found["pool.ratio"] = round(pool_pages * PAGE_BYTES / pool_bytes, 2)
        found["pool.density_pct"] = round(100 * pool_bytes / used_bytes, 1)
    return found
