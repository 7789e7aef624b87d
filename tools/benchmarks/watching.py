"""What it costs to be watched: the same instance with and without `vswapctl top` in a terminal.

Owns the order, and the terminal. Whatever else differs between two runs, the rounds alternate.
"""

import os
import pty
import subprocess
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, Final

from benchmarks import bars
from benchmarks.device import AREA_BYTES, Case, fio, prefill, random_options
from benchmarks.host import VSWAPCTL, BenchError, timed_s, wait_until_idle
from benchmarks.peers import INSTANCE, Device, block_device
from benchmarks.report import OURS, ROUNDS, Report, rotated

WATCHED: Final = "with top"
ALONE: Final = "without top"
RUNTIME_S: Final = 5
LATENCY: Final = "4K read d1, median"
RATE: Final = "4K read d16"
ANSWER: Final = "vswapctl stats under 4K read d16"


def measure() -> Report:
    """Latency and rate of loads; and how long a command takes under full load."""
    data = bars.DATA[0]
    report = Report(
        "watching",
        [
            bars.Bar(LATENCY, ALONE, "<", 1.05, WATCHED),
            bars.Bar(RATE, ALONE, ">", 0.95, WATCHED),
            bars.Bar(ANSWER, "", "<", 1.0, WATCHED),
        ],
        reference=ALONE,
    )
    with block_device(OURS, AREA_BYTES) as device, report.progress(2 * ROUNDS) as step:
        report.how[ALONE] = device.how
        report.how[WATCHED] = f"vswapctl top {INSTANCE}, 80x24, a sample a second"
        prefill(device, data)
        for number in range(1, ROUNDS + 1):
            for peer in rotated((WATCHED, ALONE), number - 1):
                step(f"round {number}, {peer}")
                wait_until_idle(device.pids)
                with top() if peer == WATCHED else nullcontext():
                    _round(report, peer, number, device, data)
    return report


def _round(report: Report, peer: str, number: int, device: Device, data: str) -> None:
    found = _read(device, data, depth=1)
    median_us = found["clat_ns"]["percentile"]["50.000000"] / 1000
    report.add(LATENCY, peer, round_number=number, value=median_us, unit=bars.US)
    took_s: list[float] = []
    answer = threading.Timer(1.0, lambda: took_s.append(timed_s(VSWAPCTL, "stats", INSTANCE)))
    answer.start()
    rate = _read(device, data, depth=16)["iops"]
    answer.join()
    report.add(RATE, peer, round_number=number, value=rate, unit=bars.PER_S)
    report.add(ANSWER, peer, round_number=number, value=took_s[0], unit=bars.S)


def _read(device: Device, data: str, *, depth: int) -> dict[str, Any]:
    options = random_options(Case("read", 4, depth), RUNTIME_S)
    found: dict[str, Any] = fio(device, data, options, RUNTIME_S)["read"]
    return found


@contextmanager
def top() -> Iterator[None]:
    """`vswapctl top` in a terminal of 80x24, drawn."""
    master, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    drawn = threading.Event()

    def look() -> None:
        seen = b""
        with suppress(OSError):  # the terminal is closed
            while part := os.read(master, 65536):
                seen = (seen + part)[-65536:]
                if b"latency" in seen:
                    drawn.set()

    watcher = threading.Thread(target=look)
    watcher.start()
    process = subprocess.Popen(
        [VSWAPCTL, "top", INSTANCE], stdin=terminal, stdout=terminal, stderr=terminal,
        start_new_session=True, env=os.environ | {"TERM": "xterm-256color"},
    )  # fmt: skip
    os.close(terminal)
    try:
        if not drawn.wait(20):
            raise BenchError("vswapctl top showed nothing in 20 s")
        yield
    finally:
        process.terminate()
        process.wait(20)
        watcher.join()
        os.close(master)
