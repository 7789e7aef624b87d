"""What it costs that the daemon may die: the same build with and without a successor.

Owns the order. Without: as on a kernel that has no tmpfs without swap, so the state is private to
the worker, and there is no standby. Whatever else differs between two runs, the rounds alternate.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from benchmarks import bars
from benchmarks.device import AREA_BYTES, Case, prefill, run_case
from benchmarks.peers import Device, block_device
from benchmarks.report import OURS, ROUNDS, Report, rotated
from vswapfs.daemon.prepare import FORCE

ALONE: Final = "without successor"
CASES: Final = (Case("read", 4, 1), Case("write", 4, 1))


def measure() -> Report:
    """Mean latency of 4 KiB at depth 1."""
    data = bars.DATA[0]
    report = Report(
        "survival", [bars.Bar(case.name(data), ALONE, "<=", 1.05, OURS) for case in CASES]
    )
    with report.progress(ROUNDS * 2) as step:
        for number in range(1, ROUNDS + 1):
            for peer in rotated((OURS, ALONE), number - 1):
                step(f"round {number}, {peer}")
                with _device(peer) as device:
                    report.how[peer] = device.how
                    prefill(device, data)
                    for case in CASES:
                        run_case(report, peer, {peer: device}, number, case, data)
    return report


@contextmanager
def _device(peer: str) -> Iterator[Device]:
    os.environ[FORCE] = "memfd" if peer == ALONE else ""
    try:
        with block_device(OURS, AREA_BYTES) as device:
            yield device
    finally:
        del os.environ[FORCE]
