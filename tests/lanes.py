"""Stand-ins for the lane, for tests of what asks it."""

from collections.abc import Callable
from typing import Any


class LaneAtOnce:
    """Does at once what it is asked for."""

    def submit(self, work: Callable[[], Any], completion: Callable[..., None]) -> None:
        completion(work(), None)
