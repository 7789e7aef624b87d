"""Which instances there are, and whether their daemons live.

Owns the reading of RUN_DIRECTORY and of the lock files in it, and the choice when no name is given.
Never creates, changes or removes a file, and never speaks to a daemon. A daemon lives exactly as
long as its lock is held.
"""

import fcntl
import time
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, Final

from vswapfs.errors import InstanceError, UsageError
from vswapfs.format import instance

_POLL_S: Final = 0.02


class State(StrEnum):
    RUNNING = "running"
    DEAD = "dead"


def find(name: str) -> State | None:
    """The state of an instance, None if there is none. Raises UsageError for an impossible name."""
    directory = Path(instance.directory(name))
    lock = open_lock(name)
    if lock is None:
        return State.DEAD if directory.is_dir() else None
    with lock:
        return State.RUNNING if _is_held(lock) else State.DEAD


def names() -> list[str]:
    """All instances, dead ones included, in the order of their names."""
    try:
        entries = sorted(Path(instance.RUN_DIRECTORY).iterdir())
    except FileNotFoundError:
        return []
    return [entry.name for entry in entries if _is_name(entry.name) and entry.is_dir()]


def choose(name: str | None) -> str:
    """The instance meant: the one named, the only one there is, or vswap0.

    Raises InstanceError if that does not say which.
    """
    if name is not None:
        return instance.check_name(name)
    present = names()
    if len(present) == 1:
        return present[0]
    if instance.DEFAULT_NAME in present:
        return instance.DEFAULT_NAME
    if present:
        raise InstanceError(
            f"which instance? There are {', '.join(present)}", remedy="give one of these names"
        )
    raise InstanceError("no instance is up", remedy="vswapctl on --size 2G")


def no_such_instance(name: str) -> InstanceError:
    """The error for a name nobody has; it lists those that run."""
    running = [other for other in names() if find(other) is State.RUNNING]
    if not running:
        return InstanceError(
            f"no such instance: {name}; none is up", remedy=f"vswapctl on {name} --size 2G"
        )
    return InstanceError(
        f"no such instance: {name}; running: {', '.join(running)}", remedy="give one of these names"
    )


def dead_instance(name: str) -> InstanceError:
    """The error for an instance whose daemon has ended without clearing up."""
    return InstanceError(
        f"{name} is dead: its daemon ended without clearing up", remedy=f"vswapctl off {name}"
    )


def check_living(name: str) -> None:
    """Raises InstanceError if there is no such instance, or if it is dead."""
    match find(name):
        case None:
            raise no_such_instance(name)
        case State.DEAD:
            raise dead_instance(name)


def open_lock(name: str) -> BinaryIO | None:
    """The lock file, open for wait_released, which works also when the file is removed meanwhile.

    None if there is no such file.
    """
    try:
        return Path(instance.lock_path(name)).open("rb")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def wait_released(lock: BinaryIO, timeout_s: float) -> bool:
    """Wait for the daemon's process to go; False if it is still there after the time-out."""
    deadline_s = time.monotonic() + timeout_s
    while _is_held(lock):
        if time.monotonic() >= deadline_s:
            return False
        time.sleep(_POLL_S)
    return True


def _is_held(lock: BinaryIO) -> bool:
    # A shared lock, so that two commands that look at the same time do not see each other.
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(lock, fcntl.LOCK_UN)
    return False


def _is_name(text: str) -> bool:
    try:
        instance.check_name(text)
    except UsageError:
        return False
    return True
