"""The field table: every figure that vswapfs shows, with its unit and meaning.

Owns names, units and help texts; `stats`, `stats --json` and docs/stats.md all read this table, so
they cannot disagree. Keys are dotted and JSON nests by the dots. Never computes a figure.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple


class Unit(StrEnum):
    PAGES = "pages"
    BYTES = "bytes"
    COUNT = "count"
    MICROSECONDS = "us"


class Field(NamedTuple):
    key: str
    unit: Unit
    help: str
    total: bool = False  # only ever grows, from 0 at the daemon's start


FIELDS: tuple[Field, ...] = (
    Field("pages.empty", Unit.PAGES, "slots that hold nothing"),
    Field("pages.zero", Unit.PAGES, "pages of zeros, kept as a marker"),
    Field("pages.same", Unit.PAGES, "pages that repeat another 8-byte pattern, kept as a marker"),
    Field("pages.pool", Unit.PAGES, "pages in RAM, compressed or raw"),
    Field("pages.disk", Unit.PAGES, "pages on a disk tier"),
    Field("pages.incompressible", Unit.PAGES, "pages kept raw because LZ4 does not shorten them"),
    Field("pages.stored_total", Unit.PAGES, "pages stored", total=True),
    Field("pages.loaded_total", Unit.PAGES, "pages loaded, empty ones included", total=True),
    Field("pages.discarded_total", Unit.PAGES, "pages discarded that held something", total=True),
    Field("pool.limit_bytes", Unit.BYTES, "most RAM that segments may take"),
    Field("pool.used_bytes", Unit.BYTES, "RAM that segments take: resident, as smaps shows it"),
    Field("pool.live_bytes", Unit.BYTES, "of these, records of pages (14-byte headers included)"),
    Field("pool.header_bytes", Unit.BYTES, "of the live bytes, record headers"),
    Field("pool.original_bytes", Unit.BYTES, "size of the pages in the pool before compression"),
    Field("pool.segments", Unit.COUNT, "segments in use"),
    Field("pool.segments_free", Unit.COUNT, "segments that the limit still allows"),
    Field("pool.patterns", Unit.COUNT, "fill patterns in use, zero not counted"),
    Field("disk.live_bytes", Unit.BYTES, "records of pages on tiers"),
    Field("disk.segments_written_total", Unit.COUNT, "segments written to a tier", total=True),
    Field("disk.segments_fetched_total", Unit.COUNT, "segments read back into RAM", total=True),
    Field("requests.read", Unit.COUNT, "read requests answered from the store", total=True),
    Field("requests.write", Unit.COUNT, "write requests answered by the store", total=True),
    Field("requests.discard", Unit.COUNT, "discard requests (FALLOCATE)", total=True),
    Field("requests.parked", Unit.COUNT, "writes that waited for room in the pool", total=True),
    Field("requests.forwarded", Unit.COUNT, "requests handed to pyfuse3", total=True),
    Field("refusals.pool_full", Unit.COUNT, "stores refused with ENOSPC: pool limit", total=True),
    Field("refusals.out_of_range", Unit.COUNT, "writes beyond the end of the area", total=True),
    Field("refusals.fallocate_mode", Unit.COUNT, "FALLOCATE modes not supported", total=True),
    Field("refusals.forward_busy", Unit.COUNT, "requests pyfuse3 did not take", total=True),
    Field(
        "refusals.patterns_full", Unit.PAGES, "same-filled, but compressed: table full", total=True
    ),
    Field("checksum_errors", Unit.COUNT, "loads refused: record not verifiable", total=True),
    Field("damaged_descriptors", Unit.COUNT, "replaced without knowing what died", total=True),
    Field("internal_errors", Unit.COUNT, "requests failed by a defect (see the log)", total=True),
    Field("cleaner.segments_total", Unit.COUNT, "segments cleaned", total=True),
    Field("cleaner.moved_pages_total", Unit.PAGES, "live pages the cleaner copied", total=True),
    Field("cleaner.moved_bytes_total", Unit.BYTES, "bytes the cleaner copied", total=True),
    Field("cleaner.recompressed_pages_total", Unit.PAGES, "of these, compressed again", total=True),
    Field(
        "cleaner.recompression_saved_bytes_total", Unit.BYTES, "what that made shorter", total=True
    ),
    Field(
        "cleaner.damaged_segments_total",
        Unit.COUNT,
        "segments rescued from a damaged header",
        total=True,
    ),
    Field("lane.window_us", Unit.MICROSECONDS, "how long the lane polls before it sleeps"),
    Field("lane.polls_hit_total", Unit.COUNT, "requests that arrived while polling", total=True),
    Field("lane.sleeps_total", Unit.COUNT, "times the lane went to sleep", total=True),
    Field("metadata_bytes", Unit.BYTES, "RAM beyond payload: tables (resident) and record headers"),
)

BY_KEY: Mapping[str, Field] = {field.key: field for field in FIELDS}


def nest(values: Mapping[str, int]) -> dict[str, Any]:
    """Turn flat dotted keys into nested dictionaries, in the order of the field table."""
    nested: dict[str, Any] = {}
    for field in FIELDS:
        if field.key in values:
            *path, last = field.key.split(".")
            level = nested
            for name in path:
                level = level.setdefault(name, {})
            level[last] = values[field.key]
    return nested
