"""Columns: a number for each slot of an area, worked on all at once.

A loop over the slots of 4 GiB takes Python a second beside full load; slices with a step, translate
and whole columns as one integer take it milliseconds. Owns that arithmetic, little-endian. Never
knows what a column means. Always holds: a result has as many entries as what it was made of.
"""

from array import array
from collections.abc import Sequence
from typing import Final

_WIDTHS: Final = {"H": 2, "I": 4, "Q": 8}


NONZERO: Final = bytes([0]) + bytes([1]) * 255
"""For bytes.translate: 1 for all but 0."""


def only(chosen: int) -> bytes:
    """For bytes.translate: 1 for this byte, 0 for all others."""
    return bytes(1 if number == chosen else 0 for number in range(256))


def without(first: bytes | bytearray, second: bytes | bytearray) -> bytes:
    """Byte by byte, ``first & ~second``; of the same length."""
    inverse = int.from_bytes(second, "little") ^ (1 << 8 * len(second)) - 1
    found = int.from_bytes(first, "little") & inverse
    return found.to_bytes(len(first), "little")


def both(first: bytes | bytearray, second: bytes | bytearray) -> bytes:
    """Byte by byte, ``first & second``; of the same length."""
    found = int.from_bytes(first, "little") & int.from_bytes(second, "little")
    return found.to_bytes(len(first), "little")


def any_of(columns: Sequence[bytes | bytearray]) -> bytes:
    """Byte by byte, all of them ORed; of the same length, at least one."""
    found = 0
    for column in columns:
        found |= int.from_bytes(column, "little")
    return found.to_bytes(len(columns[0]), "little")


def field(column: "array[int]", shift: int, mask: int) -> "array[int]":
    """``number >> shift & mask`` of each number."""
    width = _WIDTHS[column.typecode]
    masks = int.from_bytes(mask.to_bytes(width, "little") * len(column), "little")
    whole = int.from_bytes(column.tobytes(), "little") >> shift & masks
    return array(column.typecode, whole.to_bytes(width * len(column), "little"))


def where(column: "array[int]", chosen: bytes | bytearray) -> "array[int]":
    """The number where ``chosen`` is 0xff, 0 where it is 0."""
    width = _WIDTHS[column.typecode]
    wide = bytearray(width * len(chosen))
    for at in range(width):
        wide[at::width] = chosen
    return array(column.typecode, both(column.tobytes(), wide))
