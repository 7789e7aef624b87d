"""What the daemon knows of one tier: its medium, its state, its counters. Owns no behaviour but how
it is told."""

import uuid
from dataclasses import dataclass
from typing import Final

from vswapfs.backing.api import Backing
from vswapfs.core.slots import TierSlots
from vswapfs.format.message import TierStatus
from vswapfs.format.tier import Superblock

BACKOFF_FIRST_S: Final = 1.0


@dataclass(slots=True)
class Tier:
    """One tier. ``number`` is its home number in the segment table."""

    number: int
    path: str
    backing: Backing
    superblock: Superblock
    is_leaving: bool = False
    failing: str = ""
    retry_at_s: float = 0.0
    backoff_s: float = BACKOFF_FIRST_S
    written_bytes: int = 0
    read_bytes: int = 0
    trimmed_bytes: int = 0
    write_errors: int = 0
    read_errors: int = 0
    superblock_is_being_written: bool = False
    superblock_changed: bool = False
    """Again, since the write that is under way began."""


def status_of(tier: Tier, slots: TierSlots, live_bytes: int, waits: str) -> TierStatus:
    """``waits``: for what, if it is not failing."""
    segment_bytes = tier.superblock.segment_bytes
    return TierStatus(
        path=tier.path,
        uuid=str(uuid.UUID(bytes=tier.superblock.uuid)),
        state="leaving" if tier.is_leaving else "failing" if tier.failing else "ok",
        size_bytes=slots.slot_count * segment_bytes,
        used_bytes=(slots.slot_count - slots.free_count) * segment_bytes,
        live_bytes=live_bytes,
        written_bytes=tier.written_bytes,
        read_bytes=tier.read_bytes,
        trimmed_bytes=tier.trimmed_bytes,
        write_errors=tier.write_errors,
        read_errors=tier.read_errors,
        detail=tier.failing or waits,
    )
