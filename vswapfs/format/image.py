"""The hibernation image: its header, and the index that vouches for its chunks.

Owns the layout of both. Never reads or writes a medium. Always holds: all little-endian; what is
not defined is zero; a header vouches for the index, the index for every chunk, and the header is
written last.

    [0, 4096)            header
    [4096, ...)          chunks, one behind the other, each from a block of 4096 bytes on
    [index_offset, ...)  index: an entry for each chunk, then one for each tier

    header                                      entry of a chunk
    offset  size  field                         offset  size  field
         0     8  magic                              0     4  stored_bytes
         8     4  version                            4     4  codec (record.py: raw or LZ4)
        12     4  state                              8    16  checksum: xxh3-128 of the chunk as it
        16    16  uuid                                        was before compression, and behind
        32     8  created_unix_s                              that as it is stored
        40     8  area_bytes                    entry of a tier
        48     8  image_bytes                   offset  size  field
        56     8  stored_bytes                       0    16  uuid
        64     8  index_offset                      16    16  fingerprint (hibernate/tiers.py)
        72     4  index_bytes                       32     2  length of the path
        76     4  chunk_count                       34     n  path
        80     4  tier_count
        84     4  0
        88    16  index_checksum: xxh3-128
       104   256  kernel
       360    88  times_us: 8 bytes for each of Step
       448  3632  0
      4080    16  checksum: xxh3-128 of everything before it

All chunks but the last have CHUNK_BYTES before compression. A version that adds a field moves
neither magic, version nor checksum: another version is told from damage.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from xxhash import xxh3_128, xxh3_128_digest

from vswapfs.errors import ImageFormatError
from vswapfs.format.record import CODEC_NAMES
from vswapfs.format.tier import TIERS_MAX

HEADER_BYTES: Final = 4096
BLOCK_BYTES: Final = 4096
CHUNK_BYTES: Final = 1 << 20
AREA_MIN_BYTES: Final = 1 << 24
MAGIC: Final = b"vswhibr\0"

_VERSION: Final = 1
_HEADER: Final = struct.Struct("<8sII16sQQQQQIIII16s256s")
_CHUNK: Final = struct.Struct("<II16s")
_TIER: Final = struct.Struct("<16s16sH")
_PATH_MAX_BYTES: Final = 65535
_CHECKSUM_BYTES: Final = 16
_COVERED: Final = HEADER_BYTES - _CHECKSUM_BYTES


class State(IntEnum):
    """What may be done with an area."""

    EMPTY = 0
    """Set aside: there is no image."""
    READY = 1
    """To be resumed, once."""
    USED = 2
    """It was resumed, or belongs to a machine that went on."""
    DAMAGED = 3
    """It was refused, and must not be tried again: the machine booted on."""


class Step(IntEnum):
    """What hibernation and resume spend their time on; the index of its time."""

    REST = 0
    ROOM = 1
    GUARD = 2
    FREEZE = 3
    SNAPSHOT = 4
    READ = 5
    COMPRESS = 6
    CHECKSUM = 7
    WRITE = 8
    FINGERPRINT = 9
    VERIFY = 10


_TIMES: Final = struct.Struct(f"<{len(Step)}Q")


@dataclass(frozen=True, slots=True)
class Header:
    """What an image is."""

    state: State
    uuid: bytes
    created_unix_s: int
    area_bytes: int
    image_bytes: int = 0
    """As the kernel gave it."""
    stored_bytes: int = 0
    """Of all chunks, without what fills their last blocks."""
    index_offset: int = 0
    index_bytes: int = 0
    chunk_count: int = 0
    tier_count: int = 0
    index_checksum: bytes = bytes(_CHECKSUM_BYTES)
    kernel: str = ""
    """The kernel that made it; no other can take it."""
    times_us: tuple[int, ...] = (0,) * len(Step)

    def pack(self) -> bytes:
        fields = _HEADER.pack(
            MAGIC,
            _VERSION,
            self.state,
            self.uuid,
            self.created_unix_s,
            self.area_bytes,
            self.image_bytes,
            self.stored_bytes,
            self.index_offset,
            self.index_bytes,
            self.chunk_count,
            self.tier_count,
            0,
            self.index_checksum,
            self.kernel.encode("ascii", "replace"),
        )
        covered = (fields + _TIMES.pack(*self.times_us)).ljust(_COVERED, b"\0")
        return covered + xxh3_128_digest(covered)

    @classmethod
    def unpack(cls, data: bytes | memoryview) -> "Header":
        """Raises ImageFormatError that says what is wrong."""
        if not is_image(data):
            raise ImageFormatError("no hibernation image: byte 0 does not begin one")
        check_sum("header", 0, data[:_COVERED], bytes(data[_COVERED:HEADER_BYTES]))
        (
            _magic,
            version,
            state,
            uuid,
            created_unix_s,
            area_bytes,
            image_bytes,
            stored_bytes,
            index_offset,
            index_bytes,
            chunk_count,
            tier_count,
            pad,
            index_checksum,
            kernel,
        ) = _HEADER.unpack_from(data)
        if version != _VERSION:
            raise ImageFormatError(
                f"header, byte 8: version {version}; this program knows {_VERSION}"
            )
        if state not in list(State) or pad:
            raise ImageFormatError(f"header, byte 12: state {state} is not known")
        # What does not fit is "?" (pack), and it will be printed.
        kernel_name = kernel.rstrip(b"\0").decode("latin-1")
        if not (kernel_name.isascii() and kernel_name.isprintable()):
            raise ImageFormatError(f"header, byte 104: {kernel!r} is no kernel's name")
        header = cls(
            State(state),
            uuid,
            created_unix_s,
            area_bytes,
            image_bytes,
            stored_bytes,
            index_offset,
            index_bytes,
            chunk_count,
            tier_count,
            index_checksum,
            kernel_name,
            _TIMES.unpack_from(data, _HEADER.size),
        )
        chunks = -(-header.image_bytes // CHUNK_BYTES)
        end = header.index_offset + header.index_bytes
        if header.chunk_count != chunks or end > header.area_bytes:
            raise ImageFormatError(
                f"header: impossible: {header.chunk_count} chunks for {header.image_bytes} bytes, "
                f"index up to byte {end} of {header.area_bytes}"
            )
        header._check_index()
        return header

    def _check_index(self) -> None:
        """Raises ImageFormatError if it cannot be that large, or there: it is read as a whole."""
        least = self.chunk_count * _CHUNK.size + self.tier_count * _TIER.size
        most = least + self.tier_count * _PATH_MAX_BYTES
        if self.tier_count > TIERS_MAX or not least <= self.index_bytes <= most:
            raise ImageFormatError(
                f"header: impossible: an index of {self.index_bytes} bytes for {self.chunk_count} "
                f"chunks and {self.tier_count} tiers"
            )
        if self.chunk_count and self.index_offset < HEADER_BYTES + self.chunk_count * BLOCK_BYTES:
            raise ImageFormatError(
                f"header: impossible: {self.chunk_count} chunks before byte {self.index_offset}"
            )


@dataclass(frozen=True, slots=True)
class Chunk:
    """Where a part of the image lies, and what vouches for it."""

    number: int
    offset: int
    stored_bytes: int
    codec: int
    image_bytes: int
    """Before compression."""
    checksum: bytes

    def __str__(self) -> str:
        return f"chunk {self.number}, bytes {self.offset} to {self.offset + self.stored_bytes - 1}"


@dataclass(frozen=True, slots=True)
class TierFound:
    """A tier as it was at the moment of the snapshot."""

    uuid: bytes
    fingerprint: bytes
    path: str


@dataclass(slots=True)
class Index:
    """Of an image that is being written: filled chunk by chunk."""

    tiers: Sequence[TierFound] = ()
    entries: list[bytes] = field(default_factory=list)

    def add(self, stored_bytes: int, codec: int, checksum: bytes) -> None:
        self.entries.append(_CHUNK.pack(stored_bytes, codec, checksum))

    def pack(self) -> bytes:
        tiers = [
            _TIER.pack(tier.uuid, tier.fingerprint, len(path)) + path
            for tier in self.tiers
            if (path := tier.path.encode())
        ]
        return b"".join([*self.entries, *tiers])


def is_image(data: bytes | memoryview) -> bool:
    """Whether an area begins as one of ours does, damaged or not."""
    return len(data) >= HEADER_BYTES and bytes(data[: len(MAGIC)]) == MAGIC


def check_sum(
    what: str, offset: int, data: bytes | bytearray | memoryview, expected: bytes
) -> None:
    """Raises ImageFormatError with place and both checksums if they differ."""
    if (found := xxh3_128_digest(data)) != expected:
        raise ImageFormatError(
            f"{what}, bytes {offset} to {offset + len(data) - 1}: damaged: checksum {found.hex()}, "
            f"not {expected.hex()}"
        )


def chunk_checksum(data: bytes | memoryview, stored: bytes | memoryview) -> bytes:
    """Of a chunk before compression and as it is stored. Both: the first covers the compressor, and
    without the second a flipped bit that decompresses to the same bytes would go unnoticed."""
    digest = xxh3_128(data)
    digest.update(stored)
    return digest.digest()


def blocks_bytes(stored_bytes: int) -> int:
    """What a chunk takes of the area."""
    return -(-stored_bytes // BLOCK_BYTES) * BLOCK_BYTES


def chunks_in(header: Header, index: memoryview) -> Iterator[Chunk]:
    """The chunks of an index whose checksum holds. Raises ImageFormatError."""
    offset = HEADER_BYTES
    left_bytes = header.image_bytes
    for number in range(header.chunk_count):
        stored_bytes, codec, checksum = _CHUNK.unpack_from(index, number * _CHUNK.size)
        chunk = Chunk(number, offset, stored_bytes, codec, min(left_bytes, CHUNK_BYTES), checksum)
        offset += blocks_bytes(stored_bytes)
        left_bytes -= chunk.image_bytes
        known = codec in CODEC_NAMES and 0 < stored_bytes <= CHUNK_BYTES
        if not known or offset > header.index_offset:
            raise ImageFormatError(f"index: {chunk} cannot be (codec {codec})")
        yield chunk


def tiers_in(header: Header, index: memoryview) -> Iterator[TierFound]:
    """The tiers of an index whose checksum holds. Raises ImageFormatError."""
    at = header.chunk_count * _CHUNK.size
    for _ in range(header.tier_count):
        if at + _TIER.size > len(index):
            raise ImageFormatError(f"index: cut off after {len(index)} bytes")
        uuid, fingerprint, length = _TIER.unpack_from(index, at)
        at += _TIER.size
        path = bytes(index[at : at + length])
        try:
            yield TierFound(uuid, fingerprint, path.decode())
        except UnicodeDecodeError:
            raise ImageFormatError(f"index: {path!r} is not a path") from None
        at += length
