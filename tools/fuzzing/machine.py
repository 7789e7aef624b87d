"""A lane to be fuzzed: the real one, over a real store and tiers, without threads and a kernel.

Owns the sockets that stand for the kernel and for pyfuse3, and when the lane works: in ``turn``,
until it has nothing to do. So the same requests always lead to the same steps.
"""

import contextlib
import os
import socket
from collections.abc import Iterator
from typing import Any, Final
from unittest import mock

from damage_lab import make_buffers

from vswapfs.backing.memory import MemoryBacking
from vswapfs.core.buffers import Geometry
from vswapfs.core.store import Store
from vswapfs.daemon import tiering
from vswapfs.daemon.io_threads import Done, Job, Submit, _hand_over
from vswapfs.daemon.tiering import Tiering
from vswapfs.format.session import SESSION_BYTES, Session
from vswapfs.format.tier import Superblock
from vswapfs.fuse import wire
from vswapfs.fuse.inbox import Completion, Work
from vswapfs.fuse.journal import JOURNAL_BYTES, Journal
from vswapfs.fuse.lane import SLICE_STEPS, Lane
from vswapfs.fuse.window import PollWindow
from vswapfs.host.region import MemoryRegion, memory_file

SWAP_INODE: Final = 2
GEOMETRY: Final = Geometry(300, 16, 1 << 16, 256)
TIER_SLOTS: Final = 24
TIER_PATH: Final = "/t"

_SO_SNDBUFFORCE: Final = 32  # not in the socket module
_BUFFER_BYTES: Final = 8 << 20
_TURNS_MAX: Final = 1000

_JOURNAL: Final = MemoryRegion(memory_file("fuzz", JOURNAL_BYTES), JOURNAL_BYTES)
"""One for all runs: it is large, and empty whenever all requests were answered."""


class _IdleError(Exception):
    """The lane would sleep now."""


class SteppedLane(Lane):
    """Works when it is told to, and what is submitted is done at once."""

    def _wait(self) -> None:
        self._between_requests(SLICE_STEPS)
        self._ahead.step()
        raise _IdleError

    def turn(self) -> None:
        """Work until there is nothing to do. An exception that gets here would end the lane."""
        for _ in range(_TURNS_MAX):
            with contextlib.suppress(_IdleError):
                self._loop()
            if not self._inbox:
                return
        raise AssertionError("the lane finds no end")

    def submit(self, work: Work, completion: Completion) -> None:
        super().submit(work, completion)
        self._inbox.do_all()


class InlineThreads:
    """IoThreads that do a job when it is asked for; its completion comes later, on the lane."""

    def __init__(self, submit: Submit, count: int, name: str) -> None:
        del submit, count, name  # that of the stepped lane completes at once
        self.inbox: Any = None

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def do(self, job: Job, done: Done) -> None:
        result, error = None, None
        try:
            result = job()
        except Exception as raised:
            error = raised
        self.inbox.submit(lambda: (result, error), _hand_over(done))


class Machine:
    """One lane, from ``machine`` until its end."""

    def __init__(self, lane: SteppedLane, tiers: Tiering, session: Session) -> None:
        self.lane = lane
        self.store = lane.store
        self.tiers = tiers
        self.session = session


@contextlib.contextmanager
def machine(
    kernel_side: socket.socket, names_side: socket.socket, *, tier: bool, journal: bool = False
) -> Iterator[Machine]:
    """A lane that reads from these; with one tier or none."""
    session = Session(memoryview(bytearray(SESSION_BYTES)))
    store = Store(GEOMETRY, make_buffers(GEOMETRY))
    kept = Journal(_JOURNAL) if journal else None
    lane = SteppedLane(
        store, os.dup(kernel_side.fileno()), names_side.fileno(), SWAP_INODE,
        ended=lambda: None, window=PollWindow(lambda _on: None, 0),
        buffer=kept.buffer if kept else wire.request_buffer(), journal=kept,
    )  # fmt: skip
    if kept:
        lane.after_reply = kept.answered
    with mock.patch.object(tiering, "IoThreads", InlineThreads):
        tiers = Tiering(store, lane, session, None)
    tiers._threads.inbox = lane._inbox  # type: ignore[attr-defined]
    lane.tiers = tiers
    if tier:
        backing = MemoryBacking((TIER_SLOTS + 1) * GEOMETRY.segment_bytes)
        superblock = Superblock(b"u" * 16, "fuzz", GEOMETRY.segment_bytes, TIER_SLOTS, 1, 0)
        tiers.add(TIER_PATH, backing, superblock)
    try:
        yield Machine(lane, tiers, session)
        if kept:
            assert not kept._kept, "an answered request is still in the journal"
    finally:
        os.close(lane._device_fd)
        os.close(lane.event_fd)


def pair() -> tuple[socket.socket, socket.socket]:
    """A socket pair that takes the largest request and reply."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _BUFFER_BYTES)
    return ours, theirs
