"""check: counts everything again and compares. The structural invariants of a store, asserted.

Owns the list of invariants. Never changes anything. Reads every descriptor of a used cluster and
every record header, so it takes about 1 us a stored page.

    descriptor   empty: the word is 0. filled: its pattern exists. stored: its segment is not free,
                 a record of exactly that length begins there and names this page
    pattern      pages on it = descriptors that refer to it
    segment      live bytes = sum over the descriptors into it; free: no live byte and no slot;
                 open: exactly one head has it; slots are distinct
    walk         the records of a segment lie end to end from 0 to its fill
    cluster      pages in it = descriptors of it that are not empty
    totals       pages and live bytes = sums over the above; used within the limit
"""

from collections import Counter
from collections.abc import Iterator

from vswapfs.core.buffers import RESERVE_SEGMENTS
from vswapfs.core.descriptor import (
    CLUSTER_PAGES,
    CLUSTER_SHIFT,
    EMPTY,
    FILLED,
    INDEX_SHIFT,
    KIND_MASK,
    STORED,
    place,
)
from vswapfs.core.segment import FREE, OPEN, SEALED, SLOT_SHIFT
from vswapfs.core.store import Store
from vswapfs.format.record import (
    CODEC_NONE,
    CODEC_SHIFT,
    HEADER,
    HEADER_BYTES,
    LENGTH_MASK,
)


def check(store: Store) -> list[str]:
    """Return one sentence for each violation; an empty list when all invariants hold."""
    return [*_check_segments(store), *_check_descriptors(store)]


def _records(store: Store, segment: int, fill_bytes: int) -> Iterator[tuple[int, int, int]]:
    """Walk a segment: (offset, length, page) of each record; raises ValueError where it breaks."""
    base, at = store.segments.base(segment), 0
    while at < fill_bytes:
        _checksum, page, tag = HEADER.unpack_from(store.pool, base + at)
        length_bytes = HEADER_BYTES + (tag & LENGTH_MASK) + 1
        if tag >> CODEC_SHIFT == CODEC_NONE or at + length_bytes > fill_bytes:
            raise ValueError(f"no record at offset {at}")
        yield at, length_bytes, page
        at += length_bytes


def _check_segments(store: Store) -> Iterator[str]:
    segments, geometry = store.segments, store.geometry
    open_at_heads = Counter(head.segment for head in store.heads if head.segment >= 0)
    slots: set[int] = set()
    used = 0
    for segment in range(geometry.slot_count):
        state = segments.state(segment)
        if state == FREE:
            if segments.homes[segment]:
                yield f"segment {segment} is free and has home {segments.homes[segment]:#x}"
            if segments.live_bytes[segment]:
                yield f"segment {segment} is free and has {segments.live_bytes[segment]} live bytes"
            continue
        used += 1
        slot = segments.homes[segment] >> SLOT_SHIFT
        if slot in slots or slot >= geometry.slot_count:
            yield f"segment {segment} has slot {slot}, which is another's or does not exist"
        slots.add(slot)
        if open_at_heads[segment] != (state == OPEN):
            yield f"segment {segment} in state {state} is at {open_at_heads[segment]} heads"
        if state == SEALED and not segments.live_bytes[segment]:
            yield f"segment {segment} is sealed, has no live byte and was not freed"
    if used + segments.free_count != geometry.slot_count:
        yield f"{used} segments used and {segments.free_count} free of {geometry.slot_count}"
    if store.cleaner.victim < 0 and segments.free_count < RESERVE_SEGMENTS:
        yield f"{segments.free_count} segments free: the reserve of {RESERVE_SEGMENTS} is not whole"
    sealed = [n for n in range(geometry.slot_count) if segments.state(n) == SEALED]
    if sum(segments.live_bytes[n] for n in sealed) != segments.sealed_live_bytes:
        yield "live bytes of sealed segments do not add up"
    if store.used_bytes() > geometry.slot_count * geometry.segment_bytes:
        yield f"{store.used_bytes()} bytes used: more than the limit"


def _check_descriptors(store: Store) -> Iterator[str]:
    segments = store.segments
    fills = {head.segment: head.position for head in store.heads if head.segment >= 0}
    walks: dict[int, dict[int, tuple[int, int]]] = {}
    live_bytes: Counter[int] = Counter()
    pattern_pages: Counter[int] = Counter()
    stored_pages = 0
    for cluster, cluster_pages in enumerate(store.cluster_pages):
        if not cluster_pages:
            # Not looked at: reading a word would take memory for its page of descriptors.
            continue
        first = cluster << CLUSTER_SHIFT
        words = store.words[first : first + CLUSTER_PAGES].tolist()
        if cluster_pages != sum(1 for word in words if word != EMPTY):
            yield f"cluster {cluster} does not have {cluster_pages} pages"
        for page, word in enumerate(words, first):
            kind = word & KIND_MASK
            if word == EMPTY:
                continue
            if page >= store.geometry.page_count:
                yield f"page {page} is beyond the area and has descriptor {word:#x}"
            elif kind == FILLED:
                pattern_pages[word >> INDEX_SHIFT] += 1
                if word >> INDEX_SHIFT >= store.patterns.used_count:
                    yield f"page {page} has pattern {word >> INDEX_SHIFT}, which does not exist"
            elif kind == STORED:
                stored_pages += 1
                segment, offset, length_bytes = place(word)
                live_bytes[segment] += length_bytes
                if segment >= store.geometry.slot_count or segments.state(segment) == FREE:
                    yield f"page {page} is in segment {segment}, which is free"
                    continue
                if segment not in walks:
                    fill_bytes = fills.get(segment, segments.fill_bytes(segment))
                    walks[segment] = {}
                    try:
                        for at, length, owner in _records(store, segment, fill_bytes):
                            walks[segment][at] = (length, owner)
                    except ValueError as error:
                        yield f"segment {segment}: {error}"
                if walks[segment].get(offset) != (length_bytes, page):
                    yield f"page {page}: its record in segment {segment} at {offset} is not there"
            else:
                yield f"page {page} has descriptor {word:#x} of no known kind"
    for segment in range(store.geometry.slot_count):
        if segments.live_bytes[segment] != live_bytes[segment]:
            yield (
                f"segment {segment} has {live_bytes[segment]} live bytes, "
                f"not {segments.live_bytes[segment]}"
            )
    for index in {*pattern_pages, *range(store.patterns.used_count)}:
        if store.patterns.pages(index) != pattern_pages[index]:
            yield f"pattern {index} has {pattern_pages[index]} pages"
    if (stored_pages, live_bytes.total()) != (store.stored_pages, store.live_bytes):
        yield f"{stored_pages} pages stored, not {store.stored_pages}; or their bytes differ"
