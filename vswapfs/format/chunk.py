"""Chunks: how much of a segment one block of a tier holds, and where that lies.

Owns this arithmetic and the cipher's nonce. Never encrypts. Always holds: chunk ``n`` of a segment
lies in block ``n`` of its slot, so a record is read with the blocks that hold its bytes and no
others, encrypted or not.

    plain       block n is chunk n: 4096 bytes of the segment
    encrypted   4080 bytes of the segment, encrypted, and behind them the tag, 16 bytes; of chunk 0
                the first 64 bytes, the segment header, are left as they are

A block of its own tag because single records are read from tiers: a tag over more would make a load
read, and decrypt, more. In the block and not in RAM because there the tags would take 4 KiB for
each segment on a tier, and would have to be handed over, too.
"""

import struct
from collections.abc import Iterator
from typing import Final

from vswapfs.units import PAGE_BYTES

BLOCK_BYTES: Final = PAGE_BYTES
TAG_BYTES: Final = 16
PLAIN_CHUNK_BYTES: Final = BLOCK_BYTES
ENCRYPTED_CHUNK_BYTES: Final = BLOCK_BYTES - TAG_BYTES

NONCE: Final = struct.Struct("<QI")
"""Number of the write, number of the chunk. A write's number is never used again, so neither is a
nonce (core/segment.py)."""


def blocks_bytes(fill_bytes: int, chunk_bytes: int) -> int:
    """What a segment filled that far takes of its slot: whole blocks."""
    return -(-fill_bytes // chunk_bytes) * BLOCK_BYTES


def place_in_slot(offset_bytes: int, chunk_bytes: int) -> int:
    """Where in its slot a byte of a segment lies."""
    block, rest = divmod(offset_bytes, chunk_bytes)
    return block * BLOCK_BYTES + rest


def pieces_in_slot(
    offset_bytes: int, length_bytes: int, chunk_bytes: int
) -> Iterator[tuple[int, int]]:
    """Where in its slot these bytes of a segment lie: [start, stop) of each block."""
    end_bytes = offset_bytes + length_bytes
    while offset_bytes < end_bytes:
        start = place_in_slot(offset_bytes, chunk_bytes)
        length = min(chunk_bytes - offset_bytes % chunk_bytes, end_bytes - offset_bytes)
        yield start, start + length
        offset_bytes += length


def offset_in_segment(place_bytes: int, chunk_bytes: int) -> int:
    """The reverse: which byte of its segment a byte of a slot is, if it is no tag's."""
    block, rest = divmod(place_bytes, BLOCK_BYTES)
    return block * chunk_bytes + rest
