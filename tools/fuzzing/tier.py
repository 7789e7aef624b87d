"""Images of tiers: what `log check` and `log dump` make of them, a claim, and a resume.

Whatever the file holds becomes findings, or one of the errors of the tree. What is verified is what
was written: a record that is not said to be damaged has the page that the image was made with.
"""

import os
import random
from typing import Final
from unittest import mock

from xxhash import xxh3_64_intdigest

from fuzzing.patches import PatchedFile
from fuzzing.source import Source
from vswapfs.backing import claim
from vswapfs.backing.memory import MemoryBacking
from vswapfs.backing.scratch import scratch
from vswapfs.ctl import log
from vswapfs.ctl.medium import opened, read_superblock, walk
from vswapfs.daemon.medium import read_segment
from vswapfs.errors import HostError, TierFormatError, VswapError
from vswapfs.format.codec import checksum, encode
from vswapfs.format.record import CODEC_SHIFT, HEADER, binding
from vswapfs.format.tier import (
    SEGMENT_HEADER_BYTES,
    SUPERBLOCK_BYTES,
    SUPERBLOCK_COPY_OFFSET,
    SegmentHeader,
    Superblock,
    pack_segment_header,
    records_checksum,
    slot_offset_bytes,
)
from vswapfs.format.tier_walk import EMPTY
from vswapfs.hibernate import tiers
from vswapfs.units import PAGE_BYTES

SEEDS: Final = [bytes([kind]) + random.Random(kind).randbytes(60) for kind in range(12)]

_SEGMENT_BYTES: Final = 1 << 20
_SLOTS: Final = 3
_PAGES: Final = 12
"""In each slot but the last, which is empty."""
_UUID: Final = b"tier of the fuzz"
_HEAD_BYTES: Final = 4096


def _image() -> tuple[bytes, dict[int, int], list[SegmentHeader]]:
    """A tier, the checksums of its pages by their number, and the headers of its segments."""
    image = bytearray((_SLOTS + 1) * _SEGMENT_BYTES)
    superblock = Superblock(_UUID, "fuzz", _SEGMENT_BYTES, _SLOTS, 3, 1)
    for offset in (0, SUPERBLOCK_COPY_OFFSET):
        image[offset : offset + SUPERBLOCK_BYTES] = superblock.pack()
    sums: dict[int, int] = {}
    headers = []
    for slot in range(_SLOTS - 1):
        base, sequence = slot_offset_bytes(slot, _SEGMENT_BYTES), 100 + slot
        at = SEGMENT_HEADER_BYTES
        for page in range(slot * _PAGES, (slot + 1) * _PAGES):
            contents = (b"%d " % page * PAGE_BYTES)[:PAGE_BYTES]
            if page % 6 == 5:
                contents = random.Random(page).randbytes(PAGE_BYTES)
            codec, payload = encode(contents)
            sums[page] = checksum(contents)
            bound = sums[page] ^ binding(sequence, page)
            tag = codec << CODEC_SHIFT | len(payload) - 1
            found = HEADER.pack(bound, page, tag) + payload
            image[base + at : base + at + len(found)] = found
            at += len(found)
        segment = memoryview(image)[base : base + _SEGMENT_BYTES]
        header = SegmentHeader(sequence, slot, at, _UUID, records_checksum(segment, at))
        image[base : base + SEGMENT_HEADER_BYTES] = pack_segment_header(header)
        headers.append(header)
    return bytes(image), sums, headers


_IMAGE, _SUMS, _HEADERS = _image()


def _repair_superblock(block: bytearray, _start: int) -> None:
    end = SUPERBLOCK_BYTES - 8
    block[end:] = xxh3_64_intdigest(bytes(block[:end])).to_bytes(8, "little")


def _repair_segment(block: bytearray, _start: int) -> None:
    end = SEGMENT_HEADER_BYTES - 8
    digest = xxh3_64_intdigest(bytes(block[:end])).to_bytes(8, "little")
    block[end:SEGMENT_HEADER_BYTES] = digest


_PLACES: Final = [
    (0, SUPERBLOCK_BYTES), (SUPERBLOCK_COPY_OFFSET, SUPERBLOCK_BYTES),
    *((slot_offset_bytes(slot, _SEGMENT_BYTES), _HEAD_BYTES) for slot in range(_SLOTS)),
    *((slot_offset_bytes(slot, _SEGMENT_BYTES) + 8192, 16384) for slot in range(_SLOTS - 1)),
]  # fmt: skip
_REPAIRS: Final = [
    _repair_superblock, _repair_superblock, _repair_segment, _repair_segment, _repair_segment,
    lambda _block, _start: None, lambda _block, _start: None,
]  # fmt: skip
_file: Final = PatchedFile(_IMAGE, _PLACES)


def run(data: bytes) -> None:
    source = Source(data)
    way = source.byte() % 4
    _file.change(source, _REPAIRS)
    if way == 0:
        _check_and_dump(with_records=True)
    elif way == 1:
        _check_and_dump(with_records=False)
    elif way == 2:
        _claimed()
    else:
        _read_by_the_daemon(source)


def _check_and_dump(*, with_records: bool) -> None:
    try:
        with opened(_file.path) as medium:
            superblock, findings = read_superblock(medium)
            segments = []
            for found in walk(medium, superblock, findings):
                segments.append(found)
                header = found.header
                for record in found.records if header and found.state != EMPTY else ():
                    page = record.page_offset // PAGE_BYTES
                    if record.error is None and header in _HEADERS and page in _SUMS:
                        assert record.checksum == _SUMS[page], "a damaged page is said to be whole"
            for chunks in (log._text_chunks, log._json_chunks):
                for chunk in chunks(superblock, iter(segments), findings, with_records):
                    assert chunk.replace("\n", "").isprintable(), "it would command a terminal"
    except (HostError, TierFormatError):
        return


def _claimed() -> None:
    """As a tier to be taken, and as one that an image of the machine names."""
    with mock.patch.object(claim, "_signature", return_value=None):
        for owner, overwrite in (("fuzz", False), ("other", True), ("other", False)):
            try:
                taken = claim._open("fuzz", _file.path, 4 << 20, overwrite, owner)
            except VswapError:
                continue
            os.close(taken.fd)
    with mock.patch.object(os, "O_DIRECT", 0):  # there is none for files in memory
        try:
            tiers.look_at([_file.path])
        except HostError:
            return


def _read_by_the_daemon(source: Source) -> None:
    """A segment as it is fetched: what is not refused is what was written."""
    slot = source.number(0, _SLOTS - 2)
    offset = slot_offset_bytes(slot, _SEGMENT_BYTES)
    backing = MemoryBacking(len(_IMAGE))
    found = os.pread(_file.fd, _SEGMENT_BYTES, offset)
    backing._data[offset : offset + len(found)] = found
    segment = scratch(_SEGMENT_BYTES)
    header = _HEADERS[slot]
    try:
        read_segment(backing, offset, segment, header, salvage=False)
    except TierFormatError:
        read_segment(backing, offset, segment, header, salvage=True)
    else:
        fill = header.fill_bytes
        assert segment[:fill] == _IMAGE[offset : offset + fill], "wrong bytes"
