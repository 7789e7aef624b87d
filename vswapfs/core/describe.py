"""desc: one page's descriptor and record, put into words.

Owns the names of states and how figures of a page are shown. Never changes anything.
"""

from vswapfs.core.descriptor import (
    EMPTY,
    FILLED,
    INDEX_SHIFT,
    KIND_MASK,
    SEGMENT_SHIFT,
    STORED,
    place,
)
from vswapfs.core.samefill import ZERO
from vswapfs.core.store import Store
from vswapfs.errors import LostPageError
from vswapfs.format.message import Descriptor
from vswapfs.format.record import CODEC_NAMES, CODEC_SHIFT, HEADER, HEADER_BYTES, binding
from vswapfs.units import PAGE_BYTES


def state_of(store: Store, word: int) -> str:
    """One of message.STATES (or ``damaged``)."""
    kind = word & KIND_MASK
    if kind == STORED:
        return "disk" if store.segments.tier_of(word >> SEGMENT_SHIFT) else "pool"
    if word == EMPTY:
        return "empty"
    if kind == FILLED:
        return "zero" if word >> INDEX_SHIFT == ZERO else "same"
    return "damaged"


def describe(store: Store, page: int) -> Descriptor:
    """Where the page is now; a stored one is verified now, which is not counted as a load."""
    word = store.words[page]
    found = Descriptor(offset=page * PAGE_BYTES, state=state_of(store, word))
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
        for page in range(start, stop)
        if state is None or state_of(store, store.words[page]) == state
    ]
