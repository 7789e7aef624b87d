"""Taking pages back from disk: swapoff, drain then swapoff, tier remove; beside a swap file.

Owns the order of these steps. The instance is started with vswapctl, as an administrator would.
"""

import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cgroup import MemoryCgroup
from rich.table import Table

from benchmarks.host import MIB, VSWAPCTL, run, timed_s, vswapctl_json
from benchmarks.peers import DISK_DIRECTORY, INSTANCE, PRIORITY, Device, swap_area
from benchmarks.report import console
from benchmarks.swapping import held_pages
from vswapfs.fuse import mount

AREA_BYTES: Final = 1024 * MIB
HELD_BYTES: Final = 768 * MIB
LIMIT_BYTES: Final = 96 * MIB
TIMEOUT_S: Final = 300.0

SWAPOFF, DRAIN, REMOVE = "swapoff alone", "drain, then swapoff", "tier remove"
UNDER_LOAD: Final = "tier remove under load"
LOAD_TOUCHES: Final = 50_000
SWAP_FILE: Final = "swapoff of a swap file"


def measure(rounds: int) -> None:
    """Each way in each round; prints medians."""
    took_s: dict[str, list[float]] = defaultdict(list)
    removed_mb_per_s, loaded_mb_per_s, loaded_s = [], [], []
    for number in range(1, rounds + 1):
        for way in (SWAPOFF, DRAIN, REMOVE):
            with console.status(f"round {number}, {way}"):
                seconds, moved_bytes = take_back(way)
            took_s[way].append(seconds)
            if way == REMOVE:
                removed_mb_per_s.append(moved_bytes / seconds / 1e6)
        with (
            console.status(f"round {number}, {SWAP_FILE}"),
            MemoryCgroup(LIMIT_BYTES) as group,
            swap_area("swap file", AREA_BYTES) as device,
            held_pages(group, device, HELD_BYTES),
        ):
            group.set_limit(2 * HELD_BYTES)
            took_s[SWAP_FILE].append(timed_s("swapoff", device.path, timeout_s=TIMEOUT_S))
        with console.status(f"round {number}, {UNDER_LOAD}"):
            seconds, loaded_bytes = remove_under_load()
        loaded_mb_per_s.append(loaded_bytes / seconds / 1e6)
        loaded_s.append(seconds)
    title = f"{HELD_BYTES // MIB} MiB less {LIMIT_BYTES // MIB} MiB swapped, median"
    table = Table("", title=title)
    table.add_column("s", justify="right")
    table.add_column("beside the swap file", justify="right")
    reference_s = statistics.median(took_s[SWAP_FILE])
    for way, seconds_each in took_s.items():
        median_s = statistics.median(seconds_each)
        table.add_row(way, f"{median_s:.2f}", f"{median_s / reference_s:.2f}")
    console.print(table)
    rate = statistics.median(removed_mb_per_s)
    console.print(f"{REMOVE}: {rate:.0f} MB/s of {moved_bytes / 1e6:.0f} MB in segments")
    rate = statistics.median(loaded_mb_per_s)
    console.print(
        f"{UNDER_LOAD}: {statistics.median(loaded_s):.2f} s, {rate:.0f} MB/s of "
        f"{loaded_bytes / 1e6:.0f} MB, while a process verified and touched what it had there"
    )


def take_back(way: str) -> tuple[float, int]:
    """Seconds it took, and bytes that were on the tier."""
    with MemoryCgroup(LIMIT_BYTES) as group, tiered_area() as (device, tier):
        with held_pages(group, device, HELD_BYTES):
            written_bytes = write_all_out()
            group.set_limit(2 * HELD_BYTES)
            if way == REMOVE:
                took_s = timed_s(VSWAPCTL, "tier", "remove", INSTANCE, tier, timeout_s=TIMEOUT_S)
            else:
                took_s = 0.0
                if way == DRAIN:
                    took_s += timed_s(VSWAPCTL, "drain", INSTANCE, timeout_s=TIMEOUT_S)
                took_s += timed_s("swapoff", device.path, timeout_s=TIMEOUT_S)
        return took_s, written_bytes


def remove_under_load() -> tuple[float, int]:
    """The same for tier remove, of pages that do not compress, while a process swaps them in and
    out again. Raises BenchError if it finds a wrong byte."""
    with (
        MemoryCgroup(LIMIT_BYTES) as group,
        tiered_area() as (device, tier),
        held_pages(group, device, HELD_BYTES, mix="random:1", touches=LOAD_TOUCHES) as holder,
    ):
        written_bytes = write_all_out()
        holder.go_on()
        took_s = timed_s(VSWAPCTL, "tier", "remove", INSTANCE, tier, timeout_s=TIMEOUT_S)
        holder.wait_until_verified()
        return took_s, written_bytes


def write_all_out() -> int:
    """Returns the bytes of the tier that are in use then."""
    run(VSWAPCTL, "writeback", INSTANCE, "--all", timeout_s=TIMEOUT_S)
    (listed,) = vswapctl_json("tier", "list", INSTANCE)["tiers"]
    used_bytes: int = listed["used_bytes"]
    return used_bytes


@contextmanager
def tiered_area() -> Iterator[tuple[Device, str]]:
    """An instance that is swapped to, and its file tier."""
    with tempfile.TemporaryDirectory(dir=DISK_DIRECTORY) as directory:
        tier = str(Path(directory, "tier"))
        size = str(AREA_BYTES)
        options = ("--size", size, "--pool-limit", size, "--tier", f"{tier}:{size}")
        run(VSWAPCTL, "on", INSTANCE, *options, "--priority", str(PRIORITY))
        try:
            (status,) = vswapctl_json("status", INSTANCE)
            mounted = mount.find(INSTANCE)
            connection = mounted[1] if mounted else None
            yield Device(status["loop_device"], "vswapctl on", connection=connection), tier
        finally:
            run(VSWAPCTL, "off", INSTANCE, timeout_s=TIMEOUT_S)
