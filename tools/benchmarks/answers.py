"""How long each command takes to answer, beside nothing and beside full load.

Owns the commands and the load. An area of 4 GiB, of which every slot holds a page: fio has filled
it before it was swapped to. Then processes in several memory cgroups hold a part of it, so that
there are owners. Full load: fio reads the loop device at depth 16, and a process in a cgroup of its
own swaps in and out. A command is timed from its start to its end, Python's own start included; one
that goes on, top and trace, until it shows something.
"""

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Final

from cgroup import MemoryCgroup

from benchmarks import bars
from benchmarks.device import fio_command
from benchmarks.host import MIB, VSWAPCTL, BenchError, run, timed_s
from benchmarks.peers import DISK_DIRECTORY, INSTANCE, Device, swapped_to, vswapfs_device
from benchmarks.report import Report
from benchmarks.swapping import WORKLOAD, held_pages, in_group
from benchmarks.watching import top, trace

AREA_BYTES: Final = 4096 * MIB
POOL_BYTES: Final = 3072 * MIB
TIER_BYTES: Final = 256 * MIB
CHECKED_BYTES: Final = 64 * MIB
"""Of the tier that log check reads: one that nobody uses."""
GROUPS: Final = 4
PROCESSES: Final = 8
"""In each group."""
HELD_BYTES: Final = 64 * MIB
"""In each process."""
HELD_LIMIT_BYTES: Final = 64 * MIB
"""Of each group: already its first process swaps."""
LOAD_BYTES: Final = 256 * MIB
LOAD_LIMIT_BYTES: Final = 64 * MIB
FILL_TIMEOUT_S: Final = 600.0
LOAD_TIMEOUT_S: Final = 1800

ROUNDS: Final = 3
IDLE: Final = "idle"
LOADED: Final = "full load"
PROCESSOR: Final = "processor time, idle"
LIMIT_S: Final = 1.0


def measure() -> Report:
    """Every command in turn, some rounds without load, then as many beside it."""
    with tempfile.TemporaryDirectory(dir=DISK_DIRECTORY) as directory:
        unused, tier = f"{directory}/unused", f"{directory}/tier"
        _write_a_tier(unused)
        commands = _commands(unused)
        report = Report("answers", [bars.Bar(name, "", "<", LIMIT_S, LOADED) for name in commands])
        options = (
            "--size", str(AREA_BYTES), "--pool-limit", str(POOL_BYTES),
            "--tier", f"{tier}:{TIER_BYTES}",
        )  # fmt: skip
        steps = 2 * ROUNDS * len(commands) + 2
        with ExitStack() as stack, report.progress(steps) as step:
            step("filling the area")
            # Without discards: swapon would free what fio has written.
            device = replace(stack.enter_context(vswapfs_device(*options)), discards=False)
            _fill(device.path, AREA_BYTES)
            run(VSWAPCTL, "writeback", INSTANCE, "--bytes", str(TIER_BYTES // 2))
            stack.enter_context(swapped_to(device))
            step(f"{GROUPS * PROCESSES} processes that are swapped out")
            for _ in range(GROUPS):
                group = stack.enter_context(MemoryCgroup(HELD_LIMIT_BYTES))
                for _ in range(PROCESSES):
                    stack.enter_context(held_pages(group, device, HELD_BYTES))
            report.how[IDLE] = device.how
            report.how[PROCESSOR] = "user and system time of the command"
            _rounds(report, IDLE, commands, step)
            report.how[LOADED] = stack.enter_context(_load(device))
            _rounds(report, LOADED, commands, step)
    return report


def _rounds(
    report: Report, peer: str, commands: dict[str, Callable[[], float]], step: Callable[[str], None]
) -> None:
    for number in range(1, ROUNDS + 1):
        for name, took_s in commands.items():
            step(f"{peer}, round {number}, {name}")
            before_s = _processor_s()
            report.add(name, peer, round_number=number, value=took_s(), unit=bars.S)
            used_s = _processor_s() - before_s
            if peer == IDLE:
                report.add(name, PROCESSOR, round_number=number, value=used_s, unit=bars.S)


def _processor_s() -> float:
    """That the commands have used which have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _commands(unused_tier: str) -> dict[str, Callable[[], float]]:
    """By the words that are typed; each returns the seconds that it took."""

    def to_its_end(*words: str) -> Callable[[], float]:
        return lambda: timed_s(VSWAPCTL, *words)

    words = [
        ("status",), ("stats",), ("desc", "1G"), ("desc", "0-4M"), ("map",), ("map", "--by", "age"),
        ("map", "--segments"), ("map", "--tier"), ("map", "--json"), ("owners",), ("reconcile",),
        ("metrics",), ("set", "log-level=info"), ("tier", "list"), ("lost",),
    ]  # fmt: skip
    found = {" ".join(each): to_its_end(*_with_name(each)) for each in words}
    found[f"log check, {CHECKED_BYTES // MIB} MiB"] = to_its_end("log", "check", unused_tier)
    found["top, first picture"] = _top
    found["trace, until it is on"] = _trace
    return found


def _with_name(words: tuple[str, ...]) -> tuple[str, ...]:
    """NAME stands before what a command is given, behind the command."""
    count = 2 if words[0] == "tier" else 1
    return (*words[:count], INSTANCE, *words[count:])


def _top() -> float:
    began_s = time.monotonic()
    with top():
        return time.monotonic() - began_s


def _trace() -> float:
    began_s = time.monotonic()
    with trace():
        return time.monotonic() - began_s


def _write_a_tier(path: str) -> None:
    """A tier that is full, and that nobody uses any more."""
    options = (
        "--size", str(CHECKED_BYTES), "--pool-limit", str(CHECKED_BYTES),
        "--tier", f"{path}:{CHECKED_BYTES}",
    )  # fmt: skip
    with vswapfs_device(*options) as device:
        _fill(device.path, CHECKED_BYTES)
        run(VSWAPCTL, "writeback", INSTANCE)


def _fill(path: str, size_bytes: int) -> None:
    options = ["--rw=write", "--bs=128k", "--iodepth=4", f"--size={size_bytes}"]
    run(*fio_command(path, bars.DATA[0], options), timeout_s=FILL_TIMEOUT_S)


@contextmanager
def _load(device: Device) -> Iterator[str]:
    """fio and a process that swaps, until the end; how they were started."""
    options = [
        "--rw=randread", "--bs=4k", "--iodepth=16", f"--size={AREA_BYTES}", "--time_based",
        f"--runtime={LOAD_TIMEOUT_S}",
    ]  # fmt: skip
    reader = fio_command(device.path, bars.DATA[0], options)
    with MemoryCgroup(LOAD_LIMIT_BYTES) as group:
        swapper = (
            sys.executable, WORKLOAD, "--size", str(LOAD_BYTES), "--passes", str(LOAD_TIMEOUT_S),
        )  # fmt: skip
        started = [
            subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, start_new_session=True,
            )
            for command in (reader, in_group(group, *swapper))
        ]  # fmt: skip
        try:
            time.sleep(5.0)  # until both are at it
            for process in started:
                if process.poll() is not None:
                    raise BenchError(f"{process.args!r} ended with {process.returncode}")
            yield f"{' '.join(reader)}; {' '.join(swapper[1:])}"
        finally:
            for process in started:
                process.terminate()  # fio then ends the process of its job, and waits for it
                process.wait(60)
