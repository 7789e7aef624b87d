"""What the kernel logs from a moment on.

Owns nothing: each call reads /dev/kmsg from its oldest record to its newest. A moment is the number
of the next record, and not a length of what `dmesg` prints: once its buffer is full, that loses at
its front what it gets at its end.
"""

import os
from collections.abc import Iterator

_RECORD_BYTES = 8192
"""No record is longer (the kernel's PRINTK_MESSAGE_MAX is 2048)."""


def mark() -> int:
    """Now, for `since`. Raises OSError where the log cannot be read."""
    return max((number for number, _ in _records()), default=-1) + 1


def since(mark: int) -> list[str]:
    """The lines from the mark on, but for those that the buffer has lost already."""
    return [line for number, line in _records() if number >= mark]


def _records() -> Iterator[tuple[int, str]]:
    """Number and text of each, oldest first."""
    fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        while True:
            try:
                record = os.read(fd, _RECORD_BYTES)
            except BrokenPipeError:
                continue  # the next one was overwritten; it goes on with the oldest that is left
            except BlockingIOError:
                return
            # "priority,number,microseconds,flags;text", then lines of its dictionary.
            head, _, text = record.partition(b";")
            yield int(head.split(b",")[1]), text.partition(b"\n")[0].decode(errors="replace")
    finally:
        os.close(fd)
