"""A Redis server in a memory cgroup: its data, and redis-benchmark against it.

Owns the server's process, which listens on a Unix socket only and keeps nothing on disk. Always
holds: every value is known from its key.
"""

import csv
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from cgroup import MemoryCgroup
from workload import PageContents, parse_mix

from benchmarks.host import BenchError, HangError
from benchmarks.peers import Device
from benchmarks.swapping import HELD_MIX, TIMEOUT_S, in_group, run_on

VALUE_BYTES: Final = 1024
BATCH_KEYS: Final = 256
CLIENTS: Final = 16
VERIFIED_EVERY: Final = 16
START_TIMEOUT_S: Final = 15.0


class Found(NamedTuple):
    per_s: float
    p99_ms: float


def find_server() -> str:
    """The server's program. Raises BenchError if it is not installed.

    Debian's package redis-server starts a server of its own as soon as it is installed. redis-tools
    does not and has the same program, which goes by the name it is called with.
    """
    found = shutil.which("redis-server") or shutil.which("redis-check-rdb")
    if not found or not shutil.which("redis-benchmark"):
        raise BenchError("redis-tools is not installed")
    return found


class RedisServer:
    """One that is up."""

    def __init__(self, path: str, device: Device) -> None:
        self.path = path
        self.device = device
        self._contents = PageContents(1, parse_mix(HELD_MIX))

    def fill(self, keys: int) -> None:
        """Set all keys, in their order."""
        self._ask(
            range(keys),
            lambda key: _array(b"SET", _name(key), self._value(key)),
            lambda _key: b"+OK\r\n",
        )

    def verify(self, keys: int) -> None:
        """Get every so many of them. Raises BenchError if one is not what it was set to."""
        self._ask(
            range(0, keys, VERIFIED_EVERY),
            lambda key: _array(b"GET", _name(key)),
            lambda key: _bulk(self._value(key)),
        )

    def _value(self, key: int) -> bytes:
        return self._contents.page(key, 0)[:VALUE_BYTES]

    def _ask(
        self, keys: range, request: Callable[[int], bytes], answer: Callable[[int], bytes]
    ) -> None:
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(TIMEOUT_S)
                client.connect(self.path)
                replies = client.makefile("rb")
                for start in range(0, len(keys), BATCH_KEYS):
                    batch = keys[start : start + BATCH_KEYS]
                    client.sendall(b"".join(map(request, batch)))
                    expected = b"".join(map(answer, batch))
                    if replies.read(len(expected)) != expected:
                        raise BenchError(f"Redis answers wrongly for keys {batch}")
        except TimeoutError:
            self.device.abort()
            raise HangError(f"Redis does not answer after {TIMEOUT_S:.0f} s") from None
        except OSError as error:
            raise BenchError(f"Redis has ended, or never listened: {error}") from None


def benchmark(server: RedisServer, verb: str, keys: int, requests: int) -> Found:
    """redis-benchmark with so many requests for keys at random."""
    said = run_on(
        server.device, "redis-benchmark", "-s", server.path, "-t", verb, "-r", str(keys),
        "-n", str(requests), "-c", str(CLIENTS), "-d", str(VALUE_BYTES), "--csv",
    )  # fmt: skip
    (row,) = csv.DictReader(said.splitlines())
    return Found(float(row["rps"]), float(row["p99_latency_ms"]))


@contextmanager
def redis_server(group: MemoryCgroup, device: Device) -> Iterator[RedisServer]:
    """A server in the cgroup, empty."""
    with tempfile.TemporaryDirectory() as directory:
        program, path = Path(directory, "redis-server"), f"{directory}/socket"
        program.symlink_to(find_server())
        command = (str(program), "--port", "0", "--unixsocket", path, "--save", "")
        with subprocess.Popen(
            in_group(group, *command, "--dir", directory),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:
            try:
                deadline_s = time.monotonic() + START_TIMEOUT_S
                while not Path(path).exists() and time.monotonic() < deadline_s:
                    time.sleep(0.02)
                yield RedisServer(path, device)
            finally:
                process.kill()


def _name(key: int) -> bytes:
    """As redis-benchmark calls its keys."""
    return b"key:%012d" % key


def _bulk(text: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(text), text)


def _array(*texts: bytes) -> bytes:
    return b"*%d\r\n" % len(texts) + b"".join(map(_bulk, texts))
