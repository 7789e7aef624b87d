"""The log on disk: where things lie in a tier, its superblock, and the header of a segment in it.

Owns the layout of both. Never reads or writes a medium. Always holds: all little-endian; all-zero
means empty; the checksum is xxh3-64 of everything before it, and what comes behind it is zero.

    [0, 1 segment)            superblock at byte 0, its copy at byte 524288, the rest zero
    (slot + 1) * segment      a segment: header of 64 bytes, then records (record.py) up to its
                              fill; in blocks of one chunk each (chunk.py), encrypted or not

    superblock                                  segment header
    offset  size  field                         offset  size  field
         0     8  magic                              0     4  magic
         8     4  version                            4     2  version
        12     4  segment_bytes                      6     2  flags (none yet: 0)
        16     8  slot_count                         8     8  sequence
        24     8  generation                        16     8  slot
        32    16  uuid                              24     4  fill_bytes, header included
        48    32  name of the instance              28     4  0
        80     8  created_unix_s                    32    16  uuid of the tier
        88     8  budget_bytes_per_day              48     8  records_checksum
        96     8  budget_window_start_unix_s        56     8  checksum
       104     8  budget_spent_bytes
       112     4  cipher: 0 none, 1 AES-256-GCM
       116  3972  0
      4088     8  checksum

A version that adds a field moves neither magic, version nor checksum: another version is told from
damage.
"""

import struct
from dataclasses import dataclass
from typing import Final

from xxhash import xxh3_64_intdigest

from vswapfs.errors import TierFormatError, UsageError
from vswapfs.format.chunk import ENCRYPTED_CHUNK_BYTES, PLAIN_CHUNK_BYTES
from vswapfs.format.instance import check_name

SUPERBLOCK_BYTES: Final = 4096
SUPERBLOCK_COPY_OFFSET: Final = 524288
SEGMENT_HEADER_BYTES: Final = 64
SEGMENT_MIN_BYTES: Final = 2 * SUPERBLOCK_COPY_OFFSET  # the copy lies in the first segment
SEGMENT_MAX_BYTES: Final = 1 << 26  # whoever reads a segment has it in memory
TIERS_MAX: Final = 255  # that an instance can have
TIER_MIN_SEGMENTS: Final = 4  # one is taken by the superblock

CIPHER_NONE: Final = 0
CIPHER_AES_256_GCM: Final = 1
CIPHER_NAMES: Final = {CIPHER_NONE: "none", CIPHER_AES_256_GCM: "AES-256-GCM"}

_VERSION: Final = 2
_SUPERBLOCK_MAGIC: Final = b"vswapfs\0"
_SUPERBLOCK: Final = struct.Struct("<8sIIQQ16s32sQQQQI")
_SEGMENT_MAGIC: Final = 0x47657356  # "VseG"
_SEGMENT: Final = struct.Struct("<IHHQQII16sQ")
_CHECKSUM: Final = struct.Struct("<Q")
_TIER_MAX_BYTES: Final = 1 << 63


@dataclass(frozen=True, slots=True)
class Superblock:
    """What a tier is, and the write budget that must outlive the daemon."""

    uuid: bytes
    name: str
    segment_bytes: int
    slot_count: int
    generation: int
    """Of two valid copies the one with the higher generation holds."""
    created_unix_s: int
    budget_bytes_per_day: int = 0
    """0: none."""
    budget_window_start_unix_s: int = 0
    budget_spent_bytes: int = 0
    cipher: int = CIPHER_NONE
    """Of the segments. The key is on no medium."""

    @property
    def chunk_bytes(self) -> int:
        """What a block holds of a segment."""
        return ENCRYPTED_CHUNK_BYTES if self.cipher else PLAIN_CHUNK_BYTES

    def pack(self) -> bytes:
        fields = _SUPERBLOCK.pack(
            _SUPERBLOCK_MAGIC,
            _VERSION,
            self.segment_bytes,
            self.slot_count,
            self.generation,
            self.uuid,
            self.name.encode("ascii"),
            self.created_unix_s,
            self.budget_bytes_per_day,
            self.budget_window_start_unix_s,
            self.budget_spent_bytes,
            self.cipher,
        )
        covered = fields.ljust(SUPERBLOCK_BYTES - _CHECKSUM.size, b"\0")
        return covered + _CHECKSUM.pack(xxh3_64_intdigest(covered))

    @classmethod
    def unpack(cls, data: bytes | memoryview) -> "Superblock":
        """Raises TierFormatError that says what is wrong."""
        if len(data) != SUPERBLOCK_BYTES:
            raise TierFormatError(
                f"not a tier: only {len(data)} of the {SUPERBLOCK_BYTES} bytes of a superblock"
            )
        magic, version, segment_bytes, slot_count, generation, uuid, name, *numbers = (
            _SUPERBLOCK.unpack_from(data)
        )
        cipher = numbers[-1]
        if magic != _SUPERBLOCK_MAGIC:
            raise TierFormatError("not a tier: no superblock here")
        covered = SUPERBLOCK_BYTES - _CHECKSUM.size
        _check_checksum("superblock", data, covered)
        _check_version("superblock", version)
        _check_geometry(segment_bytes, slot_count)
        if cipher not in CIPHER_NAMES:
            raise TierFormatError(f"superblock: cipher {cipher}; this program knows none such")
        try:
            text = check_name(name.rstrip(b"\0").decode("ascii"))
        except (UnicodeDecodeError, UsageError):
            raise TierFormatError(f"superblock: {name!r} is not a name") from None
        return cls(uuid, text, segment_bytes, slot_count, generation, *numbers)


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """What a segment says of itself."""

    sequence: int
    slot: int
    fill_bytes: int
    """Bytes used of the segment, this header included."""
    tier_uuid: bytes
    records_checksum: int


def choose(
    primary: bytes | memoryview, copy: bytes | memoryview
) -> tuple[Superblock, list[tuple[int, str]]]:
    """The superblock that holds, and findings: byte offset in the tier, and what is wrong there.

    Raises TierFormatError if neither can be used.
    """
    valid: dict[int, Superblock] = {}
    findings: list[tuple[int, str]] = []
    for offset, data in ((0, primary), (SUPERBLOCK_COPY_OFFSET, copy)):
        try:
            valid[offset] = Superblock.unpack(data)
        except TierFormatError as error:
            findings.append((offset, error.message))
    if not valid:
        first, second = (text for _offset, text in findings)
        both = f"byte 0: {first}; byte {SUPERBLOCK_COPY_OFFSET}: {second}"
        raise TierFormatError(first if first == second else both)
    best = max(valid.values(), key=lambda superblock: superblock.generation)
    for offset, superblock in valid.items():
        if superblock.uuid != best.uuid:
            findings.append((offset, f"superblock of another tier, {superblock.uuid.hex()}"))
        # One behind is how a power cut between the two writes leaves them.
        elif superblock.generation < best.generation - 1:
            findings.append(
                (offset, f"old superblock: {superblock.generation} instead of {best.generation}")
            )
    return best, findings


def slot_offset_bytes(slot: int, segment_bytes: int) -> int:
    """Where a slot begins in its tier."""
    return (slot + 1) * segment_bytes


def pack_segment_header(header: SegmentHeader) -> bytes:
    covered = _SEGMENT.pack(
        _SEGMENT_MAGIC,
        _VERSION,
        0,
        header.sequence,
        header.slot,
        header.fill_bytes,
        0,
        header.tier_uuid,
        header.records_checksum,
    )
    return covered + _CHECKSUM.pack(xxh3_64_intdigest(covered))


def unpack_segment_header(data: bytes | memoryview) -> SegmentHeader:
    """Of the first SEGMENT_HEADER_BYTES of ``data``. Raises TierFormatError.

    All zero, an empty slot, is no header either: see is_empty.
    """
    if len(data) < SEGMENT_HEADER_BYTES:
        raise TierFormatError(f"segment header: cut off after {len(data)} bytes")
    magic, version, flags, sequence, slot, fill_bytes, pad, uuid, records = _SEGMENT.unpack_from(
        data
    )
    if magic != _SEGMENT_MAGIC:
        raise TierFormatError(f"segment header: no segment begins here (magic {magic:#010x})")
    _check_checksum("segment header", data, _SEGMENT.size)
    _check_version("segment header", version)
    if flags or pad:
        raise TierFormatError("segment header: not zero where nothing is defined")
    if fill_bytes < SEGMENT_HEADER_BYTES:
        raise TierFormatError(f"segment header: a fill of {fill_bytes} bytes is impossible")
    return SegmentHeader(sequence, slot, fill_bytes, uuid, records)


def records_checksum(segment: memoryview, end_bytes: int) -> int:
    """Over all records of a segment as they lie on the tier, so that it can be trusted without
    looking at each: up to the fill or, where they are encrypted, to the end of the last block. Not
    over what was encrypted: that would tell whether a guess of it is right."""
    return xxh3_64_intdigest(segment[SEGMENT_HEADER_BYTES:end_bytes])


def check_segment_header(header: SegmentHeader, uuid: bytes, slot: int) -> str | None:
    """What is wrong with a valid header found in ``slot`` of tier ``uuid``; None if nothing is."""
    if header.tier_uuid != uuid:
        return f"foreign: a segment of tier {header.tier_uuid.hex()}"
    if header.slot != slot:
        return f"misplaced: the segment of slot {header.slot}"
    return None


def is_empty(data: bytes | memoryview) -> bool:
    """Whether a slot that begins with ``data`` holds no segment."""
    return not any(data[:SEGMENT_HEADER_BYTES])


def _check_checksum(what: str, data: bytes | memoryview, covered: int) -> None:
    (expected,) = _CHECKSUM.unpack_from(data, covered)
    found = xxh3_64_intdigest(data[:covered])
    if found != expected:
        raise TierFormatError(f"{what}: damaged: checksum {found:016x}, not {expected:016x}")


def _check_version(what: str, version: int) -> None:
    if version != _VERSION:
        raise TierFormatError(f"{what}: version {version}; this program knows {_VERSION}")


def _check_geometry(segment_bytes: int, slot_count: int) -> None:
    possible = SEGMENT_MIN_BYTES <= segment_bytes <= SEGMENT_MAX_BYTES
    if not possible or segment_bytes & (segment_bytes - 1):
        raise TierFormatError(
            f"superblock: impossible geometry: segments of {segment_bytes} bytes; a power of two "
            f"from {SEGMENT_MIN_BYTES} to {SEGMENT_MAX_BYTES}"
        )
    if not TIER_MIN_SEGMENTS <= slot_count + 1 <= _TIER_MAX_BYTES // segment_bytes:
        raise TierFormatError(f"superblock: impossible geometry: {slot_count} slots")
