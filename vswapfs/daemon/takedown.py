"""Taking an instance down: swapoff, detach, unmount, in that order, from whatever there is.

Owns the order. Keeps no list of what was set up: it reads what there is from the kernel, so the
same steps undo a finished `on`, one that failed or was killed half way, and what a dead daemon
left behind.
"""

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from vswapfs.daemon import lock, remains
from vswapfs.errors import HostError, InstanceError
from vswapfs.format import instance
from vswapfs.fuse import mount
from vswapfs.host import boost, loop, state, swap
from vswapfs.units import format_size

_UNMOUNT_WAIT_S: Final = 5.0
_KILL_WAIT_S: Final = 5.0
Report = Callable[[str], None]


def is_needed(name: str) -> bool:
    """Whether there is anything to take down."""
    return remains.find(name).is_there or state.is_there(name)


def take_down(name: str, report: Report, *, lazily: bool = False) -> None:
    """Undo everything of an instance. ``lazily`` unmounts even while files are open in it.

    Raises HostError at the first step that fails; the steps after it are not tried, so that what
    is still in use still works, and all of it can be tried again.
    """
    there = remains.find(name)
    for device in there.devices:
        _swap_off(device, report)
        report(f"detach {device}")
        loop.detach(device, there.file)
    remains.forget_device(name)
    if there.mountpoint:
        report(f"unmount {there.mountpoint}")
        _unmount(there.mountpoint, lazily=lazily)
    boost.let_go(name)


def take_down_dead(name: str, report: Report, *, force: bool) -> None:
    """Undo what a daemon that is gone left behind; with ``force`` end a living one first.

    Raises InstanceError when it lives and ``force`` is not set, or there is nothing; HostError
    when pages would be lost and ``force`` is not set, or a step fails.
    """
    instance.check_name(name)
    pid = lock.holder(name)
    if pid and not force:
        raise InstanceError(f"{name} is served by process {pid}", remedy=f"vswapctl off {name}")
    if pid is None and not is_needed(name) and not Path(instance.directory(name)).is_dir():
        raise InstanceError(f"there is no instance {name}", remedy="vswapctl status lists them")
    if pid:
        _end_processes(name, pid, report)
    with lock.hold(name):
        take_down_remains(name, report, force=force)


def take_down_remains(name: str, report: Report, *, force: bool) -> None:
    """The same for whoever holds the lock already."""
    there = remains.find(name)
    areas = swap.active_areas()
    used_bytes = sum(areas[device].used_bytes for device in there.devices if device in areas)
    if used_bytes and not force:
        raise HostError(
            f"take down {name}",
            f"its daemon is gone and with it {format_size(used_bytes)} of swapped memory; "
            f"processes that need these pages get SIGBUS",
            remedy=f"end those processes, then: vswapctl off {name} --force",
        )
    _abort(there, report)
    take_down(name, report, lazily=force)
    state.remove(name)


def _swap_off(device: str, report: Report) -> None:
    area = swap.active_areas().get(device)
    if area is None:
        return
    report(f"swapoff {device} ({format_size(area.used_bytes)} used)")
    swap.off(device)


def _unmount(path: str, *, lazily: bool) -> None:
    deadline = time.monotonic() + _UNMOUNT_WAIT_S
    while True:
        try:
            mount.unmount(path)
            return
        except HostError:
            # The kernel lets go of a detached loop device's file a moment later.
            if time.monotonic() > deadline:
                if not lazily:
                    raise
                mount.unmount(path, lazily=True)
                return
        time.sleep(0.02)


def _end_processes(name: str, supervisor: int, report: Report) -> None:
    with contextlib.ExitStack() as stack:
        pidfds = {}
        for pid in lock.processes(name):
            with contextlib.suppress(ProcessLookupError):
                pidfds[pid] = os.pidfd_open(pid)
                stack.callback(os.close, pidfds[pid])
        # Looked at again, now that no id can become another's. The supervisor first, which would
        # start others.
        found = [pid for pid in lock.processes(name) if pid in pidfds]
        for pid in sorted(found, key=lambda process: process != supervisor):
            report(f"end process {pid}")
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfds[pid], signal.SIGKILL)
        # Before they are waited for: they may wait for a page of this very device, and whoever
        # else does is free even if one of them hangs on, in I/O to a tier.
        _abort(remains.find(name), lambda _text: None)  # it is told when all of it is gone
        for pid in found:
            if not select.select([pidfds[pid]], [], [], _KILL_WAIT_S)[0]:
                raise HostError(
                    f"end process {pid}",
                    "it does not end; those who waited for its pages have got errors",
                    remedy="see dmesg; try again",
                )


def _abort(there: remains.Remains, report: Report) -> None:
    if there.connection is not None:  # else it ended with the last process that had it open
        report(f"abort FUSE connection {there.connection}")
        mount.abort(there.connection)
