"""What other threads want done on the lane: work in, completions out.

Owns the queue and the eventfd that wakes the lane. Never runs anything by itself. Always holds:
each completion is called once, on the lane, or after its end on whatever thread finds that out.
"""

import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from vswapfs.errors import UnmountedError

Work = Callable[[], Any]
Completion = Callable[[Any, BaseException | None], None]


class Inbox:
    """True while there is work. ``defect`` is told of completions that raise."""

    def __init__(self, defect: Callable[[str], None]) -> None:
        self.event_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._defect = defect
        self._work: deque[tuple[Work, Completion]] = deque()
        self._closed = threading.Event()

    def __bool__(self) -> bool:
        return bool(self._work)

    def submit(self, work: Work, completion: Completion) -> None:
        """From any thread."""
        self._work.append((work, completion))
        if self._closed.is_set():
            self._refuse()
        else:
            os.eventfd_write(self.event_fd, 1)

    def do_all(self) -> None:
        while self._work:
            work, completion = self._work.popleft()
            try:
                result, failure = work(), None
            except Exception as error:
                result, failure = None, error
            self._complete(completion, result, failure)

    def close(self) -> None:
        """The lane has ended: from now on completions get an UnmountedError."""
        self._closed.set()
        self._refuse()

    def _refuse(self) -> None:
        while self._work:
            try:
                _, completion = self._work.popleft()
            except IndexError:
                return
            error = UnmountedError("the file system is unmounted", remedy="start it again")
            self._complete(completion, None, error)

    def _complete(self, completion: Completion, result: Any, error: BaseException | None) -> None:
        try:
            completion(result, error)
        except Exception:
            self._defect("a completion")
