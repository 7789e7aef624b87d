"""A FUSE file that keeps nothing: what the way from a loop device to Python and back costs.

Owns one mount and its loop, in one thread. The same negotiation, direct I/O and polling as
vswapfs/fuse/lane.py, but READ is answered from one buffer and WRITE thrown away; so this is the
least that any server written like ours can take.

    python null.py MOUNTPOINT SIZE_BYTES
"""

import errno
import os
import select
import stat
import struct
import sys
from time import perf_counter_ns
from typing import Final

from vswapfs.format.settings import POLLING_WINDOW_US
from vswapfs.fuse import mount, wire
from vswapfs.fuse.lane import IDLE_MS
from vswapfs.fuse.window import PollWindow
from vswapfs.host.idling import IdleProcessors
from vswapfs.units import PAGE_BYTES

FILE_INODE: Final = 2
FOREVER_S: Final = 3600

# include/uapi/linux/fuse.h; only here, because in vswapfs pyfuse3 answers these.
OP_LOOKUP, OP_GETATTR, OP_OPEN, OP_STATFS, OP_RELEASE = 1, 3, 14, 17, 18
OP_FSYNC, OP_FLUSH, OP_DESTROY = 20, 25, 38
FOPEN_DIRECT_IO: Final = 1
ATTRIBUTES: Final = struct.Struct("<6Q10I")
ENTRY: Final = struct.Struct("<4Q2I")  # in front of attributes
ATTRIBUTES_HEAD: Final = struct.Struct("<Q2I")
OPENED: Final = struct.Struct("<Q2I")
STATFS: Final = struct.Struct("<5Q4I24x")
INIT_REPLY_TAIL: Final = bytes(32)


def attributes(inode: int, size_bytes: int) -> bytes:
    is_file = inode == FILE_INODE
    mode = stat.S_IFREG | 0o600 if is_file else stat.S_IFDIR | 0o700
    length_bytes = size_bytes if is_file else 0
    return ATTRIBUTES.pack(
        inode, length_bytes, length_bytes // 512, *(0,) * 6, mode, 1, 0, 0, 0, PAGE_BYTES, 0
    )


def answer(opcode: int, request: memoryview, inode: int, size_bytes: int) -> bytes | int:
    """The body of the reply to what is no page I/O, or an errno."""
    body = request[wire.IN_HEADER_BYTES :]
    if opcode == OP_LOOKUP:
        if bytes(body[:5]) != b"swap\0":
            return errno.ENOENT
        entry = ENTRY.pack(FILE_INODE, 0, FOREVER_S, FOREVER_S, 0, 0)
        return entry + attributes(FILE_INODE, size_bytes)
    if opcode == OP_GETATTR:
        return ATTRIBUTES_HEAD.pack(FOREVER_S, 0, 0) + attributes(inode, size_bytes)
    if opcode == OP_OPEN:
        return OPENED.pack(1, FOPEN_DIRECT_IO, 0)
    if opcode == OP_STATFS:  # the loop driver asks: without an answer it offers no discard
        return STATFS.pack(size_bytes // PAGE_BYTES, 0, 0, 2, 0, PAGE_BYTES, 255, PAGE_BYTES, 0)
    if opcode in (OP_RELEASE, OP_FSYNC, OP_FLUSH, OP_DESTROY, wire.OP_FALLOCATE):
        return b""
    return errno.ENOSYS


def init_reply(unique: int, request: memoryview) -> bytes:
    major, _, max_readahead, offered = wire.INIT_IN.unpack_from(request, wire.IN_HEADER_BYTES)
    plain = wire.INIT_REPLY.pack(
        wire.INIT_REPLY.size + len(INIT_REPLY_TAIL), 0, unique,
        major, 31, max_readahead, 0, 0, 0, 0, 1, 0, 0,
    )  # fmt: skip
    return wire.improve_init_reply(plain, offered) + INIT_REPLY_TAIL


def serve(device_fd: int, size_bytes: int) -> None:
    """Until it is unmounted or aborted."""
    buffer = bytearray(b"\xff" * wire.REQUEST_BUFFER_BYTES)
    request = memoryview(buffer)
    page_data = memoryview(bytes(wire.MAX_REQUEST_BYTES))
    poll = select.poll()
    poll.register(device_fd, select.POLLIN)
    window = PollWindow(IdleProcessors().keep_awake, POLLING_WINDOW_US.default)
    while True:
        try:
            length_bytes = os.readv(device_fd, [buffer])
        except BlockingIOError:
            began_ns = perf_counter_ns()
            while not poll.poll(0):
                if perf_counter_ns() - began_ns >= window.ns:
                    if not poll.poll(IDLE_MS if window.keeps_awake else None):
                        window.rest()
                    break
            window.learn(perf_counter_ns() - began_ns)
            continue
        except OSError as error:
            if error.errno == errno.ENODEV:
                return
            if error.errno not in (errno.ENOENT, errno.EINTR):
                raise
            continue
        _, opcode, unique, inode, _, _, _, _, _, _, size = wire.REQUEST.unpack_from(request)
        if opcode == wire.OP_READ:
            head = wire.OUT_HEADER.pack(wire.OUT_HEADER_BYTES + size, 0, unique)
            os.writev(device_fd, [head, page_data[:size]])
        elif opcode == wire.OP_WRITE:
            reply = wire.WRITE_REPLY.pack(wire.WRITE_REPLY.size, 0, unique, size, 0)
            os.writev(device_fd, [reply])
        elif opcode == wire.OP_INIT:
            os.writev(device_fd, [init_reply(unique, request)])
        elif opcode not in wire.OPS_WITHOUT_REPLY:
            body = answer(opcode, request[:length_bytes], inode, size_bytes)
            number, body = (body, b"") if isinstance(body, int) else (0, body)
            head = wire.OUT_HEADER.pack(wire.OUT_HEADER_BYTES + len(body), -number, unique)
            os.writev(device_fd, [head + body])


def main() -> None:
    mountpoint, size_bytes = sys.argv[1], int(sys.argv[2])
    serve(mount.mount(mountpoint, f"null-{os.getpid()}"), size_bytes)


if __name__ == "__main__":
    main()
