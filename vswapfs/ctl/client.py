"""The control socket, seen from the command: one request, its answers, or an error that says why.

Owns the connection, its time-outs, and the way from a Failure back to an error of the tree. Never
prints, never starts or ends a daemon. Every wait is bounded, unless the caller can show that the
daemon makes progress.
"""

import socket
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

import msgspec

from vswapfs.ctl import instances
from vswapfs.errors import (
    HostError,
    InstanceError,
    PermissionRefusedError,
    UsageError,
    VswapError,
)
from vswapfs.format import instance
from vswapfs.format.message import (
    LINE_MAX_BYTES,
    PARTS,
    Answer,
    Failure,
    Request,
    decode_answer,
    encode,
)

ANSWER_TIMEOUT_S: Final = 10.0
_CHUNK_BYTES: Final = 1 << 16

_A = TypeVar("_A", bound=Answer)


class NotAnsweringError(InstanceError):
    """The daemon lives, but gave no complete answer. It may still be at what it was asked."""


class HungUpError(NotAnsweringError):
    """The connection ended before an answer was complete."""


class SilentError(NotAnsweringError):
    """Nothing came in time, and it did not hang up either."""


def ask(
    name: str,
    request: Request,
    kind: type[_A],
    timeout_s: float = ANSWER_TIMEOUT_S,
    show: Callable[[Answer], None] = lambda answer: None,
) -> _A:
    """Send a request that has one answer of this kind, and return the answer.

    ``show`` gets those that come before it. Raises what ``answers`` raises.
    """
    for answer in answers(name, request, timeout_s):
        if isinstance(answer, kind):
            return answer
        show(answer)
    raise not_understood(name, "another kind of answer was due")


def answers(
    name: str,
    request: Request,
    timeout_s: float = ANSWER_TIMEOUT_S,
    moves: Callable[[], bool] = lambda: False,
) -> Iterator[Answer]:
    """Send a request and yield its answers as they come, the closing one last.

    ``moves`` is asked when nothing came for ``timeout_s``: True means wait for as long again.

    Raises NotAnsweringError if the daemon is silent or hangs up, InstanceError if there is no such
    instance, if it is dead or if it speaks another version, and for a Failure the error it tells.
    """
    with _connect(name, timeout_s) as connection:
        try:
            connection.sendall(encode(request))
        except TimeoutError:
            raise _silent(name, timeout_s) from None
        except OSError:
            raise _hung_up(name) from None
        for line in _lines(connection, name, timeout_s, moves):
            answer = read_answer(name, line)
            yield answer
            if not isinstance(answer, PARTS):
                return


def read_answer(name: str, line: bytes) -> Answer:
    """Decode a line. Raises InstanceError if it is no answer, and for a Failure what it tells."""
    try:
        answer = decode_answer(line)
    except msgspec.MsgspecError as error:
        raise not_understood(name, str(error)) from None
    if isinstance(answer, Failure):
        raise _error_of(answer)
    return answer


def _error_of(failure: Failure) -> VswapError:
    if failure.exit_code == HostError.exit_code:
        # HostError puts its step in front of the message; hand it over as it takes it.
        step, _, message = failure.message.partition(": ")
        return HostError(step, message, remedy=failure.remedy)
    for kind in (UsageError, InstanceError, PermissionRefusedError):
        if failure.exit_code == kind.exit_code:
            return kind(failure.message, remedy=failure.remedy)
    error = VswapError(failure.message, remedy=failure.remedy)
    error.exit_code = failure.exit_code
    return error


def _connect(name: str, timeout_s: float) -> socket.socket:
    try:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError as error:
        raise HostError("make a socket", error.strerror or "", remedy="see ulimit -n") from None
    connection.settimeout(timeout_s)
    try:
        connection.connect(instance.control_path(name))
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        raise _unreachable(name) from None
    except (TimeoutError, BlockingIOError):
        # BlockingIOError: nobody accepts and the queue of connections is full.
        connection.close()
        raise _silent(name, timeout_s) from None
    except BaseException:
        connection.close()
        raise
    return connection


def _lines(
    connection: socket.socket, name: str, timeout_s: float, moves: Callable[[], bool]
) -> Iterator[bytes]:
    rest = b""
    while True:
        try:
            chunk = connection.recv(_CHUNK_BYTES)
        except TimeoutError:
            if moves():
                continue
            raise _silent(name, timeout_s) from None
        except ConnectionResetError:
            chunk = b""
        if not chunk:
            raise _hung_up(name)
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
        if len(rest) > LINE_MAX_BYTES:
            raise not_understood(name, f"a line of more than {LINE_MAX_BYTES} bytes")


def _unreachable(name: str) -> NotAnsweringError:
    instances.check_living(name)
    return NotAnsweringError(
        f"{name} cannot be asked: its daemon is about to start or to end",
        remedy=f"try again; if it stays like this, {_force(name)}",
    )


def _force(name: str) -> str:
    return (
        f"kill its worker, whose place another takes, or, and what is swapped is lost: "
        f"vswapctl off {name} --force"
    )


def _silent(name: str, timeout_s: float) -> SilentError:
    return SilentError(
        f"{name} does not answer: nothing came for {timeout_s:g} s",
        remedy=_force(name),
    )


def _hung_up(name: str) -> HungUpError:
    return HungUpError(
        f"{name} hung up before its answer was complete",
        remedy=f"vswapctl status {name}, and see {instance.log_path(name)}",
    )


def not_understood(name: str, detail: str) -> InstanceError:
    """The error for an answer that is not what was due."""
    # Not a NotAnsweringError: a daemon of another version is healthy and must not be forced down.
    return InstanceError(
        f"{name} gave an answer that this vswapctl does not understand: {detail}",
        remedy="use the vswapctl of the version that started it",
    )
