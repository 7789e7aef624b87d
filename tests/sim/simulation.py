"""A simulated machine under the tiers: the real store and the real daemon.tiering in one thread.

What the daemon does with threads and disks is done here at moments drawn from one seed: a job runs
on one of three I/O threads when the simulation says so, its completion is delivered later, and in
between pages are stored, loaded and discarded, segments cleaned, tiers added and taken away, by the
same steps as the lane and TierCommands take. The media lie, fail and forget, and what each fault
can explain is noted: everything else that is not exactly what was stored last is a failure.
"""

import functools
import itertools
import mmap
import random
import re
import sys
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import FrameType, SimpleNamespace
from typing import Any, Final, cast

import pytest
from regions import CORE, EMPTY_PAGE, make_buffers, make_page

from vswapfs.backing import scratch
from vswapfs.backing.faulty import Fault, FaultyBacking
from vswapfs.backing.memory import MemoryBacking
from vswapfs.core.buffers import Geometry
from vswapfs.core.check import check
from vswapfs.core.descriptor import KIND_MASK, SEGMENT_SHIFT, STORED, place
from vswapfs.core.homes import Fetched, RecordRead
from vswapfs.core.segment import SEALED
from vswapfs.core.store import Store
from vswapfs.core.verify import NotInRamError
from vswapfs.daemon import date, medium, tiering
from vswapfs.daemon.cipher import Cipher
from vswapfs.daemon.io_threads import TIER_IO_THREADS, Done, Job
from vswapfs.daemon.medium import erase
from vswapfs.daemon.tier import Tier
from vswapfs.daemon.tier_commands import READ_ATTEMPTS
from vswapfs.daemon.tiering import Tiering
from vswapfs.errors import LostPageError, PoolFullError, TierFormatError
from vswapfs.format.chunk import ENCRYPTED_CHUNK_BYTES
from vswapfs.format.session import KEY_BYTES, SESSION_BYTES, Session
from vswapfs.format.tier import (
    CIPHER_AES_256_GCM,
    CIPHER_NONE,
    SEGMENT_HEADER_BYTES,
    Superblock,
    unpack_segment_header,
)
from vswapfs.fuse.lane import Lane

SEGMENT_BYTES: Final = 1 << 14
GEOMETRY: Final = Geometry(800, 20, SEGMENT_BYTES, 4000)
KINDS: Final = ("zero", "same", "text", "text", "text", "tight", "random", "random")
Rates = Mapping[tuple[str, Fault], float]
"""How often an operation (read, write, trim, flush) shows a fault."""

NO_FAULTS: Final[Rates] = {}
HONEST_WRITES: Final[Rates] = {
    ("write", Fault.ERROR): 0.06,
    ("write", Fault.SHORT): 0.06,
    ("trim", Fault.ERROR): 0.2,
    ("trim", Fault.LOST): 0.2,
}
"""With these nothing may ever be lost."""
BAD_READS: Final[Rates] = {
    ("read", Fault.ERROR): 0.04,
    ("read", Fault.SHORT): 0.02,
    ("read", Fault.FLIP): 0.04,
    ("read", Fault.MISPLACED): 0.02,
}
LYING_WRITES: Final[Rates] = {("write", Fault.LOST): 0.03, ("write", Fault.MISPLACED): 0.03}
EVERYTHING: Final[Rates] = {**HONEST_WRITES, **BAD_READS, **LYING_WRITES}


class KilledError(BaseException):
    """The worker stops here, at once."""


class SimulationError(AssertionError):
    """Says the seed and the operation, so that it can be run again."""


# -- the machine -----------------------------------------------------------------------------


@dataclass(slots=True)
class Read:
    """A load that waits for tiers."""

    faulted: bool = False


@dataclass(slots=True)
class Item:
    """A job, from ``do`` to its completion on the lane."""

    job: Job
    done: Done
    read: Read | None
    ran: bool = False
    result: Any = None
    error: BaseException | None = None

    def run(self) -> None:
        self.ran = True
        tracing = sys.gettrace()
        sys.settrace(None)  # a kill comes at a line of the lane
        try:
            self.result = self.job()
        except Exception as error:
            self.error = error
        finally:
            sys.settrace(tracing)


class Threads:
    """IoThreads as seen from the lane: jobs start in order, three at a time, and end in any."""

    def __init__(self) -> None:
        self._queue: deque[Item] = deque()
        self._running: list[Item] = []
        self._ended: deque[Item] = deque()
        self.read: Read | None = None
        """On whose behalf jobs are started now."""
        self.current: Item | None = None

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def do(self, job: Job, done: Done) -> None:
        self._queue.append(Item(job, done, self.read))

    @property
    def pending_count(self) -> int:
        return len(self._queue) + len(self._running) + len(self._ended)

    def abandon(self, rng: random.Random) -> None:
        """Their process is killed: I/O under way ends, or never began."""
        for item in self._running:
            if not item.ran and rng.random() < 0.5:
                self.current = item
                item.run()
        self.current = None

    def work(self, rng: random.Random) -> None:
        """One thread gets on: does its I/O, or hands the outcome over."""
        while self._queue and len(self._running) < TIER_IO_THREADS:
            self._running.append(self._queue.popleft())
        if not self._running:
            return
        item = rng.choice(self._running)
        if item.ran:
            self._running.remove(item)
            self._ended.append(item)
        else:
            self.current = item
            item.run()
            self.current = None

    def deliver(self) -> bool:
        """One completion, on the lane."""
        if not self._ended:
            return False
        item = self._ended.popleft()
        item.done(item.result, item.error)
        return True


class Draws(Mapping[int, Fault]):
    """A plan for FaultyBacking, drawn when asked."""

    def __init__(self, rng: random.Random, rates: Rates) -> None:
        self._rng = rng
        self.rates = rates
        self.operation = ""
        self.fault: Fault | None = None

    def __getitem__(self, number: int) -> Fault:
        draw = self._rng.random()
        for (operation, fault), rate in self.rates.items():
            if operation == self.operation:
                draw -= rate
                if draw < 0:
                    self.fault = fault
                    return fault
        raise KeyError(number)

    def __iter__(self) -> Iterator[int]:
        return iter(())

    def __len__(self) -> int:
        return 0


class Disk:
    """A medium that does wrong, and tells the simulation which segments it did wrong to."""

    def __init__(
        self, simulation: "Simulation", size_bytes: int, plan: Mapping[int, Fault]
    ) -> None:
        self._simulation = simulation
        self.memory = MemoryBacking(size_bytes)
        self.plan = plan
        self.faulty = FaultyBacking(self.memory, plan)
        self._sequences: dict[int, int] = {}
        """By slot: the segment written there last."""
        self._segments: dict[int, int | None] = {}
        """The same, by its number; None if it was freed before it was written."""
        self.closed = False

    @property
    def size_bytes(self) -> int:
        return self.memory.size_bytes

    @property
    def direct_fd(self) -> int:
        return -1

    def read_into(self, offset: int, buffer: memoryview) -> None:
        fault = self._doing("read", lambda: self.faulty.read_into(offset, buffer))
        length = len(buffer)
        if fault is not None:
            read = self._simulation.threads.current
            self._simulation.misread(
                read.read if read else None,
                {self._sequences.get(slot, 0) for slot in self._slots(offset, length)},
            )
        self._raise()

    def write(self, offset: int, buffer: memoryview) -> None:
        try:
            header = unpack_segment_header(buffer[:SEGMENT_HEADER_BYTES])
        except TierFormatError:
            header = None
        fault = self._doing("write", lambda: self.faulty.write(offset, buffer))
        slots = self._slots(offset, len(buffer))
        if header is not None:
            assert slots == [header.slot], "a segment is written to another slot than it says"
            if fault in (Fault.LOST, Fault.MISPLACED):
                self._simulation.miswritten({header.sequence})
            self._sequences[header.slot] = header.sequence
            self._segments[header.slot] = self._simulation.on_its_way(header.sequence)
            if interrupt := self._simulation.interrupt:
                self._simulation.interrupt = None
                interrupt()
        if fault is Fault.MISPLACED:
            after = offset + len(buffer)
            if after + len(buffer) > self.size_bytes:
                after = max(0, offset - len(buffer))
            hit = self._slots(after, len(buffer))
            self._simulation.miswritten({self._sequences.get(slot, 0) for slot in hit})
        self._raise()

    def trim(self, offset: int, length: int) -> bool:
        for slot in self._slots(offset, length) if offset else ():
            segment = self._segments.get(slot)
            assert segment is None or not self._simulation.lives_in(segment, self, slot), (
                f"slot {slot} is trimmed while segment {segment} lives there"
            )
        self._doing("trim", lambda: self.faulty.trim(offset, length))
        self._raise()
        return True

    def flush(self) -> None:
        self._doing("flush", self.faulty.flush)
        self._raise()

    def close(self) -> None:
        self.closed = True
        self.faulty.close()

    def _doing(self, operation: str, do: Callable[[], object]) -> Fault | None:
        """Do it; the fault that it showed. An error is kept for ``_raise``."""
        assert not self.closed, f"{operation} after the tier was taken away and its medium closed"
        injected = len(self.faulty.injected)
        self._error: OSError | None = None
        if isinstance(self.plan, Draws):
            self.plan.operation = operation
        number = self.faulty.operation_count
        try:
            do()
        except OSError as error:
            self._error = error
        if len(self.faulty.injected) == injected:
            return None
        return self.plan.fault if isinstance(self.plan, Draws) else self.plan[number]

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _slots(self, offset: int, length: int) -> list[int]:
        size = self._simulation.geometry.segment_bytes
        return list(range(offset // size - 1, (offset + length - 1) // size))


@dataclass(slots=True)
class Clock:
    """In place of the time module."""

    now_s: float = 1_000_000.0
    set_by_s: float = 0.0
    """By so much somebody set the date."""
    CLOCK_BOOTTIME: int = 7

    def monotonic(self) -> float:
        return self.now_s

    def time(self) -> float:
        return self.now_s + self.set_by_s

    def clock_gettime(self, _clock: int) -> float:
        return self.now_s


# -- the simulation --------------------------------------------------------------------------


@dataclass(slots=True)
class Tally:
    """What happened, so that a test can tell that it did."""

    loads: int = 0
    tier_loads: int = 0
    lost: int = 0
    parked: int = 0
    refused: int = 0
    tiers_added: int = 0
    tiers_removed: int = 0
    removals_given_up: int = 0
    faults: int = 0
    restarts: int = 0


class OnceCipher(Cipher):
    """Refuses to encrypt twice under one number, whichever worker asks: a nonce would be used
    again."""

    def __init__(self, segment_bytes: int) -> None:
        self._numbers: set[int] = set()
        super().__init__(bytes(KEY_BYTES), segment_bytes)

    @property
    def count(self) -> int:
        return len(self._numbers)

    def encrypt(
        self, write_number: int, segment: memoryview, fill_bytes: int, into: memoryview
    ) -> memoryview:
        assert write_number not in self._numbers, f"number {write_number} is used again"
        self._numbers.add(write_number)
        return super().encrypt(write_number, segment, fill_bytes, into)


Command = Generator[None, None, None]


@dataclass
class Simulation:
    """One machine. Operations are drawn by ``step``; ``settle`` ends what is under way.
    ``number`` is that of the operation, if whoever calls ``step`` counts them."""

    monkeypatch: pytest.MonkeyPatch
    seed: int
    rates: Rates = field(default_factory=dict)
    geometry: Geometry = GEOMETRY
    budget_bytes_per_day: int | None = None
    plan: Mapping[int, Fault] | None = None
    """The faults of every disk by operation, instead of rates."""
    encrypt: bool = False

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.number = 0
        self.clock = Clock()
        self.threads = Threads()
        self.monkeypatch.setattr(tiering, "IoThreads", lambda *_: self.threads)
        self.monkeypatch.setattr(tiering, "time", self.clock)
        self.monkeypatch.setattr(date, "time", self.clock)
        # Buffers have their memory when it is used: a successor makes 3 MiB of them.
        self.monkeypatch.setattr(scratch, "_MADV_POPULATE_WRITE", mmap.MADV_NORMAL)
        # The copy must lie before the first slot, also with small segments.
        if self.geometry.segment_bytes < 1 << 20:
            self.monkeypatch.setattr(medium, "SUPERBLOCK_COPY_OFFSET", 4096)
        self.cipher: OnceCipher | None = None
        if self.encrypt:
            self.geometry = replace(self.geometry, chunk_bytes=ENCRYPTED_CHUNK_BYTES)
            self.cipher = OnceCipher(self.geometry.segment_bytes)
        self.session = Session(memoryview(bytearray(SESSION_BYTES)))
        self.buffers = make_buffers(self.geometry)
        self.store = Store(self.geometry, self.buffers)
        self.tiering = self._make_tiering()
        self._media: dict[str, tuple[Disk, Superblock]] = {}
        self.unanswered: dict[int, Callable[[], object]] = {}
        """Requests that a successor would get again, by a number of their own."""
        self.tally = Tally()
        self.truth: dict[int, bytes] = {}
        self._parked: list[tuple[int, bytes]] = []
        self._reading: set[int] = set()
        self._pumped_at = 0
        self._doubtful: set[int] = set()
        """Pages that a fault may have cost."""
        self.interrupt: Callable[[], None] | None = None
        """What the lane does at the end of the next write of a segment, while its job goes on."""
        self.may_damage = False
        """Whether a fault has happened that can damage what is fetched to RAM."""
        self.disks: list[Disk] = []
        self._commands: list[Command] = []
        self._disk_speed = 0.5
        self.story: list[str] | None = None
        """What each operation was, in words, if anybody wants to know."""

    def _make_tiering(self) -> Tiering:
        lane = SimpleNamespace(submit=None, event_fd=-1, serve_parked=self._serve_parked)
        return Tiering(
            self.store, cast(Lane, lane), self.session, self.budget_bytes_per_day, self.cipher
        )

    # -- the worker is killed ----------------------------------------------------------------

    def step_and_be_killed(self, lines: int) -> None:
        """A step, in which the worker is killed after so many lines of its code, if it has them."""
        tracing = sys.gettrace()
        countdown = itertools.count(lines, -1)

        def trace(frame: FrameType, event: str, _arg: Any) -> Any:
            if not frame.f_code.co_filename.startswith((CORE, tiering.__file__)):
                return None
            if event == "line" and next(countdown) == 0:
                raise KilledError
            return trace

        sys.settrace(trace)
        try:
            self.step()
        except KilledError:
            sys.settrace(tracing)
            self._tell("killed after", lines, "lines")
            self.restart()
        finally:
            sys.settrace(tracing)

    def restart(self) -> None:
        """Another worker over the same buffers, session and media; requests come again."""
        self.tally.restarts += 1
        # What the I/O threads were about may have been done, or not; nobody hears of it.
        self.threads.abandon(self.rng)
        self.threads = Threads()
        self._commands.clear()
        self._parked.clear()
        entries = self.session.tiers()
        self.store = Store.attach(
            self.geometry,
            self.buffers,
            first_sequence=self.store.segments.next_sequence,
            tier_slot_counts=[entry.slot_count for entry in entries],
            gone={entry.number for entry in entries if not entry.is_present},
            now_s=int(self.clock.now_s),
        )
        self.tiering = self._make_tiering()
        for entry in entries:
            if entry.is_present:
                self.tiering.restore(entry.number, entry.path, *self._media[entry.path])
        self._pumped_at = 0
        again, self.unanswered = list(self.unanswered.items()), {}
        self.rng.shuffle(again)
        # Changes first: a read beside one that was half done may find the old or the new page.
        again.sort(key=lambda item: item[0] < -1)
        for _number, request in again:
            request()

    # -- what a fault explains ---------------------------------------------------------------

    def _pages_of(self, sequences: set[int]) -> set[int]:
        segments = self.store.segments
        numbers = {n for n, _home in segments.in_use() if segments.sequence(n) in sequences}
        return {
            page
            for page, word in enumerate(self.store.words[: self.geometry.page_count].tolist())
            if word & KIND_MASK == STORED and word >> SEGMENT_SHIFT in numbers
        }

    def misread(self, read: Read | None, sequences: set[int]) -> None:
        self.tally.faults += 1
        if read is not None:  # of records: the next one may go well
            read.faulted = True
        else:
            self.may_damage = True
            self._doubtful |= self._pages_of(sequences)

    def miswritten(self, sequences: set[int]) -> None:
        self.tally.faults += 1
        self.may_damage = True
        self._doubtful |= self._pages_of(sequences)

    def on_its_way(self, sequence: int) -> int | None:
        """The number of a segment that is being written."""
        segments = self.store.segments
        return next((n for n in self.store.homes.busy if segments.sequence(n) == sequence), None)

    def lives_in(self, segment: int, disk: Disk, slot: int) -> bool:
        segments = self.store.segments
        tier = self.tiering.tiers.get(segments.tier_of(segment))
        return (
            tier is not None
            and tier.backing is disk
            and segments.state(segment) == SEALED
            and segments.slot_of(segment) == slot
        )

    # -- page I/O, as the lane does it -------------------------------------------------------

    def put(self, page: int, data: bytes) -> bool:
        """Store; False if it was refused or waits."""
        self.unanswered[page] = functools.partial(self._put_again, page, data)
        try:
            self.store.store(page, data)
        except PoolFullError:
            if self.tiering.room_is_coming():
                self.tally.parked += 1
                self._parked.append((page, data))
            else:
                self.tally.refused += 1
                del self.unanswered[page]
            return False
        self.truth[page] = data
        del self.unanswered[page]
        self._doubtful.discard(page)
        return True

    def _put_again(self, page: int, data: bytes) -> None:
        """A write whose worker was killed: perhaps it was done, all but the reply."""
        try:
            if self.store.load(page) == data:
                self.truth[page] = data
        except (LostPageError, NotInRamError):
            pass  # then it was not done
        self.put(page, data)

    def _serve_parked(self) -> None:
        parked, self._parked = self._parked, []
        while parked and not self._parked:
            self.put(*parked.pop(0))
        self._parked += parked

    def waits(self, first: int, count: int = 1) -> bool:
        return any(first <= page < first + count for page, _data in self._parked)

    def discard(self, first: int, count: int) -> None:
        self.unanswered[-1] = functools.partial(self.discard, first, count)
        self.store.discard(first, count)
        for page in range(first, first + count):
            self.truth.pop(page, None)
            self._doubtful.discard(page)
        del self.unanswered[-1]

    def get(self, first: int, count: int = 1, read: Read | None = None) -> None:
        """Load, now or when it was read; compare then."""
        read = read or Read()
        self.unanswered[-2 - id(read)] = functools.partial(self.get, first, count)
        missing = self.store.missing(first, first + count)
        if missing and any(plan.version not in self.store.fetched for plan in missing):
            self._get_later(first, count, missing, read)
            return
        for plan in missing:
            self.store.homes.end_read(plan)
        for page in range(first, first + count):
            self._compare(page, read)
        del self.unanswered[-2 - id(read)]

    def _get_later(self, first: int, count: int, plans: list[RecordRead], read: Read) -> None:
        def serve_now(fetched: Fetched) -> None:
            self.store.fetched = fetched
            try:
                self.get(first, count, read)
            finally:
                self.store.fetched = {}
                for plan in plans:
                    self.store.homes.end_read(plan)

        self.tally.tier_loads += 1
        self.threads.read = read
        self.tiering.read(plans, serve_now)
        self.threads.read = None

    def _compare(self, page: int, read: Read) -> None:
        self.tally.loads += 1
        expected = self.truth.get(page, EMPTY_PAGE)
        try:
            found = self.store.load(page)
        except LostPageError as error:
            if not read.faulted and page not in self._doubtful:
                raise AssertionError(f"no fault explains this: {error}") from None
            self.tally.lost += 1
            return
        assert found == expected, f"page {page} has wrong bytes"

    def between_requests(self) -> None:
        """What the lane does between two requests, but not always all of it."""
        while self.rng.random() < 0.8 and self.threads.deliver():
            pass
        if self.store.cleaning_urgent():
            self.store.clean(self.rng.choice((1, 3, 60)))
        if self.store.segments.change_count != self._pumped_at:
            self._pumped_at = self.store.segments.change_count
            self.tiering.pump()

    # -- commands, as TierCommands does them; a yield is where the lane does other things ----

    def add_tier(self, slot_count: int) -> Tier:
        plan = Draws(self.rng, self.rates) if self.plan is None else self.plan
        disk = Disk(self, (slot_count + 1) * self.geometry.segment_bytes, plan)
        self.disks.append(disk)
        number = len(self.disks)
        superblock = Superblock(
            number.to_bytes(16, "little"), "vswap0", self.geometry.segment_bytes, slot_count, 1, 1,
            cipher=CIPHER_AES_256_GCM if self.encrypt else CIPHER_NONE,
        )  # fmt: skip
        self.tally.tiers_added += 1
        self._media[f"/disk{number}"] = disk, superblock
        return self.tiering.add(f"/disk{number}", disk, superblock)

    def _one(
        self, start: Callable[[Callable[[bool], None]], bool]
    ) -> Generator[None, None, bool | None]:
        outcome: list[bool] = []
        if not start(outcome.append):
            return None
        while not outcome:
            yield
        return outcome[0]

    def remove_tier(self, tier: Tier, patience: int = 60) -> Command:
        self.tiering.leave(tier, leaving=True)
        yield
        tries = 0
        failures: Counter[int] = Counter()
        while segments := self.tiering.segments_on(tier):
            yield
            moved = 0
            for segment in segments:
                salvage = failures[segment] >= READ_ATTEMPTS
                fetch = functools.partial(self.tiering.fetch, segment, salvage=salvage)
                ended = yield from self._one(fetch)
                failures[segment] += ended is False
                moved += bool(ended)
                yield
            tries = 0 if moved else tries + 1
            if tries > patience:
                break
            if not moved:
                self.store.cleaner.run_victim()
                self.tiering.pump()
            yield
        for _ in range(patience):
            if self.tiering.forget(tier):
                # Nothing of it goes wrong here: what is tested is who still uses the medium.
                disk = cast(Disk, tier.backing)
                if isinstance(disk.plan, Draws):
                    disk.plan.rates = NO_FAULTS
                    erase(disk)
                else:
                    disk.close()
                self.tally.tiers_removed += 1
                return
            yield
        self.tally.removals_given_up += 1
        self.tiering.leave(tier, leaving=False)

    def write_back(self, count: int, *, incompressible: bool = False) -> Command:
        segments = self.tiering.candidates(incompressible, None)[:count]
        yield
        for segment in segments:
            may = self.tiering.may_leave(segment)
            yield
            if may:
                moved = yield from self._one(functools.partial(self.tiering.write, segment))
                if moved is None and self.tiering.may_leave(segment):
                    return
            yield

    def drain(self) -> Command:
        for tier in list(self.tiering.tiers.values()):
            segments = self.tiering.segments_on(tier)
            yield
            for segment in segments:
                yield from self._one(functools.partial(self.tiering.fetch, segment))
                yield

    # -- running -----------------------------------------------------------------------------

    def step(self) -> None:
        rng, draw = self.rng, self.rng.random()
        page = rng.randrange(40 if draw * 100 % 1 < 0.4 else self.geometry.page_count)
        if draw < 0.45:
            kind = rng.choice(KINDS)
            if not self.waits(page):
                self._tell("store page", page, kind)
                self.put(page, make_page(rng, kind))
        elif draw < 0.62:
            count = min(rng.choice((1, 1, 8)), self.geometry.page_count - page)
            self._tell("load page", page, "of", count)
            self.get(page, count)
        elif draw < 0.68:
            count = min(rng.choice((1, 2, 8, 30)), self.geometry.page_count - page)
            if not self.waits(page, count):
                self._tell("discard page", page, "of", count)
                self.discard(page, count)
        elif draw < 0.73:
            steps = rng.choice((1, 2, 5, 40))
            self._tell("clean", steps)
            self.store.clean(steps)
        elif draw < 0.76:
            seconds = rng.choice((0.1, 1.0, 5.0, 5.0, 90.0, 7000.0))
            self._tell("wait", seconds, "s")
            self.clock.now_s += seconds
            self.tiering.tick()
        elif draw < 0.765:
            self._begin_command()
        elif draw < 0.768:
            self._disk_speed = rng.choice((0.02, 0.2, 0.6, 0.9))
            self._tell("disk speed", self._disk_speed)
        for command in list(self._commands):
            if rng.random() < 0.5:
                self._advance(command)
        while rng.random() < self._disk_speed:
            self.threads.work(rng)
        if rng.random() < 0.7:
            self.between_requests()
        assert self.threads.pending_count or not self._parked, "requests wait for nothing"

    def _tell(self, *words: object) -> None:
        if self.story is not None:
            self.story.append(f"{self.number:>9}  {' '.join(map(str, words))}")

    def _advance(self, command: Command) -> None:
        if next(command, self) is self:
            self._commands.remove(command)

    def _begin_command(self) -> None:
        rng, tiers = self.rng, list(self.tiering.tiers.values())
        if len(self._commands) >= 2:
            return
        draw = rng.random()
        if not tiers or (draw < 0.25 and len(tiers) < 3):
            segments, slot_count = self.store.segments, rng.choice((3, 10, 24, 40))
            if segments.count + slot_count <= self.geometry.segment_capacity:
                self._tell("add a tier of", slot_count, "slots")
                self.add_tier(slot_count)
        elif draw < 0.5:
            tier = rng.choice(tiers)
            if not tier.is_leaving:
                self._tell("remove tier", tier.number)
                command = self.remove_tier(tier)
                next(command)
                self._commands.append(command)
        elif draw < 0.85:
            count, incompressible = rng.randrange(1, 12), rng.random() < 0.3
            self._tell("write", count, "segments back", "(incompressible)" * incompressible)
            self._commands.append(self.write_back(count, incompressible=incompressible))
        else:
            self._tell("drain")
            self._commands.append(self.drain())

    def finish_io(self) -> None:
        for _ in range(10_000):
            if not self.threads.pending_count:
                return
            self.threads.work(self.rng)
            self.between_requests()
        raise AssertionError("I/O goes on for ever with nothing to do")

    def check(self) -> None:
        self.store.finish_count()
        findings = [finding for finding in check(self.store) if not self._explained(finding)]
        assert findings == [], findings
        for disk in self.disks:
            if not disk.closed:
                disk.memory.flush()  # or it keeps all that was ever written
        homes, segments = self.store.homes, self.store.segments
        if not self.threads.pending_count:
            assert not homes.busy, f"{homes.busy} are on no way"
            self._check_slots()
        for page, word in enumerate(self.store.words[: self.geometry.page_count].tolist()):
            if word & KIND_MASK == STORED:
                tier = segments.tier_of(place(word).segment)
                assert not tier or tier in self.tiering.tiers, f"page {page} is on a tier gone"

    def _explained(self, finding: str) -> bool:
        """Whether check found what a fault left in a segment that was fetched: a record that is
        none, behind which its segment cannot be walked, wherever the cleaner has moved it."""
        if not self.may_damage:
            return False
        return bool(re.search(r"no record begins at|its record in segment", finding))

    def _check_slots(self) -> None:
        """With nothing under way: each slot is used or free, and nothing is pinned."""
        segments = self.store.segments
        in_ram = [
            segments.slot_of(n)
            for n, _home in segments.in_use()
            if segments.state(n) and not segments.tier_of(n)
        ]
        assert not segments.ram.is_any_pinned()
        assert sorted([*in_ram, *segments.ram.free_slots()]) == list(
            range(self.geometry.slot_count)
        )
        for number in self.tiering.tiers:
            slots = segments.tiers[number]
            used = sorted(segments.slot_of(n) for n in self.store.homes.on_tier(number))
            assert not slots.is_any_pinned(), f"tier {number}"
            assert slots.used_slots() == used, f"tier {number}: slots leaked"
            assert slots.free_count == slots.slot_count - len(used)
        assert self.store.used_bytes() <= self.geometry.slot_count * self.geometry.segment_bytes

    def settle(self) -> None:
        """End everything, with media that behave; then verify all of it."""
        for disk in self.disks:
            if isinstance(disk.plan, Draws):
                disk.plan.rates = NO_FAULTS
        for _ in range(100_000):
            if not self._commands:
                break
            for command in list(self._commands):
                self._advance(command)
            self.threads.work(self.rng)
            self.between_requests()
        assert not self._commands, "a command does not end"
        self.finish_io()
        self.check()
        for page in range(self.geometry.page_count):
            self.get(page)
        self.finish_io()
        self.check()
