"""The state files: where an instance keeps what must outlive its worker.

Owns the tmpfs at /run/vswapfs/NAME/state and the files on it. Never maps them. Always holds: root
alone can open them, and no page of them is ever swapped out: not even in the moments in which no
process has them locked, because a takeover is under way (a plain memfd was swapped out then, 173 of
176 MB, to the very device that it serves). That takes the mount option noswap (Linux 6.4).
Without it the files are memfds, and the instance does not survive its worker.
"""

import contextlib
import ctypes
import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from vswapfs.errors import HostError
from vswapfs.format import instance
from vswapfs.host.region import memory_file

_MS_NOSUID_NODEV_NOEXEC: Final = 2 | 4 | 8
_MNT_DETACH: Final = 2

_libc = ctypes.CDLL(None, use_errno=True)


def make_files(
    name: str, sizes_bytes: Mapping[str, int], *, on_tmpfs: bool = True
) -> tuple[dict[str, int], bool]:
    """Sparse files of these sizes, by name: their descriptors, and whether they are on a tmpfs that
    is never swapped out.

    The instance's directory must be there. Raises HostError; nothing is left mounted then.
    """
    if not on_tmpfs or not _mount(name):
        return {
            part: memory_file(f"{name}-{part}", size) for part, size in sizes_bytes.items()
        }, False
    try:
        return {part: _make_file(name, part, size) for part, size in sizes_bytes.items()}, True
    except HostError:
        remove(name)
        raise


def _mount(name: str) -> bool:
    """False if this kernel has no such tmpfs."""
    path = Path(instance.state_directory(name))
    try:
        path.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise HostError(f"make {path}", error.strerror or "", remedy="see df and df -i") from None
    # Without a size: the pool has its own limit, and a store must not meet another one.
    result = _libc.mount(
        f"vswapfs-state-{name}".encode(), os.fsencode(path), b"tmpfs",
        ctypes.c_ulong(_MS_NOSUID_NODEV_NOEXEC), b"noswap,huge=never,mode=0700,size=0",
    )  # fmt: skip
    if result == 0:
        return True
    number = ctypes.get_errno()
    path.rmdir()
    if number == errno.EINVAL:
        return False
    remedy = "it needs CAP_SYS_ADMIN" if number == errno.EPERM else ""
    raise HostError(f"mount a tmpfs on {path}", os.strerror(number), remedy=remedy)


def _make_file(name: str, part: str, size_bytes: int) -> int:
    path = f"{instance.state_directory(name)}/{part}"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        os.ftruncate(fd, size_bytes)
    except OSError as error:
        raise HostError(f"make {path}", error.strerror or "") from None
    return fd


def remove(name: str) -> None:
    """Unmount what is there: its memory goes with the last process that has a file of it open."""
    path = Path(instance.state_directory(name))
    while path.is_dir() and _libc.umount2(os.fsencode(path), _MNT_DETACH) == 0:
        pass
    with contextlib.suppress(OSError):
        path.rmdir()


def is_there(name: str) -> bool:
    return Path(instance.state_directory(name)).is_dir()
