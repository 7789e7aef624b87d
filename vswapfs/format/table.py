"""The tables in bulk: descriptor words and segments as they are, for commands that look at all.

Owns the messages that carry them. Never says what a word means: that is core/descriptor.py.
Always holds: the segments were copied before the words; so a segment that a word names and that is
not among them was opened meanwhile, and is in RAM.
"""

import msgspec


class AskTable(msgspec.Struct, tag="table"):
    """Answered with Area, then Segments lines, then Words lines if wanted, and Done."""

    words: bool = True


class TierPlace(msgspec.Struct, array_like=True):
    """A tier by its number in Segment.tier."""

    number: int
    path: str
    slot_count: int


class Area(msgspec.Struct, tag="area"):
    page_count: int
    segment_bytes: int
    ram_slot_count: int
    """As many segments as may be in RAM, by the limit of now."""
    tiers: list[TierPlace]
    """In the order of their numbers."""
    chunk_bytes: int
    """What a block of a tier holds of a segment."""


class Segment(msgspec.Struct, array_like=True):
    """A segment that is in use."""

    number: int
    is_open: bool
    head: int
    """0 compressed, 1 incompressible, 2 survivors of cleaning."""
    tier: int
    """0: RAM."""
    slot: int
    """In RAM or on the tier, in segments from the first."""
    fill_bytes: int
    """Up to where there are records, the segment's header included."""
    live_bytes: int
    live_pages: int
    sequence: int
    """The order in which segments were opened."""
    age_s: int
    """Since it was sealed; 0 while it is open."""


class Segments(msgspec.Struct, tag="segments"):
    segments: list[Segment]


class Words(msgspec.Struct, tag="words"):
    """The descriptors of clusters that hold something; all others are empty."""

    clusters: list[int]
    words: bytes
    """512 words of 8 bytes, little-endian, for each of the clusters."""
