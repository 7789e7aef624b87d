"""A process whose swapped pages are known: how many of which kind, and how many left its memory.

    python tests/known_pages.py CGROUP_PROCS ZERO SAME TEXT RANDOM

Moves into the cgroup, fills so many pages of each kind, one kind after the other, has them all
swapped out, and prints a JSON object with the number of pages of each kind that are in swap by its
own page table. Then it takes orders, a line each: ``free N`` gives every Nth page of what is left
back to the kernel and prints the numbers again; the end of its input ends it.
"""

import json
import mmap
import os
import random
import sys
from array import array
from pathlib import Path

PAGE_BYTES = 4096
KINDS = ("zero", "same", "text", "random")
MADV_PAGEOUT = 21
TRIES = 20


def contents(kind: str, number: int, rng: random.Random) -> bytes:
    if kind == "zero":
        return bytes(PAGE_BYTES)
    if kind == "same":
        return (number + 1).to_bytes(8, "little") * (PAGE_BYTES // 8)
    if kind == "text":
        return rng.randbytes(PAGE_BYTES // 4) + b"compressible" * 256
    return rng.randbytes(PAGE_BYTES)


def swapped(memory: mmap.mmap, address: int, ranges: dict[str, range]) -> dict[str, int]:
    with Path("/proc/self/pagemap").open("rb") as pagemap:
        pagemap.seek(address // PAGE_BYTES * 8)
        entries = array("Q", pagemap.read(len(memory) // PAGE_BYTES * 8))
    return {
        kind: sum(1 for number in numbers if entries[number] >> 62 == 1)
        for kind, numbers in ranges.items()
    }


def address_of(memory: mmap.mmap) -> int:
    import ctypes

    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def main() -> None:
    Path(sys.argv[1]).write_text("0")
    counts = dict(zip(KINDS, map(int, sys.argv[2:]), strict=True))
    memory = mmap.mmap(-1, sum(counts.values()) * PAGE_BYTES, flags=mmap.MAP_PRIVATE)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    rng = random.Random(os.getpid())
    ranges = {}
    number = 0
    for kind, count in counts.items():
        ranges[kind] = range(number, number + count)
        for number in ranges[kind]:
            memory[number * PAGE_BYTES : (number + 1) * PAGE_BYTES] = contents(kind, number, rng)
        number = ranges[kind].stop
    address = address_of(memory)
    for _ in range(TRIES):
        memory.madvise(MADV_PAGEOUT)
        found = swapped(memory, address, ranges)
        if found == counts:
            break
    print(json.dumps(found), flush=True)
    for line in sys.stdin:
        step = int(line.split()[1])
        for start in range(0, len(memory), step * PAGE_BYTES):
            memory.madvise(mmap.MADV_DONTNEED, start, PAGE_BYTES)
        print(json.dumps(swapped(memory, address, ranges)), flush=True)


if __name__ == "__main__":
    main()
