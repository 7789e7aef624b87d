"""Decoding ahead: the pages that a sequential reader will ask for next, made ready while it works.

Owns which pages, and keeps few. Only for pages in RAM. Never changes the store and counts nothing
before a page is asked for. Always holds: a page is given out only if it is still the version that
was decoded and verified.
"""

from typing import Final

from vswapfs.core.descriptor import KIND_MASK, SEGMENT_SHIFT, STORED
from vswapfs.core.store import Store
from vswapfs.core.verify import NotInRamError
from vswapfs.errors import LostPageError

PAGES_MAX: Final = 32
"""The kernel's swap readahead asks for 8 (vm.page-cluster 3)."""


class DecodedAhead:
    """Called on the lane."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pages: dict[int, tuple[int, int, bytes]] = {}
        """By page: descriptor, sequence of its segment, contents."""
        self._expected = -1
        self._next = 0
        self._stop = 0

    def was_read(self, first: int, stop: int) -> None:
        """These pages were answered. The second of two neighbouring reads of several pages begins
        the decoding of as many more."""
        self._pages.clear()
        self._next = self._stop = stop
        if first == self._expected and stop - first > 1:
            count = min(stop - first, PAGES_MAX)
            self._stop = min(stop + count, self._store.geometry.page_count)
        self._expected = stop

    def step(self) -> bool:
        """Decode the next page; False when there is none."""
        page = self._next
        if page >= self._stop:
            return False
        self._next += 1
        word = self._store.words[page]
        if word & KIND_MASK == STORED:
            try:
                data = self._store.read(page, word)
            except (LostPageError, NotInRamError):
                self._stop = 0  # whoever asks for it will be told
            else:
                sequence = self._store.segments.sequence(word >> SEGMENT_SHIFT)
                self._pages[page] = (word, sequence, data)
        return True

    def take(self, page: int) -> bytes | None:
        """The page, if it was decoded and has not changed since."""
        found = self._pages.get(page)
        if found is None:
            return None
        word, sequence, data = found
        store = self._store
        if store.words[page] != word or store.segments.sequence(word >> SEGMENT_SHIFT) != sequence:
            return None
        store.loaded_total += 1
        return data
