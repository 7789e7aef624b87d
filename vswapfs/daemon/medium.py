"""A tier's medium: taking it, its superblock, reading what can be read, erasing it.

Owns these steps. Blocks, so it is called on I/O threads or before the lane runs; never touches the
store.
"""

import errno
import mmap
import time
import uuid
from collections.abc import Callable

from vswapfs.backing.api import Backing
from vswapfs.backing.file import FileBacking
from vswapfs.errors import HostError, VswapError
from vswapfs.format.message import Config, TierConfig
from vswapfs.format.tier import SUPERBLOCK_COPY_OFFSET, Superblock
from vswapfs.units import PAGE_BYTES


def scratch(size_bytes: int) -> memoryview:
    """Page-aligned memory for direct I/O."""
    return memoryview(mmap.mmap(-1, size_bytes))


def open_tier(
    config: TierConfig, instance: str, segment_bytes: int
) -> tuple[FileBacking, Superblock]:
    """Take the file or device and write its superblock. Blocks; raises UsageError and HostError."""
    backing = FileBacking.open(
        config.path, config.size_bytes, overwrite=config.overwrite, owner=instance
    )
    previous = backing.previous
    superblock = Superblock(
        uuid=uuid.uuid4().bytes,
        name=instance,
        segment_bytes=segment_bytes,
        slot_count=config.size_bytes // segment_bytes - 1,
        generation=previous.generation + 1 if previous else 1,
        created_unix_s=int(time.time()),
        budget_bytes_per_day=previous.budget_bytes_per_day if previous else 0,
        budget_window_start_unix_s=previous.budget_window_start_unix_s if previous else 0,
        budget_spent_bytes=previous.budget_spent_bytes if previous else 0,
    )
    try:
        write_superblock(backing, superblock)
    except OSError as error:
        backing.close()
        raise HostError(f"write the superblock of {config.path}", str(error)) from None
    return backing, superblock


OpenTiers = list[tuple[str, Backing, Superblock]]


def open_tiers(config: Config, segment_bytes: int, step: Callable[[str], None]) -> OpenTiers:
    """All tiers of a configuration, or none: raises what open_tier raises."""
    tiers: OpenTiers = []
    try:
        for tier in config.tiers:
            step(f"open tier {tier.path}")
            tiers.append((tier.path, *open_tier(tier, config.name, segment_bytes)))
    except VswapError:
        for _path, backing, _superblock in tiers:
            backing.close()
        raise
    return tiers


def write_superblock(backing: Backing, superblock: Superblock) -> None:
    """The copy first, so that one of the two is whole at any moment."""
    block = scratch(PAGE_BYTES)
    block[:] = superblock.pack()
    for offset in (SUPERBLOCK_COPY_OFFSET, 0):
        backing.write(offset, block)
        backing.flush()


def erase(backing: Backing) -> None:
    """The medium is nobody's tier any more: remove the superblock, give the rest back."""
    block = scratch(PAGE_BYTES)
    try:
        for offset in (0, SUPERBLOCK_COPY_OFFSET):
            backing.write(offset, block)
        backing.trim(0, backing.size_bytes)
        backing.flush()
    except OSError as error:
        raise HostError(
            "erase the superblock", str(error), remedy="all pages are off it; wipefs it yourself"
        ) from None
    finally:
        backing.close()


def write_and_look(backing: Backing, offset: int, buffer: memoryview) -> None:
    """Write a segment, then read its first and last block back: a medium that says it wrote and
    did not, or wrote elsewhere, would otherwise be found out when the copy in RAM is gone, or not
    at all where the slot's old contents verify. Two small reads cost a tenth of the write."""
    backing.write(offset, buffer)
    block = scratch(PAGE_BYTES)
    for at in {0, len(buffer) - PAGE_BYTES}:
        backing.read_into(offset + at, block)
        if block != buffer[at : at + PAGE_BYTES]:
            raise OSError(errno.EIO, f"byte {offset + at} does not hold what was written")


def read_whole(backing: Backing, offset: int, buffer: memoryview, *, salvage: bool) -> None:
    """Read a whole segment. To salvage it, zeros take the place of blocks that cannot be read: the
    records in them fail their checksums, the others are saved."""
    try:
        backing.read_into(offset, buffer)
    except OSError:
        if not salvage:
            raise
        for start in range(0, len(buffer), PAGE_BYTES):
            block = buffer[start : start + PAGE_BYTES]
            try:
                backing.read_into(offset + start, block)
            except OSError:
                block[:] = bytes(PAGE_BYTES)
