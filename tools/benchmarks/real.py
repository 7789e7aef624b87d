"""Real programs in memory that is too small for them; each peer in turn is what they swap to.

Owns the order. What the programs do and what they are compared with is in ``programs``. Always
holds: a figure is of a run in which pages were swapped out, but for the column ENOUGH, which says
what the same takes without swap.
"""

import re
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Final

from cgroup import MemoryCgroup, MemoryCgroupError

from benchmarks import bars
from benchmarks.host import MIB, BenchError
from benchmarks.peers import RISKY_SWAP_PEERS, SWAP_PEERS, Device, swap_area
from benchmarks.programs import PROGRAMS, Program
from benchmarks.report import ROUNDS, Report, rotated
from vswapfs.errors import VswapError
from vswapfs.units import PAGE_BYTES

AREA_BYTES: Final = 2048 * MIB
ENOUGH: Final = "enough RAM"
PEERS: Final = (*(peer for peer in SWAP_PEERS if peer not in RISKY_SWAP_PEERS), ENOUGH)


def measure(names: Iterable[str], *, quick: bool) -> Report:
    """These programs, of PROGRAMS, over all peers."""
    report = Report("real", ())
    names = tuple(names)
    with report.progress(len(names) * ROUNDS * len(PEERS)) as step:
        for name in names:
            try:
                with PROGRAMS[name](quick=quick) as program:
                    report.how[name] = f"in {program.limit_bytes // MIB} MiB: {program.how}"
                    peers = list(PEERS)
                    for number in range(1, ROUNDS + 1):
                        for peer in rotated(peers, number - 1):
                            step(f"{name}, round {number}, {peer}")
                            try:
                                measure_peer(report, name, program, peer, number)
                            except (BenchError, VswapError, MemoryCgroupError) as error:
                                peers.remove(peer)
                                report.give_up(f"{name}, {peer}", error)
            except BenchError as error:
                report.give_up(name, error)
    return report


def measure_peer(report: Report, name: str, program: Program, peer: str, number: int) -> None:
    limit_bytes = AREA_BYTES if peer == ENOUGH else program.limit_bytes
    # The cgroup goes last: what hangs in a page fault leaves it only when the device has gone.
    with MemoryCgroup(limit_bytes) as group, area(peer) as device:
        report.how[peer] = device.how
        before_bytes = swapped_out_bytes()
        figures = program.run(group, device)
        out_bytes = swapped_out_bytes() - before_bytes
    if peer != ENOUGH:
        if not out_bytes:
            raise BenchError("nothing was swapped out")
        figures = {**figures, f"{name}, swapped out": (out_bytes / MIB, bars.MIB)}
    for case, (value, unit) in figures.items():
        report.add(case, peer, round_number=number, value=value, unit=unit)


def area(peer: str) -> AbstractContextManager[Device]:
    if peer == ENOUGH:
        return nullcontext(Device("", f"a memory limit of {AREA_BYTES // MIB} MiB, and no swap"))
    return swap_area(peer, AREA_BYTES)


def swapped_out_bytes() -> int:
    """What the machine has swapped out since it started, into zswap too; pages of zeros are not
    written, only noted."""
    counters = dict(re.findall(r"(?m)^(\w+) (\d+)$", Path("/proc/vmstat").read_text()))
    return sum(int(counters.get(name, 0)) for name in ("pswpout", "zswpout")) * PAGE_BYTES
