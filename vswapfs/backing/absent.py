"""A medium that is not there: of a tier that a successor could not open again.

Owns nothing. Every operation fails with the reason, so that the tier is failing, and its pages are
errors, and nothing else.
"""

import errno
from typing import NoReturn


class AbsentBacking:
    """A Backing of that size without a byte of it."""

    def __init__(self, size_bytes: int, reason: str) -> None:
        self._size_bytes = size_bytes
        self.reason = reason

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    @property
    def direct_fd(self) -> int:
        return -1

    def _fail(self) -> NoReturn:
        raise OSError(errno.ENODEV, self.reason)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self._fail()

    def write(self, offset: int, buffer: memoryview) -> None:
        self._fail()

    def trim(self, offset: int, length: int) -> bool:
        self._fail()

    def flush(self) -> None:
        self._fail()

    def close(self) -> None:
        """Nothing is open."""
