"""Processes that fill memory with words, touch it at random and free it, as usemem does.

Owns the timing of what they do at the same time: each of the three steps begins together in all of
them, and lasts from the first begin to the last end. Always holds: no page is same-filled, no two
are alike, and all compress to half, as those of usemem do; a page that comes back without its own
first word ends the run.

    python usemem.py CGROUP_PROCS SIZE_BYTES PROCESSES TOUCHES

Size and touches are of all processes together.
"""

import json
import mmap
import multiprocessing
import random
import struct
import sys
import time
from array import array
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Final

from vswapfs.units import PAGE_BYTES

STEPS: Final = ("sequential", "random", "free")
WORD: Final = struct.Struct("<Q")
PAGE_WORDS: Final = PAGE_BYTES // WORD.size

Span = tuple[float, float]
"""When a step began and ended, on the clock that all processes share."""


def use(
    procs: Path, number: int, page_count: int, touches: int, together: Barrier, answer: Connection
) -> None:
    """What one process does."""
    procs.write_text("0")
    memory = mmap.mmap(-1, page_count * PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)  # as the other workloads: pages, one by one
    first_word = number * page_count * PAGE_WORDS
    words = array("Q", range(first_word, first_word + PAGE_WORDS)).tobytes()
    rng = random.Random(number)

    def fill() -> None:
        for page in range(page_count):
            at = page * PAGE_BYTES
            memory[at : at + PAGE_BYTES] = words
            WORD.pack_into(memory, at, first_word + page)

    def touch() -> None:
        for _ in range(touches):
            page = rng.randrange(page_count)
            at = page * PAGE_BYTES
            if WORD.unpack_from(memory, at) != (first_word + page,):
                sys.exit(f"usemem: page {page} of process {number} is not what was written")
            WORD.pack_into(memory, at, first_word + page)

    def timed(step: Callable[[], None]) -> Span:
        together.wait()
        began_s = time.monotonic()
        step()
        return began_s, time.monotonic()

    answer.send([timed(step) for step in (fill, touch, memory.close)])


def main() -> int:
    procs, size_bytes, process_count, touches = Path(sys.argv[1]), *map(int, sys.argv[2:])
    context = multiprocessing.get_context("fork")
    together = context.Barrier(process_count)
    pairs = [context.Pipe(duplex=False) for _ in range(process_count)]
    processes = [
        context.Process(
            target=use,
            args=(
                procs,
                number,
                size_bytes // PAGE_BYTES // process_count,
                touches // process_count,
                together,
                theirs,
            ),
        )
        for number, (_, theirs) in enumerate(pairs)
    ]
    for process in processes:
        process.start()
    pending = processes
    while pending:
        wait([process.sentinel for process in pending])
        pending = [process for process in pending if process.is_alive()]
        if any(process.exitcode for process in processes):
            together.abort()  # or the others would wait for it for ever
    if any(process.exitcode for process in processes):
        codes = {process.exitcode for process in processes}
        sys.exit(f"usemem: a process was killed or found a wrong page: exit codes {codes}")
    spans: list[list[Span]] = [ours.recv() for ours, _ in pairs]
    took_s = {
        step: max(end for _, end in of_all) - min(begin for begin, _ in of_all)
        for step, of_all in zip(STEPS, zip(*spans, strict=True), strict=True)
    }
    print(json.dumps(took_s))
    return 0


if __name__ == "__main__":
    sys.exit(main())
