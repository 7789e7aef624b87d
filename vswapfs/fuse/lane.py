"""The lane: one thread that owns /dev/fuse and answers page I/O straight from the store.

Owns its descriptor of the device (closes it at the end), the loop, and the right to change the
store: every other thread hands it work through ``submit``. READ, WRITE and FALLOCATE on the swap
file never enter an event loop; all other requests go unread to pyfuse3 over a SOCK_SEQPACKET pair,
and its replies are copied back. Never blocks on anything but the device, the pair and its eventfd.
Always holds: each request gets one reply; an exception costs one request, never the loop.

After an answer it polls the device before it sleeps (fuse/window.py), and cleans meanwhile.
"""

import errno
import logging
import os
import select
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from time import perf_counter_ns, sleep
from typing import Final

from vswapfs.core.homes import Fetched, RecordRead, TierIo
from vswapfs.core.store import Store
from vswapfs.core.verify import NotInRamError
from vswapfs.errors import LostPageError, OutOfRangeError, PoolFullError, VswapError
from vswapfs.format.message import Histogram
from vswapfs.fuse import figures, parts, wire
from vswapfs.fuse.ahead import DecodedAhead
from vswapfs.fuse.behind import Behind
from vswapfs.fuse.inbox import Completion, Inbox, Work
from vswapfs.fuse.journal import Journal
from vswapfs.fuse.lost import LostPages
from vswapfs.fuse.window import PollWindow
from vswapfs.units import PAGE_BYTES, PAGE_SHIFT

SLICE_STEPS: Final = 60
SMALL_SLICE_STEPS: Final = 10
"""Records cleaned between two looks at the device, 3 to 4 us each: while it is busy, while it is
not. A task that swaps comes back within 10 to 60 us, and should not find us cleaning."""

IDLE_MS: Final = 100
"""When no request came for so long, the pool is packed (pages about to die are not copied), and
processors may halt again."""

_LOOKS_AT_ONCE: Final = 8
"""Looks at the device right after an answer, about 1 us each, before anything else: one that does
one thing at a time comes back so soon, and would find the lane at its housekeeping."""

_CHECK_INTERVAL: Final = 4
"""Requests, while there are always more, after which the rest is seen to."""

_TIMED_INTERVAL: Final = 17
"""One in so many requests is timed, which takes 0.7 us. A prime: readahead comes in eights."""

_PAGE_MASK: Final = PAGE_BYTES - 1
_ONE_PAGE_BYTES: Final = wire.OUT_HEADER_BYTES + PAGE_BYTES

_log = logging.getLogger(__name__)


class Lane:
    """Serves until the device says that it was unmounted or aborted; then calls ``ended``."""

    def __init__(
        self,
        store: Store,
        device_fd: int,
        pair_fd: int,
        swap_inode: int,
        ended: Callable[[], None],
        window: PollWindow,
        buffer: memoryview,
        journal: Journal | None = None,
    ) -> None:
        """``buffer``: what requests are read into, the journal's or a ``wire.request_buffer``."""
        self.store = store
        self.tiers: TierIo | None = None
        self.look_after: Callable[[], None] = lambda: None  # called when segments have changed
        self.lost = LostPages(store)
        self._ahead = DecodedAhead(store)
        self._parked: list[tuple[bytes | memoryview, int]] = []
        self._pumped_at = 0
        self._device_fd = device_fd
        self._behind = Behind(pair_fd, self._pass_back)
        self._swap_inode = swap_inode
        self._size_bytes = store.geometry.page_count * PAGE_BYTES
        self._ended = ended
        self._inbox = Inbox(self._defect)
        self.event_fd = self._inbox.event_fd
        """Wakes the lane: there is work, or a direct read has ended."""
        self._journal = journal
        self.after_reply: Callable[[bytes], None] | None = None
        """Gets the header of each reply, or what begins with it."""
        self.has_failed = False
        """Ended by a defect, and not because the device is gone."""
        self._view = self._request = buffer
        self._poll = select.poll()
        for fd in (device_fd, pair_fd, self.event_fd):
            self._poll.register(fd, select.POLLIN)
        self._device_poll = select.poll()
        self._device_poll.register(device_fd, select.POLLIN)
        self._window = window
        self.counters = dict.fromkeys(figures.COUNTERS, 0)
        self._loads, self._stores = figures.Latency(), figures.Latency()
        self._began_ns = 0
        """When the lane got the request that is being served; 0: it is not timed."""
        self._thread = threading.Thread(target=self._run, name="lane", daemon=True)

    # -- for other threads -------------------------------------------------------------------

    def start(self, first: Iterable[bytes] = ()) -> None:
        """Serve the requests ``first``, which were read before, and then what the device has."""
        self._first = first
        self._thread.start()

    def submit(self, work: Work, completion: Completion) -> None:
        """Have ``work`` called on the lane, then ``completion(result, error)``, also there.

        Keep work short: page I/O waits for it. At the lane's end completion gets an UnmountedError.
        """
        self._inbox.submit(work, completion)

    def stats(self) -> dict[str, int]:
        """The lane's share of the field table."""
        return {**self.counters, "lane.window_us": self._window.ns // 1000}

    def histograms(self) -> dict[str, Histogram]:
        return {"latency.load": self._loads.told(), "latency.store": self._stores.told()}

    # -- the loop ----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            for request in self._first:
                self._serve_again(request)
            self._loop()
        except BaseException:
            self.has_failed = True
            _log.exception("the lane ended by a defect")
        finally:
            # What completions still bring is not answered, on a descriptor that may be another's.
            fd, self._device_fd = self._device_fd, -1
            os.close(fd)
            self._inbox.close()
            self._ended()

    def _loop(self) -> None:
        buffers, device_fd = [self._view], self._device_fd
        readv, look = os.readv, self._device_poll.poll
        since_check = number = 0
        while True:
            # Not by reading the device: the exception for a look in vain takes five times as long.
            if not look(0):
                self._wait()
            try:
                count = readv(device_fd, buffers)
                if not count:
                    return  # a device never says so; a socket in its place, at its end
            except BlockingIOError:
                continue
            except OSError as error:
                if error.errno in (errno.ENODEV, errno.ECONNABORTED):
                    return
                # ENOENT: the request was given up before it was read; EINTR: a signal.
                if error.errno not in (errno.ENOENT, errno.EINTR):
                    self._defect(f"reading the FUSE device: {error}")
                    sleep(0.01)  # it may last; do not use up a processor
                continue
            number += 1
            self._began_ns = 0 if number % _TIMED_INTERVAL else perf_counter_ns()
            self._serve(count)
            since_check += 1
            if self._inbox or since_check >= _CHECK_INTERVAL:
                # Not only when idle: a busy device must not keep the rest waiting.
                since_check = 0
                self._window.learn(0)  # so many were there at once
                self._between_requests(SLICE_STEPS)

    def _wait(self) -> None:
        """Until there may be a request: look again, see to the rest, poll for a while, sleep."""
        began_ns = perf_counter_ns()
        look = self._device_poll.poll
        for _ in range(_LOOKS_AT_ONCE):
            if look(0):
                self.counters["lane.polls_hit_total"] += 1
                self._window.learn(0)
                return
        poll = self._poll.poll
        unfinished = self._between_requests(SMALL_SLICE_STEPS)
        while not (events := poll(0)):
            if unfinished:
                unfinished = self._between_requests(SMALL_SLICE_STEPS)
            elif not self._ahead.step() and perf_counter_ns() - began_ns >= self._window.ns:
                self._sleep()
                break
        else:
            self.counters["lane.polls_hit_total"] += 1
            self._see_to(events)
        self._window.learn(perf_counter_ns() - began_ns)

    def _between_requests(self, clean_steps: int) -> bool:
        """See to all but the device; True if there is more cleaning to do."""
        if self._inbox:
            self._inbox.do_all()
        if self._behind.awaiting_replies:
            self._behind.return_replies()
        if self.tiers is not None:
            self.tiers.reap()
        unfinished = self.store.cleaning_urgent() and self.store.clean(clean_steps)
        if self.tiers is not None and self.store.segments.change_count != self._pumped_at:
            self._pumped_at = self.store.segments.change_count
            self.look_after()
            self.tiers.pump()
        return unfinished

    def _sleep(self) -> None:
        """Sleep until the device, the pair or other threads have something to do."""
        self.counters["lane.sleeps_total"] += 1
        idle_matters = (
            self._window.keeps_awake
            or self.store.cleaning_urgent()
            or self.store.cleaning_useful()
            or self.store.segments.ram.has_excess
        )
        events = self._poll.poll(IDLE_MS if idle_matters else None)
        if not events:
            self._window.rest()
            self._pack()
        self._see_to(events)

    def _see_to(self, events: list[tuple[int, int]]) -> None:
        """What others than the device have for the lane."""
        for fd, _ in events:
            if fd == self.event_fd:
                os.eventfd_read(fd)
                self._inbox.do_all()
                if self.tiers is not None:
                    self.tiers.reap()
            elif fd == self._behind.pair_fd:
                self._behind.return_replies()
                if self._behind.has_ended:
                    self._poll.unregister(fd)

    def _pack(self) -> None:
        """Clean in slices until nothing is worth it or something else is to be done."""
        while (
            (self.store.cleaning_urgent() or self.store.cleaning_useful())
            and self.store.clean(SLICE_STEPS, idle=True)
            and not self._poll.poll(0)
        ):
            pass
        self.store.segments.ram.cool()

    # -- requests ----------------------------------------------------------------------------

    def _serve(self, count: int) -> None:
        """Answer the request in the first ``count`` bytes of ``self._request``, or see to it that
        it will be."""
        length, opcode, unique, nodeid, _, _, _, _, _, offset, size = wire.REQUEST.unpack_from(
            self._request
        )
        least = wire.LEAST_BYTES.get(opcode, wire.IN_HEADER_BYTES)
        if opcode == wire.OP_WRITE:
            least += size
        if count < least or count != length:
            self._refuse(count, opcode, unique)
            return
        try:
            if nodeid == self._swap_inode:
                try:
                    if opcode == wire.OP_READ:
                        self._read(unique, offset, size)
                        return
                    if opcode == wire.OP_WRITE:
                        self._write(unique, offset, size)
                        return
                    if opcode == wire.OP_FALLOCATE:
                        self._fallocate(unique)
                        return
                except NotInRamError as wanted:
                    self._serve_later([self.store.homes.plan_read(wanted.page, wanted.word)])
                    return
            if opcode != wire.OP_INTERRUPT:
                self._forward(length, opcode, unique)
        except PoolFullError as error:
            if self.tiers is not None and self.tiers.room_is_coming():
                self.counters["requests.parked"] += 1
                self._parked.append((self._keep(length, unique), self._began_ns))
            else:
                self.counters["refusals.pool_full"] += 1
                self._reply_error(unique, error.errno)
        except VswapError as error:
            if isinstance(error, LostPageError):
                self.lost.met(error)
            self._reply_error(unique, error.errno)
        except Exception:
            self._defect(f"request {opcode} at offset {offset} of {size} bytes")
            self._reply_error(unique, errno.EIO)

    def _serve_later(self, plans: list[RecordRead]) -> None:
        """Have records read, then serve the request again with all that was read for it."""
        length, _opcode, unique = wire.OUT_HEADER.unpack_from(self._request)
        request, began_ns, before = self._keep(length, unique), self._began_ns, self.store.fetched

        def serve_now(fetched: Fetched) -> None:
            self.store.fetched = before | fetched
            try:
                self._serve_again(request, began_ns)
            finally:
                self.store.fetched = {}
                for plan in plans:
                    self.store.homes.end_read(plan)

        assert self.tiers is not None
        self.tiers.read(plans, serve_now)

    def _keep(self, length: int, unique: int) -> bytes | memoryview:
        """The request is not answered at once: a copy of it, or itself if it is one."""
        request = self._request[:length]
        if self._journal is not None:
            self._journal.keep(request, unique)
        return request.tobytes() if self._request is self._view else request

    def _serve_again(self, request: bytes | memoryview, began_ns: int = 0) -> None:
        if self._device_fd < 0:
            return  # the lane has ended
        count = len(request)
        if count < wire.REQUEST.size:  # what is unpacked of each
            request = bytes(request).ljust(wire.REQUEST.size, b"\0")
        self._request, self._began_ns = memoryview(request), began_ns
        try:
            self._serve(count)
        finally:
            self._request = self._view

    def serve_parked(self) -> None:
        """Room was made, or none is coming any more: serve the requests that wait for it, up to
        the first that has to wait on: others would compress their pages again for nothing."""
        parked, self._parked = self._parked, []
        while parked and not self._parked:
            self._serve_again(*parked.pop(0))
        self._parked += parked

    def _defect(self, what: str) -> None:
        self.counters["internal_errors"] += 1
        _log.exception("internal error: %s", what)

    def _reply(self, buffers: list[bytes]) -> None:
        # ENOENT: whoever asked was killed meanwhile, or a predecessor of ours has answered.
        with suppress(FileNotFoundError):
            os.writev(self._device_fd, buffers)
        if self.after_reply is not None:
            self.after_reply(buffers[0])

    def _reply_error(self, unique: int, number: int) -> None:
        self._pass_back(wire.OUT_HEADER.pack(wire.OUT_HEADER_BYTES, -number, unique))

    def _refuse(self, count: int, opcode: int, unique: int) -> None:
        """What it lacks would be taken from an earlier request that the buffer still holds."""
        self.counters["refusals.malformed"] += 1
        if count >= wire.IN_HEADER_BYTES and opcode not in wire.OPS_WITHOUT_REPLY:
            self._reply_error(unique, errno.EINVAL)

    def _read(self, unique: int, offset: int, size: int) -> None:
        first = offset >> PAGE_SHIFT
        if size == PAGE_BYTES and not offset & _PAGE_MASK and offset < self._size_bytes:
            # The most frequent one by far: a random page fault.
            data = self._ahead.take(first) or self.store.load(first)
            self.counters["requests.read"] += 1
            self._reply([wire.OUT_HEADER.pack(_ONE_PAGE_BYTES, 0, unique), data])
            if self._began_ns:
                self._loads.add_since(self._began_ns)
            self._ahead.was_read(first, first + 1)
            return
        if size > wire.MAX_REQUEST_BYTES:
            self._refuse(wire.REQUEST.size, wire.OP_READ, unique)
            return
        end = min(offset + size, self._size_bytes)
        stop = end + _PAGE_MASK >> PAGE_SHIFT
        missing = self.store.missing(first, stop)
        if missing and any(plan.version not in self.store.fetched for plan in missing):
            self._serve_later(missing)
            return
        for plan in missing:
            self.store.homes.end_read(plan)
        self.counters["requests.read"] += 1
        pages, lost = self._ahead.load(first, stop)
        if lost is not None:
            self.lost.met(lost)
        if (offset | end) & _PAGE_MASK:
            found = b"".join(pages)[offset & _PAGE_MASK :]
            pages = [found[: max(0, end - offset)]]
        length = wire.OUT_HEADER_BYTES + sum(map(len, pages))
        self._reply([wire.OUT_HEADER.pack(length, 0, unique), *pages])
        if self._began_ns:
            self._loads.add_since(self._began_ns)
        self._ahead.was_read(first, stop)

    def _write(self, unique: int, offset: int, size: int) -> None:
        self.counters["requests.write"] += 1
        end = offset + size
        if end > self._size_bytes:
            self.counters["refusals.out_of_range"] += 1
            raise OutOfRangeError(f"write of bytes {offset} to {end}: the area ends before")
        data = self._request[wire.WRITE_DATA_OFFSET : wire.WRITE_DATA_OFFSET + size]
        if (offset | size) & _PAGE_MASK:
            data = parts.whole_pages(self.store, offset, data)
        self.store.store(offset >> PAGE_SHIFT, data)
        self._reply([wire.WRITE_REPLY.pack(wire.WRITE_REPLY.size, 0, unique, size, 0)])
        if self._began_ns:
            self._stores.add_since(self._began_ns)

    def _fallocate(self, unique: int) -> None:
        """Discard (punch hole) and write zeroes (zero range): both empty whole pages."""
        self.counters["requests.discard"] += 1
        _, offset, length, mode = wire.FALLOCATE_IN.unpack_from(self._request, wire.IN_HEADER_BYTES)
        if mode not in (
            wire.FALLOC_PUNCH_HOLE | wire.FALLOC_KEEP_SIZE,
            wire.FALLOC_ZERO_RANGE | wire.FALLOC_KEEP_SIZE,
            wire.FALLOC_ZERO_RANGE,
        ):
            self.counters["refusals.fallocate_mode"] += 1
            self._reply_error(unique, errno.EOPNOTSUPP)
            return
        if offset + length > self._size_bytes and not mode & wire.FALLOC_KEEP_SIZE:
            self.counters["refusals.out_of_range"] += 1
            raise OutOfRangeError("fallocate beyond the end of the area")
        parts.zero(self.store, offset, min(offset + length, self._size_bytes))
        self._reply([wire.OUT_HEADER.pack(wire.OUT_HEADER_BYTES, 0, unique)])

    # -- all else: pyfuse3 -------------------------------------------------------------------

    def _forward(self, length: int, opcode: int, unique: int) -> None:
        if opcode not in wire.OPS_WITHOUT_REPLY:
            self._keep(length, unique)
        number = self._behind.forward(self._request[:length], opcode, unique)
        if number == 0:
            self.counters["requests.forwarded"] += 1
            return
        self.counters["refusals.forward_busy"] += 1
        if opcode not in wire.OPS_WITHOUT_REPLY:
            self._reply_error(unique, number)

    def _pass_back(self, reply: bytes) -> None:
        try:
            self._reply([reply])
        except OSError as error:
            if error.errno not in (errno.ENODEV, errno.ECONNABORTED):
                self._defect(f"a reply was refused: {error}")
