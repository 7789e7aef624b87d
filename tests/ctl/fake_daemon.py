"""A daemon that answers from a table, for tests of the commands."""

import fcntl
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from vswapfs.core import stats
from vswapfs.format import instance
from vswapfs.format.histogram import BUCKETS
from vswapfs.format.message import (
    AskCheck,
    AskDescriptors,
    AskDrain,
    AskLost,
    AskOff,
    AskSample,
    AskScrub,
    AskStats,
    AskStatus,
    AskTierAdd,
    AskTierRemove,
    AskTiers,
    AskWriteback,
    Descriptor,
    Descriptors,
    Done,
    Histogram,
    Outcome,
    Progress,
    Sample,
    Scrubbed,
    Stats,
    Status,
    Step,
    Tiers,
    TierStatus,
    decode_request,
    encode,
)

Part = msgspec.Struct | bytes | Callable[[], object]
"""What an answer is made of: a message, raw bytes, or something to do or wait for."""

DESCRIPTORS = [
    Descriptor(0, "zero", fill="0x0"),
    Descriptor(4096, "pool", None, 7, 160, 1024, "lz4", 4.0, "1122334455667788", True),
    Descriptor(8192, "pool", segment=7, segment_offset=1184, verified=False, error="checksum"),
    Descriptor(12288, "empty"),
    Descriptor(
        16384, "disk", segment=8, segment_offset=64, verified=True, tier="/t", tier_offset=1048640
    ),
]


RATE = r"[\d.]+[BKMGT]/s"
"""Matches a rate, of which the figure depends on the clock."""

TIERS = [
    TierStatus("/dev/x", "u-1", "ok", 32 << 30, 2 << 30, 1 << 30, 5 << 30, 3 << 20, 1 << 20, 0, 0),
    TierStatus("/t", "u-2", "failing", 1 << 30, 0, 0, 0, 0, 0, 2, 1, "EIO; tried again in 8 s"),
]


def make_status(name: str, **changes: Any) -> Status:
    """A status with 1 GiB of 2 GiB in use."""
    fields: dict[str, Any] = {
        "name": name,
        "pid": 42,
        "version": "0.1.0",
        "uptime_s": 3725.5,
        "mountpoint": instance.mountpoint(name),
        "size_bytes": 2 << 30,
        "used_bytes": 1 << 30,
        "loop_device": "/dev/loop3",
        "swap_used_bytes": 1 << 30,
        "swap_priority": 100,
        "pages": {"empty": 1 << 18, "zero": 256, "same": 512, "pool": 261376, "disk": 0},
        "ratio": 3.456,
        "saved_bytes": 700 << 20,
        "pool_limit_bytes": 1 << 30,
        "pool_used_bytes": 300 << 20,
        "same_filled": "same",
        "hardening": [Outcome("mlockall", True, "held"), Outcome("io_flusher", False, "EPERM")],
        "tiers": [],
        "survival": "resend",
        "supervisor_pid": 41,
        "worker_pid": 42,
        "standby_pid": 43,
        "takeovers": 1,
        "last_pause_ms": 5.9,
    }
    return Status(**(fields | changes))


def make_stats() -> Stats:
    """Each figure is the number of its line in the field table."""
    values: dict[str, int | float] = {}
    values |= {field.key: number for number, field in enumerate(stats.FIELDS)}
    return Stats(values, {field.key: Histogram([0] * BUCKETS, 0) for field in stats.HISTOGRAMS})


def make_answers(name: str) -> dict[type, Sequence[Part]]:
    """What a healthy daemon answers."""
    return {
        AskStatus: [make_status(name)],
        AskStats: [make_stats()],
        AskSample: [Sample(1_000_000.0, make_status(name), make_stats())],
        AskDescriptors: [Descriptors(DESCRIPTORS[:3]), Descriptors(DESCRIPTORS[3:]), Done()],
        AskCheck: [Done()],
        AskOff: [Step("swapoff /dev/loop3"), Step("unmount"), Done()],
        AskTiers: [Tiers(TIERS, 20 << 30, 12 << 30)],
        AskTierAdd: [Done()],
        AskTierRemove: [Progress(0, 1 << 30), Progress(1 << 30, 1 << 30), Done()],
        AskWriteback: [Progress(0, 1 << 30), Progress(1 << 30, 1 << 30), Done()],
        AskDrain: [Progress(1 << 20, 1 << 20), Done()],
        AskLost: [Done()],
        AskScrub: [Progress(1 << 20, 1 << 20), Scrubbed(300, 1 << 20)],
    }


class FakeDaemon:
    """Holds the lock and serves the control socket until it is left; keeps the requests."""

    def __init__(self, name: str, answers: Mapping[type, Sequence[Part]] | None = None) -> None:
        self.name = name
        self.answers = make_answers(name) | dict(answers or {})
        self.requests: list[msgspec.Struct] = []
        Path(instance.directory(name)).mkdir(parents=True)
        self._lock = Path(instance.lock_path(name)).open("w")  # noqa: SIM115 - die() closes it
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(instance.control_path(name))
        self._listener.listen(8)
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> "FakeDaemon":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        self.die()

    def die(self) -> None:
        """Let go of the lock, as a process does that ends; its files stay."""
        self._lock.close()

    def end(self) -> None:
        """Remove the files too, as a daemon does that is asked to end."""
        for path in Path(instance.directory(self.name)).iterdir():
            path.unlink()
        Path(instance.directory(self.name)).rmdir()
        self.die()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as lines:
                try:
                    self._answer(connection, lines.readline())
                except BrokenPipeError:
                    continue

    def _answer(self, connection: socket.socket, line: bytes) -> None:
        if not line:
            return
        request = decode_request(line)
        self.requests.append(request)
        for part in self.answers[type(request)]:
            if isinstance(part, bytes):
                connection.sendall(part)
            elif isinstance(part, msgspec.Struct):
                connection.sendall(encode(part))
            else:
                part()
