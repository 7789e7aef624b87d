"""Commands in a guest as its host sees them, and the line to the agent which runs them.

Owns what has come of each command, and when to give up on it. The agent's side, and what is said,
is in `agent.py`.
"""

import json
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from guest.errors import GuestTimeoutError

ANSWER_GRACE_S: Final = 15
"""How much later than a command's limit its end may be heard of: the agent ends it by then."""

Echo = Callable[[str, bytes], None]
"""Told of output as it comes: stdout or stderr, and the bytes."""
Hear = Callable[[float, str], None]
"""Takes one message to whom it is for, until a deadline; the text says what is waited for."""


class Result(NamedTuple):
    exit_code: int
    stdout: str
    stderr: str


class Running:
    """A command in the guest."""

    def __init__(
        self, hear: Hear, number: int, argv: Sequence[str], timeout_s: float, echo: Echo | None
    ) -> None:
        self.number = number
        self.result: Result | None = None
        self._hear, self._argv, self._timeout_s, self._echo = hear, argv, timeout_s, echo
        self._deadline_s = time.monotonic() + timeout_s + ANSWER_GRACE_S
        self._output = {"stdout": b"", "stderr": b""}
        self._timed_out = False

    def wait(self) -> Result:
        """Its end, which comes within its limit: else GuestTimeoutError, and it is killed."""
        command = " ".join(self._argv)
        while self.result is None:
            self._hear(self._deadline_s, f"end, in {self._timeout_s:g} s: {command}")
        if self._timed_out:
            raise GuestTimeoutError(
                f"killed in the guest after {self._timeout_s:g} s: {command}\n"
                f"{self.result.stdout[-2000:]}{self.result.stderr[-2000:]}"
            )
        return self.result

    def take(self, message: dict[str, Any]) -> None:
        """A message of the agent's about it."""
        for name in self._output.keys() & message.keys():
            data = message[name].encode("latin-1")
            self._output[name] += data
            if self._echo:
                self._echo(name, data)
        if "exit_code" in message:
            out, err = (self._output[n].decode(errors="replace") for n in ("stdout", "stderr"))
            self.result = Result(message["exit_code"], out, err)
            self._timed_out = message["timed_out"]


class AgentConnection:
    """Lines of JSON over a socket; the other end is the guest's."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._pending = b""

    def send(self, message: dict[str, Any]) -> None:
        self._connection.settimeout(ANSWER_GRACE_S)
        self._connection.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, deadline_s: float) -> dict[str, Any]:
        """The next one. Raises TimeoutError, or EOFError when the machine is gone."""
        while b"\n" not in self._pending:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            self._connection.settimeout(None if left_s == float("inf") else left_s)
            chunk = self._connection.recv(1 << 16)
            if not chunk:
                raise EOFError
            self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        message = json.loads(line)
        assert isinstance(message, dict)
        return message

    def close(self) -> None:
        self._connection.close()
