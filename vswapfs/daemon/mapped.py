"""What is handed from worker to worker, mapped into this one.

Owns how buffers become a store's buffers: locked or not, and which memory is there from the begin.
Never changes a byte of them.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from vswapfs.core.buffers import Buffers, Geometry
from vswapfs.daemon.cipher import Cipher
from vswapfs.daemon.config import SEGMENT_BYTES, geometry_of
from vswapfs.daemon.handover import BUFFER_PARTS, Handed
from vswapfs.format.message import Config
from vswapfs.format.session import Field, Session
from vswapfs.fuse.journal import JOURNAL_BYTES
from vswapfs.host import hardening
from vswapfs.host.region import MemoryRegion, map_files

KEPT_DESCRIPTOR_BYTES: Final = 1 << 20
"""The first descriptors, of 512 MiB, have their memory for good: the kernel uses an area from its
begin on. The others get it as they are needed (forehand.py)."""


@dataclass(slots=True)
class State:
    """What was handed over, mapped."""

    handed: Handed
    session: Session
    config: Config
    geometry: Geometry
    regions: Mapping[str, MemoryRegion]
    buffers: Buffers
    journal: MemoryRegion
    outcomes: list[hardening.Outcome]
    cipher: Cipher | None
    """Of all tiers, if they are encrypted."""

    def prefault(self) -> None:
        for region in self.regions.values():
            region.prefault()

    def tables_bytes(self) -> int:
        """What all but the pool takes of RAM."""
        return sum(
            region.resident_bytes() for part, region in self.regions.items() if part != "pool"
        )


def map_all(
    handed: Handed, session: Session, config: Config, outcomes: list[hardening.Outcome]
) -> State:
    """Raises HostError."""
    # What was asked for may depend on the machine; what there is decides.
    geometry = geometry_of(config, os.fstat(handed.pool).st_size // SEGMENT_BYTES)
    regions = map_files(
        {part: getattr(handed, part) for part in BUFFER_PARTS},
        geometry.sizes_bytes(),
        # What survives is on a tmpfs that is never swapped out.
        locked=not session[Field.SURVIVES],
    )
    regions["descriptors"].keep(KEPT_DESCRIPTOR_BYTES)
    journal = MemoryRegion(handed.journal, JOURNAL_BYTES)
    cipher = Cipher(session.key, SEGMENT_BYTES) if config.encrypt else None
    return State(
        handed, session, config, geometry, regions, Buffers(**regions), journal, outcomes, cipher
    )
