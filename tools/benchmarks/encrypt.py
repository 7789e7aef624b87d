"""What --encrypt costs: a page on a tier beside the same without it, and the ciphers by themselves.

Owns the order: rounds alternate, and a ratio is that of the medians. Pages are stored and read
through a loop device, past the page cache; nothing is swapped to it.
"""

import mmap
import os
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from rich.table import Table

from benchmarks.host import MIB, VSWAPCTL, cpu_s, timed_s, vswapctl_json
from benchmarks.peers import DISK_DIRECTORY, INSTANCE, vswapfs_device
from benchmarks.report import console
from benchmarks.scale import median_us
from vswapfs.format.chunk import BLOCK_BYTES, TAG_BYTES
from vswapfs.units import PAGE_BYTES

PLAIN, ENCRYPTED = "plain", "--encrypt"
HELD_BYTES: Final = 256 * MIB
AREA_BYTES: Final = 2 * HELD_BYTES
TIMEOUT_S: Final = 300.0
PAGES: Final = HELD_BYTES // PAGE_BYTES
RANDOM_READS: Final = 2000
IN_ORDER_BYTES: Final = 128 << 10
CHUNK_BLOCKS: Final = (1, 4, 16, 256)
CIPHERS: Final[dict[str, type[AESGCM] | type[ChaCha20Poly1305]]] = {
    "AES-256-GCM": AESGCM,
    "ChaCha20-Poly1305": ChaCha20Poly1305,
}
CIPHER_ROUNDS: Final = 25

Figures = dict[str, float]


def measure(rounds: int) -> None:
    """Prints both tables."""
    ciphers()
    found: dict[str, list[Figures]] = defaultdict(list)
    for number in range(rounds):
        for way in (PLAIN, ENCRYPTED) if number % 2 else (ENCRYPTED, PLAIN):
            with console.status(f"round {number + 1}, {way}"):
                found[way].append(on_a_tier(way))
    title = f"{HELD_BYTES // MIB} MiB of pages that compress to half, on a file tier, median"
    table = Table("", PLAIN, ENCRYPTED, "ratio", title=title)
    for case in found[PLAIN][0]:
        plain, encrypted = (
            statistics.median(each[case] for each in found[way]) for way in (PLAIN, ENCRYPTED)
        )
        table.add_row(case, f"{plain:.1f}", f"{encrypted:.1f}", f"{encrypted / plain:.2f}")
    console.print(table)


def on_a_tier(way: str) -> Figures:
    """One instance, from its pages being stored to their being back in RAM."""
    size = str(AREA_BYTES)
    with tempfile.TemporaryDirectory(dir=DISK_DIRECTORY) as directory:
        options = ["--size", size, "--pool-limit", size, "--tier", f"{directory}/tier:{size}"]
        options += ["--encrypt"] if way == ENCRYPTED else []
        with vswapfs_device(*options) as device:
            return _figures(device.path)


def _figures(path: str) -> Figures:
    (status,) = vswapctl_json("status", INSTANCE)
    worker = (status["worker_pid"],)
    fd = os.open(path, os.O_RDWR | os.O_DIRECT)
    try:
        _fill(fd)
        figures: Figures = {}
        began_s = cpu_s(worker)
        took_s = timed_s(VSWAPCTL, "writeback", INSTANCE, "--all", timeout_s=TIMEOUT_S)
        (tier,) = vswapctl_json("tier", "list", INSTANCE)["tiers"]
        figures["write out: MB/s"] = tier["written_bytes"] / took_s / 1e6
        figures["write out: processor us a page"] = (cpu_s(worker) - began_s) / PAGES * 1e6
        page = mmap.mmap(-1, PAGE_BYTES)
        rng = random.Random(1)
        offsets = [rng.randrange(PAGES) * PAGE_BYTES for _ in range(RANDOM_READS)]
        figures["read 4 KiB at random: us"] = median_us(
            lambda at: os.preadv(fd, [page], at), offsets
        )
        began_s = cpu_s(worker)
        run_s = _timed_s(lambda: _read_in_order(fd))
        figures["read 128 KiB in order: MB/s"] = HELD_BYTES / run_s / 1e6
        figures["read in order: processor us a page"] = (cpu_s(worker) - began_s) / PAGES * 1e6
        took_s = timed_s(VSWAPCTL, "drain", INSTANCE, timeout_s=TIMEOUT_S)
        figures["take back: MB/s"] = tier["written_bytes"] / took_s / 1e6
        return figures
    finally:
        os.close(fd)


def _fill(fd: int) -> None:
    buffer = mmap.mmap(-1, IN_ORDER_BYTES)
    for start in range(0, HELD_BYTES, IN_ORDER_BYTES):
        for at in range(0, IN_ORDER_BYTES, PAGE_BYTES):
            buffer[at : at + PAGE_BYTES // 2] = os.urandom(PAGE_BYTES // 2)
        os.pwritev(fd, [buffer], start)


def _read_in_order(fd: int) -> None:
    buffer = mmap.mmap(-1, IN_ORDER_BYTES)
    for start in range(0, HELD_BYTES, IN_ORDER_BYTES):
        os.preadv(fd, [buffer], start)


def _timed_s(step: Callable[[], None]) -> float:
    began_s = time.perf_counter()
    step()
    return time.perf_counter() - began_s


def ciphers() -> None:
    """By the length of what gets a tag of its own; a segment is 256 blocks."""
    took: dict[tuple[str, int, str], list[float]] = defaultdict(list)
    for _ in range(CIPHER_ROUNDS):
        for name, make in CIPHERS.items():
            cipher = make(os.urandom(32))
            for blocks in CHUNK_BLOCKS:
                plain = memoryview(os.urandom(blocks * BLOCK_BYTES - TAG_BYTES))
                into = memoryview(mmap.mmap(-1, blocks * BLOCK_BYTES))
                count = CHUNK_BLOCKS[-1] // blocks

                def encrypt() -> None:
                    for number in range(count):  # noqa: B023
                        cipher.encrypt_into(number.to_bytes(12, "little"), plain, None, into)  # noqa: B023

                def decrypt() -> None:
                    nonce = (count - 1).to_bytes(12, "little")  # noqa: B023
                    for _ in range(count):  # noqa: B023
                        cipher.decrypt(nonce, into, None)  # noqa: B023

                took[name, blocks, "encrypt"].append(_timed_s(encrypt) / count)
                took[name, blocks, "decrypt"].append(_timed_s(decrypt) / count)
    table = Table(
        "cipher", "blocks a tag", "encrypt a segment, us", "decrypt one chunk, us",
        title=f"median of {CIPHER_ROUNDS}",
    )  # fmt: skip
    for name in CIPHERS:
        for blocks in CHUNK_BLOCKS:
            segment_s = statistics.median(took[name, blocks, "encrypt"]) * CHUNK_BLOCKS[-1] / blocks
            chunk_s = statistics.median(took[name, blocks, "decrypt"])
            table.add_row(name, str(blocks), f"{segment_s * 1e6:.0f}", f"{chunk_s * 1e6:.1f}")
    console.print(table)
