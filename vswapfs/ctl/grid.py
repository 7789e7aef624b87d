"""Pictures of the tables, before anybody draws them: which cells there are, and of what kind.

Owns the kinds, their symbols and colours, and how a cell stands for a run of slots: it has the kind
that most of its slots have, empty ones left out of account unless all are. Never draws. The counts
beside the kinds are exact, of slots and not of cells.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate, repeat
from typing import Final, NamedTuple

from vswapfs.core.descriptor import (
    CLUSTER_PAGES,
    CLUSTER_SHIFT,
    DESCRIPTOR_BYTES,
    OFFSET_MASK,
    OFFSET_SHIFT,
    SEGMENT_SHIFT,
)
from vswapfs.ctl import columns
from vswapfs.ctl.table import DISK, IS_STORED, Table, segment_numbers
from vswapfs.format.chunk import blocks_bytes, pieces_in_slot
from vswapfs.format.record import RECORD_MAX_BYTES
from vswapfs.format.table import Segment, TierPlace
from vswapfs.format.tier import slot_offset_bytes
from vswapfs.units import PAGE_BYTES, format_size

RAM: Final = 0


class Kind(NamedTuple):
    symbol: str
    colour: str
    """As #rrggbb."""
    name: str


class Grid(NamedTuple):
    """One picture. ``kinds[0]`` is nothing at all."""

    title: str
    unit: str
    """What is counted: slots, segments or blocks."""
    unit_bytes: int
    first_bytes: int
    """Where the first cell begins."""
    cell_units: int
    """Units to a cell; the last may have fewer."""
    cells: bytes
    """The kind of each cell."""
    kinds: Sequence[Kind]
    counts: list[int]
    """Units of each kind."""


STATES: Final[Sequence[Kind]] = (
    Kind(".", "#eeeeee", "empty"),
    Kind("z", "#9aa5b1", "zero"),
    Kind("s", "#c9a227", "same-filled"),
    Kind("p", "#2e86c1", "pool"),
    Kind("d", "#7d3c98", "disk"),
    Kind("!", "#c0392b", "damaged"),
)
_NO_RECORD: Final = (Kind(".", "#eeeeee", "empty"), Kind("-", "#9aa5b1", "marker: zero or same"))
_RATIO_LIMITS: Final = (1.0, 1.5, 2.0, 3.0, 5.0)
RATIOS: Final[Sequence[Kind]] = (
    *_NO_RECORD,
    Kind("r", "#c0392b", "raw: does not compress"),
    Kind("1", "#e67e22", "below 1.5"),
    Kind("2", "#f4d03f", "1.5 to 2"),
    Kind("3", "#82c46c", "2 to 3"),
    Kind("4", "#27ae60", "3 to 5"),
    Kind("5", "#145a32", "5 and more"),
)
_AGE_LIMITS_S: Final = (60, 600, 3600, 86400)
_AGES: Final = (
    Kind("0", "#c6dbef", "less than a minute"),
    Kind("1", "#9ecae1", "less than 10 minutes"),
    Kind("2", "#6baed6", "less than an hour"),
    Kind("3", "#3182bd", "less than a day"),
    Kind("4", "#08519c", "older"),
)
PAGE_AGES: Final[Sequence[Kind]] = (*_NO_RECORD, *_AGES)
_UTILIZATION_LIMITS: Final = (0.25, 0.5, 0.75, 0.9)
UTILIZATIONS: Final = (
    Kind(".", "#eeeeee", "free"),
    Kind("o", "#9aa5b1", "open: being filled"),
    Kind("1", "#c0392b", "below 25 % live"),
    Kind("2", "#e67e22", "25 to 50 %"),
    Kind("3", "#f4d03f", "50 to 75 %"),
    Kind("4", "#82c46c", "75 to 90 %"),
    Kind("5", "#1e8449", "90 % and more"),
)
SEGMENT_AGES: Final = (Kind(".", "#eeeeee", "free"), Kind("o", "#9aa5b1", "open"), *_AGES)
BLOCKS: Final = (
    Kind(".", "#eeeeee", "free"),
    Kind("S", "#34495e", "superblock"),
    Kind("x", "#c0392b", "dead: no page needs it"),
    Kind("1", "#e67e22", "below half live"),
    Kind("2", "#82c46c", "half live and more"),
    Kind("3", "#1e8449", "all live"),
)


def pages(found: Table, by: str, cells_max: int) -> list[Grid]:
    """The area, slot by slot, by ``state``, ``ratio`` or ``age``."""
    match by:
        case "ratio":
            kinds, classes = RATIOS, _by_ratio(found)
        case "age":
            kinds, classes = PAGE_AGES, _by_age(found)
        case _:
            kinds, classes = STATES, bytes(found.states)
    slots = classes[: found.page_count]
    return [_grid(f"pages by {by}", "slots", PAGE_BYTES, 0, slots, kinds, cells_max)]


def _without_record(found: Table) -> bytearray:
    """1 for markers, which have no record; 0 for all else."""
    return found.states.translate(bytes([0, 1, 1, *[0] * 253]))


def _by_ratio(found: Table) -> bytes:
    marker = _without_record(found)
    by_length = bytes(_ratio_kind(length) for length in range(RECORD_MAX_BYTES + 1))
    with_record = bytes(map(by_length.__getitem__, found.stored_bytes))
    return columns.any_of((with_record, marker))


def _ratio_kind(length_bytes: int) -> int:
    """Of a record with its header. A raw one is a little longer than a page."""
    return 2 + bisect_right(_RATIO_LIMITS, PAGE_BYTES / length_bytes) if length_bytes else 0


def _by_age(found: Table) -> bytes:
    kinds = _without_record(found)
    by_segment = {
        number: 2 + bisect_right(_AGE_LIMITS_S, segment.age_s)
        for number, segment in found.segments.items()
    }
    for cluster, words in found.words.items():
        first, data = cluster << CLUSTER_SHIFT, words.tobytes()
        old = kinds[first : first + CLUSTER_PAGES]
        # A segment that was opened meanwhile is not among them: it is young.
        ages = bytes(map(by_segment.get, segment_numbers(data), repeat(2)))
        is_stored = data[::DESCRIPTOR_BYTES].translate(IS_STORED)
        kinds[first : first + CLUSTER_PAGES] = columns.any_of((old, columns.both(ages, is_stored)))
    return bytes(kinds)


def segments(found: Table, by: str, cells_max: int) -> list[Grid]:
    """RAM and each tier, segment by segment, by ``utilization`` or ``age``."""
    kinds = UTILIZATIONS if by == "utilization" else SEGMENT_AGES
    area = found.area
    grids = []
    for tier in (TierPlace(RAM, "RAM", area.ram_slot_count), *area.tiers):
        here = found.segments_on(tier.number).values()
        # A limit that was lowered may be below what is in use.
        slots = bytearray(max([tier.slot_count, *(segment.slot + 1 for segment in here)]))
        for segment in here:
            slots[segment.slot] = _segment_kind(segment, by, area.segment_bytes)
        first_bytes = 0 if tier.number == RAM else area.segment_bytes
        title = f"{tier.path}: segments by {by}"
        cells = cells_max // (1 + len(area.tiers))
        grids.append(
            _grid(title, "segments", area.segment_bytes, first_bytes, bytes(slots), kinds, cells)
        )
    return grids


def _segment_kind(segment: Segment, by: str, segment_bytes: int) -> int:
    if segment.is_open:
        return 1
    if by == "age":
        return 2 + bisect_right(_AGE_LIMITS_S, segment.age_s)
    return 2 + bisect_right(_UTILIZATION_LIMITS, segment.live_bytes / segment_bytes)


def tiers(found: Table, cells_max: int) -> list[Grid]:
    """Each tier as it lies on its medium, in blocks of a page."""
    area = found.area
    grids = []
    for tier in area.tiers:
        here = found.segments_on(tier.number)
        kinds, live_bytes = _blocks(found, tier, here)
        fill_bytes = sum(segment.fill_bytes for segment in here.values())
        title = (
            f"{tier.path}: {format_size(live_bytes)} live, "
            f"{format_size(fill_bytes - live_bytes)} dead, "
            f"{tier.slot_count - len(here)} of {tier.slot_count} slots free"
        )
        cells = cells_max // len(area.tiers)
        grids.append(_grid(title, "blocks", PAGE_BYTES, 0, kinds, BLOCKS, cells))
    return grids


def _blocks(found: Table, tier: TierPlace, here: dict[int, Segment]) -> tuple[bytes, int]:
    """The kind of each block of a tier, and its live bytes."""
    segment_bytes = found.area.segment_bytes
    blocks = (tier.slot_count + 1) * segment_bytes // PAGE_BYTES
    live = [0] * blocks
    total = 0
    for start, stop in live_extents(found, here):
        total += stop - start
        for block in range(start // PAGE_BYTES, -(-stop // PAGE_BYTES)):
            at = block * PAGE_BYTES
            live[block] += min(stop, at + PAGE_BYTES) - max(start, at)
    kinds = bytearray(blocks)
    kinds[: segment_bytes // PAGE_BYTES] = bytes([1]) * (segment_bytes // PAGE_BYTES)
    for segment in here.values():
        first = (segment.slot + 1) * segment_bytes // PAGE_BYTES
        filled_bytes = blocks_bytes(segment.fill_bytes, found.area.chunk_bytes)
        for block in range(first, first + filled_bytes // PAGE_BYTES):
            share = live[block] / PAGE_BYTES
            kinds[block] = 2 + bisect_right((1e-9, 0.5, 0.95), share)
    return bytes(kinds), total


def live_extents(found: Table, here: dict[int, Segment]) -> Iterable[tuple[int, int]]:
    """Where the records of pages lie on a medium, in bytes [start, stop), in no order."""
    segment_bytes, chunk_bytes = found.area.segment_bytes, found.area.chunk_bytes
    for cluster, words in found.words.items():
        first = cluster << CLUSTER_SHIFT
        for slot, word in enumerate(words, first):
            if found.states[slot] == DISK and (segment := here.get(word >> SEGMENT_SHIFT)):
                base = slot_offset_bytes(segment.slot, segment_bytes)
                offset_bytes = word >> OFFSET_SHIFT & OFFSET_MASK
                for start, stop in pieces_in_slot(
                    offset_bytes, found.stored_bytes[slot], chunk_bytes
                ):
                    yield base + start, base + stop


def _grid(
    title: str,
    unit: str,
    unit_bytes: int,
    first_bytes: int,
    units: bytes,
    kinds: Sequence[Kind],
    cells_max: int,
) -> Grid:
    cell_units = 1
    while -(-len(units) // cell_units) > max(cells_max, 1):
        cell_units *= 2
    cells = bytes(
        _commonest(units[start : start + cell_units], len(kinds))
        for start in range(0, len(units), cell_units)
    )
    counts = [units.count(kind) for kind in range(len(kinds))]
    return Grid(title, unit, unit_bytes, first_bytes, cell_units, cells, kinds, counts)


def _commonest(units: bytes, kind_count: int) -> int:
    if len(units) == 1:
        return units[0]
    counts = [units.count(kind) for kind in range(1, kind_count)]
    most = max(counts)
    return 1 + counts.index(most) if most else 0


def row_offsets(grid: Grid, columns: int) -> list[int]:
    """Where each row of so many cells begins, in bytes."""
    rows = -(-len(grid.cells) // columns)
    step = columns * grid.cell_units * grid.unit_bytes
    return list(accumulate(repeat(step, rows - 1), initial=grid.first_bytes)) if rows else []
