"""Puts other processes to rest while the instances still serve, so that none of them waits for a
page when the kernel freezes all tasks.

Owns the cgroups that it freezes (cgroup v2), and a process that thaws them if this one dies. Never
freezes a cgroup with a spared process in it or below: processes beside this one, and all on a
machine without cgroup v2, stay awake. Always holds: a cgroup that somebody else had frozen stays
so.
"""

import contextlib
import errno
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from vswapfs import procfs
from vswapfs.errors import HostError

CGROUPS: Final = Path("/sys/fs/cgroup")
_REST_TIMEOUT_S: Final = 20.0
_POLL_S: Final = 0.01
_GONE: Final = (errno.ENOENT, errno.ENODEV)


@contextlib.contextmanager
def at_rest(spared: set[int]) -> Iterator[list[Path]]:
    """Freeze what can be, and thaw it again at the end, however that comes; yields the cgroups.

    ``spared``: process ids; this process is spared anyway. Raises HostError.
    """
    cgroups = _to_freeze(spared | {os.getpid()})
    with _guardian(cgroups):
        for cgroup in cgroups:
            _write(cgroup / "cgroup.freeze", "1")
        for cgroup in cgroups:
            _await_frozen(cgroup)
        yield cgroups


@contextlib.contextmanager
def _guardian(cgroups: list[Path]) -> Iterator[None]:
    """A process that thaws them when this one says so, or has ended: it would be for good."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    # What ends this process, ctrl-C or a terminal that is closed, comes to all of its group.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            try:
                os.setsid()
                os.close(writing)
                os.read(reading, 1)
                for cgroup in cgroups:
                    with contextlib.suppress(OSError):  # it may be gone
                        (cgroup / "cgroup.freeze").write_bytes(b"0")
            finally:
                os._exit(0)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    os.close(reading)
    try:
        yield
    finally:
        os.close(writing)
        os.waitpid(pid, 0)


def _to_freeze(spared: set[int]) -> list[Path]:
    """The topmost cgroups in which, and below which, is no spared process."""
    if not (CGROUPS / "cgroup.controllers").exists():
        return []
    keep: set[Path] = set()
    for pid in spared:
        with contextlib.suppress(OSError):  # it has ended
            line = procfs.lines(Path(f"/proc/{pid}/cgroup"))[-1]
            cgroup = CGROUPS / line.split(":", 2)[2].lstrip("/")
            keep.update((cgroup, *cgroup.parents))
    return [cgroup for cgroup in _below(CGROUPS, keep) if not _is_frozen_already(cgroup)]


def _below(parent: Path, keep: set[Path]) -> Iterator[Path]:
    for cgroup in sorted(path for path in parent.iterdir() if path.is_dir()):
        if cgroup in keep:
            yield from _below(cgroup, keep)
        else:
            yield cgroup


def _is_frozen_already(cgroup: Path) -> bool:
    return _read(cgroup / "cgroup.freeze", gone="1").strip() == "1"


def _await_frozen(cgroup: Path) -> None:
    deadline_s = time.monotonic() + _REST_TIMEOUT_S
    while "frozen 1" not in _read(cgroup / "cgroup.events", gone="frozen 1"):
        if time.monotonic() > deadline_s:
            raise HostError(
                f"put {cgroup} to rest",
                f"its processes did not come to rest in {_REST_TIMEOUT_S:g} s: some wait in the "
                "kernel",
                remedy=f"see what state D is in: ps -eo pid,stat,wchan:30,cgroup | grep "
                f"{cgroup.name}",
            )
        time.sleep(_POLL_S)


def _read(path: Path, *, gone: str) -> str:
    """``gone``: what is as good as there, if the cgroup has been removed meanwhile."""
    try:
        return path.read_text()
    except OSError as error:
        if error.errno not in _GONE:
            raise HostError(f"read {path}", error.strerror or str(error)) from None
        return gone


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        if error.errno not in _GONE:
            raise HostError(f"write {text} to {path}", error.strerror or str(error)) from None
