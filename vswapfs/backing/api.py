"""What a medium offers to a tier: blocks that are read, written and trimmed.

Owns the contract. Never holds a byte.
"""

import errno
from typing import Final, Protocol

BLOCK_BYTES: Final = 4096


class Backing(Protocol):
    """A medium of whole blocks. Calls block, and may come from any number of threads at once.

    Offsets and lengths are multiples of BLOCK_BYTES within the medium, and buffers page-aligned
    memory (an mmap), or OSError(EINVAL) is raised. Every failure is an OSError: after one of
    read_into the buffer holds anything; after one of write or trim the range does. A read or
    write is whole or raises. After a power cut only what was flushed is certain.
    """

    @property
    def size_bytes(self) -> int: ...

    @property
    def direct_fd(self) -> int:
        """A descriptor that blocks can be read from past this object; -1 if there is none."""

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill the buffer from there."""

    def write(self, offset: int, buffer: memoryview) -> None:
        """Write the whole buffer there."""

    def trim(self, offset: int, length: int) -> bool:
        """The bytes are not needed any more: they read as anything, often zero, until written.

        False: the medium cannot be told, and nothing has happened.
        """

    def flush(self) -> None:
        """All writes that returned before this call are on the medium when it returns."""

    def close(self) -> None:
        """Let go of the medium. No other call may be under way or follow."""


def check_range(size_bytes: int, offset: int, length: int) -> None:
    """Raises OSError(EINVAL) for a range that is not of whole blocks within the medium."""
    inside = 0 <= offset <= offset + length <= size_bytes
    if not inside or offset % BLOCK_BYTES or length % BLOCK_BYTES:
        raise OSError(
            errno.EINVAL, f"bytes [{offset}, {offset + length}) of {size_bytes} are not blocks"
        )
