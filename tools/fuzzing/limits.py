"""What a run of a target may take: so much time, and so much memory.

Owns the limits of this process while a target runs. Always holds: afterwards they are what they
were. The alarm is left alone where the fuzzer has one of its own.
"""

import contextlib
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Final

MEMORY_BYTES: Final = 384 << 20
"""More than any target has a use for: the largest thing that one reads is a segment of 1 MiB."""
SECONDS: Final = 10.0

_PAGE_BYTES: Final = resource.getpagesize()


class HangError(BaseException):
    """The run did not end. What is tested catches exceptions; not this one."""


@contextlib.contextmanager
def memory(size_bytes: int = MEMORY_BYTES) -> Iterator[None]:
    """Whatever asks for more than that, beyond what the process has, gets a MemoryError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * _PAGE_BYTES + size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextlib.contextmanager
def time(seconds: float = SECONDS) -> Iterator[None]:
    """Raises HangError when it takes longer."""

    def expired(_number: int, _frame: FrameType | None) -> None:
        raise HangError(f"not done after {seconds} s")

    previous = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
