"""/dev/snapshot: the kernel's interface to a hibernation image for a program.

Owns the open device. Always holds: when it is closed, or the process dies, the kernel thaws all
tasks and forgets image and swap slots taken. Kernel: kernel/power/user.c,
Documentation/power/userland-swsusp.rst.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from vswapfs.errors import HostError
from vswapfs.units import PAGE_BYTES

DEVICE: Final = "/dev/snapshot"

_IO, _IOR, _IOW = 0, 2 << 30, 1 << 30


def _number(direction: int, number: int, size_bytes: int = 0) -> int:
    return direction | size_bytes << 16 | ord("3") << 8 | number


_FREEZE: Final = _number(_IO, 1)
_UNFREEZE: Final = _number(_IO, 2)
_ATOMIC_RESTORE: Final = _number(_IO, 4)
_FREE: Final = _number(_IO, 5)
_SET_SWAP_AREA: Final = _number(_IOW, 13, 12)
_CREATE_IMAGE: Final = _number(_IOW, 17, 4)
_PREF_IMAGE_SIZE: Final = _number(_IO, 18)
_AVAIL_SWAP_SIZE: Final = _number(_IOR, 19, 8)
_ALLOC_SWAP_PAGE: Final = _number(_IOR, 20, 8)

_SWAP_AREA: Final = struct.Struct("=QI")
_IMAGE_SIZE: Final = Path("/sys/power/image_size")

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)


class NoRoomError(HostError):
    """The kernel found no memory for the image."""


class BusyError(HostError):
    """Some task or device could not be frozen: it waits for something that was."""


class Snapshot:
    """The device, open for making an image or for restoring one."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._image_size_before: bytes | None = None
        # The kernel writes to this address once more after a restore, so it must be memory of
        # ours, and not a buffer that lives as long as a call.
        self._in_suspend = ctypes.c_int(0)

    @classmethod
    @contextlib.contextmanager
    def opened(cls, *, to_restore: bool) -> Iterator["Snapshot"]:
        """Raises HostError: among others, when somebody else has it open."""
        flags = os.O_WRONLY if to_restore else os.O_RDONLY
        try:
            fd = os.open(DEVICE, flags | os.O_CLOEXEC)
        except OSError as error:
            raise HostError(f"open {DEVICE}", _why_not_open(error)) from None
        snapshot = cls(fd)
        try:
            yield snapshot
        finally:
            os.close(fd)  # thaws, whatever happened
            snapshot._restore_image_size()

    # -- tasks ---------------------------------------------------------------------------------

    def freeze(self) -> None:
        """All tasks but the caller. Raises BusyError after the kernel's time-out, 20 s; all go on
        then."""
        self._do("freeze the tasks", _FREEZE)

    def thaw(self) -> None:
        self._do("thaw the tasks", _UNFREEZE)

    # -- swap slots ----------------------------------------------------------------------------

    def set_swap_area(self, device: str) -> None:
        """The swap area, a whole block device, that ``take_swap_slots`` takes from."""
        number = os.stat(device).st_rdev  # noqa: PTH116
        # Not makedev: the kernel decodes its own old form, 12 bits of it the major number.
        major, minor = os.major(number), os.minor(number)
        encoded = minor & 0xFF | major << 8 | (minor & ~0xFF) << 12
        self._ioctl("choose the swap area", _SET_SWAP_AREA, _SWAP_AREA.pack(0, encoded))

    def free_swap_bytes(self) -> int:
        """Of that area, what the kernel could still swap out to."""
        return self._get("read the free swap", _AVAIL_SWAP_SIZE)

    def take_swap_slots(self) -> int:
        """Take slots of the area until there is none; how many they were. They are the kernel's
        again when this is closed."""
        slot = bytearray(8)
        fd, ioctl, count = self._fd, fcntl.ioctl, 0
        try:
            while True:
                ioctl(fd, _ALLOC_SWAP_PAGE, slot)
                count += 1
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise HostError("take the free swap slots", _text(error)) from None
        return count

    # -- making an image -----------------------------------------------------------------------

    def prefer_image_bytes(self, size_bytes: int) -> None:
        """How much of memory the kernel keeps in the image, if there is room."""
        self._image_size_before = _IMAGE_SIZE.read_bytes()
        self._do("set the size of the image", _PREF_IMAGE_SIZE, size_bytes)

    def create(self) -> bool:
        """Take the image. True: it is there to be read. False: this is after the resume.

        Raises NoRoomError and BusyError; the tasks are still frozen then.
        """
        self._in_suspend.value = 0
        self._do("create the image", _CREATE_IMAGE, ctypes.addressof(self._in_suspend))
        return bool(self._in_suspend.value)

    def read_into(self, pages: Sequence[memoryview]) -> int:
        """Fill pages, at most 1024 and each of 4096 bytes, with what comes next; bytes read, less
        than asked for only at the end. Raises HostError."""
        try:
            # The kernel gives one page a call, but goes through all buffers of a readv.
            return os.readv(self._fd, pages)
        except OSError as error:
            raise HostError("read the image", _text(error)) from None

    def free(self) -> None:
        self._do("free the image", _FREE)

    # -- restoring -----------------------------------------------------------------------------

    def write(self, pages: Sequence[memoryview]) -> None:
        """The next pages of an image. Raises HostError, and nothing was restored."""
        remedy = "the machine must have the memory it had; this boot goes on without the image"
        try:
            count = os.writev(self._fd, pages)
        except OSError as error:
            reason = f"the kernel does not take it: {_text(error)}"
            raise HostError("load the image", reason, remedy=remedy) from None
        if count != sum(map(len, pages)):
            raise HostError("load the image", f"the kernel took only {count} bytes", remedy=remedy)

    def restore(self) -> None:
        """Become the machine of the image. Returns never, or raises HostError."""
        self._do("restore the image", _ATOMIC_RESTORE)
        raise HostError("restore the image", "the kernel came back without an error")

    # ------------------------------------------------------------------------------------------

    def _restore_image_size(self) -> None:
        if self._image_size_before is not None:
            _IMAGE_SIZE.write_bytes(self._image_size_before)

    def _do(self, step: str, number: int, argument: int = 0) -> None:
        # ctypes, not fcntl: the argument is a number, or the address of memory that stays.
        if _libc.ioctl(self._fd, number, argument) != 0:
            raise _error(step, ctypes.get_errno())

    def _ioctl(self, step: str, number: int, argument: bytes) -> bytes:
        try:
            return fcntl.ioctl(self._fd, number, argument)
        except OSError as error:
            raise _error(step, error.errno or 0) from None

    def _get(self, step: str, number: int) -> int:
        return int.from_bytes(self._ioctl(step, number, bytes(8)), "little")


def page_views(buffer: memoryview) -> list[memoryview]:
    """The pages of a buffer, for read_into and write."""
    return [buffer[at : at + PAGE_BYTES] for at in range(0, len(buffer), PAGE_BYTES)]


def _error(step: str, number: int) -> HostError:
    kind = {errno.ENOMEM: NoRoomError, errno.EBUSY: BusyError}.get(number, HostError)
    return kind(step, os.strerror(number))


def _text(error: OSError) -> str:
    return error.strerror or str(error)


def _why_not_open(error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "this kernel has no CONFIG_HIBERNATION_SNAPSHOT_DEV"
    if error.errno == errno.EPERM:
        return "hibernation is off: locked down, nohibernate, or secretmem is in use"
    if error.errno == errno.EBUSY:
        return "another hibernation is under way"
    return _text(error)
