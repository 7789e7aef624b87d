"""A tier's medium: taking it, its superblock, reading what can be read, erasing it.

Owns these steps. Blocks, so it is called on I/O threads or before the lane runs; never touches the
store.
"""

import errno
import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from vswapfs.backing.absent import AbsentBacking
from vswapfs.backing.api import Backing
from vswapfs.backing.file import FileBacking
from vswapfs.backing.scratch import Scratch, scratch
from vswapfs.daemon.cipher import Cipher
from vswapfs.daemon.io_threads import TIER_IO_THREADS
from vswapfs.errors import HostError, TierFormatError, VswapError
from vswapfs.format.chunk import ENCRYPTED_CHUNK_BYTES, blocks_bytes
from vswapfs.format.message import Config, TierConfig
from vswapfs.format.session import TierEntry
from vswapfs.format.tier import (
    CIPHER_AES_256_GCM,
    CIPHER_NONE,
    SEGMENT_HEADER_BYTES,
    SUPERBLOCK_COPY_OFFSET,
    SegmentHeader,
    Superblock,
    pack_segment_header,
    records_checksum,
    unpack_segment_header,
)
from vswapfs.units import PAGE_BYTES

_log = logging.getLogger(__name__)

_blocks = Scratch(PAGE_BYTES, TIER_IO_THREADS)


def open_tier(
    config: TierConfig, instance: str, segment_bytes: int, *, encrypt: bool
) -> tuple[FileBacking, Superblock]:
    """Take the file or device and write its superblock. Blocks; raises UsageError and HostError.

    Whenever the power goes meanwhile, an earlier tier of the instance has a superblock that holds.
    """
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
        cipher=CIPHER_AES_256_GCM if encrypt else CIPHER_NONE,
    )
    try:
        if previous:
            # A power cut may have left the copy only, which is the first to be replaced.
            _write_superblock_at(0, backing, previous)
        write_superblock(backing, superblock)
    except OSError as error:
        backing.unmake(config.path)
        backing.close()
        raise HostError(f"write the superblock of {config.path}", str(error)) from None
    return backing, superblock


def open_again(
    entry: TierEntry, name: str, segment_bytes: int, *, encrypt: bool
) -> tuple[Backing, Superblock]:
    """The tier of a predecessor. Where it is gone, one that fails at everything."""
    try:
        return FileBacking.open_again(entry.path, entry.size_bytes, entry.uuid)
    except HostError as error:
        _log.error("%s", error)
        cipher = CIPHER_AES_256_GCM if encrypt else CIPHER_NONE
        superblock = Superblock(
            entry.uuid, name, segment_bytes, entry.slot_count, 1, 0, cipher=cipher
        )
        return AbsentBacking(entry.size_bytes, error.message), superblock


OpenTiers = list[tuple[str, FileBacking, Superblock]]


def open_tiers(config: Config, segment_bytes: int, step: Callable[[str], None]) -> OpenTiers:
    """All tiers of a configuration, or none: raises what open_tier raises."""
    tiers: OpenTiers = []
    try:
        for tier in config.tiers:
            step(f"open tier {tier.path}")
            medium = open_tier(tier, config.name, segment_bytes, encrypt=config.encrypt)
            tiers.append((tier.path, *medium))
    except VswapError:
        for path, backing, _superblock in tiers:
            backing.unmake(path)
            backing.close()
        raise
    return tiers


def write_superblock(backing: Backing, superblock: Superblock) -> None:
    """The copy first, so that one of the two is whole at any moment."""
    for offset in (SUPERBLOCK_COPY_OFFSET, 0):
        _write_superblock_at(offset, backing, superblock)


def _write_superblock_at(offset: int, backing: Backing, superblock: Superblock) -> None:
    # For the write budget, too, while segments are written because memory is short.
    with _blocks.buffer() as block:
        block[:] = superblock.pack()
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


class Encryption(NamedTuple):
    """What encrypts one segment, and what decrypts it again."""

    cipher: Cipher
    write_number: int


def write_segment(
    backing: Backing,
    offset: int,
    segment: memoryview,
    header: SegmentHeader,
    encryption: Encryption | None = None,
) -> None:
    """Write a segment from RAM, with this header once its records_checksum is in it; then read its
    first and last block back: a medium that says it wrote and did not, or wrote elsewhere, would
    otherwise be found out when the copy in RAM is gone. Two small reads cost a tenth of the write.
    Raises OSError."""
    if encryption is None:
        _write_blocks(backing, offset, segment, header, header.fill_bytes)
        return
    with encryption.cipher.segments.buffer() as buffer:
        blocks = encryption.cipher.encrypt(
            encryption.write_number, segment, header.fill_bytes, buffer
        )
        _write_blocks(backing, offset, blocks, header, len(blocks))


def _write_blocks(
    backing: Backing, offset: int, blocks: memoryview, header: SegmentHeader, end_bytes: int
) -> None:
    header = replace(header, records_checksum=records_checksum(blocks, end_bytes))
    blocks[:SEGMENT_HEADER_BYTES] = pack_segment_header(header)
    backing.write(offset, blocks)
    with _blocks.buffer() as block:
        for at in {0, len(blocks) - PAGE_BYTES}:
            backing.read_into(offset + at, block)
            if block != blocks[at : at + PAGE_BYTES]:
                raise OSError(errno.EIO, f"byte {offset + at} does not hold what was written")


def read_segment(
    backing: Backing,
    offset: int,
    segment: memoryview,
    header: SegmentHeader,
    encryption: Encryption | None = None,
    *,
    salvage: bool,
) -> None:
    """Read a whole segment to RAM; it must have this header (but for the records_checksum), and the
    records that the header vouches for. Raises OSError and TierFormatError.

    To salvage it, whatever can be read is taken, with zeros in place of other blocks: records that
    are damaged fail their checksums, the others are saved.
    """
    if encryption is None:
        _read_blocks(backing, offset, segment, header, header.fill_bytes, salvage=salvage)
        return
    length = blocks_bytes(header.fill_bytes, ENCRYPTED_CHUNK_BYTES)
    with encryption.cipher.segments.buffer() as buffer:
        blocks = buffer[:length]
        _read_blocks(backing, offset, blocks, header, length, salvage=salvage)
        bad = encryption.cipher.decrypt(encryption.write_number, blocks, segment)
    if bad and not salvage:
        raise TierFormatError(f"block {bad[0]} is not what was written here: it does not decrypt")


def _read_blocks(
    backing: Backing,
    offset: int,
    blocks: memoryview,
    header: SegmentHeader,
    end_bytes: int,
    *,
    salvage: bool,
) -> None:
    try:
        backing.read_into(offset, blocks)
        if not salvage:
            _check_segment(blocks, header, end_bytes)
    except OSError:
        if not salvage:
            raise
        for start in range(0, len(blocks), PAGE_BYTES):
            block = blocks[start : start + PAGE_BYTES]
            try:
                backing.read_into(offset + start, block)
            except OSError:
                block[:] = bytes(PAGE_BYTES)


def _check_segment(blocks: memoryview, header: SegmentHeader, end_bytes: int) -> None:
    found = unpack_segment_header(blocks)
    if replace(found, records_checksum=header.records_checksum) != header:
        raise TierFormatError(f"not the segment that was written here, but {found}")
    if records_checksum(blocks, end_bytes) != found.records_checksum:
        raise TierFormatError("the records are not those that were written: checksum")
