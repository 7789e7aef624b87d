"""The session: what a successor must know beside the store's buffers. One small file in memory.

Owns its layout. Never maps, opens or asks anything. Always holds: every word is replaced in one
8-byte store, and what a word vouches for was written before it; so the session is valid at every
instant, whoever was killed.

    [0, 4096)          words of 8 bytes, in the order of Field
    [4096, 8192)       the kernel's INIT request, INIT_BYTES of it: it is never sent again
    [8192, 1 MiB)      two halves; one has the instance's Config as JSON. CONFIG says which one
                       (bits 32-63: 0 or 1), and how many bytes of it (bits 0-31)
    [1 MiB, ...)       tiers by number, 8192 bytes each, number 1 first:
                       state, slot_count, size_bytes, path_bytes (8 bytes each), uuid (16), path
    [..., + 4096)      the key that tiers are encrypted with, KEY_BYTES of it

VERSION stands for all state that is handed over: this file and the store's buffers. A worker that
knows another version does not touch them.
"""

import struct
from enum import IntEnum
from typing import Final, NamedTuple

from vswapfs.errors import InstanceError, UsageError
from vswapfs.format.tier import TIERS_MAX

VERSION: Final = 3
MAGIC: Final = int.from_bytes(b"vswapses", "little")

WORDS_BYTES: Final = 4096
_INIT_AT: Final = WORDS_BYTES
_CONFIG_AT: Final = 8192
_TIERS_AT: Final = 1 << 20
_CONFIG_MAX_BYTES: Final = (_TIERS_AT - _CONFIG_AT) // 2
_HALF_SHIFT: Final = 32
_TIER_BYTES: Final = 8192
_ENTRY: Final = struct.Struct("<4Q16s")
"""State, slots, bytes, bytes of the path, uuid; the path comes behind it."""
_PATH_AT: Final = _ENTRY.size
_KEY_AT: Final = _TIERS_AT + TIERS_MAX * _TIER_BYTES
KEY_BYTES: Final = 32
SESSION_BYTES: Final = _KEY_AT + 4096

ABSENT: Final = 0
PRESENT: Final = 1
REMOVED: Final = 2


class Field(IntEnum):
    """The words. Times are of CLOCK_MONOTONIC."""

    MAGIC = 0
    VERSION = 1
    SURVIVES = 2
    """1: a worker that dies is replaced. 0: this machine cannot keep the state out of swap."""
    JOURNAL = 3
    """1: unanswered requests are kept in the journal, and the kernel is not asked to resend."""
    FOREGROUND = 4
    STARTED_NS = 5
    UP = 6
    """1: the instance was brought up; before that a worker that dies is the end."""
    ENDING = 7
    """1: the worker ends on purpose, and nobody shall succeed it."""
    SUPERVISOR_PID = 8
    WORKER_PID = 9
    STANDBY_PID = 10
    STANDBY_READY = 11
    """The process of the standby that got ready last."""
    TAKEOVERS = 12
    GO_NS = 13
    """When the supervisor let the worker of now go."""
    ENDED_NS = 14
    """When the worker before it was killed by the supervisor, or seen to have ended."""
    SERVING_NS = 15
    FIRST_REPLY_NS = 16
    RESTART = 17
    """1: a worker asks to be replaced; 2: by the standby that was started for it; 0: it was, or
    REFUSED says why not."""
    REFUSED = 18
    """Why there was no restart: a Refusal."""
    INIT_BYTES = 19
    CONFIG = 20
    TAKING_DOWN = 21
    """1: the instance is being taken down, and its worker is not to be replaced by a restart."""
    LOOP = 22
    """1 and the number of the loop device; 0: there is none."""
    TIERS = 23
    """How many there are."""
    SERVED_PAGES = 24
    """Stored and loaded by the worker of now, as of a second ago."""
    REFUSED_STORES = 25
    """The same."""


class Refusal(IntEnum):
    """Of a restart: the worker before it serves on."""

    NO_PROCESS = 1
    TAKING_DOWN = 2
    ENDED = 3
    """The fresh worker did before it was let go: this, and its exit status."""


class TierEntry(NamedTuple):
    """A tier as a successor finds it again. Of one that was removed only the slots count."""

    number: int
    is_present: bool
    slot_count: int
    size_bytes: int
    uuid: bytes
    path: str


class Session:
    """A view over the file. Index it by Field."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._words = view[:WORDS_BYTES].cast("Q")

    def __getitem__(self, field: Field) -> int:
        return self._words[field]

    def __setitem__(self, field: Field, value: int) -> None:
        self._words[field] = value

    def begin(self, config: bytes) -> None:
        """Make an all-zero file a session. Raises UsageError."""
        self.keep_config(config)
        self[Field.VERSION] = VERSION
        self[Field.MAGIC] = MAGIC

    def check_version(self) -> None:
        """Raises InstanceError if the state is not of the version that this program knows."""
        found = self[Field.VERSION]
        if self[Field.MAGIC] != MAGIC or found != VERSION:
            raise InstanceError(
                f"the state has version {found}, and this program knows {VERSION}",
                remedy="vswapctl off, then on",
            )

    @property
    def config(self) -> bytes:
        half, size_bytes = divmod(self[Field.CONFIG], 1 << _HALF_SHIFT)
        start = _CONFIG_AT + half * _CONFIG_MAX_BYTES
        return bytes(self._view[start : start + size_bytes])

    def keep_config(self, config: bytes) -> None:
        """Replace the Config: first written where the other one is not, then vouched for.

        Raises UsageError if it is too long; nothing has changed then.
        """
        if len(config) > _CONFIG_MAX_BYTES:
            raise UsageError(
                f"the configuration takes {len(config)} bytes: at most {_CONFIG_MAX_BYTES}",
                remedy="fewer tiers, or shorter paths",
            )
        half = 1 - (self[Field.CONFIG] >> _HALF_SHIFT)
        start = _CONFIG_AT + half * _CONFIG_MAX_BYTES
        self._view[start : start + len(config)] = config
        self[Field.CONFIG] = half << _HALF_SHIFT | len(config)

    @property
    def init_request(self) -> bytes:
        """Empty as long as the kernel has not sent it."""
        return bytes(self._view[_INIT_AT : _INIT_AT + self[Field.INIT_BYTES]])

    def keep_init(self, request: bytes) -> None:
        if len(request) > _CONFIG_AT - _INIT_AT:
            raise ValueError(f"an INIT request of {len(request)} bytes")
        self._view[_INIT_AT : _INIT_AT + len(request)] = request
        self[Field.INIT_BYTES] = len(request)

    @property
    def key(self) -> bytes:
        return bytes(self._view[_KEY_AT : _KEY_AT + KEY_BYTES])

    def keep_key(self, key: bytes) -> None:
        """Before the instance is up. All zero forgets it."""
        self._view[_KEY_AT : _KEY_AT + KEY_BYTES] = key

    # -- tiers -------------------------------------------------------------------------------

    def _tier(self, number: int) -> memoryview:
        start = _TIERS_AT + (number - 1) * _TIER_BYTES
        return self._view[start : start + _TIER_BYTES]

    def keep_tier(self, tier: TierEntry) -> None:
        """Before a segment goes there: all of the entry, then the word that makes it one."""
        entry = self._tier(tier.number)
        path = tier.path.encode(errors="surrogateescape")
        if len(path) > _TIER_BYTES - _PATH_AT:
            raise ValueError(f"a path of {len(path)} bytes")
        fields = _ENTRY.pack(ABSENT, tier.slot_count, tier.size_bytes, len(path), tier.uuid)
        entry[8:_PATH_AT] = fields[8:]
        entry[_PATH_AT : _PATH_AT + len(path)] = path
        entry[:8].cast("Q")[0] = PRESENT
        self.count_tiers()

    def drop_tier(self, number: int) -> None:
        """After the last segment has left it. Its number, and those of its slots, stay taken."""
        self._tier(number)[:8].cast("Q")[0] = REMOVED
        self.count_tiers()

    def count_tiers(self) -> None:
        """For whoever looks only at the words. A predecessor may have been killed before it."""
        self[Field.TIERS] = sum(tier.is_present for tier in self.tiers())

    def tiers(self) -> list[TierEntry]:
        """All that there ever were, in the order of their numbers."""
        found = []
        for number in range(1, TIERS_MAX + 1):
            entry = self._tier(number)
            state, slot_count, size_bytes, path_bytes, uuid = _ENTRY.unpack_from(entry)
            if state == ABSENT:
                break
            path = str(entry[_PATH_AT : _PATH_AT + path_bytes], errors="surrogateescape")
            found.append(TierEntry(number, state == PRESENT, slot_count, size_bytes, uuid, path))
        return found
