"""Hibernation images without a kernel: what is wrong with one is refused, and said where."""

import errno
import io
import mmap
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from xxhash import xxh3_128_digest

from vswapfs.backing.memory import MemoryBacking
from vswapfs.errors import HostError, ImageFormatError
from vswapfs.format import image
from vswapfs.format.image import CHUNK_BYTES, HEADER_BYTES, Chunk, Header, State, Step, TierFound
from vswapfs.format.record import CODEC_LZ4, CODEC_RAW
from vswapfs.hibernate import resume, tiers
from vswapfs.hibernate.reader import ImageReader, NoImageError, mark_refused
from vswapfs.hibernate.writer import ImageWriter, set_aside, write_header

AREA_BYTES = 16 << 20
KERNEL = "6.1.0 #1 SMP x86_64"
UUID = b"i" * 16
TIERS = [TierFound(b"t" * 16, b"f" * 16, "/dev/sdb1"), TierFound(b"u" * 16, b"g" * 16, "/dev/é")]


def contents(size_bytes: int) -> bytes:
    """A third of it random, so that some chunks are kept raw."""
    rng = random.Random(6)
    text = (b"text " * (CHUNK_BYTES // 5 + 1))[:CHUNK_BYTES]
    whole = b"".join(rng.randbytes(CHUNK_BYTES) + text + bytes(CHUNK_BYTES) for _ in range(3))
    return whole[:size_bytes]


def fill_from(data: bytes) -> Callable[[memoryview], int]:
    return io.BytesIO(data).readinto


@dataclass
class Made:
    backing: MemoryBacking
    data: bytes
    header: Header

    @property
    def chunks(self) -> list[Chunk]:
        index = self.read(self.header.index_offset, self.header.index_bytes)
        return list(image.chunks_in(self.header, memoryview(index)))

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self.backing._data[offset : offset + length])

    def flip(self, offset: int, bit: int = 0) -> None:
        self.backing._data[offset] ^= 1 << bit


@pytest.fixture
def made() -> Made:
    data = contents(7 * CHUNK_BYTES + 3 * 4096)
    backing = MemoryBacking(AREA_BYTES)
    set_aside(backing, UUID, 1)
    header = Header(State.READY, UUID, 1, AREA_BYTES, kernel=KERNEL)
    writer = ImageWriter(backing)
    writer.warm_up()
    writer.times_us[Step.FREEZE] = 17
    return Made(backing, data, writer.write(fill_from(data), header, TIERS))


def resumed(made: Made) -> bytes:
    """All that would be restored."""
    reader = ImageReader(made.backing)
    reader.check_state(KERNEL)
    assert reader.verify() == TIERS
    return b"".join(bytes(chunk) for chunk in reader.chunks())


def refusal(made: Made, kernel: str = KERNEL, mounted: Sequence[str] = ()) -> str:
    """The error of a resume, after which the image cannot be resumed any more."""
    with pytest.raises(ImageFormatError) as caught:
        resume.verified(made.backing, kernel, mounted, lambda _text: None)
    if image.is_image(made.read(0, HEADER_BYTES)):
        assert ImageReader(made.backing).header.state in (State.DAMAGED, State.USED)
    with pytest.raises(ImageFormatError):
        resume.verified(made.backing, KERNEL, [], lambda _text: None)
    return caught.value.message


def test_what_was_written_is_read(made: Made) -> None:
    header = made.header
    assert resumed(made) == made.data
    assert (header.image_bytes, header.chunk_count) == (len(made.data), 8)
    assert header.times_us[Step.FREEZE] == 17
    assert ImageReader(made.backing).header == header
    assert {chunk.codec for chunk in made.chunks} == {CODEC_RAW, CODEC_LZ4}
    stored = [chunk.stored_bytes for chunk in made.chunks]
    assert sum(stored) == header.stored_bytes < len(made.data) * 0.45
    assert max(stored) == CHUNK_BYTES


def test_an_image_is_resumed_once(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiers, "compare", lambda tiers: None)
    reader = resume.verified(made.backing, KERNEL, [], lambda _text: None)
    assert b"".join(bytes(chunk) for chunk in reader.chunks()) == made.data
    found = ImageReader(made.backing).header
    assert found.state is State.USED
    assert found.times_us[Step.VERIFY] > 0
    for _ in range(2):
        assert "used already" in refusal(made)
        assert ImageReader(made.backing).header.state is State.USED


def test_an_image_that_cannot_be_marked_is_not_said_to_be(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk may answer again at the next boot, and the image is ready."""

    def fail(_offset: int, _buffer: memoryview) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(made.backing, "read_into", fail)
        for _ in range(2):
            with pytest.raises(HostError, match="image's header: Input/output error"):
                resume.verified(made.backing, KERNEL, [], lambda _text: None)
    assert ImageReader(made.backing).header.state is State.READY


def test_an_area_that_was_set_aside_stays_empty(made: Made) -> None:
    set_aside(made.backing, UUID, 1)
    assert not mark_refused(made.backing, 2)
    assert ImageReader(made.backing).header.state is State.EMPTY


def places(made: Made) -> dict[str, tuple[int, str]]:
    """One byte of each part, and what the refusal must say of it."""
    chunks = made.chunks
    last = made.header.index_offset + made.header.index_bytes - 1
    found = {
        "version": (8, "header, bytes 0 to 4079"),
        "state": (12, "header, bytes 0 to 4079"),
        "unused": (2000, "header, bytes 0 to 4079"),
        "header's checksum": (HEADER_BYTES - 1, "header, bytes 0 to 4079"),
        "index": (made.header.index_offset, f"index, bytes {made.header.index_offset} to {last}"),
        "chunk's checksum": (made.header.index_offset + 8, "index, bytes"),
        "tier": (last, "index, bytes"),
    }
    for name, chunk in (("first", chunks[0]), ("middle", chunks[4]), ("last", chunks[-1])):
        end = chunk.offset + chunk.stored_bytes - 1
        text = f"chunk {chunk.number}, bytes {chunk.offset} to {end}: damaged"
        found[f"{name} chunk, first byte"] = (chunk.offset, text)
        found[f"{name} chunk, middle"] = (chunk.offset + chunk.stored_bytes // 2, text)
        found[f"{name} chunk, last byte"] = (end, text)
    return found


def test_a_flipped_bit_is_refused_wherever_it_is(made: Made) -> None:
    before = bytes(made.backing._data)
    for name, (offset, text) in places(made).items():
        for bit in range(8):
            made.backing._data[:] = before
            made.flip(offset, bit)
            assert text in refusal(made), f"{name}, bit {bit}"


def test_any_flipped_bit_of_what_is_used_is_refused(made: Made) -> None:
    before = bytes(made.backing._data)
    rng = random.Random(7)
    used = [range(HEADER_BYTES)]
    used += [range(c.offset, c.offset + c.stored_bytes) for c in made.chunks]
    used += [range(made.header.index_offset, made.header.index_offset + made.header.index_bytes)]
    for _ in range(100):
        made.backing._data[:] = before
        made.flip(rng.choice(rng.choice(used)), rng.randrange(8))
        refusal(made)


def test_a_flip_that_decompresses_to_the_same_bytes_is_refused(made: Made) -> None:
    """In a chunk that repeats itself an LZ4 match may as well copy from elsewhere."""
    chunk = made.chunks[2]
    assert chunk.stored_bytes < 8192
    before = bytes(made.backing._data)
    for offset in range(chunk.offset, chunk.offset + chunk.stored_bytes, 37):
        made.backing._data[:] = before
        made.flip(offset)
        assert "chunk 2, bytes" in refusal(made)


def test_chunks_exchanged(made: Made) -> None:
    """Each whole, both where the other one has to be."""
    first, second = made.chunks[0], made.chunks[3]
    assert first.stored_bytes == second.stored_bytes == CHUNK_BYTES
    data = [made.read(chunk.offset, CHUNK_BYTES) for chunk in (first, second)]
    made.backing._data[first.offset : first.offset + CHUNK_BYTES] = data[1]
    made.backing._data[second.offset : second.offset + CHUNK_BYTES] = data[0]
    assert f"chunk 0, bytes {first.offset}" in refusal(made)


def test_a_lost_magic_is_no_image_and_is_left_alone(made: Made) -> None:
    made.flip(3)
    before = bytes(made.backing._data)
    with pytest.raises(NoImageError, match="byte 0"):
        resume.verified(made.backing, KERNEL, [], lambda _text: None)
    assert not mark_refused(made.backing, 2)
    assert bytes(made.backing._data) == before


@pytest.mark.parametrize("left", ["in the index", "in the chunks", "in the header"])
def test_a_truncated_image(made: Made, left: str) -> None:
    size = {
        "in the index": made.header.index_offset,
        "in the chunks": made.chunks[2].offset + 4096,
        "in the header": 0,
    }[left]
    cut = MemoryBacking(size)
    cut._data[:] = made.read(0, size)
    made.backing = cut
    text = refusal(made) if size else ""
    if size:
        assert f"cut off: the device ends at byte {size}" in text
    else:
        with pytest.raises(ImageFormatError, match="header: cut off"):
            ImageReader(cut)


def test_an_image_of_another_kernel(made: Made) -> None:
    text = refusal(made, "6.12.0 #1 SMP x86_64")
    assert f"another kernel: {KERNEL}; this is 6.12.0" in text


def test_a_file_system_that_is_mounted_already(made: Made, tmp_path: Path) -> None:
    (tmp_path / "mountinfo").write_text(
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 ro,data=ordered\n"
        "23 22 0:5 / /proc rw - proc proc rw\n"
        "24 22 8:2 / /home rw - xfs /dev/sda2 rw,attr2\n"
    )
    mounted = resume.mounted_for_writing(tmp_path / "mountinfo")
    assert mounted == ["/dev/sda2"]
    assert "/dev/sda2 is mounted for writing" in refusal(made, mounted=mounted)


def test_another_version_is_told_from_damage(made: Made) -> None:
    covered = bytearray(made.header.pack()[: HEADER_BYTES - 16])
    covered[8] = 2
    made.backing._data[:HEADER_BYTES] = covered + xxh3_128_digest(covered)
    assert "version 2; this program knows 1" in refusal(made)


def test_no_image_is_no_reason_to_mark_anything(made: Made) -> None:
    set_aside(made.backing, UUID, 3)
    with pytest.raises(NoImageError, match="set aside"):
        resume.verified(made.backing, KERNEL, [], lambda _text: None)
    assert ImageReader(made.backing).header.state is State.EMPTY


def test_a_header_that_says_what_cannot_be(made: Made) -> None:
    write_header(made.backing, replace(made.header, chunk_count=3))
    assert "3 chunks for" in refusal(made)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"index_bytes": 8}, "index of 8 bytes for 8 chunks and 2 tiers"),
        ({"index_bytes": 4 << 20}, "index of 4194304 bytes for 8 chunks"),
        ({"index_offset": 8192}, "8 chunks before byte 8192"),
        ({"tier_count": 1 << 31}, "2147483648 tiers"),
    ],
)
def test_an_index_that_cannot_be(made: Made, change: dict[str, int], text: str) -> None:
    """It is not read: it may be as large as the area."""
    write_header(made.backing, replace(made.header, **change))  # type: ignore[arg-type]
    assert text in refusal(made)


@pytest.mark.parametrize("character", [0xFF, 0x1B])
def test_a_kernel_that_is_no_text(made: Made, character: int) -> None:
    covered = bytearray(made.header.pack()[: HEADER_BYTES - 16])
    covered[104] = character
    made.backing._data[:HEADER_BYTES] = covered + xxh3_128_digest(covered)
    assert "is no kernel's name" in refusal(made)


def test_a_tier_whose_path_is_no_text(made: Made) -> None:
    at = made.header.index_offset
    index = bytearray(made.read(at, made.header.index_bytes))
    index[-1] = 0xFF
    made.backing._data[at : at + len(index)] = index
    write_header(made.backing, replace(made.header, index_checksum=xxh3_128_digest(index)))
    assert "is not a path" in refusal(made)


def test_until_all_is_written_there_is_no_image() -> None:
    """A power cut at any time before the header: what was flushed, and whatever else arrived."""
    data = contents(3 * CHUNK_BYTES)
    backing = MemoryBacking(AREA_BYTES)
    set_aside(backing, UUID, 1)
    clones: list[MemoryBacking] = []
    source = fill_from(data)

    def fill(chunk: memoryview) -> int:
        clones.append(backing.crash_clone("all"))
        return source(chunk)

    ImageWriter(backing).write(fill, Header(State.READY, UUID, 1, AREA_BYTES, kernel=KERNEL), [])
    assert len(clones) == 4
    for clone in clones:
        with pytest.raises(NoImageError):
            ImageReader(clone).check_state(KERNEL)
    # And none of it is only in the device's cache when the header is there.
    reader = ImageReader(backing.crash_clone("none"))
    reader.check_state(KERNEL)
    reader.verify()


def test_an_area_that_is_too_small() -> None:
    backing = MemoryBacking(2 << 20)
    set_aside(backing, UUID, 1)
    header = Header(State.READY, UUID, 1, 2 << 20, kernel=KERNEL)
    rng = random.Random(8)
    with pytest.raises(HostError, match=r"the area of 2\.0M is full after 2\.0M"):
        ImageWriter(backing).write(fill_from(rng.randbytes(3 << 20)), header, [])
    with pytest.raises(NoImageError):
        ImageReader(backing).check_state(KERNEL)


def test_the_header_is_one_block_of_page_aligned_memory() -> None:
    assert HEADER_BYTES == mmap.PAGESIZE
    assert len(Header(State.READY, UUID, 1, AREA_BYTES).pack()) == HEADER_BYTES
