"""Real swapping: workloads in a memory cgroup, each peer in turn the area that is filled first.

Owns the order of what is done to a peer. An area and its server are new in each round.
"""

import time
from typing import Final, NamedTuple

from cgroup import MemoryCgroup, MemoryCgroupError

from benchmarks import bars
from benchmarks.host import MIB, BenchError, cpu_s, timed_s, wait_until_idle
from benchmarks.peers import (
    RISKY_SWAP_PEERS,
    SWAP_PEERS,
    SWAPOFF_TIMEOUT_S,
    Device,
    swap_area,
)
from benchmarks.report import ROUNDS, Report, rotated
from benchmarks.swapping import fill_with_ff, held_pages, run_workload, use_memory
from vswapfs.errors import VswapError

IDLE_S: Final = 10.0


class Scale(NamedTuple):
    work_bytes: int
    limit_bytes: int
    held_bytes: int
    """For swapoff, all but an eighth of it swapped out."""
    touches: int


FULL: Final = Scale(1024 * MIB, 256 * MIB, 768 * MIB, 20_000)
QUICK: Final = Scale(512 * MIB, 128 * MIB, 384 * MIB, 10_000)


def measure(*, quick: bool, risky: bool) -> Report:
    """All that swapping is judged by, over all peers."""
    scale = QUICK if quick else FULL
    report = Report("swap", bars.SWAP_BARS)
    peers = [peer for peer in SWAP_PEERS if risky or peer not in RISKY_SWAP_PEERS]
    with report.progress(ROUNDS * len(peers)) as step:
        for number in range(1, ROUNDS + 1):
            for peer in rotated(peers, number - 1):
                step(f"round {number}, {peer}")
                try:
                    measure_peer(report, peer, number, scale)
                except (BenchError, VswapError, MemoryCgroupError) as error:
                    peers.remove(peer)
                    report.give_up(peer, error)
    return report


def measure_peer(report: Report, peer: str, number: int, scale: Scale) -> None:
    def add(case: str, value: float, unit: str) -> None:
        report.add(case, peer, round_number=number, value=value, unit=unit)

    # The cgroup goes last: what hangs in a page fault leaves it only when the device has gone.
    with (
        MemoryCgroup(scale.limit_bytes) as group,
        swap_area(peer, 2 * scale.work_bytes) as device,
    ):
        report.how[peer] = device.how
        phases = run_workload(group, device, scale.work_bytes, scale.touches)
        add(bars.FILL, phases["fill"]["mb_per_s"], bars.MB_PER_S)
        add(bars.VERIFY, phases["verify"]["mb_per_s"], bars.MB_PER_S)
        add(bars.TOUCH, phases["touch"]["us_per_page"], bars.US)
        if peer == bars.ON_DISK:
            return  # how long it takes to empty tiers: tools/bench tiers
        add(bars.FILL_FF, fill_with_ff(group, device, scale.work_bytes), bars.MB_PER_S)
        for processes in bars.USEMEM_PROCESSES:
            took_s = use_memory(group, device, scale.work_bytes, processes, scale.touches)
            figures = {
                "sequential": (scale.work_bytes / took_s["sequential"] / 1e6, bars.MB_PER_S),
                "random": (scale.touches / took_s["random"], bars.PER_S),
                "free": (took_s["free"], bars.S),
            }
            for way, (value, unit) in figures.items():
                add(bars.usemem_case(processes, way), value, unit)
        with held_pages(group, device, scale.work_bytes) as holder:
            if device.pids:
                add(bars.IDLE, idle_percent(device), bars.PERCENT)
            add(bars.FREE, holder.end(), bars.S)
        group.set_limit(scale.held_bytes // 8)
        with held_pages(group, device, scale.held_bytes):
            group.set_limit(2 * scale.held_bytes)
            command = device.off or ("swapoff", device.path)
            add(bars.SWAPOFF, timed_s(*command, timeout_s=SWAPOFF_TIMEOUT_S), bars.S)


def idle_percent(device: Device) -> float:
    """Processor that the servers of the device take while they hold pages and nobody asks."""
    wait_until_idle(device.pids)
    before_s = cpu_s(device.pids)
    time.sleep(IDLE_S)
    return (cpu_s(device.pids) - before_s) / IDLE_S * 100
