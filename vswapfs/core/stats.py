"""The field table: every figure that vswapfs shows, with its type, unit and meaning.

Owns keys, types, units, help texts and the names of metrics; `stats`, `stats --json`, `status`,
`top`, recordings, `metrics` and docs/stats.md all read this table, so they cannot disagree. Keys
are dotted and JSON nests by the dots. Never computes a figure.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple


class Unit(StrEnum):
    PAGES = "pages"
    BYTES = "bytes"
    COUNT = "count"
    RATIO = "ratio"
    PERCENT = "pct"
    SECONDS = "s"
    MILLISECONDS = "ms"
    MICROSECONDS = "us"


class Kind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


_SUFFIXES: Mapping[Unit, tuple[str, float]] = {
    Unit.BYTES: ("bytes", 1),
    Unit.RATIO: ("ratio", 1),
    Unit.PERCENT: ("ratio", 0.01),
    Unit.SECONDS: ("seconds", 1),
    Unit.MILLISECONDS: ("seconds", 1e-3),
    Unit.MICROSECONDS: ("seconds", 1e-6),
}
"""What the name of a metric ends with, and what a value is multiplied with: metrics are in seconds,
bytes and ratios."""


class Field(NamedTuple):
    key: str
    unit: Unit
    help: str
    total: bool = False  # only ever grows, from 0 at the worker's start
    histogram: bool = False

    @property
    def kind(self) -> Kind:
        if self.histogram:
            return Kind.HISTOGRAM
        return Kind.COUNTER if self.total else Kind.GAUGE

    @property
    def metric(self) -> str:
        """The name of the metric family; samples of a counter have ``_total`` behind it."""
        words = self.key.removesuffix("_total").replace(".", "_").split("_")
        suffix, _ = _SUFFIXES.get(self.unit, ("", 1))
        if words[-1] in (self.unit.value, suffix):
            words.pop()
        return "_".join(("vswapfs", *words, suffix)).rstrip("_")

    @property
    def metric_scale(self) -> float:
        """What a value is multiplied with to be that of the metric."""
        return _SUFFIXES.get(self.unit, ("", 1))[1]


FIELDS: tuple[Field, ...] = (
    Field("uptime_s", Unit.SECONDS, "since the instance was started, whoever serves it now"),
    Field("area.size_bytes", Unit.BYTES, "size of the area"),
    Field("area.used_bytes", Unit.BYTES, "slots that hold a page"),
    Field("area.swap_used_bytes", Unit.BYTES, "what the kernel counts as used, if it swaps here"),
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
    Field("pool.in_hand_bytes", Unit.BYTES, "of these, taken ahead, without a page yet"),
    Field("pool.live_bytes", Unit.BYTES, "of these, records of pages (14-byte headers included)"),
    Field("pool.header_bytes", Unit.BYTES, "of the live bytes, record headers"),
    Field("pool.original_bytes", Unit.BYTES, "size of the pages in the pool before compression"),
    Field("pool.ratio", Unit.RATIO, "original over live bytes of the pool"),
    Field("pool.density_pct", Unit.PERCENT, "live bytes of the RAM that segments take"),
    Field("pool.segments", Unit.COUNT, "segments in use"),
    Field("pool.segments_free", Unit.COUNT, "segments that the limit still allows"),
    Field("pool.patterns", Unit.COUNT, "fill patterns in use, zero not counted"),
    Field("disk.live_bytes", Unit.BYTES, "records of pages on tiers"),
    Field("disk.writing_back", Unit.COUNT, "1 while the watermarks ask for writeback"),
    Field("disk.segments_moving", Unit.COUNT, "segments on their way to or from a tier"),
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
    Field("refusals.malformed", Unit.COUNT, "requests that lack bytes or are too long", total=True),
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
    Field("latency.load_p50_us", Unit.MICROSECONDS, "half of the loads took no longer"),
    Field("latency.load_p90_us", Unit.MICROSECONDS, "9 of 10 loads took no longer"),
    Field("latency.load_p99_us", Unit.MICROSECONDS, "99 of 100 loads took no longer"),
    Field("latency.store_p50_us", Unit.MICROSECONDS, "half of the stores took no longer"),
    Field("latency.store_p90_us", Unit.MICROSECONDS, "9 of 10 stores took no longer"),
    Field("latency.store_p99_us", Unit.MICROSECONDS, "99 of 100 stores took no longer"),
    Field("metadata_bytes", Unit.BYTES, "RAM beyond payload: tables (resident) and record headers"),
    Field("saved_bytes", Unit.BYTES, "pages held, less pool and metadata"),
    Field("budget.per_day_bytes", Unit.BYTES, "most that may be written to tiers in a day"),
    Field("budget.left_bytes", Unit.BYTES, "what is left of it"),
    Field("memory.total_bytes", Unit.BYTES, "RAM of the machine"),
    Field("memory.available_bytes", Unit.BYTES, "what programs can take without swapping"),
    Field("memory.reserve_bytes", Unit.BYTES, "what the pool limit leaves to the machine"),
    Field(
        "memory.pressure_pct", Unit.PERCENT, "time of the last 10 s in which a task waited for RAM"
    ),
    Field("succession.takeovers", Unit.COUNT, "times a worker was replaced"),
    Field(
        "succession.last_pause_ms", Unit.MILLISECONDS, "of the last one, until requests were served"
    ),
)

HISTOGRAMS: tuple[Field, ...] = (
    Field("latency.load", Unit.MICROSECONDS, "sampled read requests", histogram=True),
    Field("latency.store", Unit.MICROSECONDS, "sampled write requests", histogram=True),
)
"""From the time the lane has a request to its answer; counted in buckets (format/histogram.py)."""

TIER_FIELDS: tuple[Field, ...] = (
    Field("tier.size_bytes", Unit.BYTES, "what is used of the file or device"),
    Field("tier.used_bytes", Unit.BYTES, "slots in use"),
    Field("tier.live_bytes", Unit.BYTES, "records of pages in them"),
    Field("tier.written_bytes", Unit.BYTES, "bytes written", total=True),
    Field("tier.read_bytes", Unit.BYTES, "bytes read", total=True),
    Field("tier.trimmed_bytes", Unit.BYTES, "bytes trimmed", total=True),
    Field("tier.write_errors", Unit.COUNT, "writes that failed", total=True),
    Field("tier.read_errors", Unit.COUNT, "reads that failed", total=True),
)
"""Of each tier; behind the dot is the name of the attribute of message.TierStatus."""

UP = Field("up", Unit.COUNT, "1 if the daemon answers, 0 if not")
TIER_OK = Field("tier.ok", Unit.COUNT, "1 if a tier takes pages, 0 if it is failing or leaving")
PROTECTION_HELD = Field(
    "protection.held", Unit.COUNT, "1 if a protection of the host holds, 0 if it was refused"
)
CONDITIONS: tuple[Field, ...] = (UP, TIER_OK, PROTECTION_HELD)
"""What `status` tells in words, as figures: in metrics only."""

BY_KEY: Mapping[str, Field] = {field.key: field for field in FIELDS}


def nest(values: Mapping[str, float]) -> dict[str, Any]:
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
