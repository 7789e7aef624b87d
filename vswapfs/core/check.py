"""check: counts everything again and compares. The structural invariants of a store, asserted.

Owns the list of invariants. Never changes anything. Reads every descriptor of a used cluster and
every record header, so it takes about 1 us a stored page.

    descriptor   empty: the word is 0. Others: even parity. filled: its pattern exists. stored: its
                 segment is not free; a record of that length begins there and names the page
    pattern      pages on it = descriptors that refer to it
    segment      live bytes = sum over the descriptors into it; free: no live byte and no slot;
                 open: exactly one head has it; sealed: not without a live byte; slots are distinct
    walk         the records of a segment lie end to end from behind its header to its fill
    cluster      pages in it = descriptors of it that are not empty
    reserve      whole, or a segment can be cleaned into what is left of the survivor segment
    pool         resident bytes within its slots
    lists        of segments sealed in RAM, and of those on tiers that are worth cleaning
"""

from collections import Counter
from collections.abc import Iterator

from vswapfs.core import policy
from vswapfs.core.buffers import RESERVE_SEGMENTS
from vswapfs.core.descriptor import (
    CLUSTER_PAGES,
    CLUSTER_SHIFT,
    EMPTY,
    FILLED,
    INDEX_SHIFT,
    KIND_MASK,
    STORED,
    parity_holds,
    place,
)
from vswapfs.core.loghead import SURVIVORS
from vswapfs.core.segment import FREE, OPEN, SEALED, STATE_MASK
from vswapfs.core.store import Store
from vswapfs.format.record import RecordError, header_at
from vswapfs.format.tier import SEGMENT_HEADER_BYTES

_Records = dict[int, tuple[int, int]]  # offset in the segment: page, length


def check(store: Store) -> list[str]:
    """Return one sentence for each violation; an empty list when all invariants hold."""
    records, findings = _walk(store)
    return [*findings, *_check_segments(store), *_check_descriptors(store, records)]


def _walk(store: Store) -> tuple[dict[int, _Records], list[str]]:
    """The records of every segment in RAM, and where a walk broke."""
    fills = {head.segment: head.position for head in store.heads}
    walks: dict[int, _Records] = {}
    findings = []
    for segment, home in store.segments.in_use():
        if home & STATE_MASK == FREE or store.segments.tier_of(segment):
            continue
        records: _Records = {}
        walks[segment] = records
        base, offset = store.segments.base(segment), SEGMENT_HEADER_BYTES
        fill_bytes = fills.get(segment, store.segments.fill_bytes(segment))
        try:
            while offset < fill_bytes:
                records[offset] = header_at(store.pool, base + offset, base + fill_bytes)
                offset += records[offset][1]
        except RecordError:
            findings.append(f"segment {segment}: no record begins at {offset} of {fill_bytes}")
    return walks, findings


def _check_segments(store: Store) -> Iterator[str]:
    segments, slot_count = store.segments, store.geometry.slot_count
    places: set[tuple[int, int]] = set()
    open_at_heads = Counter(head.segment for head in store.heads if head.segment >= 0)
    sealed_in_ram, sparse = set(), set()
    sparse_below_bytes = policy.tier_clean_below(store.geometry.segment_bytes)
    for segment, home in enumerate(segments.homes[: segments.count].tolist()):
        state, live_bytes = home & STATE_MASK, segments.live_bytes[segment]
        if state == FREE:
            if home or live_bytes:
                yield f"segment {segment} is free and has a home or {live_bytes} live bytes"
            continue
        tier, slot = segments.tier_of(segment), segments.slot_of(segment)
        slots = segments.tiers.get(tier) if tier else segments.ram
        if (tier, slot) in places or slots is None or slot >= slots.slot_count:
            yield f"segment {segment} is in slot {slot} of home {tier}, taken or not existing"
        places.add((tier, slot))
        if open_at_heads[segment] != (state == OPEN):
            yield f"segment {segment} in state {state} is at {open_at_heads[segment]} heads"
        if state == SEALED and not tier:
            sealed_in_ram.add(segment)
        elif state == SEALED and live_bytes < sparse_below_bytes:
            sparse.add(segment)
        if state == SEALED and not live_bytes:
            yield f"segment {segment} is sealed, has no live byte and was not freed"
    ram_slots = sum(1 for tier, _slot in places if not tier)
    # A slot that I/O still writes from, or reads into, is neither.
    if not store.homes.busy and ram_slots + segments.ram.unused_count != slot_count:
        yield f"{ram_slots} slots used and {segments.ram.unused_count} not of {slot_count}"
    if segments.sealed_in_ram != sealed_in_ram:
        yield "the list of segments sealed in RAM is wrong"
    if segments.sparse != sparse:
        yield "the list of segments on tiers that are worth cleaning is wrong"
    sealed_live_bytes = [segments.live_bytes[segment] for segment in sealed_in_ram]
    if sum(sealed_live_bytes) != segments.sealed_live_bytes:
        yield "live bytes of sealed segments do not add up"
    if (
        store.cleaner.victim < 0
        and not store.homes.busy
        and segments.ram.unused_count < RESERVE_SEGMENTS
    ):
        room_bytes = store.heads[SURVIVORS].room_bytes
        if not any(live_bytes <= room_bytes for live_bytes in sealed_live_bytes):
            yield f"{segments.ram.unused_count} segments free: the reserve is gone"
    if store.used_bytes() > slot_count * store.geometry.segment_bytes:
        yield f"{store.used_bytes()} bytes used: more than the limit"


def _check_descriptors(store: Store, records: dict[int, _Records]) -> Iterator[str]:
    live_bytes: Counter[int] = Counter()
    pattern_pages: Counter[int] = Counter()
    for cluster, cluster_pages in enumerate(store.cluster_pages):
        if not cluster_pages:
            continue  # reading its words would take memory for them
        first = cluster << CLUSTER_SHIFT
        words = store.words[first : first + CLUSTER_PAGES].tolist()
        if cluster_pages != len(words) - words.count(EMPTY):
            yield f"cluster {cluster} does not have {cluster_pages} pages"
        for page, word in enumerate(words, first):
            kind = word & KIND_MASK
            if word == EMPTY:
                continue
            if page >= store.geometry.page_count or not parity_holds(word):
                yield f"page {page} has descriptor {word:#x}, which is damaged"
            elif kind == FILLED:
                pattern_pages[word >> INDEX_SHIFT] += 1
            elif kind == STORED:
                segment, offset, length_bytes = place(word)
                live_bytes[segment] += length_bytes
                if segment < store.segments.count and store.segments.tier_of(segment):
                    continue  # log check and scrub look there
                if records.get(segment, {}).get(offset) != (page, length_bytes):
                    yield f"page {page}: its record in segment {segment} at {offset} is not there"
            else:
                yield f"page {page} has descriptor {word:#x} of no known kind"
    for segment, counted_bytes in enumerate(store.segments.live_bytes):
        if counted_bytes != live_bytes.get(segment, 0):
            yield f"segment {segment} has {live_bytes[segment]} live bytes, not {counted_bytes}"
    for index in {*pattern_pages, *range(store.patterns.used_count)}:
        if store.patterns.pages(index) != pattern_pages[index]:
            yield f"pattern {index} has {pattern_pages[index]} pages"
