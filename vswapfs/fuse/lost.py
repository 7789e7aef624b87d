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

    def remember(self, error: LostPageError) -> None:
        _log.error("%s", error)
        if len(self.reasons) < LOST_PAGES_MAX:
            self.reasons[error.page] = (self._store.words[error.page], error.message)
