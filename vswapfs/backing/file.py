"""A regular file or block device as a medium, past the page cache.

Owns the open file for its lifetime, and with it the claim to the medium (claim.py). Never caches a
byte: data of swap in the page cache would take the memory that swap has to free. Always holds: a
file was preallocated when it was opened, so that only after a trim can a write find no space.
"""

import ctypes
import errno
import fcntl
import logging
import mmap
import os
import struct
from pathlib import Path
from typing import Final

from vswapfs.backing.api import BLOCK_BYTES, check_range
from vswapfs.backing.claim import Claim, claim, claim_again
from vswapfs.errors import HostError
from vswapfs.format.tier import SUPERBLOCK_BYTES, SUPERBLOCK_COPY_OFFSET, Superblock
from vswapfs.units import format_size

_log = logging.getLogger(__name__)

_BLKDISCARD: Final = 0x1277
_PUNCH_HOLE_KEEP_SIZE: Final = 1 | 2
_NOT_SUPPORTED: Final = (errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOTTY)
_FIRST_BYTES: Final = 1 << 20

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class FileBacking:
    """A Backing over an open file; see api.py for the contract."""

    def __init__(self, taken: Claim, size_bytes: int) -> None:
        self._fd = taken.fd
        self._is_device = taken.is_device
        self._size_bytes = size_bytes
        self._can_trim = True
        self._created = taken.created
        self.previous = taken.previous
        """See Claim."""

    @classmethod
    def open(cls, path: str, size_bytes: int, *, overwrite: bool, owner: str) -> "FileBacking":
        """Take a file or device; a file that does not exist is created. See claim.py.

        Whatever was there is gone: a file reads as zero, a device too where discarding it does
        that, and in its first MiB in any case. Only superblocks of an earlier tier of ``owner``
        stay until they are replaced, so that one is there if the power goes before. Raises
        UsageError and HostError; nothing was created or, without ``overwrite``, destroyed then,
        except perhaps an earlier tier of ``owner``.
        """
        taken = claim(path, size_bytes, overwrite=overwrite, owner=owner)
        try:
            if taken.is_device:
                backing = cls(taken, size_bytes)
                backing._use_direct_io(path)
                backing._clear_device(path)
            else:
                _preallocate(path, taken, size_bytes)
                backing = cls(taken, size_bytes)
                backing._use_direct_io(path)
                _keep_from_others(path, taken.fd)
        except BaseException:
            if taken.created:
                Path(path).unlink(missing_ok=True)
            os.close(taken.fd)
            raise
        return backing

    @classmethod
    def open_again(
        cls, path: str, size_bytes: int, uuid: bytes
    ) -> tuple["FileBacking", Superblock]:
        """Take over from a process that has ended; nothing changes. Raises HostError."""
        taken, superblock = claim_again(path, uuid)
        backing = cls(taken, size_bytes)
        try:
            backing._use_direct_io(path)
        except BaseException:
            backing.close()
            raise
        return backing, superblock

    @property
    def size_bytes(self) -> int:
        return self._size_bytes

    @property
    def direct_fd(self) -> int:
        return self._fd

    def read_into(self, offset: int, buffer: memoryview) -> None:
        check_range(self._size_bytes, offset, len(buffer))
        done = 0
        while done < len(buffer):
            count = os.preadv(self._fd, [buffer[done:]], offset + done)
            done += _whole_blocks(count, "read", offset + done)

    def write(self, offset: int, buffer: memoryview) -> None:
        check_range(self._size_bytes, offset, len(buffer))
        done = 0
        while done < len(buffer):
            count = os.pwritev(self._fd, [buffer[done:]], offset + done)
            done += _whole_blocks(count, "write", offset + done)

    def trim(self, offset: int, length: int) -> bool:
        check_range(self._size_bytes, offset, length)
        if not self._can_trim or not length:
            return self._can_trim
        try:
            if self._is_device:
                # A bytearray, to be changed: only then does ioctl let other threads run meanwhile.
                span = bytearray(struct.pack("=QQ", offset, length))
                fcntl.ioctl(self._fd, _BLKDISCARD, span, True)
            else:
                _fallocate(self._fd, _PUNCH_HOLE_KEEP_SIZE, offset, length)
        except OSError as error:
            if error.errno not in _NOT_SUPPORTED:
                raise
            self._can_trim = False
            path = os.readlink(f"/proc/self/fd/{self._fd}")  # noqa: PTH115
            _log.warning("%s: trim: %s: it is not asked again", path, error.strerror)
        return self._can_trim

    def flush(self) -> None:
        os.fdatasync(self._fd)

    def unmake(self, path: str) -> None:
        """It was taken in vain: remove the file, if there was none before."""
        if self._created and self.is_at(path):
            Path(path).unlink()

    def close(self) -> None:
        # -1, so that a call that should not follow fails and does not reach another file.
        fd, self._fd = self._fd, -1
        os.close(fd)

    def is_at(self, path: str) -> bool:
        """Whether the path still leads there. Blocks."""
        try:
            found, mine = Path(path).stat(), os.fstat(self._fd)
        except OSError:
            return False
        if self._is_device:
            return found.st_rdev == mine.st_rdev
        return os.path.samestat(found, mine)

    def _use_direct_io(self, path: str) -> None:
        # Not in open(2): there a file system that refuses it may have created the file already.
        flags = fcntl.fcntl(self._fd, fcntl.F_GETFL)
        try:
            fcntl.fcntl(self._fd, fcntl.F_SETFL, flags | os.O_DIRECT)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise HostError(f"open tier {path}", error.strerror or "") from None
            _log.warning(
                "%s: no direct I/O on this file system: its pages go through the page cache", path
            )

    def _clear_device(self, path: str) -> None:
        """Tell the device that nothing on it is needed, and take away its signatures."""
        try:
            with mmap.mmap(-1, _FIRST_BYTES) as zeros, memoryview(zeros) as view:
                for start, stop in _to_clear(self.previous, self._size_bytes):
                    self.trim(start, stop - start)
                    if start < _FIRST_BYTES:
                        self.write(start, view[: min(stop, _FIRST_BYTES) - start])
        except OSError as error:
            raise HostError(f"clear {path}", error.strerror or str(error)) from None


def _to_clear(previous: Superblock | None, size_bytes: int) -> list[tuple[int, int]]:
    """The byte ranges of a medium that are cleared when it is taken."""
    if previous is None:
        return [(0, size_bytes)]
    return [
        (SUPERBLOCK_BYTES, SUPERBLOCK_COPY_OFFSET),
        (SUPERBLOCK_COPY_OFFSET + SUPERBLOCK_BYTES, size_bytes),
    ]


def _keep_from_others(path: str, fd: int) -> None:
    """A file that was there may be anybody's to read: everybody's memory will be in it."""
    try:
        os.fchown(fd, os.geteuid(), os.getegid())
        os.fchmod(fd, 0o600)
    except OSError as error:
        raise HostError(f"make {path} readable by root only", error.strerror or "") from None


def _whole_blocks(count: int, verb: str, offset: int) -> int:
    """How far a transfer came, in whole blocks. Raises OSError(EIO) if it did not move at all."""
    if count < BLOCK_BYTES:
        raise OSError(errno.EIO, f"short {verb} at byte {offset}: {count} bytes")
    return count - count % BLOCK_BYTES


def _preallocate(path: str, taken: Claim, size_bytes: int) -> None:
    """Give the file blocks for its whole size, all zero. On failure it has its size of before."""
    before_bytes = os.fstat(taken.fd).st_size
    try:
        # Asked first: a failing fallocate fills the file system before it gives up.
        space = os.fstatvfs(taken.fd)
        room_bytes = space.f_bavail * space.f_frsize + os.fstat(taken.fd).st_blocks * 512
        if space.f_blocks and size_bytes > room_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        _fallocate(taken.fd, 0, 0, size_bytes)
        if before_bytes:
            # Only now that the size is known to fit: holes read as zero, then get blocks again.
            for start, stop in _to_clear(taken.previous, size_bytes):
                _fallocate(taken.fd, _PUNCH_HOLE_KEEP_SIZE, start, stop - start)
            _fallocate(taken.fd, 0, 0, size_bytes)
    except OSError as error:
        free = os.fstatvfs(taken.fd)
        os.ftruncate(taken.fd, before_bytes)
        step = f"preallocate {path}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise HostError(
                step,
                f"no space for {format_size(size_bytes)}; "
                f"{format_size(free.f_bavail * free.f_frsize)} were free",
                remedy="make room, or give a smaller tier",
            ) from None
        if error.errno in _NOT_SUPPORTED:
            raise HostError(
                step,
                "this file system cannot preallocate",
                remedy="take a file on ext4, xfs or btrfs, or a block device",
            ) from None
        raise HostError(step, error.strerror or str(error)) from None


def _fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    while _libc.fallocate(fd, mode, offset, length) != 0:
        number = ctypes.get_errno()
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))
