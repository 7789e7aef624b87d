"""Hibernation images: what a resume makes of any area that has one, or something like it.

Nothing but the errors of the tree; what is refused is marked and refused again; what is not refused
is, to the byte, what was written.
"""

import io
import random
import struct
from typing import Final
from unittest import mock

from xxhash import xxh3_128_digest

from fuzzing.source import Source
from vswapfs.backing.memory import MemoryBacking
from vswapfs.errors import ImageFormatError
from vswapfs.format.image import CHUNK_BYTES, HEADER_BYTES, Header, State, TierFound
from vswapfs.hibernate import resume, tiers
from vswapfs.hibernate.reader import ImageReader, NoImageError
from vswapfs.hibernate.writer import ImageWriter, set_aside

SEEDS: Final = [bytes([kind]) + random.Random(kind).randbytes(40) for kind in range(12)]

_AREA_BYTES: Final = 4 << 20
_KERNEL: Final = "6.1.0 #1 SMP x86_64"
_UUID: Final = b"image of the run"
_IMAGE: Final = random.Random(3).randbytes(1 << 16) + bytes(CHUNK_BYTES) + b"end " * 1024
_TIERS: Final = [
    TierFound(b"t" * 16, b"f" * 16, "/dev/sdb1"),
    TierFound(b"u" * 16, b"g" * 16, "/é"),
]
_PATCHES_MAX: Final = 8
_COVERED: Final = HEADER_BYTES - 16

_FIELDS: Final = (8, 12, 32, 40, 48, 56, 64, 72, 76, 80, 84, 88, 104, 359, 360)
"""Of the header."""


def _written() -> tuple[bytes, Header]:
    backing = MemoryBacking(_AREA_BYTES)
    set_aside(backing, _UUID, 1)
    header = Header(State.READY, _UUID, 1, _AREA_BYTES, kernel=_KERNEL)
    header = ImageWriter(backing).write(io.BytesIO(_IMAGE).readinto, header, _TIERS)
    return bytes(backing._data), header


_AREA, _HEADER = _written()
_USED_BYTES: Final = _HEADER.index_offset + 4096


class _Area(MemoryBacking):
    """An area that is as good as new for each run."""

    def reset(self) -> None:
        self._data[:] = _AREA
        self._earlier.clear()


_area: Final = _Area(_AREA_BYTES)


def run(data: bytes) -> None:
    source = Source(data)
    _area.reset()
    area = _area
    changed = _change(area._data, source)
    if source.one_in(16):
        size = source.choice((0, 4096, 8192, _HEADER.index_offset, _HEADER.index_offset + 4096))
        area = _Area(size)
        area._data[:] = _area._data[:size]
        changed = True
    with mock.patch.object(tiers, "compare", _no_tiers):
        try:
            reader = resume.verified(area, _KERNEL, [], _nobody_looks)
        except NoImageError:
            return
        except ImageFormatError:
            _is_marked(area)
            return
        found = b"".join(bytes(chunk) for chunk in reader.chunks())
        assert found == _IMAGE or changed is _REPAIRED, "wrong bytes"
        _is_marked(area)


def _no_tiers(found: list[TierFound]) -> None:
    assert all(len(tier.uuid) == 16 for tier in found)


def _nobody_looks(_text: str) -> None: ...


def _is_marked(area: MemoryBacking) -> None:
    if area.size_bytes < HEADER_BYTES:
        return
    try:
        assert ImageReader(area).header.state in (State.USED, State.DAMAGED)
    except NoImageError:
        return


_REPAIRED: Final = object()
"""A change with its checksum: then it is another image, and may be whole."""


def _change(data: bytearray, source: Source) -> object:
    """Change fields, entries or anything; whether, and whether checksums were made right again."""
    changed: object = False
    for _ in range(_PATCHES_MAX):
        if source.is_empty:
            break
        kind = source.byte()
        where = kind % 4
        if where == 0:
            at = source.choice(_FIELDS)
        elif where == 1:
            at = _HEADER.index_offset + source.number(0, _HEADER.index_bytes - 1)
        else:
            at = source.number(0, _USED_BYTES - 1)
        width = (1, 2, 4, 8)[kind // 4 % 4]
        value = source.edge((1 << 64) - 1) & ((1 << 8 * width) - 1)
        patch = value.to_bytes(width, "little") if kind & 64 else source.take(width)
        data[at : at + len(patch)] = patch
        changed = changed or True
        if kind & 128:
            changed = _REPAIRED
            _repair(data)
    return changed


def _repair(data: bytearray) -> None:
    """Make the checksums of index and header right, as far as the header says where they are."""
    offset, length = struct.unpack_from("<QI", data, 64)
    if offset + length <= len(data):
        data[88:104] = xxh3_128_digest(bytes(data[offset : offset + length]))
    data[_COVERED:HEADER_BYTES] = xxh3_128_digest(bytes(data[:_COVERED]))
