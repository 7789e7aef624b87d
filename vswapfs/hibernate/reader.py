"""Reads an image back: may it be resumed, is every byte what was written, and its pages.

Owns the order of the checks: header, state, kernel, index, then every chunk. Never changes the
area but its state. Always holds: nothing is given out of an image that was not verified whole.
"""

import mmap
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from lz4.block import LZ4BlockError, decompress

from vswapfs.backing.api import Backing
from vswapfs.errors import HostError, ImageFormatError
from vswapfs.format.image import (
    CHUNK_BYTES,
    HEADER_BYTES,
    Chunk,
    Header,
    State,
    TierFound,
    blocks_bytes,
    check_sum,
    chunk_checksum,
    chunks_in,
    is_image,
    tiers_in,
)
from vswapfs.format.record import CODEC_LZ4
from vswapfs.hibernate.writer import write_header

_WHY_NOT: Final = {
    State.EMPTY: "there is no image: the area was set aside, and none was written since",
    State.USED: "the image was used already: what it was made of has gone on since",
    State.DAMAGED: "the image was refused before, and the machine has gone on since",
}


class NoImageError(ImageFormatError):
    """There is nothing to resume, and nothing wrong: the usual case at a boot."""


class ImageReader:
    """``backing``: the area, as large as it is said to be or as the device is."""

    def __init__(self, backing: Backing) -> None:
        self._backing = backing
        self._map = mmap.mmap(-1, CHUNK_BYTES)
        self._in = memoryview(self._map)
        first = self._read("header", 0, HEADER_BYTES)
        if not is_image(first):
            raise NoImageError("no hibernation image: byte 0 does not begin one")
        self.header = Header.unpack(first)

    def check_state(self, kernel: str) -> None:
        """Raises NoImageError or ImageFormatError if this kernel may not resume it."""
        state = self.header.state
        if state is not State.READY:
            raise (NoImageError if state is State.EMPTY else ImageFormatError)(_WHY_NOT[state])
        if self.header.kernel != kernel:
            raise ImageFormatError(
                f"header, byte 104: an image of another kernel: {self.header.kernel}; "
                f"this is {kernel}",
                remedy="boot that kernel; this boot uses the image up",
            )

    def verify(self) -> list[TierFound]:
        """Read and verify everything. Raises ImageFormatError for the first that is not right."""
        self._index = self._read_index()
        for chunk in chunks_in(self.header, self._index):
            self._load(chunk)
        return list(tiers_in(self.header, self._index))

    def chunks(self) -> Iterator[memoryview | bytes]:
        """The image, a chunk at a time, each verified again as it is read again."""
        for chunk in chunks_in(self.header, self._index):
            yield self._load(chunk)

    def mark(self, state: State, times_us: tuple[int, ...] | None = None) -> None:
        """Raises HostError."""
        self.header = replace(self.header, state=state, times_us=times_us or self.header.times_us)
        write_header(self._backing, self.header)

    def _read_index(self) -> memoryview:
        header = self.header
        index = bytearray()
        for at in range(0, header.index_bytes, CHUNK_BYTES):
            length = min(CHUNK_BYTES, header.index_bytes - at)
            index += self._read("index", header.index_offset + at, blocks_bytes(length))[:length]
        check_sum("index", header.index_offset, index, header.index_checksum)
        return memoryview(index)

    def _load(self, chunk: Chunk) -> memoryview | bytes:
        found = self._read(str(chunk), chunk.offset, blocks_bytes(chunk.stored_bytes))
        stored = found[: chunk.stored_bytes]
        data: memoryview | bytes = stored
        if chunk.codec == CODEC_LZ4:
            try:
                data = decompress(stored, uncompressed_size=chunk.image_bytes)
            except LZ4BlockError as error:
                raise ImageFormatError(f"{chunk}: damaged: {error}") from None
        if len(data) != chunk.image_bytes:
            raise ImageFormatError(
                f"{chunk}: damaged: {len(data)} bytes instead of {chunk.image_bytes}"
            )
        if (found_sum := chunk_checksum(data, stored)) != chunk.checksum:
            raise ImageFormatError(
                f"{chunk}: damaged: checksum {found_sum.hex()}, not {chunk.checksum.hex()}"
            )
        return data

    def _read(self, what: str, offset: int, length: int) -> memoryview:
        """Raises ImageFormatError: what cannot be read is as good as damaged."""
        if offset + length > self._backing.size_bytes:
            raise ImageFormatError(
                f"{what}: cut off: the device ends at byte {self._backing.size_bytes}"
            )
        try:
            self._backing.read_into(offset, self._in[:length])
        except OSError as error:
            raise ImageFormatError(
                f"{what}: cannot be read at byte {offset}: {error.strerror or error}"
            ) from None
        return self._in[:length]


def mark_refused(backing: Backing, now_unix_s: int) -> bool:
    """Keep what lies there from ever being tried again; False if there is nothing to keep: no image
    of ours, or one that is not ready. That is left alone. Raises HostError."""
    if backing.size_bytes < HEADER_BYTES:
        return False
    block = memoryview(mmap.mmap(-1, HEADER_BYTES))
    try:
        backing.read_into(0, block)
    except OSError as error:
        raise HostError("read the image's header", error.strerror or str(error)) from None
    if not is_image(block):
        return False
    try:
        header = Header.unpack(block)
        if header.state is not State.READY:
            return False
        header = replace(header, state=State.DAMAGED)
    except ImageFormatError:
        header = Header(State.DAMAGED, bytes(16), now_unix_s, backing.size_bytes)
    write_header(backing, header)
    return True
