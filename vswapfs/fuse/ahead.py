"""Decoding ahead: the pages that a sequential reader will ask for next, made ready while it works.

Owns which pages, and keeps few. Only for pages in RAM. Never changes the store and counts nothing
before a page is asked for. Always holds: a page is given out only if it is still the version that
was decoded and verified.
"""

from typing import Final

from vswapfs.core.descriptor import CLUSTER_SHIFT, KIND_MASK, SEGMENT_SHIFT, STORED
from vswapfs.core.store import Store
from vswapfs.core.verify import NotInRamError
from vswapfs.errors import LostPageError

PAGES_AHEAD: Final = 8
"""As many as the kernel's swap readahead asks for (vm.page-cluster 3)."""

GAP_PAGES_MAX: Final = 8
"""Pages that a sequential reader may leave out: the kernel keeps those of zeros itself."""


class DecodedAhead:
    """Called on the lane."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pages: dict[int, tuple[int, int, bytes]] = {}
        """By page: descriptor, sequence of its segment, contents."""
        self._expected = -1 - GAP_PAGES_MAX
        self._next = 0
        self._stop = 0

    def was_read(self, first: int, stop: int) -> None:
        """These pages were answered. If they follow the last ones, decoding goes on behind them."""
        if 0 <= first - self._expected <= GAP_PAGES_MAX:
            self._next = max(self._next, stop)
            self._stop = min(stop + PAGES_AHEAD, self._store.geometry.page_count)
            for page in [page for page in self._pages if page < stop]:
                del self._pages[page]
        else:
            self._pages.clear()
            self._next = self._stop = stop
        self._expected = stop

    def step(self) -> bool:
        """Decode the next page; False when there is none."""
        page = self._next
        if page >= self._stop:
            return False
        self._next += 1
        if not self._store.cluster_pages[page >> CLUSTER_SHIFT]:
            self._stop = 0  # no page there; and to look at its descriptors may take memory
            return False
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
        if (
            not store.cluster_pages[page >> CLUSTER_SHIFT]  # nor is there memory for its descriptor
            or store.words[page] != word
            or store.segments.sequence(word >> SEGMENT_SHIFT) != sequence
        ):
            return None
        store.loaded_total += 1
        return data

    def load(self, first: int, stop: int) -> tuple[list[bytes], LostPageError | None]:
        """The pages, or those before the first that is lost, and why it is: a short reply makes the
        kernel ask for the rest by itself, so that readahead does not lose the good ones.

        Raises LostPageError if that is the first of all.
        """
        load, take = self._store.load, self.take
        pages: list[bytes] = []
        try:
            for page in range(first, stop):
                pages.append(take(page) or load(page))  # noqa: PERF401 - kept if an error follows
        except LostPageError as error:
            if not pages:
                raise
            return pages, error
        return pages, None
