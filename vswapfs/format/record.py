"""The record: one page as it lies in a segment, in RAM or on a tier.

    offset  size  field
         0     8  checksum  xxh3-64 of the uncompressed page, XORed with the binding
         8     4  page      page number, so that a record found elsewhere is known as misdirected
        12     2  tag       low 12 bits: payload bytes - 1; high 4 bits: codec
        14     n  payload   1..4096 bytes

The binding is a number made of the segment's sequence and the page. Without it an earlier record of
the same page, in an earlier segment that a lost write left in the same place, would verify. Moving
a record to another segment takes the old binding out and puts the new one in; the checksum itself
is never computed again.

Little-endian and unaligned: with byte granularity a descriptor still fits 64 bits, and no byte is
lost to padding (16-byte units would cost 7.5 bytes a page on average). All zero means that no
record begins here. Self-describing so that a segment can be walked without the descriptors.
"""

import struct
from typing import Final

HEADER: Final = struct.Struct("<QIH")
HEADER_BYTES: Final = HEADER.size
PAYLOAD_MAX_BYTES: Final = 4096
RECORD_MAX_BYTES: Final = HEADER_BYTES + PAYLOAD_MAX_BYTES

LENGTH_MASK: Final = 0xFFF
CODEC_SHIFT: Final = 12

# 0 is none: what was never written is zero.
CODEC_RAW: Final = 1  # the page itself
CODEC_LZ4: Final = 2  # an LZ4 block without a size in front
CODEC_NAMES: Final = {CODEC_RAW: "raw", CODEC_LZ4: "lz4"}

PAGE_NONE: Final = 0xFFFF_FFFF  # no page's number; so an area has fewer pages than this

CHECKSUM: Final = struct.Struct("<Q")
CHECKSUM_MASK: Final = (1 << 64) - 1
PAGE_FACTOR: Final = 0xC2B2AE3D27D4EB4F
SEQUENCE_FACTOR: Final = 0x9E3779B97F4A7C15
# Both odd: different sequences (or pages) never give the same product modulo 2**64.


def sequence_binding(sequence: int) -> int:
    """The sequence's part of the binding."""
    return sequence * SEQUENCE_FACTOR & CHECKSUM_MASK


def binding(sequence: int, page: int) -> int:
    """What a record's checksum is XORed with."""
    return sequence_binding(sequence) ^ page * PAGE_FACTOR & CHECKSUM_MASK


class RecordError(Exception):
    """No whole record where one has to begin: the segment's memory is damaged."""


def header_at(buffer: memoryview, start: int, stop: int) -> tuple[int, int]:
    """Page and length (header included) of the record at ``start``, which must end by ``stop``.

    Raises RecordError. One step of the walk through a segment.
    """
    if start + HEADER_BYTES <= stop:
        _checksum, page, tag = HEADER.unpack_from(buffer, start)
        length_bytes: int = HEADER_BYTES + (tag & LENGTH_MASK) + 1
        if tag >> CODEC_SHIFT in CODEC_NAMES and start + length_bytes <= stop:
            return page, length_bytes
    raise RecordError(f"no record at byte {start}")
