"""A process that fills memory with 0xff, as memhog does, and says how fast.

python hog.py CGROUP_PROCS SIZE_BYTES
"""

import ctypes
import mmap
import sys
import time
from pathlib import Path
from typing import Final

CHUNK_BYTES: Final = 10_000_000  # memhog's


def main() -> None:
    size_bytes = int(sys.argv[2])
    Path(sys.argv[1]).write_text("0")
    memory = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)  # as the other workload: pages, one by one
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    began_s = time.perf_counter()
    for at in range(0, size_bytes, CHUNK_BYTES):
        ctypes.memset(address + at, 0xFF, min(CHUNK_BYTES, size_bytes - at))
    print(size_bytes / (time.perf_counter() - began_s) / 1e6)


if __name__ == "__main__":
    main()
