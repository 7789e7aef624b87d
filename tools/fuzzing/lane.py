"""Requests no kernel would send: malformed, truncated, oversized, unknown, among valid ones.

A model knows what each page has to hold. Whatever else is sent, valid reads return that, every
request that can be answered gets one answer, and nothing counts as an internal error.
"""

import errno
import random
import socket
import struct
from typing import Final

from fuzzing.machine import GEOMETRY, SWAP_INODE, Machine, machine, pair
from fuzzing.source import Source
from vswapfs.core.check import check
from vswapfs.format.message import encode
from vswapfs.format.trace import EVENTS
from vswapfs.fuse import wire
from vswapfs.fuse.behind import REQUEST_MAX_BYTES
from vswapfs.fuse.trace import Tracer
from vswapfs.units import PAGE_BYTES

SEEDS: Final = [bytes([flags]) + random.Random(flags).randbytes(400) for flags in range(16)]

AREA_BYTES: Final = GEOMETRY.page_count * PAGE_BYTES
_REQUESTS_MAX: Final = 30
_STORED_PAGES_MAX: Final = 400
"""Then writes are of one page, so that no run takes long; the pool has room for half of these."""
_BUFFER: Final = bytearray(2 << 20)
_SWEEP_PAGES: Final = 60
_TIER_WRITE_PAGES: Final = 16
"""As with real sizes, a write is at most as large as a segment: one larger than the pool would be
parked, and served again, for ever."""

_OP_GETATTR: Final = 3
_OP_OPEN: Final = 14
_OPCODES: Final = (
    wire.OP_WRITE, wire.OP_READ, wire.OP_WRITE, wire.OP_FALLOCATE, wire.OP_READ, wire.OP_WRITE,
    _OP_GETATTR, _OP_OPEN, wire.OP_INIT, wire.OP_FORGET, wire.OP_INTERRUPT, wire.OP_BATCH_FORGET,
)  # fmt: skip
_MINE: Final = (wire.OP_READ, wire.OP_WRITE, wire.OP_FALLOCATE)
"""What the lane answers itself, for the swap file."""
_MODES: Final = (
    wire.FALLOC_PUNCH_HOLE | wire.FALLOC_KEEP_SIZE,
    wire.FALLOC_ZERO_RANGE | wire.FALLOC_KEEP_SIZE,
    wire.FALLOC_ZERO_RANGE,
)
_LEAST_BYTES: Final = {
    wire.OP_READ: 60, wire.OP_WRITE: 80, wire.OP_FALLOCATE: 68, wire.OP_INIT: 56
}  # fmt: skip
"""Up to the last field that the lane looks at."""


def run(data: bytes) -> None:
    source = Source(data)
    flags = source.byte()
    kernel, device = pair()
    names, behind = pair()
    with (
        kernel, device, names, behind,
        machine(device, behind, tier=bool(flags & 1), journal=bool(flags & 2)) as made,
    ):  # fmt: skip
        tracer = Tracer(made.lane, EVENTS, 0, AREA_BYTES) if flags & 4 else None
        if flags & 8:
            names.close()
        talk = _Talk(kernel, None if flags & 8 else names, made, source)
        drawing = _Drawing(source, _TIER_WRITE_PAGES if flags & 1 else wire.MAX_REQUEST_PAGES)
        for number in range(2, 2 * _REQUESTS_MAX, 2):
            if source.is_empty:
                break
            talk.send(drawing.request(number))
        talk.sweep()
        if tracer:
            encode(tracer.take())
            tracer.stop()
        lane = made.lane
        assert lane.counters["internal_errors"] == 0, "an internal error"
        assert not lane.lost.reasons, lane.lost.reasons
        made.store.finish_count()
        assert (found := check(made.store)) == [], found


# -- requests --------------------------------------------------------------------------------


class _Drawing:
    """Makes requests of what a source says."""

    def __init__(self, source: Source, write_pages_max: int) -> None:
        self._source = source
        self._write_pages_max = write_pages_max
        self._pages_left = _STORED_PAGES_MAX

    def request(self, unique: int) -> bytes:
        source = self._source
        flaw = source.byte() % 12
        if flaw == 1:
            return source.take(source.number(1, 300)) or b"\0"
        opcode = source.choice(_OPCODES)
        if flaw == 2:
            opcode = source.edge((1 << 32) - 1)
        nodeid = SWAP_INODE
        if flaw == 3 or (opcode not in _MINE and source.byte() & 1):
            nodeid = source.edge((1 << 64) - 1)
        body = self._body(opcode)
        length = wire.IN_HEADER_BYTES + len(body)
        if flaw == 4:
            length = source.edge((1 << 32) - 1)
        packet = struct.pack("<IIQQIIII", length, opcode, unique, nodeid, 0, 0, 1, 0) + body
        if flaw == 5:
            packet = packet[: max(1, min(source.edge(1 << 17), len(packet)))]
        elif flaw == 6:
            packet += bytes(source.edge(1 << 17))
        elif flaw == 7:  # cut, and it says so itself
            packet = packet[: max(4, min(source.edge(1 << 17), len(packet)))]
            packet = struct.pack("<I", len(packet)) + packet[4:]
        return packet[: wire.REQUEST_BUFFER_BYTES]

    def _body(self, opcode: int) -> bytes:
        source = self._source
        offset, size = self._range()
        if opcode == wire.OP_FALLOCATE:
            length = source.edge((1 << 64) - 1) if source.one_in(8) else size
            mode = source.edge((1 << 32) - 1) if source.one_in(8) else source.choice(_MODES)
            return struct.pack("<QQQII", 1, offset, length, mode, 0)
        if opcode == wire.OP_WRITE and size <= wire.MAX_REQUEST_BYTES:
            most = min(self._write_pages_max, max(1, self._pages_left))
            size = min(size, most * PAGE_BYTES)
            self._pages_left -= -(-size // PAGE_BYTES)
        head = struct.pack("<QQIIQII", 1, offset, size, 0, 0, 0, 0)
        if opcode != wire.OP_WRITE:
            return head
        return head + _contents(source.byte(), min(size, wire.MAX_REQUEST_BYTES))

    def _range(self) -> tuple[int, int]:
        source = self._source
        offset = source.number(0, GEOMETRY.page_count + 1) * PAGE_BYTES
        shape = source.byte() % 16
        if shape == 1:
            return source.edge((1 << 64) - 1), source.edge((1 << 32) - 1)
        if shape == 2:
            return offset, source.edge((1 << 32) - 1)
        if shape == 3:
            return offset + source.number(0, PAGE_BYTES - 1), source.number(0, 3 * PAGE_BYTES)
        if shape == 4:
            return offset, source.number(1, wire.MAX_REQUEST_PAGES) * PAGE_BYTES
        return offset, (1 + shape // 2) * PAGE_BYTES


def _contents(kind: int, size: int) -> bytes:
    """Of each kind of page that the store knows."""
    count = -(-size // PAGE_BYTES)
    if kind % 4 == 0:
        pages = random.Random(kind).randbytes(count * PAGE_BYTES)
    elif kind % 4 == 1:
        pages = bytes([kind]) * (count * PAGE_BYTES)
    elif kind % 4 == 2:
        pages = b"".join(b"%d/%d".ljust(PAGE_BYTES, b".") % (kind, page) for page in range(count))
        pages = pages.ljust(count * PAGE_BYTES, b".")
    else:
        pages = bytes(count * PAGE_BYTES)
    return pages[:size]


# -- what has to come of them ----------------------------------------------------------------


class _Talk:
    """Sends requests, and compares what comes back with what has to."""

    def __init__(
        self, kernel: socket.socket, names: socket.socket | None, made: Machine, source: Source
    ) -> None:
        """``names``: None if pyfuse3 has ended."""
        self._kernel, self._names, self._made, self._source = kernel, names, made, source
        self._truth = bytearray(AREA_BYTES)

    def sweep(self) -> None:
        """Read every page, with valid requests."""
        size = _SWEEP_PAGES * PAGE_BYTES
        for unique, offset in enumerate(range(0, AREA_BYTES, size), 1000):
            self.send(_read_request(unique, offset, size))

    def send(self, packet: bytes) -> None:
        self._kernel.send(packet)
        self._made.lane.turn()
        if not self._expected(packet):
            assert not _received(self._kernel), "an answer to what can have none"
            assert not _received(self._names), "something went to pyfuse3"

    def _expected(self, packet: bytes) -> bool:
        """Look at the answer; False if there must be none, nor anything for pyfuse3."""
        if len(packet) < wire.IN_HEADER_BYTES:
            return False
        length, opcode, unique, nodeid = struct.unpack_from("<IIQQ", packet)
        malformed = length != len(packet) or length < _LEAST_BYTES.get(opcode, 0)
        offset, size = struct.unpack_from("<QI", packet.ljust(60, b"\0"), 48)
        mine = nodeid == SWAP_INODE and opcode in _MINE
        if opcode == wire.OP_WRITE and length < wire.WRITE_DATA_OFFSET + size:
            malformed = True
        if malformed:
            if opcode in wire.OPS_WITHOUT_REPLY:
                return False
            self._is_error(unique, errno.EINVAL)
        elif not mine:
            return self._forwarded(packet, opcode, unique)
        elif opcode == wire.OP_READ:
            self._read(unique, offset, size)
        elif opcode == wire.OP_WRITE:
            self._written(unique, offset, packet[wire.WRITE_DATA_OFFSET :][:size])
        else:
            self._emptied(unique, packet)
        return True

    def _answer(self, unique: int) -> tuple[int, bytes]:
        """Error and payload of the one answer."""
        found = _received(self._kernel)
        assert len(found) == 1, f"{len(found)} answers"
        assert not _received(self._names), "something went to pyfuse3"
        length, error, answered = wire.OUT_HEADER.unpack_from(found[0])
        assert (length, answered) == (len(found[0]), unique), "an answer with a wrong header"
        return -error, found[0][wire.OUT_HEADER_BYTES :]

    def _is_error(self, unique: int, *numbers: int) -> None:
        error, payload = self._answer(unique)
        assert error in numbers, f"error {error} for a malformed request"
        assert not payload

    def _read(self, unique: int, offset: int, size: int) -> None:
        end = min(offset + size, AREA_BYTES)
        if size > wire.MAX_REQUEST_BYTES:
            self._is_error(unique, errno.EINVAL)
            return
        error, payload = self._answer(unique)
        assert error == 0, f"a valid read is answered with error {error}"
        assert payload == self._truth[offset:end], "wrong bytes"

    def _written(self, unique: int, offset: int, data: bytes) -> None:
        error, payload = self._answer(unique)
        end = offset + len(data)
        if end > AREA_BYTES:
            assert error == errno.EFBIG
            return
        if error == 0:
            assert struct.unpack("<II", payload) == (len(data), 0)
            self._truth[offset:end] = data
            return
        assert error == errno.ENOSPC, f"a write is answered with error {error}"
        wanted = bytearray(self._truth)
        wanted[offset:end] = data
        self._either(offset, end, wanted)

    def _emptied(self, unique: int, packet: bytes) -> None:
        offset, length, mode = struct.unpack_from("<QQI", packet, 48)
        error, payload = self._answer(unique)
        assert not payload
        if mode not in _MODES:
            assert error == errno.EOPNOTSUPP
        elif offset + length > AREA_BYTES and not mode & wire.FALLOC_KEEP_SIZE:
            assert error == errno.EFBIG
        else:
            end = min(offset + length, AREA_BYTES)
            if error == errno.ENOSPC:
                wanted = bytearray(self._truth)
                wanted[offset:end] = bytes(max(0, end - offset))
                self._either(offset, end, wanted)
                return
            assert error == 0
            if offset < end:
                self._truth[offset:end] = bytes(end - offset)

    def _either(self, offset: int, end: int, wanted: bytearray) -> None:
        """The pool was full on the way: each page is what it was or what it was to be."""
        for start in range(offset // PAGE_BYTES * PAGE_BYTES, end, PAGE_BYTES):
            self._kernel.send(_read_request(1, start, PAGE_BYTES))
            self._made.lane.turn()
            error, payload = self._answer(1)
            assert error == 0
            stop = start + PAGE_BYTES
            assert payload in (self._truth[start:stop], wanted[start:stop]), "wrong bytes"
            self._truth[start:stop] = payload

    def _forwarded(self, packet: bytes, opcode: int, unique: int) -> bool:
        """Be pyfuse3: its answer is passed back."""
        if opcode == wire.OP_INTERRUPT:
            return False
        if len(packet) > REQUEST_MAX_BYTES:
            if opcode in wire.OPS_WITHOUT_REPLY:
                return False
            self._is_error(unique, errno.EINVAL)
            return True
        if self._names is None:
            if opcode in wire.OPS_WITHOUT_REPLY:
                return False
            self._is_error(unique, errno.EIO)
            return True
        assert _received(self._names) == [packet], "pyfuse3 got something else"
        if opcode not in wire.OPS_WITHOUT_REPLY:
            payload = bytes(self._source.edge(4096))
            error = 0 if self._source.byte() & 1 else -self._source.number(1, 200)
            length = wire.OUT_HEADER_BYTES + len(payload)
            reply = wire.OUT_HEADER.pack(length, error, unique) + payload
            self._names.send(reply)
            self._made.lane.turn()
            found = _received(self._kernel)
            assert len(found) == 1, f"{len(found)} answers"
            assert len(found[0]) == len(reply)
            assert opcode == wire.OP_INIT or found[0] == reply, "pyfuse3's answer was changed"
        assert not _received(self._kernel)
        return True


def _read_request(unique: int, offset: int, size: int) -> bytes:
    body = struct.pack("<QQIIQII", 1, offset, size, 0, 0, 0, 0)
    length = wire.IN_HEADER_BYTES + len(body)
    return struct.pack("<IIQQIIII", length, wire.OP_READ, unique, SWAP_INODE, 0, 0, 1, 0) + body


def _received(end: socket.socket | None) -> list[bytes]:
    found: list[bytes] = []
    while end is not None:
        try:
            count = end.recv_into(_BUFFER)
        except BlockingIOError:
            break
        found.append(bytes(memoryview(_BUFFER)[:count]))
    return found
