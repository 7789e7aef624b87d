"""Benchmarks: one subcommand each; every figure in docs/ names the subcommand that printed it.

Owns the measuring. Never asserts: a figure is printed, not judged.
"""

import fcntl
import mmap
import os
import random
import re
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec
from cgroup import MemoryCgroup
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from vswapfs.units import PAGE_BYTES, format_size

ROOT = Path(__file__).parent.parent
BIN = ROOT / ".venv/bin"
CHUNK_PAGES = 256
MIB = 1 << 20
BLKDISCARD = 0x1277
CHURN_WRITES_PER_S = 2000

# "Virtual Swap Space" v5, cover letter: memory of the descriptors for 32 GiB of swap, MiB.
KERNEL_SERIES_MIB = {0: 0.0, 25: 48.25, 50: 96.5, 75: 144.75, 100: 193.0}

console = Console()


@click.group()
def main() -> None:
    """Measure vswapfs on this machine."""


@contextmanager
def mounted(*options: str) -> Iterator[tuple[str, str]]:
    """The foreground command; yields the name and the swap file."""
    name = "bench"
    with tempfile.TemporaryDirectory() as mountpoint:
        command = [str(BIN / "vswapfs"), mountpoint, "--name", name, *options]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr
            if not any("is up" in line for line in process.stderr):
                raise click.ClickException("vswapfs did not come up")
            try:
                yield name, f"{mountpoint}/swap"
            finally:
                process.terminate()


def stats(name: str) -> dict[str, Any]:
    answer = subprocess.check_output([BIN / "vswapctl", "stats", name, "--json"])
    found: dict[str, Any] = msgspec.json.decode(answer)
    return found


def resident_bytes(name: str) -> int:
    """The daemon's memory, all told, as the kernel counts it."""
    pid = int(Path(f"/run/vswapfs/{name}/lock").read_text())
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"Rss: +(\d+) kB", rollup)
    assert found
    return int(found[1]) * 1024


@main.command()
@click.option("--size-gib", default=32, show_default=True)
def metadata(size_gib: int) -> None:
    """Memory beyond payload, as an area fills with stored and with filled pages.

    The daemon's resident size, less what it was empty, less the payload of the records.
    """
    table = Table("slots used", title=f"metadata for {size_gib} GiB of slots")
    for heading in ("kernel series MiB", "stored MiB", "bytes/page", "filled MiB", "bytes/page"):
        table.add_column(heading, justify="right")
    rows: dict[int, list[str]] = {pct: [] for pct in KERNEL_SERIES_MIB}
    page_count = (size_gib << 30) // PAGE_BYTES
    for kind in ("stored", "filled"):
        with (
            mounted("--size", f"{size_gib}G", "--pool-limit", "2G") as (name, file),
            Progress(console=console, transient=True) as progress,
        ):
            task = progress.add_task(f"{kind} pages", total=page_count)
            fd = os.open(file, os.O_RDWR | os.O_DIRECT)
            empty_bytes = resident_bytes(name)
            written = 0
            for pct in KERNEL_SERIES_MIB:
                for first in range(written, page_count * pct // 100, CHUNK_PAGES):
                    os.pwrite(fd, chunk(kind, first), first * PAGE_BYTES)
                    progress.update(task, completed=first)
                written = page_count * pct // 100
                pool = stats(name)["pool"]
                payload_bytes = pool["live_bytes"] - pool["header_bytes"]
                used_bytes = resident_bytes(name) - empty_bytes - payload_bytes
                per_page = f"{used_bytes / written:.2f}" if written else "-"
                rows[pct] += [f"{used_bytes / MIB:.2f}", per_page]
            os.close(fd)
    for pct, cells in rows.items():
        kernel_mib = KERNEL_SERIES_MIB[pct] * size_gib / 32
        table.add_row(f"{pct} %", f"{kernel_mib:.2f}", *cells)
    console.print(table)
    console.print(f"the empty daemon: {format_size(empty_bytes)} resident")


def chunk(kind: str, first: int) -> mmap.mmap:
    """1 MiB of pages: all 0xff, or zeros with the page number in them."""
    buffer = _buffers.setdefault(kind, mmap.mmap(-1, CHUNK_PAGES * PAGE_BYTES))
    if kind == "filled":
        buffer[:] = b"\xff" * len(buffer)
    else:
        for index in range(CHUNK_PAGES):
            struct.pack_into("<Q", buffer, index * PAGE_BYTES + 100, first + index)
    return buffer


_buffers: dict[str, mmap.mmap] = {}


@main.command()
@click.option("--size-mib", default=512, show_default=True)
@click.option("--seconds", default=20, show_default=True, help="How long pages are overwritten.")
def density(size_mib: int, seconds: int) -> None:
    """Payload per RAM taken while pages are overwritten at random, and 10 s later, beside zram.

    Both get the same pages in the same order: half of a device of that size is filled, then runs of
    1 to 16 pages anywhere in it are overwritten or discarded.
    """
    table = Table("", title=f"density after {seconds} s of churn, {size_mib} MiB")
    for heading in ("during churn", "10 s after", "payload MiB", "RAM MiB"):
        table.add_column(heading, justify="right")
    with mounted("--size", f"{size_mib}M", "--pool-limit", f"{size_mib}M") as (name, file):
        device = run_tool(
            "losetup", "--find", "--show", "--direct-io=on", "--sector-size=4096", file
        )
        try:

            def ours() -> tuple[int, int]:
                pool = stats(name)["pool"]
                return pool["live_bytes"], pool["used_bytes"]

            table.add_row("vswapfs", *_density(device, size_mib, seconds, ours))
        finally:
            run_tool("losetup", "--detach", device)
    device = run_tool("zramctl", "--find", "--size", f"{size_mib}M", "--algorithm", "lz4")
    try:

        def zram() -> tuple[int, int]:
            figures = Path("/sys/block", Path(device).name, "mm_stat").read_text().split()
            return int(figures[1]), int(figures[2])

        table.add_row("zram lz4", *_density(device, size_mib, seconds, zram))
    finally:
        run_tool("zramctl", "--reset", device)
    console.print(table)


def _density(
    device: str, size_mib: int, seconds: int, figures: Callable[[], tuple[int, int]]
) -> list[str]:
    rng = random.Random(1)
    page_count = size_mib * MIB // PAGE_BYTES
    during = []
    fd = os.open(device, os.O_RDWR | os.O_DIRECT)
    buffer = mmap.mmap(-1, 16 * PAGE_BYTES)
    try:
        for page in range(0, page_count // 2, 16):
            buffer[:] = b"".join(churn_page(rng) for _ in range(16))
            os.pwrite(fd, buffer, page * PAGE_BYTES)
        writes = 0
        sample_at_s = time.monotonic() + 1
        # As many writes for both, not as much time, or the slower one would churn less.
        while writes < seconds * CHURN_WRITES_PER_S:
            count = rng.randrange(1, 17)
            offset = rng.randrange(page_count // 2 - 16) * PAGE_BYTES
            if rng.random() < 0.1:
                run_length = struct.pack("<QQ", offset, count * PAGE_BYTES)
                fcntl.ioctl(fd, BLKDISCARD, run_length)
            else:
                buffer[: count * PAGE_BYTES] = b"".join(churn_page(rng) for _ in range(count))
                os.pwrite(fd, memoryview(buffer)[: count * PAGE_BYTES], offset)
            writes += 1
            if time.monotonic() >= sample_at_s:
                live, used = figures()
                during.append(live / used)
                sample_at_s += 1
        time.sleep(10)
    finally:
        os.close(fd)
    live, used = figures()
    return [
        f"{statistics.median(during):.1%}", f"{live / used:.1%}", f"{live / MIB:.1f}",
        f"{used / MIB:.1f}",
    ]  # fmt: skip


def churn_page(rng: random.Random) -> bytes:
    """A page that LZ4 shortens to between a few hundred bytes and nearly all of it."""
    part = rng.randrange(200, 3700)
    return rng.randbytes(part) + bytes(PAGE_BYTES - part)


@main.command()
@click.option("--tier-mib", default=512, show_default=True)
@click.option("--fill", default=0.8, show_default=True, help="Share of the tier that is live.")
@click.option("--rounds", default=2.0, show_default=True, help="Times the tier is overwritten.")
@click.option(
    "--skew", default=0.0, show_default=True, help="0: uniform; 0.9: 90 % to 10 % of pages"
)
def writeamp(tier_mib: int, fill: float, rounds: float, skew: float) -> None:
    """Bytes to disk over bytes of records accepted, for random overwrites of a tier that full.

    Pages are incompressible, so a record has 4110 bytes, and the pool is small, so that nearly
    all of them go to disk.
    """
    rng = random.Random(1)
    live_pages = int(tier_mib * MIB * fill) // 4110
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        tier = ("--tier", f"{directory}/tier:{tier_mib}M")
        with mounted("--size", f"{tier_mib}M", "--pool-limit", "32M", *tier) as (name, file):
            fd = os.open(file, os.O_RDWR | os.O_DIRECT)
            buffer = mmap.mmap(-1, PAGE_BYTES)

            def write(page: int) -> None:
                buffer[:] = rng.randbytes(PAGE_BYTES)
                os.pwrite(fd, buffer, page * PAGE_BYTES)

            with Progress(console=console, transient=True) as progress:
                overwrites = int(live_pages * rounds)
                task = progress.add_task("writing", total=live_pages + overwrites)
                for page in range(live_pages):
                    write(page)
                    progress.advance(task)
                before = tier_written_bytes(name)
                for _ in range(overwrites):
                    hot = rng.random() < skew
                    write(rng.randrange(live_pages // 10 if hot else live_pages))
                    progress.advance(task)
            after = tier_written_bytes(name)
            os.close(fd)
    console.print(
        f"tier {tier_mib} MiB, {fill:.0%} live, {overwrites} pages overwritten, skew {skew}: "
        f"write amplification {(after - before) / (overwrites * 4110):.2f}"
    )


def tier_written_bytes(name: str) -> int:
    answer = subprocess.check_output([BIN / "vswapctl", "tier", "list", name, "--json"])
    found: int = msgspec.json.decode(answer)["tiers"][0]["written_bytes"]
    return found


def run_tool(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


HOLD_SIZE = 768 * MIB
HOLD_LIMIT = 96 * MIB


@contextmanager
def held_pages() -> Iterator[MemoryCgroup]:
    """A process whose pages have been swapped out to the highest-priority area, and sits still."""
    with MemoryCgroup(HOLD_LIMIT) as group:
        command = [
            sys.executable, str(ROOT / "tools/workload.py"), "--size", str(HOLD_SIZE), "--mix",
            "text:6,random:2", "--touches", "0", "--hold", "--json",
            "--cgroup-procs", str(group.procs_path),
        ]  # fmt: skip
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                assert process.stdout
                if not any('"hold"' in line for line in process.stdout):
                    raise click.ClickException("the workload did not come to its hold")
                yield group
            finally:
                process.kill()


def timed(*argv: str) -> float:
    started_s = time.monotonic()
    run_tool(*argv)
    return time.monotonic() - started_s


def swap_on(device: str) -> None:
    run_tool("mkswap", device)
    run_tool("swapon", "--discard", "--priority", "32000", device)


@main.command()
@click.option("--rounds", default=3, show_default=True)
def tiers(rounds: int) -> None:
    """Taking pages back from disk: swapoff, drain then swapoff, tier remove; beside a swap file."""
    ctl = str(BIN / "vswapctl")
    figures: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        tier = f"{directory}/tier"
        options = ("--size", "1G", "--pool-limit", "1G", "--tier", f"{tier}:1G")
        for _ in range(rounds):
            for way in ("vswapfs swapoff", "vswapfs drain, swapoff", "vswapfs tier remove"):
                run_tool(ctl, "on", "bench", *options, "--priority", "32000")
                device = json_of(ctl, "status", "bench")[0]["loop_device"]
                try:
                    with held_pages() as group:
                        run_tool(ctl, "writeback", "bench", "--all")
                        moved_bytes = json_of(ctl, "tier", "list", "bench")["tiers"][0][
                            "used_bytes"
                        ]
                        group.set_limit(2 * HOLD_SIZE)
                        if way.endswith("remove"):
                            took_s = timed(ctl, "tier", "remove", "bench", tier)
                            figures.setdefault("tier remove, MB/s", []).append(
                                moved_bytes / took_s / 1e6
                            )
                        else:
                            drained_s = 0.0
                            if "drain" in way:
                                drained_s = timed(ctl, "drain", "bench")
                            took_s = drained_s + timed("swapoff", device)
                        figures.setdefault(way, []).append(took_s)
                finally:
                    run_tool(ctl, "off", "bench")
            swap_file = f"{directory}/swapfile"
            run_tool("fallocate", "--length", "1G", swap_file)
            Path(swap_file).chmod(0o600)
            swap_on(swap_file)
            try:
                with held_pages() as group:
                    group.set_limit(2 * HOLD_SIZE)
                    figures.setdefault("swap file swapoff", []).append(timed("swapoff", swap_file))
            finally:
                subprocess.run(["swapoff", swap_file], check=False, capture_output=True)
                Path(swap_file).unlink()
    table = Table("", title=f"{HOLD_SIZE // MIB} MiB less {HOLD_LIMIT // MIB} MiB swapped, median")
    table.add_column("s", justify="right")
    table.add_column("beside the swap file", justify="right")
    reference = statistics.median(figures["swap file swapoff"])
    rate = statistics.median(figures.pop("tier remove, MB/s"))
    for way, seconds in figures.items():
        median = statistics.median(seconds)
        table.add_row(way, f"{median:.2f}", f"{median / reference:.2f}")
    console.print(table)
    console.print(f"tier remove: {rate:.0f} MB/s of {moved_bytes / 1e6:.0f} MB in segments")


def json_of(*argv: str) -> Any:
    return msgspec.json.decode(run_tool(*argv, "--json"))


if __name__ == "__main__":
    main()
