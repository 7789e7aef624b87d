"""Reads that the lane starts itself: right bytes, and whatever goes wrong goes to the threads."""

import errno
import os
import random
import select
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from regions import make_buffers, make_page

from vswapfs.backing import uring
from vswapfs.backing.file import FileBacking
from vswapfs.backing.scratch import scratch
from vswapfs.backing.uring import READ_MAX_BYTES, READS_MAX, AsyncReads
from vswapfs.core.buffers import Geometry
from vswapfs.core.homes import Fetched, RecordRead
from vswapfs.core.store import Store
from vswapfs.daemon.cipher import Cipher
from vswapfs.daemon.direct_reads import DirectReads
from vswapfs.daemon.medium import Encryption, write_segment
from vswapfs.daemon.record_reader import RecordReader
from vswapfs.daemon.tier import Tier
from vswapfs.errors import HostError
from vswapfs.format.chunk import ENCRYPTED_CHUNK_BYTES, PLAIN_CHUNK_BYTES
from vswapfs.format.tier import SegmentHeader, slot_offset_bytes

SEGMENT_BYTES = 1 << 20
PAGES = 600


@pytest.fixture
def event_fd() -> Iterator[int]:
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    yield fd
    os.close(fd)


def wait_for(event_fd: int) -> None:
    assert select.select([event_fd], [], [], 10)[0], "nothing ended within 10 s"
    os.eventfd_read(event_fd)


@pytest.fixture
def reads(event_fd: int) -> Iterator[AsyncReads]:
    found = AsyncReads(event_fd)
    yield found
    found.close()


def test_reads_end_with_the_bytes_that_are_there(
    reads: AsyncReads, event_fd: int, tmp_path: Path
) -> None:
    data = random.Random(1).randbytes(READS_MAX * 4096)
    (tmp_path / "file").write_bytes(data)
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    started = {reads.start(fd, page * 4096, 4096): page for page in range(READS_MAX)}
    if -1 in started:
        pytest.skip("this file system does not read without waiting")
    assert reads.free_count == 0
    assert reads.start(fd, 0, 4096) == -1, "more at once than there is memory for"
    left = dict(started)
    while left:
        wait_for(event_fd)
        for number, result in reads.ended():
            page = left.pop(number)
            assert result == 4096
            assert reads.memory(number)[:4096] == data[page * 4096 :][:4096]
            reads.done_with(number)
    assert reads.free_count == READS_MAX
    os.close(fd)


def test_a_read_that_cannot_be_done_ends_with_its_errno(reads: AsyncReads, event_fd: int) -> None:
    number = reads.start(1 << 20, 0, 4096)  # no such descriptor
    wait_for(event_fd)
    assert reads.ended() == [(number, -errno.EBADF)]
    reads.done_with(number)
    assert reads.free_count == READS_MAX
    assert reads.ended() == []


def test_rings_go_round(reads: AsyncReads, event_fd: int, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(4096))
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    for _ in range(5 * READS_MAX):
        number = reads.start(fd, 0, 4096)
        wait_for(event_fd)
        assert reads.ended() == [(number, 4096)]
        reads.done_with(number)
    os.close(fd)


def test_a_kernel_without_it_is_told(event_fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uring, "_SETUP", 9999)
    with pytest.raises(HostError, match="io_uring"):
        AsyncReads(event_fd)


class Bench:
    """A store with all its pages on one tier in a file, and direct reads over it."""

    def __init__(self, path: Path, event_fd: int, cipher: Cipher | None) -> None:
        rng = random.Random(2)
        chunk_bytes = ENCRYPTED_CHUNK_BYTES if cipher else PLAIN_CHUNK_BYTES
        self.event_fd = event_fd
        self.store = store = Store(
            geometry := Geometry(PAGES, 8, SEGMENT_BYTES, 64, chunk_bytes), make_buffers(geometry)
        )
        self.backing = FileBacking.open(str(path), 16 << 20, overwrite=False, owner="unit")
        self.pages = [make_page(rng, rng.choice(("text", "tight", "random"))) for _ in range(PAGES)]
        for page, data in enumerate(self.pages):
            store.store(page, data)
        for head in store.heads:
            head.close()
        number = store.segments.add_tier(15)
        self.tier = Tier(number, str(path), self.backing, cast(Any, SimpleNamespace()))
        while (segment := store.homes.choose(leave=-1)) is not None:
            plan = store.homes.plan_write(segment)
            assert plan
            memory = scratch(plan.ram_bytes)
            memory[:] = store.pool[plan.ram_start : plan.ram_start + plan.ram_bytes]
            write_segment(
                self.backing,
                slot_offset_bytes(plan.slot, SEGMENT_BYTES),
                memory,
                SegmentHeader(plan.sequence, plan.slot, plan.fill_bytes, bytes(16), 0),
                Encryption(cipher, plan.write_number) if cipher else None,
            )
            assert store.homes.end_write(plan, ok=True)
        self.by_thread: list[list[RecordRead]] = []
        self._reader = RecordReader({number: self.tier}, SEGMENT_BYTES, cipher)
        self.direct = DirectReads(
            {number: self.tier}, SEGMENT_BYTES, event_fd, self._read_by_thread, cipher
        )
        self.direct.prepare()

    def _read_by_thread(self, plans: list[RecordRead], done: Any) -> None:
        self.by_thread.append(plans)
        done(self._reader.read(plans))

    def read(self, first: int, count: int) -> Fetched:
        found: list[Fetched] = []
        plans = self.store.missing(first, first + count)
        assert len(plans) == count
        self.direct.read(plans, found.append)
        while not found:
            wait_for(self.event_fd)
            self.direct.reap()
        (fetched,) = found
        assert {plan.version for plan in plans} == set(fetched)
        for plan in plans:
            self.store.homes.end_read(plan)
            assert fetched[plan.version] == self.pages[plan.page]
        return fetched


@pytest.fixture(params=[False, True], ids=["plain", "encrypted"])
def bench(tmp_path: Path, event_fd: int, request: pytest.FixtureRequest) -> Iterator[Bench]:
    cipher = Cipher(bytes(32), SEGMENT_BYTES) if request.param else None
    found = Bench(tmp_path / "tier", event_fd, cipher)
    yield found
    found.direct.stop()
    found.backing.close()


def test_every_page_comes_back_verified(bench: Bench) -> None:
    for page in range(PAGES):
        bench.read(page, 1)
    bench.read(3, 8)
    if bench.by_thread:
        pytest.skip("this file system does not read without waiting")


def test_what_is_too_long_goes_to_a_thread(bench: Bench) -> None:
    bench.read(0, 100)  # two runs, of compressed and of other pages, each beyond the memory
    assert READ_MAX_BYTES < 100 * 4096
    assert [len(plans) for plans in bench.by_thread] == [100]


def test_an_error_goes_to_a_thread_which_tries_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = AsyncReads.ended

    def failing(self: AsyncReads) -> list[uring.Ended]:
        return [found._replace(result=-errno.EIO) for found in ended(self)]

    monkeypatch.setattr(AsyncReads, "ended", failing)
    bench.read(5, 1)
    assert [len(plans) for plans in bench.by_thread] == [1]
    assert bench.tier.read_errors == 0, "only what a thread cannot read is an error"


def test_a_medium_without_a_descriptor_is_read_by_threads(bench: Bench) -> None:
    found: list[Fetched] = []
    fd, bench.backing._fd = bench.backing._fd, -1
    bench.direct._by_thread = lambda plans, done: found.append({})
    bench.direct.read(bench.store.missing(7, 8), found.append)
    bench.backing._fd = fd
    assert found == [{}]


def test_the_kernel_never_sees_half_a_word_of_the_ring(
    reads: AsyncReads, event_fd: int, tmp_path: Path
) -> None:
    """It may look at any instant, and takes a head that seems far behind for a full ring: then it
    keeps the completion to itself, and a process waits for its page for ever."""
    (tmp_path / "file").write_bytes(bytes(4096))
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    for _ in range(1000):  # beyond what one byte holds
        reads.start(fd, 0, 4096)
        wait_for(event_fd)
        for number, _result in reads.ended():
            reads.done_with(number)
    observer = os.fork()
    if not observer:
        seen = reads.head()
        while True:
            head = reads.head()
            if head < seen:
                os._exit(1)
            seen = head
    try:
        for _ in range(20_000):
            reads.start(fd, 0, 4096)
            wait_for(event_fd)
            for number, _result in reads.ended():
                reads.done_with(number)
    finally:
        os.kill(observer, signal.SIGKILL)
        _, status = os.waitpid(observer, 0)
        os.close(fd)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL, "it saw another value"
