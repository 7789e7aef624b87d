"""Reads a tier's file or device without a daemon: its superblock, and slot by slot.

Owns the open file. Never writes to it. Always holds: where nobody has the medium, no daemon can
take it while it is open here.
"""

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from typing import Final

from vswapfs.errors import HostError, TierFormatError
from vswapfs.format.tier import (
    SEGMENT_HEADER_BYTES,
    SUPERBLOCK_BYTES,
    SUPERBLOCK_COPY_OFFSET,
    Superblock,
    choose,
    is_empty,
    slot_offset_bytes,
)
from vswapfs.format.tier_walk import Finding, SegmentFound, walk_segment

_REMEDY: Final = "give the file or block device of a tier, as vswapctl tier list shows it"


class Medium:
    """A file or device, open for reading, and how long it is."""

    def __init__(self, fd: int, path: str, *, in_use: bool) -> None:
        self._fd = fd
        self.path = path
        self.in_use = in_use
        self.size_bytes = os.lseek(fd, 0, os.SEEK_END)

    def read(self, offset: int, length: int) -> bytes:
        """Shorter if the medium ends before. Raises OSError."""
        return os.pread(self._fd, length, offset)


@contextlib.contextmanager
def opened(path: str) -> Iterator[Medium]:
    """Open a medium, in use or not. Raises HostError."""
    try:
        fd, in_use = _open(path)
    except OSError as error:
        raise HostError(f"open {path}", error.strerror or "", remedy=_REMEDY) from None
    try:
        yield Medium(fd, path, in_use=in_use)
    finally:
        os.close(fd)


def _open(path: str) -> tuple[int, bool]:
    """A file descriptor, and whether the claims of backing/claim.py say that it is in use."""
    mode = os.stat(path).st_mode  # noqa: PTH116
    flags = os.O_RDONLY | os.O_CLOEXEC
    if stat.S_ISBLK(mode):
        try:
            return os.open(path, flags | os.O_EXCL), False
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
        return os.open(path, flags), True
    if not stat.S_ISREG(mode):
        raise HostError(f"open {path}", "neither a regular file nor a block device", remedy=_REMEDY)
    fd = os.open(path, flags)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return fd, True
    return fd, False


def read_superblock(medium: Medium) -> tuple[Superblock, list[Finding]]:
    """Raises TierFormatError if there is none."""
    try:
        superblock, wrong = choose(_copy(medium, 0), _copy(medium, SUPERBLOCK_COPY_OFFSET))
    except TierFormatError as error:
        raise TierFormatError(f"{medium.path}: {error.message}", remedy=_REMEDY) from None
    return superblock, [Finding(offset, None, None, reason) for offset, reason in wrong]


def _copy(medium: Medium, offset: int) -> bytes:
    """What cannot be read is as good as not there: the other copy may be."""
    with contextlib.suppress(OSError):
        return medium.read(offset, SUPERBLOCK_BYTES)
    return b""


def walk(medium: Medium, superblock: Superblock, findings: list[Finding]) -> Iterator[SegmentFound]:
    """Verify every slot that the medium has; what is of no slot is added to ``findings``."""
    segment_bytes = superblock.segment_bytes
    present = max(0, -(-medium.size_bytes // segment_bytes) - 1)
    if present < superblock.slot_count:
        reason = f"the medium ends here: slots {present} to {superblock.slot_count - 1} are missing"
        findings.append(Finding(medium.size_bytes, None, None, reason))
    for slot in range(min(present, superblock.slot_count)):
        offset = slot_offset_bytes(slot, segment_bytes)
        try:
            data = medium.read(offset, SEGMENT_HEADER_BYTES)
            if not is_empty(data):
                data = medium.read(offset, segment_bytes)
        except OSError as error:
            reason = f"cannot be read: {error.strerror}"
            yield SegmentFound(slot, findings=[Finding(offset, slot, None, reason)])
        else:
            yield walk_segment(memoryview(data), superblock, slot)
