"""Mounting: /dev/fuse, mount(2), the socket pair to pyfuse3, and unmounting.

Owns none of the descriptors it returns. Never serves a request. pyfuse3 gets the pair's other end
as mount point /dev/fd/N, which libfuse takes for a session that is mounted already.
"""

import ctypes
import errno
import os
import re
import socket
from pathlib import Path
from typing import Final

from vswapfs import procfs
from vswapfs.errors import HostError
from vswapfs.fuse.wire import MAX_REQUEST_BYTES

FILE_SYSTEM_TYPE: Final = "fuse.vswapfs"
_MS_NOSUID_NODEV_NOEXEC: Final = 2 | 4 | 8
_SO_SNDBUFFORCE: Final = 32  # not in the socket module
_PAIR_BUFFER_BYTES: Final = 1 << 20

_MOUNTINFO: Final = Path("/proc/self/mountinfo")

_libc = ctypes.CDLL(None, use_errno=True)


def is_mountpoint(path: str) -> bool:
    """Whether something is mounted there. Does not touch the mount, which may be dead."""
    return any(fields[4] == _escaped(path) for fields in _mountinfo())


def find(name: str) -> tuple[str, int] | None:
    """Where the instance is mounted and the number of its FUSE connection, also if it is dead."""
    for fields in _mountinfo():
        kind, source = fields[fields.index("-") + 1 :][:2]
        if (kind, source) == (FILE_SYSTEM_TYPE, _source(name)):
            path = re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
            return path, int(fields[2].partition(":")[2])
    return None


def mount(path: str, name: str) -> int:
    """Mount on the directory and return the descriptor of the device.

    Raises HostError with the reason; nothing is left mounted or open then.
    """
    try:
        device_fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise HostError(
            "open /dev/fuse", error.strerror or "", remedy="modprobe fuse, or install fuse3"
        ) from None
    options = (
        f"fd={device_fd},rootmode=40000,user_id=0,group_id=0,default_permissions,"
        f"max_read={MAX_REQUEST_BYTES}"
    )
    result = _libc.mount(
        _source(name).encode(),
        os.fsencode(path),
        FILE_SYSTEM_TYPE.encode(),
        ctypes.c_ulong(_MS_NOSUID_NODEV_NOEXEC),
        options.encode(),
    )
    if result != 0:
        number = ctypes.get_errno()
        os.close(device_fd)
        remedy = "it needs CAP_SYS_ADMIN" if number == errno.EPERM else ""
        raise HostError(f"mount on {path}", os.strerror(number), remedy=remedy)
    return device_fd


def make_pair() -> tuple[int, int]:
    """The lane's end of the pair, which never blocks, and pyfuse3's."""
    lane_end, pyfuse3_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (lane_end, pyfuse3_end):
        try:
            end.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _PAIR_BUFFER_BYTES)
        except PermissionError:
            # Without CAP_NET_ADMIN as much as anybody gets, which is enough for names and figures.
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PAIR_BUFFER_BYTES)
    lane_end.setblocking(False)
    return lane_end.detach(), pyfuse3_end.detach()


def unmount(path: str, *, lazily: bool = False) -> None:
    """Unmount. Raises HostError, with the remedy if it is busy; it stays mounted then."""
    mnt_detach = 2
    if _libc.umount2(os.fsencode(path), mnt_detach if lazily else 0) != 0:
        number = ctypes.get_errno()
        remedy = f"see who uses it: fuser -vm {path}" if number == errno.EBUSY else ""
        raise HostError(f"unmount {path}", os.strerror(number), remedy=remedy)


def abort(connection: int) -> None:
    """End a FUSE connection that nobody serves: every waiting request gets an error."""
    control = Path("/sys/fs/fuse/connections")
    borrowed = not is_mountpoint(str(control))
    if borrowed and _libc.mount(
        b"fusectl", os.fsencode(control), b"fusectl", ctypes.c_ulong(0), None
    ):
        raise HostError(f"mount fusectl on {control}", os.strerror(ctypes.get_errno()))
    try:
        (control / str(connection) / "abort").write_text("1")
    except OSError as error:
        raise HostError(f"abort FUSE connection {connection}", error.strerror or "") from None
    finally:
        if borrowed:
            unmount(str(control))


def _source(name: str) -> str:
    return f"vswapfs-{name}"


def _mountinfo() -> list[list[str]]:
    return [line.split(" ") for line in procfs.lines(_MOUNTINFO)]


def _escaped(path: str) -> str:
    """A path as /proc/self/mountinfo writes it."""
    for character in "\\ \t\n":
        path = path.replace(character, f"\\{ord(character):03o}")
    return path
