"""Which pages could not be verified, for ``vswapctl lost``.

Owns the list, which is bounded. Never decides that a page is lost. Called on the lane.
"""

import logging
from typing import Final

from vswapfs.core.store import Store
from vswapfs.errors import LostPageError

LOST_PAGES_MAX: Final = 10_000

_log = logging.getLogger(__name__)


class LostPages:
    """``reasons`` by page: its descriptor when it could not be verified, and why."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.reasons: dict[int, tuple[int, str]] = {}

    def met(self, error: LostPageError) -> None:
        """Somebody was to load the page."""
        _log.error("%s", error)
        self.remember(error.page, error.message)

    def remember(self, page: int, reason: str) -> None:
        if len(self.reasons) >= LOST_PAGES_MAX:
            self.reasons = self.still()
        if len(self.reasons) < LOST_PAGES_MAX:
            self.reasons[page] = (self._store.words[page], reason)

    def still(self) -> dict[int, tuple[int, str]]:
        """Those that were not stored again since."""
        words = self._store.words
        return {page: lost for page, lost in self.reasons.items() if words[page] == lost[0]}
