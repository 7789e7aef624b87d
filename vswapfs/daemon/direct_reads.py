"""Reads of a few records that the lane starts itself and goes on: no thread, no hand-over.

Owns the reads under way. Never blocks and never decides that a page is lost: whatever cannot be
started at once, or does not end well, goes to the I/O threads, which try again and count errors.
Called on the lane only.
"""

import functools
import logging
from collections.abc import Callable, Mapping

from vswapfs.backing.uring import READ_MAX_BYTES, AsyncReads
from vswapfs.core.homes import Fetched, RecordRead
from vswapfs.daemon.cipher import Cipher
from vswapfs.daemon.record_reader import Run, chunk_bytes_of, runs_of, verify_run
from vswapfs.daemon.tier import Tier
from vswapfs.errors import HostError

_log = logging.getLogger(__name__)

Done = Callable[[Fetched], None]
ReadByThread = Callable[[list[RecordRead], Done], None]


class _Request:
    """Some records that are read together, in one or more runs."""

    __slots__ = ("done", "failed", "fetched", "plans", "runs_left")

    def __init__(self, plans: list[RecordRead], done: Done, run_count: int) -> None:
        self.plans = plans
        self.done = done
        self.runs_left = run_count
        self.fetched: Fetched = {}
        self.failed = False


class DirectReads:
    """Over the tiers by number. ``by_thread`` reads what cannot be read here."""

    def __init__(
        self,
        tiers: Mapping[int, Tier],
        segment_bytes: int,
        event_fd: int,
        by_thread: ReadByThread,
        cipher: Cipher | None = None,
    ) -> None:
        self._tiers = tiers
        self._segment_bytes = segment_bytes
        self._by_thread = by_thread
        self._cipher = cipher
        self._chunk_bytes = chunk_bytes_of(cipher)
        self._under_way: dict[int, tuple[_Request, Run]] = {}
        self._event_fd = event_fd
        self._reads: AsyncReads | None = None

    def prepare(self) -> None:
        """A tier is there that can be read directly."""
        if self._reads is None:
            try:
                self._reads = AsyncReads(self._event_fd)
            except HostError as error:
                _log.warning("%s: pages on tiers are read by threads", error)

    def read(self, plans: list[RecordRead], done: Done) -> None:
        """Read these records; ``done`` gets the verified pages, or why not."""
        runs = runs_of(plans, self._segment_bytes, self._chunk_bytes)
        if (
            self._reads is None
            or len(runs) > self._reads.free_count
            or any(run.length > READ_MAX_BYTES for run in runs)
        ):
            self._by_thread(plans, done)
            return
        request = _Request(plans, done, len(runs))
        for run in runs:
            tier = self._tiers[run.plans[0].tier]
            fd = tier.backing.direct_fd
            number = self._reads.start(fd, run.offset, run.length) if fd >= 0 else -1
            if number < 0:
                self._ended(request, failed=True)
            else:
                self._under_way[number] = request, run

    def reap(self) -> None:
        """See to the reads that have ended."""
        if not self._under_way:
            return
        assert self._reads
        for number, result in self._reads.ended():
            request, run = self._under_way.pop(number)
            failed = result != run.length
            if not failed:
                tier = self._tiers[run.plans[0].tier]
                tier.read_bytes += run.length
                memory = self._reads.memory(number)
                verify_run(run, memory, tier, self._cipher, request.fetched)
            self._reads.done_with(number)
            self._ended(request, failed=failed)

    def _ended(self, request: _Request, *, failed: bool) -> None:
        """A run of the request has ended, or was not started."""
        request.failed |= failed
        request.runs_left -= 1
        if request.runs_left:
            return
        if not request.failed:
            request.done(request.fetched)
            return
        left = [plan for plan in request.plans if plan.version not in request.fetched]
        self._by_thread(left, functools.partial(_add, request))

    def stop(self) -> None:
        """After the lane has ended. What is under way ends by itself."""
        if self._reads:
            self._reads.close()


def _add(request: _Request, fetched: Fetched) -> None:
    request.done(request.fetched | fetched)
