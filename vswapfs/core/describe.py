"""desc: one page's descriptor and record, put into words.

Owns the names of states and how figures of a page are shown. Never changes anything.
"""

from vswapfs.core.descriptor import (
    EMPTY,
    FILLED,
    INDEX_SHIFT,
    KIND_MASK,
    STORED,
    parity_holds,
    place,
)
from vswapfs.core.samefill import ZERO
from vswapfs.core.store import Store
from vswapfs.errors import LostPageError
from vswapfs.format.message import Descriptor
from vswapfs.format.record import CODEC_NAMES, CODEC_SHIFT, HEADER, HEADER_BYTES, binding
from vswapfs.units import PAGE_BYTES


def state_of(store: Store, word: int) -> str:
    """One of message.STATES, or ``damaged``: what it leads to cannot be."""
    kind, segments = word & KIND_MASK, store.segments
    if word == EMPTY:
        return "empty"
    if not parity_holds(word):
        return "damaged"
    if kind == STORED:
        segment, offset_bytes, length_bytes = place(word)
        if (
            segment < segments.count
            and length_bytes > HEADER_BYTES
            and offset_bytes + length_bytes <= store.geometry.segment_bytes
        ):
            return "disk" if segments.tier_of(segment) else "pool"
    elif kind == FILLED and word >> INDEX_SHIFT < store.patterns.used_count:
        return "zero" if word >> INDEX_SHIFT == ZERO else "same"
    return "damaged"


def describe(store: Store, page: int) -> Descriptor:
    """Where the page is now; a stored one is verified now, which is not counted as a load."""
    (word,) = store.words_of(page, page + 1)
    found = Descriptor(offset=page * PAGE_BYTES, state=state_of(store, word))
    if found.state == "damaged":
        found.verified, found.error = False, f"its descriptor is damaged: {word:#x}"
    if found.state in ("zero", "same"):
        found.fill = f"{store.patterns.value(word >> INDEX_SHIFT):#018x}"
    if found.state not in ("pool", "disk"):
        return found
    segment, offset, length_bytes = place(word)
    found.segment, found.segment_offset = segment, offset
    found.stored_bytes = length_bytes - HEADER_BYTES
    found.ratio = round(PAGE_BYTES / found.stored_bytes, 2)
    if found.state == "disk":
        return found
    bound, _owner, tag = HEADER.unpack_from(store.pool, store.segments.base(segment) + offset)
    found.codec = CODEC_NAMES.get(tag >> CODEC_SHIFT, f"unknown {tag >> CODEC_SHIFT}")
    found.checksum = f"{bound ^ binding(store.segments.sequence(segment), page):016x}"
    try:
        store.read(page, word)
    except LostPageError as error:
        found.verified, found.error = False, error.message
    else:
        found.verified = True
    return found


def describe_range(store: Store, start: int, stop: int, state: str | None) -> list[Descriptor]:
    """The pages [start, stop) that are in ``state``, or all of them."""
    return [
        describe(store, page)
        for page, word in enumerate(store.words_of(start, stop), start)
        if state is None or state_of(store, word) == state
    ]
