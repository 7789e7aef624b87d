"""An image with changes, in a file in memory: bytes replaced, checksums made right again, cut off.

Owns the file. Always holds: between runs it is the image as it was, so that only what was changed
has to be written again.
"""

import os
import random
from collections.abc import Callable, Sequence
from typing import Final

from fuzzing.source import EDGES, Source
from vswapfs.host.region import memory_file

_PATCHES_MAX: Final = 12
_PATCH_MAX_BYTES: Final = 64


class PatchedFile:
    """``places``: where structures begin, so that changes hit them."""

    def __init__(self, image: bytes, places: Sequence[tuple[int, int]]) -> None:
        self._image = image
        self._places = places
        self.fd = memory_file("fuzz", 0)
        self.path = f"/proc/self/fd/{self.fd}"
        self._dirty = [(0, len(image))]
        self._rest = b""

    def restore(self) -> None:
        os.ftruncate(self.fd, len(self._image))
        for start, stop in self._dirty:
            os.pwrite(self.fd, self._image[start:stop], start)
        self._dirty = []

    def change(self, source: Source, repairs: Sequence[Callable[[bytearray, int], None]]) -> None:
        """Patch it; ``repairs`` make a checksum right again in the structure at that place."""
        self.restore()
        size_bytes = len(self._image)
        for _ in range(_PATCHES_MAX):
            if source.is_empty:
                break
            kind = source.byte()
            number = source.number(0, len(self._places) - 1)
            start, length = self._places[number]
            block = bytearray(os.pread(self.fd, length, start))
            at = source.number(0, max(0, length - 1)) if kind & 1 else _skewed(source, length)
            data = _bytes(source)
            block[at : at + len(data)] = data
            del block[length:]
            if kind & 2:
                repairs[number](block, start)
            os.pwrite(self.fd, block, start)
            self._dirty.append((start, start + length))
            if kind % 64 == 5:
                size_bytes = source.choice((0, 1, 4095, 4096, 524288, start, start + at))
        os.ftruncate(self.fd, size_bytes)
        if size_bytes < len(self._image):
            self._dirty.append((size_bytes, len(self._image)))


def _skewed(source: Source, length: int) -> int:
    """Near the beginning, where fields are."""
    return min(source.byte(), max(0, length - 1))


def _bytes(source: Source) -> bytes:
    """A field with an interesting number, or any bytes."""
    kind = source.byte()
    if kind % 3 == 0:
        width = (1, 2, 4, 8)[kind // 3 % 4]
        value = EDGES[source.byte() % len(EDGES)] & ((1 << 8 * width) - 1)
        return value.to_bytes(width, "little")
    if kind % 3 == 1:
        return source.take(source.number(0, _PATCH_MAX_BYTES))
    return random.Random(kind).randbytes(source.number(0, _PATCH_MAX_BYTES))
