"""Damage to hibernation images: one bit at a named place, and what of many cases is noticed.

Owns the commands `image inject`, `image run` and `image cost`. The images of the last two are made
in memory, without a kernel, by the code that writes them; CRC32 is that of the kernel's own image:
one over all pages.
"""

import io
import mmap
import random
import statistics
import struct
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import click
from damage_kinds import SECTOR_BYTES
from lz4.block import LZ4BlockError, decompress
from rich.console import Console
from rich.table import Table
from xxhash import xxh3_128_digest

from vswapfs.backing.api import Backing
from vswapfs.backing.memory import MemoryBacking
from vswapfs.errors import ImageFormatError, VswapError
from vswapfs.format.image import (
    BLOCK_BYTES,
    CHUNK_BYTES,
    HEADER_BYTES,
    MAGIC,
    Chunk,
    Header,
    State,
    Step,
    blocks_bytes,
    chunks_in,
)
from vswapfs.format.record import CODEC_LZ4
from vswapfs.hibernate import area
from vswapfs.hibernate.reader import ImageReader
from vswapfs.hibernate.writer import ImageWriter, set_aside, write_header
from vswapfs.units import PAGE_BYTES

PLACES: Final = ("header", "first", "middle", "last", "index", "kernel")
DATA_KINDS: Final = ("flip-chunk", "zero-sector", "swap-sectors", "misplace", "tear")
KINDS: Final = ("flip-header", "flip-index", *DATA_KINDS)
COLUMNS: Final = (
    "cases", "refused", "harmless", "undetected", "none undetected", "crc32 undetected"
)  # fmt: skip
_IMAGE_CHUNKS: Final = 12
_KERNEL: Final = "damage"


@click.group()
def image() -> None:
    """Damage hibernation images."""


@image.command()
@click.argument("path")
@click.option("--place", type=click.Choice(PLACES), required=True)
@click.option("--seed", default=1, show_default=True)
def inject(path: str, place: str, seed: int) -> None:
    """Flip one bit of the image on a block device, and say which; once more is the undo.

    With `--place kernel` the header says that another kernel made it, and is valid.
    """
    try:
        with area.opened(path) as backing:
            reader = ImageReader(backing)
            if place == "kernel":
                write_header(backing, replace(reader.header, kernel="another one"))
                click.echo(f"{path}: made by another kernel")
                return
            at, bit = choose(backing, reader.header, place, random.Random(f"{seed}/{place}"))
            _flip(backing, at, bit)
    except VswapError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{path}: bit {bit} of byte {at} flipped ({place})")


def choose(backing: Backing, header: Header, place: str, rng: random.Random) -> tuple[int, int]:
    """A byte of the area at a place, and a bit of it."""
    if place == "header":
        at = rng.randrange(len(MAGIC), HEADER_BYTES)
    elif place == "index":
        at = header.index_offset + rng.randrange(header.index_bytes)
    else:
        chunks = _chunks(backing, header)
        chunk = chunks[{"first": 0, "middle": len(chunks) // 2, "last": -1}[place]]
        at = chunk.offset + rng.randrange(chunk.stored_bytes)
    return at, rng.randrange(8)


def _chunks(backing: Backing, header: Header) -> list[Chunk]:
    index = _read(backing, header.index_offset, blocks_bytes(header.index_bytes))
    return list(chunks_in(header, memoryview(index)))


def _read(backing: Backing, offset: int, length: int) -> bytes:
    with mmap.mmap(-1, length) as buffer:
        with memoryview(buffer) as view:
            backing.read_into(offset, view)
        return buffer[:length]


def _flip(backing: Backing, at: int, bit: int) -> None:
    start = at // BLOCK_BYTES * BLOCK_BYTES
    with mmap.mmap(-1, BLOCK_BYTES) as buffer, memoryview(buffer) as view:
        backing.read_into(start, view)
        view[at - start] ^= 1 << bit
        backing.write(start, view)
        backing.flush()


# -- run --------------------------------------------------------------------------------------


def _pages(rng: random.Random) -> Iterator[bytes]:
    """As memory is: pages of zeros, of text, of pointers, and such as nothing compresses."""
    words = [rng.randbytes(rng.randrange(2, 9)).hex().encode() + b" " for _ in range(300)]
    while True:
        kind = rng.random()
        if kind < 0.15:
            yield bytes(PAGE_BYTES)
        elif kind < 0.5:
            yield b"".join(rng.choices(words, k=600))[:PAGE_BYTES]
        elif kind < 0.8:
            base = rng.randrange(1 << 46)
            yield struct.pack("<512Q", *(base + rng.randrange(1 << 16) for _ in range(512)))
        else:
            yield rng.randbytes(PAGE_BYTES)


@dataclass(frozen=True, slots=True)
class Image:
    """An area with an image in it."""

    area: bytes
    pages: bytes
    header: Header
    chunks: list[Chunk]


def _memory(chunks: int, rng: random.Random) -> bytes:
    pages = _pages(rng)
    return b"".join(next(pages) for _ in range(chunks * CHUNK_BYTES // PAGE_BYTES))


def _make(backing: MemoryBacking, uuid: bytes, data: bytes) -> Image:
    set_aside(backing, uuid, 1)
    header = Header(State.READY, uuid, 1, backing.size_bytes, kernel=_KERNEL)
    header = ImageWriter(backing).write(io.BytesIO(data).readinto, header, [])
    return Image(_read(backing, 0, backing.size_bytes), data, header, _chunks(backing, header))


def _backing_of(area: bytes) -> MemoryBacking:
    backing = MemoryBacking(len(area))
    backing.write(0, memoryview(bytearray(area)))
    return backing


class Lab:
    """An image, what lay under it before, and what each way of checking makes of damage to it."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        backing = MemoryBacking((_IMAGE_CHUNKS + 2) * CHUNK_BYTES)
        self._older = _make(backing, b"1" * 16, _memory(_IMAGE_CHUNKS, rng)).area
        self._image = _make(backing, b"2" * 16, _memory(_IMAGE_CHUNKS, rng))
        self._crc32 = zlib.crc32(self._image.pages)

    def case(self, kind: str, rng: random.Random) -> Counter[str]:
        found = bytearray(self._image.area)
        while found == self._image.area:
            self._damage(kind, found, rng)
        counts = Counter({"cases": 1, self._verdict_of_ours(bytes(found)): 1})
        if kind in DATA_KINDS:
            restored = self._restored(found)
            if restored is not None and restored != self._image.pages:
                counts["none undetected"] += 1
                counts["crc32 undetected"] += zlib.crc32(restored) == self._crc32
        return counts

    def _damage(self, kind: str, area: bytearray, rng: random.Random) -> None:
        header, chunks = self._image.header, self._image.chunks
        chunk = rng.choice(chunks)
        if kind.startswith("flip"):
            start, length = {
                "flip-header": (0, HEADER_BYTES),
                "flip-chunk": (chunk.offset, chunk.stored_bytes),
                "flip-index": (header.index_offset, header.index_bytes),
            }[kind]
            area[start + rng.randrange(length)] ^= 1 << rng.randrange(8)
            return
        sectors = range(chunk.offset, chunk.offset + chunk.stored_bytes, SECTOR_BYTES)
        one, two = rng.choice(sectors), rng.choice(sectors)
        if kind == "zero-sector":
            area[one : one + SECTOR_BYTES] = bytes(SECTOR_BYTES)
        elif kind == "swap-sectors":
            first, second = area[one : one + SECTOR_BYTES], area[two : two + SECTOR_BYTES]
            area[one : one + SECTOR_BYTES], area[two : two + SECTOR_BYTES] = second, first
        elif kind == "misplace":
            other = rng.choice(chunks)
            length = min(blocks_bytes(each.stored_bytes) for each in (chunk, other))
            area[chunk.offset : chunk.offset + length] = self._image.area[other.offset :][:length]
        else:
            # Of what was written last, the last did not arrive.
            area[one : header.index_offset] = self._older[one : header.index_offset]

    def _verdict_of_ours(self, area: bytes) -> str:
        try:
            reader = ImageReader(_backing_of(area))
            reader.check_state(_KERNEL)
            reader.verify()
            restored = b"".join(bytes(chunk) for chunk in reader.chunks())
        except ImageFormatError:
            return "refused"
        return "harmless" if restored == self._image.pages else "undetected"

    def _restored(self, area: bytearray) -> bytes | None:
        """What comes of it without our checksums; None if LZ4 notices."""
        parts = []
        for chunk in self._image.chunks:
            part = bytes(area[chunk.offset : chunk.offset + chunk.stored_bytes])
            if chunk.codec == CODEC_LZ4:
                try:
                    part = decompress(part, uncompressed_size=chunk.image_bytes)
                except LZ4BlockError:
                    return None
            if len(part) != chunk.image_bytes:
                return None
            parts.append(part)
        return b"".join(parts)


@image.command()
@click.option("--cases", type=click.IntRange(1), default=100, show_default=True, help="Of a kind.")
@click.option("--seed", default=1, show_default=True)
def run(cases: int, seed: int) -> None:
    """Damage an image in memory, one damage at a time, and count what is noticed.

    The last two columns are of the same damage to the same chunks: LZ4 alone, and LZ4 with one
    CRC32 over all pages, as the kernel's own image has. Ends with exit code 1 if any damage was
    not noticed.
    """
    lab = Lab(seed)
    table = Table("kind", *COLUMNS)
    total: Counter[str] = Counter()
    for kind in KINDS:
        rng = random.Random(f"{seed}/{kind}")
        counts: Counter[str] = sum((lab.case(kind, rng) for _ in range(cases)), Counter())
        total += counts
        cells = [str(counts[column]) for column in COLUMNS]
        if kind not in DATA_KINDS:
            cells[-2:] = ["-", "-"]
        table.add_row(kind, *cells)
    Console().print(table)
    sys.exit(1 if total["undetected"] else 0)


# -- cost -------------------------------------------------------------------------------------


@image.command()
@click.option("--size", "size_mib", type=click.IntRange(1), default=128, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
def cost(size_mib: int, rounds: int) -> None:
    """What it takes to write and to verify an image of so many MiB, in memory; medians."""
    data = _memory(size_mib, random.Random(1))
    taken: dict[str, list[float]] = {}
    for _ in range(rounds):
        made = _make(MemoryBacking((size_mib + 2) * CHUNK_BYTES), b"1" * 16, data)
        for step in (Step.COMPRESS, Step.CHECKSUM):
            taken.setdefault(step.name.lower(), []).append(made.header.times_us[step] / 1e6)
        backing = _backing_of(made.area)
        for name, job in (
            ("verify: read, decompress, compare", ImageReader(backing).verify),
            ("of it xxh3-128", lambda: [xxh3_128_digest(part) for part in _chunks_of(data)]),
            ("CRC32 instead (zlib)", lambda: zlib.crc32(data)),
        ):
            begin_s = time.perf_counter()
            job()
            taken.setdefault(name, []).append(time.perf_counter() - begin_s)
    share = made.header.stored_bytes / len(data)
    table = Table("step", "seconds", "MiB/s", title=f"{size_mib} MiB, stored in {share:.1%} of it")
    for name, seconds in taken.items():
        median_s = statistics.median(seconds)
        table.add_row(name, f"{median_s:.3f}", f"{size_mib / median_s:.0f}")
    Console().print(table)


def _chunks_of(data: bytes) -> Iterator[memoryview]:
    view = memoryview(data)
    return (view[at : at + CHUNK_BYTES] for at in range(0, len(view), CHUNK_BYTES))
