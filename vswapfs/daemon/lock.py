"""The instance's directory and lock: one daemon a name.

Owns /run/vswapfs/NAME. Always holds: while the lock is held no other daemon of that name runs.
Supervisor, worker and standby inherit one open file, so the kernel drops the lock with the last of
them, however they end.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from vswapfs.daemon import remains
from vswapfs.errors import HostError, InstanceError
from vswapfs.format import instance
from vswapfs.host import state


def holder(name: str) -> int | None:
    """The process id of the daemon that holds the name, or None if there is none."""
    try:
        fd = os.open(instance.lock_path(name), os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return int(os.read(fd, 20) or b"0")
    finally:
        os.close(fd)


def processes(name: str) -> list[int]:
    """The processes of the daemon: those that have the lock file open for writing."""
    path, found = instance.lock_path(name), []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            for fd in (process / "fd").iterdir():
                info = process / "fdinfo" / fd.name
                if str(fd.readlink()) == path and _is_writable(info.read_text()):
                    found.append(int(process.name))
                    break
    return found


def _is_writable(fdinfo: str) -> bool:
    flags = next(line.split()[1] for line in fdinfo.splitlines() if line.startswith("flags:"))
    return int(flags, 8) & os.O_ACCMODE == os.O_RDWR


@contextlib.contextmanager
def hold(name: str) -> Iterator[None]:
    """Make the directory and hold its lock; the directory is removed at the end.

    Raises InstanceError if the name is in use.
    """
    fd = acquire(name)
    try:
        yield
    finally:
        let_go(name, fd)


def let_go(name: str, fd: int) -> None:
    """Remove the directory and drop the lock, unless another process has it too."""
    # What could not be undone keeps its directory, so that `status` and `off` still see it.
    if not remains.find(name).is_there:
        state.remove(name)
        shutil.rmtree(instance.directory(name), ignore_errors=True)
    os.close(fd)


def write_holder(fd: int) -> None:
    """This process is the one to name."""
    pid = str(os.getpid()).encode()
    os.pwrite(fd, pid, 0)  # first: on a full file system it fails, and the old one stays
    os.ftruncate(fd, len(pid))


def acquire(name: str) -> int:
    """Make the directory and take its lock; the descriptor that holds it. ``let_go`` ends it.

    Raises InstanceError if the name is in use.
    """
    path = Path(instance.lock_path(name))
    was_there = path.parent.is_dir()
    deadline_s = time.monotonic() + 0.3
    while True:
        try:
            # Who cannot open it cannot lock it either (host/boost.py).
            path.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.parent.mkdir(mode=0o700, exist_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            # A predecessor may just have removed its directory.
            if isinstance(error, FileNotFoundError) and time.monotonic() < deadline_s:
                continue
            raise _not_made(path.parent, was_there, error) from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(fd, 20).decode()
            os.close(fd)
            if time.monotonic() < deadline_s:
                time.sleep(0.02)  # someone who only looks whether it is held has it for a moment
                continue
            raise InstanceError(
                f"{name} is in use by process {pid}: one daemon a name",
                remedy=f"give another name, or first: vswapctl off {name}",
            ) from None
        # Ours only if it is still the file at that path (see the removal above).
        try:
            if os.fstat(fd).st_ino == path.stat().st_ino:
                write_holder(fd)
                return fd
        except FileNotFoundError:
            pass
        except OSError as error:
            os.close(fd)
            raise _not_made(path.parent, was_there, error) from None
        os.close(fd)


def _not_made(directory: Path, was_there: bool, error: OSError) -> HostError:
    """Nothing that we made is left: it could not be taken down, for want of a lock."""
    if not was_there:
        shutil.rmtree(directory, ignore_errors=True)
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = f"see df {directory.parent}; df -i" if is_full else f"see ls -la {directory}"
    return HostError(f"make {directory}", error.strerror or "", remedy=remedy)
