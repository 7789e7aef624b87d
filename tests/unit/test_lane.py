"""The lane without a kernel: its device is a socket pair, which keeps messages apart."""

import contextlib
import errno
import os
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import cast

import pytest
from regions import make_buffers, make_page

from vswapfs.core.buffers import Geometry
from vswapfs.core.homes import TierIo
from vswapfs.core.store import SameFilled, Store
from vswapfs.errors import PoolFullError
from vswapfs.fuse import wire
from vswapfs.fuse.journal import JOURNAL_BYTES, SLOT_BYTES, Journal
from vswapfs.fuse.lane import Lane
from vswapfs.fuse.window import PollWindow
from vswapfs.host.region import MemoryRegion
from vswapfs.units import PAGE_BYTES

PAGES = 1024
SWAP_INODE = 2
OP_OPEN = 14


def request_bytes(opcode: int, unique: int, nodeid: int, body: bytes) -> bytes:
    length = wire.IN_HEADER_BYTES + len(body)
    return struct.pack("<IIQQIIII", length, opcode, unique, nodeid, 0, 0, 1, 0) + body


def make_lane(
    device_fd: int, pair_fd: int, journal: Journal | None, ended: Callable[[], None]
) -> Lane:
    geometry = Geometry(PAGES, 16, 1 << 16)
    store = Store(geometry, make_buffers(geometry), SameFilled.SAME, 1)
    return Lane(
        store, device_fd, pair_fd, SWAP_INODE,
        ended=ended, window=PollWindow(lambda _on: None, 200),
        buffer=journal.buffer if journal else wire.request_buffer(), journal=journal,
    )  # fmt: skip


@contextlib.contextmanager
def ends() -> Iterator[tuple[socket.socket, ...]]:
    """Of the device the kernel's and the lane's, of the pair pyfuse3's and the lane's."""
    kernel, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    names, pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with kernel, device, names, pair:
        yield kernel, device, names, pair


@contextlib.contextmanager
def served(journal: Journal | None, first: list[bytes]) -> Iterator[tuple[socket.socket, ...]]:
    """The kernel's end of the device and pyfuse3's end of the pair, of a lane that runs."""
    ended = threading.Event()
    with ends() as (kernel, device, names, pair):
        device.setblocking(False)
        pair.setblocking(False)
        lane = make_lane(os.dup(device.fileno()), pair.fileno(), journal, ended.set)
        kernel.settimeout(10)
        names.settimeout(10)
        lane.start(first)
        yield kernel, names
        assert not lane.has_failed
        assert lane.counters["internal_errors"] == 0
    assert ended.wait(10)


def test_what_is_due_when_the_lane_has_ended_goes_nowhere() -> None:
    """Its descriptor's number may be another file's by then."""
    reader_fd, other_fd = os.pipe()
    with ends() as (_kernel, device, _names, pair):
        fd, ended = os.dup(device.fileno()), threading.Event()
        lane = make_lane(fd, pair.fileno(), None, ended.set)
        lane._parked.append((read_or_write(wire.OP_READ, 5, 0, PAGE_BYTES), 0))
        device.shutdown(socket.SHUT_RD)
        lane.start()
        assert ended.wait(10)
        os.dup2(other_fd, fd)
        os.set_blocking(reader_fd, False)
        lane.serve_parked()
        with pytest.raises(BlockingIOError):
            os.read(reader_fd, 1)
        for each in (fd, other_fd, reader_fd):
            os.close(each)


def test_who_waits_for_room_is_served_in_turn_up_to_the_first_that_waits_on() -> None:
    """The others' pages would be compressed again each time, for nothing."""
    rng = random.Random(1)
    with ends() as (kernel, device, _names, pair):
        lane = make_lane(device.fileno(), pair.fileno(), None, lambda: None)
        tiers = SimpleNamespace(room_is_coming=lambda: True)
        lane.tiers = cast(TierIo, tiers)

        def fill() -> None:
            with contextlib.suppress(PoolFullError):
                for page in range(PAGES):
                    lane.store.store(page, make_page(rng, "random"))

        def come(*uniques: int) -> None:
            for unique in uniques:
                data = make_page(rng, "random")
                request = read_or_write(wire.OP_WRITE, unique, PAGES - 1, PAGE_BYTES, data)
                lane._serve_again(request)

        def answers() -> list[tuple[int, int]]:
            """Of whom, and with which error, since the last time."""
            found = []
            with contextlib.suppress(BlockingIOError):
                while True:
                    reply = kernel.recv(SLOT_BYTES, socket.MSG_DONTWAIT)
                    _length, error, unique = wire.OUT_HEADER.unpack_from(reply)
                    found.append((unique, error))
            return found

        fill()
        come(5, 6, 7)
        assert lane.counters["requests.parked"] == 3
        lane.serve_parked()
        assert lane.counters["requests.parked"] == 4, "one was tried"
        assert answers() == []
        lane.store.discard(0, PAGES)
        lane.serve_parked()
        assert answers() == [(5, 0), (6, 0), (7, 0)]
        fill()
        come(8, 9)
        tiers.room_is_coming = lambda: False
        lane.serve_parked()
        assert answers() == [(8, -errno.ENOSPC), (9, -errno.ENOSPC)]


def memory(size_bytes: int) -> MemoryRegion:
    fd = os.memfd_create("test")
    os.truncate(fd, size_bytes)
    return MemoryRegion(fd, size_bytes)


def test_a_short_request_of_the_journal_is_served_again() -> None:
    """An OPEN is shorter than the struct that the lane unpacks: the successor died of it, and so
    did each successor of the successor."""
    region = memory(JOURNAL_BYTES)
    opening = request_bytes(OP_OPEN, 77, SWAP_INODE, struct.pack("<II", os.O_RDWR, 0))
    before = Journal(region)
    before.buffer[: len(opening)] = opening
    before.keep(before.buffer[: len(opening)], 77)

    successor = Journal(region)
    left = successor.left()
    assert left == [opening]
    with served(successor, left) as (kernel, names):
        assert names.recv(SLOT_BYTES) == opening
        names.send(wire.OUT_HEADER.pack(wire.OUT_HEADER_BYTES, 0, 77))
        assert kernel.recv(SLOT_BYTES) == wire.OUT_HEADER.pack(wire.OUT_HEADER_BYTES, 0, 77)


def test_what_is_left_is_served_before_what_is_new() -> None:
    region = memory(JOURNAL_BYTES)
    page = b"left".ljust(PAGE_BYTES, b"\0")
    body = struct.pack("<QQIIQII", 1, 3 * PAGE_BYTES, PAGE_BYTES, 0, 0, 0, 0)
    before = Journal(region)
    write = request_bytes(wire.OP_WRITE, 5, SWAP_INODE, body + page)
    before.buffer[: len(write)] = write

    successor = Journal(region)
    with served(successor, successor.left()) as (kernel, _names):
        body = struct.pack("<QQIIQII", 1, 3 * PAGE_BYTES, PAGE_BYTES, 0, 0, 0, 0)
        kernel.send(request_bytes(wire.OP_READ, 6, SWAP_INODE, body))
        assert kernel.recv(SLOT_BYTES) == wire.WRITE_REPLY.pack(
            wire.WRITE_REPLY.size, 0, 5, PAGE_BYTES, 0
        )
        assert kernel.recv(SLOT_BYTES)[wire.OUT_HEADER_BYTES :] == page


def read_or_write(opcode: int, unique: int, page: int, size: int, data: bytes = b"") -> bytes:
    body = struct.pack("<QQIIQII", 1, page * PAGE_BYTES, size, 0, 0, 0, 0)
    return request_bytes(opcode, unique, SWAP_INODE, body + data)


def cut(request: bytes, length: int) -> bytes:
    """A request of that length, which it says itself."""
    return struct.pack("<I", length) + request[4:length]


PAGE_OF_X = b"x" * PAGE_BYTES


@pytest.mark.parametrize(
    "wrong",
    [
        # The rest would be what an earlier request left in the buffer.
        read_or_write(wire.OP_WRITE, 6, 1, PAGE_BYTES, PAGE_OF_X)[:1000],
        cut(read_or_write(wire.OP_WRITE, 6, 1, PAGE_BYTES, PAGE_OF_X), 1000),
        read_or_write(wire.OP_WRITE, 6, 1, 2 * PAGE_BYTES, PAGE_OF_X),
        read_or_write(wire.OP_WRITE, 6, 1, PAGE_BYTES, PAGE_OF_X) + b"more",
        cut(read_or_write(wire.OP_READ, 6, 1, PAGE_BYTES), 48),
        cut(read_or_write(wire.OP_FALLOCATE, 6, 1, PAGE_BYTES), 64),
        read_or_write(wire.OP_READ, 6, 0, PAGES * PAGE_BYTES),
        read_or_write(OP_OPEN, 6, 0, 0)[:60],
        cut(read_or_write(wire.OP_INIT, 6, 0, 0), 50),
    ],
    ids=[
        "a write that was cut", "a cut write that says so", "a write of more than it has",
        "a write with more", "a cut read", "a cut fallocate", "a read that is too large",
        "a request for pyfuse3 that was cut", "a cut INIT",
    ],
)  # fmt: skip
def test_a_malformed_request_is_refused_and_changes_nothing(wrong: bytes) -> None:
    with served(None, []) as (kernel, names):
        kernel.send(read_or_write(wire.OP_WRITE, 5, 0, PAGE_BYTES, b"left".ljust(PAGE_BYTES)))
        assert kernel.recv(SLOT_BYTES)
        kernel.send(wrong)
        refused = wire.OUT_HEADER.pack(wire.OUT_HEADER_BYTES, -errno.EINVAL, 6)
        assert kernel.recv(SLOT_BYTES) == refused
        kernel.send(read_or_write(wire.OP_READ, 7, 1, 2 * PAGE_BYTES))
        assert kernel.recv(SLOT_BYTES)[wire.OUT_HEADER_BYTES :] == bytes(2 * PAGE_BYTES)
        names.setblocking(False)
        with pytest.raises(BlockingIOError):
            names.recv(SLOT_BYTES)


@pytest.mark.parametrize("length", [1, 8, 39])
def test_what_is_no_request_has_no_answer(length: int) -> None:
    with served(None, []) as (kernel, _names):
        kernel.send(read_or_write(wire.OP_READ, 5, 0, PAGE_BYTES)[:length])
        kernel.send(read_or_write(wire.OP_READ, 6, 0, PAGE_BYTES))
        assert wire.OUT_HEADER.unpack_from(kernel.recv(SLOT_BYTES))[2] == 6


def test_init_that_is_answered_with_an_error_does_not_end_the_lane() -> None:
    refused = wire.OUT_HEADER.pack(wire.OUT_HEADER_BYTES, -errno.EPROTO, 5)
    with served(None, []) as (kernel, names):
        kernel.send(read_or_write(wire.OP_INIT, 5, 0, 0))
        assert names.recv(SLOT_BYTES)
        names.send(refused)
        assert kernel.recv(SLOT_BYTES) == refused
        kernel.send(read_or_write(wire.OP_READ, 6, 0, PAGE_BYTES))
        assert wire.OUT_HEADER.unpack_from(kernel.recv(SLOT_BYTES))[2] == 6
