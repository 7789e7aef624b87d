"""Goes through the bytes of a segment as it lies in a tier and verifies everything in it.

Owns what counts as damage. Never needs the descriptors and never raises for what it finds: the
bytes may be anything. What it cannot see without the descriptors: whether a record is still the
one of its page, and whether the whole segment is an earlier one of its slot. Where records are
encrypted it cannot see them without the key: then it verifies header and checksum of the segment.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from vswapfs.errors import TierFormatError
from vswapfs.format.chunk import BLOCK_BYTES, blocks_bytes, place_in_slot
from vswapfs.format.codec import DecodeError, checksum, decode
from vswapfs.format.record import (
    CODEC_SHIFT,
    HEADER,
    HEADER_BYTES,
    PAGE_NONE,
    RecordError,
    binding,
    header_at,
)
from vswapfs.format.tier import (
    SEGMENT_HEADER_BYTES,
    SegmentHeader,
    Superblock,
    check_segment_header,
    is_empty,
    records_checksum,
    slot_offset_bytes,
    unpack_segment_header,
)
from vswapfs.units import PAGE_BYTES

EMPTY: Final = "empty"
VALID: Final = "valid"
DAMAGED: Final = "damaged"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it has to be."""

    byte_offset: int
    """In the tier."""
    slot: int | None
    """None: in a superblock."""
    page_offset: int | None
    """Of the page whose record it is, in the area."""
    reason: str


@dataclass(frozen=True, slots=True)
class RecordFound:
    """A whole record, verified or not."""

    byte_offset: int
    page_offset: int
    stored_bytes: int
    codec: int
    checksum: int
    """Of the page: the binding is taken out."""
    error: str | None
    """Why it could not be verified."""


@dataclass(slots=True)
class SegmentFound:
    """What lies in a slot."""

    slot: int
    header: SegmentHeader | None = None
    records: list[RecordFound] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def state(self) -> str:
        """``empty``, ``damaged`` if there is any finding, or ``valid``."""
        if self.findings:
            return DAMAGED
        return VALID if self.header else EMPTY


Decrypt = Callable[[memoryview], tuple[memoryview, list[int]]]
"""The bytes of a slot as the segment is in RAM, and which blocks are not what was written; these
are zero in it."""


def walk_segment(
    data: memoryview, superblock: Superblock, slot: int, decrypt: Decrypt | None = None
) -> SegmentFound:
    """Verify the bytes of a slot; fewer than a segment if the medium ends before."""
    base = slot_offset_bytes(slot, superblock.segment_bytes)
    found = SegmentFound(slot)
    if is_empty(data) and len(data) >= SEGMENT_HEADER_BYTES:
        return found
    try:
        header = unpack_segment_header(data)
    except TierFormatError as error:
        found.findings.append(Finding(base, slot, None, error.message))
        return found
    found.header = header
    wrong = check_segment_header(header, superblock.uuid, slot)
    chunk_bytes = superblock.chunk_bytes
    fill_bytes = min(header.fill_bytes, superblock.segment_bytes // BLOCK_BYTES * chunk_bytes)
    if wrong is None and fill_bytes < header.fill_bytes:
        wrong = f"segment header: a fill of {header.fill_bytes} bytes is impossible"
    if wrong is not None:
        found.findings.append(Finding(base, slot, None, wrong))
    stop = blocks_bytes(fill_bytes, chunk_bytes) if superblock.cipher else fill_bytes
    if len(data) < stop:
        reason = f"the medium ends here, {stop - len(data)} bytes before the segment's fill"
        found.findings.append(Finding(base + len(data), slot, None, reason))
    present = data[: min(stop, len(data))]
    if not superblock.cipher:
        _walk_records(present, base, chunk_bytes, header.sequence, found)
    elif decrypt is not None:
        plain, bad_blocks = decrypt(present[: len(present) // BLOCK_BYTES * BLOCK_BYTES])
        for block in bad_blocks:
            reason = "this block does not decrypt: it is not what was written here"
            found.findings.append(Finding(base + block * BLOCK_BYTES, slot, None, reason))
        _walk_records(plain[:fill_bytes], base, chunk_bytes, header.sequence, found)
    if not found.findings and records_checksum(data, stop) != header.records_checksum:
        reason = "the checksum of all records is wrong"
        if not superblock.cipher:  # else nobody has looked at each
            reason = f"a byte has changed that no page depends on: {reason}"
        found.findings.append(Finding(base, slot, None, reason))
    return found


def _walk_records(
    data: memoryview, base: int, chunk_bytes: int, sequence: int, found: SegmentFound
) -> None:
    at, stop = SEGMENT_HEADER_BYTES, len(data)
    while at < stop:
        place = base + place_in_slot(at, chunk_bytes)
        try:
            page, length_bytes = header_at(data, at, stop)
        except RecordError:
            reason = f"no whole record here; {stop - at} bytes to the fill cannot be walked"
            found.findings.append(Finding(place, found.slot, None, reason))
            return
        bound, _page, tag = HEADER.unpack_from(data, at)
        expected = bound ^ binding(sequence, page)
        codec = tag >> CODEC_SHIFT
        error = _verify(page, codec, data[at + HEADER_BYTES : at + length_bytes], expected)
        record = RecordFound(
            place, page * PAGE_BYTES, length_bytes - HEADER_BYTES, codec, expected, error
        )
        found.records.append(record)
        if error is not None:
            found.findings.append(Finding(place, found.slot, record.page_offset, error))
        at += length_bytes


def _verify(page: int, codec: int, payload: memoryview, expected: int) -> str | None:
    """Why the record is not what was stored; None if it is."""
    if page == PAGE_NONE:
        return f"page number {page} is no page's"
    try:
        found = checksum(decode(codec, payload))
    except DecodeError as error:
        return str(error)
    return None if found == expected else f"checksum {found:016x}, not {expected:016x}"
