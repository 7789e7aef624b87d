"""What lies behind the lane: pyfuse3, at the other end of a SOCK_SEQPACKET pair.

Owns the lane's end of the pair. Passes requests on unread and replies back unchanged, except the
reply to INIT. Called on the lane only; never blocks: what pyfuse3 has no room for gets an error.
"""

import errno
import logging
import os
from collections.abc import Callable
from typing import Final

from vswapfs.fuse import wire

REQUEST_MAX_BYTES: Final = 1 << 17

_log = logging.getLogger(__name__)


class Behind:
    """``awaiting_replies`` is how many requests pyfuse3 still has to answer."""

    def __init__(self, pair_fd: int, reply: Callable[[bytes], None]) -> None:
        self.pair_fd = pair_fd
        self.awaiting_replies = 0
        self.has_ended = False
        self._reply = reply
        self._buffer = bytearray(b"\xff") * (1 << 18)
        self._init_unique = 0
        self._init_flags = 0

    def forward(self, request: memoryview, opcode: int, unique: int) -> int:
        """Pass a request on; returns 0, or the errno to answer it with."""
        if opcode == wire.OP_INIT:
            self._init_unique = unique
            self._init_flags = wire.INIT_IN.unpack_from(request, wire.IN_HEADER_BYTES)[3]
        if len(request) > REQUEST_MAX_BYTES:
            return errno.EINVAL
        try:
            os.write(self.pair_fd, request)
        except BlockingIOError:
            return errno.EAGAIN
        except OSError as error:
            _log.warning("pyfuse3 does not take request %d: %s", opcode, error)
            return errno.EIO
        if opcode not in wire.OPS_WITHOUT_REPLY:
            self.awaiting_replies += 1
        return 0

    def return_replies(self) -> None:
        """Pass on what has come."""
        while True:
            try:
                count = os.readv(self.pair_fd, [self._buffer])
            except BlockingIOError:
                return
            if count == 0:
                self.has_ended = True
                self.awaiting_replies = 0
                _log.error("pyfuse3 has ended; swap goes on without its other files")
                return
            reply = bytes(self._buffer[:count])
            self.awaiting_replies = max(0, self.awaiting_replies - 1)
            if self._init_unique and wire.OUT_HEADER.unpack_from(reply)[2] == self._init_unique:
                self._init_unique = 0
                reply = wire.improve_init_reply(reply, self._init_flags)
            self._reply(reply)
