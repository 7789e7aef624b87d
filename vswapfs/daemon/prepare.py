"""The first part of a start: what the supervisor will hold. Then the process becomes it (execv).

Owns the checks before anything is changed, the lock, the state files and the mount. Undoes them
when one fails. A process of its own in all but its id: the supervisor carries nothing of it.
"""

import os
import sys
import time
from pathlib import Path
from typing import Final, NoReturn

from vswapfs.daemon import lock, takedown
from vswapfs.daemon.cipher import check_library
from vswapfs.daemon.config import make_geometry
from vswapfs.daemon.handover import BUFFER_PARTS, JOURNAL_PART, SESSION_PART, Handed, command_line
from vswapfs.daemon.report import Reporter
from vswapfs.errors import HostError, PermissionRefusedError, UsageError
from vswapfs.format import instance
from vswapfs.format.message import Config, encode
from vswapfs.format.session import SESSION_BYTES, Field
from vswapfs.fuse import mount
from vswapfs.fuse.journal import JOURNAL_BYTES
from vswapfs.host import limits, state

FORCE: Final = "VSWAPFS_FORCE"
"""An environment variable for tests: ``journal``, as if the kernel could not resend requests, or
``memfd``, as if it had no tmpfs that is never swapped out."""


def start(config: Config, reporter: Reporter, *, foreground: bool) -> NoReturn:
    """Raises VswapError when it cannot be brought up; nothing is left then."""
    instance.check_name(config.name)
    if os.geteuid() != 0:
        raise PermissionRefusedError("this needs root", remedy="use sudo")
    geometry = make_geometry(config)
    if config.encrypt:
        check_library()
    limits.lift()
    os.chdir("/")  # pin no file system
    name = config.name
    lock_fd = lock.acquire(name)
    try:
        if takedown.is_needed(name):
            reporter.step("clean up after a daemon that was killed")
            takedown.take_down_remains(name, reporter.step, force=False)
        _check_mountpoint(config)
        forced = os.environ.get(FORCE, "")
        files, survives = state.make_files(
            name,
            {**geometry.sizes_bytes(), SESSION_PART: SESSION_BYTES, JOURNAL_PART: JOURNAL_BYTES},
            on_tmpfs=forced != "memfd",
        )
        handed = Handed(
            lock=lock_fd,
            device=-1,
            supervisor=os.pidfd_open(os.getpid()),
            bell=os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC),
            go=-1,
            session=files[SESSION_PART],
            **{part: files[part] for part in BUFFER_PARTS},
            journal=files[JOURNAL_PART],
        )
        session = handed.open_session()
        session.begin(encode(config))
        session[Field.SURVIVES] = survives
        session[Field.FOREGROUND] = foreground
        session[Field.JOURNAL] = forced == "journal"
        session[Field.STARTED_NS] = time.monotonic_ns()
        reporter.step(f"mount on {config.mountpoint}")
        handed = handed._replace(device=mount.mount(config.mountpoint, name))
        handed.set_inheritable(True)
    except BaseException:
        lock.let_go(name, lock_fd)
        raise
    os.execv(sys.executable, command_line("supervise", name, handed))


def _check_mountpoint(config: Config) -> None:
    path = Path(config.mountpoint)
    if config.swap:
        try:
            path.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            step = f"make {path}"
            raise HostError(step, error.strerror or "", remedy="see df and df -i") from None
    if mount.is_mountpoint(config.mountpoint):
        raise UsageError(
            f"{path} is in use: something is mounted there already",
            remedy=f"umount {path}, or give another directory",
        )
    if not path.is_dir():
        raise UsageError(f"{path} is not a directory", remedy=f"mkdir -p {path}")
