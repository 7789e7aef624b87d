"""The log: sentences for a person, written by a thread of its own.

Owns where the log goes. Always holds: logging never blocks the lane (a queue takes the record, and
a disk that is slow, or waits for memory that we are to free, is another thread's trouble), and
an error that repeats does not fill the disk.
"""

import contextlib
import logging
import logging.handlers
import queue
import time
from collections.abc import Iterator
from typing import Final

FILE_MAX_BYTES: Final = 1 << 20
QUEUE_MAX_RECORDS: Final = 1000
BURST_PER_S: Final = 20


class _RateLimit(logging.Filter):
    """At most BURST_PER_S records a second from one place; says how many were left out."""

    def __init__(self) -> None:
        super().__init__()
        self._windows: dict[tuple[str, int], tuple[int, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        place, second = (record.pathname, record.lineno), int(time.monotonic())
        then, count = self._windows.get(place, (second, 0))
        if then != second:
            if count > BURST_PER_S:
                record.msg = f"{record.msg} ({count - BURST_PER_S} like it left out before)"
            count = 0
        self._windows[place] = (second, count + 1)
        return count < BURST_PER_S


class _DroppingQueueHandler(logging.handlers.QueueHandler):
    """Drops a record rather than wait or complain when the queue is full."""

    def enqueue(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(queue.Full):
            self.queue.put_nowait(record)


@contextlib.contextmanager
def logging_to(path: str | None, level: str) -> Iterator[None]:
    """Log to the file (kept below 2 MiB with its predecessor), or to stderr when None; the levels
    are those of settings.LOG_LEVELS."""
    target: logging.Handler
    if path is None:
        target = logging.StreamHandler()
    else:
        try:
            target = logging.handlers.RotatingFileHandler(
                path, maxBytes=FILE_MAX_BYTES, backupCount=1
            )
        except OSError:
            target = logging.NullHandler()  # to serve on matters more
    target.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    records: queue.Queue[logging.LogRecord] = queue.Queue(QUEUE_MAX_RECORDS)
    handler = _DroppingQueueHandler(records)
    handler.addFilter(_RateLimit())
    listener = logging.handlers.QueueListener(records, target)
    root = logging.getLogger()
    root.addHandler(handler)
    set_level(level)
    listener.start()
    try:
        yield
    finally:
        root.removeHandler(handler)
        try:
            listener.stop()
        except queue.Full:
            pass  # the target is stuck: its thread ends with the process
        else:
            target.close()


def set_level(level: str) -> None:
    logging.getLogger().setLevel(level.upper())
