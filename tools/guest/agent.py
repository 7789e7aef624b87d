"""In the guest: runs commands for the host, which asks over a virtio serial port.

Owns the processes that it starts, each in a session of its own, and answers about each until it has
ended; any number at a time. Never waits for the host but in a read or write of the port. Is locked
in memory, so that it answers when nothing else does. Imports little, because to do that is a third
of the time to boot: no pathlib, no typing.

A line of JSON each way. To us: `{"id": 1, "argv": [...], "timeout_s": 60}` runs a command,
with `"terminal": [rows, columns]` on the console; `{"power_off": true}` ends the guest. From us:
`{"ready": true}`, `{"id": 1, "stdout": "..."}`, the same with stderr, and at the end
`{"id": 1, "exit_code": 0, "timed_out": false}`. Output is latin-1, so that every byte passes.
"""
# ruff: noqa: PTH123, PTH208

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PORTS = "/sys/class/virtio-ports"
CONSOLE = "/dev/console"
CHUNK_BYTES = 1 << 16
OUTPUT_GRACE_S = 0.5
MCL_CURRENT_FUTURE_ONFAULT = 1 | 2 | 4

# What spares us from the OOM killer is not for commands.
AS_ANY_OTHER = ("choom", "-n", "0", "--")


class Port:
    def __init__(self) -> None:
        (name,) = os.listdir(PORTS)
        self._fd = os.open(f"/dev/{name}", os.O_RDWR | os.O_CLOEXEC)
        self._lock = threading.Lock()

    def send(self, **message: Any) -> None:
        left = json.dumps(message).encode() + b"\n"
        with self._lock:
            while left:
                left = left[os.write(self._fd, left) :]

    def messages(self) -> Iterator[dict[str, Any]]:
        pending = b""
        while chunk := os.read(self._fd, CHUNK_BYTES):
            *lines, pending = (pending + chunk).split(b"\n")
            yield from map(json.loads, lines)


def run(port: Port, number: int, argv: list[str], timeout_s: float) -> None:
    """Run a command to its end."""
    process = subprocess.Popen(
        [*AS_ANY_OTHER, *argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert process.stdout
    assert process.stderr
    pipes = {"stdout": process.stdout.fileno(), "stderr": process.stderr.fileno()}
    readers = [
        threading.Thread(target=forward, args=(port, number, name, fd), daemon=True)
        for name, fd in pipes.items()
    ]
    for reader in readers:
        reader.start()
    timed_out = False
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        timed_out = True
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for reader in readers:
        # A daemon that the command left may hold the pipes open for as long as it lives.
        reader.join(OUTPUT_GRACE_S)
    port.send(id=number, exit_code=process.returncode, timed_out=timed_out)


def forward(port: Port, number: int, name: str, fd: int) -> None:
    while chunk := os.read(fd, CHUNK_BYTES):
        port.send(id=number, **{name: chunk.decode("latin-1")})


def run_on_console(port: Port, number: int, argv: list[str], size: list[int]) -> None:
    with open(CONSOLE, "r+b", buffering=0) as console:
        termios.tcsetwinsize(console, (size[0], size[1]))
        in_front = ("setsid", "--ctty", "--wait", *AS_ANY_OTHER)
        done = subprocess.run(
            [*in_front, *argv], stdin=console, stdout=console, stderr=console, check=False
        )
    port.send(id=number, exit_code=done.returncode, timed_out=False)


def main() -> None:
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("-1000")
    if ctypes.CDLL(None, use_errno=True).mlockall(MCL_CURRENT_FUTURE_ONFAULT) != 0:
        sys.exit(f"agent: mlockall: {os.strerror(ctypes.get_errno())}")
    port = Port()
    port.send(ready=True)
    for message in port.messages():
        if "power_off" in message:
            return
        target = run_on_console if "terminal" in message else run
        last = message["terminal"] if "terminal" in message else message["timeout_s"]
        arguments = (port, message["id"], message["argv"], last)
        threading.Thread(target=target, args=arguments, daemon=True).start()


if __name__ == "__main__":
    main()
