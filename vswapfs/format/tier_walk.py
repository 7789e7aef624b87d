"""Goes through the bytes of a segment as it lies in a tier and verifies everything in it.

Owns what counts as damage. Never needs the descriptors and never raises for what it finds: the
bytes may be anything. What it cannot see without the descriptors: whether a record is still the
one of its page, and whether the whole segment is an earlier one of its slot.
"""

from dataclasses import dataclass, field
from typing import Final

from vswapfs.errors import TierFormatError
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


def walk_segment(data: memoryview, superblock: Superblock, slot: int) -> SegmentFound:
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
    if wrong is None and header.fill_bytes > superblock.segment_bytes:
        wrong = f"segment header: a fill of {header.fill_bytes} bytes is impossible"
    if wrong is not None:
        found.findings.append(Finding(base, slot, None, wrong))
    stop = min(header.fill_bytes, superblock.segment_bytes)
    if len(data) < stop:
        reason = f"the medium ends here, {stop - len(data)} bytes before the segment's fill"
        found.findings.append(Finding(base + len(data), slot, None, reason))
    _walk_records(data, base, min(stop, len(data)), header.sequence, found)
    if not found.findings and records_checksum(data, stop) != header.records_checksum:
        reason = "a byte has changed that no page depends on: the checksum of all records is wrong"
        found.findings.append(Finding(base, slot, None, reason))
    return found


def _walk_records(
    data: memoryview, base: int, stop: int, sequence: int, found: SegmentFound
) -> None:
    at = SEGMENT_HEADER_BYTES
    while at < stop:
        try:
            page, length_bytes = header_at(data, at, stop)
        except RecordError:
            reason = f"no whole record here; {stop - at} bytes to the fill cannot be walked"
            found.findings.append(Finding(base + at, found.slot, None, reason))
            return
        bound, _page, tag = HEADER.unpack_from(data, at)
        expected = bound ^ binding(sequence, page)
        codec = tag >> CODEC_SHIFT
        error = _verify(page, codec, data[at + HEADER_BYTES : at + length_bytes], expected)
        record = RecordFound(
            base + at, page * PAGE_BYTES, length_bytes - HEADER_BYTES, codec, expected, error
        )
        found.records.append(record)
        if error is not None:
            found.findings.append(Finding(base + at, found.slot, record.page_offset, error))
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
