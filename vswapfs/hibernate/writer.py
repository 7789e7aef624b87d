"""Writes an image: chunks as they come, compressed and summed, then the index, then the header.

Owns the position in the area. Never allocates more than a chunk at a time: it runs when no other
task does, in memory that was there before. Always holds: until ``write`` returns, the header in
the area says that there is no image.
"""

import errno
import mmap
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from lz4.block import compress
from xxhash import xxh3_128_digest

from vswapfs.backing.api import Backing
from vswapfs.errors import HostError
from vswapfs.format.image import (
    CHUNK_BYTES,
    HEADER_BYTES,
    Header,
    Index,
    State,
    Step,
    TierFound,
    blocks_bytes,
    chunk_checksum,
)
from vswapfs.format.record import CODEC_LZ4, CODEC_RAW
from vswapfs.units import format_size

_RAW_FROM_BYTES: Final = CHUNK_BYTES * 15 // 16
"""From this length on the chunk itself is stored, as for pages (format/codec.py)."""

Fill = Callable[[memoryview], int]
"""Fills a buffer of CHUNK_BYTES with what comes next of the image; bytes filled, 0 at its end."""


class ImageWriter:
    """``backing``: the area, whose header says that there is no image."""

    def __init__(self, backing: Backing) -> None:
        self._backing = backing
        self._map = mmap.mmap(-1, 2 * CHUNK_BYTES)
        view = memoryview(self._map)
        self.chunk, self._out = view[:CHUNK_BYTES], view[CHUNK_BYTES:]
        self.times_us = [0] * len(Step)
        """By Step; whoever does other steps adds theirs."""

    def warm_up(self) -> None:
        """Take all memory that ``write`` needs, and load what it calls."""
        for at in range(0, 2 * CHUNK_BYTES, 4096):
            self._map[at] = at >> 12 & 0xFF
        for _ in range(4):  # until the allocator keeps blocks of this size
            packed = compress(self.chunk, store_size=False)
            self._out[: len(packed)] = packed
            chunk_checksum(self.chunk, packed)

    def write(self, fill: Fill, header: Header, tiers: Sequence[TierFound]) -> Header:
        """Write a whole image, and return its header, which is in the area then.

        Raises HostError if the area is too small or cannot be written; it has no image then.
        """
        index = Index(tiers)
        offset, image_bytes, stored_bytes = HEADER_BYTES, 0, 0
        while True:
            begin = time.monotonic_ns()
            length = fill(self.chunk)
            begin = self._clock(Step.READ, begin)
            if not length:
                break
            chunk = self.chunk[:length]
            packed = compress(chunk, store_size=False)
            codec = CODEC_LZ4 if len(packed) < _RAW_FROM_BYTES else CODEC_RAW
            begin = self._clock(Step.COMPRESS, begin)
            stored = packed if codec == CODEC_LZ4 else chunk
            index.add(len(stored), codec, chunk_checksum(chunk, stored))
            begin = self._clock(Step.CHECKSUM, begin)
            image_bytes += length
            self._write(offset, stored, image_bytes)
            stored_bytes += len(stored)
            offset += blocks_bytes(len(stored))
            self._clock(Step.WRITE, begin)
        begin = time.monotonic_ns()
        table = index.pack()
        for at in range(0, len(table), CHUNK_BYTES):
            self._write(offset + at, table[at : at + CHUNK_BYTES], image_bytes)
        self._flush()
        self._clock(Step.WRITE, begin)
        done = replace(
            header,
            image_bytes=image_bytes,
            stored_bytes=stored_bytes,
            index_offset=offset,
            index_bytes=len(table),
            chunk_count=len(index.entries),
            tier_count=len(tiers),
            index_checksum=xxh3_128_digest(table),
            times_us=tuple(self.times_us),
        )
        write_header(self._backing, done, self._out)
        return done

    def _write(self, offset: int, data: bytes | memoryview, image_bytes: int) -> None:
        length = blocks_bytes(len(data))
        if offset + length > self._backing.size_bytes:
            raise HostError(
                "write the image",
                f"the area of {format_size(self._backing.size_bytes)} is full after "
                f"{format_size(image_bytes)} of the image",
                remedy="a larger --image",
            )
        self._out[: len(data)] = data
        self._out[len(data) : length] = bytes(length - len(data))
        try:
            self._backing.write(offset, self._out[:length])
        except OSError as error:
            raise HostError(f"write the image at byte {offset}", _text(error)) from None

    def _flush(self) -> None:
        try:
            self._backing.flush()
        except OSError as error:
            raise HostError("write the image: flush", _text(error)) from None

    def _clock(self, step: Step, begin_ns: int) -> int:
        now_ns = time.monotonic_ns()
        self.times_us[step] += (now_ns - begin_ns) // 1000
        return now_ns


def write_header(backing: Backing, header: Header, buffer: memoryview | None = None) -> None:
    """Replace the header, one block, in a write of its own; flushed. Raises HostError."""
    block = (buffer if buffer is not None else memoryview(mmap.mmap(-1, HEADER_BYTES)))[
        :HEADER_BYTES
    ]
    block[:] = header.pack()
    try:
        backing.write(0, block)
        backing.flush()
    except OSError as error:
        raise HostError("write the header of the image", _text(error)) from None


def set_aside(backing: Backing, uuid: bytes, now_unix_s: int) -> Header:
    """Say that there is no image any more. Raises HostError."""
    header = Header(State.EMPTY, uuid, now_unix_s, backing.size_bytes)
    write_header(backing, header)
    return header


def _text(error: OSError) -> str:
    return error.strerror or errno.errorcode.get(error.errno or 0, str(error))
