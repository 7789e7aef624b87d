"""The store: the facade through which pages come and go. Verbs: store, load, discard.

Owns the descriptors and the order of updates. Never does I/O and never sleeps.

Order of a store (docs/concurrency.md): (1) HEAD moves on, the space is reserved; (2) the record is
written there; (3) the descriptor is replaced in one 8-byte store; (4) the caller replies. So the
buffers are valid at every instant, and a request done twice does no harm. Counts and free lists
are derived and follow; ``Store.attach`` counts them again from the buffers alone (recount.py).

Always holds: what `load` returns is what was last stored there, or zeros; otherwise it raises.
"""

from array import array
from collections.abc import Callable, Container, Sequence
from enum import StrEnum
from typing import Final

from vswapfs.core import policy
from vswapfs.core.buffers import HEAD_COUNT, Buffers, Geometry
from vswapfs.core.cleaner import Cleaner
from vswapfs.core.descriptor import (
    CLUSTER_BYTES,
    CLUSTER_PAGES,
    CLUSTER_SHIFT,
    EMPTY,
    FILLED,
    INDEX_SHIFT,
    KIND_MASK,
    LENGTH_MASK,
    LENGTH_SHIFT,
    OFFSET_MASK,
    OFFSET_SHIFT,
    PARITY_SHIFT,
    SEGMENT_SHIFT,
    STORED,
    filled,
)
from vswapfs.core.homes import Fetched, Homes, RecordRead
from vswapfs.core.loghead import COMPRESSED, INCOMPRESSIBLE, SURVIVORS, LogHead
from vswapfs.core.recount import Recount, pages_in
from vswapfs.core.samefill import PATTERN_BYTES, ZERO_PAGE, FillPatterns, pattern_of
from vswapfs.core.segment import SLOT_SHIFT, TIER_MASK, TIER_SHIFT, SegmentTable
from vswapfs.core.verify import NotInRamError, lost, verify
from vswapfs.errors import LostPageError, PoolFullError
from vswapfs.format import record
from vswapfs.format.codec import checksum, encode
from vswapfs.format.record import (
    CHECKSUM_MASK,
    CODEC_RAW,
    CODEC_SHIFT,
    HEADER,
    HEADER_BYTES,
    PAGE_FACTOR,
)
from vswapfs.units import PAGE_BYTES

TIER_BITS: Final = TIER_MASK << TIER_SHIFT

COUNT_STEPS: Final = 10
"""Records copied in the time that a full cluster takes to count."""

CLEAN_VICTIMS_MAX: Final = 4
"""Segments that one store may clean before it gives up: a victim takes 1 to 5 ms, and all page
I/O waits for it."""


class SameFilled(StrEnum):
    """Which same-filled pages become markers: zeros only, every 8-byte pattern, none."""

    ZERO = "zero"
    SAME = "same"
    OFF = "off"


class Store:
    """Pages by number, over flat buffers. One thread only.

    After any error of the tree in errors.py the store is as valid as before, and every other page
    can be stored, loaded and discarded.
    """

    def __init__(
        self,
        geometry: Geometry,
        buffers: Buffers,
        same_filled: SameFilled = SameFilled.SAME,
        first_sequence: int = 1,
        tier_slot_counts: Sequence[int] = (),
        gone: Container[int] = (),
    ) -> None:
        """A store over empty (all-zero) buffers. Use ``attach`` for buffers with pages in them.

        ``first_sequence``: beyond any that a store before it has written to the same media.
        """
        self.geometry = geometry
        self.same_filled = same_filled
        self.words = buffers.descriptors.view.cast("Q")
        self.pool = buffers.pool.view
        self.segments = SegmentTable(
            buffers.segments.view, buffers.pool, geometry, first_sequence, tier_slot_counts, gone
        )
        heads = buffers.heads.view.cast("Q")
        self.heads = [
            LogHead(index, heads, self.segments, geometry.fill_max_bytes)
            for index in range(HEAD_COUNT)
        ]
        self.patterns = FillPatterns(buffers.patterns.view)
        self.homes = Homes(self.segments)
        self.cleaner = Cleaner(
            geometry,
            self.words,
            self.pool,
            self.segments,
            self.heads[SURVIVORS],
            lambda segment: pages_in(self, segment),
            self.homes.busy,
        )
        self.fetched: Fetched = {}
        """Pages read from a tier for a request that is being answered."""
        self.cluster_pages = array("H", bytes(2 * geometry.cluster_count))
        self.begin_cluster: Callable[[int], None] = lambda _cluster: None
        """Called before a page is stored in a cluster that has none: its descriptors, one page of
        memory, may not have it. Raises PoolFullError if there is none to be had."""
        self.end_cluster: Callable[[int], None] = lambda cluster: buffers.descriptors.release(
            cluster * CLUSTER_BYTES, (cluster + 1) * CLUSTER_BYTES
        )
        """Called when a cluster has no page any more; its descriptors are all zero then."""
        self.incompressible_pages = 0
        self.stored_total = 0
        self.loaded_total = 0
        self.discarded_total = 0
        self.checksum_errors = 0
        self.damaged_descriptors = 0
        self.patterns_full_total = 0
        self._recompress_at = -1
        self.recount: Recount | None = None
        """While a successor counts what its predecessor left."""

    @classmethod
    def attach(
        cls,
        geometry: Geometry,
        buffers: Buffers,
        same_filled: SameFilled = SameFilled.SAME,
        first_sequence: int = 1,
        tier_slot_counts: Sequence[int] = (),
        gone: Container[int] = (),
        now_s: int = 0,
    ) -> "Store":
        """A store over buffers that a predecessor left at any instant, with tiers of these sizes;
        of these the numbers ``gone`` were removed.

        Serves at once, and counts again meanwhile (recount.py): ``finish_count`` when that must be
        through. Takes a record back that did not become a page.
        """
        store = cls(geometry, buffers, same_filled, first_sequence, tier_slot_counts, gone)
        for head in store.heads:
            head.take_back_unfinished(store.words, geometry.page_count, store.pool)
        store.segments.adopt({head.segment for head in store.heads}, now_s)
        store.patterns.begin_recount()
        store.recount = Recount(store, list(buffers.descriptors.extents()))
        return store

    def finish_count(self) -> None:
        """Count all that is not counted yet, now."""
        self._count(self.geometry.cluster_count)

    def _count(self, clusters: int) -> None:
        if self.recount is not None and not self.recount.step(clusters):
            self.recount = None
            self.patterns.end_recount()
            self.segments.counted()

    def _pages_in(self, cluster: int) -> int:
        """Counted now."""
        first = cluster << CLUSTER_SHIFT
        words: list[int] = self.words[first : first + CLUSTER_PAGES].tolist()
        return len(words) - words.count(EMPTY)

    def _has_pages(self, page: int) -> bool:
        """Whether the page's cluster has any, also if it was not counted yet."""
        if self.recount is not None:
            self.recount.reach(page, 1)
        return self.cluster_pages[page >> CLUSTER_SHIFT] > 0

    def words_of(self, first: int, stop: int) -> list[int]:
        """The descriptors of the pages [first, stop); takes no memory for them."""
        words: list[int] = []
        while first < stop:
            end = min(stop, (first >> CLUSTER_SHIFT) + 1 << CLUSTER_SHIFT)
            has_pages = self._has_pages(first)
            words += self.words[first:end].tolist() if has_pages else [EMPTY] * (end - first)
            first = end
        return words

    # -- the three verbs ---------------------------------------------------------------------

    def store(self, first: int, data: bytes | memoryview) -> None:
        """Keep ``data``, one or more whole pages, as the contents of the pages from ``first`` on.

        Raises PoolFullError; the pages up to the one without room are stored then, and the others
        hold what they held. Several at once because what is looked up once a call costs as much as
        a page's checksum.
        """
        count = len(data) // PAGE_BYTES
        if self.recount is not None:
            self.recount.reach(first, count)
        for cluster in range(first >> CLUSTER_SHIFT, (first + count - 1 >> CLUSTER_SHIFT) + 1):
            if not self.cluster_pages[cluster]:
                self.begin_cluster(cluster)
        view = memoryview(data)
        words, pool = self.words, self.pool
        live_bytes, live_pages = self.segments.live_bytes, self.segments.live_pages
        compressed, incompressible = self.heads[COMPRESSED], self.heads[INCOMPRESSIBLE]
        look_for_pattern = self.same_filled is not SameFilled.OFF
        for page, at in enumerate(range(0, len(view), PAGE_BYTES), first):
            contents = view[at : at + PAGE_BYTES].tobytes()
            # The last word first: it tells most pages apart for a third of the price of the whole.
            if look_for_pattern and contents[:PATTERN_BYTES] == contents[-PATTERN_BYTES:]:
                pattern = pattern_of(contents)
                if pattern is not None and self._store_filled(page, pattern):
                    continue
            codec, payload = encode(contents)
            payload_bytes = len(payload)
            length_bytes = HEADER_BYTES + payload_bytes
            head = incompressible if codec == CODEC_RAW else compressed
            offset = head.reserve(length_bytes)
            if offset < 0:
                self._next_segment(head)
                offset = head.reserve(length_bytes)
            start = head.base + offset
            HEADER.pack_into(  # record.binding, without its calls
                pool,
                start,
                checksum(contents) ^ head.binding ^ page * PAGE_FACTOR & CHECKSUM_MASK,
                page,
                codec << CODEC_SHIFT | payload_bytes - 1,
            )
            start += HEADER_BYTES
            pool[start : start + payload_bytes] = payload
            segment = head.segment
            word = (
                segment << SEGMENT_SHIFT
                | offset << OFFSET_SHIFT
                | length_bytes << LENGTH_SHIFT
                | STORED
            )
            old = words[page]
            words[page] = word | (word.bit_count() & 1) << PARITY_SHIFT
            live_bytes[segment] += length_bytes
            live_pages[segment] += 1
            if codec == CODEC_RAW:
                self.incompressible_pages += 1
            self._replaced(page, old)

    def _store_filled(self, page: int, pattern: bytes) -> bool:
        if self.same_filled is SameFilled.ZERO and any(pattern):
            return False
        index = self.patterns.acquire(pattern)
        if index is None:
            self.patterns_full_total += 1
            return False
        old = self.words[page]
        self.words[page] = filled(index)
        self._replaced(page, old)
        return True

    def _replaced(self, page: int, old: int) -> None:
        self.stored_total += 1
        if old == EMPTY:
            self.cluster_pages[page >> CLUSTER_SHIFT] += 1
        else:
            self._drop(page, old)

    def load(self, page: int) -> bytes:
        """The page's 4096 bytes; zeros if it is empty.

        Raises LostPageError when its record cannot be verified; the error is counted, the page
        stays as it is, and storing to it again works. Raises NotInRamError when it is on a tier:
        have it fetched (homes.plan_read), then load it again.
        """
        self.loaded_total += 1
        # To look at the descriptors of a cluster that never had a page takes memory for them.
        if not self.cluster_pages[page >> CLUSTER_SHIFT] and not self._has_pages(page):
            return ZERO_PAGE
        word = self.words[page]
        if word == EMPTY:
            return ZERO_PAGE
        try:
            return self.read(page, word)
        except LostPageError:
            self.checksum_errors += 1
            raise

    def read(self, page: int, word: int) -> bytes:
        """The page that a descriptor (not an empty one) points to, verified; counts nothing.

        Raises LostPageError, or NotInRamError when it is on a tier and was not fetched.
        """
        if word.bit_count() & 1:
            raise lost(page, word, "its descriptor is damaged (parity)")
        try:
            if word & KIND_MASK == FILLED:
                return self.patterns.page(word >> INDEX_SHIFT)
            segment = word >> SEGMENT_SHIFT
            home = self.segments.homes[segment]
        except IndexError as error:
            raise lost(page, word, f"its descriptor leads nowhere ({error})") from None
        if home & TIER_BITS:
            return self._fetched(page, word, self.segments.sequence(segment))
        at = (home >> SLOT_SHIFT << self.segments.shift) + (word >> OFFSET_SHIFT & OFFSET_MASK)
        found = self.pool[at : at + (word >> LENGTH_SHIFT & LENGTH_MASK)]
        return verify(page, word, self.segments.sequence(segment), found)

    def _fetched(self, page: int, word: int, sequence: int) -> bytes:
        data = self.fetched.get((word, sequence))
        if data is None:
            raise NotInRamError(page, word)
        if isinstance(data, LostPageError):
            raise data
        return data

    def discard(self, first: int, count: int) -> None:
        """Forget ``count`` pages from ``first`` on; they read as zeros then. Cannot fail."""
        end = first + count
        page = first
        while page < end:
            cluster = page >> CLUSTER_SHIFT
            stop = min(end, cluster + 1 << CLUSTER_SHIFT)
            if self.recount is not None:
                self.recount.reach(page, 1)
            if self.cluster_pages[cluster]:
                self._discard_in_cluster(cluster, page, stop)
            page = stop

    def _discard_in_cluster(self, cluster: int, start: int, stop: int) -> None:
        words = self.words[start:stop]
        dropped = [(page, word) for page, word in enumerate(words.tolist(), start) if word]
        left_pages = 0
        if stop - start < CLUSTER_PAGES:
            for page, _word in dropped:
                self.words[page] = EMPTY
            left_pages = self._pages_in(cluster)
        self.cluster_pages[cluster] = left_pages
        if not left_pages:
            self.end_cluster(cluster)
        self.discarded_total += len(dropped)
        for page, word in dropped:
            self._drop(page, word)

    def _drop(self, page: int, word: int) -> None:
        """The page's descriptor was replaced or emptied: what it referred to is dead."""
        try:
            if word.bit_count() & 1:
                raise IndexError(word)
            if word & KIND_MASK == FILLED:
                self.patterns.drop(word >> INDEX_SHIFT)
                return
            length_bytes = word >> LENGTH_SHIFT & LENGTH_MASK
            freed = self.segments.drop_live(word >> SEGMENT_SHIFT, length_bytes)
        except (IndexError, OverflowError):
            # Damaged: nobody knows what died. Its record counts as live until the cleaner meets
            # it and finds that no descriptor points there. Perhaps the slot was empty.
            self.damaged_descriptors += 1
            cluster = page >> CLUSTER_SHIFT
            self.cluster_pages[cluster] = self._pages_in(cluster)
            return
        if length_bytes == record.RECORD_MAX_BYTES:
            self.incompressible_pages -= 1
        if freed:
            self.cleaner.forget(word >> SEGMENT_SHIFT)

    def missing(self, first: int, stop: int) -> list[RecordRead]:
        """Plans to read those of the pages [first, stop) that are on tiers."""
        homes = self.segments.homes
        plans = []
        if self.segments.tiers:
            for page, word in enumerate(self.words_of(first, stop), first):
                if word & KIND_MASK == STORED and not word.bit_count() & 1:
                    segment = word >> SEGMENT_SHIFT
                    if segment < self.segments.count and homes[segment] & TIER_BITS:
                        plans.append(self.homes.plan_read(page, word))
        return plans

    # -- room --------------------------------------------------------------------------------

    def _next_segment(self, head: LogHead) -> None:
        """Seal the head's segment, open the next; for room count all (0.13 s a GiB), then clean."""
        head.close()
        victims = 0
        while True:
            try:
                head.open(reserve=False)
                return
            except PoolFullError:
                if self.recount is not None:
                    self.finish_count()
                elif victims == CLEAN_VICTIMS_MAX or not self.cleaner.run_victim():
                    raise
                else:
                    victims += 1

    def cleaning_urgent(self) -> bool:
        """True when cleaning should go on even between requests, or counting."""
        if self.recount is not None:
            return True
        segments = self.segments
        resident_bytes, live_bytes = segments.sealed_resident_bytes, segments.sealed_live_bytes
        return (
            policy.short_of_segments(segments.free_count, segments.ram.limit, segments.kept_count)
            or policy.density_poor(resident_bytes, live_bytes, self.geometry.segment_bytes)
        ) and not self.cleaner.exhausted()

    def cleaning_useful(self) -> bool:
        """True when idle time should be spent on packing the pool."""
        segments = self.segments
        resident_bytes, live_bytes = segments.sealed_resident_bytes, segments.sealed_live_bytes
        return self.cleaner.recompressing or (
            policy.density_low(resident_bytes, live_bytes, self.geometry.segment_bytes)
            and not self.cleaner.exhausted()
        )

    def clean(self, steps: int, *, idle: bool = False) -> bool:
        """Clean in a slice of about ``steps`` record copies; False when there is nothing to do.
        As long as not all is counted: count, in the same time."""
        if self.recount is not None:
            self._count(max(1, steps // COUNT_STEPS))
            return True
        if not idle:
            self.cleaner.recompressing = False
        return self.cleaner.run(steps)

    def recompress_cold(self, now_s: int) -> None:
        """Have a cold segment recompressed in idle time. To be called once a second: does nothing
        when a page was stored or loaded since the last call."""
        self.segments.now_s = now_s
        requests_total = self.stored_total + self.loaded_total
        if requests_total == self._recompress_at:
            self.cleaner.recompress(now_s - policy.COLD_S)
        self._recompress_at = requests_total

    def used_bytes(self) -> int:
        """RAM that segments take: all touched pages of the sealed ones, open ones whole, as their
        memory was taken before; and free slots that are warm."""
        segments = self.segments
        open_count = sum(head.segment >= 0 for head in self.heads)
        whole_count = open_count + segments.ram.warm_count
        return segments.sealed_resident_bytes + whole_count * self.geometry.segment_bytes
