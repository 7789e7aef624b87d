"""What supervisor, worker and standby have in common: inherited descriptors, and how they are told.

Owns the command lines ``supervise NAME FDS``, ``worker NAME FDS`` and ``standby NAME FDS``. The
descriptors have the same numbers in all of them. Imports next to nothing: the supervisor's memory
is locked for as long as the instance lives.
"""

import mmap
import os
import sys
from typing import Final, NamedTuple

from vswapfs.format.session import SESSION_BYTES, Session

BUFFER_PARTS: Final = ("descriptors", "pool", "patterns", "segments", "heads")
JOURNAL_PART: Final = "journal"
SESSION_PART: Final = "session"


class Handed(NamedTuple):
    """Descriptor numbers; -1 for one that does not exist."""

    lock: int
    device: int
    supervisor: int
    """A pidfd: readable when the supervisor has ended."""
    bell: int
    """An eventfd: a worker has something for the supervisor, which is in the session."""
    go: int
    """An eventfd of each standby: its turn has come."""
    session: int
    descriptors: int
    pool: int
    patterns: int
    segments: int
    heads: int
    journal: int

    def text(self) -> str:
        return ",".join(map(str, self))

    @classmethod
    def parse(cls, text: str) -> "Handed":
        return cls(*map(int, text.split(",")))

    def open_session(self, size_bytes: int = SESSION_BYTES) -> Session:
        """The session, mapped in this process; the supervisor maps no more than its words."""
        return Session(memoryview(mmap.mmap(self.session, size_bytes)))

    def set_inheritable(self, inheritable: bool) -> None:
        for fd in self:
            if fd >= 0:
                os.set_inheritable(fd, inheritable)


def command_line(mode: str, name: str, handed: Handed) -> list[str]:
    """Of a process of the same program as this one, with the same wrapper around it, if any."""
    wrapper = sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv) + 1]
    return [sys.executable, *wrapper, mode, name, handed.text()]
