"""Kinds of damage to a tier: what is drawn from a seed, and the bytes that come of it.

Owns the kinds. Never touches a medium and never looks into pages: a damage is a list of operations
on places, so the same damage can be done to two images that differ only in their checksums.
Always holds: a damage that was drawn changes at least one byte in the part that is used.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from vswapfs.core.segment import resident_bytes
from vswapfs.format.record import HEADER_BYTES, header_at
from vswapfs.format.tier import (
    SEGMENT_HEADER_BYTES,
    SUPERBLOCK_BYTES,
    SUPERBLOCK_COPY_OFFSET,
    is_empty,
    slot_offset_bytes,
    unpack_segment_header,
)

SEGMENT_BYTES: Final = 1 << 20
SECTOR_BYTES: Final = 512
SUPERBLOCK_SLOT: Final = -1
"""The slot number that stands for the first segment of a tier."""

_DRAWS_MAX: Final = 1000


class NoSuchDamageError(Exception):
    """The image has no place where this kind of damage could change anything."""


class Copy(NamedTuple):
    """Bytes of a slot as they were ``age`` writes ago (0: now)."""

    slot: int
    age: int
    offset: int


@dataclass(frozen=True, slots=True)
class Operation:
    """Replace bytes of a slot: by zeros (None), by what another place holds, or flip one bit."""

    slot: int
    offset: int
    length_bytes: int
    source: Copy | int | None


@dataclass(frozen=True, slots=True)
class Damage:
    kind: str
    operations: list[Operation]
    text: str


@dataclass(slots=True)
class Contents:
    """A slot: ``states`` are its bytes now and after each earlier write, newest first; the last
    may be all zero, from before the first."""

    states: list[bytes]
    fill_bytes: int
    records: list[tuple[int, int]] = field(default_factory=list)
    """Offset and length of each."""

    @classmethod
    def of(cls, states: list[bytes]) -> "Contents":
        """Of a slot whose segment is undamaged. Raises TierFormatError and RecordError."""
        fill_bytes = unpack_segment_header(states[0]).fill_bytes
        return cls(states, fill_bytes, list(records_in(states[0], fill_bytes)))


Image = dict[int, Contents]
"""By slot. That of SUPERBLOCK_SLOT has two records, the superblock and its copy."""


def records_in(segment: bytes | bytearray, fill_bytes: int) -> Iterator[tuple[int, int]]:
    view = memoryview(segment)
    at = SEGMENT_HEADER_BYTES
    while at < fill_bytes:
        _page, length_bytes = header_at(view, at, fill_bytes)
        yield at, length_bytes
        at += length_bytes


def superblock_contents(states: list[bytes]) -> Contents:
    places = [(0, SUPERBLOCK_BYTES), (SUPERBLOCK_COPY_OFFSET, SUPERBLOCK_BYTES)]
    return Contents(states, SUPERBLOCK_COPY_OFFSET + SUPERBLOCK_BYTES, places)


def place_bytes(slot: int, offset: int = 0) -> int:
    """Where a byte of a slot lies in the tier."""
    return slot_offset_bytes(slot, SEGMENT_BYTES) + offset


# -- drawing ----------------------------------------------------------------------------------


def _segments(image: Image) -> list[int]:
    return [slot for slot in image if slot != SUPERBLOCK_SLOT]


def _flip(slot: int, at: int, bit: int, where: str) -> tuple[list[Operation], str]:
    text = f"bit {bit} of byte {place_bytes(slot, at)} flipped ({where})"
    return [Operation(slot, at, 1, bit)], text


def _flip_bit(image: Image, rng: random.Random) -> tuple[list[Operation], str]:
    slot = rng.choice(_segments(image))
    at = rng.randrange(image[slot].fill_bytes)
    return _flip(slot, at, rng.randrange(8), f"slot {slot}, byte {at} of its segment")


def _flip_record_header(image: Image, rng: random.Random) -> tuple[list[Operation], str]:
    slot = rng.choice(_segments(image))
    start, _length = rng.choice(image[slot].records)
    at = start + rng.randrange(HEADER_BYTES)
    return _flip(slot, at, rng.randrange(8), f"byte {at - start} of the record's header")


def _flip_segment_header(image: Image, rng: random.Random) -> tuple[list[Operation], str]:
    slot = rng.choice(_segments(image))
    at = rng.randrange(SEGMENT_HEADER_BYTES)
    return _flip(slot, at, rng.randrange(8), f"byte {at} of the header of slot {slot}")


def _sector(contents: Contents, rng: random.Random) -> int:
    return rng.randrange(-(-contents.fill_bytes // SECTOR_BYTES)) * SECTOR_BYTES


def _zero_sector(image: Image, rng: random.Random) -> tuple[list[Operation], str]:
    slot = rng.choice(_segments(image))
    at = _sector(image[slot], rng)
    start = place_bytes(slot, at)
    text = f"bytes {start} to {start + SECTOR_BYTES - 1} zeroed (slot {slot})"
    return [Operation(slot, at, SECTOR_BYTES, None)], text


def _swap_sectors(image: Image, rng: random.Random) -> tuple[list[Operation], str]:
    slot = rng.choice(_segments(image))
    first, second = _sector(image[slot], rng), _sector(image[slot], rng)
    text = (
        f"{SECTOR_BYTES} bytes each at {place_bytes(slot, first)} and {place_bytes(slot, second)} "
        f"exchanged (slot {slot})"
    )
    return [
        Operation(slot, first, SECTOR_BYTES, Copy(slot, 0, second)),
        Operation(slot, second, SECTOR_BYTES, Copy(slot, 0, first)),
    ], text


def _written_bytes(contents: Contents) -> int:
    return resident_bytes(contents.fill_bytes)


def _misplace(image: Image, rng: random.Random) -> tuple[list[Operation], str]:
    slots = _segments(image)
    if len(slots) < 2:
        raise NoSuchDamageError("misplace needs two segments")
    slot, hit = rng.sample(slots, 2)
    length = _written_bytes(image[slot])
    operations = [Operation(hit, 0, length, Copy(slot, 0, 0))]
    text = f"the {length} bytes of slot {slot} written to slot {hit}, at byte {place_bytes(hit)}"
    if len(image[slot].states) > 1:
        operations.append(Operation(slot, 0, length, Copy(slot, 1, 0)))
        text += f"; slot {slot} has what was there before"
    return operations, text


def _replay(image: Image, rng: random.Random) -> tuple[list[Operation], str]:
    older = [
        (slot, age)
        for slot in _segments(image)
        for age, state in enumerate(image[slot].states)
        if age and not is_empty(state)
    ]
    if not older:
        raise NoSuchDamageError(
            "replay needs what lay in a slot before, which a tier at rest does not keep"
        )
    slot, age = rng.choice(older)
    text = f"slot {slot}, at byte {place_bytes(slot)}, as it was {age} writes ago"
    return [Operation(slot, 0, SEGMENT_BYTES, Copy(slot, age, 0))], text


def _tear(image: Image, rng: random.Random) -> tuple[list[Operation], str]:
    slot = rng.choice(_segments(image))
    length = _written_bytes(image[slot])
    sectors = length // SECTOR_BYTES
    # Half of them within the first or last few, where a header or the end of the log is cut.
    arrived = rng.randrange(sectors)
    if rng.random() < 0.5:
        arrived = rng.choice((rng.randrange(4), sectors - 1 - rng.randrange(4)))
    at = arrived * SECTOR_BYTES
    has_history = len(image[slot].states) > 1
    rest = "what was there before" if has_history else "zeros"
    text = f"slot {slot}: {arrived} of {sectors} sectors arrived; "
    text += f"from byte {place_bytes(slot, at)} on {rest}"
    source = Copy(slot, 1, at) if has_history else None
    return [Operation(slot, at, length - at, source)], text


def _superblock_flip(image: Image, rng: random.Random) -> tuple[list[Operation], str]:
    start, length = rng.choice(image[SUPERBLOCK_SLOT].records)
    at = start + rng.randrange(length)
    return _flip(SUPERBLOCK_SLOT, at, rng.randrange(8), f"byte {at - start} of a superblock")


def _superblock_zero(image: Image, rng: random.Random) -> tuple[list[Operation], str]:
    start, length = rng.choice(image[SUPERBLOCK_SLOT].records)
    at = start + rng.randrange(length // SECTOR_BYTES) * SECTOR_BYTES
    text = f"{SECTOR_BYTES} bytes at {at} zeroed (superblock)"
    return [Operation(SUPERBLOCK_SLOT, at, SECTOR_BYTES, None)], text


def _superblock_replay(image: Image, rng: random.Random) -> tuple[list[Operation], str]:
    contents = image[SUPERBLOCK_SLOT]
    if len(contents.states) < 2:
        raise NoSuchDamageError(
            "superblock-replay needs an older superblock, which a tier at rest does not keep"
        )
    start, length = rng.choice(contents.records)
    age = rng.randrange(1, len(contents.states))
    text = f"{length} bytes at {start} as they were {age} generations ago"
    return [Operation(SUPERBLOCK_SLOT, start, length, Copy(SUPERBLOCK_SLOT, age, start))], text


_Draw = Callable[[Image, random.Random], tuple[list[Operation], str]]
_DRAWS: Final[dict[str, _Draw]] = {
    "flip-bit": _flip_bit,
    "flip-record-header": _flip_record_header,
    "flip-segment-header": _flip_segment_header,
    "zero-sector": _zero_sector,
    "swap-sectors": _swap_sectors,
    "misplace": _misplace,
    "replay": _replay,
    "tear": _tear,
    "superblock-flip": _superblock_flip,
    "superblock-zero": _superblock_zero,
    "superblock-replay": _superblock_replay,
}
KINDS: Final = tuple(_DRAWS)
SUPERBLOCK_KINDS: Final = tuple(kind for kind in KINDS if kind.startswith("superblock"))


def draw(kind: str, image: Image, rng: random.Random) -> Damage:
    """A damage that changes something in the used part. Raises NoSuchDamageError."""
    if not _segments(image) and kind not in SUPERBLOCK_KINDS:
        raise NoSuchDamageError("there is no undamaged segment on this tier")
    for _ in range(_DRAWS_MAX):
        damage = Damage(kind, *_DRAWS[kind](image, rng))
        for slot, found in damaged_states(damage, image).items():
            contents = image[slot]
            if found[: contents.fill_bytes] != contents.states[0][: contents.fill_bytes]:
                return damage
    raise NoSuchDamageError(f"{kind}: {_DRAWS_MAX} places drawn, all the same afterwards")


def damaged_states(damage: Damage, image: Image) -> dict[int, bytearray]:
    """The bytes of each slot that the damage touches, after it."""
    found: dict[int, bytearray] = {}
    for operation in damage.operations:
        slot, at, length = operation.slot, operation.offset, operation.length_bytes
        if slot not in found:
            found[slot] = bytearray(image[slot].states[0])
        source = operation.source
        if source is None:
            found[slot][at : at + length] = bytes(length)
        elif isinstance(source, int):
            found[slot][at] ^= 1 << source
        else:
            state = memoryview(image[source.slot].states[source.age])
            found[slot][at : at + length] = state[source.offset : source.offset + length]
    return found
