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


def figures(store: Store) -> dict[str, int]:
    """The store's share of the field table."""
    geometry, segments, cleaner = store.geometry, store.segments, store.cleaner
    zero_pages = store.patterns.pages(ZERO)
    filled_pages = store.patterns.page_count
    used_pages = sum(store.cluster_pages)
    stored_pages = used_pages - filled_pages
    disk_pages = sum(segments.tier_live_pages[1:])
    disk_bytes = sum(segments.tier_live_bytes[1:])
    return {
        "pages.empty": geometry.page_count - used_pages,
        "pages.zero": zero_pages,
        "pages.same": filled_pages - zero_pages,
        "pages.pool": stored_pages - disk_pages,
        "pages.disk": disk_pages,
        "pages.incompressible": store.incompressible_pages,
        "pages.stored_total": store.stored_total,
        "pages.loaded_total": store.loaded_total,
        "pages.discarded_total": store.discarded_total,
        "pool.limit_bytes": segments.ram.limit * geometry.segment_bytes,
        "pool.used_bytes": store.used_bytes(),
        "pool.live_bytes": sum(segments.live_bytes) - disk_bytes,
        "pool.header_bytes": (stored_pages - disk_pages) * HEADER_BYTES,
        "pool.original_bytes": (stored_pages - disk_pages) * PAGE_BYTES,
        "pool.segments": segments.ram.used_count,
        "pool.segments_free": segments.free_count,
        "pool.patterns": store.patterns.distinct_count,
        "disk.live_bytes": disk_bytes,
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
