"""A worker among its supervisor and successors: getting ready, taking over, being replaced.

Owns what a worker says to its supervisor (a word of the session and the bell) and hears from it (an
eventfd, and that it has ended). Never touches the store.
"""

import logging
import os
import select
import time
from typing import Any, Final

import trio

from vswapfs.daemon.control import Send
from vswapfs.daemon.handover import Handed
from vswapfs.errors import HostError, InstanceError
from vswapfs.format.message import Handover, Step
from vswapfs.format.session import Field, Refusal, Session
from vswapfs.fuse import wire

RESTART_TIMEOUT_S: Final = 60.0
_POLL_S: Final = 0.02
_INIT_WAIT_MS: Final = 5000

_log = logging.getLogger(__name__)


def read_init(device_fd: int) -> bytes:
    """The request that the kernel sends first, after the mount, and never again."""
    poll = select.poll()
    poll.register(device_fd, select.POLLIN)
    if not poll.poll(_INIT_WAIT_MS):
        raise HostError("read the INIT request", "the kernel does not send it")
    buffer = bytearray(b"\xff" * wire.REQUEST_BUFFER_BYTES)
    try:
        length_bytes = os.readv(device_fd, [buffer])
    except OSError as error:
        raise HostError("read the INIT request", error.strerror or "") from None
    return bytes(buffer[:length_bytes])


async def introduce(lane_end_fd: int, init_request: bytes) -> None:
    """Show pyfuse3 the INIT request that a predecessor has answered, and drop its reply."""
    os.write(lane_end_fd, init_request)
    await trio.lowlevel.wait_readable(lane_end_fd)
    os.read(lane_end_fd, wire.REQUEST_BUFFER_BYTES)


def ask_to_resend(device_fd: int) -> None:
    """Have the kernel send again what the worker before read and did not answer."""
    try:
        os.write(device_fd, wire.NOTIFY_RESEND)
    except OSError as error:
        _log.warning("the kernel was not asked to resend requests: %s", error)


def _refusal(why: int) -> HostError:
    if why == Refusal.NO_PROCESS:
        return HostError(
            "restart", "no process can be started now; the worker serves on", remedy="try again"
        )
    if why == Refusal.TAKING_DOWN:
        return HostError("restart", "it is being taken down")
    return HostError(
        "restart",
        f"the fresh worker ended with {why - Refusal.ENDED} before it took over; "
        "the worker before it serves on",
        remedy="see the log: another version of the state needs off, then on",
    )


class Succession:
    """``takedown_lock``: locked while the instance is being taken down."""

    def __init__(self, handed: Handed, session: Session, takedown_lock: trio.Lock) -> None:
        self._handed = handed
        self._session = session
        self._takedown_lock = takedown_lock
        self._supervisor_fd = handed.supervisor
        self.supervisor_has_ended = False
        self._watched = trio.Event()

    def ring(self) -> None:
        """Something changed in the session that the supervisor should see."""
        os.eventfd_write(self._handed.bell, 1)

    async def turn_has_come(self) -> bool:
        """For a standby. False: the supervisor has ended, and nobody will say."""
        if not select.select([self._handed.go], [], [], 0)[0]:  # else it is cold: no standby
            self._session[Field.STANDBY_READY] = os.getpid()
            self.ring()
        has_come = False
        async with trio.open_nursery() as nursery:

            async def hear() -> None:
                nonlocal has_come
                await trio.lowlevel.wait_readable(self._handed.go)
                has_come = True
                nursery.cancel_scope.cancel()

            nursery.start_soon(hear)
            await trio.lowlevel.wait_readable(self._supervisor_fd)
            nursery.cancel_scope.cancel()
        return has_come

    async def watch_supervisor(self) -> None:
        """For ever: one that was adopted is watched in its turn."""
        while True:
            await trio.lowlevel.wait_readable(self._supervisor_fd)
            self.supervisor_has_ended = True
            self._session[Field.SUPERVISOR_PID] = self._session[Field.STANDBY_PID] = 0
            _log.warning("the supervisor has ended: if this worker ends too, its pages are lost")
            await self._watched.wait()
            self._watched = trio.Event()

    def hand_over(self, pid: int) -> Handover:
        """Process ``pid`` is to be the supervisor."""
        if not self.supervisor_has_ended:
            pid = self._session[Field.SUPERVISOR_PID]
            which = f"process {pid}" if pid else "one that was started just now"
            raise InstanceError(f"it has a supervisor: {which}", remedy="nothing is to be done")
        try:
            supervisor_fd = os.pidfd_open(pid)
        except OverflowError:
            raise HostError(f"watch process {pid}", "no process has that number") from None
        except OSError as error:
            raise HostError(f"watch process {pid}", error.strerror or "") from None
        os.close(self._supervisor_fd)
        self._supervisor_fd = supervisor_fd
        self.supervisor_has_ended = False
        self._watched.set()
        _log.info("adopted by process %d", pid)
        return Handover(os.getpid(), list(self._handed))

    async def restart(self, send: Send) -> None:
        """Be replaced. Returns only by an error: this process is ended."""
        session = self._session
        if not session[Field.SURVIVES]:
            raise HostError("restart", "this kernel has no tmpfs without swap (Linux 6.4)")
        if self.supervisor_has_ended:
            raise HostError("restart", "its supervisor has ended", remedy="vswapctl adopt")
        if self._takedown_lock.locked():
            raise HostError("restart", "it is being taken down")
        await send(Step("start a fresh worker"))
        session[Field.RESTART] = 1
        self.ring()
        with trio.move_on_after(RESTART_TIMEOUT_S):
            while session[Field.RESTART]:  # noqa: ASYNC110 - set by another process
                await trio.sleep(_POLL_S)
        if session[Field.RESTART]:
            session[Field.RESTART] = 0
            raise HostError("restart", f"no worker was ready within {RESTART_TIMEOUT_S:.0f} s")
        raise _refusal(session[Field.REFUSED])

    @property
    def uptime_s(self) -> float:
        """Since the instance was started, whoever serves it now."""
        return round((time.monotonic_ns() - self._session[Field.STARTED_NS]) / 1e9, 1)

    def figures(self) -> dict[str, int | float]:
        """Its share of the field table."""
        found: dict[str, int | float] = {
            "uptime_s": self.uptime_s,
            "succession.takeovers": self._session[Field.TAKEOVERS],
        }
        if (pause_ms := self.status()["last_pause_ms"]) is not None:
            found["succession.last_pause_ms"] = pause_ms
        return found

    def status(self) -> dict[str, Any]:
        """The fields of message.Status that are about this."""
        session = self._session
        way = "journal" if session[Field.JOURNAL] else "resend"
        pause_ns = session[Field.SERVING_NS] - session[Field.ENDED_NS]
        return {
            "survival": way if session[Field.SURVIVES] else "none",
            "supervisor_pid": session[Field.SUPERVISOR_PID] or None,
            "worker_pid": os.getpid(),
            "standby_pid": session[Field.STANDBY_PID] or None,
            "takeovers": session[Field.TAKEOVERS],
            "last_pause_ms": round(pause_ns / 1e6, 1) if session[Field.TAKEOVERS] else None,
        }
