"""Benchmarks: one subcommand each; every figure in docs/ names the subcommand that printed it.

Owns the measuring. Never asserts: a figure is printed, not judged.
"""

import mmap
import os
import re
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from vswapfs.units import PAGE_BYTES, format_size

BIN = Path(__file__).parent.parent / ".venv/bin"
CHUNK_PAGES = 256
MIB = 1 << 20

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


if __name__ == "__main__":
    main()
