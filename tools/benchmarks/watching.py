"""What it costs to be watched: the same instance alone, with `vswapctl top`, with `vswapctl trace`.

Owns the order, and the terminal. Whatever else differs between two runs, the rounds alternate.
"""

import os
import pty
import signal
import subprocess
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any, Final

from benchmarks import bars
from benchmarks.device import AREA_BYTES, Case, fio, prefill, random_options
from benchmarks.host import VSWAPCTL, BenchError, cpu_s, vswapctl_json, wait_until_idle
from benchmarks.peers import INSTANCE, Device, block_device
from benchmarks.report import OURS, ROUNDS, Report, rotated

ALONE: Final = "alone"
TOP: Final = "with top"
TRACE: Final = "with trace"
RUNTIME_S: Final = 5
LATENCY: Final = "4K read d1, median"
RATE: Final = "4K read d16"
PROCESSOR: Final = "4K read d16, processor time of the daemon"
"""Each; beside other work on the machine it is steadier than what takes its time on the clock."""


def measure() -> Report:
    """Latency and rate of loads."""
    data = bars.DATA[0]
    watchers: dict[str, Callable[[], AbstractContextManager[None]]] = {
        ALONE: nullcontext,
        TOP: top,
        TRACE: trace,
    }
    report = Report(
        "watching",
        [
            bar
            for peer in (TOP, TRACE)
            for bar in (
                bars.Bar(LATENCY, ALONE, "<", 1.05, peer),
                bars.Bar(RATE, ALONE, ">", 0.95, peer),
                bars.Bar(PROCESSOR, ALONE, "<", 1.05, peer),
            )
        ],
        reference=ALONE,
    )
    with (
        block_device(OURS, AREA_BYTES) as device,
        report.progress(len(watchers) * ROUNDS) as step,
    ):
        report.how[ALONE] = device.how
        report.how[TOP] = f"vswapctl top {INSTANCE}, 80x24, a sample a second"
        report.how[TRACE] = f"vswapctl trace {INSTANCE}, all events, to /dev/null"
        prefill(device, data)
        for number in range(1, ROUNDS + 1):
            for peer in rotated(watchers, number - 1):
                step(f"round {number}, {peer}")
                wait_until_idle(device.pids)
                with watchers[peer]():
                    _round(report, peer, number, device, data)
    return report


def _round(report: Report, peer: str, number: int, device: Device, data: str) -> None:
    found = _read(device, data, depth=1)
    median_us = found["clat_ns"]["percentile"]["50.000000"] / 1000
    report.add(LATENCY, peer, round_number=number, value=median_us, unit=bars.US)
    (status,) = vswapctl_json("status", INSTANCE)
    worker = (status["worker_pid"],)
    before_s = cpu_s(worker)
    found = _read(device, data, depth=16)
    used_us = (cpu_s(worker) - before_s) / found["total_ios"] * 1e6
    report.add(RATE, peer, round_number=number, value=found["iops"], unit=bars.PER_S)
    report.add(PROCESSOR, peer, round_number=number, value=used_us, unit=bars.US)


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


@contextmanager
def trace() -> Iterator[None]:
    """`vswapctl trace` of everything, once it is on."""
    with subprocess.Popen(
        [VSWAPCTL, "trace", INSTANCE], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr
            told = process.stderr.readline()
            if "tracing" not in told:
                raise BenchError(f"vswapctl trace: {told.strip()}")
            yield
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=20)
