"""The media that a power cut may leave, out of what the medium was told before it.

Owns what may become of writes that were not flushed. Never looks into the bytes. Always holds:
what was flushed is there; a sector of 512 bytes is never torn; two writes to one sector keep their
order, but the later one may be lost.
"""

import random
from collections.abc import Sequence
from typing import Final, NamedTuple

from cut_log import FLUSH, TRIM, Operation

SECTOR_BYTES: Final = 512
WHOLE, TORN, LOST, ANY = "whole", "torn", "lost", "any"
HOWS: Final = (WHOLE, TORN, LOST, ANY)
"""What becomes of the operations since the last flush: all are done, in their order, as by a
killed machine whose disk goes on; the last of them is torn; none is done; of each any part is,
which is also what is left of them when they were done in another order."""


class Cut(NamedTuple):
    position: int
    """How many operations were done."""
    how: str


def choose_cuts(operations: Sequence[Operation], count: int, rng: random.Random) -> list[Cut]:
    """Cuts in order: of every how, and behind operations of every kind that there is, in turn."""
    by_kind: dict[str, list[int]] = {}
    for number, operation in enumerate(operations):
        by_kind.setdefault(operation.kind, []).append(number + 1)
    kinds = rng.sample(sorted(by_kind), len(by_kind))
    first = rng.randrange(len(HOWS))
    return sorted(
        Cut(rng.choice(by_kind[kinds[number % len(kinds)]]), HOWS[(first + number) % len(HOWS)])
        for number in range(count if kinds else 0)
    )


class CutMedium:
    """A medium, at ever later moments."""

    def __init__(
        self, before: bytes, operations: Sequence[Operation], *, trims_zero: bool = True
    ) -> None:
        """``before`` is what it held before the first operation. ``trims_zero``: trimmed bytes
        read as zero; otherwise as before."""
        self._operations = operations
        self._trims_zero = trims_zero
        self._flushed = bytearray(before)
        self._pending: list[Operation] = []
        self._done = 0

    def advance(self, position: int) -> None:
        """To the moment when so many operations were done, not fewer than before."""
        for operation in self._operations[self._done : position]:
            if operation.verb == FLUSH:
                for each in self._pending:
                    self._do(self._flushed, each)
                self._pending.clear()
            else:
                self._pending.append(operation)
        self._done = max(self._done, position)

    def image(self, how: str, rng: random.Random) -> bytearray:
        """What is there after a cut at this moment."""
        image = bytearray(self._flushed)
        for number, operation in enumerate(self._pending):
            is_last = number == len(self._pending) - 1
            if how == WHOLE or (how == TORN and not is_last):
                self._do(image, operation)
            elif how != LOST:
                self._do_part(image, operation, rng)
        return image

    def _do(self, image: bytearray, operation: Operation, start: int = 0, stop: int = -1) -> None:
        """Bytes [start, stop) of it, from its begin."""
        stop = operation.length_bytes if stop < 0 else stop
        place = slice(operation.offset + start, operation.offset + stop)
        if operation.verb != TRIM:
            image[place] = operation.data[start:stop]
        elif self._trims_zero:
            image[place] = bytes(stop - start)

    def _do_part(self, image: bytearray, operation: Operation, rng: random.Random) -> None:
        length_bytes = operation.length_bytes
        tear = rng.randrange(length_bytes // SECTOR_BYTES + 1) * SECTOR_BYTES
        # Near an end it matters more: there are the headers.
        if rng.random() < 0.3:
            tear = min(rng.randrange(4) * SECTOR_BYTES, length_bytes)
            tear = rng.choice((tear, length_bytes - tear))
        match rng.choice(("all", "none", "first", "first", "last", "sectors")):
            case "all":
                self._do(image, operation)
            case "first":
                self._do(image, operation, 0, tear)
            case "last":
                self._do(image, operation, tear)
            case "sectors":
                share = rng.choice((0.02, 0.5, 0.98))
                for start in range(0, length_bytes, SECTOR_BYTES):
                    if rng.random() < share:
                        self._do(image, operation, start, start + SECTOR_BYTES)
            case _:
                pass
