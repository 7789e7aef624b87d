"""vswapctl log: every kind of damage is named with its byte, and nothing raises."""

import contextlib
import fcntl
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from ctl.conftest import Vswapctl
from lz4.block import compress
from xxhash import xxh3_64_hexdigest, xxh3_64_intdigest

from vswapfs.ctl import medium
from vswapfs.format.record import CODEC_LZ4, CODEC_RAW, CODEC_SHIFT, HEADER, HEADER_BYTES, binding
from vswapfs.format.tier import (
    CIPHER_AES_256_GCM,
    SEGMENT_HEADER_BYTES,
    SUPERBLOCK_BYTES,
    SUPERBLOCK_COPY_OFFSET,
    SegmentHeader,
    Superblock,
    pack_segment_header,
    slot_offset_bytes,
)

MIB = 1 << 20
SLOTS = 4
SUPERBLOCK = Superblock(b"u" * 16, "vswap0", MIB, SLOTS, 3, 1_750_000_000)


@dataclass
class Tier:
    """A tier's bytes: slots 0 and 2 have segments of five records, 1 and 3 are empty."""

    data: bytearray
    records: dict[int, list[int]] = field(default_factory=dict)
    """By slot: where its records begin, and where the last one ends."""

    def flip(self, byte_offset: int, bit: int = 0) -> None:
        self.data[byte_offset] ^= 1 << bit

    def put(self, slot: int, header: SegmentHeader, body: bytes) -> None:
        at = slot_offset_bytes(slot, MIB)
        self.data[at : at + MIB] = (pack_segment_header(header) + body).ljust(MIB, b"\0")

    def segment(self, slot: int) -> bytes:
        at = slot_offset_bytes(slot, MIB)
        return bytes(self.data[at : at + MIB])


def record(sequence: int, page: int, data: bytes) -> bytes:
    codec, payload = CODEC_RAW, data
    if len(packed := compress(data, store_size=False)) < len(data):
        codec, payload = CODEC_LZ4, packed
    bound = xxh3_64_intdigest(data) ^ binding(sequence, page)
    return HEADER.pack(bound, page, codec << CODEC_SHIFT | len(payload) - 1) + payload


def body(sequence: int, first_page: int) -> list[bytes]:
    """Five records, of pages that compress and pages that do not in turn."""
    noise = Random(first_page)
    pages = [noise.randbytes(4096) if n % 2 else noise.randbytes(64) * 64 for n in range(5)]
    return [record(sequence, first_page + n, data) for n, data in enumerate(pages)]


@pytest.fixture
def tier() -> Tier:
    made = Tier(bytearray((SLOTS + 1) * MIB))
    made.data[:SUPERBLOCK_BYTES] = SUPERBLOCK.pack()
    copy = slice(SUPERBLOCK_COPY_OFFSET, SUPERBLOCK_COPY_OFFSET + SUPERBLOCK_BYTES)
    made.data[copy] = SUPERBLOCK.pack()
    for slot in (0, 2):
        sequence = 10 + slot
        records = body(sequence, 100 * slot)
        at = slot_offset_bytes(slot, MIB) + SEGMENT_HEADER_BYTES
        starts = [at + sum(map(len, records[:n])) for n in range(len(records) + 1)]
        made.records[slot] = starts
        fill_bytes = starts[-1] - slot_offset_bytes(slot, MIB)
        joined = b"".join(records)
        checksum = xxh3_64_intdigest(joined)
        made.put(slot, SegmentHeader(sequence, slot, fill_bytes, SUPERBLOCK.uuid, checksum), joined)
    return made


@dataclass
class Log:
    """`vswapctl log` on a tier's bytes in a file."""

    run: Vswapctl
    path: Path

    def check(self, tier: Tier) -> list[dict[str, Any]]:
        """The findings; table, JSON and exit code have to agree on them."""
        self.path.write_bytes(tier.data)
        as_json = self.run("log", "check", str(self.path), "--json")
        as_table = self.run("log", "check", str(self.path))
        assert self.path.read_bytes() == tier.data
        findings = json.loads(as_json.stdout)["findings"]
        assert isinstance(findings, list)
        assert as_json.exit_code == as_table.exit_code == (1 if findings else 0)
        for finding in findings:
            assert f"{finding['byte_offset']} " in as_table.stdout
            assert finding["reason"] in as_table.stdout
        return findings

    def places(self, tier: Tier) -> list[tuple[int, str]]:
        return [(each["byte_offset"], each["reason"]) for each in self.check(tier)]

    def dump(self, tier: Tier, *options: str) -> str:
        self.path.write_bytes(tier.data)
        result = self.run("log", "dump", str(self.path), *options)
        assert result.exit_code == 0
        return result.stdout


@pytest.fixture
def log(vswapctl: Vswapctl, tmp_path: Path) -> Log:
    return Log(vswapctl, tmp_path / "tier")


def test_records_of_an_encrypted_tier_are_not_counted(log: Log, tier: Tier) -> None:
    packed = replace(SUPERBLOCK, cipher=CIPHER_AES_256_GCM).pack()
    for offset in (0, SUPERBLOCK_COPY_OFFSET):
        tier.data[offset : offset + SUPERBLOCK_BYTES] = packed
    segments = json.loads(log.dump(tier, "--json"))["segments"]
    assert [segment["record_count"] for segment in segments] == [None, None]
    told = log.run("log", "check", str(log.path), "--json")
    report = json.loads(told.stdout)
    assert (report["records"], report["stored_bytes"]) == (None, None)
    assert "note: the tier is encrypted" in told.stderr
    heading, row = log.run("log", "check", str(log.path)).stdout.splitlines()[-2:]
    assert dict(zip(heading.split(), row.split(), strict=True))["RECORDS"] == "-"


# -- check ------------------------------------------------------------------------------------


def test_a_clean_tier_is_a_summary_and_exit_code_0(log: Log, tier: Tier) -> None:
    assert log.check(tier) == []
    result = log.run("log", "check", str(log.path))
    heading, row = result.stdout.splitlines()
    assert heading.split() == [
        "SLOTS", "EMPTY", "SEGMENTS", "DAMAGED", "RECORDS", "STORED", "FINDINGS",
    ]  # fmt: skip
    assert row.split()[:5] == ["4", "2", "2", "0", "10"]
    assert row.split()[-1] == "0"
    told = json.loads(log.run("log", "check", str(log.path), "--json").stdout)
    assert told["superblock"]["uuid"] == "75" * 16
    assert told["superblock"]["name"] == "vswap0"
    stored = sum(starts[-1] - starts[0] - 5 * HEADER_BYTES for starts in tier.records.values())
    assert (told["records"], told["stored_bytes"]) == (10, stored)


@pytest.mark.parametrize("at", [0, SUPERBLOCK_COPY_OFFSET])
@pytest.mark.parametrize(
    ("inside", "reason"), [(3, "not a tier: no superblock"), (20, "damaged"), (4000, "damaged")]
)
def test_a_flip_in_a_superblock_is_named_and_the_other_is_used(
    log: Log, tier: Tier, at: int, inside: int, reason: str
) -> None:
    tier.flip(at + inside)
    ((place, told),) = log.places(tier)
    assert place == at
    assert reason in told


def test_an_old_copy_is_named(log: Log, tier: Tier) -> None:
    tier.data[:SUPERBLOCK_BYTES] = replace(SUPERBLOCK, generation=5).pack()
    assert log.places(tier) == [(SUPERBLOCK_COPY_OFFSET, "old superblock: 3 instead of 5")]


def test_without_a_superblock_it_is_an_error_with_its_own_exit_code(log: Log, tier: Tier) -> None:
    tier.flip(0)
    tier.flip(SUPERBLOCK_COPY_OFFSET + 50)
    log.path.write_bytes(tier.data)
    for command in ("check", "dump"):
        result = log.run("log", command, str(log.path))
        assert result.exit_code == 6
        told = (
            f"{log.path}: byte 0: not a tier: no superblock here; byte 524288: superblock: damaged"
        )
        assert told in (result.stderr)


@pytest.mark.parametrize("inside", [0, 4, 6, 10, 20, 25, 30, 40, 50, 60])
def test_a_flip_in_a_segment_header_is_named(log: Log, tier: Tier, inside: int) -> None:
    at = slot_offset_bytes(2, MIB)
    tier.flip(at + inside)
    (finding,) = log.check(tier)
    assert (finding["byte_offset"], finding["slot"]) == (at, 2)
    assert finding["reason"].startswith("segment header: ")


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("where", ["checksum", "payload", "last byte"])
def test_a_flip_in_a_record_is_named_with_its_page(
    log: Log, tier: Tier, number: int, where: str
) -> None:
    start, stop = tier.records[2][number : number + 2]
    inside = {"checksum": 5, "payload": HEADER_BYTES + 20, "last byte": stop - start - 1}[where]
    tier.flip(start + inside, 6)
    (finding,) = log.check(tier)
    assert (finding["byte_offset"], finding["slot"]) == (start, 2)
    assert finding["page_offset"] == (200 + number) * 4096
    assert (
        "checksum" in finding["reason"]
        or "LZ4" in finding["reason"]
        or "bytes" in (finding["reason"])
    )


@pytest.mark.parametrize("bit", range(16))
def test_a_flip_in_length_or_codec_is_named_at_its_record(log: Log, tier: Tier, bit: int) -> None:
    start = tier.records[0][2]
    tier.flip(start + 12 + bit // 8, bit % 8)
    assert log.check(tier)[0]["byte_offset"] == start


def test_swapped_slots_are_both_named(log: Log, tier: Tier) -> None:
    zero, two = (slot_offset_bytes(slot, MIB) for slot in (0, 2))
    segments = tier.segment(0), tier.segment(2)
    tier.data[zero : zero + MIB], tier.data[two : two + MIB] = segments[1], segments[0]
    assert log.places(tier) == [
        (zero, "misplaced: the segment of slot 2"),
        (two, "misplaced: the segment of slot 0"),
    ]


def test_a_foreign_segment_is_named(log: Log, tier: Tier) -> None:
    tier.put(3, SegmentHeader(1, 3, SEGMENT_HEADER_BYTES, b"f" * 16, xxh3_64_intdigest(b"")), b"")
    assert log.places(tier) == [
        (slot_offset_bytes(3, MIB), f"foreign: a segment of tier {'66' * 16}")
    ]


def test_a_torn_tail_is_named_where_it_begins(log: Log, tier: Tier) -> None:
    start, stop = tier.records[2][3], tier.records[2][5]
    tier.data[start:stop] = bytes(stop - start)
    assert log.places(tier) == [
        (start, f"no whole record here; {stop - start} bytes to the fill cannot be walked")
    ]


def test_a_tail_torn_inside_a_record_is_named_at_the_record(log: Log, tier: Tier) -> None:
    start, stop = tier.records[2][3], tier.records[2][5]
    torn = (start + 200) // 4096 * 4096 + 4096
    assert start < torn < stop
    tier.data[torn:stop] = bytes(stop - torn)
    assert log.check(tier)[0]["byte_offset"] == start


def test_a_segment_of_which_the_first_block_was_not_written_is_empty(log: Log, tier: Tier) -> None:
    at = slot_offset_bytes(0, MIB)
    tier.data[at : at + 4096] = bytes(4096)
    assert log.check(tier) == []


def test_a_file_that_ends_too_early_is_named(log: Log, tier: Tier) -> None:
    starts = tier.records[2]
    del tier.data[starts[4] + 10 :]
    cut, first, missing = sorted(log.check(tier), key=lambda finding: finding["reason"][-9:])
    assert {each["byte_offset"] for each in (cut, first, missing)} == {starts[4], len(tier.data)}
    del tier.data[MIB:]
    assert log.places(tier) == [(MIB, "the medium ends here: slots 0 to 3 are missing")]


def test_a_slot_that_cannot_be_read_is_named(
    log: Log, tier: Tier, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = medium.Medium.read

    def failing(self: medium.Medium, offset: int, length: int) -> bytes:
        if offset in (SUPERBLOCK_COPY_OFFSET, slot_offset_bytes(0, MIB)):
            raise OSError(5, "Input/output error")
        return read(self, offset, length)

    monkeypatch.setattr(medium.Medium, "read", failing)
    assert log.places(tier) == [
        (SUPERBLOCK_COPY_OFFSET, "not a tier: only 0 of the 4096 bytes of a superblock"),
        (slot_offset_bytes(0, MIB), "cannot be read: Input/output error"),
    ]


def test_any_damage_ends_in_findings_or_none(log: Log, tier: Tier) -> None:
    whole = bytes(tier.data)
    used = [*range(112), *range(524288, 524400)]
    for slot in (0, 2):
        used += range(slot_offset_bytes(slot, MIB), tier.records[slot][-1])
    for seed in range(60):
        random = Random(seed)
        tier.data = bytearray(whole)
        for _ in range(random.choice([1, 3, 300])):
            tier.flip(random.choice(used), random.randrange(8))
        log.path.write_bytes(tier.data)
        for command in ("check", "dump"):
            result = log.run("log", command, str(log.path), "--json")
            assert result.exit_code in ((0, 1, 6) if command == "check" else (0, 6))


# -- dump -------------------------------------------------------------------------------------


def test_dump_shows_superblock_and_segments(log: Log, tier: Tier) -> None:
    lines = [" ".join(line.split()) for line in log.dump(tier).splitlines()]
    assert f"uuid {'75' * 16}" in lines
    assert "slot_count 4" in lines
    assert lines[-3:] == [
        "SLOT PLACE STATE SEQUENCE FILL RECORDS",
        f"0 1048576 valid 10 {tier.records[0][-1] - MIB} 5",
        f"2 3145728 valid 12 {tier.records[2][-1] - 3 * MIB} 5",
    ]


def test_dump_shows_records_when_asked(log: Log, tier: Tier) -> None:
    start, stop = tier.records[2][1:3]
    checksum = f"{xxh3_64_hexdigest(tier.data[start + HEADER_BYTES : stop])}"
    tier.flip(tier.records[2][3])
    lines = [" ".join(line.split()) for line in log.dump(tier, "--records").splitlines()]
    assert f"{start} 0xc9000 {stop - start - HEADER_BYTES} raw {checksum} yes" in lines
    (bad,) = [line for line in lines if line.startswith(f"{tier.records[2][3]} ")]
    assert " no: checksum " in bad
    assert len([line for line in lines if line.endswith(" yes")]) == 9


def test_dump_json_has_everything(log: Log, tier: Tier) -> None:
    tier.flip(slot_offset_bytes(0, MIB) + 20)
    tier.flip(0)
    told = json.loads(log.dump(tier, "--json", "--records"))
    assert told["superblock"]["slot_count"] == SLOTS
    assert told["findings"][0]["byte_offset"] == 0
    damaged, valid = told["segments"]
    assert (damaged["state"], damaged["sequence"], damaged["records"]) == ("damaged", None, [])
    assert damaged["findings"][0]["byte_offset"] == MIB
    assert (valid["slot"], valid["sequence"], valid["record_count"]) == (2, 12, 5)
    assert [each["byte_offset"] for each in valid["records"]] == tier.records[2][:-1]
    assert [each["codec"] for each in valid["records"]] == ["lz4", "raw", "lz4", "raw", "lz4"]
    assert "records" not in json.loads(log.dump(tier, "--json"))["segments"][1]


def test_dump_tells_damage(log: Log, tier: Tier) -> None:
    tier.flip(0)
    tier.flip(slot_offset_bytes(2, MIB))
    log.path.write_bytes(tier.data)
    result = log.run("log", "dump", str(log.path))
    assert f"  byte {3 * MIB}: segment header: no segment begins here" in result.stdout
    assert "warning: byte 0: not a tier: no superblock here\n" in result.stderr


# -- what may be opened -----------------------------------------------------------------------


def test_check_refuses_a_tier_in_use_and_dump_warns(log: Log, tier: Tier) -> None:
    log.path.write_bytes(tier.data)
    with log.path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        check = log.run("log", "check", str(log.path))
        dump = log.run("log", "dump", str(log.path))
    assert check.exit_code == 3
    assert "it is in use" in check.stderr
    assert "vswapctl scrub" in check.stderr
    assert dump.exit_code == 0
    assert "is in use: what is being written may look damaged" in dump.stderr
    assert "75" * 16 in dump.stdout


def test_a_daemon_cannot_take_what_is_being_checked(log: Log, tier: Tier) -> None:
    log.path.write_bytes(tier.data)
    with contextlib.ExitStack() as stack:
        assert not stack.enter_context(medium.opened(str(log.path))).in_use
        daemon = stack.enter_context(log.path.open("rb"))
        with pytest.raises(BlockingIOError):
            fcntl.flock(daemon, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize(
    ("name", "reason"),
    [(".", "neither a regular file nor a block device"), ("none", "No such file or directory")],
)
def test_what_cannot_be_opened_is_an_error(
    log: Log, tmp_path: Path, name: str, reason: str
) -> None:
    for command in ("check", "dump"):
        result = log.run("log", command, str(tmp_path / name))
        assert result.exit_code == 3
        assert reason in result.stderr


@pytest.mark.parametrize("make", [bytes, lambda size: b"\xff" * size], ids=["zeros", "ones"])
@pytest.mark.parametrize("size_bytes", [0, 100, 600_000, 5 * MIB])
def test_what_is_no_tier_is_told(log: Log, make: Callable[[int], bytes], size_bytes: int) -> None:
    log.path.write_bytes(make(size_bytes))
    result = log.run("log", "check", str(log.path))
    assert result.exit_code == 6
    assert f"{log.path}: " in result.stderr
    assert "not a tier" in result.stderr
    assert "try: give the file or block device of a tier" in result.stderr
