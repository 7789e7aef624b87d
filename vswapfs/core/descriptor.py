"""The descriptor: one 64-bit word a page, which says where the page lives now.

    kind     bits 0-1    bit 2     bits 3-15                bits 16-35          bits 36-63
    empty    0           0         0                        0                   0
    filled   1           parity    index of the fill pattern (bits 3-63)
    stored   2           parity    record bytes with header offset in segment   segment

Owns the layout of the word. The word is always replaced in one 8-byte store, so a reader that
comes at any instant (a successor after SIGKILL) finds the old home or the new one, never a mix.
The number of ones is even: a record is covered by its checksum, but a flipped bit in the word
that points to it could lead to an older record of the same page, whose checksum is right too.
The hot paths in store.py and cleaner.py use the shifts directly.
"""

from typing import Final, NamedTuple

KIND_MASK: Final = 3
EMPTY: Final = 0
FILLED: Final = 1
STORED: Final = 2

PARITY_SHIFT: Final = 2
INDEX_SHIFT: Final = 3
LENGTH_SHIFT: Final = 3
LENGTH_MASK: Final = 0x1FFF
OFFSET_SHIFT: Final = 16
OFFSET_MASK: Final = 0xF_FFFF
SEGMENT_SHIFT: Final = 36

SEGMENT_MAX_BYTES: Final = OFFSET_MASK + 1
SEGMENT_MAX_COUNT: Final = 1 << (64 - SEGMENT_SHIFT)
DESCRIPTOR_BYTES: Final = 8
CLUSTER_PAGES: Final = 512  # the kernel's swap cluster; one page of descriptors
CLUSTER_SHIFT: Final = 9
CLUSTER_BYTES: Final = CLUSTER_PAGES * DESCRIPTOR_BYTES


class Place(NamedTuple):
    """Where a stored record lies. ``length_bytes`` includes the record header."""

    segment: int
    offset_bytes: int
    length_bytes: int


def filled(index: int) -> int:
    return _even(index << INDEX_SHIFT | FILLED)


def stored(segment: int, offset_bytes: int, length_bytes: int) -> int:
    return _even(
        segment << SEGMENT_SHIFT
        | offset_bytes << OFFSET_SHIFT
        | length_bytes << LENGTH_SHIFT
        | STORED
    )


def _even(word: int) -> int:
    return word | (word.bit_count() & 1) << PARITY_SHIFT


def parity_holds(word: int) -> bool:
    return not word.bit_count() & 1


def place(word: int) -> Place:
    """Take a stored descriptor apart."""
    return Place(
        word >> SEGMENT_SHIFT,
        word >> OFFSET_SHIFT & OFFSET_MASK,
        word >> LENGTH_SHIFT & LENGTH_MASK,
    )
