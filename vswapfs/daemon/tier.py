"""What the daemon knows of one tier: its medium, its state, its counters. Owns no behaviour."""

from dataclasses import dataclass
from typing import Final

from vswapfs.backing.api import Backing
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
