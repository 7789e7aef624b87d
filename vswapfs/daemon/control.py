"""The control server: one request a connection on a socket that only root may use.

Owns the socket. Never touches the store itself: it asks the lane, in pieces small enough that
page I/O hardly waits. Always holds: whatever a client sends or does, the daemon goes on.
"""

import contextlib
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import trio

from vswapfs.errors import HostError, PermissionRefusedError, UsageError, VswapError
from vswapfs.format.message import (
    ENTRIES_A_LINE,
    LINE_MAX_BYTES,
    Answer,
    Failure,
    Request,
    decode_request,
    encode,
)

REQUEST_TIMEOUT_S: Final = 10.0
SEND_TIMEOUT_S: Final = 60.0
CONNECTIONS_MAX: Final = 32
_UCRED: Final = struct.Struct("iII")

_log = logging.getLogger(__name__)

Send = Callable[[Answer], Awaitable[None]]
Handler = Callable[[Request, Send], Awaitable[None]]
_E = TypeVar("_E")


class ControlServer:
    """Serves until cancelled. ``handler`` sends the answers to a request, the ending one last."""

    def __init__(self, path: str, handler: Handler) -> None:
        self._path = path
        self._handler = handler
        self._slots = trio.CapacityLimiter(CONNECTIONS_MAX)
        self.internal_errors = 0

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Raises HostError if the socket cannot be made."""
        with trio.socket.from_stdlib_socket(self._listen()) as listener:
            async with trio.open_nursery() as nursery:
                task_status.started()
                while True:
                    await self._accept(listener, nursery)

    def _listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # The directory is 0700 already; the mask makes the socket 0600 from its first moment.
        mask = os.umask(0o177)
        try:
            Path(self._path).unlink(missing_ok=True)
            listener.bind(self._path)
        except OSError as error:
            listener.close()
            raise HostError(
                f"bind {self._path}", error.strerror or "", remedy="see df and df -i"
            ) from None
        finally:
            os.umask(mask)
        listener.listen(CONNECTIONS_MAX)
        return listener

    async def _accept(self, listener: trio.socket.SocketType, nursery: trio.Nursery) -> None:
        await self._slots.acquire_on_behalf_of(slot := object())
        try:
            connection, _ = await listener.accept()
        except OSError:
            self._slots.release_on_behalf_of(slot)
            _log.exception("the control socket did not accept a connection")
            await trio.sleep(1)
            return
        nursery.start_soon(self._converse, connection, slot)

    async def _converse(self, connection: trio.socket.SocketType, slot: object) -> None:
        try:
            with connection, contextlib.suppress(OSError, trio.TooSlowError):
                await self._answer(trio.SocketStream(connection))
        except Exception:
            self.internal_errors += 1
            _log.exception("internal error in the control server")
        finally:
            self._slots.release_on_behalf_of(slot)

    async def _answer(self, stream: trio.SocketStream) -> None:
        try:
            credentials = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            _pid, uid, _gid = _UCRED.unpack(credentials)
            if uid != 0:
                raise PermissionRefusedError(f"user {uid} is not root", remedy="use sudo")
            with trio.fail_after(REQUEST_TIMEOUT_S):
                request = await _receive(stream)
            await self._handler(request, lambda answer: self._send(stream, answer))
        except VswapError as error:
            failure = Failure(error.message, error.remedy, error.exit_code)
        except (OSError, trio.TooSlowError, trio.BrokenResourceError):
            return  # the client is gone
        except Exception as error:
            self.internal_errors += 1
            _log.exception("internal error while answering a command")
            failure = Failure(f"internal error: {error!r}", "see the daemon's log", 1)
        else:
            return
        with contextlib.suppress(trio.BrokenResourceError):
            await self._send(stream, failure)

    @staticmethod
    async def _send(stream: trio.SocketStream, answer: Answer) -> None:
        with trio.fail_after(SEND_TIMEOUT_S):
            await stream.send_all(encode(answer))


async def send_list(send: Send, line: Callable[[list[_E]], Answer], entries: list[_E]) -> None:
    """A list of any length, in as many lines as it takes."""
    for start in range(0, len(entries), ENTRIES_A_LINE):
        await send(line(entries[start : start + ENTRIES_A_LINE]))


async def _receive(stream: trio.SocketStream) -> Request:
    line = b""
    while not line.endswith(b"\n"):
        if len(line) > LINE_MAX_BYTES:
            raise UsageError(f"a request of more than {LINE_MAX_BYTES} bytes")
        part = await stream.receive_some(65536)
        if not part:
            raise trio.BrokenResourceError
        line += part
    try:
        return decode_request(line)
    except msgspec.MsgspecError as error:
        raise UsageError(
            f"not a request: {error}", remedy="daemon and vswapctl of the same version?"
        ) from None
