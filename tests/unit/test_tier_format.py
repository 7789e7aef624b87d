"""Superblock and segment header: their bytes, and that damage to any bit is told."""

import re
import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lz4.block import compress
from xxhash import xxh3_64_intdigest

from vswapfs.errors import TierFormatError
from vswapfs.format import tier_walk
from vswapfs.format.record import CODEC_LZ4, CODEC_RAW, CODEC_SHIFT, HEADER, PAGE_NONE, binding
from vswapfs.format.tier import (
    CIPHER_AES_256_GCM,
    CIPHER_NONE,
    SEGMENT_HEADER_BYTES,
    SUPERBLOCK_BYTES,
    SUPERBLOCK_COPY_OFFSET,
    SegmentHeader,
    Superblock,
    check_segment_header,
    choose,
    is_empty,
    pack_segment_header,
    slot_offset_bytes,
    unpack_segment_header,
)

MIB = 1 << 20
SUPERBLOCK = Superblock(
    uuid=bytes(range(16)),
    name="vswap0",
    segment_bytes=MIB,
    slot_count=7,
    generation=3,
    created_unix_s=1_750_000_000,
    budget_bytes_per_day=20 << 30,
    budget_window_start_unix_s=1_750_000_001,
    budget_spent_bytes=12345,
    cipher=CIPHER_AES_256_GCM,
)
HEADER_FOUND = SegmentHeader(
    sequence=9, slot=5, fill_bytes=1000, tier_uuid=SUPERBLOCK.uuid, records_checksum=77
)


def sealed(data: bytearray, covered: int) -> bytes:
    """The bytes with a checksum that is right."""
    data[covered : covered + 8] = struct.pack("<Q", xxh3_64_intdigest(data[:covered]))
    return bytes(data)


def flipped(data: bytes, bit: int) -> bytes:
    damaged = bytearray(data)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


# -- superblock -------------------------------------------------------------------------------


def test_superblock_is_the_documented_bytes() -> None:
    data = SUPERBLOCK.pack()
    assert len(data) == SUPERBLOCK_BYTES
    assert data[:16] == b"vswapfs\0" + struct.pack("<II", 2, MIB)
    assert data[16:32] == struct.pack("<QQ", 7, 3)
    assert data[32:80] == bytes(range(16)) + b"vswap0".ljust(32, b"\0")
    assert data[80:112] == struct.pack("<QQQQ", 1_750_000_000, 20 << 30, 1_750_000_001, 12345)
    assert data[112:116] == struct.pack("<I", 1)
    assert data[116:4088] == bytes(3972)
    assert data[4088:] == struct.pack("<Q", xxh3_64_intdigest(data[:4088]))
    assert Superblock.unpack(data) == SUPERBLOCK


def test_every_bit_of_a_superblock_counts() -> None:
    data = SUPERBLOCK.pack()
    for bit in range(len(data) * 8):
        with pytest.raises(TierFormatError):
            Superblock.unpack(flipped(data, bit))


@pytest.mark.parametrize(
    ("offset", "field", "reason"),
    [
        (8, struct.pack("<I", 3), "superblock: version 3; this program knows 2"),
        (12, struct.pack("<I", 3 * MIB), "segments of 3145728 bytes"),
        (12, struct.pack("<I", MIB // 2), "segments of 524288 bytes"),
        (12, struct.pack("<I", 0), "segments of 0 bytes"),
        (12, struct.pack("<I", 1 << 31), "segments of 2147483648 bytes"),  # to be read whole
        (16, struct.pack("<Q", 2), "impossible geometry: 2 slots"),
        (16, struct.pack("<Q", 1 << 43), "impossible geometry"),
        (48, b"\xff", "is not a name"),
        (112, struct.pack("<I", 2), "cipher 2; this program knows none such"),
        (48, b"\x1b[2J", "is not a name"),  # it would be printed
    ],
)
def test_a_superblock_that_is_whole_and_wrong_is_named(
    offset: int, field: bytes, reason: str
) -> None:
    data = bytearray(SUPERBLOCK.pack())
    data[offset : offset + len(field)] = field
    with pytest.raises(TierFormatError, match=reason):
        Superblock.unpack(sealed(data, 4088))


@pytest.mark.parametrize("data", [bytes(4096), b"\xeb" * 4096, b"", bytes(4095)])
def test_what_is_no_superblock_is_not_a_tier(data: bytes) -> None:
    with pytest.raises(TierFormatError, match="not a tier") as raised:
        Superblock.unpack(data)
    assert raised.value.exit_code == 6


def test_the_higher_valid_generation_wins_wherever_it_is() -> None:
    older, newer = SUPERBLOCK.pack(), replace(SUPERBLOCK, generation=4).pack()
    for primary, copy in ((older, newer), (newer, older)):
        # A power cut between the two writes is no damage.
        assert choose(primary, copy) == (replace(SUPERBLOCK, generation=4), [])


def test_one_damaged_copy_is_a_finding_at_its_byte() -> None:
    good, bad = SUPERBLOCK.pack(), flipped(replace(SUPERBLOCK, generation=4).pack(), 900)
    for primary, copy, at in ((bad, good, 0), (good, bad, SUPERBLOCK_COPY_OFFSET)):
        superblock, ((offset, reason),) = choose(primary, copy)
        assert superblock == SUPERBLOCK
        assert offset == at
        assert "damaged" in reason


def test_copies_that_do_not_belong_together_are_findings() -> None:
    newest = replace(SUPERBLOCK, generation=9)
    assert choose(newest.pack(), SUPERBLOCK.pack()) == (
        newest,
        [(SUPERBLOCK_COPY_OFFSET, "old superblock: 3 instead of 9")],
    )
    other = replace(SUPERBLOCK, uuid=b"\xaa" * 16)
    assert choose(other.pack(), newest.pack()) == (
        newest,
        [(0, f"superblock of another tier, {'aa' * 16}")],
    )


def test_without_a_valid_copy_both_reasons_are_told() -> None:
    with pytest.raises(TierFormatError, match=r"byte 0: not a tier: .*; byte 524288: .*damaged"):
        choose(bytes(4096), flipped(SUPERBLOCK.pack(), 900))
    with pytest.raises(TierFormatError, match=r"^not a tier: no superblock here$"):
        choose(bytes(4096), bytes(4096))


# -- segment header ---------------------------------------------------------------------------


def test_segment_header_is_the_documented_bytes() -> None:
    data = pack_segment_header(HEADER_FOUND)
    assert len(data) == SEGMENT_HEADER_BYTES
    assert data[:48] == b"VseG" + struct.pack("<HHQQII", 2, 0, 9, 5, 1000, 0) + bytes(range(16))
    assert data[48:] == struct.pack("<QQ", 77, xxh3_64_intdigest(data[:56]))
    assert unpack_segment_header(memoryview(data + b"records")) == HEADER_FOUND


def test_every_bit_of_a_segment_header_counts() -> None:
    data = pack_segment_header(HEADER_FOUND)
    for bit in range(len(data) * 8):
        with pytest.raises(TierFormatError, match="segment header: "):
            unpack_segment_header(flipped(data, bit))


@pytest.mark.parametrize(
    ("offset", "field", "reason"),
    [
        (4, struct.pack("<H", 7), "version 7; this program knows 2"),
        (6, struct.pack("<H", 1), "not zero where nothing is defined"),
        (28, struct.pack("<I", 1), "not zero where nothing is defined"),
        (24, struct.pack("<I", 63), "a fill of 63 bytes is impossible"),
    ],
)
def test_a_segment_header_that_is_whole_and_wrong_is_named(
    offset: int, field: bytes, reason: str
) -> None:
    data = bytearray(pack_segment_header(HEADER_FOUND))
    data[offset : offset + len(field)] = field
    with pytest.raises(TierFormatError, match=reason):
        unpack_segment_header(sealed(data, 56))


def test_all_zero_is_empty_and_no_header() -> None:
    assert is_empty(bytes(64))
    assert is_empty(bytes(64) + b"stale")
    assert not is_empty(pack_segment_header(HEADER_FOUND))
    with pytest.raises(TierFormatError, match="no segment begins here"):
        unpack_segment_header(bytes(64))
    with pytest.raises(TierFormatError, match="cut off after 63 bytes"):
        unpack_segment_header(bytes(63))


def test_a_header_of_elsewhere_is_foreign_or_misplaced() -> None:
    assert check_segment_header(HEADER_FOUND, SUPERBLOCK.uuid, 5) is None
    misplaced = check_segment_header(HEADER_FOUND, SUPERBLOCK.uuid, 6)
    assert misplaced == "misplaced: the segment of slot 5"
    foreign = check_segment_header(HEADER_FOUND, bytes(16), 5)
    assert foreign == f"foreign: a segment of tier {SUPERBLOCK.uuid.hex()}"


def test_slots_follow_the_superblock() -> None:
    assert slot_offset_bytes(0, MIB) == MIB
    assert slot_offset_bytes(6, MIB) == 7 * MIB


# -- walking ----------------------------------------------------------------------------------


def record(page: int, data: bytes, codec: int = CODEC_RAW) -> bytes:
    payload = compress(data, store_size=False) if codec == CODEC_LZ4 else data
    tag = codec << CODEC_SHIFT | len(payload) - 1
    bound = xxh3_64_intdigest(data) ^ binding(HEADER_FOUND.sequence, page)
    return HEADER.pack(bound, page, tag) + payload


def segment(*records: bytes, fill_bytes: int | None = None) -> bytes:
    body = b"".join(records)
    fill_bytes = SEGMENT_HEADER_BYTES + len(body) if fill_bytes is None else fill_bytes
    header = replace(HEADER_FOUND, fill_bytes=fill_bytes, records_checksum=xxh3_64_intdigest(body))
    return (pack_segment_header(header) + body).ljust(MIB, b"\0")


def walk(data: bytes) -> tier_walk.SegmentFound:
    return tier_walk.walk_segment(memoryview(data), replace(SUPERBLOCK, cipher=CIPHER_NONE), 5)


TEXT = (b"a page that compresses " * 200)[:4096]
NOISE = bytes(xxh3_64_intdigest(bytes([n & 255, n >> 8])) & 255 for n in range(4096))


def test_walk_verifies_every_record() -> None:
    found = walk(segment(record(1, NOISE), record(2, TEXT, CODEC_LZ4), record(3, TEXT, CODEC_LZ4)))
    assert found.state == "valid"
    assert [each.page_offset for each in found.records] == [4096, 8192, 12288]
    assert [each.codec for each in found.records] == [CODEC_RAW, CODEC_LZ4, CODEC_LZ4]
    assert found.records[1].byte_offset == 6 * MIB + 64 + 14 + 4096
    assert not found.findings


@pytest.mark.parametrize(
    ("damaged", "reason"),
    [
        (HEADER.pack(1, 2, CODEC_RAW << CODEC_SHIFT | 9) + bytes(10), "10 bytes instead of a page"),
        (HEADER.pack(1, 2, CODEC_LZ4 << CODEC_SHIFT | 9) + b"\xff" * 10, "LZ4: "),
        (record(PAGE_NONE, NOISE), "page number 4294967295 is no page's"),
        (bytes(8) + record(2, NOISE)[8:], "checksum .*, not .*"),
    ],
)
def test_walk_goes_on_behind_a_record_that_is_bad(damaged: bytes, reason: str) -> None:
    first, last = record(1, NOISE), record(3, NOISE)
    found = walk(segment(first, damaged, last))
    assert [each.error is None for each in found.records] == [True, False, True]
    (finding,) = found.findings
    assert finding.byte_offset == 6 * MIB + 64 + len(first)
    assert re.match(reason, finding.reason)


def test_walk_ends_where_no_record_begins() -> None:
    whole = record(1, NOISE)
    found = walk(segment(whole, fill_bytes=64 + len(whole) + 100))
    assert len(found.records) == 1
    (finding,) = found.findings
    assert finding.byte_offset == 6 * MIB + 64 + len(whole)
    assert finding.reason == "no whole record here; 100 bytes to the fill cannot be walked"


def test_walk_of_a_segment_cut_off_by_the_medium() -> None:
    whole = record(1, NOISE)
    found = walk(segment(whole, whole)[: 64 + len(whole) + 20])
    assert len(found.records) == 1
    cut, rest = found.findings
    assert cut.byte_offset == 6 * MIB + 64 + len(whole) + 20
    assert cut.reason.startswith("the medium ends here")
    assert rest.byte_offset == 6 * MIB + 64 + len(whole)


def test_a_fill_beyond_the_segment_is_a_finding() -> None:
    found = walk(segment(fill_bytes=MIB + 1))
    assert found.findings[0].reason == f"segment header: a fill of {MIB + 1} bytes is impossible"


@given(st.binary(max_size=200), st.integers(0, 2 * MIB))
def test_walk_never_raises(noise: bytes, fill_bytes: int) -> None:
    assert walk(noise).state in ("empty", "damaged")
    header = pack_segment_header(replace(HEADER_FOUND, fill_bytes=max(64, fill_bytes)))
    walk(header + noise)
    walk((header + noise).ljust(8192, b"\x21"))
