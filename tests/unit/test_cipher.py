"""Encrypted segments: what was written comes back, anything else does not, and nothing shows."""

import random
import subprocess
import sys
from pathlib import Path

import pytest
from regions import make_buffers, make_page

from vswapfs.backing.file import FileBacking
from vswapfs.backing.memory import MemoryBacking
from vswapfs.backing.scratch import scratch
from vswapfs.core.buffers import Geometry
from vswapfs.core.segment import SEALED
from vswapfs.core.store import Store
from vswapfs.daemon.cipher import Cipher, DecryptError, check_library
from vswapfs.daemon.medium import Encryption, read_segment, write_segment
from vswapfs.errors import HostError, TierFormatError
from vswapfs.format.chunk import BLOCK_BYTES, ENCRYPTED_CHUNK_BYTES, blocks_bytes, place_in_slot
from vswapfs.format.tier import (
    CIPHER_AES_256_GCM,
    SEGMENT_HEADER_BYTES,
    SegmentHeader,
    Superblock,
    slot_offset_bytes,
)
from vswapfs.format.tier_walk import walk_segment

MIB = 1 << 20
KEY = bytes(range(32))
CHUNK = ENCRYPTED_CHUNK_BYTES
FILLS = (65, CHUNK - 1, CHUNK, CHUNK + 1, 2 * BLOCK_BYTES, 100_000, MIB // BLOCK_BYTES * CHUNK)


@pytest.fixture(scope="module")
def cipher() -> Cipher:
    return Cipher(KEY, MIB)


def segment(fill_bytes: int) -> memoryview:
    """A segment's RAM, as far as it takes any."""
    found = bytearray(random.Random(fill_bytes).randbytes(fill_bytes))
    found[:SEGMENT_HEADER_BYTES] = bytes(SEGMENT_HEADER_BYTES)
    return memoryview(found.ljust(-(-fill_bytes // BLOCK_BYTES) * BLOCK_BYTES, b"\0"))


def encrypted(cipher: Cipher, number: int, plain: memoryview, fill_bytes: int) -> memoryview:
    return cipher.encrypt(number, plain, fill_bytes, memoryview(bytearray(MIB)))


@pytest.mark.parametrize("fill_bytes", FILLS)
def test_all_of_a_segment_comes_back(cipher: Cipher, fill_bytes: int) -> None:
    plain = segment(fill_bytes)
    blocks = encrypted(cipher, 7, plain, fill_bytes)
    assert len(blocks) == blocks_bytes(fill_bytes, CHUNK) <= MIB
    again = memoryview(bytearray(len(plain)))
    assert cipher.decrypt(7, blocks, again) == []
    assert again == plain
    for offset in range(0, fill_bytes, 997):
        block, at = divmod(place_in_slot(offset, CHUNK), BLOCK_BYTES)
        chunk = cipher.decrypt_chunk(7, block, blocks[block * BLOCK_BYTES :][:BLOCK_BYTES])
        assert chunk[at] == plain[offset]


def refused(cipher: Cipher, write_number: int, number: int, block: bytes | memoryview) -> bool:
    try:
        cipher.decrypt_chunk(write_number, number, memoryview(block))
    except DecryptError:
        return True
    return False


@pytest.mark.parametrize("number", [0, 1, 3])
def test_a_chunk_with_any_byte_changed_is_refused(cipher: Cipher, number: int) -> None:
    blocks = encrypted(cipher, 7, segment(4 * CHUNK), 4 * CHUNK)
    block = memoryview(bytearray(blocks[number * BLOCK_BYTES :][:BLOCK_BYTES]))
    assert not refused(cipher, 7, number, block)
    for at in range(0 if number else SEGMENT_HEADER_BYTES, BLOCK_BYTES):
        block[at] ^= 1 << at % 8
        assert refused(cipher, 7, number, block), f"byte {at}"
        block[at] ^= 1 << at % 8


def test_a_chunk_of_another_place_or_time_is_refused(cipher: Cipher) -> None:
    """Of another block; of the same block of a segment, or slot, written at another time; under
    another key."""
    plain = segment(4 * CHUNK)
    blocks = {number: encrypted(cipher, number, plain, 4 * CHUNK) for number in (7, 8)}
    others = {9: encrypted(Cipher(bytes(32), MIB), 7, plain, 4 * CHUNK), **blocks}
    for written, there in others.items():
        for at in range(4):
            block = bytes(there[at * BLOCK_BYTES :][:BLOCK_BYTES])
            for number in range(4):
                right = (written, at) == (7, number)
                assert refused(cipher, 7, number, block) is not right


def test_equal_contents_look_different(cipher: Cipher) -> None:
    """Neither the same bytes in two chunks, nor the same segment written twice, show."""
    plain = memoryview(bytes(4 * CHUNK))
    seen = set[bytes]()
    for number in (1, 2, 3):
        blocks = encrypted(cipher, number, plain, 4 * CHUNK)
        pieces = [bytes(blocks[at : at + 16]) for at in range(64, len(blocks), 16)]
        assert not seen.intersection(pieces)
        seen.update(pieces)
    assert len(seen) == 3 * len(pieces)


# -- on a medium ------------------------------------------------------------------------------


SUPERBLOCK = Superblock(b"u" * 16, "vswap0", MIB, 3, 1, 1, cipher=CIPHER_AES_256_GCM)


class Written:
    """A full segment of real records on an encrypted tier."""

    def __init__(self, cipher: Cipher) -> None:
        self.encryption = Encryption(cipher, 5)
        geometry = Geometry(8000, 4, MIB, 8, CHUNK)
        self.store = Store(geometry, make_buffers(geometry))
        rng, page = random.Random(4), 0
        while self.store.segments.state(0) != SEALED:
            self.store.store(page, make_page(rng, "text"))
            page += 1
        self.fill_bytes = self.store.segments.fill_bytes(0)
        self.sequence = self.store.segments.sequence(0)
        self.header = SegmentHeader(self.sequence, 1, self.fill_bytes, SUPERBLOCK.uuid, 0)
        self.ram = self.store.pool[self.store.segments.base(0) :][:MIB]
        self.plain = bytes(self.ram[: self.fill_bytes])
        self.backing = MemoryBacking(4 * MIB)
        self.offset = slot_offset_bytes(1, MIB)
        write_segment(self.backing, self.offset, self.ram, self.header, self.encryption)

    def read(self, *, salvage: bool = False) -> bytes:
        into = memoryview(bytearray(MIB))
        read_segment(self.backing, self.offset, into, self.header, self.encryption, salvage=salvage)
        return bytes(into[SEGMENT_HEADER_BYTES : self.fill_bytes])

    def damage(self, at: int) -> None:
        block = scratch(BLOCK_BYTES)
        start = self.offset + at // BLOCK_BYTES * BLOCK_BYTES
        self.backing.read_into(start, block)
        block[at % BLOCK_BYTES] ^= 1
        self.backing.write(start, block)

    def slot(self) -> memoryview:
        found = scratch(MIB)
        self.backing.read_into(self.offset, found)
        return found

    def decrypt(self, blocks: memoryview) -> tuple[memoryview, list[int]]:
        into = memoryview(bytearray(MIB))
        return into, self.encryption.cipher.decrypt(5, blocks, into)


def test_a_full_segment_fits_its_slot_and_comes_back(cipher: Cipher) -> None:
    written = Written(cipher)
    assert MIB - 2 * BLOCK_BYTES < blocks_bytes(written.fill_bytes, CHUNK) <= MIB
    assert written.read() == written.plain[SEGMENT_HEADER_BYTES:]
    assert bytes(written.ram[:64]) == bytes(64), "the header is not in RAM: a copy was written"


def test_a_damaged_segment_is_not_fetched_but_salvaged(cipher: Cipher) -> None:
    written = Written(cipher)
    written.damage(10 * BLOCK_BYTES + 99)
    with pytest.raises(TierFormatError, match="checksum"):
        written.read()
    saved = written.read(salvage=True)
    plain = bytearray(written.plain)
    plain[10 * CHUNK : 11 * CHUNK] = bytes(CHUNK)
    assert saved == plain[SEGMENT_HEADER_BYTES:]


def test_walk_with_and_without_the_key(cipher: Cipher) -> None:
    written = Written(cipher)
    without = walk_segment(written.slot(), SUPERBLOCK, 1)
    assert (without.state, without.records) == ("valid", [])
    within = walk_segment(written.slot(), SUPERBLOCK, 1, written.decrypt)
    assert within.state == "valid"
    assert sum(14 + each.stored_bytes for each in within.records) == written.fill_bytes - 64
    last = within.records[-1]
    assert last.byte_offset == written.offset + place_in_slot(
        written.fill_bytes - 14 - last.stored_bytes, CHUNK
    )
    written.damage(20 * BLOCK_BYTES + 5)
    (finding,) = walk_segment(written.slot(), SUPERBLOCK, 1).findings
    assert "checksum of all records" in finding.reason
    within = walk_segment(written.slot(), SUPERBLOCK, 1, written.decrypt)
    assert within.findings[0].byte_offset == written.offset + 20 * BLOCK_BYTES
    assert "does not decrypt" in within.findings[0].reason


# -- the numbers of writes --------------------------------------------------------------------


def test_a_number_of_a_write_is_never_used_again() -> None:
    """Nor a sequence: also not when the segment that had the last one is gone, and the clock went
    back."""
    geometry = Geometry(400, 24, 1 << 14, 64, CHUNK)
    buffers = make_buffers(geometry)
    store = Store(geometry, buffers, first_sequence=1000)
    store.segments.add_tier(8)
    rng, numbers, sequences = random.Random(3), set[int](), set[int]()
    for turn in range(6):
        for page in range(60):
            store.store(page, make_page(rng, "random"))
        for head in store.heads:
            head.close()
        while (segment := store.homes.choose(leave=-1)) is not None:
            plan = store.homes.plan_write(segment)
            if plan is None:
                break
            assert plan.write_number not in numbers
            numbers.add(plan.write_number)
            store.homes.end_write(plan, ok=rng.random() < 0.7)
        sequences.update(store.segments.sequence(n) for n in range(store.segments.count))
        store.discard(0, geometry.page_count)
        assert not any(store.segments.state(n) == SEALED for n in range(store.segments.count))
        store = Store.attach(geometry, buffers, first_sequence=1, tier_slot_counts=[8])
        store.finish_count()
        assert store.segments.next_sequence > max(sequences), f"turn {turn}"
    assert len(numbers) > 20


# -- what is needed ---------------------------------------------------------------------------


def test_without_the_library_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers.aead", None)
    with pytest.raises(HostError, match="cryptography") as raised:
        check_library()
    assert "pip install" in raised.value.remedy


def test_a_process_that_refuses_core_dumps_is_not_dumpable() -> None:
    program = (
        "import ctypes; from vswapfs.host import hardening;"
        "print(hardening.refuse_core_dumps().ok, ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout == "True 0\n"


def test_a_file_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "tier"
    path.touch(mode=0o644)
    FileBacking.open(str(path), 4 * MIB, overwrite=False, owner="vswap0").close()
    assert path.stat().st_mode & 0o777 == 0o600
