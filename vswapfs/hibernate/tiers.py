"""Fingerprints of tiers: whether one was written between the snapshot and the resume.

Owns what the fingerprint is made of: the superblock, and the header of every slot, which has its
segment's sequence and the checksum of all its records. Never writes. A daemon that was resumed
would look for its pages where they are no longer.
"""

import contextlib
import mmap
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from xxhash import xxh3_128

from vswapfs.errors import HostError, ImageFormatError, TierFormatError
from vswapfs.format.image import BLOCK_BYTES, TierFound
from vswapfs.format.tier import (
    SEGMENT_HEADER_BYTES,
    SUPERBLOCK_BYTES,
    SUPERBLOCK_COPY_OFFSET,
    Superblock,
    choose,
    slot_offset_bytes,
)

APPEAR_TIMEOUT_S: Final = 30.0
"""As long as an initramfs waits for the root file system's."""


def look_at(paths: Iterable[str]) -> list[TierFound]:
    """The tiers as they are, and on their media; nothing may write to them meanwhile. Raises
    HostError."""
    # A daemon flushes no segment: a power cut ends it, too. Here its descriptors outlive one.
    return [_look_at(path, flush=True) for path in paths]


def compare(expected: Iterable[TierFound]) -> None:
    """Raises ImageFormatError for the first tier that is not what it was. One whose disk is slow
    to appear is waited for."""
    deadline_s = time.monotonic() + APPEAR_TIMEOUT_S
    for tier in expected:
        while not Path(tier.path).exists() and time.monotonic() < deadline_s:
            time.sleep(0.1)
        try:
            found = _look_at(tier.path)
        except HostError as error:
            raise ImageFormatError(f"a tier of the image: {error.message}") from None
        if found.uuid != tier.uuid:
            raise ImageFormatError(
                f"tier {tier.path}: tier {found.uuid.hex()} is there, and not {tier.uuid.hex()}"
            )
        if found.fingerprint != tier.fingerprint:
            raise ImageFormatError(f"tier {tier.path}: it was written after the snapshot")


def refuse_files(paths: Iterable[str]) -> None:
    """Raises HostError for a tier that could not be compared before file systems are mounted."""
    for path in paths:
        if not Path(path).is_block_device():
            raise HostError(
                f"tier {path}",
                "it is no block device: whether a file was written after the snapshot cannot be "
                "seen before its file system is mounted",
                remedy=f"vswapctl tier remove {path}; tiers on block devices can stay",
            )


def _look_at(path: str, *, flush: bool = False) -> TierFound:
    try:
        with _opened(path) as (fd, block):
            if flush:
                os.fdatasync(fd)
            return _fingerprint(path, fd, block)
    except OSError as error:
        raise HostError(f"read tier {path}", error.strerror or str(error)) from None
    except TierFormatError as error:
        raise HostError(f"read tier {path}", error.message) from None


@contextlib.contextmanager
def _opened(path: str) -> Iterator[tuple[int, mmap.mmap]]:
    """Past the page cache, which may hold what was there before a daemon wrote past it."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
    try:
        with mmap.mmap(-1, BLOCK_BYTES) as block:
            yield fd, block
    finally:
        os.close(fd)


def _fingerprint(path: str, fd: int, block: mmap.mmap) -> TierFound:
    size_bytes = os.lseek(fd, 0, os.SEEK_END)

    def read(offset: int, length: int) -> bytes:
        if os.preadv(fd, [block], offset) < length:
            raise HostError(f"read tier {path}", f"it ends at byte {size_bytes}")
        return block[:length]

    copies = [read(offset, SUPERBLOCK_BYTES) for offset in (0, SUPERBLOCK_COPY_OFFSET)]
    superblock: Superblock = choose(*copies)[0]
    if slot_offset_bytes(superblock.slot_count, superblock.segment_bytes) > size_bytes:
        raise HostError(
            f"read tier {path}",
            f"it ends at byte {size_bytes}, before its {superblock.slot_count} slots",
        )
    digest = xxh3_128(superblock.pack())
    for slot in range(superblock.slot_count):
        offset = slot_offset_bytes(slot, superblock.segment_bytes)
        digest.update(read(offset, SEGMENT_HEADER_BYTES))
    return TierFound(superblock.uuid, digest.digest(), path)
