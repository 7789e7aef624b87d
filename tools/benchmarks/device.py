"""fio through the loop device: latency one at a time, throughput sixteen at a time, beside peers.

Owns the cases and fio's command line. All peers are up at the same time, filled with the same kind
of data; in each case they take turns, another one first in each round, because a machine drifts.
"""

from contextlib import ExitStack
from itertools import product
from typing import Any, Final, NamedTuple

from benchmarks import bars
from benchmarks.host import MIB, BenchError, HangError, json_of, wait_until_idle
from benchmarks.peers import DEVICE_PEERS, Device, block_device
from benchmarks.report import ROUNDS, Report, rotated
from vswapfs.errors import VswapError

AREA_BYTES: Final = 512 * MIB
RUNTIME_S: Final = 1
FIO_SPARE_S: Final = 30
"""Beyond its runtime, after which an fio that has not ended hangs."""

PREFILL_TIMEOUT_S: Final = 60

COMPRESS_PERCENT: Final = {"compressible": 60, "incompressible": 0}


class Case(NamedTuple):
    verb: str
    size_kib: int
    depth: int

    def name(self, data: str) -> str:
        return bars.device_case(data, self.size_kib, self.verb, self.depth)


def measure(*, quick: bool) -> Report:
    """All cases over all peers."""
    # Reads first: what is written afterwards need not be filled in again.
    sizes_kib = (4,) if quick else (4, 32, 128)
    cases = [Case(*fields) for fields in product(("read", "write"), sizes_kib, (1, 16))]
    report = Report("device", bars.DEVICE_BARS)
    step_count = len(bars.DATA) * len(DEVICE_PEERS) * (1 + ROUNDS * len(cases))
    with report.progress(step_count) as step:
        for data in bars.DATA:
            with ExitStack() as stack:
                devices: dict[str, Device] = {}
                for peer in DEVICE_PEERS:
                    step(f"filling {peer} with {data} data")
                    try:
                        device = stack.enter_context(block_device(peer, AREA_BYTES))
                        prefill(device, data)
                    except (BenchError, VswapError) as error:
                        report.give_up(peer, error)
                    else:
                        devices[peer] = device
                        report.how[peer] = device.how
                for number, case in product(range(1, ROUNDS + 1), cases):
                    for peer in rotated(devices, number - 1):
                        step(f"round {number}, {case.name(data)}, {peer}")
                        try:
                            run_case(report, peer, devices, number, case, data)
                        except BenchError as error:
                            devices.pop(peer)
                            report.give_up(peer, error)
    example = fio_command("DEVICE", bars.DATA[0], random_options(cases[0]))
    report.how["fio"] = " ".join(example)
    return report


def run_case(
    report: Report,
    peer: str,
    devices: dict[str, Device],
    number: int,
    case: Case,
    data: str,
) -> None:
    # What a server still has to tidy up from its turn must not slow down the next one's.
    wait_until_idle(pid for device in devices.values() for pid in device.pids)
    device = devices[peer]
    figures = fio(device, data, random_options(case), RUNTIME_S)[case.verb]
    value, unit = (
        (figures["lat_ns"]["mean"] / 1000, bars.US)
        if case.depth == 1
        else (figures["iops"], bars.PER_S)
    )
    report.add(case.name(data), peer, round_number=number, value=value, unit=unit)


def prefill(device: Device, data: str) -> None:
    """Write all of it once: a read of what was never written would be answered from nothing."""
    fio(device, data, ["--rw=write", "--bs=128k", "--iodepth=4"], PREFILL_TIMEOUT_S)


def random_options(case: Case, runtime_s: int = RUNTIME_S) -> list[str]:
    return [
        f"--rw=rand{case.verb}", f"--bs={case.size_kib}k", f"--iodepth={case.depth}",
        "--norandommap", "--time_based", f"--runtime={runtime_s}",
    ]  # fmt: skip


def fio_command(path: str, data: str, options: list[str]) -> list[str]:
    return [
        "fio", "--name=bench", f"--filename={path}", f"--size={AREA_BYTES}", "--ioengine=libaio",
        "--direct=1", "--refill_buffers", "--buffer_compress_chunk=4096",
        f"--buffer_compress_percentage={COMPRESS_PERCENT[data]}", "--output-format=json", *options,
    ]  # fmt: skip


def fio(device: Device, data: str, options: list[str], runtime_s: int) -> dict[str, Any]:
    """What fio says of its job. A device that does not answer any more is given up."""
    command = fio_command(device.path, data, options)
    try:
        answer = json_of(*command, timeout_s=runtime_s + FIO_SPARE_S)
    except HangError:
        device.abort()
        raise
    job: dict[str, Any] = answer["jobs"][0]
    return job
