"""Verification: from the bytes of a record to its page, or to the reason why not.

Owns the one place where a page is let out. Touches no store, so I/O threads verify what they read.
Always holds: the bytes returned have the checksum they had when they arrived, and the record
belongs to the page that was asked for and to the segment that it should lie in.
"""

import struct

from vswapfs.core.descriptor import place
from vswapfs.errors import LostPageError
from vswapfs.format.codec import DecodeError, checksum, decode
from vswapfs.format.record import (
    CHECKSUM_MASK,
    CODEC_SHIFT,
    HEADER,
    HEADER_BYTES,
    PAGE_FACTOR,
    SEQUENCE_FACTOR,
)
from vswapfs.units import PAGE_BYTES


class NotInRamError(Exception):
    """The page is on a tier. Not an error of the tree: it tells the lane to have it fetched."""

    def __init__(self, page: int, word: int) -> None:
        super().__init__(f"page {page} is on a tier")
        self.page = page
        self.word = word


def lost(page: int, word: int, reason: str) -> LostPageError:
    """The error for a page whose descriptor or record is damaged."""
    segment, offset, length_bytes = place(word)
    return LostPageError(
        page,
        f"page {page} (offset {page * PAGE_BYTES:#x}) cannot be verified: {reason}; record of "
        f"{length_bytes} bytes at offset {offset} of segment {segment}",
    )


def verify(page: int, word: int, sequence: int, found: memoryview) -> bytes:
    """The page in the bytes of its record, header included; ``sequence`` is its segment's.

    Raises LostPageError.
    """
    try:
        bound, owner, tag = HEADER.unpack_from(found)
        data = decode(tag >> CODEC_SHIFT, found[HEADER_BYTES:])
    except DecodeError as error:
        raise lost(page, word, str(error)) from None
    except struct.error as error:
        raise lost(page, word, f"its descriptor leads nowhere ({error})") from None
    if owner != page:
        raise lost(page, word, f"the record is page {owner}'s")
    # record.binding, without its calls
    expected = bound ^ (sequence * SEQUENCE_FACTOR ^ page * PAGE_FACTOR) & CHECKSUM_MASK
    if checksum(data) != expected:
        raise lost(page, word, f"checksum is not {expected:016x}")
    return data
