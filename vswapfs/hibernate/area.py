"""The block device that an image is written to, opened or refused.

Owns the decision what may be overwritten: an image of ours, or nothing at all. Never a file: when
the image is read again, no file system is mounted. Always holds for what it returns: nobody else
has it mounted or swaps to it, and transfers go past the page cache.
"""

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator

from vswapfs.backing.claim import Claim, find_contents, used_as_swap_or_loop
from vswapfs.backing.file import FileBacking
from vswapfs.errors import HostError, UsageError
from vswapfs.format.image import AREA_MIN_BYTES, BLOCK_BYTES, HEADER_BYTES, is_image
from vswapfs.units import format_size


@contextlib.contextmanager
def opened(path: str, size_bytes: int | None = None) -> Iterator[FileBacking]:
    """``size_bytes`` of a device, to write an image to; without it all of it, to read one.

    Raises UsageError for a size that cannot be, and HostError.
    """
    step = f"open image area {path}"
    if size_bytes is not None and (size_bytes < AREA_MIN_BYTES or size_bytes % BLOCK_BYTES):
        raise UsageError(
            f"an image area of {size_bytes} bytes: whole blocks of {BLOCK_BYTES} bytes, and at "
            f"least {format_size(AREA_MIN_BYTES)}",
            remedy="as much as half of the machine's memory is always enough",
        )
    try:
        fd = _open(step, path)
    except OSError as error:
        raise HostError(step, error.strerror or str(error)) from None
    try:
        present_bytes = os.lseek(fd, 0, os.SEEK_END) // BLOCK_BYTES * BLOCK_BYTES
        if size_bytes is not None:
            _refuse(step, path, fd, size_bytes, present_bytes)
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_DIRECT)
        claim = Claim(fd, is_device=True, created=False, previous=None)
        yield FileBacking(claim, size_bytes or present_bytes)
    finally:
        os.close(fd)


def _open(step: str, path: str) -> int:
    if not stat.S_ISBLK(os.stat(path).st_mode):  # noqa: PTH116
        raise HostError(
            step,
            "not a block device: when the image is read again, no file system is mounted",
            remedy="a partition, or a logical volume",
        )
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_EXCL)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        raise HostError(
            step,
            "the device is in use: mounted, swapped to or part of another device",
            remedy=f"see what uses it: lsblk {path}",
        ) from None


def _refuse(step: str, path: str, fd: int, size_bytes: int, present_bytes: int) -> None:
    if user := used_as_swap_or_loop(path):
        raise HostError(step, f"it is in use: {user}")
    if size_bytes > present_bytes:
        raise HostError(
            step,
            f"{size_bytes} bytes are more than the device has: {present_bytes}",
            remedy=f"at most {present_bytes}",
        )
    if is_image(os.pread(fd, HEADER_BYTES, 0)):
        return
    if found := find_contents(path, fd, None):
        raise HostError(
            step,
            f"it is not empty: {found}",
            remedy=f"if nothing on it is needed: wipefs -a {path}; blkdiscard -z {path}",
        )
