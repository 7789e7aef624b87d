"""Adopting a worker whose supervisor was killed: taking its descriptors over, and becoming one.

Owns the conversation with that worker. Never asks it to stop: it serves on all the time.
"""

import ctypes
import os
import socket
import sys
from typing import Final, NoReturn

import msgspec

from vswapfs.daemon import lock
from vswapfs.daemon.handover import Handed, command_line
from vswapfs.daemon.report import Reporter
from vswapfs.errors import HostError, InstanceError
from vswapfs.format import instance
from vswapfs.format.message import AskAdopt, Done, Failure, Handover, decode_answer, encode
from vswapfs.host import limits

_PIDFD_GETFD: Final = 438
_TIMEOUT_S: Final = 10.0
_libc = ctypes.CDLL(None, use_errno=True)


def adopt(name: str, reporter: Reporter) -> NoReturn:
    """Become the supervisor. Raises InstanceError and HostError; nothing has changed then."""
    limits.lift()
    os.chdir("/")
    worker = _ask(instance.check_name(name))
    theirs = Handed(*worker.descriptors)
    try:
        pidfd = os.pidfd_open(worker.pid)
    except OSError as error:
        raise HostError(f"watch process {worker.pid}", error.strerror or "") from None
    # The other two are each process's own.
    shared = theirs._replace(go=-1, supervisor=-1)
    ours = Handed(*(fd if fd < 0 else _take(pidfd, fd) for fd in shared))
    ours = ours._replace(supervisor=os.pidfd_open(os.getpid()))
    ours.set_inheritable(True)
    os.set_inheritable(pidfd, True)  # its number may be another process's by then
    lock.write_holder(ours.lock)
    reporter.end(Done())
    os.execv(sys.executable, [*command_line("supervise", name, ours), str(worker.pid), str(pidfd)])


def _take(pidfd: int, fd: int) -> int:
    """A descriptor of another process, as if it was inherited."""
    taken = _libc.syscall(_PIDFD_GETFD, pidfd, fd, 0)
    if taken < 0:
        raise HostError("take a descriptor of the worker", os.strerror(ctypes.get_errno()))
    return int(taken)


def _ask(name: str) -> Handover:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_TIMEOUT_S)
        try:
            connection.connect(instance.control_path(name))
            connection.sendall(encode(AskAdopt(os.getpid())))
            with connection.makefile("rb") as stream:
                answer = decode_answer(stream.readline())
        except (OSError, msgspec.MsgspecError) as error:
            raise InstanceError(
                f"{name} cannot be adopted: its worker does not answer ({error})",
                remedy=f"vswapctl status {name}",
            ) from None
    if isinstance(answer, Handover):
        return answer
    if isinstance(answer, Failure):
        raise InstanceError(f"{name} cannot be adopted: {answer.message}", remedy=answer.remedy)
    raise InstanceError(f"{name} cannot be adopted: it is of another version")
