"""A process that serves a file in a FUSE file system: its start and its end.

Owns the process and the mount. However it ends, neither is left: a server that does not end when
told to is killed, after its connection was aborted, so that nobody waits for it.
"""

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from benchmarks.host import BIN, ROOT, BenchError
from vswapfs.fuse import mount

START_TIMEOUT_S: Final = 15.0
END_TIMEOUT_S: Final = 15.0


@dataclass(frozen=True)
class Server:
    """A process that serves a file in a FUSE file system."""

    file: str
    how: str
    pids: tuple[int, ...]
    connection: int


@contextmanager
def serving(command: list[str], mountpoint: str, file: str) -> Iterator[Server]:
    """Start the command and wait until it has mounted; ``file`` is what it then serves."""
    with tempfile.TemporaryFile("w+") as said:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        except FileNotFoundError:
            raise BenchError(f"{command[0]} is not installed") from None
        connection = None
        try:
            connection = _wait_for_mount(process, mountpoint, said)
            how = " ".join(command).replace(f"{BIN}/", "").replace(f"{ROOT}/", "")
            yield Server(file, how, (process.pid, *_children(process.pid)), connection)
        finally:
            _end(process, mountpoint, connection)


def _wait_for_mount(process: subprocess.Popen[bytes], mountpoint: str, said: IO[str]) -> int:
    """The number of its FUSE connection."""
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        if process.poll() is not None:
            said.seek(0)
            words = said.read().strip().splitlines() or ["nothing said"]
            raise BenchError(f"ended at once: {words[-1]}")
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            fields = line.split()
            if fields[4] == mountpoint:
                return int(fields[2].partition(":")[2])
        time.sleep(0.02)
    raise BenchError(f"{mountpoint}: nothing mounted after {START_TIMEOUT_S:.0f} s")


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _end(process: subprocess.Popen[bytes], mountpoint: str, connection: int | None) -> None:
    process.terminate()
    try:
        process.wait(END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        if connection is not None:
            mount.abort(connection)
        process.kill()
        process.wait(END_TIMEOUT_S)
    if mount.is_mountpoint(mountpoint):
        mount.unmount(mountpoint, lazily=True)
