"""Protections of a process that memory reclaim may come to depend on; each with its outcome.

Owns mlockall, PR_SET_IO_FLUSHER, the OOM score, core dumps and the collector's freeze. Never
decides what to do when one is refused. Whole-machine pressure needs the first two, or the kernel
waits for us while we wait for the kernel (measured in a guest: docs/swap-safety.md).
"""

import ctypes
import gc
import os
from pathlib import Path
from typing import Final, NamedTuple

from vswapfs import procfs

_MCL_CURRENT_FUTURE: Final = 1 | 2
_MCL_CURRENT_FUTURE_ONFAULT: Final = _MCL_CURRENT_FUTURE | 4
_MADV_POPULATE_READ: Final = 22
_PR_SET_DUMPABLE: Final = 4
_PR_SET_IO_FLUSHER: Final = 57

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_NEVER_TRIM: Final = 0x7FFF_FFFF
_MMAP_THRESHOLD_BYTES: Final = 16 << 20
"""Above the largest request, which is copied when it has to wait."""
_C_HEAP_BYTES: Final = 3 << 19
"""Requests that have to wait are copied to it, of 256 KiB each at most (host/loop.py)."""
_OBJECTS_BYTES: Final = 1 << 20
_BLOCK_BYTES: Final = 400
"""Of Python's own allocator, which takes arenas of 1 MiB, and the pages of one as it first needs
them."""
_BLOCKS_A_KEPT: Final = 512
"""Enough kept in each arena that none is given back."""

_kept_blocks: list[bytes] = []

_libc = ctypes.CDLL(None, use_errno=True)


class Outcome(NamedTuple):
    """Whether a protection holds, and in words what was found."""

    name: str
    ok: bool
    detail: str


def lock_memory() -> Outcome:
    """Keep every page of this process, once touched, in RAM."""
    if _libc.mlockall(_MCL_CURRENT_FUTURE_ONFAULT) == 0:
        _bring_back()
        return Outcome("mlockall", True, "memory is locked as it is touched")
    reason = os.strerror(ctypes.get_errno())
    return Outcome("mlockall", False, f"{reason}: our own memory may be swapped out to ourselves")


def _bring_back() -> None:
    """What was swapped out while the process started: it would be asked of the device that we
    serve, and maybe when nobody else does."""
    start = stop = 0
    for line in procfs.lines(Path("/proc/self/smaps")):
        word, *rest = line.split()
        if word == "Swap:" and rest[0] != "0":
            size = ctypes.c_size_t(stop - start)
            _libc.madvise(ctypes.c_void_p(start), size, _MADV_POPULATE_READ)
        elif not word.endswith(":"):
            start, stop = (int(address, 16) for address in word.split("-"))


def lock_all_memory() -> bool:
    """Keep every page of this process in RAM, and take it now: for a process that is small."""
    return bool(_libc.mlockall(_MCL_CURRENT_FUTURE) == 0)


def flush_io_thread() -> Outcome:
    """Tell the kernel that this thread must never wait for memory that it is to free itself."""
    if _libc.prctl(_PR_SET_IO_FLUSHER, 1, 0, 0, 0) == 0:
        return Outcome("io_flusher", True, "page I/O does not wait for reclaim")
    reason = os.strerror(ctypes.get_errno())
    return Outcome(
        "io_flusher",
        False,
        f"{reason} (needs CAP_SYS_RESOURCE): only swap confined to a memory cgroup is safe",
    )


def spare_from_oom_killer() -> Outcome:
    """Ask not to be chosen by the OOM killer: every swapped page would be lost."""
    score = Path("/proc/self/oom_score_adj")
    try:
        score.write_text("-1000")
    except OSError as error:
        return Outcome(
            "oom_score_adj",
            False,
            f"{error.strerror} (needs CAP_SYS_RESOURCE): stays {score.read_text().strip()}",
        )
    return Outcome("oom_score_adj", True, "-1000: the OOM killer passes us over")


def refuse_core_dumps() -> Outcome:
    """Never let the kernel write this process's memory, pages and key, to a disk."""
    if _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0:
        return Outcome("core_dumps", True, "none, whatever happens")
    reason = os.strerror(ctypes.get_errno())
    return Outcome("core_dumps", False, f"{reason}: a core dump would have the key in it")


def keep_heap() -> None:
    """Have the C library keep memory that was freed, in one heap for all threads: what is given
    back has to be taken again, maybe when there is none.

    Before any other thread is started.
    """
    _libc.mallopt(_M_ARENA_MAX, 1)
    _libc.mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)
    _libc.mallopt(_M_TRIM_THRESHOLD, _NEVER_TRIM)


def fill_heap() -> None:
    """Have memory in hand for objects to come, small ones and others: a thread that waits for some
    in the middle of an object has the interpreter, and nobody else gets on.

    Once most of what stays is there.
    """
    bytearray(b"\xff") * _C_HEAP_BYTES
    blocks = [bytes(_BLOCK_BYTES) for _ in range(_OBJECTS_BYTES // _BLOCK_BYTES)]
    _kept_blocks.extend(blocks[::_BLOCKS_A_KEPT])


def freeze_collector() -> Outcome:
    """Take all objects that exist out of the cyclic collector's sight: shorter pauses."""
    gc.collect()
    gc.freeze()
    return Outcome("gc_freeze", True, f"{gc.get_freeze_count()} objects out of its sight")
