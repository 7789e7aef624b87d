"""The trace: what happens to pages, as it happens.

Owns its messages. Bounded: when more happens than can be told, one event in ``one_in`` is.
"""

from typing import Final

import msgspec

EVENTS: Final = ("load", "store", "discard", "writeback", "fetch", "clean")


class AskTrace(msgspec.Struct, tag="trace"):
    """Answered with Events lines, one a second at least, until the client hangs up."""

    events: list[str]
    """Of EVENTS."""
    start_bytes: int = 0
    end_bytes: int | None = None
    """Only events of pages that overlap bytes [start, end), and of segments."""


class Event(msgspec.Struct, omit_defaults=True):
    """What does not apply is absent."""

    at_s: float
    """Since the trace began; when the event ended."""
    event: str
    us: float
    """How long it took; of a writeback or fetch only what the lane had to do at its end."""
    offset: int | None = None
    pages: int | None = None
    states: dict[str, int] | None = None
    """Pages by state: of a load those they were in, of a store those they are in now."""
    segment: int | None = None
    tier: int | None = None
    bytes: int | None = None
    error: str | None = None


class Events(msgspec.Struct, tag="events"):
    events: list[Event]
    one_in: int
    """Of so many events one was kept, in this line."""
    left_out: int
    """Events that were not kept, since the trace began."""
